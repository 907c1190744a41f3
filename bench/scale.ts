/**
 * Many pods on one machine: brings up an instance of its own with N trivial pods, and prints how long they took to be
 * ready, what memory each sidecar costs, and how long they took to go. Needs root.
 *
 *   npm run bench:scale -- [--pods 200] [--json] [--timeout SECONDS]
 */
import { execFile } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { commandLine } from "../scripts/command-line.ts";
import { describeMachine } from "./lib/machine.ts";
import { memoryUsed, cpuUsed } from "./lib/process-cost.ts";
import { showSpread, spread, table } from "./lib/report.ts";

const options = commandLine(
  `Usage: npm run bench:scale -- [options]

Many pods on one machine: how long they take to be ready and to go, and what memory each sidecar costs. Needs root.

Options:
  --pods N            (default: 200)
  --timeout SECONDS   (default: 600)
  --json              prints JSON alone
  -h, --help          shows this`,
  {
    pods: { type: "string", default: "200" },
    timeout: { type: "string", default: "600" },
    json: { type: "boolean", default: false },
  },
  ["pods", "timeout"],
);
const pods = Number(options.pods);
const root = join(import.meta.dirname, "..");
const instance = `scale-${process.pid}`;
const stateDir = join(process.env["PILLION_STATE_DIR"] ?? "/var/lib/pillion", instance);
const folder = mkdtempSync(join(tmpdir(), "pillion-scale-"));
const note = (text: string): void => {
  if (!options.json) console.log(text);
};

const GROUP_PODS = 10;
const groups = Math.max(1, Math.ceil(pods / GROUP_PODS));

/**
 * The least a pod can be that still talks: it answers one line on a port, and every three seconds asks the next group's
 * Service for such a line and writes down how that went.
 */
const PROGRAM = `use IO::Socket::INET; $| = 1; $SIG{CHLD} = "IGNORE"; $SIG{PIPE} = "IGNORE";
my $s = IO::Socket::INET->new(LocalPort => 8080, Listen => 64, ReuseAddr => 1) or die "listen: $!";
if (fork == 0) { close $s; for (;;) { sleep 3; my $c = IO::Socket::INET->new(PeerAddr => $ARGV[0], PeerPort => 80, Timeout => 5);
if (!$c) { print "failed: $@\\n"; next } print $c "GET / HTTP/1.0\\r\\n\\r\\n"; local $/; my $a = <$c>; print $a =~ /hello/ ? "ok\\n" : "failed: no answer\\n" } }
while (my $c = $s->accept) { my $r = <$c>; while (defined(my $l = <$c>)) { last if $l =~ /^\\r?$/ } print $c "HTTP/1.0 200 OK\\r\\nContent-Length: 6\\r\\n\\r\\nhello\\n"; close $c }`;

writeFileSync(
  join(folder, "scale.yaml"),
  [
    "apiVersion: v1\nkind: Namespace\nmetadata: { name: scale }\n",
    ...Array.from({ length: groups }, (_, group) => {
      const name = `trivial-${group}`;
      const replicas = Math.min(GROUP_PODS, pods - group * GROUP_PODS);
      const command = JSON.stringify(["perl", "-e", PROGRAM, `trivial-${(group + 1) % groups}`]);
      return `apiVersion: v1
kind: Service
metadata: { name: ${name}, namespace: scale }
spec: { selector: { app: ${name} }, ports: [{ name: http, port: 80, targetPort: 8080 }] }
---
apiVersion: apps/v1
kind: Deployment
metadata: { name: ${name}, namespace: scale }
spec:
  replicas: ${replicas}
  selector: { matchLabels: { app: ${name} } }
  template:
    metadata: { labels: { app: ${name} } }
    spec:
      terminationGracePeriodSeconds: 2
      containers: [{ name: main, command: ${command} }]
`;
    }),
  ].join("---\n"),
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
  readonly agentPid: number;
  readonly controlPid: number;
  readonly pods: readonly {
    readonly uid: string;
    readonly ready: boolean;
    readonly sidecar: { readonly pid: number } | null;
  }[];
}

async function status(): Promise<Status> {
  return JSON.parse(
    await pillion("status", "-o", "json").catch((error: Error & { stdout?: string }) => error.stdout ?? ""),
  ) as Status;
}

/** What the programs wrote down, over all pods. */
function talk(all: Status): { ok: number; failed: number; silentPods: number } {
  const sum = { ok: 0, failed: 0, silentPods: 0 };
  for (const { uid } of all.pods) {
    const log = join(stateDir, "agent/pods", uid, "logs/main.log");
    const lines = readFileSync(log, "utf8").split("\n");
    const ok = lines.filter((line) => line === "ok").length;
    sum.ok += ok;
    sum.failed += lines.filter((line) => line.startsWith("failed")).length;
    if (ok === 0) sum.silentPods++;
  }
  return sum;
}

let exitCode = 0;
for (const name of ["SIGINT", "SIGTERM"] as const) {
  process.once(name, () => {
    void pillion("down")
      .catch(() => undefined)
      .then(() => process.exit(130));
  });
}
try {
  note(describeMachine());
  note(`${pods} pods in instance ${instance}`);
  const startMs = performance.now();
  await pillion("up", "-f", folder, "--detach", "--timeout", options.timeout);
  const upMs = performance.now() - startMs;
  const all = await status();
  // From here on nobody may find its Service without pods; in this time each asks at least twice.
  const before = talk(all);
  await sleep(10_000);
  const since = talk(all);
  const talked = {
    ok: since.ok - before.ok,
    failed: since.failed - before.failed,
    silentPods: since.silentPods,
  };
  const sidecars = all.pods.flatMap(({ sidecar }) => (sidecar === null ? [] : [sidecar.pid]));
  const memories = sidecars.map(memoryUsed);
  const cpuBefore = sidecars.map(cpuUsed);
  await sleep(5000);
  const idle = sidecars.map((pid, i) => {
    const after = cpuUsed(pid);
    return (after.userUs + after.systemUs - cpuBefore[i]!.userUs - cpuBefore[i]!.systemUs) / 5000;
  });
  const others = [
    { role: "agent", pid: all.agentPid },
    { role: "control", pid: all.controlPid },
  ].map(({ role, pid }) => ({ role, memory: memoryUsed(pid), cpu: cpuUsed(pid) }));
  const downStartMs = performance.now();
  await pillion("down");
  const downMs = performance.now() - downStartMs;
  const mib = (pick: (m: (typeof memories)[number]) => number) => spread(memories.map((m) => pick(m) / 1024));
  const figures = {
    pods,
    sidecars: sidecars.length,
    allReadyMs: upMs,
    downMs,
    talked,
    rssMib: mib((m) => m.rssKib),
    pssMib: mib((m) => m.pssKib),
    privateMib: mib((m) => m.privateKib),
    idleCpuMsPerSecond: spread(idle),
  };
  if (options.json) console.log(JSON.stringify({ machine: describeMachine(), ...figures, others }, null, 1));
  else {
    const rows = [
      ["all pods ready after, s", `${(upMs / 1000).toFixed(1)} (${(upMs / pods).toFixed(0)} ms a pod)`],
      [
        "requests pod to pod in 10 s",
        `${talked.ok} ok, ${talked.failed} failed, ${talked.silentPods} pods without any`,
      ],
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
  rmSync(stateDir, { recursive: true, force: true });
}
process.exit(exitCode);
