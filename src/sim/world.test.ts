import assert from "node:assert/strict";
import { test } from "node:test";
import { GOOD } from "./figures.ts";
import { rateAt } from "./load.ts";
import type { FailureKind } from "./plan.ts";
import { reportOf } from "./report.ts";
import { simulate } from "./simulate.ts";
import { call, pathOf, SOURCE, workload, world } from "./testing.ts";

const failing = (what: FailureKind, atMs = 3_000, forMs = 3_000) => [{ atMs, forMs, what }];

test("the same seed gives the same report, byte by byte; another seed another one", () => {
  const plan = world([
    workload("load", 1, 3),
    workload("a", 2, 5, { latency: { kind: "exponential", meanMs: 9 } }),
  ]);
  const text = (seed: number) => JSON.stringify({ ...reportOf(simulate({ ...plan, seed })), seed: 0 });
  assert.equal(text(7), text(7));
  assert.notEqual(text(7), text(8));
});

test("a lone request takes the connection, two ways and the program's time", () => {
  const plan = world([workload("load", 1, 1), workload("a", 2, 1)], {}, 0);
  const made = simulate(plan, (w) => {
    w.clock.after(100, () =>
      w.workloads.get("load")!.pods[0]!.call(call("a"), call("a").head, () => undefined),
    );
    w.clock.after(200, () =>
      w.workloads.get("load")!.pods[0]!.call(call("a"), call("a").head, () => undefined),
    );
  });
  const { latency } = made.flow("load", pathOf("a")).phases[0]!;
  // 4 × 0.5 ms of connecting for the first alone; then 0.5 + 5 + 0.5.
  assert.equal(latency.maxUs, 8_000);
  assert.equal(latency.sumUs, 14_000);
  assert.deepEqual(made.violations, []);
});

test("a queue with c workers serves c at once, holds its bound and turns the rest away", () => {
  const slow = { latency: { kind: "constant", ms: 100 }, workersMax: 2, waitingMax: 3 } as const;
  const plan = world([workload("load", 1, 1), workload("a", 2, 1, slow)], {}, 0);
  const outcomes: boolean[] = [];
  const made = simulate(plan, (w) => {
    const pod = w.workloads.get("load")!.pods[0]!;
    for (let i = 0; i < 8; i++) pod.call(call("a"), call("a").head, (isGood) => outcomes.push(isGood));
  });
  const { application } = made.workloads.get("a")!.pods[0]!;
  assert.equal(outcomes.filter(Boolean).length, 5);
  assert.equal(application.busyPeak, 2);
  assert.equal(application.waitingPeak, 3);
  assert.equal(application.refused, 3);
  assert.deepEqual([...made.flow("load", pathOf("a")).phases[0]!.bad], [["503", 3]]);
});

test("calls of a tier go through its own sidecar, and their failure is its failure", () => {
  const plan = world([
    workload("load", 1, 2),
    workload("a", 2, 4, { calls: [call("b"), call("c", { isOptional: true })] }),
    workload("b", 3, 4),
    workload("c", 4, 4, { errorRate: 1 }),
  ]);
  const made = simulate(plan);
  const toA = made.flow("load", pathOf("a")).phases[0]!;
  const toB = made.flow("a", pathOf("b")).phases[0]!;
  const toC = made.flow("a", pathOf("c")).phases[0]!;
  assert.ok(toA.requests > 900 && toA.good === toA.requests);
  assert.equal(toB.requests, toA.requests);
  assert.equal(toC.bad.get("500"), toA.requests);
  const broken = simulate({
    ...plan,
    failures: failing({ kind: "errors", workload: "b", pods: 4, rate: 1 }, 0, 20_000),
  });
  assert.equal(broken.flow("load", pathOf("a")).phases[0]!.good, 0);
  assert.deepEqual([...made.violations, ...broken.violations], []);
});

test("failures change what they say, while they last, and leave nothing behind", () => {
  const plan = world([workload("load", 1, 5), workload("a", 2, 4, {}, ["x", "y"])]);
  const during = (what: FailureKind) => {
    const made = simulate({ ...plan, failures: failing(what) });
    assert.deepEqual(made.violations, [], JSON.stringify(what));
    const { phases } = made.flow("load", pathOf("a"));
    assert.equal(
      phases[0]!.good + (phases[0]!.bad.get("RESET") ?? 0) + (phases[0]!.bad.get("500") ?? 0),
      phases[0]!.requests,
    );
    assert.equal(phases[2]!.good, phases[2]!.requests, `after ${JSON.stringify(what)}`);
    return { tally: phases[1]!, made };
  };
  const errors = during({ kind: "errors", workload: "a", pods: 4, rate: 0.3 }).tally;
  assert.ok(Math.abs(errors.bad.get("500")! / errors.requests - 0.3) < 0.06);
  assert.ok(
    during({ kind: "slow", workload: "a", pods: 4, factor: 20 }).tally.latency.quantileUs(0.5) > 95_000,
  );
  // Three of four are gone: the first requests learn it, the others go to the fourth.
  const { tally: death, made } = during({ kind: "death", workload: "a", pods: 3 });
  assert.ok(death.good > death.requests * 0.98);
  assert.ok(made.workloads.get("a")!.pods[3]!.arrivals.phases[1]! > death.requests * 0.98);
  const zone = during({ kind: "zone", zone: "x" });
  assert.equal(zone.made.workloads.get("a")!.pods[0]!.arrivals.phases[1]! < 40, true);
});

