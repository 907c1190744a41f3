/** Who is set aside for its answers, and how it comes back. */
import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import type { Balancer, Member } from "./balancer.ts";
import { ACCRUAL, balancerOf, endpoints, traffic } from "./testing.ts";

/** `failures` answers of requests begun now. */
function fail(
  over: Balancer<string>,
  member: Member<string>,
  nowMs: number,
  failures: number = 3,
  pauseMs: number = 0,
): void {
  for (let i = 0; i < failures; i++) over.answered(member, true, nowMs, pauseMs, nowMs);
}

function asideOf(over: Balancer<string>): string[] {
  return over.members.filter(({ standing }) => standing.aside !== "no").map(({ extra }) => extra);
}

test("so many failures in a row set an endpoint aside, a success in between begins anew", () => {
  const over = balancerOf(endpoints(4), { accrual: ACCRUAL });
  const [member] = over.members;
  fail(over, member!, 10, 2);
  over.answered(member!, false, 10, 0, 10);
  fail(over, member!, 10, 2);
  assert.deepEqual(asideOf(over), []);
  fail(over, member!, 10, 1);
  assert.deepEqual(asideOf(over), [member!.extra]);
  assert.equal(member!.standing.untilMs, 1_010);
  for (let i = 0; i < 100; i++) assert.notEqual(over.pick(500, []), member);
});

test("a success rate below the least one sets aside, once there were enough requests", () => {
  const accrual = { ...ACCRUAL, consecutiveFailures: 0, successRateMin: 0.8, requestsMin: 10 };
  const over = balancerOf(endpoints(4), { accrual });
  const [member] = over.members;
  for (let i = 0; i < 9; i++) over.answered(member!, i % 3 === 0, i, 0, i);
  assert.deepEqual(asideOf(over), [], "2 of 3, and too few");
  over.answered(member!, true, 9, 0, 9);
  assert.deepEqual(asideOf(over), [member!.extra]);
  assert.equal(over.members[1]!.standing.aside, "no");
});

test("exactly one request tries an endpoint again; its success takes it back, its failure doubles the pause", () => {
  const over = balancerOf(endpoints(4), { accrual: ACCRUAL });
  const member = over.members[0]!;
  fail(over, member, 0);
  let dueMs = 1_000;
  for (const pauseMs of [2_000, 4_000, 8_000, 16_000, 32_000, 60_000, 60_000]) {
    assert.notEqual(over.pick(dueMs - 1, []), member);
    const picks = Array.from({ length: 50 }, () => over.pick(dueMs, []));
    assert.equal(picks.filter((each) => each === member).length, 1);
    over.begin(member);
    over.answered(member, true, dueMs, 0, dueMs + 7);
    over.end(member, dueMs);
    assert.equal(member.standing.untilMs, dueMs + 7 + pauseMs);
    dueMs = member.standing.untilMs;
  }
  assert.equal(over.pick(dueMs, []), member);
  over.answered(member, false, dueMs, 0, dueMs + 1);
  assert.equal(member.standing.aside, "no");
  fail(over, member, dueMs + 2);
  assert.equal(member.standing.untilMs, dueMs + 1_002, "and all begins anew");
});

test("answers to requests from before it was set aside change nothing", () => {
  const over = balancerOf(endpoints(4), { accrual: ACCRUAL });
  const member = over.members[0]!;
  fail(over, member, 100);
  over.answered(member, false, 50, 0, 150);
  over.answered(member, true, 90, 0, 160);
  assert.deepEqual([member.standing.aside, member.standing.untilMs], ["failing", 1_100]);
});

test("a trial that ends without an answer leaves the next request to try", () => {
  const over = balancerOf(endpoints(4), { accrual: ACCRUAL });
  const member = over.members[0]!;
  over.begin(member);
  fail(over, member, 0);
  assert.equal(over.pick(1_000, []), member);
  over.begin(member);
  over.end(member, 0);
  assert.notEqual(over.pick(1_001, []), member, "an older request that ends is not the trial");
  over.end(member, 1_000);
  assert.equal(over.pick(1_002, []), member);
});

