import assert from "node:assert/strict";
import { test } from "node:test";
import type { Conn } from "#/base/conn.ts";
import type { ConnError } from "#/base/errors.ts";
import { CARRIER_IDLE_MS } from "#/stack/carrier/client-carrier.ts";
import { SeededRandom, type Random } from "#/base/random.ts";
import type { Accepted } from "#/net/transport.ts";
import type { HttpService } from "#/stack/http/exchange.ts";
import { Http1Server } from "#/stack/http/http1-server.ts";
import { at, identityOf, SimMesh, type SimPod } from "./sim-mesh.ts";

const SEEDS = Number(process.env["SIM_SEEDS"] ?? 25);
const FIRST_SEED = Number(process.env["SIM_SEED"] ?? 1);
const VIP = "10.9.0.1";

/** Runs `scenario` for many seeds; a failure names the seed, and `SIM_SEED=n SIM_SEEDS=1` plays it again. */
function forSeeds(name: string, scenario: (mesh: SimMesh) => void): void {
  test(name, () => {
    for (let seed = FIRST_SEED; seed < FIRST_SEED + SEEDS; seed++) {
      try {
        scenario(new SimMesh(new SeededRandom(seed)));
      } catch (error) {
        throw new Error(`seed ${seed}`, { cause: error });
      }
    }
  });
}

type Behaviour = "echo" | "greet" | "reset";

/** An application that echoes, greets first, or resets after some bytes. */
function serve(pod: SimPod, port: number, behaviour: Behaviour): void {
  pod.host.listen(port, (conn) => {
    let bytes = 0;
    conn.setHandler({
      onData: (data) => {
        bytes += data.length;
        if (behaviour === "reset" && bytes > 1000) conn.reset();
        else if (!conn.write(data)) conn.pause();
      },
      onEnd: () => conn.end(),
      onDrain: () => conn.resume(),
      onClose: () => undefined,
    });
    if (behaviour === "greet") conn.write(Buffer.from("220 "));
  });
}

interface Flow {
  readonly sent: Buffer;
  received: Buffer[];
  ended: boolean;
  closed: boolean;
  error: ConnError | null;
}

/** A client that sends `sent` in pieces, then ends its half, and keeps what it hears. */
function flow(mesh: SimMesh, from: SimPod, port: number, sent: Buffer): Flow {
  const own: Flow = { sent, received: [], ended: false, closed: false, error: null };
  const { clock, random } = mesh;
  from.host.dial(at(VIP, port), (error, conn) => {
    if (conn === null) {
      own.error = error;
      own.closed = true;
      return;
    }
    conn.setHandler({
      onData: (bytes) => {
        own.received.push(Buffer.from(bytes));
        // A slow reader now and then: back-pressure has to reach the far end.
        if (random.next() < 0.1) {
          conn.pause();
          clock.after(20 * random.next(), () => conn.resume());
        }
      },
      onEnd: () => void (own.ended = true),
      onDrain: () => undefined,
      onClose: (why) => {
        own.error = why;
        own.closed = true;
      },
    });
    sendPieces(conn, sent, random, (afterMs, task) => clock.after(afterMs, task));
  });
  return own;
}

function sendPieces(
  conn: Conn,
  sent: Buffer,
  random: Random,
  after: (afterMs: number, task: () => void) => void,
): void {
  const size = Math.ceil((1 + sent.length) * random.next() * random.next());
  conn.write(Uint8Array.from(sent.subarray(0, size)));
  const rest = sent.subarray(size);
  if (rest.length === 0) conn.end();
  else after(15 * random.next() * random.next(), () => sendPieces(conn, rest, random, after));
}

/** Bytes that no HTTP grammar begins with, or that look like HTTP for a while. */
function payload(random: Random): Buffer {
  const bytes = Buffer.alloc(Math.ceil(150_000 * random.next() ** 5), "abcdefghijklmnopqrstuvwxyz0123456789");
  bytes[0] = random.next() < 0.5 ? 0 : 0x50;
  if (bytes.length > 2) bytes[2] = 0;
  return bytes;
}

function meshOfThree(mesh: SimMesh): { client: SimPod; servers: SimPod[] } {
  const client = mesh.pod("client", "10.1.0.1", { isMeshed: true });
  const servers = [2, 3, 4].map((n) => mesh.pod(`server-${n}`, `10.1.0.${n}`, { isMeshed: n !== 4 }));
  return { client, servers };
}

function publish(mesh: SimMesh, port: number, servers: readonly SimPod[]): void {
  mesh.control.service(at(VIP, port), `svc:${port}`, "detect");
  mesh.control.endpoints(
    `svc:${port}`,
    servers.map((pod) => mesh.endpoint(pod, port)),
  );
}

