import assert from "node:assert/strict";
import { test } from "node:test";
import { parseSocketAddress, type SocketAddress } from "#/base/address.ts";
import type { Conn, ConnHandler } from "#/base/conn.ts";
import { SeededRandom } from "#/base/random.ts";
import { LIMITS } from "#/model/limits.ts";
import type { InboundPolicy } from "#/model/policy.ts";
import type { InboundPort } from "#/stack/discovery.ts";
import { Guard } from "#/stack/http/guard.ts";
import { ManualClock, memoryPair, ScriptedService, type MemoryConn } from "#/stack/http/testing.ts";
import { Http1Server } from "#/stack/http/http1-server.ts";
import { Registry } from "#/stack/metrics/registry.ts";
import { InboundHttpProxy } from "./http.ts";

const NOBODY: ConnHandler = { onData() {}, onEnd() {}, onDrain() {}, onClose() {} };
const TARGET = parseSocketAddress("10.0.0.9:80") as SocketAddress;
const CLIENT = parseSocketAddress("10.0.0.1:4000") as SocketAddress;
const ANYBODY: InboundPolicy["authorizations"] = [
  {
    networks: [{ net: "0.0.0.0/0", except: [] }],
    authentication: { kind: "unauthenticated" },
    labels: {},
  },
];

/** A client against the proxy, with the application behind it. */
class Scene {
  readonly clock = new ManualClock();
  /** Connections that the application accepted. */
  readonly accepted: MemoryConn[] = [];
  readonly application = new ScriptedService((call) => call.answer(200, ["Content-Length", "2"], "ok"));
  readonly proxy = new InboundHttpProxy({
    clock: this.clock,
    random: new SeededRandom(1),
    dial: (_target, done) => {
      const conn = this.dialled();
      this.clock.soon(() => done(null, conn));
      return { cancel: () => {} };
    },
    answerer: { side: "server", workload: "web-1.shop" },
    series: () => ({ request() {}, response() {} }),
    guard: new Guard(LIMITS, "inbound", this.clock, new Registry()),
  });

  dialled(): MemoryConn {
    const [ours, theirs] = memoryPair(this.clock);
    this.accepted.push(theirs);
    new Http1Server(theirs, this.application, this.clock, () => {});
    return ours;
  }

  talk(isPermitted: boolean, early: Conn | null): { client: MemoryConn; answer: () => string } {
    const [client, server] = memoryPair(this.clock);
    let answer = "";
    client.setHandler({ ...NOBODY, onData: (bytes) => (answer += Buffer.from(bytes).toString("latin1")) });
    const policy = { authorizations: isPermitted ? ANYBODY : [], labels: {} } as unknown as InboundPolicy;
    const port: InboundPort = { port: 80, policy, subscribe: () => ({ cancel: () => {} }) };
    const context = {
      target: TARGET,
      client: CLIENT,
      peer: null,
      port,
      announced: false,
      spells: false,
      early,
    };
    this.proxy.serve(server, "http1", context, () => {});
    return { client, answer: () => answer };
  }
}

const GET = Buffer.from("GET / HTTP/1.1\r\nHost: x\r\n\r\n");

test("a client that may not use the port makes the proxy keep nothing of the application", () => {
  const scene = new Scene();
  const { client, answer } = scene.talk(false, null);
  client.write(GET);
  scene.clock.settle();
  assert.match(answer(), /^HTTP\/1.1 403 /);
  assert.equal(scene.proxy.applicationCount, 0);
  assert.equal(scene.accepted.length, 0);
});

test("an application that no client is connected to any more is forgotten", () => {
  const scene = new Scene();
  const { client, answer } = scene.talk(true, null);
  client.write(GET);
  scene.clock.settle();
  assert.match(answer(), /^HTTP\/1.1 200 /);
  assert.equal(scene.proxy.applicationCount, 1);
  client.end();
  scene.clock.advance(60_000);
  assert.equal(scene.proxy.applicationCount, 0);
  assert.ok(scene.accepted[0]?.isClosed, "its connections are ended");
});

test("the connection that detection opened serves the first request, so that none stands idle beside it", () => {
  const scene = new Scene();
  const { client, answer } = scene.talk(true, scene.dialled());
  client.write(GET);
  scene.clock.settle();
  assert.match(answer(), /^HTTP\/1.1 200 /);
  assert.equal(
    scene.accepted.length,
    1,
    "an application that takes one connection at a time would stall at two",
  );
  client.write(GET);
  scene.clock.settle();
  assert.equal(scene.application.calls.length, 2);
  client.end();
  scene.clock.settle();
  assert.ok(scene.accepted[0]?.isClosed);
});
