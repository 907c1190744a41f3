/**
 * Requests through the retry layer to endpoints that do anything at any moment, on virtual time. Whatever happens: the client hears
 * one answer, each attempt gets the body from its first byte and none twice, credit is exact, and nothing is left over.
 */
import assert from "node:assert/strict";
import test from "node:test";
import fc from "fast-check";
import type { Fields } from "#/base/fields.ts";
import { SeededRandom } from "#/base/random.ts";
import type { RetryPolicy, Timeouts } from "#/model/route.ts";
import type { RequestHead, RequestSink, ResponseHead, ResponseSink } from "#/stack/http/exchange.ts";
import type { Fault, FaultCode } from "#/stack/http/fault.ts";
import { fault } from "#/stack/http/fault.ts";
import { ManualClock } from "#/stack/http/testing.ts";
import { RetryBudgetWindow } from "#/stack/retry/retry-budget.ts";
import { RetryLayer } from "#/stack/retry/retry-layer.ts";
import type { Destination, RetryRule } from "#/stack/retry/retry-rule.ts";
import { needsRetryLayer } from "#/stack/retry/retry-rule.ts";

/** What an endpoint does, each so long after the last. 0: at once, from inside the call where it comes first. */
interface Step {
  readonly afterMs: number;
  readonly act:
    | { readonly kind: "informational"; readonly status: number }
    | { readonly kind: "head"; readonly status: number; readonly fields: Fields; readonly last: boolean }
    | { readonly kind: "body"; readonly bytes: number }
    | { readonly kind: "finish"; readonly trailers: Fields | null }
    | { readonly kind: "fail"; readonly code: FaultCode; readonly safe: boolean };
}

interface Script {
  readonly steps: readonly Step[];
  /** It begins with the body's first byte, from inside of that. */
  readonly startsWithBody: boolean;
  /** Body bytes are credited this much later; null: never. */
  readonly creditMs: number | null;
}

interface Scenario {
  readonly isCall: boolean;
  readonly timeouts: Timeouts;
  readonly retry: RetryPolicy | null;
  readonly keptBytesMax: number;
  readonly budgetFloor: number;
  /** The request's body, each chunk so long after the last; null: none. */
  readonly body: readonly { readonly afterMs: number; readonly bytes: number }[] | null;
  /** The client sends its next chunk from inside whatever it is told. */
  readonly isEager: boolean;
  readonly endAfterMs: number;
  readonly abortAtMs: number | null;
  /** By attempt, the last one for all that follow. */
  readonly scripts: readonly Script[];
}

