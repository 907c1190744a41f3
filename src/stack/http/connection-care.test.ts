import assert from "node:assert/strict";
import { test } from "node:test";
import { parseIp } from "#/base/address.ts";
import { ConnError } from "#/base/errors.ts";
import { SeededRandom } from "#/base/random.ts";
import type { Endpoint } from "#/model/endpoint.ts";
import { LIMITS, type Limits } from "#/model/limits.ts";
import { Event, Http2Connection } from "#/wire/http2/connection.ts";
import type { Dial } from "../discovery.ts";
import { EndpointClient } from "./endpoint-client.ts";
import { fault } from "./fault.ts";
import { HEAD_BOUND } from "./head-bound.ts";
import { Http2Server } from "./http2-server.ts";
import {
  ManualClock,
  memoryPair,
  type MemoryConn,
  RecordingReply,
  requestHead,
  type ScriptedCall,
  ScriptedService,
} from "./testing.ts";

/** An endpoint behind a dial that counts; what each connection meets is the test's to say. */
class Scene {
  readonly clock = new ManualClock();
  readonly far: MemoryConn[] = [];
  readonly service = new ScriptedService();
  readonly client: EndpointClient;

  constructor(options: {
    readonly meshed: boolean;
    readonly streamsMax?: number;
    readonly limits?: Partial<Limits>;
    readonly meet?: (conn: MemoryConn, number: number) => void;
  }) {
    const serve = (conn: MemoryConn): void =>
      void new Http2Server(conn, this.service, this.clock, () => {}, {
        meshed: options.meshed,
        clientId: null,
        machine: { maxConcurrentStreams: options.streamsMax ?? 1024 },
      });
    const dial: Dial = (_endpoint, _protocol, done) => {
      const [near, far] = memoryPair(this.clock);
      this.far.push(far);
      (options.meet ?? serve)(far, this.far.length);
      this.clock.soon(() => done(null, near, null));
      return { cancel: () => {} };
    };
    const endpoint: Endpoint = {
      address: { ip: parseIp("10.0.0.1")!, port: 80 },
      weight: 10_000,
      identity: options.meshed ? { name: "far", serverName: "far" } : null,
      protocolHint: "http2",
      tunnelPort: null,
      authorityOverride: null,
      labels: {},
    };
    const limits = { ...LIMITS, ...options.limits };
    this.client = new EndpointClient(endpoint, dial, this.clock, new SeededRandom(1), {
      limits,
      heads: HEAD_BOUND,
    });
  }

  call(method = "GET"): RecordingReply {
    const reply = new RecordingReply();
    this.client.call(requestHead(method), true, reply);
    this.clock.settle();
    return reply;
  }
}

test("a far sidecar that answers no PING is given up: what may be repeated is, the rest fails (RFC 9110 §9.2.2)", () => {
  const scene = new Scene({ meshed: true });
  const read = scene.call("GET");
  const write = scene.call("POST");
  scene.far[0]!.pause();
  scene.clock.advance(LIMITS.keepAliveMs + LIMITS.keepAliveTimeoutMs - 1);
  assert.deepEqual([...read.events, ...write.events], []);
  scene.clock.advance(2);
  assert.deepEqual(read.events, ["fail RESET safe"]);
  assert.deepEqual(write.events, ["fail RESET"]);
  scene.call();
  assert.equal(scene.far.length, 2, "the next request gets another connection");
});

test("… also while nothing is asked of it", () => {
  const scene = new Scene({ meshed: true });
  scene.call();
  scene.service.calls[0]!.answer(200, [], "");
  scene.clock.settle();
  scene.far[0]!.pause();
  scene.clock.advance(LIMITS.keepAliveIdleMs + LIMITS.keepAliveTimeoutMs + 1);
  scene.call();
  assert.equal(scene.far.length, 2);
});

test("a request after a silence is accompanied by a PING, so that a dead connection is known soon", () => {
  const scene = new Scene({ meshed: true });
  scene.call();
  scene.service.calls[0]!.answer(200, [], "");
  scene.clock.advance(LIMITS.keepAliveIdleMs - 1);
  scene.far[0]!.pause();
  const reply = scene.call();
  scene.clock.advance(LIMITS.keepAliveTimeoutMs + 2);
  assert.deepEqual(reply.events, ["fail RESET safe"]);
});

