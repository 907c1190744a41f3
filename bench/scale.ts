/**
 * Many pods on one machine: brings up an instance of its own with N trivial pods, and prints how long they took to be
 * ready, what memory each sidecar costs, and how long they took to go. Needs root.
 *
 *   npm run bench:scale -- [--pods 200] [--json] [--timeout SECONDS]
 */
import { execFile } from "node:child_process";
import { mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { parseArgs } from "node:util";
import { describeMachine } from "./lib/machine.ts";
import { memoryUsed, cpuUsed } from "./lib/process-cost.ts";
import { showSpread, spread, table } from "./lib/report.ts";

const { values: options } = parseArgs({
  options: {
    pods: { type: "string", default: "200" },
    timeout: { type: "string", default: "600" },
    json: { type: "boolean", default: false },
  },
});
const pods = Number(options.pods);
const root = join(import.meta.dirname, "..");
const instance = `scale-${process.pid}`;
const folder = mkdtempSync(join(tmpdir(), "pillion-scale-"));
const note = (text: string): void => {
  if (!options.json) console.log(text);
};

/** The least a pod can be: it listens on nothing and sleeps. One in ten asks a Service now and then. */
writeFileSync(
  join(folder, "scale.yaml"),
  `apiVersion: v1
kind: Namespace
metadata: { name: scale }
---
apiVersion: apps/v1
kind: Deployment
metadata: { name: trivial, namespace: scale }
spec:
  replicas: ${pods}
  selector: { matchLabels: { app: trivial } }
  template:
    metadata: { labels: { app: trivial } }
    spec:
      terminationGracePeriodSeconds: 2
      containers:
        - name: main
          command: ["sleep", "infinity"]
`,
);

/** One run of `./pillion`; rejects with what it printed when it fails. */
function pillion(...args: string[]): Promise<string> {
  return new Promise((resolve, reject) => {
    const limits = { timeout: Number(options.timeout) * 1000, maxBuffer: 64 * 1024 * 1024 };
    execFile(join(root, "pillion"), [...args, "--instance", instance], limits, (error, stdout, stderr) => {
      if (error === null) resolve(stdout);
      else reject(new Error(`pillion ${args[0] ?? ""}: ${error.message}\n${stderr.slice(-2000)}`));
    });
  });
}

interface Status {
  pods?: { ready?: boolean }[];
}

async function readyPods(): Promise<number> {
  const status = JSON.parse(await pillion("status", "-o", "json")) as Status;
  return (status.pods ?? []).filter((pod) => pod.ready === true).length;
}

/** Processes of a Pillion role by their command line, less those that ran before this run began. */
function processesOf(role: string, known: ReadonlySet<number>): number[] {
  const found: number[] = [];
  for (const name of readdirSync("/proc")) {
    const pid = Number(name);
    if (!Number.isInteger(pid) || known.has(pid)) continue;
    try {
      const command = readFileSync(`/proc/${pid}/cmdline`, "latin1").split("\0");
      const at = command.findIndex((word) => /\/main\.(ts|js)$/.test(word));
      if (at > 0 && command[at + 1] === role && (command[0] ?? "").endsWith("/node")) found.push(pid);
    } catch {
      // it ended meanwhile
    }
  }
  return found;
}

const before = new Set(
  ["sidecar", "agent", "control", "dns"].flatMap((role) => processesOf(role, new Set())),
);
let exitCode = 0;
try {
  note(describeMachine());
  note(`${pods} pods in instance ${instance}`);
  const startMs = performance.now();
  await pillion("up", "-f", folder, "--detach");
  const upMs = performance.now() - startMs;
  for (
    const stopMs = startMs + Number(options.timeout) * 1000;
    (await readyPods()) < pods;
    await sleep(500)
  ) {
    if (performance.now() > stopMs)
      throw new Error(`only ${await readyPods()} of ${pods} pods were ready in time`);
  }
  const readyMs = performance.now() - startMs;
  await sleep(3000);
  const sidecars = processesOf("sidecar", before);
  const memories = sidecars.map(memoryUsed);
  const cpuBefore = sidecars.map(cpuUsed);
  await sleep(5000);
  const idle = sidecars.map((pid, i) => {
    const after = cpuUsed(pid);
    return (after.userUs + after.systemUs - cpuBefore[i]!.userUs - cpuBefore[i]!.systemUs) / 5000;
  });
  const others = ["agent", "control", "dns"].flatMap((role) =>
    processesOf(role, before).map((pid) => ({ role, memory: memoryUsed(pid), cpu: cpuUsed(pid) })),
  );
  const downStartMs = performance.now();
  await pillion("down");
  const downMs = performance.now() - downStartMs;
  const mib = (pick: (m: (typeof memories)[number]) => number) => spread(memories.map((m) => pick(m) / 1024));
  const figures = {
    pods,
    sidecars: sidecars.length,
    upReturnedMs: upMs,
    allReadyMs: readyMs,
    downMs,
    rssMib: mib((m) => m.rssKib),
    pssMib: mib((m) => m.pssKib),
    privateMib: mib((m) => m.privateKib),
    idleCpuMsPerSecond: spread(idle),
  };
  if (options.json) console.log(JSON.stringify({ machine: describeMachine(), ...figures, others }, null, 1));
  else {
    const rows = [
      ["up returned after, s", (upMs / 1000).toFixed(1)],
      ["all pods ready after, s", `${(readyMs / 1000).toFixed(1)} (${(readyMs / pods).toFixed(0)} ms a pod)`],
      ["sidecars found", String(sidecars.length)],
      ["sidecar RSS, MiB", showSpread(figures.rssMib, 1)],
      ["sidecar PSS, MiB", showSpread(figures.pssMib, 1)],
      ["sidecar private, MiB", showSpread(figures.privateMib, 1)],
      ["sidecar idle CPU, ms/s", showSpread(figures.idleCpuMsPerSecond, 2)],
      ...others.map((o) => [
        `${o.role}: RSS MiB; CPU s so far`,
        `${(o.memory.rssKib / 1024).toFixed(0)}; ${((o.cpu.userUs + o.cpu.systemUs) / 1e6).toFixed(1)}`,
      ]),
      ["down after, s", (downMs / 1000).toFixed(1)],
    ];
    console.log(`\n${table(["", "min / median / max"], rows)}`);
  }
} catch (error) {
  console.error(error instanceof Error ? error.message : error);
  exitCode = 1;
  await pillion("down").catch(() => undefined);
} finally {
  rmSync(folder, { recursive: true, force: true });
}
process.exit(exitCode);
