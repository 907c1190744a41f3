import assert from "node:assert/strict";
import { test } from "node:test";
import type { Fields } from "#/base/fields.ts";
import { fieldValue } from "#/base/fields.ts";
import type { RetryPolicy, Timeouts } from "#/model/route.ts";
import type { RetryBudget } from "#/model/traffic.ts";
import type { RequestHead, RequestSink } from "../http/exchange.ts";
import { SPENT } from "../http/exchange.ts";
import { fault } from "../http/fault.ts";
import { explain, meshAnswer, UNNAMED } from "../http/mesh-answer.ts";
import type { ScriptedCall } from "../http/testing.ts";
import { ManualClock, RecordingReply, ScriptedService } from "../http/testing.ts";
import { RetryBudgetWindow } from "./retry-budget.ts";
import { RetryLayer } from "./retry-layer.ts";
import type { Destination, RetryRule } from "./retry-rule.ts";
import { needsRetryLayer } from "./retry-rule.ts";

const NO_TIMEOUTS: Timeouts = { requestMs: null, responseMs: null, attemptMs: null, idleMs: null };
const POLICY: RetryPolicy = {
  retriesMax: 2,
  statusRanges: [[500, 599]],
  grpcCodes: [14],
  onConnectionError: true,
  attemptTimeoutMs: null,
  bodyBytesMax: 1_000,
  backoff: { minMs: 20, maxMs: 100, jitterRatio: 0 },
  respectsRetryAfter: true,
};
const PLENTY: RetryBudget = { percent: 100, intervalMs: 10_000, floorCount: 100, floorIntervalMs: 1_000 };
const NOTHING: RetryBudget = { percent: 20, intervalMs: 10_000, floorCount: 0, floorIntervalMs: 1_000 };

/** A rule with one backend, and a service there that the test answers for. */
class Scene {
  readonly clock = new ManualClock();
  readonly service = new ScriptedService();
  readonly layer: RetryLayer;
  readonly events: string[] = [];
  readonly destination: Destination;
  draws: Destination[] = [];
  readonly rule: RetryRule;
  /** Of requests that may be sent again. */
  holds = 0;

  constructor(
    options: {
      readonly timeouts?: Partial<Timeouts>;
      readonly retry?: Partial<RetryPolicy> | null;
      readonly allowsRequestHeaders?: boolean;
      readonly budget?: RetryBudget;
      readonly keptBytesMax?: number;
    } = {},
  ) {
    const { events } = this;
    this.layer = new RetryLayer({
      clock: this.clock,
      random: { next: () => 0.5 },
      settings: { keptBytesMax: options.keptBytesMax ?? 1_000_000 },
    });
    this.rule = {
      timeouts: { ...NO_TIMEOUTS, ...options.timeouts },
      retry: options.retry === null ? null : { ...POLICY, ...options.retry },
      allowsRequestHeaders: options.allowsRequestHeaders ?? false,
      label: "HTTPRoute/shop/web",
      series: {
        retried: () => events.push("retried"),
        retrySucceeded: () => events.push("succeeded"),
        retryLimitExceeded: () => events.push("limit exceeded"),
        retryOverflowed: (why) => events.push(`overflow ${why}`),
        timedOut: (kind) => events.push(`timeout ${kind}`),
      },
    };
    this.destination = this.to(this.service, options.budget ?? PLENTY);
  }

  to(service: ScriptedService, budget: RetryBudget, attemptTimeoutMs: number | null = null): Destination {
    return {
      budget: new RetryBudgetWindow(budget),
      attemptTimeoutMs,
      call: (head, last, reply) => service.call(head, last, reply),
    };
  }

  ask(head: Partial<RequestHead> = {}, last: boolean = true): { reply: RecordingReply; sink: RequestSink } {
    const reply = new RecordingReply();
    const sink = this.layer.call(
      this.rule,
      {
        draw: (_head, tried) => this.draws[tried?.attempts ?? 0] ?? this.destination,
        hold: () => void this.holds++,
        release: () => void this.holds--,
      },
      { ...GET, ...head },
      last,
      reply,
    );
    return { reply, sink };
  }

  get calls(): readonly ScriptedCall[] {
    return this.service.calls;
  }

  /** Nothing of any request is left in the layer. */
  assertClean(): void {
    assert.equal(this.layer.deadlines.size, 0);
    assert.equal(this.layer.keptBytes, 0);
    assert.equal(this.holds, 0);
  }
}

