import assert from "node:assert/strict";
import { test } from "node:test";
import type { HttpMatch } from "#/model/route.ts";
import type { InboundLimits } from "#/model/traffic.ts";
import type { RequestHead, RequestSink } from "../http/exchange.ts";
import { fault } from "../http/fault.ts";
import { ManualClock, RecordingReply, ScriptedService } from "../http/testing.ts";
import { PortLimits } from "./port-limits.ts";
import { QuotaShares } from "./quota-shares.ts";
import { rate, SOURCE } from "./testing.ts";

const PROBE: HttpMatch = {
  path: { kind: "exact", value: "/healthz" },
  headers: [],
  query: [],
  method: "GET",
};

function limits(over: Partial<InboundLimits> = {}): InboundLimits {
  return { exempt: [], rates: [], concurrency: null, ...over };
}

class Scene {
  readonly clock = new ManualClock();
  readonly quota = new QuotaShares();
  readonly service = new ScriptedService();
  readonly counted: string[] = [];
  readonly limits = new PortLimits(80, {
    clock: this.clock,
    quota: this.quota,
    limited: ({ source }) => this.counted.push(`limited ${source.name}`),
    shed: ({ name }) => this.counted.push(`shed ${name}`),
  });
  hurried = 0;
  sink: RequestSink | null = null;

  constructor(holds: InboundLimits) {
    this.limits.update(holds);
    this.quota.driver = { begin: () => undefined, hurry: () => this.hurried++ };
  }

  ask(over: Partial<RequestHead> = {}, client: string | null = null, last = true): RecordingReply {
    const reply = new RecordingReply();
    const head: RequestHead = {
      method: "GET",
      scheme: "http",
      authority: "web",
      path: "/",
      version: "1.1",
      absoluteForm: false,
      upgrade: null,
      fields: [],
      ...over,
    };
    this.sink = this.limits.call(this.service, client, head, last, reply);
    return reply;
  }

  /** As the control plane would answer the one share that there is. */
  answer(granted: number, waitMs: number): void {
    const nowMs = this.clock.nowMs();
    const [{ share, report }] = this.quota.report(nowMs, 100) as [ReturnType<QuotaShares["report"]>[number]];
    share.granted({ granted, waitMs, replicas: 2 }, report.wanted, nowMs, nowMs);
    this.quota.wake();
  }
}

test("past a rate limit the answer names the policy and says when the next request fits; nothing reaches the application", () => {
  const scene = new Scene(limits({ rates: [rate()] }));
  scene.ask();
  scene.ask();
  const { code, rule, retryAfterMs, message, safe } = scene.ask().fault!;
  assert.deepEqual(
    { code, rule, retryAfterMs, message, safe },
    {
      code: "RATE_LIMITED",
      rule: "RateLimitPolicy/shop/web",
      retryAfterMs: 100,
      message: "more than 10 requests in 1 s",
      safe: false,
    },
  );
  assert.equal(scene.service.calls.length, 2);
  assert.deepEqual(scene.counted, ["limited web"]);
});

test("the machine's probes are not counted, unless they come from a client with an identity or in a flood", () => {
  const scene = new Scene(limits({ rates: [rate({ burst: 1 })], exempt: [PROBE] }));
  scene.ask();
  const probe = { path: "/healthz" };
  for (let i = 0; i < 20; i++) assert.equal(scene.ask(probe).fault, null);
  assert.equal(scene.ask(probe, "somebody").fault?.code, "RATE_LIMITED");
  assert.equal(scene.ask({ ...probe, method: "POST" }).fault?.code, "RATE_LIMITED");
  assert.equal(scene.ask(probe).fault?.code, "RATE_LIMITED");
  scene.clock.advance(50);
  assert.equal(scene.ask(probe).fault, null);
});

test("a request that only the control plane can decide waits with its body, and is sent when it may be", () => {
  const scene = new Scene(limits({ rates: [rate({ scope: "global" })] }));
  const reply = scene.ask({ method: "POST" }, null, false);
  scene.sink!.data(Buffer.from("abc"), 0, 3);
  assert.equal(scene.hurried, 1);
  assert.equal(scene.service.calls.length, 0);
  assert.equal(reply.requestConsumedBytes, 0);
  scene.answer(1, 0);
  assert.equal(scene.service.calls[0]?.body, "abc");
  scene.ask();
  scene.answer(0, 700);
  const refused = scene.ask().fault!;
  assert.equal(refused.code, "RATE_LIMITED");
  assert.equal(refused.retryAfterMs, 700);
  assert.match(refused.message, /in all pods together$/);
  assert.equal(scene.service.calls.length, 1);
});