test("a sender that gave up hears nothing more, and the program works on unless it notices", () => {
  const slow = { latency: { kind: "constant", ms: 50 } } as const;
  for (const noticesAbort of [false, true]) {
    const plan = world([workload("load", 1, 1), workload("a", 2, 1, { ...slow, noticesAbort })], {}, 0);
    let busyAtMs70 = -1;
    const made = simulate(plan, (w) => {
      const pod = w.workloads.get("load")!.pods[0]!;
      w.clock.after(20, () => pod.call(call("a", { timeoutMs: 30 }), call("a").head, () => undefined));
      w.clock.after(60, () => (busyAtMs70 = w.workloads.get("a")!.pods[0]!.application.busy));
    });
    assert.deepEqual([...made.flow("load", pathOf("a")).phases[0]!.bad.keys()], ["the client's own timeout"]);
    assert.equal(busyAtMs70, noticesAbort ? 0 : 1);
    assert.deepEqual(made.violations, []);
  }
});

test("a request that is never answered is a violation", () => {
  const plan = world([workload("load", 1, 1), workload("a", 2, 1)], {}, 0);
  const made = simulate(plan, (w) => {
    const pod = w.workloads.get("load")!.pods[0]!;
    w.workloads.get("a")!.pods[0]!.application.call = () => ({
      data: () => undefined,
      end: () => undefined,
      abort: () => undefined,
      responseConsumed: () => undefined,
    });
    pod.call(call("a"), call("a").head, () => undefined);
  });
  assert.match(made.violations.join("\n"), /1 requests were never answered/);
});

test("an answer given twice is a violation", () => {
  const plan = world([workload("load", 1, 1), workload("a", 2, 1)], {}, 0);
  const made = simulate(plan, (w) => {
    const pod = w.workloads.get("load")!.pods[0]!;
    pod.outbound.target = () => ({
      call: (_head, _last, reply) => {
        for (let i = 0; i < 2; i++)
          reply.head({ status: 200, version: "1.1", reason: null, fields: [] }, true);
        return {
          data: () => undefined,
          end: () => undefined,
          abort: () => undefined,
          responseConsumed: () => undefined,
        };
      },
    });
    pod.call(call("a"), call("a").head, () => undefined);
  });
  assert.match(made.violations.join("\n"), /second answer/);
});

test("closed users wait for their answers and think: their number bounds what is under way", () => {
  const plan = world(
    [workload("load", 1, 2), workload("a", 2, 1, { latency: { kind: "constant", ms: 30 } })],
    {
      loads: [
        {
          kind: "closed",
          from: "load",
          call: call("a"),
          keys: null,
          retriesMax: 0,
          users: 10,
          think: { kind: "constant", ms: 69 },
        },
      ],
    },
  );
  const made = simulate(plan);
  const { requests } = made.flow("load", pathOf("a")).phases[0]!;
  // 10 users, 100 ms a round, 10 s.
  assert.ok(requests >= 980 && requests <= 1_000, `${requests}`);
  assert.ok(made.workloads.get("a")!.pods[0]!.application.busyPeak <= 10);
});

test("a rate goes straight from step to step, and jumps where two have one time", () => {
  const steps = [
    { atMs: 1_000, perSecond: 10 },
    { atMs: 2_000, perSecond: 20 },
    { atMs: 2_000, perSecond: 100 },
    { atMs: 3_000, perSecond: 50 },
  ];
  const at = [0, 1_000, 1_500, 1_750, 2_000, 2_500, 3_000, 9_000].map((ms) => rateAt(steps, ms));
  assert.deepEqual(at, [10, 10, 15, 17.5, 100, 75, 50, 50]);
});

test("the report counts what arrived once more than was asked as retries of the sender", () => {
  const plan = world([workload("load", 1, 1), workload("a", 2, 2, { errorRate: 1 })]);
  const made = simulate({ ...plan, loads: [{ ...plan.loads[0]!, retriesMax: 2 }] });
  const flow = made.flow("load", pathOf("a")).phases[0]!;
  const report = reportOf(made);
  // The program's own retries are requests of its own: no load factor beyond 1, and three times the requests.
  assert.equal(report.services[0]!.phases[0]!.loadFactor, 1);
  assert.ok(flow.requests > 2_700 && flow.requests % 3 === 0, `${flow.requests}`);
  assert.equal(flow.bad.get(GOOD), undefined);
});

test("a rate limit at the pods lets through what it says, and tells the others so", () => {
  const rate = {
    source: SOURCE,
    matches: [],
    key: { kind: "total" },
    requests: 20,
    windowMs: 1_000,
    burst: 10,
    scope: "local",
  } as const;
  const limits = { rates: [rate], exempt: [], concurrency: null };
  const made = simulate(world([workload("load", 1, 4), workload("a", 2, 2, {}, [""], limits)], {}, 200));
  const tally = made.flow("load", pathOf("a")).phases[0]!;
  // Two pods, each with its burst and 20 a second for 10 s.
  assert.ok(tally.good >= 400 && tally.good <= 420, `${tally.good}`);
  assert.equal(tally.bad.get("429") ?? tally.requests - tally.good, tally.requests - tally.good);
  assert.equal(made.faults.get("RATE_LIMITED [default/http]"), tally.requests - tally.good);
  assert.deepEqual(made.violations, []);
});
