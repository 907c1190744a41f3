import assert from "node:assert/strict";
import { existsSync, readFileSync } from "node:fs";
import { test } from "node:test";
import type { PodStatus } from "#/model/pod-plan.ts";
import { Mesh, NAMESPACE } from "./mesh.ts";
import { controllerRoots, load, loadPod, noFailures, service, summary, warmed } from "./fixtures/scene.ts";
import type { LoadReport } from "./fixtures/load.ts";

const MEASURED_MS = 8_000;
const CPU_LIMIT = "200m";

interface Flooded {
  readonly others: LoadReport;
  readonly passed: number;
  /** Periods in which the flooded sidecar had to wait for its next share of the processor. */
  readonly throttled: number;
}

test("a sidecar at its limit of CPU hurts only its own pod", async (t) => {
  const mesh = new Mesh("limits");
  try {
    mesh.write("namespace.yaml", NAMESPACE);
    mesh.write("web.yaml", service("web", { replicas: 2 }));
    mesh.write(
      "busy.yaml",
      service("busy", { annotations: { "config.linkerd.io/proxy-cpu-limit": CPU_LIMIT } }),
    );
    mesh.write(
      "load.yaml",
      loadPod("load", {
        http: { url: "http://web/", connections: 4, perSecond: 40 },
        fresh: { url: "http://web/", perSecond: 10 },
        grpc: { address: "web:50051", perSecond: 10 },
      }),
    );
    await mesh.up();
    const loader = await mesh.pod("load");
    await warmed(mesh, loader, ["http", "fresh", "grpc"], 50);
    const quiet = await measured();

    // Many more requests than 200 thousandths of a processor can pass on, from clients outside.
    const busy = await mesh.pod("busy");
    const limited = await flooded();
    const ungoverned = await flooded(async () => {
      mesh.write("busy.yaml", service("busy"));
      await mesh.until(
        "the limit to be lifted",
        async () => {
          const { pods } = await mesh.status();
          const mine = pods.filter((pod) => pod.owner.endsWith("/busy"));
          return mine.length === 1 && mine[0]?.ready && mine[0].uid !== busy.uid;
        },
        60_000,
      );
      await load(mesh, loader, "mark");
    });
    t.diagnostic(`the others, quiet run:         ${summary(quiet)}`);
    t.diagnostic(
      `the others, a sidecar at its CPU limit: ${summary(limited.others)}; it passed on ${limited.passed} requests`,
    );
    t.diagnostic(
      `the others, same load, no limit:  ${summary(ungoverned.others)}; it passed on ${ungoverned.passed} requests`,
    );
    t.diagnostic(
      `p99 against the quiet run: ${ratio(limited.others, quiet)} with the limit, ${ratio(ungoverned.others, quiet)} without`,
    );
    for (const report of [quiet, limited.others, ungoverned.others]) noFailures(report);
    assert.ok(limited.throttled > 0, "it was at its limit");
    assert.equal(ungoverned.throttled, 0);

    noFailures(await load(mesh, loader, "stop"));

    async function measured(): Promise<LoadReport> {
      await load(mesh, loader, "mark");
      await new Promise((resolve) => setTimeout(resolve, MEASURED_MS));
      return await load(mesh, loader, "mark");
    }

    /** What the others see while `busy` is flooded from outside. */
    async function flooded(first?: () => Promise<void>): Promise<Flooded> {
      await first?.();
      const pod = await mesh.pod("busy");
      const flood = mesh.run(
        // Clients of another machine would not take this one's processor.
        "nice",
        "-n",
        "19",
        "wrk",
        "-t1",
        "-c16",
        `-d${MEASURED_MS / 1_000 + 2}s`,
        "--timeout",
        "20s",
        `http://${pod.ip}:8080/`,
      );
      const others = await measured();
      const { stdout, stderr } = await flood;
      const passed = Number(/(\d+) requests in/.exec(stdout)?.[1] ?? 0);
      assert.ok(passed > 0, `the flood came: ${stdout}${stderr}`);
      return {
        others,
        passed,
        throttled: throttledPeriods(mesh, pod),
      };
    }
  } finally {
    await mesh.close();
  }
});

function ratio(report: LoadReport, quiet: LoadReport): string {
  return `${(report.p99Ms / quiet.p99Ms).toFixed(1)} ×`;
}

function throttledPeriods(mesh: Mesh, pod: PodStatus): number {
  const stat = controllerRoots("cpu")
    .map((root) => `${root}/pillion/${mesh.name}/${pod.uid}/sidecar/cpu.stat`)
    .map((file) => (existsSync(file) ? readFileSync(file, "utf8") : ""))
    .join("\n");
  return Number(/^nr_throttled (\d+)$/m.exec(stat)?.[1] ?? 0);
}
