/** Opaque connections to endpoints that cannot be reached: how long they wait, and for what. */
import assert from "node:assert/strict";
import { test } from "node:test";
import { parseSocketAddress } from "#/base/address.ts";
import { ConnError } from "#/base/errors.ts";
import { SeededRandom } from "#/base/random.ts";
import type { Endpoint } from "#/model/endpoint.ts";
import type { BackendTraffic } from "#/model/traffic.ts";
import { BACKEND_TRAFFIC_DEFAULTS } from "#/model/traffic.ts";
import { RECONNECT_WAIT_MS } from "#/stack/balance/reconnect-wait.ts";
import type { Cancel, EndpointSource } from "#/stack/discovery.ts";
import { ManualClock, memoryPair } from "#/stack/http/testing.ts";
import { OpaqueDialler, type OpaqueDialled } from "./opaque.ts";

const WAIT_TIMEOUT_MS = 3_000;

/** A Service whose endpoints, by number, can be reached or not. */
class Scene implements EndpointSource {
  readonly key = "web.shop:80";
  readonly clock = new ManualClock();
  readonly dialled: number[] = [];
  readonly reached: string[] = [];
  readonly timeoutsMs = new Set<number | null>();
  readonly dialler: OpaqueDialler;
  state: EndpointSource["state"] = "known";
  endpoints: readonly Endpoint[] = [];
  up = new Set<number>();
  readonly #isMeshed: boolean;
  readonly #changed = new Set<() => void>();