const GET: RequestHead = {
  method: "GET",
  scheme: "http",
  authority: "web",
  path: "/",
  version: "1.1",
  absoluteForm: false,
  upgrade: null,
  fields: [],
};
const CALL = { method: "POST", version: "2", fields: ["content-type", "application/grpc"] } as const;
function call(...fields: string[]): Partial<RequestHead> {
  return { ...CALL, fields: [...CALL.fields, ...fields] };
}

function send(sink: RequestSink, text: string): void {
  sink.data(Buffer.from(text), 0, text.length);
}

// --- timeouts ---

test("a request without an answer in time is answered with the rule that decided", () => {
  const scene = new Scene({ timeouts: { requestMs: 500 }, retry: null });
  const { reply } = scene.ask();
  scene.clock.advance(499);
  assert.deepEqual(reply.events, []);
  scene.clock.advance(11);
  assert.deepEqual(reply.events, ["fail TIMEOUT"]);
  assert.equal(scene.calls[0]!.aborted?.code, "TIMEOUT");
  assert.equal(explain(reply.fault!, UNNAMED).status, 504);
  assert.equal(explain(reply.fault!, UNNAMED).grpcStatus, 4);
  assert.equal(reply.fault!.rule, "HTTPRoute/shop/web: timeouts.request");
  assert.match(reply.fault!.message, /no answer came within 500 ms/);
  assert.deepEqual(scene.events, ["timeout request"]);
  scene.assertClean();
});

test("an answer under way is cut when the request's time is over, and one that has ended is not", () => {
  const scene = new Scene({ timeouts: { requestMs: 500 }, retry: null });
  const slow = scene.ask().reply;
  const quick = scene.ask().reply;
  scene.calls[0]!.reply.head({ status: 200, version: "1.1", reason: null, fields: [] }, false);
  scene.calls[1]!.answer(200, [], "done");
  scene.clock.advance(600);
  assert.deepEqual(slow.events, ["head 200", "fail TIMEOUT"]);
  assert.match(slow.fault!.message, /the answer was not complete/);
  assert.equal(scene.calls[0]!.aborted?.code, "TIMEOUT");
  assert.deepEqual(quick.events, ["head 200", "finish"]);
  scene.assertClean();
});

test("the time of an attempt is its backend's, else the rule's, and begins anew with each", () => {
  const scene = new Scene({ timeouts: { attemptMs: 100 }, retry: { retriesMax: 1 } });
  const patient = new ScriptedService();
  scene.draws = [scene.destination, scene.to(patient, PLENTY, 300)];
  const { reply } = scene.ask();
  scene.clock.advance(100);
  assert.equal(scene.calls[0]!.aborted?.code, "TIMEOUT");
  scene.clock.advance(20);
  assert.equal(patient.calls.length, 1);
  scene.clock.advance(290);
  assert.deepEqual(reply.events, []);
  scene.clock.advance(20);
  assert.deepEqual(reply.events, ["fail TIMEOUT"]);
  assert.equal(reply.fault!.rule, "HTTPRoute/shop/web: timeouts.backendRequest");
  assert.match(reply.fault!.message, /300 ms, in 2 attempts/);
  assert.deepEqual(scene.events, ["timeout attempt", "retried", "limit exceeded", "timeout attempt"]);
  scene.assertClean();
});

test("the answer's time runs from the request's last byte", () => {
  const scene = new Scene({ timeouts: { responseMs: 100 }, retry: null });
  const { reply, sink } = scene.ask({ method: "POST" }, false);
  scene.clock.advance(5_000);
  send(sink, "body");
  sink.end(null);
  scene.clock.advance(90);
  assert.deepEqual(reply.events, []);
  scene.clock.advance(30);
  assert.deepEqual(reply.events, ["fail TIMEOUT"]);
  assert.deepEqual(scene.events, ["timeout response"]);
});

test("… or from its head, where that comes first", () => {
  const scene = new Scene({ timeouts: { responseMs: 100 }, retry: null });
  const { reply, sink } = scene.ask({ method: "POST" }, false);
  scene.calls[0]!.reply.head({ status: 200, version: "1.1", reason: null, fields: [] }, false);
  scene.clock.advance(60);
  sink.end(null);
  scene.clock.advance(60);
  assert.deepEqual(reply.events, ["head 200", "fail TIMEOUT"]);
});

