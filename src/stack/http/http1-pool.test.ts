import assert from "node:assert/strict";
import { test } from "node:test";
import { ConnError } from "#/base/errors.ts";
import type { ConnHandler } from "#/base/conn.ts";
import { Http1Pool } from "./http1-pool.ts";
import type { MemoryConn } from "./testing.ts";
import { ManualClock, memoryPair, RecordingReply } from "./testing.ts";
import { Request } from "./translate.ts";

const NOBODY: ConnHandler = { onData() {}, onEnd() {}, onDrain() {}, onClose() {} };

/** A pool and an application that answers "/…" with these fields. */
class Scene {
  readonly clock = new ManualClock();
  /** The application's ends, in the order in which they were made. */
  readonly servers: MemoryConn[] = [];
  readonly seen: string[] = [];
  readonly pool: Http1Pool;

  constructor(fields = "") {
    this.pool = new Http1Pool((done) => {
      const [near, server] = memoryPair(this.clock);
      this.servers.push(server);
      server.setHandler({
        ...NOBODY,
        onData: (bytes) => {
          this.seen.push(Buffer.from(bytes).toString("latin1").split(" HTTP")[0]!);
          server.write(Buffer.from(`HTTP/1.1 200 OK\r\n${fields}Content-Length: 0\r\n\r\n`));
        },
        onEnd: () => server.end(),
      });
      this.clock.soon(() => done(null, near));
      return { cancel: () => {} };
    }, this.clock);
  }

  call(method: string, path = "/"): RecordingReply {
    const reply = new RecordingReply();
    const head = { method, path, scheme: "http", authority: "a", version: "1.1" as const };
    this.pool.call(
      new Request({ ...head, absoluteForm: false, upgrade: null, fields: ["Host", "a"] }),
      true,
      reply,
    );
    return reply;
  }
}

for (const how of ["an end", "a reset"] as const) {
  test(`a request that has not left when ${how} is heard may go elsewhere, whatever its method`, () => {
    const scene = new Scene();
    scene.call("POST", "/1");
    scene.clock.settle();
    const reply = scene.call("POST", "/2");
    const near = scene.servers[0]!.peer!;
    if (how === "a reset") near.close(new ConnError("RESET", "gone"));
    else near.hearEnd();
    assert.deepEqual(reply.events, ["fail RESET safe"]);
    scene.clock.settle();
    assert.deepEqual(scene.seen, ["POST /1"], "nothing of it leaves afterwards");
  });

  test(`a request that has left when ${how} is heard is lost, unless it may be repeated (RFC 9110 §9.2.2)`, () => {
    for (const [method, events] of [
      ["POST", ["fail RESET"]],
      ["PATCH", ["fail RESET"]],
      ["GET", ["fail RESET safe"]],
      ["PUT", ["fail RESET safe"]],
    ] as const) {
      const scene = new Scene();
      scene.call("GET");
      scene.clock.settle();
      const server = scene.servers[0]!;
      server.setHandler(NOBODY);
      const reply = scene.call(method);
      scene.clock.settle();
      if (how === "a reset") server.peer!.close(new ConnError("RESET", "gone"));
      else server.end();
      scene.clock.settle();
      assert.deepEqual(reply.events, events, method);
    }
  });
}

test("a connection is idle for less than the server promises, and for 3 s where it promises nothing", () => {
  for (const [fields, idleMs] of [
    ["Keep-Alive: timeout=60, max=99\r\n", 59_000],
    ["keep-alive: max=5, Timeout=2\r\n", 1_000],
    ["Keep-Alive: timeout=1\r\n", 500],
    ["Keep-Alive: timeout=0\r\n", 0],
    ["", 3_000],
  ] as const) {
    const scene = new Scene(fields);
    scene.call("GET");
    scene.clock.settle();
    scene.clock.advance(Math.max(0, idleMs - 1));
    assert.equal(scene.servers[0]!.isClosed, idleMs === 0, fields);
    scene.clock.advance(1);
    assert.ok(scene.servers[0]!.isClosed, fields);
  }
});