forSeeds("opaque bytes come back whole, and ends stay ends", (mesh) => {
  const { client, servers } = meshOfThree(mesh);
  for (const pod of servers) serve(pod, 7000, "echo");
  publish(mesh, 7000, servers);
  const flows = Array.from({ length: 12 }, () => flow(mesh, client, 7000, payload(mesh.random)));
  mesh.clock.runUntil(() => flows.every(({ closed }) => closed), "all flows are over");
  for (const { sent, received, ended, error } of flows) {
    assert.equal(error, null);
    assert.equal(ended, true);
    assert.equal(Buffer.compare(Buffer.concat(received), sent), 0);
  }
  mesh.clock.run(200);
  assert.equal(client.sidecar?.outbound.connections.count, 0, "nothing is left open");
  // One carrier to each that was asked, for a while.
  for (const { sidecar } of servers) assert.ok((sidecar?.inbound.connections.count ?? 0) <= 1);
  mesh.clock.run(CARRIER_IDLE_MS + 1_000);
  for (const { sidecar } of servers) assert.equal(sidecar?.inbound.connections.count ?? 0, 0);
});

test("an opaque connection that says nothing for a day is still there, also with one half ended", () => {
  const mesh = new SimMesh(new SeededRandom(FIRST_SEED));
  const { client, servers } = meshOfThree(mesh);
  for (const pod of servers) {
    serve(pod, 7000, "echo");
    serve(pod, 7001, "greet");
  }
  // Hears its client out, and answers when it likes.
  let slow: Conn | null = null;
  servers[0]?.host.listen(7002, (conn) => {
    slow = conn;
    conn.setHandler({ onData: () => {}, onEnd: () => {}, onDrain: () => {}, onClose: () => {} });
  });
  publish(mesh, 7000, servers);
  publish(mesh, 7001, servers);
  publish(mesh, 7002, servers.slice(0, 1));
  const held: { conn: Conn; heard: string; error: ConnError | null }[] = [];
  for (const port of [7000, 7000, 7000, 7000, 7001, 7001, 7002]) {
    client.host.dial(at(VIP, port), (error, conn) => {
      assert.ok(conn !== null, String(error));
      const own = { conn, heard: "", error: null as ConnError | null };
      held.push(own);
      conn.setHandler({
        onData: (bytes) => void (own.heard += Buffer.from(bytes).toString("latin1")),
        onEnd: () => {},
        onDrain: () => {},
        onClose: (why) => void (own.error = why),
      });
      if (port !== 7001) conn.write(Buffer.from("\0hello "));
      if (port === 7002) conn.end();
    });
  }
  const answered = (): number => held.filter(({ heard }) => heard !== "").length;
  mesh.clock.runUntil(() => answered() === 6 && slow !== null, "all but the slow one have been answered");
  mesh.clock.run(24 * 3_600_000);
  assert.deepEqual(
    held.map(({ error }) => error),
    held.map(() => null),
  );
  for (const { conn } of held) conn.write(Buffer.from("later"));
  (slow as Conn | null)?.write(Buffer.from("later"));
  mesh.clock.runUntil(() => held.every(({ heard }) => heard.endsWith("later")), "all are answered again");
});

forSeeds("a server that speaks first is heard, and a reset stays a reset", (mesh) => {
  const { client, servers } = meshOfThree(mesh);
  for (const pod of servers) {
    serve(pod, 7001, "greet");
    serve(pod, 7002, "reset");
  }
  publish(mesh, 7001, servers);
  publish(mesh, 7002, servers);
  const resets = Array.from({ length: 6 }, () => flow(mesh, client, 7002, Buffer.alloc(50_000, 0)));
  for (let i = 0; i < 6; i++) {
    const heard: Buffer[] = [];
    const startedAtMs = mesh.clock.nowMs();
    client.host.dial(at(VIP, 7001), (_error, conn) => {
      conn?.setHandler({
        onData: (bytes) => void heard.push(Buffer.from(bytes)),
        onEnd: () => undefined,
        onDrain: () => undefined,
        onClose: () => undefined,
      });
    });
    mesh.clock.runUntil(() => Buffer.concat(heard).toString() === "220 ", "the greeting");
    assert.ok(mesh.clock.nowMs() - startedAtMs < 40, `${mesh.clock.nowMs() - startedAtMs} ms`);
  }
  mesh.clock.runUntil(() => resets.every(({ closed }) => closed), "all resets were seen");
  for (const { error, ended } of resets) {
    assert.equal(error?.code, "RESET");
    assert.equal(ended, false);
  }
});

