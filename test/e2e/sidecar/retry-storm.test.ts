/**
 * A retry storm on real pods: a program asks another, and that one a third, of which half of all requests fail. Both sidecars between them
 * retry. Once without budgets, once with; what the third program gets beside what the first has asked for is printed.
 */
import assert from "node:assert/strict";
import { after, before, describe, test } from "node:test";
import type { OutboundPolicy } from "#/model/policy.ts";
import { policyTo } from "#/model/policy.ts";
import type { Backend } from "#/model/route.ts";
import type { RetryBudget } from "#/model/traffic.ts";
import { BACKEND_TRAFFIC_DEFAULTS } from "#/model/traffic.ts";
import { cannotRun, Mesh, type Pod } from "./rig/mesh.ts";
import type { WorkerContext } from "./rig/worker.ts";

const skip = cannotRun() ?? false;
const FIRST_REQUESTS = 50;
const REQUESTS_PER_SECOND = 100;
/** The floor is for services with few requests; at this load it would be half of the share. */
const BUDGET: RetryBudget = { ...BACKEND_TRAFFIC_DEFAULTS.retryBudget, floorCount: 1 };
const UNBOUNDED: RetryBudget = { percent: 100, intervalMs: 10_000, floorCount: 10_000, floorIntervalMs: 1 };

/** Half of what it is asked for fails. */
function serveBackend({ http, state }: WorkerContext): Promise<null> {
  state["arrived"] = 0;
  let seed = 1;
  const server = http.createServer((_request, response) => {
    state["arrived"] = (state["arrived"] as number) + 1;
    // A linear congruence (Numerical Recipes), so that runs are alike.
    seed = (Math.imul(seed, 1_664_525) + 1_013_904_223) >>> 0;
    response.writeHead(seed / 2 ** 32 < 0.5 ? 503 : 200).end();
  });
  return new Promise((done) => server.listen(8080, "0.0.0.0", () => done(null)));
}

function takeArrived({ state }: WorkerContext): number {
  const arrived = state["arrived"] as number;
  state["arrived"] = 0;
  return arrived;
}

/** Asks the service that the request's path names, and fails when that does. */
function serveMiddle({ http }: WorkerContext): Promise<null> {
  const agent = new http.Agent({ keepAlive: true });
  const server = http.createServer((request, response) => {
    const fail = (): void => void response.writeHead(503).end();
    const host = request.url!.slice(1);
    http
      .get({ host, port: 80, path: "/", agent }, (answer) => {
        answer.resume().on("end", () => void response.writeHead(answer.statusCode === 200 ? 200 : 503).end());
      })
      .on("error", fail);
  });
  return new Promise((done) => server.listen(8080, "0.0.0.0", () => done(null)));
}

/** Asks at a steady rate, however long answers take. How many requests succeeded. */
function load(
  { http }: WorkerContext,
  host: string,
  path: string,
  count: number,
  perSecond: number,
): Promise<number> {
  const agent = new http.Agent({ keepAlive: true });
  return new Promise((resolve) => {
    const startedAtMs = performance.now();
    let sent = 0;
    let ended = 0;
    let succeeded = 0;
    const end = (isGood: boolean): void => {
      if (isGood) succeeded++;
      if (++ended === count) resolve(succeeded);
    };
    const ticking = setInterval(() => {
      const due = Math.min(count, ((performance.now() - startedAtMs) / 1_000) * perSecond);
      for (; sent < due; sent++) {
        http
          .get({ host, port: 80, path, agent }, (answer) => {
            answer.resume().on("end", () => end(answer.statusCode === 200));
          })
          .on("error", () => end(false));
      }
      if (sent === count) clearInterval(ticking);
    }, 5);
  });
}

function policyTowards(path: string, retryBudget: RetryBudget): OutboundPolicy {
  const source = { group: "core", kind: "Service", namespace: "shop", name: "next", section: "", port: 80 };
  const traffic = { ...BACKEND_TRAFFIC_DEFAULTS, retryBudget };
  const backend: Backend = { kind: "balancer", source, path, defaultRttMs: 30, decayMs: 10_000, traffic };
  const policy = policyTo(backend, source, "http1");
  const retry = {
    retriesMax: 3,
    statusRanges: [[500, 599]],
    grpcCodes: [],
    onConnectionError: true,
    attemptTimeoutMs: null,
    bodyBytesMax: 65_536,
    backoff: { minMs: 25, maxMs: 250, jitterRatio: 1 },
    respectsRetryAfter: true,
  } as const;
  const [route] = policy.http;
  return { ...policy, http: [{ ...route!, rules: [{ ...route!.rules[0]!, retry }] }] };
}

describe("a retry storm through three tiers", { skip }, () => {
  let mesh: Mesh;
  let front: Pod;
  let middle: Pod;
  let backend: Pod;

  before(async () => {
    mesh = await Mesh.start();
    front = await mesh.pod("front", { isMeshed: true });
    middle = await mesh.pod("middle", { isMeshed: true, inboundPorts: [8080] });
    backend = await mesh.pod("backend", { isMeshed: true, inboundPorts: [8080] });
    await middle.run(serveMiddle);
    await backend.run(serveBackend);
  });
  after(() => mesh.close());

  /** How often the last tier is asked for each request that the first one makes. */
  async function storm(
    number: number,
    requests: number,
    budget: RetryBudget,
  ): Promise<{ load: number; success: number }> {
    const [toMiddle, toBackend] = [`10.214.${number}.1`, `10.214.${number}.2`];
    const { policies, endpoints } = mesh.table;
    await mesh.set({
      policies: {
        ...policies,
        [`${toMiddle}:80`]: policyTowards(`middle${number}:80`, budget),
        [`${toBackend}:80`]: policyTowards(`backend${number}:80`, budget),
      },
      endpoints: {
        ...endpoints,
        [`middle${number}:80`]: [middle.endpoint(8080)],
        [`backend${number}:80`]: [backend.endpoint(8080)],
      },
    });
    await backend.run(takeArrived);
    // A few first, so that no start of connections and code holds up a crowd. They count like the rest.
    let succeeded = await front.run(load, toMiddle, `/${toBackend}`, FIRST_REQUESTS, REQUESTS_PER_SECOND);
    succeeded += await front.run(load, toMiddle, `/${toBackend}`, requests, REQUESTS_PER_SECOND);
    const asked = FIRST_REQUESTS + requests;
    return { load: (await backend.run(takeArrived)) / asked, success: succeeded / asked };
  }

  test("without budgets the last tier gets twice the load, with them at most 1.2 times", async (t) => {
    const storming = await storm(1, 400, UNBOUNDED);
    // Longer than the budget's interval, so that it is seen to move on.
    const kept = await storm(2, 1_400, BUDGET);
    const show = (of: { load: number; success: number }): string =>
      `${of.load.toFixed(2)} × the load, ${(of.success * 100).toFixed(0)} % succeed`;
    t.diagnostic(`with budgets ${show(kept)}; without ${show(storming)}`);
    assert.ok(storming.load >= 1.75, `no storm without budgets: ${show(storming)}`);
    assert.ok(kept.load <= 1.2, show(kept));
    assert.ok(kept.load >= 1.1, `budgets that allow a fifth are hardly used: ${show(kept)}`);
  });
});