test("silence ends a stream, and a byte in either direction is none", () => {
  const scene = new Scene({ timeouts: { idleMs: 200 }, retry: null });
  const { reply, sink } = scene.ask({ method: "POST" }, false);
  scene.clock.advance(150);
  scene.calls[0]!.reply.head({ status: 200, version: "1.1", reason: null, fields: [] }, false);
  scene.clock.advance(150);
  send(sink, "up");
  scene.clock.advance(150);
  scene.calls[0]!.reply.body(Buffer.from("down"), 0, 4);
  scene.clock.advance(150);
  sink.responseConsumed(4);
  scene.clock.advance(190);
  assert.deepEqual(reply.events, ["head 200"]);
  scene.clock.advance(20);
  assert.deepEqual(reply.events, ["head 200", "fail TIMEOUT"]);
  assert.equal(reply.fault!.rule, "HTTPRoute/shop/web: idle timeout");
  scene.assertClean();
});

test("a tunnel has all the time it wants, and ends by silence", () => {
  const scene = new Scene({
    timeouts: { requestMs: 100, responseMs: 100, attemptMs: 100, idleMs: 10_000 },
    retry: null,
  });
  const { reply } = scene.ask({ upgrade: "websocket" }, false);
  scene.calls[0]!.reply.head({ status: 101, version: "1.1", reason: null, fields: [] }, false);
  scene.clock.advance(9_000);
  assert.deepEqual(reply.events, ["head 101"]);
  scene.clock.advance(1_100);
  assert.deepEqual(reply.events, ["head 101", "fail TIMEOUT"]);
});

test("who gives up takes the attempt, its deadline and its body along", () => {
  const scene = new Scene({ timeouts: { requestMs: 500 } });
  const { sink } = scene.ask({ method: "POST" }, false);
  send(sink, "body");
  assert.equal(scene.layer.keptBytes, 4);
  sink.abort(fault("CANCELLED", "gone"));
  assert.equal(scene.calls[0]!.aborted?.code, "CANCELLED");
  scene.assertClean();
});

test("rules that configure nothing of this do not come here", () => {
  const nothing = { timeouts: NO_TIMEOUTS, retry: null, allowsRequestHeaders: false };
  assert.ok(!needsRetryLayer(nothing, [null, null]));
  assert.ok(needsRetryLayer(nothing, [null, 5]));
  assert.ok(needsRetryLayer({ ...nothing, retry: POLICY }, []));
  assert.ok(needsRetryLayer({ ...nothing, allowsRequestHeaders: true }, []));
  for (const key of Object.keys(NO_TIMEOUTS))
    assert.ok(needsRetryLayer({ ...nothing, timeouts: { ...NO_TIMEOUTS, [key]: 1 } }, []), key);
});

// --- gRPC deadlines ---

test("a call's own deadline is kept where it is the smaller one, and goes on as the client said it", () => {
  const scene = new Scene({ timeouts: { requestMs: 5_000 }, retry: null });
  const { reply } = scene.ask(call("grpc-timeout", "100000u"));
  assert.equal(fieldValue(scene.calls[0]!.head.fields, "grpc-timeout"), "100000u");
  scene.clock.advance(110);
  assert.deepEqual(reply.events, ["fail TIMEOUT"]);
  assert.equal(reply.fault!.rule, "grpc-timeout");
  const { head } = meshAnswer({ ...GET, ...call() }, explain(reply.fault!, UNNAMED));
  assert.equal(fieldValue(head.fields, "grpc-status"), "4");
});

test("the rule's is kept where that is smaller, and the server is told of it", () => {
  const scene = new Scene({ timeouts: { requestMs: 100 }, retry: null });
  const { reply } = scene.ask(call("grpc-timeout", "5S"));
  assert.equal(fieldValue(scene.calls[0]!.head.fields, "grpc-timeout"), "100m");
  scene.ask(call());
  assert.equal(fieldValue(scene.calls[1]!.head.fields, "grpc-timeout"), "100m");
  scene.clock.advance(110);
  assert.equal(reply.fault!.rule, "HTTPRoute/shop/web: timeouts.request");
  scene.ask();
  assert.equal(fieldValue(scene.calls[2]!.head.fields, "grpc-timeout"), null, "no gRPC, no deadline");
});

test("each attempt is told what is left", () => {
  const scene = new Scene({ timeouts: { attemptMs: 400 } });
  scene.ask(call("grpc-timeout", "1S"));
  assert.equal(fieldValue(scene.calls[0]!.head.fields, "grpc-timeout"), "400m");
  scene.clock.advance(700);
  assert.equal(scene.calls.length, 2);
  // 1000 ms less the 400 of the first attempt and a pause of 20.
  assert.equal(fieldValue(scene.calls[1]!.head.fields, "grpc-timeout"), "400m");
  scene.clock.advance(200);
  assert.equal(fieldValue(scene.calls[2]!.head.fields, "grpc-timeout"), "140m");
});

