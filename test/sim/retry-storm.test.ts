/**
 * A retry storm on virtual time: a few hundred nodes in three tiers, each with a sidecar's retry layer, and a last tier of which half of
 * all requests fail. Without budgets each tier multiplies the load on the next; with them the last one gets a fifth more at most.
 */
import assert from "node:assert/strict";
import test from "node:test";
import type { RetryPolicy } from "#/model/route.ts";
import type { RetryBudget } from "#/model/traffic.ts";
import { BACKEND_TRAFFIC_DEFAULTS } from "#/model/traffic.ts";
import { SeededRandom } from "#/base/random.ts";
import type { HttpService, RequestHead, ResponseSink } from "#/stack/http/exchange.ts";
import { SPENT } from "#/stack/http/exchange.ts";
import { ManualClock } from "#/stack/http/testing.ts";
import { RetryBudgetWindow } from "#/stack/retry/retry-budget.ts";
import { RetryLayer } from "#/stack/retry/retry-layer.ts";
import { RetryDamping, RetryPressure } from "#/stack/retry/retry-pressure.ts";
import type { Destination, RetryRule } from "#/stack/retry/retry-rule.ts";

const POLICY: RetryPolicy = {
  retriesMax: 3,
  statusRanges: [[500, 599]],
  grpcCodes: [],
  onConnectionError: true,
  attemptTimeoutMs: null,
  bodyBytesMax: 65_536,
  backoff: { minMs: 25, maxMs: 250, jitterRatio: 1 },
  respectsRetryAfter: true,
};
const UNBOUNDED: RetryBudget = { percent: 100, intervalMs: 10_000, floorCount: 10_000, floorIntervalMs: 1 };
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

/** Passes what its client asks on to the next tier, and answers 503 when that fails: a program with its sidecar. */
class Node implements HttpService {
  readonly #inbound: HttpService;
  retries = 0;

  constructor(clock: ManualClock, random: SeededRandom, next: readonly HttpService[], budget: RetryBudget) {
    const pressure = new RetryPressure();
    const layer = new RetryLayer({ clock, random, pressure });
    const rule: RetryRule = {
      timeouts: { requestMs: 5_000, responseMs: null, attemptMs: null, idleMs: null },
      retry: POLICY,
      allowsRequestHeaders: false,
      label: "HTTPRoute/storm/next",
      series: {
        retried: () => this.retries++,
        retrySucceeded: () => {},
        retryLimitExceeded: () => {},
        retryOverflowed: () => {},
        timedOut: () => {},
      },
    };
    const destination: Destination = {
      budget: new RetryBudgetWindow(budget),
      attemptTimeoutMs: null,
      call: (head, last, reply) => next[Math.floor(random.next() * next.length)]!.call(head, last, reply),
    };
    const destinations = { draw: () => destination, hold: () => undefined, release: () => undefined };
    const program: HttpService = {
      call: (head, last, reply) =>
        layer.call(rule, destinations, head, last, {
          ...NOT_HEARD,
          // A program's own answer: of what it was told it passes on nothing but whether it went well.
          head: ({ status }) => answer(reply, status === 200 ? 200 : 503),
          fail: () => answer(reply, 503),
        }),
    };
    this.#inbound = new RetryDamping(program, pressure, clock);
  }

  call(head: RequestHead, last: boolean, reply: ResponseSink): typeof SPENT {
    return this.#inbound.call(head, last, reply);
  }
}

const NOT_HEARD: ResponseSink = {
  informational: () => {},
  head: () => {},
  body: () => {},
  finish: () => {},
  fail: () => {},
  requestConsumed: () => {},
};

function answer(reply: ResponseSink, status: number): void {
  reply.head({ status, version: "2", reason: null, fields: [] }, true);
}

interface Outcome {
  readonly load: number;
  readonly success: number;
}

/** 100 nodes ask 100 nodes, and these one service; each of the first has 20 requests a second for a quarter of a minute. */
function storm(seed: number, budget: RetryBudget): Outcome {
  const clock = new ManualClock();
  const random = new SeededRandom(seed);
  let arrived = 0;
  const failing: HttpService = {
    call: (_head, _last, reply) => {
      arrived++;
      const status = random.next() < 0.5 ? 503 : 200;
      clock.after(5, () => answer(reply, status));
      return SPENT;
    },
  };
  const middle = Array.from({ length: 100 }, () => new Node(clock, random, [failing], budget));
  const front = Array.from({ length: 100 }, () => new Node(clock, random, middle, budget));
  let asked = 0;
  let succeeded = 0;
  const reply: ResponseSink = { ...NOT_HEARD, head: ({ status }) => (succeeded += status === 200 ? 1 : 0) };
  for (let round = 0; round < 300; round++) {
    for (const node of front) {
      asked++;
      node.call(GET, true, reply);
    }
    clock.advance(50);
  }
  clock.advance(10_000);
  return { load: arrived / asked, success: succeeded / asked };
}

test("in a storm through three tiers the last one gets at most 1.2 times the load with budgets, and twice without", () => {
  // The floor is for services with few requests: here it would be half of all.
  const budget = { ...BACKEND_TRAFFIC_DEFAULTS.retryBudget, floorCount: 1 };
  const kept = storm(1, budget);
  const storming = storm(1, UNBOUNDED);
  const show = ({ load, success }: Outcome): string =>
    `${load.toFixed(2)} × the load, ${(success * 100).toFixed(0)} % succeed`;
  process.stdout.write(`retry storm, 200 nodes: with budgets ${show(kept)}; without ${show(storming)}\n`);
  assert.ok(kept.load <= 1.2, show(kept));
  assert.ok(storming.load >= 1.9, show(storming));
});
