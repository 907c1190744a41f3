/**
 * Starts sidecars on loopback, and prints how long each took from exec to ready and what memory it has: as a whole and by what
 * is mapped. Variants take turns within a round. Everything runs as the caller, nothing is intercepted.
 *
 *   start.ts [--together N] [--rounds N] [--node PATH] [--variant "NAME=[VARIABLE=VALUE …] [FLAG …]"]… [--program "NAME=MAIN.js"]… [--mapped]
 *            [--begin-again]
 *
 * `--program` starts another program than this tree's own, in all variants. `--begin-again` leaves sidecars the ring that they begin
 * again without, which the agent takes beforehand.
 */
import { spawn, type ChildProcess } from "node:child_process";
import { once } from "node:events";
import { mkdirSync, mkdtempSync, readFileSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { setTimeout as sleep } from "node:timers/promises";
import { SIDECAR_NODE_FLAGS } from "#/agent/runtime/pod-host.ts";
import { strippedSources } from "#/agent/stripped-sources.ts";
import { NO_POLICY } from "#/control/policy/compile.ts";
import type { MeshView } from "#/control/services/mesh-view.ts";
import { refuseRings } from "#/kernel/confinement.ts";
import { dnsName, type Identity } from "#/model/identity.ts";
import { commandLine } from "../../scripts/command-line.ts";
import { cpuUsed, memoryUsed } from "../lib/process-cost.ts";
import { showSpread, spread, table } from "../lib/report.ts";
import { startSmallControl } from "../world/small-control.ts";

const options = commandLine(
  `Usage: scripts/run node bench/runtime/start.ts [options]

Starts sidecars on loopback: how long each takes from exec to ready, and what memory it has.

Options:
  --together N             so many at once (default: 1)
  --rounds N               (default: 5)
  --node PATH              another Node
  --variant "NAME=[VARIABLE=VALUE …] [FLAG …]"     again for more
  --program "NAME=MAIN.js" another program than this tree's own, in all variants; again for more
  --mapped                 memory by what is mapped
  --begin-again            leaves sidecars the ring that they begin again without
  -h, --help               shows this`,
  {
    together: { type: "string", default: "1" },
    rounds: { type: "string", default: "5" },
    node: { type: "string", default: process.execPath },
    variant: { type: "string", multiple: true, default: [] },
    program: { type: "string", multiple: true, default: [] },
    mapped: { type: "boolean", default: false },
    "begin-again": { type: "boolean", default: false },
  },
  ["together", "rounds"],
);
// As the agent does before it starts one; else each sidecar begins twice.
if (!options["begin-again"]) refuseRings();
const ROOT = join(import.meta.dirname, "../..");
const TRUST_DOMAIN = "bench.local";
const READY_WITHIN_MS = 20_000;
/** By then a quiet sidecar has given back what its start needed. */
const SETTLED_AFTER_MS = 3_000;

interface Variant {
  readonly name: string;
  readonly env: Record<string, string>;
  readonly flags: readonly string[];
  readonly program: string;
}

interface Figures {
  readonly readyMs: number;
  readonly cpuMs: number;
  readonly rss: number;
  readonly pss: number;
  readonly private: number;
  readonly mapped: Map<string, { rss: number; pss: number; private: number }>;
}

const folder = mkdtempSync(join(tmpdir(), "pillion-start-"));
const control = await startControl();

async function startControl(): Promise<{
  port: number;
  settings: (name: string) => Record<string, string> & { token: string };
}> {
  const { authority, port, tokenFor } = await startSmallControl(join(folder, "authority"), {
    node: {
      name: "bench",
      instance: "bench",
      gatewayIp: "127.0.0.1",
      podCidr: "127.1.0.0/16",
      serviceCidr: "127.2.0.0/16",
      controlPort: 0,
      intercept: "explicit",
      clusterDomain: "cluster.local",
      trustDomain: TRUST_DOMAIN,
    },
    podsByIp: new Map(),
    podsByName: new Map(),
    servicesByIp: new Map(),
    servicesByName: new Map(),
    policy: NO_POLICY,
  } as unknown as MeshView);
  const settings = (name: string): Record<string, string> & { token: string } => {
    const identity: Identity = { trustDomain: TRUST_DOMAIN, namespace: "bench", serviceAccount: name };
    return {
      token: tokenFor(name, identity, "dns+spiffe"),
      LINKERD2_PROXY_IDENTITY_LOCAL_NAME: dnsName(identity),
      LINKERD2_PROXY_IDENTITY_TRUST_ANCHORS: authority.trustAnchorsPem,
    };
  };
  return { port, settings };
}

/** The sources as a pod's sidecar gets them. */
function ownProgram(): string {
  const into = join(folder, "pillion");
  mkdirSync(into, { recursive: true });
  const sources = strippedSources(ROOT, into);
  writeFileSync(join(sources, "package.json"), JSON.stringify({ type: "module", imports: { "#/*": "./*" } }));
  symlinkSync(join(ROOT, "node_modules"), join(into, "node_modules"));
  return join(sources, "main.js");
}

let started = 0;

async function startSidecar({
  env,
  flags,
  program,
}: Variant): Promise<{ child: ChildProcess; readyMs: number }> {
  const number = ++started;
  const ip = `127.1.${number >> 8}.${number & 255}`;
  const { token, ...identity } = control.settings(`pod-${number}`);
  const service = `localhost:${control.port}`;
  const startMs = performance.now();
  const child = spawn(options.node, [...flags, program, "sidecar"], {
    stdio: ["ignore", "inherit", "pipe", "pipe"],
    env: {
      ...identity,
      LINKERD2_PROXY_IDENTITY_SVC_ADDR: service,
      LINKERD2_PROXY_DESTINATION_SVC_ADDR: service,
      LINKERD2_PROXY_POLICY_SVC_ADDR: service,
      LINKERD2_PROXY_DESTINATION_CONTEXT: JSON.stringify({
        ns: "bench",
        nodeName: "bench",
        pod: `pod-${number}`,
      }),
      LINKERD2_PROXY_POLICY_WORKLOAD: JSON.stringify({ ns: "bench", pod: `pod-${number}` }),
      LINKERD2_PROXY_DESTINATION_PROFILE_NETWORKS: "127.2.0.0/16",
      LINKERD2_PROXY_POLICY_CLUSTER_NETWORKS: "127.0.0.0/8",
      LINKERD2_PROXY_INBOUND_LISTEN_ADDR: `${ip}:4143`,
      LINKERD2_PROXY_OUTBOUND_LISTEN_ADDRS: `${ip}:4140`,
      LINKERD2_PROXY_ADMIN_LISTEN_ADDR: `${ip}:4191`,
      LINKERD2_PROXY_INBOUND_IPS: ip,
      LINKERD2_PROXY_INBOUND_PORTS: "",
      PILLION_TOKEN_FD: "3",
      PILLION_INTERCEPT: "explicit",
      ...env,
    },
  });
  const pipe = child.stdio[3] as NodeJS.WritableStream;
  pipe.on("error", () => undefined);
  pipe.end(token);
  const seen: string[] = [];
  const lines = createInterface(child.stderr!);
  let readyMs = 0;
  const ready = new Promise<void>((resolve) => {
    lines.on("line", (line) => {
      if (readyMs === 0) seen.push(line);
      if (!line.includes('"message":"ready"')) return;
      readyMs = performance.now() - startMs;
      resolve();
    });
  });
  const ended = once(child, "exit").then(() => {
    if (readyMs === 0) throw new Error(`a sidecar ended early:\n${seen.join("\n")}`);
  });
  await Promise.race([
    ready,
    ended,
    sleep(READY_WITHIN_MS, undefined, { ref: false }).then(() => {
      if (readyMs === 0) throw new Error(`a sidecar was not ready in time:\n${seen.join("\n")}`);
    }),
  ]);
  return { child, readyMs };
}

/** Which part of a process a mapping is, by its name and its rights. */
function part(name: string, rights: string, bytes: number): string {
  if (name.endsWith("/node") || name.includes("(deleted)")) {
    if (rights.startsWith("r-x")) return "node: code";
    return rights.startsWith("rw") ? "node: data" : "node: constants, relocated";
  }
  if (name === "[heap]") return "malloc: main arena";
  if (name.startsWith("[stack")) return "stacks";
  if (name.startsWith("/")) return "libraries";
  if (name !== "") return "kernel's own";
  if (rights.includes("x")) return "V8: code";
  return bytes === 0 ? "reserved" : "V8 heap, arenas, stacks of threads";
}

function mapped(pid: number): Map<string, { rss: number; pss: number; private: number }> {
  const parts = new Map<string, { rss: number; pss: number; private: number }>();
  let current = "";
  for (const line of readFileSync(`/proc/${pid}/smaps`, "latin1").split("\n")) {
    const head = /^([0-9a-f]+)-([0-9a-f]+) (\S+) \S+ \S+ \S+\s*(.*)$/.exec(line);
    if (head !== null) {
      current = part(head[4]!, head[3]!, 1);
      if (!parts.has(current)) parts.set(current, { rss: 0, pss: 0, private: 0 });
      continue;
    }
    const field = /^(\w+):\s+(\d+) kB/.exec(line);
    if (field === null) continue;
    const sum = parts.get(current)!;
    const mib = Number(field[2]) / 1024;
    if (field[1] === "Rss") sum.rss += mib;
    if (field[1] === "Pss") sum.pss += mib;
    if (field[1] === "Private_Clean" || field[1] === "Private_Dirty") sum.private += mib;
  }
  return parts;
}

const own = ownProgram();
const programs = [
  { name: "", program: own },
  ...options.program.map((text) => {
    const at = text.indexOf("=");
    return { name: `${text.slice(0, at)} `, program: text.slice(at + 1) };
  }),
];
const variants: Variant[] = programs.flatMap(({ name, program }) => [
  { name: `${name}as it is`, env: {}, flags: SIDECAR_NODE_FLAGS, program },
  ...options.variant.map((text) => {
    const at = text.indexOf("=");
    const words = text
      .slice(at + 1)
      .split(" ")
      .filter((word) => word !== "");
    const variables = words.filter((word) => /^[A-Z_0-9]+_?=/.test(word));
    return {
      name: `${name}${text.slice(0, at)}`,
      env: Object.fromEntries(
        variables.map((word) => [word.slice(0, word.indexOf("=")), word.slice(word.indexOf("=") + 1)]),
      ),
      flags: [...SIDECAR_NODE_FLAGS, ...words.filter((word) => !variables.includes(word))],
      program,
    };
  }),
]);

const all = new Map<string, Figures[]>(variants.map(({ name }) => [name, []]));
try {
  for (let round = 0; round < Number(options.rounds); round++) {
    for (const variant of variants) {
      const children: { child: ChildProcess; readyMs: number }[] = [];
      // One after the other, so that each start has the machine for itself.
      for (let i = 0; i < Number(options.together); i++) children.push(await startSidecar(variant));
      const cpuMs = children.map(({ child }) => {
        const used = cpuUsed(child.pid!);
        return (used.userUs + used.systemUs) / 1000;
      });
      await sleep(SETTLED_AFTER_MS);
      for (const [index, { child, readyMs }] of children.entries()) {
        const memory = memoryUsed(child.pid!);
        all.get(variant.name)!.push({
          readyMs,
          cpuMs: cpuMs[index]!,
          rss: memory.rssKib / 1024,
          pss: memory.pssKib / 1024,
          private: memory.privateKib / 1024,
          mapped: options.mapped && index === children.length - 1 ? mapped(child.pid!) : new Map(),
        });
      }
      for (const { child } of children) {
        const gone = once(child, "exit");
        child.kill("SIGKILL");
        await gone;
      }
    }
  }
  const show = (figures: Figures[], pick: (f: Figures) => number): string =>
    showSpread(spread(figures.map(pick)), 1);
  console.log(
    table(
      [
        `${options.together} together; min / median / max`,
        "exec to ready ms",
        "CPU ms until then",
        "RSS MiB",
        "PSS",
        "private",
      ],
      [...all].map(([name, f]) => [
        name,
        show(f, (x) => x.readyMs),
        show(f, (x) => x.cpuMs),
        show(f, (x) => x.rss),
        show(f, (x) => x.pss),
        show(f, (x) => x.private),
      ]),
    ),
  );
  if (options.mapped) {
    for (const [name, figures] of all) {
      console.log(`\n${name}: last process, MiB`);
      const parts = figures.at(-1)!.mapped;
      console.log(
        table(
          ["", "RSS", "PSS", "private"],
          [...parts].map(([n, p]) => [n, p.rss.toFixed(1), p.pss.toFixed(1), p.private.toFixed(1)]),
        ),
      );
    }
  }
} finally {
  rmSync(folder, { recursive: true, force: true });
}
process.exit(0);
