import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import { SeededRandom } from "#/base/random.ts";
import { VirtualClock } from "#/base/virtual-clock.ts";
import type { FaultAction, HttpFilter } from "#/model/route.ts";
import type { RequestHead, RequestSink } from "../http/exchange.ts";
import { fault } from "../http/fault.ts";
import type { ScriptedCall } from "../http/testing.ts";
import { ManualClock, RecordingReply, ScriptedService } from "../http/testing.ts";
import { FaultInjector, HELD_MAX, type FaultFilter } from "./injector.ts";

const SOURCE = {
  group: "pillion.dev",
  kind: "FaultPolicy",
  namespace: "shop",
  name: "chaos",
  section: "",
  port: 0,
};
const HEAD: RequestHead = {
  method: "GET",
  scheme: "http",
  authority: "web",
  path: "/",
  version: "1.1",
  absoluteForm: false,
  upgrade: null,
  fields: ["x-user", "test"],
};

function filter(action: FaultAction, over: Partial<FaultFilter> = {}): FaultFilter {
  return {
    kind: "fault",
    source: SOURCE,
    ratio: { numerator: 1, denominator: 1 },
    headers: [],
    action,
    ...over,
  };
}

class Scene {
  readonly clock = new ManualClock();
  readonly service: ScriptedService;
  readonly kinds: string[] = [];
  readonly injector: FaultInjector;
  reply = new RecordingReply();
  sink: RequestSink | null = null;

  constructor(respond: ((call: ScriptedCall) => void) | null = null, seed = 1) {
    this.service = new ScriptedService(respond);
    this.injector = new FaultInjector({
      clock: this.clock,
      random: new SeededRandom(seed),
      injected: (_source, kind) => this.kinds.push(kind),
    });
  }

  ask(filters: readonly HttpFilter[], last = true): RecordingReply {
    this.reply = new RecordingReply();
    this.sink = this.injector.around(this.service, filters, HEAD).call(HEAD, last, this.reply);
    return this.reply;
  }

  get call(): ScriptedCall {
    return this.service.calls[0]!;
  }
}

const answers = (call: ScriptedCall): void => call.answer(200, [], "hello");
const DELAY = filter({ kind: "delay", delayMs: 100, jitterMs: 0 });

test("a request that no fault hits is served by the very same service", () => {
  const { injector, service } = new Scene();
  const other: HttpFilter = { kind: "rewrite", host: "x", path: null };
  const never = { numerator: 0, denominator: 100 };
  assert.equal(injector.around(service, [], HEAD), service);
  assert.equal(injector.around(service, [other], HEAD), service);
  assert.equal(injector.around(service, [filter({ kind: "reset" }, { ratio: never })], HEAD), service);
  assert.equal(
    injector.around(service, [filter({ kind: "reset" }, { ratio: { numerator: 1, denominator: 0 } })], HEAD),
    service,
  );
  const headers = [{ name: "x-user", value: { kind: "exact", value: "somebody else" } }] as const;
  assert.equal(injector.around(service, [filter({ kind: "reset" }, { headers })], HEAD), service);
});

test("every header match must hold for a request to be hit", () => {
  const { injector, service } = new Scene();
  const is = { name: "x-user", value: { kind: "exact", value: "test" } } as const;
  const host = { name: "host", value: { kind: "exact", value: "web" } } as const;
  const absent = { name: "x-other", value: { kind: "exact", value: "" } } as const;
  const reset = (headers: FaultFilter["headers"]) => filter({ kind: "reset" }, { headers });
  assert.notEqual(injector.around(service, [reset([is, host])], HEAD), service);
  assert.equal(injector.around(service, [reset([is, absent])], HEAD), service);
});

test("hits the share of requests that the ratio says, the same ones for the same seed", () => {
  const hits = (seed: number): string => {
    const { injector, service } = new Scene(null, seed);
    const half = filter({ kind: "reset" }, { ratio: { numerator: 30, denominator: 100 } });
    return Array.from({ length: 10_000 }, () =>
      injector.around(service, [half], HEAD) === service ? "." : "x",
    ).join("");
  };
  const first = hits(7);
  assert.equal(first, hits(7));
  assert.notEqual(first, hits(8));
  const share = first.replaceAll(".", "").length / first.length;
  assert.ok(share > 0.28 && share < 0.32, String(share));
});

test("abort answers in the application's place, by the policy's words, and says which policy", () => {
  const scene = new Scene(answers);
  const reply = scene.ask([filter({ kind: "abort", status: 418, grpcStatus: 5, message: "teapot" })]);
  assert.equal(scene.service.calls.length, 0);
  const { code, status, grpcStatus, message, rule, cuts, safe } = reply.fault!;
  assert.deepEqual(
    { code, status, grpcStatus, message, rule, cuts, safe },
    {
      code: "FAULT_INJECTED",
      status: 418,
      grpcStatus: 5,
      message: "teapot",
      rule: "FaultPolicy/shop/chaos",
      cuts: false,
      safe: false,
    },
  );
  assert.deepEqual(scene.kinds, ["abort"]);
});