test("those who wait are served in the order in which they came, and the rest is refused", () => {
  const scene = new Scene(limits({ rates: [rate({ scope: "global" })] }));
  const replies = [1, 2, 3].map(() => scene.ask());
  scene.answer(2, 400);
  assert.deepEqual(
    replies.map(({ fault: refusal }) => refusal?.retryAfterMs ?? null),
    [null, null, 400],
  );
  assert.equal(scene.quota.waitingCount, 0);
});

test("who waits and leaves is forgotten", () => {
  const scene = new Scene(limits({ rates: [rate({ scope: "global" })] }));
  scene.ask();
  scene.sink!.abort(fault("CANCELLED", "gone"));
  assert.equal(scene.quota.waitingCount, 0);
  scene.answer(5, 0);
  assert.equal(scene.service.calls.length, 0);
});

test("when the control plane cannot be asked, those who wait go by this pod's equal part", () => {
  const scene = new Scene(limits({ rates: [rate({ scope: "global", requests: 1, burst: 1 })] }));
  const [first, second] = [scene.ask(), scene.ask()];
  scene.quota.setAlone(true, scene.clock.nowMs());
  scene.quota.wake();
  assert.equal(scene.service.calls.length, 1);
  assert.equal(first.fault, null);
  assert.equal(second.fault?.code, "RATE_LIMITED");
});

test("only so many wait; one more is refused at once", () => {
  const scene = new Scene(limits({ rates: [rate({ scope: "global" })] }));
  for (let i = 0; i < 1_000; i++) assert.equal(scene.ask().fault, null);
  assert.equal(scene.ask().fault?.code, "RATE_LIMITED");
});

const CONCURRENCY = { source: SOURCE, limitMin: 10, limitMax: 10, priorityHeader: "x-priority" };

test("past the concurrency limit requests are shed, those of low priority first, and places become free as requests end", () => {
  const scene = new Scene(limits({ concurrency: CONCURRENCY }));
  const of = (priority: string): RecordingReply => scene.ask({ fields: ["x-priority", priority] });
  for (let i = 0; i < 7; i++) assert.equal(of("low").fault, null);
  const shed = of("low").fault!;
  assert.equal(shed.code, "SHED");
  assert.equal(shed.rule, "RateLimitPolicy/shop/web");
  assert.equal(shed.retryAfterMs, 1_000);
  assert.match(shed.message, /7 requests are under way, and the workload serves 10 well \(priority low\)/);
  assert.equal(of("whatever").fault, null);
  assert.equal(of("normal").fault, null);
  assert.equal(of("normal").fault?.code, "SHED");
  assert.equal(of("high").fault, null);
  assert.equal(of("high").fault?.code, "SHED");
  assert.deepEqual(scene.counted, Array(3).fill("shed web"));
  scene.service.calls[0]!.answer(200, [], "ok");
  scene.service.calls[1]!.answer(200, [], "");
  scene.service.calls[2]!.reply.fail(fault("RESET", "crashed"));
  assert.equal(scene.limits.concurrency?.underWay, 7);
  assert.equal(of("high").fault, null);
  scene.sink!.abort(fault("CANCELLED", "gone"));
  scene.sink!.abort(fault("CANCELLED", "twice"));
  assert.equal(scene.limits.concurrency?.underWay, 7);
});

test("a connection that was handed over counts no more", () => {
  const scene = new Scene(limits({ concurrency: CONCURRENCY }));
  scene.ask({ upgrade: "websocket" });
  scene.service.calls[0]!.reply.head({ status: 101, version: "1.1", reason: null, fields: [] }, false);
  assert.equal(scene.limits.concurrency?.underWay, 0);
  scene.service.calls[0]!.reply.finish(null);
  assert.equal(scene.limits.concurrency?.underWay, 0);
});
