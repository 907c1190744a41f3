/** Requests that no endpoint takes for the moment: how long they wait, and for what. */
import assert from "node:assert/strict";
import { test } from "node:test";
import { parseSocketAddress } from "#/base/address.ts";
import { SeededRandom } from "#/base/random.ts";
import type { Endpoint } from "#/model/endpoint.ts";
import type { EndpointSource } from "../discovery.ts";
import { Dispatch, DISPATCH_DEFAULTS, TriedEndpoints } from "./dispatch.ts";
import type { DispatchSettings } from "./dispatch.ts";
import type { RequestHead } from "./exchange.ts";
import { lendData } from "./exchange.ts";
import type { FaultCode } from "./fault.ts";
import { fault } from "./fault.ts";
import type { Explanation } from "./mesh-answer.ts";
import { PendingRequest } from "./pending-request.ts";
import { ManualClock, RecordingReply, type ScriptedCall, ScriptedService } from "./testing.ts";

const WAIT_MS = DISPATCH_DEFAULTS.reconnectWaitMs;
const GET: RequestHead = {
  method: "GET",
  scheme: "http",
  authority: "web",
  path: "/",
  version: "2",
  absoluteForm: false,
  upgrade: null,
  fields: [],
};
const UNSEEN: Explanation = { status: 502, grpcStatus: 14, line: "not there", proxyStatus: "pillion" };

/** A Service whose endpoints, by number, do what is asked of them. */
class Scene implements EndpointSource {
  readonly key = "test";
  readonly state = "known";
  readonly clock = new ManualClock();
  readonly dispatch: Dispatch;
  /** Attempts, as "milliseconds since the first: endpoint". */
  readonly attempts: string[] = [];
  readonly calls: ScriptedCall[] = [];
  endpoints: readonly Endpoint[] = [];
  /** What an endpoint says to a request; null: nothing yet. */
  says: (number: number) => FaultCode | null;
  readonly #isMeshed: boolean;
  #changed: () => void = () => {};
  readonly #startMs = this.clock.nowMs();