// --- retries ---

test("an answer of the policy's statuses is not heard of, and the next one is", () => {
  const scene = new Scene();
  const { reply } = scene.ask();
  scene.calls[0]!.answer(503, [], "busy");
  assert.deepEqual(reply.events, []);
  scene.clock.advance(10);
  assert.equal(scene.calls.length, 1, "a pause first");
  scene.clock.advance(10);
  scene.calls[1]!.answer(200, [], "well");
  assert.deepEqual(reply.events, ["head 200", "finish"]);
  assert.equal(reply.body_, "well");
  assert.deepEqual(scene.events, ["retried", "succeeded"]);
  scene.assertClean();
  scene.clock.advance(5_000);
  assert.equal(scene.calls[0]!.aborted, null, "its connection stays");
});

test("after the last retry the answer is passed on, whatever it is", () => {
  const scene = new Scene({ retry: { retriesMax: 1 } });
  const { reply } = scene.ask();
  scene.calls[0]!.answer(503, [], "busy");
  scene.clock.advance(20);
  scene.calls[1]!.answer(500, [], "broken");
  assert.deepEqual(reply.events, ["head 500", "finish"]);
  assert.equal(reply.body_, "broken");
  assert.deepEqual(scene.events, ["retried", "limit exceeded"]);
});

test("statuses that the policy does not name are answers like any other", () => {
  const scene = new Scene({ retry: { statusRanges: [[502, 504]] } });
  for (const status of [200, 404, 500, 501, 505]) {
    const { reply } = scene.ask();
    scene.calls.at(-1)!.answer(status, [], "");
    assert.deepEqual(reply.events, [`head ${status} last`]);
  }
  for (const status of [502, 503, 504]) {
    const { reply } = scene.ask();
    scene.calls.at(-1)!.answer(status, [], "");
    assert.deepEqual(reply.events, []);
  }
});

test("pauses double up to their bound, and chance adds its share", () => {
  const scene = new Scene({
    retry: { retriesMax: 4, backoff: { minMs: 100, maxMs: 300, jitterRatio: 1 } },
  });
  scene.ask();
  const pauses: number[] = [];
  for (let i = 0; i < 4; i++) {
    scene.calls.at(-1)!.answer(503, [], "");
    const startedAtMs = scene.clock.nowMs();
    while (scene.calls.length === i + 1) scene.clock.advance(10);
    pauses.push(scene.clock.nowMs() - startedAtMs);
  }
  // Half of the share at most: `random` is 0.5 here.
  assert.deepEqual(pauses, [150, 300, 450, 450]);
});

test("a connection that was lost is a reason where the policy says so, an overload here and a client's fault never", () => {
  for (const [code, onConnectionError, isRetried] of [
    ["RESET", true, true],
    ["CONNECT_FAILED", true, true],
    ["RESET", false, false],
    ["OVERLOADED", true, false],
    ["BAD_REQUEST", true, false],
    ["FORBIDDEN_TARGET", true, false],
  ] as const) {
    const scene = new Scene({ retry: { onConnectionError, statusRanges: [] } });
    const { reply } = scene.ask({ method: "POST" });
    scene.calls[0]!.reply.fail(fault(code, "no"));
    assert.deepEqual(reply.events, isRetried ? [] : [`fail ${code}`], code);
    scene.clock.advance(100);
    assert.equal(scene.calls.length, isRetried ? 2 : 1);
  }
});

test("… also when it was lost between a far sidecar and its application, which only a sidecar can say", () => {
  const scene = new Scene({ retry: { statusRanges: [], grpcCodes: [] } });
  const lost = explain(fault("RESET", "the application closed its connection"), UNNAMED);
  for (const [head, fields, isRetried] of [
    [{ ...GET, method: "POST" }, meshAnswer(GET, lost).head.fields, true],
    [call(), meshAnswer({ ...GET, ...call() }, lost).head.fields, true],
    [GET, ["proxy-status", lost.proxyStatus], false],
    [GET, meshAnswer(GET, explain(fault("PROTOCOL", "no HTTP"), UNNAMED)).head.fields, false],
  ] as const) {
    const count = scene.calls.length;
    const { reply } = scene.ask(head);
    scene.calls.at(-1)!.answer(502, [...fields], "");
    assert.deepEqual(reply.events, isRetried ? [] : ["head 502 last"]);
    scene.clock.advance(20);
    assert.equal(scene.calls.length, count + (isRetried ? 2 : 1));
  }
});