test("reset cuts without an answer", () => {
  const scene = new Scene(answers);
  const reply = scene.ask([filter({ kind: "reset" })]);
  assert.equal(scene.service.calls.length, 0);
  assert.equal(reply.fault?.cuts, true);
});

test("delay holds the request, body and all, and then sends it as it came", () => {
  const scene = new Scene(answers);
  const reply = scene.ask([DELAY], false);
  scene.sink!.data(Buffer.from("abc"), 0, 3);
  scene.sink!.end(null);
  scene.clock.advance(99);
  assert.equal(scene.service.calls.length, 0);
  assert.equal(reply.requestConsumedBytes, 0);
  scene.clock.advance(1);
  assert.equal(scene.call.body, "abc");
  assert.ok(scene.call.ended);
  assert.equal(reply.body_, "hello");
  assert.equal(scene.injector.held, 0);
});

test("jitter adds at most what it says", () => {
  for (let seed = 0; seed < 50; seed++) {
    const scene = new Scene(answers, seed);
    scene.ask([filter({ kind: "delay", delayMs: 100, jitterMs: 50 })]);
    scene.clock.advance(99.99);
    assert.equal(scene.service.calls.length, 0);
    scene.clock.advance(50.02);
    assert.equal(scene.service.calls.length, 1);
  }
});

test("a client that leaves ends the delay, and the request is never sent", () => {
  const scene = new Scene(answers);
  scene.ask([DELAY]);
  scene.sink!.abort(fault("CANCELLED", "gone"));
  assert.equal(scene.injector.held, 0);
  scene.clock.advance(1_000);
  assert.equal(scene.service.calls.length, 0);
});

test("faults act in their order: a delay before an abort delays it", () => {
  const scene = new Scene(answers);
  const reply = scene.ask([DELAY, filter({ kind: "abort", status: 503, grpcStatus: 14, message: "" })]);
  scene.clock.advance(99);
  assert.deepEqual(reply.events, []);
  scene.clock.advance(1);
  assert.deepEqual(reply.events, ["fail FAULT_INJECTED"]);
});

test("past the bound of requests held, more are spared; an abort holds nothing and always acts", () => {
  const scene = new Scene(answers);
  for (let i = 0; i < HELD_MAX; i++) scene.ask([DELAY]);
  assert.equal(scene.injector.held, HELD_MAX);
  assert.equal(scene.ask([DELAY]).body_, "hello");
  assert.equal(scene.ask([filter({ kind: "reset" })]).fault?.cuts, true);
});

