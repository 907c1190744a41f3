import assert from "node:assert/strict";
import { rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import { kill, slowness } from "./fixtures/scene.ts";
import type { RateReport, RateTarget } from "./fixtures/rate-load.ts";
import { Mesh, NAMESPACE, workload } from "./mesh.ts";

const PODS = 10;
const PER_SECOND = 100;
const BURST = 10;
const OFFERED = 200;
/** Of the offered load, the share of the first pod. */
const SKEW = 0.6;
const WINDOW = 100;
/** In tenths of a second, as everything that the load says. */
const WARM = 50;
const MEASURED = 150;
/** After the control plane has gone or come back, until everybody has noticed: a lease, and some. */
const NOTICED = 50;
const FIXTURES = "/.pillion/mesh/test/e2e/mesh/fixtures";

const POLICY = `apiVersion: pillion.dev/v1alpha1
kind: RateLimitPolicy
metadata: { name: web, namespace: test }
spec:
  targetRefs: [{ group: "", kind: Service, name: web }]
  rates: [{ requests: ${PER_SECOND}, window: 1s, burst: ${BURST}, scope: Global }]
`;

/** Least and most in any window of ten seconds, in requests per second. */
function windows(counts: readonly number[], from: number, to: number): { least: number; most: number } {
  let least = Infinity;
  let most = 0;
  for (let start = from; start + WINDOW <= to; start++) {
    const sum = counts.slice(start, start + WINDOW).reduce((a, b) => a + b, 0);
    least = Math.min(least, sum / 10);
    most = Math.max(most, sum / 10);
  }
  return { least, most };
}

/** What one bucket in one place would have admitted of the load that there was. */
function ideal(offered: readonly number[]): number[] {
  const size = Math.max(BURST, 0.4 * PER_SECOND);
  let tokens = size;
  return offered.map((count) => {
    tokens = Math.min(size, tokens + PER_SECOND / 10);
    const taken = Math.min(count, Math.floor(tokens));
    tokens -= taken;
    return taken;
  });
}

/** Smallest share in any window of ten seconds. */
function leastShare(counts: readonly number[], of: readonly number[], from: number, to: number): number {
  let least = Infinity;
  for (let start = from; start + WINDOW <= to; start++)
    least = Math.min(least, mean(counts, start, start + WINDOW) / mean(of, start, start + WINDOW));
  return least;
}

function mean(counts: readonly number[], from: number, to: number): number {
  return (counts.slice(from, to).reduce((a, b) => a + b, 0) / (to - from)) * 10;
}

test("ten sidecars keep one limit together within 5 % over every 10 s under skewed load, and never more of it without the control plane", async (t) => {
  const mesh = new Mesh("global-rate-limit");
  try {
    mesh.write("namespace.yaml", NAMESPACE);
    mesh.write(
      "web.yaml",
      workload({
        name: "web",
        replicas: PODS,
        command: ["node", `${FIXTURES}/limited-server.js`],
        ports: { http: [80, 8080] },
        readyPort: 8080,
      }),
    );
    mesh.write("limit.yaml", POLICY);
    await mesh.up();
    const webs = (await mesh.status()).pods.filter(({ name }) => name.startsWith("web-"));
    assert.equal(webs.length, PODS);
    const targets: RateTarget[] = webs.map(({ ip }, i) => ({
      address: `${ip}:8080`,
      perSecond: i === 0 ? OFFERED * SKEW : (OFFERED * (1 - SKEW)) / (PODS - 1),
    }));
    mesh.write(
      "load.yaml",
      workload({ name: "load", command: ["node", `${FIXTURES}/rate-load.ts`, JSON.stringify(targets)] }),
    );
    const loader = await mesh.until("the load", async () =>
      (await mesh.status()).pods.find(({ name }) => name.startsWith("load-")),
    );
    const report = async (): Promise<RateReport> => {
      const { stdout, stderr } = await mesh.exec(loader.name, "curl", "-sS", "http://127.0.0.1:9001/");
      return stdout === "" ? assert.fail(stderr) : (JSON.parse(stdout) as RateReport);
    };
    /** Lets so many tenths of a second of load go by, and says how many there were in all. */
    const pass = async (tenths: number): Promise<number> => {
      const until = (await report()).now + tenths;
      const end = await mesh.until(
        `${tenths / 10} s of load`,
        async () => {
          const { now } = await report();
          return now >= until && now;
        },
        tenths * 100 + 60_000,
      );
      return end;
    };
    await mesh.until("first answers", async () => (await report().catch(() => null))?.admitted.some(Boolean));

    const slow = await slowness(mesh);
    const warm = await pass(WARM);
    const measured = await pass(MEASURED);
    const hold = join(mesh.dir, "run", mesh.name, "hold-control");
    writeFileSync(hold, "");
    const killed = (await report()).now;
    kill([(await mesh.status()).controlPid]);
    const gone = await pass(NOTICED);
    const away = await pass(MEASURED);
    rmSync(hold);
    await mesh.until("the control plane's return", async () => (await mesh.status()).controlConnected);
    const back = await pass(NOTICED);
    const end = await pass(MEASURED);

    const { admitted, first, offered, others } = await report();
    const together = windows(admitted, warm, measured);
    const alone = windows(admitted, gone, away);
    const change = windows(admitted, killed - WINDOW, gone + WINDOW);
    const again = windows(admitted, back, end);
    const share = Math.min(
      leastShare(admitted, ideal(offered), warm, measured),
      leastShare(admitted, ideal(offered), back, end),
    );
    const text = ({ least, most }: { least: number; most: number }): string =>
      `${least.toFixed(1)} … ${most.toFixed(1)}`;
    t.diagnostic(
      `${PODS} sidecars, limit ${PER_SECOND}/s, ${mean(offered, warm, measured).toFixed(0)}/s offered, ${SKEW * 100} % to one pod; admitted over any 10 s:`,
    );
    t.diagnostic(`with the control plane: ${text(together)}/s`);
    t.diagnostic(
      `without it: ${text(alone)}/s, of that ${mean(first, gone, away).toFixed(1)}/s at the pod with most; around its end ${text(change)}/s`,
    );
    t.diagnostic(`when it is back: ${text(again)}/s`);
    const otherwise = Object.entries(others).filter(([what]) => !/^429 .*RATE_LIMITED/.test(what));
    // On a machine that is busy with other things a server may be late to accept a connection.
    const late = otherwise.filter(([what]) => /^504 .*CONNECT_TIMEOU/.test(what));
    assert.deepEqual(otherwise, late);
    const lateCount = late.reduce((sum, [, count]) => sum + count, 0);
    assert.ok(lateCount <= 0.001 * slow * offered.reduce((a, b) => a + b, 0), JSON.stringify(late));
    t.diagnostic(
      `at least ${(share * 100).toFixed(1)} % of what one bucket in one place would have admitted; the machine is ${slow.toFixed(1)} × slow`,
    );
    // A machine that lets processes wait for long keeps answers waiting, so that more of them come together than were admitted
    // together; and reports, and so what they would have given.
    assert.ok(together.most <= PER_SECOND * (1 + 0.05 * slow), text(together));
    assert.ok(again.most <= PER_SECOND * (1 + 0.05 * slow), text(again));
    assert.ok(share >= 1 - 0.05 * slow, `${share}`);
    // An equal part at each, and of it no more than comes: what comes to the nine others is below their parts.
    assert.ok(alone.most <= PER_SECOND * (1 + 0.02 * slow), text(alone));
    assert.ok(mean(first, gone, away) <= (PER_SECOND / PODS) * (1 + 0.1 * slow));
    assert.ok(mean(first, gone, away) >= (PER_SECOND / PODS) * (1 - 0.2 * slow));
    // What was given before is used up while the equal parts begin: half a second's at most, and one request a pod.
    assert.ok(change.most <= PER_SECOND * (1 + 0.05 * slow) + PODS / 10, text(change));
  } finally {
    await mesh.close();
  }
});