test("a fault counts as the status that it would be answered with", () => {
  const scene = new Scene({ retry: { onConnectionError: false, statusRanges: [[502, 502]] } });
  scene.ask();
  scene.calls[0]!.reply.fail(fault("RESET", "lost"));
  scene.clock.advance(20);
  assert.equal(scene.calls.length, 2);
});

test("what failed after an earlier attempt was seen is not said to be safe to repeat", () => {
  const scene = new Scene({ retry: { retriesMax: 1 } });
  const { reply } = scene.ask();
  scene.calls[0]!.answer(503, [], "");
  scene.clock.advance(20);
  const proxyStatus = "pillion;pillion-unseen;error=connection_refused";
  scene.calls[1]!.reply.fail(
    fault("REFUSED", "gone", {
      safe: true,
      explanation: { status: 502, grpcStatus: 14, line: "gone", proxyStatus, retryAfterMs: -1 },
    }),
  );
  assert.deepEqual(reply.events, ["fail REFUSED"]);
  assert.equal(reply.fault!.explanation!.proxyStatus, "pillion;error=connection_refused");
});

test("a head that is late is given up for another attempt, and waited for when there can be none", () => {
  const scene = new Scene({ retry: { retriesMax: 1, attemptTimeoutMs: 100 } });
  const { reply } = scene.ask();
  scene.clock.advance(100);
  assert.equal(scene.calls[0]!.aborted?.code, "TIMEOUT");
  scene.clock.advance(20);
  scene.clock.advance(5_000);
  assert.deepEqual(reply.events, []);
  scene.calls[1]!.answer(200, [], "");
  assert.deepEqual(reply.events, ["head 200 last"]);
  assert.deepEqual(scene.events, ["timeout attempt", "retried", "succeeded"]);
});

test("… and one that began in time may take long", () => {
  const scene = new Scene({ retry: { attemptTimeoutMs: 100 } });
  const { reply } = scene.ask();
  scene.calls[0]!.reply.head({ status: 200, version: "1.1", reason: null, fields: [] }, false);
  scene.clock.advance(5_000);
  assert.deepEqual(reply.events, ["head 200"]);
  assert.equal(scene.calls.length, 1);
});

test("nothing is sent again once the client has heard a part of an answer", () => {
  const scene = new Scene({ timeouts: { attemptMs: 100 } });
  const { reply } = scene.ask();
  scene.calls[0]!.reply.head({ status: 200, version: "1.1", reason: null, fields: [] }, false);
  scene.calls[0]!.reply.fail(fault("RESET", "lost"));
  assert.deepEqual(reply.events, ["head 200", "fail RESET"]);
  scene.clock.advance(1_000);
  assert.equal(scene.calls.length, 1);
});

test("interim answers are heard of and bind nothing; the body is asked for once", () => {
  const scene = new Scene();
  const { reply, sink } = scene.ask({ method: "POST" }, false);
  const interim = (at: number, status: number): void =>
    scene.calls[at]!.reply.informational({ status, version: "1.1", reason: null, fields: [] });
  interim(0, 100);
  interim(0, 103);
  send(sink, "body");
  sink.end(null);
  scene.calls[0]!.answer(503, [], "");
  scene.clock.advance(20);
  interim(1, 100);
  interim(1, 103);
  scene.calls[1]!.answer(200, [], "");
  assert.deepEqual(reply.events, [
    "informational 100",
    "informational 103",
    "informational 103",
    "head 200 last",
  ]);
  assert.equal(scene.calls[1]!.body, "body");
});

test("each attempt is drawn anew, and pays from the budget of where it goes", () => {
  const scene = new Scene();
  const other = new ScriptedService();
  scene.draws = [scene.destination, scene.to(other, NOTHING)];
  const { reply } = scene.ask();
  scene.calls[0]!.answer(503, [], "");
  assert.deepEqual(reply.events, ["head 503 last"], "the other service's budget is spent");
  scene.draws = [scene.destination, scene.to(other, PLENTY)];
  scene.ask();
  scene.calls[1]!.answer(503, [], "");
  scene.clock.advance(20);
  assert.equal(other.calls.length, 1);
});

// --- bodies ---