forSeeds("a dead endpoint is gone around, and no endpoint at all ends in a reset", (mesh) => {
  const { client, servers } = meshOfThree(mesh);
  const [first, ...rest] = servers as [SimPod, ...SimPod[]];
  for (const pod of servers) serve(pod, 7000, "echo");
  publish(mesh, 7000, servers);
  first.host.kill();
  const flows = Array.from({ length: 10 }, () => flow(mesh, client, 7000, Buffer.from([0, 1, 2])));
  mesh.clock.runUntil(() => flows.every(({ closed }) => closed), "all flows are over");
  for (const { error, received } of flows) {
    assert.equal(error, null);
    assert.deepEqual([...Buffer.concat(received)], [0, 1, 2]);
  }
  for (const pod of rest) pod.host.kill();
  const hopeless = flow(mesh, client, 7000, Buffer.from([0]));
  mesh.clock.runUntil(() => hopeless.closed, "it is over");
  assert.equal(hopeless.error?.code, "RESET");
});

forSeeds("a peer that cannot prove itself gets nowhere", (mesh) => {
  const client = mesh.pod("client", "10.1.0.1", {
    isMeshed: true,
    flaw: mesh.random.next() < 0.5 ? "expired" : "unknown_issuer",
  });
  const server = mesh.pod("server", "10.1.0.2", { isMeshed: true });
  let reached = 0;
  server.host.listen(7000, () => void reached++);
  publish(mesh, 7000, [server]);
  const refused = flow(mesh, client, 7000, Buffer.from([0, 1]));
  mesh.clock.runUntil(() => refused.closed, "it is over");
  assert.equal(refused.error?.code, "RESET");
  assert.equal(reached, 0);
  assert.match(server.registry.render(), /inbound_tcp_errors_total\{error="(expired|unknown_issuer)"/);
});

forSeeds(
  "known targets are served while the control plane is away, for hours and on new connections",
  (mesh) => {
    const { client, servers } = meshOfThree(mesh);
    for (const pod of servers) serve(pod, 7000, "echo");
    publish(mesh, 7000, servers);
    const once = (): Flow => {
      const own = flow(mesh, client, 7000, Buffer.from([0, 7]));
      mesh.clock.runUntil(() => own.closed, "the flow is over");
      return own;
    };
    assert.equal(once().error, null);
    mesh.control.setAway(true);
    mesh.clock.run(3 * 3600_000 * mesh.random.next());
    assert.equal(once().error, null);
    const unknown = flow(mesh, client, 7999, Buffer.from([0]));
    mesh.clock.runUntil(() => unknown.closed, "an unknown target fails within its bound", 3100);
    assert.equal(unknown.error?.code, "RESET");
    assert.match(
      client.registry.render(),
      /outbound_tcp_errors_total\{target_addr="10.9.0.1:7999",error="no_answer"\} 1/,
    );
    publish(mesh, 7999, servers);
    for (const pod of servers) serve(pod, 7999, "echo");
    mesh.control.setAway(false);
    mesh.clock.run(10);
    const found = flow(mesh, client, 7999, Buffer.from([0]));
    mesh.clock.runUntil(() => found.closed, "it is over");
    assert.equal(found.error, null);
  },
);

/** Answers every request with its path, after a while. */
function web(mesh: SimMesh, pod: SimPod, port: number): void {
  const service: HttpService = {
    call: (head, last, reply) => {
      const finish = (): void => {
        mesh.clock.after(5 * mesh.random.next(), () => {
          const text = Buffer.from(`${pod.name}${head.path}`);
          reply.head(
            { status: 200, version: "1.1", reason: "OK", fields: ["content-length", String(text.length)] },
            false,
          );
          reply.body(text, 0, text.length);
          reply.finish(null);
        });
      };
      if (last) finish();
      return {
        data: (_bytes, start, stop) => reply.requestConsumed(stop - start),
        end: finish,
        abort: () => undefined,
        responseConsumed: () => undefined,
      };
    },
  };
  pod.host.listen(port, (conn) => void new Http1Server(conn, service, mesh.clock, () => undefined));
}

/** One keep-alive connection that asks `count` times, one after the other. */
function browse(mesh: SimMesh, from: SimPod, count: number): { answers: string[]; error: ConnError | null } {
  const own = { answers: [] as string[], error: null as ConnError | null };
  from.host.dial(at(VIP, 80), (_error, conn) => {
    let text = "";
    const ask = (): void => {
      const request = Buffer.from(`GET /${own.answers.length} HTTP/1.1\r\nHost: web\r\n\r\n`);
      const cut = Math.ceil(request.length * mesh.random.next());
      conn?.write(Uint8Array.from(request.subarray(0, cut)));
      mesh.clock.after(2 * mesh.random.next(), () => conn?.write(Uint8Array.from(request.subarray(cut))));
    };
    conn?.setHandler({
      onData: (bytes) => {
        text += Buffer.from(bytes).toString("latin1");
        const match = /^HTTP\/1\.1 (\d+)[^]*?\r\n\r\n/.exec(text);
        const length = match === null ? null : /content-length: (\d+)/i.exec(match[0]);
        if (match === null || length === null || text.length < match[0].length + Number(length[1])) return;
        own.answers.push(`${match[1]} ${text.slice(match[0].length)}`);
        text = "";
        if (own.answers.length < count) ask();
        else conn.end();
      },
      onEnd: () => conn.end(),
      onDrain: () => undefined,
      onClose: (error) => void (own.error = error),
    });
    ask();
  });
  return own;
}

forSeeds("a pod that asks its own service is spoken to as an application, as are its siblings", (mesh) => {
  const { servers } = meshOfThree(mesh);
  for (const pod of servers) web(mesh, pod, 80);
  publish(mesh, 80, servers);
  const users = Array.from({ length: 6 }, () => browse(mesh, servers[0] as SimPod, 5));
  mesh.clock.runUntil(() => users.every(({ answers }) => answers.length === 5), "all are answered");
  for (const { answers } of users) for (const answer of answers) assert.match(answer, /^200 /);
});

forSeeds(
  "HTTP is balanced over what is there, through a rollout and an absent control plane, without a failed request",
  (mesh) => {
    const { client, servers } = meshOfThree(mesh);
    const [one, two, three] = servers as [SimPod, SimPod, SimPod];
    for (const pod of servers) web(mesh, pod, 80);
    publish(mesh, 80, [one, two]);
    const users = Array.from({ length: 8 }, () => browse(mesh, client, 40));
    mesh.clock.run(60 * mesh.random.next());
    // `one` leaves as a pod is told to: out of discovery first, then drained.
    publish(mesh, 80, [two, three]);
    mesh.clock.run(5);
    one.sidecar?.inbound.connections.drain();
    mesh.control.setAway(true);
    mesh.clock.runUntil(
      () => users.every(({ answers }) => answers.length === 40),
      "everybody has their answers",
    );
    for (const { answers } of users) {
      answers.forEach((answer, i) => assert.match(answer, new RegExp(`^200 server-[234]/${i}$`)));
    }
    const seen = new Set(users.flatMap(({ answers }) => answers.map((answer) => answer.slice(0, 12))));
    assert.ok(seen.has("200 server-3") && seen.has("200 server-4"), "both were used");
    assert.match(
      two.registry.render(),
      new RegExp(`request_total\\{direction="inbound".*client_id="${identityOf("client")}"\\} \\d+`),
    );
  },
);

forSeeds(
  "whoever hears late that a server has gone loses nothing: it serves while it drains, and what comes after waits for word",
  (mesh) => {
    const { client, servers } = meshOfThree(mesh);
    const [one, two] = servers as [SimPod, SimPod, SimPod];
    for (const pod of servers) web(mesh, pod, 80);
    publish(mesh, 80, [one]);
    const users = Array.from({ length: 3 }, () => browse(mesh, client, 150));
    const answered = (): number => users.reduce((sum, { answers }) => sum + answers.length, 0);
    mesh.clock.run(100 * mesh.random.next());
    one.sidecar?.inbound.connections.drain();
    mesh.clock.run(100);
    const early = answered();
    mesh.clock.run(100);
    assert.ok(answered() > early, "it serves while it drains");
    // Its program ends, then its sidecar, then word of it comes.
    one.host.stopListening(80);
    one.sidecar?.inbound.connections.close();
    mesh.clock.run(200 * mesh.random.next());
    one.host.intercept(cut, cut);
    mesh.clock.run(200 * mesh.random.next());
    publish(mesh, 80, [two]);
    mesh.clock.runUntil(
      () => users.every(({ answers, error }) => answers.length === 150 || error !== null),
      "everybody has their answers",
    );
    for (const { answers, error } of users) {
      assert.equal(error, null);
      answers.forEach((answer, i) => assert.match(answer, new RegExp(`^200 server-[23]/${i}$`)));
      assert.match(answers.at(-1)!, /server-3/);
    }
  },
);

function cut({ conn }: Accepted): void {
  conn.reset();
}

test("the same seed gives the same run", () => {
  const trace = (): string => {
    const mesh = new SimMesh(new SeededRandom(7));
    const { client, servers } = meshOfThree(mesh);
    for (const pod of servers) web(mesh, pod, 80);
    publish(mesh, 80, servers);
    const users = Array.from({ length: 4 }, () => browse(mesh, client, 10));
    mesh.clock.runUntil(() => users.every(({ answers }) => answers.length === 10), "all are answered");
    return JSON.stringify([mesh.clock.nowMs(), users.map(({ answers }) => answers)]);
  };
  assert.equal(trace(), trace());
});