test("a long answer that begins well lets others in, and one that then fails is one failure too many", () => {
  const over = balancerOf(endpoints(4), { accrual: ACCRUAL });
  const member = over.members[0]!;
  fail(over, member, 0);
  over.pick(1_000, []);
  over.begunWell(member, 1_000);
  assert.equal(member.standing.aside, "no");
  over.answered(member, true, 1_000, 0, 1_500);
  assert.deepEqual([member.standing.aside, member.standing.untilMs], ["failing", 3_500]);
});

test("… and one that ends well begins everything anew", () => {
  const over = balancerOf(endpoints(4), { accrual: ACCRUAL });
  const member = over.members[0]!;
  fail(over, member, 0);
  over.pick(1_000, []);
  over.begunWell(member, 1_000);
  over.answered(member, false, 1_000, 0, 1_500);
  fail(over, member, 2_000, 2);
  assert.equal(member.standing.aside, "no");
  fail(over, member, 2_000, 1);
  assert.equal(member.standing.untilMs, 3_000);
});

test("a pause that the endpoint asks for is kept, where the policy respects it", () => {
  for (const [respectsRetryAfter, untilMs] of [
    [true, 30_000],
    [false, 1_000],
  ] as const) {
    const over = balancerOf(endpoints(4), { accrual: { ...ACCRUAL, respectsRetryAfter } });
    fail(over, over.members[0]!, 0, 3, 30_000);
    assert.equal(over.members[0]!.standing.untilMs, untilMs);
  }
});

test("jitter lengthens the pause by up to its share", () => {
  const accrual = { ...ACCRUAL, backoff: { minMs: 1_000, maxMs: 60_000, jitterRatio: 0.5 } };
  const untils = new Set<number>();
  for (let seed = 0; seed < 20; seed++) {
    const over = balancerOf(endpoints(4), { accrual }, { seed });
    fail(over, over.members[0]!, 0);
    const { untilMs } = over.members[0]!.standing;
    assert.ok(untilMs >= 1_000 && untilMs < 1_500, String(untilMs));
    untils.add(untilMs);
  }
  assert.ok(untils.size > 15);
});

type Step =
  | { readonly kind: "fail" | "succeed" | "unreachable" | "wait" | "pick"; readonly at: number }
  | { readonly kind: "resize"; readonly at: number };

test("no pattern of failures and changes sets aside more for their answers than the floor allows", () => {
  const step: fc.Arbitrary<Step> = fc.record({
    kind: fc.constantFrom("fail", "fail", "fail", "succeed", "unreachable", "wait", "pick", "resize"),
    at: fc.nat(40),
  });
  fc.assert(
    fc.property(
      fc.double({ min: 0, max: 1, noNaN: true }),
      fc.array(step, { maxLength: 200 }),
      (ejectionFloor, steps) => {
        const over = balancerOf(endpoints(10), {
          accrual: { ...ACCRUAL, consecutiveFailures: 1 },
          ejectionFloor,
        });
        let nowMs = 0;
        for (const { kind, at } of steps) {
          nowMs++;
          const member = over.members[at % Math.max(1, over.members.length)];
          if (kind === "resize") over.update(endpoints(at), nowMs);
          else if (kind === "wait") nowMs += at * 500;
          else if (kind === "pick") over.pick(nowMs, []);
          else if (member === undefined) continue;
          else if (kind === "unreachable") over.connectFailed(member, nowMs);
          else over.answered(member, kind === "fail", nowMs, 0, nowMs);
          const count = over.members.length;
          const failing = over.members.filter(({ standing }) => standing.aside === "failing").length;
          assert.ok(
            count - failing >= ejectionFloor * count - 1e-9,
            `${failing} of ${count} at floor ${ejectionFloor}`,
          );
        }
      },
    ),
  );
});