test("an attempt gets the body from its first byte, and what comes while there is none", () => {
  const scene = new Scene();
  const { reply, sink } = scene.ask({ method: "POST" }, false);
  send(sink, "one ");
  scene.calls[0]!.answer(503, [], "");
  assert.equal(scene.calls[0]!.aborted?.code, "CANCELLED", "it need not read the rest");
  send(sink, "two ");
  scene.clock.advance(20);
  assert.equal(scene.calls[1]!.body, "one two ");
  send(sink, "three");
  sink.end(["x", "y"]);
  assert.equal(scene.calls[1]!.body, "one two three");
  assert.deepEqual(scene.calls[1]!.trailers, ["x", "y"]);
  assert.equal(reply.requestConsumedBytes, 13);
  scene.calls[1]!.answer(200, [], "");
  scene.assertClean();
});

test("that an endpoint wants no more of a body is news only to a client that has more", () => {
  for (const hasEnded of [true, false]) {
    const scene = new Scene({ retry: null });
    const { reply, sink } = scene.ask({ method: "POST" }, false);
    if (hasEnded) sink.end(null);
    scene.calls[0]!.answer(200, [], "");
    scene.calls[0]!.reply.fail(fault("CANCELLED", "enough"));
    assert.deepEqual(reply.events, hasEnded ? ["head 200 last"] : ["head 200 last", "fail CANCELLED"]);
  }
});

test("a body that is longer than what is kept is bound to its endpoint", () => {
  for (const bounds of [{ retry: { bodyBytesMax: 10 } }, { keptBytesMax: 10 }]) {
    const scene = new Scene(bounds);
    const { reply, sink } = scene.ask({ method: "POST" }, false);
    send(sink, "0123456789");
    assert.equal(scene.layer.keptBytes, 10);
    send(sink, "+");
    assert.equal(scene.layer.keptBytes, 0);
    sink.end(null);
    scene.calls[0]!.answer(503, [], "");
    assert.deepEqual(reply.events, ["head 503 last"]);
    assert.deepEqual(scene.events, ["overflow body"]);
    assert.equal(scene.calls[0]!.body, "0123456789+");
  }
});

test("a discarded answer that comes from inside the call has its window opened when there is somebody to tell", () => {
  const scene = new Scene();
  let consumedBytes = 0;
  const call: Destination["call"] = (_head, _last, reply) => {
    reply.head({ status: 503, version: "1.1", reason: null, fields: [] }, false);
    reply.body(Buffer.from("body"), 0, 4);
    return { ...SPENT, responseConsumed: (bytes) => (consumedBytes += bytes) };
  };
  scene.draws = [{ ...scene.destination, call }];
  scene.ask();
  assert.equal(consumedBytes, 4);
});

test("a discarded answer is read to its end, and cut where that is far", () => {
  const scene = new Scene({ retry: { backoff: { minMs: 5_000, maxMs: 5_000, jitterRatio: 0 } } });
  const answer = (bytes: number): ScriptedCall => {
    scene.ask();
    const asked = scene.calls.at(-1)!;
    asked.reply.head({ status: 503, version: "1.1", reason: null, fields: [] }, false);
    asked.reply.body(new Uint8Array(bytes), 0, bytes);
    return asked;
  };
  const short = answer(65_536);
  assert.equal(short.aborted, null);
  short.reply.finish(null);
  assert.notEqual(answer(65_537).aborted, null);
  const slow = answer(1);
  scene.clock.advance(1_010);
  assert.notEqual(slow.aborted, null);
  assert.equal(short.aborted, null);
});

// --- gRPC ---

function grpcHead(...fields: string[]): { status: number; version: "2"; reason: null; fields: Fields } {
  return { status: 200, version: "2", reason: null, fields: ["content-type", "application/grpc", ...fields] };
}

test("a call's code decides, in a head alone and in trailers that come with it", () => {
  for (const isAlone of [true, false]) {
    const scene = new Scene({ retry: { statusRanges: [], retriesMax: 1 } });
    const { reply } = scene.ask(call());
    const unavailable = (at: number): void => {
      const { reply: answer } = scene.calls[at]!;
      if (isAlone) answer.head(grpcHead("grpc-status", "14"), true);
      else {
        answer.head(grpcHead(), false);
        answer.finish(["grpc-status", "14"]);
      }
    };
    unavailable(0);
    assert.deepEqual(reply.events, []);
    scene.clock.advance(20);
    unavailable(1);
    assert.deepEqual(
      reply.events,
      isAlone ? ["head 200 last"] : ["head 200", "finish grpc-status 14"],
      "the last one is passed on",
    );
    assert.deepEqual(scene.events, ["retried", "limit exceeded"]);
  }
});