const delay = fc.oneof(
  { weight: 3, arbitrary: fc.constant(0) },
  { weight: 2, arbitrary: fc.integer({ min: 1, max: 40 }) },
  { weight: 1, arbitrary: fc.integer({ min: 41, max: 3_000 }) },
);
const perhapsMs = fc.option(fc.integer({ min: 1, max: 400 }), { freq: 1 });
const status = fc.constantFrom(200, 200, 204, 404, 429, 500, 503, 503);
const fields = fc.oneof(
  { weight: 4, arbitrary: fc.constant([] as Fields) },
  fc.constantFrom<Fields>(
    ["grpc-status", "14"],
    ["grpc-status", "0"],
    ["retry-after", "1"],
    ["retry-after", "99999"],
    ["grpc-status", "14", "grpc-retry-pushback-ms", "-1"],
    ["grpc-status", "14", "grpc-retry-pushback-ms", "30"],
  ),
);
const head = fc.record({
  kind: fc.constant("head" as const),
  status,
  fields,
  last: fc.boolean(),
});
const act: fc.Arbitrary<Step["act"]> = fc.oneof(
  { weight: 6, arbitrary: head },
  {
    weight: 1,
    arbitrary: fc.record({ kind: fc.constant("informational" as const), status: fc.constantFrom(100, 103) }),
  },
  {
    weight: 2,
    arbitrary: fc.record({ kind: fc.constant("body" as const), bytes: fc.integer({ min: 1, max: 90_000 }) }),
  },
  { weight: 3, arbitrary: fc.record({ kind: fc.constant("finish" as const), trailers: fc.option(fields) }) },
  {
    weight: 2,
    arbitrary: fc.record({
      kind: fc.constant("fail" as const),
      code: fc.constantFrom<FaultCode>("RESET", "CONNECT_FAILED", "REFUSED", "OVERLOADED", "PROTOCOL"),
      safe: fc.boolean(),
    }),
  },
);
const script: fc.Arbitrary<Script> = fc.record({
  steps: fc.array(fc.record({ afterMs: delay, act }), { maxLength: 6 }),
  startsWithBody: fc.boolean(),
  creditMs: fc.option(delay, { freq: 8 }),
});
const retry: fc.Arbitrary<RetryPolicy> = fc.record({
  retriesMax: fc.integer({ min: 0, max: 4 }),
  statusRanges: fc.constantFrom<[number, number][]>(
    [],
    [[500, 599]],
    [
      [429, 429],
      [503, 503],
    ],
  ),
  grpcCodes: fc.constantFrom<number[]>([], [14], [4, 13, 14]),
  onConnectionError: fc.boolean(),
  attemptTimeoutMs: perhapsMs,
  bodyBytesMax: fc.constantFrom(0, 10, 100, 65_536),
  backoff: fc.record({
    minMs: fc.constantFrom(0, 0, 5, 25),
    maxMs: fc.constantFrom(0, 100),
    jitterRatio: fc.constantFrom(0, 0.5, 1),
  }),
  respectsRetryAfter: fc.boolean(),
});
const scenario: fc.Arbitrary<Scenario> = fc.record({
  isCall: fc.boolean(),
  timeouts: fc.record({
    requestMs: perhapsMs,
    responseMs: perhapsMs,
    attemptMs: perhapsMs,
    idleMs: perhapsMs,
  }),
  retry: fc.option(retry, { freq: 6 }),
  keptBytesMax: fc.constantFrom(0, 50, 1_000_000),
  budgetFloor: fc.constantFrom(0, 1, 2, 100),
  body: fc.option(
    fc.array(fc.record({ afterMs: delay, bytes: fc.integer({ min: 1, max: 60 }) }), { maxLength: 8 }),
  ),
  isEager: fc.boolean(),
  endAfterMs: delay,
  abortAtMs: fc.option(fc.integer({ min: 0, max: 500 }), { freq: 2 }),
  scripts: fc.array(script, { minLength: 1, maxLength: 5 }),
});

/** Byte `at` of every body. */
function byteAt(at: number): number {
  return (at * 7 + 3) & 0xff;
}

class Client implements ResponseSink {
  readonly events: string[] = [];
  sink: RequestSink | null = null;
  sentBytes = 0;
  creditedBytes = 0;
  isAnswered = false;
  isOver = false;
  isGone = false;
  hasEnded = false;
  answerBytes = 0;
  /** Sends the next chunk, if there is one. */
  sendNext: () => void = () => {};
  isEager = false;

  informational(head: ResponseHead): void {
    this.#hears(`informational ${head.status}`);
    assert.ok(!this.isAnswered, "an interim answer after the final one's head");
  }
  head(head: ResponseHead, last: boolean): void {
    this.#hears(`head ${head.status}`);
    assert.ok(!this.isAnswered, "two heads");
    this.isAnswered = true;
    this.isOver = last;
  }
  body(_bytes: Uint8Array, start: number, stop: number): void {
    this.#hears("body");
    assert.ok(this.isAnswered, "a body before a head");
    this.answerBytes += stop - start;
    this.sink?.responseConsumed(stop - start);
  }
  finish(): void {
    this.#hears("finish");
    assert.ok(this.isAnswered, "an end before a head");
    this.isOver = true;
  }
  fail(cause: Fault): void {
    // After the answer has ended it says that the rest of the request is not wanted.
    assert.ok(!this.isGone && (!this.isOver || !this.hasEnded), `told of ${cause.code} after all was over`);
    this.events.push(`fail ${cause.code}`);
    this.isOver = true;
    this.isGone = true;
  }
  requestConsumed(bytes: number): void {
    assert.ok(bytes > 0, "credit of nothing");
    this.creditedBytes += bytes;
    assert.ok(this.creditedBytes <= this.sentBytes, "credit for what was never sent");
    if (this.isEager) this.sendNext();
  }
  #hears(event: string): void {
    assert.ok(!this.isGone && !this.isOver, `${event} after ${this.events.join()}`);
    this.events.push(event);
    if (this.isEager) this.sendNext();
  }
}

