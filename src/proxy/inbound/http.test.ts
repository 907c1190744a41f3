import assert from "node:assert/strict";
import { test } from "node:test";
import { parseSocketAddress, type SocketAddress } from "#/base/address.ts";
import type { Conn, ConnHandler } from "#/base/conn.ts";
import { SeededRandom } from "#/base/random.ts";
import { LIMITS } from "#/model/limits.ts";
import type { AccessPolicy } from "#/model/access.ts";
import type { InboundPolicy } from "#/model/policy.ts";
import type { InboundLimits } from "#/model/traffic.ts";
import { SILENT } from "#/net/log.ts";
import { ACCESS_OF_ALL, ACCESS_OF_NOBODY } from "#/stack/access/testing.ts";
import type { InboundPort } from "#/stack/discovery.ts";
import { Guard } from "#/stack/http/guard.ts";
import { ManualClock, memoryPair, ScriptedService, type MemoryConn } from "#/stack/http/testing.ts";
import { Http1Server } from "#/stack/http/http1-server.ts";
import { Registry } from "#/stack/metrics/registry.ts";
import type { ControlApi } from "../control/control-api.ts";
import { RetryPressure } from "#/stack/retry/retry-pressure.ts";
import { AccessRecord } from "./access-record.ts";
import { InboundHttpProxy } from "./http.ts";
import { WorkloadLimits } from "./limits.ts";

const NOBODY: ConnHandler = { onData() {}, onEnd() {}, onDrain() {}, onClose() {} };
const TARGET = parseSocketAddress("10.0.0.9:80") as SocketAddress;
const CLIENT = parseSocketAddress("10.0.0.1:4000") as SocketAddress;
function portWith(
  access: AccessPolicy,
  limits: InboundLimits | null,
): InboundPort & { policy: InboundPolicy } {
  const policy: InboundPolicy = {
    protocol: "detect",
    labels: { name: "test" },
    limits,
    access,
    jwt: null,
  };
  return { port: 80, policy, subscribe: () => ({ cancel: () => {} }) };
}

/** Answers nothing. */
class NoControl implements ControlApi {
  readonly isConnected = false;
  readonly #never = { cancel: () => undefined };
  watchOutbound = () => this.#never;
  watchProfile = () => this.#never;
  watchEndpoints = () => this.#never;
  watchPort = () => this.#never;
  leaseQuota = () => this.#never;
  refreshKeys = () => this.#never;
}

/** A client against the proxy, with the application behind it. */
class Scene {
  readonly clock = new ManualClock();
  /** Connections that the application accepted. */
  readonly accepted: MemoryConn[] = [];
  readonly application = new ScriptedService((call) => call.answer(200, ["Content-Length", "2"], "ok"));
  readonly registry = new Registry();
  readonly limits = new WorkloadLimits({
    clock: this.clock,
    log: SILENT,
    registry: this.registry,
    control: new NoControl(),
  });
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
    limits: (port) => this.limits.of(port),
    retryPressure: new RetryPressure(),
    tracesRequests: false,
    access: new AccessRecord(this.registry, SILENT, null),
    tokens: { tokensOf: () => null, refused: () => undefined },
    guard: new Guard(LIMITS, "inbound", this.clock, new Registry()),
  });

  dialled(): MemoryConn {
    const [ours, theirs] = memoryPair(this.clock);
    this.accepted.push(theirs);
    new Http1Server(theirs, this.application, this.clock, () => {});
    return ours;
  }

  talk(
    isPermitted: boolean,
    early: Conn | null,
    port: InboundPort = portWith(isPermitted ? ACCESS_OF_ALL : ACCESS_OF_NOBODY, null),
  ): { client: MemoryConn; answer: () => string } {
    const [client, server] = memoryPair(this.clock);
    let answer = "";
    client.setHandler({ ...NOBODY, onData: (bytes) => (answer += Buffer.from(bytes).toString("latin1")) });
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

const SOURCE = {
  group: "pillion.dev",
  kind: "RateLimitPolicy",
  namespace: "shop",
  name: "web",
  section: "",
  port: 0,
};

function limitsOf(requests: number): InboundLimits {
  const key = { kind: "total" } as const;
  const rate = {
    source: SOURCE,
    matches: [],
    key,
    requests,
    windowMs: 1_000,
    burst: 2,
    scope: "local",
  } as const;
  return { exempt: [], rates: [rate], concurrency: null };
}

test("a port's limits hold on open connections from the next request on, are counted, and outlast changes of policy", () => {
  const scene = new Scene();
  const port = portWith(ACCESS_OF_ALL, null);
  const { client, answer } = scene.talk(true, null, port);
  const ask = (): string => {
    const before = answer().length;
    client.write(GET);
    scene.clock.settle();
    return answer().slice(before);
  };
  for (let i = 0; i < 5; i++) assert.match(ask(), /^HTTP\/1.1 200 /);
  port.policy = { ...port.policy, limits: limitsOf(1) };
  assert.match(ask(), /^HTTP\/1.1 200 /);
  assert.match(ask(), /^HTTP\/1.1 200 /);
  const refused = ask();
  assert.match(refused, /^HTTP\/1.1 429 /);
  assert.match(refused, /retry-after: 1\r\n/i);
  assert.match(refused, /more than 1 requests in 1 s \[RateLimitPolicy\/shop\/web\]/);
  assert.doesNotMatch(refused, /connection: close/i);
  assert.match(
    scene.registry.render(),
    /inbound_http_local_ratelimit_total\{target_port="80",ratelimit_group="pillion.dev",ratelimit_kind="RateLimitPolicy",ratelimit_name="web",ratelimit_scope="total"\} 1/,
  );
  port.policy = { ...port.policy, limits: limitsOf(2) };
  assert.match(ask(), /^HTTP\/1.1 429 /);
  scene.clock.advance(500);
  assert.match(ask(), /^HTTP\/1.1 200 /);
  port.policy = { ...port.policy, limits: null };
  for (let i = 0; i < 5; i++) assert.match(ask(), /^HTTP\/1.1 200 /);
});

test("a client that policy refuses takes nothing from the limits of others", () => {
  const scene = new Scene();
  const port = portWith(ACCESS_OF_NOBODY, limitsOf(1));
  const denied = scene.talk(false, null, port);
  for (let i = 0; i < 5; i++) denied.client.write(GET);
  scene.clock.settle();
  assert.match(denied.answer(), /^HTTP\/1.1 403 /);
  port.policy = { ...port.policy, access: ACCESS_OF_ALL };
  const { client, answer } = scene.talk(true, null, port);
  client.write(GET);
  scene.clock.settle();
  assert.match(answer(), /^HTTP\/1.1 200 /);
});