test("a stream's head waits for the end of the turn and no longer", () => {
  const scene = new Scene({ retry: { statusRanges: [] } });
  const { reply } = scene.ask(call());
  scene.calls[0]!.reply.head(grpcHead(), false);
  assert.deepEqual(reply.events, []);
  scene.clock.settle();
  assert.deepEqual(reply.events, ["head 200"]);
  scene.calls[0]!.reply.finish(["grpc-status", "14"]);
  assert.deepEqual(reply.events, ["head 200", "finish grpc-status 14"]);
  scene.clock.advance(100);
  assert.equal(scene.calls.length, 1);
});

test("a head is followed at once by the body that comes with it", () => {
  const scene = new Scene({ retry: { statusRanges: [] } });
  const { reply } = scene.ask(call());
  scene.calls[0]!.reply.head(grpcHead(), false);
  scene.calls[0]!.reply.body(Buffer.from("data"), 0, 4);
  assert.deepEqual(reply.events, ["head 200"]);
  assert.equal(reply.body_, "data");
});

test("an answer that is no gRPC is judged by what its status means to a call", () => {
  const scene = new Scene({ retry: { statusRanges: [] } });
  const { reply } = scene.ask(call());
  scene.calls[0]!.reply.head({ status: 503, version: "2", reason: null, fields: [] }, true);
  assert.deepEqual(reply.events, []);
  const other = scene.ask(call()).reply;
  scene.calls[1]!.reply.head({ status: 404, version: "2", reason: null, fields: [] }, true);
  assert.deepEqual(other.events, ["head 404 last"]);
});

// --- what servers ask for ---

test("Retry-After lengthens the pause, as seconds and as a date (RFC 9110 §10.2.3)", () => {
  for (const format of ["seconds", "date"]) {
    const scene = new Scene();
    scene.ask();
    const value = format === "seconds" ? "2" : new Date(scene.clock.wallMs() + 2_000).toUTCString();
    scene.calls[0]!.answer(503, ["Retry-After", value], "");
    // A date has no milliseconds.
    scene.clock.advance(990);
    assert.equal(scene.calls.length, 1);
    scene.clock.advance(1_030);
    assert.equal(scene.calls.length, 2);
  }
});

test("… unless the policy does not respect it, and never beyond the request's time or half a minute", () => {
  const heedless = new Scene({ retry: { respectsRetryAfter: false } });
  heedless.ask();
  heedless.calls[0]!.answer(503, ["retry-after", "2"], "");
  heedless.clock.advance(20);
  assert.equal(heedless.calls.length, 2);

  const hurried = new Scene({ timeouts: { requestMs: 1_500 } });
  const { reply } = hurried.ask();
  hurried.calls[0]!.answer(503, ["retry-after", "2"], "");
  assert.deepEqual(reply.events, ["head 503 last"]);

  const endless = new Scene();
  const other = endless.ask().reply;
  endless.calls[0]!.answer(503, ["retry-after", "31"], "");
  assert.deepEqual(other.events, ["head 503 last"]);
});

test("a server's pushback is kept, and a negative one means no retry (gRFC A6)", () => {
  for (const [pushback, isRetried] of [
    ["500", true],
    ["-1", false],
    ["soon", false],
  ] as const) {
    const scene = new Scene();
    const { reply } = scene.ask(call());
    scene.calls[0]!.reply.head(grpcHead("grpc-status", "14", "grpc-retry-pushback-ms", pushback), true);
    assert.deepEqual(reply.events, isRetried ? [] : ["head 200 last"], pushback);
    scene.clock.advance(490);
    assert.equal(scene.calls.length, 1);
    scene.clock.advance(20);
    assert.equal(scene.calls.length, isRetried ? 2 : 1);
  }
});

test("… also where a far sidecar asks for it in the application's place", () => {
  const scene = new Scene();
  scene.ask();
  const explanation = { status: 429, grpcStatus: 8, line: "", proxyStatus: "pillion", retryAfterMs: 1_000 };
  scene.calls[0]!.reply.fail(fault("REFUSED", "too many", { explanation }));
  scene.clock.advance(990);
  assert.equal(scene.calls.length, 1);
  scene.clock.advance(20);
  assert.equal(scene.calls.length, 2);
});

test("the request's time is not spent on a pause that would be its end", () => {
  const scene = new Scene({
    timeouts: { requestMs: 1_000 },
    retry: { backoff: { minMs: 800, maxMs: 800, jitterRatio: 0 } },
  });
  const { reply } = scene.ask();
  scene.clock.advance(300);
  scene.calls[0]!.answer(503, [], "");
  assert.deepEqual(reply.events, ["head 503 last"]);
});