for (const [what, lateMs, isTimerFirst] of [
  ["read before the deadline is looked at", 500, false],
  ["in hand when a long stall is over, though the timer is first", 5_000, true],
] as const) {
  test(`an answer to a PING counts when it is ${what}`, () => {
    const scene = new Scene({ meshed: true });
    const reply = scene.call("POST");
    scene.far[0]!.pause();
    scene.clock.advance(LIMITS.keepAliveMs + 1);
    scene.clock.stall(LIMITS.keepAliveTimeoutMs + lateMs);
    if (isTimerFirst) scene.clock.advance(0);
    scene.far[0]!.resume();
    scene.clock.advance(LIMITS.keepAliveMs);
    assert.deepEqual(reply.events, []);
    // It is asked again, and this time nobody stalls.
    scene.far[0]!.pause();
    scene.clock.advance(LIMITS.keepAliveMs + LIMITS.keepAliveTimeoutMs + 1);
    assert.deepEqual(reply.events, ["fail RESET"]);
  });
}

test("without a limit on its answer a silent far sidecar is kept", () => {
  const scene = new Scene({ meshed: true, limits: { keepAliveTimeoutMs: 0 } });
  const reply = scene.call();
  scene.far[0]!.pause();
  scene.clock.advance(600_000);
  scene.far[0]!.resume();
  scene.service.calls[0]!.answer(200, [], "");
  scene.clock.settle();
  assert.equal(reply.status, 200);
});

test("a far sidecar that answers PING is kept, however long it takes to answer the request", () => {
  const scene = new Scene({ meshed: true });
  const reply = scene.call();
  scene.clock.advance(600_000);
  scene.service.calls[0]!.answer(200, [], "");
  scene.clock.settle();
  assert.equal(reply.status, 200);
  assert.equal(scene.far.length, 1);
});

test("a request given back by a connection that broke goes over another, also when it is sent again at once", () => {
  const scene = new Scene({ meshed: false });
  scene.call();
  const again = new RecordingReply();
  const reply = new RecordingReply();
  reply.fail = (cause) => {
    assert.ok(cause.safe, "nothing of it had left");
    scene.client.call(requestHead(), true, again);
  };
  scene.client.call(requestHead(), true, reply);
  scene.far[0]!.peer!.close(new ConnError("RESET", "reset"));
  scene.clock.settle();
  assert.equal(scene.far.length, 2);
  scene.service.calls.at(-1)!.answer(204, [], "");
  scene.clock.settle();
  assert.deepEqual(again.events, ["head 204 last"]);
});

test("an extended CONNECT waits for the server's SETTINGS, whatever else makes room (RFC 8441 §3)", () => {
  const settings = new Http2Connection({ role: "server", connectProtocol: true });
  const scene = new Scene({
    meshed: false,
    meet: (far) => {
      far.setHandler({
        onData: (bytes) => settings.feed(bytes),
        onEnd() {},
        onDrain() {},
        onClose() {},
      });
    },
  });
  const plain = scene.client.call(requestHead(), true, new RecordingReply());
  scene.clock.settle();
  const socket = new RecordingReply();
  scene.client.call({ ...requestHead("CONNECT"), upgrade: "websocket" }, false, socket);
  plain.abort(fault("CANCELLED", "gone"));
  scene.clock.settle();
  assert.equal(scene.far.length, 1, "not opened as an Upgrade of HTTP/1.1");
  scene.far[0]!.write(settings.takeOutput()!);
  scene.clock.settle();
  const streams: number[] = [];
  for (let event = settings.next(); event !== Event.NOTHING; event = settings.next())
    if (event === Event.HEADERS) streams.push(settings.streamId);
  assert.deepEqual(streams, [1, 3]);
  assert.deepEqual(socket.events, []);
});

test("an application is never asked: some count PINGs as an attack", () => {
  const scene = new Scene({ meshed: false });
  const reply = scene.call();
  const before = scene.far[0]!.peer!.written.length;
  scene.clock.advance(600_000);
  assert.equal(scene.far[0]!.peer!.written.length, before);
  assert.deepEqual(reply.events, []);
});

test("an aged connection finishes what it carries, and what is new goes over another", () => {
  const scene = new Scene({ meshed: true, limits: { ageMs: 60_000 } });
  const old = scene.call();
  scene.clock.advance(66_001);
  const fresh = scene.call();
  assert.equal(scene.far.length, 2);
  for (const call of scene.service.calls) call.answer(200, [], "");
  scene.clock.settle();
  assert.equal(old.status, 200);
  assert.equal(fresh.status, 200);
  assert.ok(scene.far[0]!.isClosed, "the old one ends");
  assert.ok(!scene.far[1]!.isClosed);
});