  constructor(
    numbers: readonly number[],
    says: (number: number) => FaultCode | null,
    options: {
      readonly isMeshed?: boolean;
      readonly explanation?: Explanation;
      readonly settings?: Partial<DispatchSettings>;
    } = {},
  ) {
    this.says = says;
    this.#isMeshed = options.isMeshed ?? true;
    this.endpoints = numbers.map((number) => this.#endpoint(number));
    this.dispatch = new Dispatch({
      name: "web.shop:80",
      source: this,
      clock: this.clock,
      random: new SeededRandom(7),
      settings: { ...DISPATCH_DEFAULTS, ...options.settings },
      make: ({ address }) => {
        const number = Number(address.ip.split(".").at(-1));
        return new ScriptedService((call) => {
          this.attempts.push(`${Math.round(this.clock.nowMs() - this.#startMs)}: ${number}`);
          this.calls.push(call);
          const code = this.says(number);
          const explanation = options.explanation ?? null;
          if (code !== null) call.reply.fail(fault(code, `no ${number}`, { safe: true, explanation }));
        });
      },
    });
  }

  subscribe(changed: () => void): { cancel(): void } {
    this.#changed = changed;
    return { cancel: () => {} };
  }

  set(...numbers: number[]): void {
    const known = new Map(this.endpoints.map((each) => [each.address.ip as string, each]));
    this.endpoints = numbers.map((number) => known.get(`10.0.0.${number}`) ?? this.#endpoint(number));
    this.#changed();
  }

  ask(tried: TriedEndpoints | null = null): RecordingReply {
    const reply = new RecordingReply();
    this.dispatch.call(GET, true, reply, tried);
    return reply;
  }

  get count(): number {
    return this.attempts.length;
  }

  #endpoint(number: number): Endpoint {
    return {
      address: parseSocketAddress(`10.0.0.${number}:80`)!,
      weight: 10_000,
      identity: this.#isMeshed ? { name: "web", serverName: "web" } : null,
      protocolHint: "http2",
      tunnelPort: null,
      authorityOverride: null,
      labels: {},
    };
  }
}

const DOWN = (): FaultCode => "CONNECT_FAILED";

test("a request whose endpoints all fail to connect is tried anew with growing pauses, then fails as they did", () => {
  const scene = new Scene([1, 2], DOWN);
  const reply = scene.ask();
  assert.equal(scene.count, 2, "each endpoint at once");
  scene.clock.advance(WAIT_MS - 1);
  assert.deepEqual(reply.events, []);
  scene.clock.advance(1);
  assert.deepEqual(reply.events, ["fail CONNECT_FAILED safe"]);
  // 50, 100, 200, 400 ms, each a quarter more or less, and the last at the deadline.
  assert.equal(scene.count, 2 + 5, scene.attempts.join());
  assert.match(scene.attempts.at(-1)!, new RegExp(`^${WAIT_MS}: `));
  scene.clock.advance(60_000);
  assert.equal(scene.count, 7, "and is left alone");
});

test("… and is served by the one that is back first", () => {
  const scene = new Scene([1], DOWN);
  const reply = scene.ask();
  scene.clock.advance(10);
  scene.says = () => null;
  scene.clock.advance(60);
  assert.equal(scene.count, 2);
  scene.calls[1]!.answer(200, [], "");
  assert.deepEqual(reply.events, ["head 200 last"]);
});

test("a new endpoint is tried at once by all that wait, and the old ones are not because of it", () => {
  const scene = new Scene([1], (number) => (number === 1 ? "CONNECT_FAILED" : null));
  const replies = [scene.ask(), scene.ask(), scene.ask()];
  assert.equal(scene.count, 3);
  scene.set(1); // nothing new
  assert.equal(scene.count, 3);
  scene.set(1, 2);
  assert.deepEqual(scene.attempts.slice(3), ["0: 2", "0: 2", "0: 2"]);
  for (const call of scene.calls.slice(3)) call.answer(200, [], "");
  assert.deepEqual(replies.map(({ events }) => events).flat(), Array(3).fill("head 200 last"));
  scene.clock.advance(60_000);
  assert.equal(scene.count, 6, "their pauses are over with that");
});

test("a change that brings nobody new does not lengthen the wait", () => {
  const scene = new Scene([1, 2], DOWN);
  const reply = scene.ask();
  for (let i = 0; i < 10; i++) {
    scene.clock.advance(WAIT_MS / 10);
    scene.set(1, 2);
  }
  assert.deepEqual(reply.events, ["fail CONNECT_FAILED safe"]);
  assert.equal(scene.count, 7);
});

test("when the endpoints that failed leave and there is no other, the request waits for one as if there had been none", () => {
  const scene = new Scene([1], DOWN);
  const lucky = scene.ask();
  scene.set();
  scene.clock.advance(WAIT_MS + 500);
  assert.deepEqual(lucky.events, []);
  scene.says = () => null;
  scene.set(2);
  scene.calls.at(-1)!.answer(200, [], "");
  assert.deepEqual(lucky.events, ["head 200 last"]);

  scene.says = DOWN;
  const late = scene.ask();
  scene.set();
  scene.clock.advance(WAIT_MS + DISPATCH_DEFAULTS.noEndpointWaitMs + 1);
  assert.deepEqual(late.events, ["fail NO_ENDPOINTS safe"]);
});

test("what the far sidecar could not give to its application is not pressed on it, but tried again a little later", () => {
  const scene = new Scene([1], () => "REFUSED", { explanation: UNSEEN });
  const reply = scene.ask();
  assert.equal(scene.count, 1);
  scene.clock.advance(WAIT_MS);
  assert.deepEqual(reply.events, ["fail REFUSED safe"]);
  assert.equal(scene.count, 1 + 5);
});

test("what a connection gave back as it ended goes at once over the next one, a bounded number of times", () => {
  const scene = new Scene([1], () => "REFUSED");
  const reply = scene.ask();
  assert.equal(scene.count, DISPATCH_DEFAULTS.attemptsMax);
  assert.deepEqual(reply.events, []);
  scene.clock.advance(WAIT_MS);
  assert.deepEqual(reply.events, ["fail REFUSED safe"]);
  assert.equal(scene.count, DISPATCH_DEFAULTS.attemptsMax + 5);
});

test("of many endpoints that fail a request tries as many at once as it may, and then one after each pause", () => {
  const scene = new Scene([1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12], DOWN);
  scene.ask();
  assert.equal(scene.count, DISPATCH_DEFAULTS.attemptsMax);
  assert.equal(new Set(scene.attempts).size, scene.count, "each another");
  scene.clock.advance(WAIT_MS);
  assert.equal(scene.count, DISPATCH_DEFAULTS.attemptsMax + 5);
});

test("a program without a sidecar that is not there is told of at once", () => {
  const scene = new Scene([1, 2], DOWN, { isMeshed: false });
  assert.deepEqual(scene.ask().events, ["fail CONNECT_FAILED safe"]);
  assert.equal(scene.count, 2);
});

test("a connect that took the whole time to fail leaves none for a wait", () => {
  const scene = new Scene([1], () => null);
  const reply = scene.ask();
  scene.clock.advance(WAIT_MS);
  scene.calls[0]!.reply.fail(fault("CONNECT_TIMEOUT", "silence", { safe: true }));
  assert.deepEqual(reply.events, ["fail CONNECT_TIMEOUT safe"]);
});

test("an endpoint that has too much to do already is not waited for", () => {
  const scene = new Scene([1], () => "OVERLOADED");
  assert.deepEqual(scene.ask().events, ["fail OVERLOADED safe"]);
});

test("who gives up while a request waits ends the wait", () => {
  const scene = new Scene([1], DOWN);
  const reply = new RecordingReply();
  const sink = scene.dispatch.call(GET, true, reply);
  sink.abort(fault("CANCELLED", "gone"));
  scene.set(1, 2);
  scene.clock.advance(60_000);
  assert.equal(scene.count, 1);
  assert.deepEqual(reply.events, []);
});

test("no more requests wait than may: a further one fails with what its endpoint said", () => {
  const scene = new Scene([1], DOWN, { settings: { waitingMax: 2 } });
  const replies = [scene.ask(), scene.ask(), scene.ask()];
  assert.deepEqual(
    replies.map(({ events }) => events),
    [[], [], ["fail CONNECT_FAILED safe"]],
  );
});

test("a body waits with its request and is sent from its first byte", () => {
  const scene = new Scene([1], DOWN);
  const reply = new RecordingReply();
  const sink = scene.dispatch.call({ ...GET, method: "POST" }, false, reply);
  sink.data(Buffer.from("bo"), 0, 2);
  scene.clock.advance(10);
  sink.data(Buffer.from("dy"), 0, 2);
  sink.end(null);
  scene.says = () => null;
  scene.clock.advance(60);
  const call = scene.calls.at(-1)!;
  assert.deepEqual([call.body, call.ended], ["body", true]);
});

test("a further attempt goes to an endpoint that has not had the request, and to any when all have", () => {
  const scene = new Scene([1, 2, 3], () => null);
  for (let i = 0; i < 20; i++) {
    const tried = new TriedEndpoints();
    const first = scene.count;
    for (let attempt = 0; attempt < 5; attempt++) scene.ask(tried);
    const numbers = scene.attempts.slice(first).map((each) => each.split(": ")[1]);
    assert.equal(new Set(numbers.slice(0, 3)).size, 3, numbers.join());
    assert.equal(numbers.length, 5);
    assert.equal(tried.members.length, 3);
  }
});

test("… nor to one that an attempt was given back by, and back to such as were only tried before when those are left", () => {
  const scene = new Scene([1, 2, 3], (number) => (number === 1 ? null : "CONNECT_FAILED"));
  const tried = new TriedEndpoints();
  tried.add(scene.dispatch.balancer.members[0]!);
  scene.ask(tried);
  assert.deepEqual(scene.attempts.slice(0, 2).toSorted(), ["0: 2", "0: 3"]);
  assert.deepEqual(scene.attempts.slice(2), ["0: 1"]);
});

test("what is kept of a body for another endpoint is no view of memory that was lent", () => {
  const scene = new Scene([1, 2], () => null);
  const sink = scene.dispatch.call({ ...GET, method: "PUT" }, false, new RecordingReply());
  const lent = Buffer.from("lent for a moment");
  lendData(sink, lent, 0, lent.length);
  lent.fill(0xee);
  scene.calls[0]!.reply.fail(fault("RESET", "lost", { safe: true }));
  assert.equal(scene.calls[1]!.body, "lent for a moment");
});

test("a request that waits keeps no view of memory that was lent", () => {
  const pending = new PendingRequest(new RecordingReply());
  const lent = Buffer.from("lent for a moment");
  pending.dataLent(lent, 0, lent.length);
  lent.fill(0xee);
  const calls: ScriptedCall[] = [];
  const service = new ScriptedService((call) => calls.push(call));
  pending.proceed((reply) => service.call(GET, false, reply));
  assert.equal(calls[0]!.body, "lent for a moment");
});