test("a floor that is a whole number of endpoints is that number, however its share is computed", () => {
  const over = balancerOf(endpoints(10), { accrual: ACCRUAL, ejectionFloor: 1 - 0.7 });
  for (const member of over.members) fail(over, member, 0);
  assert.equal(asideOf(over).length, 7);
});

test("when members in use leave, those set aside that are due first come back to keep the floor", () => {
  const over = balancerOf(endpoints(10), { accrual: ACCRUAL });
  for (let i = 0; i < 5; i++) fail(over, over.members[i]!, i);
  assert.equal(asideOf(over).length, 5);
  fail(over, over.members[7]!, 9);
  assert.equal(asideOf(over).length, 5, "the floor is reached");
  over.update(endpoints(7), 10);
  assert.deepEqual(asideOf(over), ["10.1.0.2", "10.1.0.3", "10.1.0.4"]);
});

test("a single endpoint is never set aside for its answers, however many of them fail", () => {
  const over = balancerOf(endpoints(1), { accrual: ACCRUAL });
  fail(over, over.members[0]!, 0, 50);
  assert.equal(over.pick(1, []), over.members[0]);
  assert.deepEqual(asideOf(over), []);
});

test("with few left in use all are used that can be connected to (panic), and no longer when enough are back", () => {
  const over = balancerOf(endpoints(10), { accrual: ACCRUAL, ejectionFloor: 0.5, panicThreshold: 0.3 });
  for (let i = 0; i < 5; i++) fail(over, over.members[i]!, 0);
  const used = (nowMs: number): number =>
    new Set(Array.from({ length: 300 }, () => over.pick(nowMs, []))).size;
  assert.deepEqual([over.isPanicking, used(1)], [false, 5]);
  for (let i = 7; i < 10; i++) over.connectFailed(over.members[i]!, 1);
  assert.deepEqual([over.isPanicking, used(1)], [true, 7]);
  over.answered(over.members[0]!, false, 2, 0, 2);
  assert.deepEqual([over.isPanicking, used(2)], [false, 3]);
});

test("with neither floor nor panic, endpoints that all fail get one request each when their time is over, and no other", () => {
  const over = balancerOf(endpoints(2), { accrual: ACCRUAL, ejectionFloor: 0, panicThreshold: 0 });
  const [first, second] = over.members;
  fail(over, first!, 0);
  fail(over, second!, 10);
  assert.equal(over.pick(500, []), null);
  assert.equal(over.isReachable, false, "a split may send its requests elsewhere");
  assert.equal(over.pick(1_005, []), first);
  assert.equal(over.pick(1_005, []), null);
  assert.equal(over.pick(1_010, []), second);
  over.answered(second!, false, 1_010, 0, 1_011);
  assert.equal(over.pick(1_012, []), second);
});

test("a change of policy keeps who is set aside, and taking accrual away lets all back in", () => {
  const over = balancerOf(endpoints(4), { accrual: ACCRUAL });
  const members = [...over.members];
  fail(over, members[0]!, 0);
  over.configure(
    traffic({
      accrual: { ...ACCRUAL, consecutiveFailures: 9 },
      balancing: { algorithm: "round-robin", hashOn: [], boundedLoad: 0 },
    }),
    1,
  );
  assert.deepEqual([...over.members], members);
  assert.deepEqual(asideOf(over), [members[0]!.extra]);
  for (let i = 0; i < 8; i++) assert.notEqual(over.pick(2, []), members[0]);
  over.configure(traffic(), 3);
  assert.deepEqual(asideOf(over), []);
});

test("answers of an endpoint that has left count for nobody", () => {
  const over = balancerOf(endpoints(2), { accrual: ACCRUAL });
  const gone = over.members[1]!;
  over.begin(gone);
  over.update(endpoints(1), 1);
  fail(over, gone, 2);
  over.connectFailed(gone, 2);
  over.observe(gone, 1, false, 3);
  over.end(gone, 0);
  assert.equal(over.pending, 0);
  assert.equal(over.pick(3, []), over.members[0]);
});