test("who gives up many requests costs its neighbours nothing: theirs finish, and the next go over a fresh connection", () => {
  const scene = new Scene({ meshed: true });
  const neighbour = scene.call();
  for (let i = 0; i < 3000; i++) {
    scene.client
      .call(requestHead(), true, new RecordingReply())
      .abort(fault("CANCELLED", "the client went away"));
    scene.clock.settle();
  }
  assert.deepEqual(neighbour.events, []);
  scene.service.calls[0]!.answer(200, [], "");
  const fresh = scene.call();
  scene.service.calls.at(-1)!.answer(200, [], "");
  scene.clock.settle();
  assert.equal(neighbour.status, 200);
  assert.equal(fresh.status, 200);
  assert.ok(scene.far[0]!.isClosed, "the first ends once its last request has");
});

test("GOAWAY gives back the requests above its last stream and finishes the others (RFC 9113 §6.8)", () => {
  const machine = new Http2Connection({ role: "server" });
  let conn: MemoryConn | null = null;
  const scene = new Scene({
    meshed: true,
    meet: (far) => {
      conn = far;
      far.setHandler({
        onData: (bytes) => {
          machine.feed(bytes);
          while (machine.next() !== Event.NOTHING);
        },
        onEnd: () => {},
        onDrain: () => {},
        onClose: () => {},
      });
    },
  });
  const below = scene.call("POST");
  const above = scene.call("POST");
  machine.takeOutput();
  // SETTINGS, then GOAWAY with stream 1 as the last one, as a server that has not looked at stream 3.
  conn!.write(Buffer.from("000000040000000000" + "0000080700000000000000000100000000", "hex"));
  scene.clock.settle();
  assert.deepEqual(above.events, ["fail REFUSED safe"]);
  assert.deepEqual(below.events, []);
  machine.respond(1, [":status", "204"], true);
  conn!.write(machine.takeOutput()!);
  scene.clock.settle();
  assert.deepEqual(below.events, ["head 204 last"]);
});

test("requests over the server's limit of streams wait their turn, and only so many (RFC 9113 §5.1.2)", () => {
  const scene = new Scene({ meshed: true, streamsMax: 1 });
  const replies = Array.from({ length: 1 + WAITING + 1 }, () => scene.call());
  assert.equal(scene.service.calls.length, 1);
  assert.deepEqual(replies.at(-1)!.events, ["fail OVERLOADED safe"]);
  for (let i = 0; i < 1 + WAITING; i++) {
    scene.service.calls[i]!.answer(204, [], "");
    scene.clock.settle();
  }
  assert.ok(replies.slice(0, -1).every((reply) => reply.status === 204));
  assert.equal(scene.far.length, 1);
});

test("what a server does not read is bounded: requests past it wait, and those given up leave nothing behind", () => {
  const scene = new Scene({ meshed: false });
  scene.call();
  scene.far[0]!.pause();
  for (let i = 0; i < 5_000; i++) {
    const path = `/${i}${"x".repeat(1_000)}`;
    const sink = scene.client.call({ ...requestHead(), path }, true, new RecordingReply());
    scene.clock.settle();
    sink.abort(fault("CANCELLED", "gone"));
  }
  for (let i = 0; i < 10; i++) scene.call("PUT");
  scene.far[0]!.resume();
  scene.clock.settle();
  assert.ok(scene.far[0]!.peer!.written.length < 1_000_000, `${scene.far[0]!.peer!.written.length} bytes`);
  assert.equal(scene.service.calls.filter((call) => call.head.method === "PUT").length, 10);
});

test("clients that do not read their answers hold up nobody else (RFC 9113 §5.2.1)", () => {
  const scene = new Scene({ meshed: true });
  const answer = Buffer.alloc(256 * 1024, "x").toString("latin1");
  for (let i = 0; i < 200; i++) {
    scene.call();
    scene.service.calls[i]!.answer(200, [], answer);
    scene.clock.settle();
  }
  const reader = scene.call();
  scene.service.calls[200]!.answer(200, [], "hello");
  scene.clock.settle();
  assert.equal(reader.body_, "hello");
  assert.ok(scene.far.length > 1 && scene.far.length < 10, `${scene.far.length} connections`);
});

test("… nor do uploads that the application does not take", () => {
  const scene = new Scene({ meshed: true });
  const upload = (bytes: number, isTaken: boolean): ScriptedCall => {
    const sink = scene.client.call(requestHead("POST"), false, new RecordingReply());
    scene.clock.settle();
    const call = scene.service.calls.at(-1)!;
    call.holdCredit = !isTaken;
    sink.data(new Uint8Array(bytes), 0, bytes);
    sink.end(null);
    scene.clock.settle();
    return call;
  };
  for (let i = 0; i < 200; i++) upload(256 * 1024, false);
  assert.ok(upload(1_000_000, true).ended);
  assert.ok(scene.far.length > 1 && scene.far.length < 10, `${scene.far.length} connections`);
});

/** How many `Http2Client` lets wait. */
const WAITING = 1024;