class Endpoint implements RequestSink {
  readonly #clock: ManualClock;
  readonly #script: Script;
  readonly #reply: ResponseSink;
  readonly #steps: Step[];
  bytes = 0;
  isEnded: boolean;
  /** Its own answer is complete, or it failed. */
  isAnswered = false;
  isHeaded = false;
  isAborted = false;
  hasFailed = false;
  unconsumedBytes = 0;

  constructor(clock: ManualClock, script: Script, last: boolean, reply: ResponseSink) {
    this.#clock = clock;
    this.#script = script;
    this.#reply = reply;
    this.isEnded = last;
    this.#steps = [...script.steps];
  }

  data(bytes: Uint8Array, start: number, stop: number): void {
    assert.ok(!this.isAborted && !this.isEnded, "body after the end");
    if (this.hasFailed) return;
    for (let i = start; i < stop; i++)
      assert.equal(bytes[i], byteAt(this.bytes++), "a byte lost or sent twice");
    const { creditMs } = this.#script;
    const credit = (): void => {
      if (!this.isAborted && !this.hasFailed) this.#reply.requestConsumed(stop - start);
    };
    if (creditMs === 0) credit();
    else if (creditMs !== null) this.#clock.after(creditMs, credit);
    if (this.#script.startsWithBody && this.bytes === stop - start) this.run();
  }
  end(): void {
    assert.ok(!this.isAborted && !this.isEnded, "two ends");
    this.isEnded = true;
  }
  abort(): void {
    assert.ok(!this.isAborted, "aborted twice");
    assert.ok(!this.isAnswered || !this.isEnded, "aborted after all was over");
    this.isAborted = true;
  }
  responseConsumed(bytes: number): void {
    this.unconsumedBytes -= bytes;
    assert.ok(this.unconsumedBytes >= 0, "credit for an answer's bytes that it never sent");
  }

  run(): void {
    while (!this.isAborted && !this.hasFailed) {
      const step = this.#steps[0];
      if (step === undefined) return;
      if (step.afterMs > 0) {
        this.#steps[0] = { ...step, afterMs: 0 };
        this.#clock.after(step.afterMs, () => this.run());
        return;
      }
      this.#steps.shift();
      this.#do(step.act);
    }
  }

  /** What HTTP does not allow is left out. */
  #do(act: Step["act"]): void {
    if (act.kind === "fail") {
      if (this.isAnswered && this.isEnded) return;
      this.hasFailed = true;
      this.isAnswered = true;
      this.#reply.fail(fault(act.code, "scripted", { safe: act.safe && !this.isHeaded }));
    } else if (this.isAnswered) return;
    else if (act.kind === "informational") {
      if (!this.isHeaded) this.#reply.informational(answer(act.status, []));
    } else if (act.kind === "head") {
      if (this.isHeaded) return;
      this.isHeaded = true;
      this.isAnswered = act.last;
      this.#reply.head(answer(act.status, act.fields), act.last);
    } else if (act.kind === "body") {
      if (!this.isHeaded) return;
      this.unconsumedBytes += act.bytes;
      this.#reply.body(new Uint8Array(act.bytes), 0, act.bytes);
    } else {
      if (!this.isHeaded) return;
      this.isAnswered = true;
      this.#reply.finish(act.trailers);
    }
  }
}

function answer(status: number, fields: Fields): ResponseHead {
  return { status, version: "2", reason: null, fields };
}