/** What the client had of the body at each moment, while it gives credit for everything at once or keeps it. */
class Reader extends RecordingReply {
  readonly at: [ms: number, bytes: number][] = [];
  bytes = 0;
  readonly #clock: ManualClock;
  credit: ((bytes: number) => void) | null = null;
  constructor(clock: ManualClock) {
    super();
    this.#clock = clock;
  }
  override body(bytes: Uint8Array, start: number, stop: number): void {
    super.body(bytes, start, stop);
    this.bytes += stop - start;
    this.at.push([this.#clock.nowMs(), this.bytes]);
    this.credit?.(stop - start);
  }
}

const text = (bytes: number): Uint8Array => Buffer.alloc(bytes, "0123456789abcdef");

test("bandwidth: every byte in order, at no moment more than the pace and two ticks' worth, and at that pace in the end", () => {
  const pieces = fc.array(fc.tuple(fc.integer({ min: 1, max: 5_000 }), fc.integer({ min: 0, max: 300 })), {
    minLength: 1,
    maxLength: 20,
  });
  fc.assert(
    fc.property(pieces, fc.integer({ min: 100, max: 100_000 }), (sent, bytesPerSecond) => {
      const scene = new Scene();
      const reply = new Reader(scene.clock);
      scene.injector
        .around(scene.service, [filter({ kind: "bandwidth", bytesPerSecond })], HEAD)
        .call(HEAD, true, reply);
      const startMs = scene.clock.nowMs();
      scene.call.reply.head({ status: 200, version: "1.1", reason: null, fields: [] }, false);
      assert.equal(reply.status, 200);
      let wanted = "";
      for (const [bytes, gapMs] of sent) {
        const chunk = text(bytes);
        wanted += Buffer.from(chunk).toString("latin1");
        scene.call.reply.body(chunk, 0, bytes);
        scene.clock.advance(gapMs);
      }
      scene.call.reply.finish(["x-end", "1"]);
      scene.clock.advance((wanted.length / bytesPerSecond) * 1_000 + 1_000);
      assert.equal(reply.body_, wanted);
      assert.ok(reply.events.includes("finish x-end 1"));
      const spareBytes = 2 * bytesPerSecond * 0.05 + 1;
      for (const [ms, bytes] of reply.at)
        assert.ok(
          bytes <= ((ms - startMs) / 1_000) * bytesPerSecond + spareBytes,
          `${bytes} after ${ms - startMs} ms`,
        );
      assert.equal(scene.injector.held, 0);
    }),
    { numRuns: 100 },
  );
});

test("bandwidth: an end, and then a refusal of the request's rest, wait for the bytes before them", () => {
  const scene = new Scene();
  scene.ask([filter({ kind: "bandwidth", bytesPerSecond: 1_000 })], false);
  scene.call.answer(200, [], "x".repeat(200));
  scene.call.reply.fail(fault("RESET", "no more of the request"));
  assert.deepEqual(scene.reply.events, ["head 200"]);
  scene.clock.advance(250);
  assert.deepEqual(scene.reply.events, ["head 200", "finish", "fail RESET"]);
  assert.equal(scene.reply.body_.length, 200);
});

test("bandwidth: an answer that breaks off is told at once, and nothing comes after it", () => {
  const scene = new Scene();
  scene.ask([filter({ kind: "bandwidth", bytesPerSecond: 1_000 })]);
  scene.call.reply.head({ status: 200, version: "1.1", reason: null, fields: [] }, false);
  scene.call.reply.body(text(500), 0, 500);
  scene.call.reply.fail(fault("RESET", "crashed"));
  assert.equal(scene.reply.fault?.code, "RESET");
  const had = scene.reply.body_.length;
  scene.clock.advance(5_000);
  assert.equal(scene.reply.body_.length, had);
  assert.equal(scene.injector.held, 0);
});

test("a client that leaves a paced or late answer hears no more, and its timer is gone", () => {
  for (const action of [
    { kind: "bandwidth", bytesPerSecond: 100 },
    { kind: "slow-close", delayMs: 500 },
  ] as const) {
    const scene = new Scene();
    scene.ask([filter(action)]);
    scene.call.answer(200, [], "x".repeat(100));
    const had = scene.reply.body_.length;
    scene.sink!.abort(fault("CANCELLED", "gone"));
    assert.equal(scene.call.aborted?.code, "CANCELLED");
    assert.equal(scene.injector.held, 0);
    scene.clock.advance(10_000);
    assert.equal(scene.reply.body_.length, had);
    assert.ok(!scene.reply.events.includes("finish"));
  }
});

test("slow close: head and body come as they are, the end so much later; without a body the head is the end", () => {
  const scene = new Scene();
  const late = filter({ kind: "slow-close", delayMs: 500 });
  const reply = scene.ask([late]);
  scene.call.answer(200, [], "hello");
  assert.equal(reply.body_, "hello");
  scene.clock.advance(499);
  assert.ok(!reply.finished);
  scene.clock.advance(1);
  assert.ok(reply.finished);
  const counted = scene.ask([late]);
  const answer = scene.service.calls[1]!.reply;
  const fields = ["content-length", "5"];
  answer.head({ status: 200, version: "1.1", reason: null, fields }, false);
  for (const piece of ["he", "llo"]) answer.body(Buffer.from(piece), 0, piece.length);
  answer.finish(null);
  assert.equal(counted.body_, "hell", "who counts bytes would take the last one for the end");
  scene.clock.advance(500);
  assert.equal(counted.body_, "hello");
  assert.ok(counted.finished);
  const bare = scene.ask([late]);
  scene.service.calls[2]!.answer(204, [], "");
  scene.clock.advance(499);
  assert.equal(bare.status, 0);
  scene.clock.advance(1);
  assert.deepEqual(bare.events, ["head 204 last"]);
  assert.equal(scene.injector.held, 0);
});

test("no timer outlives the client of a held answer", () => {
  for (const action of [
    { kind: "delay", delayMs: 500, jitterMs: 0 },
    { kind: "bandwidth", bytesPerSecond: 100 },
    { kind: "slow-close", delayMs: 500 },
  ] as const) {
    const clock = new VirtualClock();
    const injector = new FaultInjector({ clock, random: new SeededRandom(1), injected: () => undefined });
    const service = new ScriptedService();
    const sink = injector.around(service, [filter(action)], HEAD).call(HEAD, true, new RecordingReply());
    service.calls[0]?.answer(200, [], "x".repeat(100));
    assert.equal(clock.timers, 1, action.kind);
    sink.abort(fault("CANCELLED", "gone"));
    assert.equal(clock.timers, 0, action.kind);
  }
});
