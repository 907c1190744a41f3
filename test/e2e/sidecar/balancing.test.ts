/** Traffic policy as programs meet it, through real sidecars and the control contract. */
import assert from "node:assert/strict";
import { after, before, beforeEach, describe, test } from "node:test";
import { policyTo } from "#/model/policy.ts";
import type { BackendTraffic } from "#/model/traffic.ts";
import { BACKEND_TRAFFIC_DEFAULTS } from "#/model/traffic.ts";
import { cannotRun, Mesh, type Pod } from "./rig/mesh.ts";
import type { WorkerContext } from "./rig/worker.ts";

const skip = cannotRun() ?? false;
const VIP = "10.214.0.2";
/** Far more than it takes; only what is broken waits for it. */
const HEARD_WITHIN_MS = 30_000;

interface Reply {
  readonly status: number;
  readonly text: string;
  readonly headers: Record<string, string | string[] | undefined>;
}

/** Says its name, or that it is broken; `/slow` is answered once it is told to. */
function serve({ http, state }: WorkerContext, port: number, name: string): Promise<null> {
  const own = { isBroken: false, requests: 0, slow: [] as (() => void)[] };
  state["own"] = own;
  const server = http.createServer((request, response) => {
    own.requests++;
    if (request.url === "/slow") own.slow.push(() => response.end(name));
    else response.writeHead(own.isBroken ? 500 : 200).end(name);
  });
  return new Promise((done) => server.listen(port, "0.0.0.0", () => done(null)));
}

function become({ state }: WorkerContext, isBroken: boolean): null {
  Object.assign(state["own"] as object, { isBroken, requests: 0 });
  return null;
}

/** Answers what is slow; gives how many requests that were. */
function finish({ state }: WorkerContext): number {
  const { slow } = state["own"] as { slow: (() => void)[] };
  const waiting = slow.splice(0);
  for (const answer of waiting) answer();
  return waiting.length;
}

function slowCount({ state }: WorkerContext): number {
  return (state["own"] as { slow: unknown[] }).slow.length;
}

function ask(
  { http }: WorkerContext,
  host: string,
  path: string,
  headers: Record<string, string>,
): Promise<Reply> {
  return new Promise((resolve, reject) => {
    const request = http.request({ host, port: 80, path, headers, agent: false }, (response) => {
      let text = "";
      response.on("data", (bytes: Buffer) => (text += bytes.toString()));
      response.on("end", () =>
        resolve({ status: response.statusCode ?? 0, text, headers: response.headers }),
      );
      response.on("error", reject);
    });
    request.on("error", reject);
    request.end();
  });
}

const SOURCE = { group: "core", kind: "Service", namespace: "shop", name: "web", section: "", port: 80 };