test("idle connections of one server end each at its own time, by one timer, which does not outlive them", () => {
  const scene = new Scene();
  for (let i = 0; i < 3; i++) {
    // At once, so that each takes a connection of its own.
    scene.call("GET");
  }
  scene.clock.settle();
  assert.equal(scene.servers.length, 3);
  scene.clock.advance(1_000);
  scene.call("GET");
  scene.clock.settle();
  assert.equal(scene.clock.timersLeft, 1);
  scene.clock.advance(2_000);
  assert.deepEqual(
    scene.servers.map(({ isClosed }) => isClosed),
    [true, true, false],
  );
  scene.clock.advance(1_000);
  assert.ok(scene.servers.every(({ isClosed }) => isClosed));
  assert.equal(scene.clock.timersLeft, 0);
});

test("a server that leaves connections sooner than that is not trusted with what must not be sent twice, for a while", () => {
  const scene = new Scene();
  const used = (method: string): number => {
    scene.call(method);
    scene.clock.settle();
    return scene.servers.length;
  };
  assert.equal(used("POST"), 1);
  scene.clock.advance(400);
  scene.servers[0]!.end();
  scene.clock.settle();
  assert.equal(used("POST"), 2);
  scene.clock.advance(199);
  assert.equal(used("POST"), 2);
  scene.clock.advance(201);
  assert.equal(used("POST"), 3, "half of what it took");
  scene.servers[2]!.end();
  scene.clock.settle();
  assert.equal(used("POST"), 4);
  assert.equal(used("POST"), 5, "at once is never");
  assert.equal(used("GET"), 5);
  scene.clock.advance(60_000);
  assert.equal(used("POST"), 6);
  assert.equal(used("POST"), 6);
});

test("what must not be sent twice goes over no connection that has been idle for more than a second", () => {
  const scene = new Scene();
  const used = (method: string): number => {
    scene.call(method);
    scene.clock.settle();
    return scene.servers.length;
  };
  assert.equal(used("POST"), 1);
  scene.clock.advance(1_000);
  assert.equal(used("POST"), 1);
  scene.clock.advance(1_001);
  assert.equal(used("GET"), 1);
  scene.clock.advance(1_001);
  assert.equal(used("POST"), 2);
});

test("the time that a request took is none in which its connection was idle", () => {
  const scene = new Scene();
  scene.call("POST");
  scene.clock.settle();
  scene.clock.advance(10);
  const server = scene.servers[0]!;
  server.setHandler(NOBODY);
  scene.call("POST");
  scene.clock.settle();
  scene.clock.advance(900);
  server.peer!.close(new ConnError("RESET", "gone"));
  scene.clock.settle();
  scene.call("POST");
  scene.clock.settle();
  assert.equal(scene.servers.length, 2);
  scene.clock.advance(100);
  scene.call("POST");
  scene.clock.settle();
  assert.equal(scene.servers.length, 3, "10 ms is when it left");
});

test("a connection that was made for a request that HTTP/1 cannot say ends; one that served stays as it was", () => {
  const scene = new Scene();
  assert.deepEqual(scene.call("GET", "no path").events, []);
  scene.clock.settle();
  scene.clock.settle();
  assert.deepEqual(scene.seen, []);
  assert.equal(scene.servers[0]!.isClosed, true);
  scene.call("GET");
  scene.clock.settle();
  assert.deepEqual(scene.call("GET", "no path").events, ["fail BAD_REQUEST"]);
  scene.call("GET");
  scene.clock.settle();
  assert.deepEqual(scene.seen, ["GET /", "GET /"]);
  assert.equal(scene.servers.length, 2);
  scene.clock.advance(3_000);
  assert.equal(scene.servers[1]!.isClosed, true);
});