// --- budget ---

test("over budget the answer is passed on, and says why", () => {
  const scene = new Scene({ budget: NOTHING });
  const { reply } = scene.ask();
  scene.calls[0]!.answer(503, ["x", "y"], "busy");
  assert.deepEqual(reply.events, ["head 503", "finish"]);
  assert.equal(reply.body_, "busy");
  assert.deepEqual(reply.fields, [
    "x",
    "y",
    "proxy-status",
    'pillion;received-status=503;pillion-side=client;pillion-retry=withheld;details="not sent again: retries are at 20% of requests within 10000 ms"',
  ]);
  assert.deepEqual(scene.events, ["overflow budget"]);
  scene.assertClean();
});

test("… where there was none, the fault says it too", () => {
  const scene = new Scene({ budget: NOTHING });
  const { reply } = scene.ask();
  scene.calls[0]!.reply.fail(fault("RESET", "lost"));
  assert.match(reply.fault!.message, /^lost; not sent again: retries are at 20% of requests/);
});

test("what failed for want of retries of its own is not asked again, and whoever waits for us may know it", () => {
  const scene = new Scene();
  const { reply } = scene.ask();
  const said = ["proxy-status", "pillion;received-status=503;pillion-side=server;pillion-retry=withheld"];
  assert.ok(scene.layer.pressure.isPossible);
  assert.ok(!scene.layer.pressure.isOn(scene.clock));
  scene.calls[0]!.answer(503, said, "");
  assert.deepEqual(reply.events, ["head 503 last"]);
  assert.deepEqual(reply.fields, said);
  assert.deepEqual(scene.events, ["overflow behind"]);
  assert.ok(scene.layer.pressure.isOn(scene.clock));
});

test("a retry that is withheld is known to the inbound side, and none that is made", () => {
  const scene = new Scene({ budget: { ...NOTHING, floorCount: 1 } });
  scene.ask();
  scene.calls[0]!.answer(503, [], "");
  assert.ok(!scene.layer.pressure.isOn(scene.clock));
  scene.ask();
  scene.calls[1]!.answer(503, [], "");
  assert.ok(scene.layer.pressure.isOn(scene.clock));
});

test("over budget a head that is late is waited for", () => {
  const scene = new Scene({ budget: NOTHING, retry: { attemptTimeoutMs: 100 } });
  const { reply } = scene.ask();
  scene.clock.advance(1_000);
  assert.equal(scene.calls[0]!.aborted, null);
  scene.calls[0]!.answer(200, [], "");
  assert.deepEqual(reply.events, ["head 200 last"]);
  assert.deepEqual(scene.events, ["overflow budget"]);
});

test("one in five requests may be retried by default, whatever fails", () => {
  const scene = new Scene({
    budget: NOTHING,
    retry: { retriesMax: 5, backoff: { minMs: 0, maxMs: 0, jitterRatio: 0 } },
  });
  let requests = 0;
  for (; requests < 1_000; requests++) {
    scene.ask();
    for (let at = scene.calls.length - 1; at < scene.calls.length; at++) {
      scene.calls[at]!.answer(503, [], "");
      scene.clock.settle();
    }
    scene.clock.advance(5);
  }
  const retries = scene.calls.length - requests;
  assert.ok(retries <= 200 && retries >= 160, `${retries}`);
});

// --- fields of the request ---

const OWN: Fields = ["L5d-Timeout", "100ms", "x", "y", "l5d-retry-http", "5xx, 404", "l5d-retry-limit", "3"];

test("a request's own fields count where the rule allows them, and go no further", () => {
  const scene = new Scene({ retry: null, allowsRequestHeaders: true });
  const { reply } = scene.ask({ fields: OWN });
  assert.deepEqual(scene.calls[0]!.head.fields, ["x", "y"]);
  scene.calls[0]!.answer(404, [], "");
  scene.clock.advance(40);
  assert.equal(scene.calls.length, 2);
  scene.clock.advance(70);
  assert.deepEqual(reply.events, ["fail TIMEOUT"]);
  assert.equal(reply.fault!.rule, "l5d-timeout");
});

test("… and travel on untouched where it does not", () => {
  const scene = new Scene({ retry: null, timeouts: { requestMs: 500 } });
  const { reply } = scene.ask({ fields: OWN });
  assert.deepEqual(scene.calls[0]!.head.fields, OWN);
  scene.calls[0]!.answer(404, [], "");
  assert.deepEqual(reply.events, ["head 404 last"]);
});
