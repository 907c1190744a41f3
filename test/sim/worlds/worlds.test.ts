import assert from "node:assert/strict";
import { test } from "node:test";
import type { ResponseSink } from "#/stack/http/exchange.ts";
import { DeadlineWheel } from "#/stack/retry/deadline-wheel.ts";
import type { SharedDispatch } from "#/proxy/shared-dispatch.ts";
import type { World } from "#/sim/world.ts";
import type { SeededFault } from "./judge.ts";
import { judge } from "./judge.ts";

const SEEDS = 100;

test("no seed breaks an invariant", () => {
  const bad: string[] = [];
  let requests = 0;
  for (let seed = 1; seed <= SEEDS; seed++) {
    const verdict = judge(seed);
    requests += verdict.requests;
    if (verdict.violations.length > 0)
      bad.push(`seed ${seed} (npm run sim -- --seed ${seed}): ${verdict.violations.join("; ")}`);
  }
  assert.deepEqual(bad, []);
  assert.ok(requests > SEEDS * 300, `only ${requests} requests were made`);
});

test("a world depends on nothing but its seed", () => {
  for (const seed of [3, 4, 5]) assert.equal(judge(seed).report, judge(seed).report);
});

/** Whether any of the worlds says so. */
function isFound(fault: SeededFault, pattern: RegExp): boolean {
  for (let seed = 1; seed <= SEEDS; seed++)
    if (judge(seed, null, fault).violations.some((violation) => pattern.test(violation))) return true;
  return false;
}

/** Changes what every sidecar holds for each of its backends, once. */
function changeBackends(world: World, change: (shared: SharedDispatch) => void): void {
  for (const { outbound } of world.pods) {
    const hold = outbound.hold.bind(outbound);
    const changed = new Set<SharedDispatch>();
    outbound.hold = (backend) => {
      const shared = hold(backend);
      if (shared !== null && !changed.has(shared)) {
        changed.add(shared);
        change(shared);
      }
      return shared;
    };
  }
}

test("a budget that allows every retry is found", () => {
  const inWorld = (world: World): void =>
    changeBackends(world, ({ budget }) => {
      budget.tryRetry = () => true;
    });
  assert.ok(isFound({ inWorld }, /retries within \d+ ms, at most \d+ allowed/));
});

test("a budget that lets one in ten through is found", () => {
  let calls = 0;
  const inWorld = (world: World): void =>
    changeBackends(world, ({ budget }) => {
      const tryRetry = budget.tryRetry.bind(budget);
      budget.tryRetry = (nowMs) => tryRetry(nowMs) || ++calls % 10 === 0;
    });
  assert.ok(isFound({ inWorld }, /retries within \d+ ms, at most \d+ allowed/));
});

test("a timeout that never comes is found", (t) => {
  t.mock.method(DeadlineWheel.prototype, "set", () => undefined);
  assert.ok(isFound({}, /an answer after [\d.]+ ms where the settings allow \d+ ms/));
});

test("a request that is lost now and then is found", () => {
  let calls = 0;
  const inWorld = (world: World): void => {
    for (const { application } of world.pods) {
      const serve = application.call.bind(application);
      application.call = (head, last, reply) => {
        const sink = serve(head, last, reply);
        if (++calls % 1_000 === 0) application.crash();
        return sink;
      };
    }
  };
  assert.ok(isFound({ inWorld }, /were never answered/));
});

test("an answer that comes twice now and then is found", () => {
  let calls = 0;
  const twice = (reply: ResponseSink): ResponseSink => ({
    informational: (answer) => reply.informational(answer),
    head: (answer, isLast) => {
      reply.head(answer, isLast);
      reply.head(answer, isLast);
    },
    body: (bytes, start, stop) => reply.body(bytes, start, stop),
    finish: (trailers) => reply.finish(trailers),
    fail: (cause) => reply.fail(cause),
    requestConsumed: (bytes) => reply.requestConsumed(bytes),
  });
  const inWorld = (world: World): void =>
    changeBackends(world, ({ dispatch }) => {
      const send = dispatch.call.bind(dispatch);
      dispatch.call = (head, last, reply, tried) =>
        send(head, last, ++calls % 1_000 === 0 ? twice(reply) : reply, tried);
    });
  assert.ok(isFound({ inWorld }, /a second answer to one request/));
});

test("a request that stays under way when all is over is found", () => {
  const inWorld = (world: World): void =>
    changeBackends(world, ({ dispatch }) => {
      dispatch.bounds.wait();
    });
  assert.ok(isFound({ inWorld }, /1 requests to .* still wait/));
});

test("a split that is not as its weights say is found", () => {
  const inClaims: SeededFault["inClaims"] = (made) => ({
    ...made,
    splits: made.splits.map(({ path, weights }) => ({
      path,
      weights: new Map([...weights].map(([name, weight], i) => [name, i === 0 ? weight * 3 : weight])),
    })),
  });
  assert.ok(isFound({ inClaims }, /where its weight says/));
});

test("fewer endpoints than the ejection floor leaves are found", () => {
  const inClaims: SeededFault["inClaims"] = (made) => ({
    ...made,
    traffic: new Map([...made.traffic].map(([path, traffic]) => [path, { ...traffic, ejectionFloor: 1 }])),
  });
  assert.ok(isFound({ inClaims }, /endpoints of .* are set aside, at least \d+ must not be/));
});

test("more requests under way than the limit says are found", () => {
  const inClaims: SeededFault["inClaims"] = (made) => ({
    ...made,
    traffic: new Map(
      [...made.traffic].map(([path, traffic]) => [
        path,
        { ...traffic, limits: { ...traffic.limits, requestsMax: 1 } },
      ]),
    ),
  });
  assert.ok(isFound({ inClaims }, /requests under way to .*, at most 1 allowed/));
});

test("a pod that takes in more than its rate limit says is found", () => {
  const inWorld = (world: World): void => {
    for (const { limits } of world.pods) limits?.update(null);
  };
  assert.ok(isFound({ inWorld }, /took in \d+ requests within 1000 ms, at most \d+ allowed/));
});

test("a request that goes where no rule leads is found", () => {
  const inClaims: SeededFault["inClaims"] = (made) => ({
    ...made,
    backends: new Map([...made.backends].map(([path, backends]) => [path, backends.slice(1)])),
  });
  assert.ok(isFound({ inClaims }, /went to .*, where no rule that takes it leads/));
});