function play(scene: Scenario): void {
  const clock = new ManualClock();
  const random = new SeededRandom(1);
  const layer = new RetryLayer({ clock, random, settings: { keptBytesMax: scene.keptBytesMax } });
  const budget = new RetryBudgetWindow({
    percent: 0,
    intervalMs: 10_000,
    floorCount: scene.budgetFloor,
    floorIntervalMs: 100_000,
  });
  const counts = { retried: 0, succeeded: 0, timeouts: 0 };
  const rule: RetryRule = {
    timeouts: scene.timeouts,
    retry: scene.retry,
    allowsRequestHeaders: false,
    label: "HTTPRoute/test/rule",
    series: {
      retried: () => counts.retried++,
      retrySucceeded: () => counts.succeeded++,
      retryLimitExceeded: () => {},
      retryOverflowed: () => {},
      timedOut: () => counts.timeouts++,
    },
  };
  const endpoints: Endpoint[] = [];
  const destination: Destination = {
    budget,
    attemptTimeoutMs: null,
    call: (_head, last, reply) => {
      const at = Math.min(endpoints.length, scene.scripts.length - 1);
      const script = scene.scripts[at]!;
      const endpoint = new Endpoint(clock, script, last, reply);
      endpoints.push(endpoint);
      if (!script.startsWithBody) endpoint.run();
      return endpoint;
    },
  };
  const request: RequestHead = {
    method: "POST",
    scheme: "http",
    authority: "web",
    path: "/",
    version: "2",
    absoluteForm: false,
    upgrade: null,
    fields: scene.isCall ? ["content-type", "application/grpc", "grpc-timeout", "350m"] : [],
  };
  const startedAtMs = clock.nowMs();
  const client = new Client();
  const chunks = [...(scene.body ?? [])];
  client.sendNext = () => {
    const chunk = chunks[0];
    if (client.isGone || chunk === undefined || client.sink === null) return;
    chunks.shift();
    const bytes = new Uint8Array(chunk.bytes);
    for (let i = 0; i < bytes.length; i++) bytes[i] = byteAt(client.sentBytes + i);
    client.sentBytes += bytes.length;
    client.sink.data(bytes, 0, bytes.length);
    const bytesMax = (scene.retry?.bodyBytesMax ?? 0) + client.sentBytes - client.creditedBytes;
    assert.ok(layer.keptBytes <= bytesMax, `${layer.keptBytes} bytes kept of at most ${bytesMax}`);
  };
  client.isEager = scene.isEager;
  let holds = 0;
  const destinations = {
    draw: () => destination,
    hold: () => void holds++,
    release: () => void holds--,
  };
  const sink = layer.call(rule, destinations, request, scene.body === null, client);
  client.sink = sink;
  client.hasEnded = scene.body === null;
  let atMs = 0;
  for (const chunk of scene.body ?? []) clock.after((atMs += chunk.afterMs), client.sendNext);
  if (scene.body !== null)
    clock.after(atMs + scene.endAfterMs, () => {
      if (client.isGone) return;
      client.hasEnded = true;
      sink.end(null);
    });
  const abort = (): void => {
    if (client.isGone || (client.isOver && client.hasEnded)) return;
    client.isGone = true;
    client.isOver = true;
    sink.abort(fault("CANCELLED", "gone"));
  };
  if (scene.abortAtMs !== null) clock.after(scene.abortAtMs, abort);
  clock.advance(60_000);

  const { requestMs } = scene.timeouts;
  const limitMs = Math.min(requestMs ?? Infinity, scene.isCall ? 350 : Infinity);
  if (limitMs < Infinity) assert.ok(client.isOver, `no end ${clock.nowMs() - startedAtMs} ms after the head`);
  // Who waits for ever is who the rule lets wait; in the end the client gives up.
  abort();
  clock.advance(60_000);

  const retriesMax = scene.retry?.retriesMax ?? 0;
  assert.ok(endpoints.length <= 1 + Math.min(retriesMax, scene.budgetFloor), `${endpoints.length} attempts`);
  assert.equal(counts.retried, endpoints.length - 1);
  assert.equal(layer.deadlines.size, 0, "a deadline is left");
  assert.equal(layer.keptBytes, 0, "bytes are left");
  assert.equal(holds, 0, "backends are held");
  for (const [at, endpoint] of endpoints.entries()) {
    const isDone = endpoint.isAnswered && (endpoint.isEnded || endpoint.hasFailed);
    assert.ok(isDone || endpoint.isAborted || !client.hasEnded, `attempt ${at} was left under way`);
    assert.ok(endpoint.bytes <= client.sentBytes);
    if (at < endpoints.length - 1 && !endpoint.isAborted && !endpoint.hasFailed)
      assert.equal(endpoint.unconsumedBytes, 0, "a discarded answer holds its window");
  }
  const lastEndpoint = endpoints.at(-1)!;
  if (!client.isGone && client.hasEnded && client.isOver && !lastEndpoint.hasFailed) {
    assert.equal(lastEndpoint.bytes, client.sentBytes, "the answer's endpoint has all of the body");
    assert.ok(lastEndpoint.isEnded);
    if (scene.scripts.every(({ creditMs }) => creditMs !== null))
      assert.equal(client.creditedBytes, client.sentBytes, "credit is owed");
  }
}

test("whatever endpoints do, the client hears one answer and nothing is left over", () => {
  fc.assert(
    fc.property(scenario, (scene) => {
      fc.pre(needsRetryLayer({ ...scene, allowsRequestHeaders: false }, []));
      play(scene);
    }),
    { numRuns: 5_000 },
  );
});