describe("balancing", { skip }, () => {
  let mesh: Mesh;
  let client: Pod;
  let pods: Pod[];

  /** Each test has a service of its own. */
  let number = 0;
  const use = async (traffic: Partial<BackendTraffic>, among: readonly Pod[] = pods): Promise<string> => {
    number++;
    await set(traffic, among);
    return VIP.replace(/2$/, String(number + 1));
  };
  /** The same service, from now on so. */
  const set = async (traffic: Partial<BackendTraffic>, among: readonly Pod[] = pods): Promise<void> => {
    const path = `web${number}:80`;
    const backend = {
      kind: "balancer",
      source: SOURCE,
      path,
      defaultRttMs: 30,
      decayMs: 10_000,
      traffic: { ...BACKEND_TRAFFIC_DEFAULTS, ...traffic },
    } as const;
    const address = `${VIP.replace(/2$/, String(number + 1))}:80`;
    await mesh.set({
      policies: { ...mesh.table.policies, [address]: policyTo(backend, SOURCE, "http1") },
      endpoints: { ...mesh.table.endpoints, [path]: among.map((pod) => pod.endpoint(8080)) },
    });
  };
  const namesOf = async (
    host: string,
    count: number,
    headers: Record<string, string> = {},
  ): Promise<string[]> => {
    const names: string[] = [];
    for (let i = 0; i < count; i++) names.push((await client.run(ask, host, "/", headers)).text);
    return names;
  };
  /** Until what was set has been heard. */
  const until = async (what: string, holds: () => Promise<boolean>): Promise<void> => {
    const endMs = Date.now() + HEARD_WITHIN_MS;
    while (!(await holds())) if (Date.now() > endMs) assert.fail(`${what}: not within ${HEARD_WITHIN_MS} ms`);
  };

  before(async () => {
    mesh = await Mesh.start();
    pods = [];
    for (const name of ["a", "b", "c"]) {
      const pod = await mesh.pod(name, { isMeshed: true, inboundPorts: [8080] });
      await pod.run(serve, 8080, name);
      pods.push(pod);
    }
    client = await mesh.pod("client", { isMeshed: true });
  });
  beforeEach(async () => {
    for (const pod of pods) await pod.run(become, false);
  });
  after(() => mesh.close());

  test("round robin takes turns, and hashing keeps a key where it is", async () => {
    const host = await use({ balancing: { algorithm: "round-robin", hashOn: [], boundedLoad: 0 } });
    assert.deepEqual((await namesOf(host, 12)).toSorted().join(""), "aaaabbbbcccc");
    const hashOn = [{ kind: "header", name: "x-user" }] as const;
    const hashed = await use({ balancing: { algorithm: "consistent-hash", hashOn, boundedLoad: 0 } });
    const owners = new Set<string>();
    for (const user of ["ann", "ben", "cid", "dee", "eve", "fay", "gus", "hal"]) {
      const names = new Set(await namesOf(hashed, 4, { "X-User": user }));
      assert.equal(names.size, 1);
      for (const name of names) owners.add(name);
    }
    assert.ok(owners.size > 1);
  });

  test("a session stays with its pod, and begins anew once that is gone (GEP-1619)", async () => {
    const persistence = {
      kind: "cookie",
      name: "sid",
      absoluteTimeoutMs: null,
      isPermanent: false,
      path: "/",
    } as const;
    const host = await use({ persistence });
    const first = await client.run(ask, host, "/", {});
    const cookie = String(first.headers["set-cookie"]).split(";")[0]!;
    assert.match(cookie, /^sid=[0-9a-f-]+$/);
    assert.deepEqual(new Set(await namesOf(host, 10, { cookie })), new Set([first.text]));
    await set(
      { persistence },
      pods.filter((_, i) => "abc"[i] !== first.text),
    );
    await until("the pod has left", async () => (await namesOf(host, 1, { cookie }))[0] !== first.text);
    const second = await client.run(ask, host, "/", { cookie });
    assert.match(String(second.headers["set-cookie"]), /^sid=/);
  });

  test("a pod that fails is set aside, and the policy that says so holds from when it is heard", async () => {
    const roundRobin = { balancing: { algorithm: "round-robin", hashOn: [], boundedLoad: 0 } } as const;
    const host = await use(roundRobin);
    await pods[0]!.run(become, true);
    assert.equal((await namesOf(host, 30)).filter((name) => name === "a").length, 10);
    const accrual = {
      consecutiveFailures: 3,
      successRateMin: 0,
      windowMs: 10_000,
      requestsMin: 5,
      backoff: { minMs: 600_000, maxMs: 600_000, jitterRatio: 0 },
      respectsRetryAfter: false,
    };
    await set({ ...roundRobin, accrual });
    await until("it is set aside", async () => !(await namesOf(host, 6)).includes("a"));
    assert.ok(!(await namesOf(host, 30)).includes("a"));
  });

  test("a request beyond the bound gets 503 at once, with the bound as its rule, and is counted", async () => {
    const host = await use({ limits: { requestsMax: 2, pendingMax: 0, connectionsMax: 0 } });
    const slow = [client.run(ask, host, "/slow", {}), client.run(ask, host, "/slow", {})];
    await until("both are there", async () => {
      const counts = await Promise.all(pods.map((pod) => pod.run(slowCount)));
      return counts.reduce((sum, count) => sum + count, 0) === 2;
    });
    const third = await client.run(ask, host, "/", {});
    assert.equal(third.status, 503);
    assert.match(
      String(third.headers["proxy-status"]),
      /pillion-code=OVERLOADED;.*pillion-rule="requestsMax=2"/,
    );
    assert.match(third.text, /2 requests are under way, as many as this client may have/);
    for (const pod of pods) await pod.run(finish);
    assert.deepEqual(
      (await Promise.all(slow)).map(({ status }) => status),
      [200, 200],
    );
    assert.equal((await client.run(ask, host, "/", {})).status, 200);
    assert.equal(
      await client.metric(/^pillion_backend_limit_reached_total\{service="web\d:80",limit="requestsMax"/),
      1,
    );
  });
});