  constructor(numbers: readonly number[], isMeshed = true) {
    this.#isMeshed = isMeshed;
    this.endpoints = numbers.map((number) => this.#endpoint(number));
    this.dialler = new OpaqueDialler({
      clock: this.clock,
      random: new SeededRandom(7),
      waitTimeoutMs: WAIT_TIMEOUT_MS,
      client: { id: "front-1.shop", zone: "" },
      limitReached: (service, limit) => this.reached.push(`${service} ${limit}`),
      dial: ({ address }, _protocol, done, connectTimeoutMs = null) => {
        this.timeoutsMs.add(connectTimeoutMs);
        const number = Number(address.ip.split(".").at(-1));
        this.dialled.push(number);
        this.clock.soon(() => {
          if (this.up.has(number)) done(null, memoryPair(this.clock)[0], null);
          else done(new ConnError("TLS_FAILED", `no ${number}`), null, null);
        });
        return { cancel: () => {} };
      },
    });
  }

  subscribe(changed: () => void): Cancel {
    this.#changed.add(changed);
    return { cancel: () => void this.#changed.delete(changed) };
  }

  set(...numbers: number[]): void {
    const known = new Map(this.endpoints.map((each) => [each.address.ip as string, each]));
    this.endpoints = numbers.map((number) => known.get(`10.0.0.${number}`) ?? this.#endpoint(number));
    for (const changed of this.#changed) changed();
    this.clock.settle();
  }

  /** What became of one connection; "" while it waits. */
  connect(traffic: Partial<BackendTraffic> | null = null): {
    outcome: string;
    dialled: OpaqueDialled | null;
  } {
    const own = { outcome: "", dialled: null as OpaqueDialled | null };
    const whole = traffic === null ? null : { ...BACKEND_TRAFFIC_DEFAULTS, ...traffic };
    this.dialler.dial(this, whole, (error, dialled) => {
      assert.equal(own.outcome, "", "told once");
      own.dialled = dialled;
      own.outcome = dialled === null ? (error?.message ?? "?") : `got ${dialled.endpoint.address.ip}`;
    });
    this.clock.settle();
    return own;
  }

  #endpoint(number: number): Endpoint {
    return {
      address: parseSocketAddress(`10.0.0.${number}:80`)!,
      weight: 10_000,
      identity: this.#isMeshed ? { name: "web", serverName: "web" } : null,
      protocolHint: "opaque",
      tunnelPort: null,
      authorityOverride: null,
      labels: {},
    };
  }
}

test("a connection that no endpoint takes is tried anew with growing pauses, then fails as they did", () => {
  const scene = new Scene([1]);
  const one = scene.connect();
  scene.clock.advance(RECONNECT_WAIT_MS - 1);
  assert.equal(one.outcome, "");
  scene.clock.advance(1);
  assert.equal(one.outcome, "no 1");
  assert.equal(scene.dialled.length, 1 + 5);
  scene.clock.advance(60_000);
  assert.equal(scene.dialled.length, 6, "and is left alone");
});

test("… and goes to the one that is back first", () => {
  const scene = new Scene([1, 2]);
  const one = scene.connect();
  assert.deepEqual(scene.dialled.toSorted(), [1, 2], "each at once");
  scene.up.add(1).add(2);
  scene.clock.advance(70);
  assert.match(one.outcome, /^got 10\.0\.0\.[12]$/);
});

test("a new endpoint is dialled at once by all that wait, and the old ones are not because of it", () => {
  const scene = new Scene([1]);
  const waiting = [scene.connect(), scene.connect()];
  scene.up.add(2);
  scene.set(1);
  assert.deepEqual(scene.dialled, [1, 1]);
  scene.set(1, 2);
  assert.deepEqual(scene.dialled, [1, 1, 2, 2]);
  assert.deepEqual(
    waiting.map(({ outcome }) => outcome),
    ["got 10.0.0.2", "got 10.0.0.2"],
  );
  scene.clock.advance(60_000);
  assert.equal(scene.dialled.length, 4);
});

test("when the endpoints that failed leave, the connection waits for another as if there had been none", () => {
  const scene = new Scene([1]);
  const lucky = scene.connect();
  scene.set();
  scene.clock.advance(RECONNECT_WAIT_MS + 500);
  assert.equal(lucky.outcome, "");
  scene.up.add(2);
  scene.set(2);
  assert.equal(lucky.outcome, "got 10.0.0.2");
  scene.up.clear();
  const late = scene.connect();
  scene.set();
  scene.clock.advance(WAIT_TIMEOUT_MS);
  assert.equal(late.outcome, "no 2");
});

test("a program without a sidecar that is not there is told of at once, and so is a Service that does not exist", () => {
  assert.equal(new Scene([1], false).connect().outcome, "no 1");
  const scene = new Scene([]);
  scene.state = "absent";
  assert.match(scene.connect().outcome, /does not exist/);
});

test("a connection whose client leaves while it waits is not dialled for", () => {
  const scene = new Scene([1]);
  const attempt = scene.dialler.dial(scene, null, () => assert.fail("told nobody"));
  scene.clock.settle();
  attempt.cancel();
  scene.set(1, 2);
  scene.clock.advance(60_000);
  assert.deepEqual(scene.dialled, [1]);
});

test("connections are balanced by the service's policy: as load, and hashed by their source", () => {
  const scene = new Scene([1, 2, 3, 4, 5]);
  for (const number of [1, 2, 3, 4, 5]) scene.up.add(number);
  const roundRobin = { balancing: { algorithm: "round-robin", hashOn: [], boundedLoad: 0 } } as const;
  for (let i = 0; i < 10; i++) scene.connect(roundRobin);
  assert.deepEqual(scene.dialled.toSorted(), [1, 1, 2, 2, 3, 3, 4, 4, 5, 5]);
  const bySource = {
    balancing: { algorithm: "consistent-hash", hashOn: [{ kind: "source" }], boundedLoad: 0 },
    connectTimeoutMs: 77,
  } as const;
  scene.dialled.length = 0;
  scene.timeoutsMs.clear();
  for (let i = 0; i < 10; i++) scene.connect(bySource);
  assert.equal(new Set(scene.dialled).size, 1);
  assert.deepEqual([...scene.timeoutsMs], [77]);
});

test("a connection beyond connectionsMax, or one that would wait beyond pendingMax, is refused at once with the bound", () => {
  const limits = { requestsMax: 0, pendingMax: 1, connectionsMax: 2 };
  const scene = new Scene([1]);
  scene.up.add(1);
  const [first, , third] = [1, 2, 3].map(() => scene.connect({ limits }));
  assert.match(third!.outcome, /2 connections are open .* \(connectionsMax=2\)$/);
  first!.dialled!.release();
  assert.equal(scene.connect({ limits }).outcome, "got 10.0.0.1");
  const empty = new Scene([]);
  assert.equal(empty.connect({ limits }).outcome, "");
  assert.match(empty.connect({ limits }).outcome, /\(pendingMax=1\)$/);
  assert.deepEqual(
    [...scene.reached, ...empty.reached],
    ["web.shop:80 connectionsMax", "web.shop:80 pendingMax"],
  );
});
