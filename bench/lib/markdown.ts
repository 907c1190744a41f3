import { aimsOf, OURS, verdictOf, type Aim } from "./aims.ts";
import { CROWD, type CrowdRow } from "./crowd.ts";
import type { LetThrough } from "./let-through.ts";
import { eachKib, MESHES } from "./mesh-size.ts";
import { showSpread, table, type Spread } from "./report.ts";
import {
  isPeerPair,
  PLOTTED,
  type Plotted,
  ratioToPeer,
  type MemoryRow,
  type PolicyRow,
  type Results,
  type Row,
  type WatchedRow,
} from "./results.ts";
import { SHAPES } from "./shapes.ts";
import type { MemoryUsed } from "./process-cost.ts";

const scaled = ({ min, median, max }: Row["p50Us"], by: number, digits: number): string =>
  showSpread({ min: min / by, median: median / by, max: max / by }, digits);

const SHAPE_HEAD: readonly string[] = [
  "CPU client",
  "CPU server",
  "user",
  "× peer",
  "per second",
  "p50 ms",
  "p99 ms",
  "p99.9 ms",
  "wire bytes",
  "failed",
];

/** … with instructions where the machine counted them. */
function shapeHead(rows: readonly Row[]): string[] {
  return [...SHAPE_HEAD, ...(areCounted(rows) ? ["instructions"] : [])];
}

function areCounted(rows: readonly Row[]): boolean {
  return rows.some((row) => row.instructions !== null);
}

/** One line of a shape's table, under its head, the subject first. */
function shapeCells(row: Row, rows: readonly Row[]): string[] {
  const ratio = ratioToPeer(row, rows);
  const digits = row.cpuSumUs !== null && row.cpuSumUs.median > 1_000 ? 0 : 1;
  const cpu = row.cpuUs.map(({ total }) => showSpread(total, digits));
  const isTimed = row.p50Us.max > 0;
  return [
    row.subject,
    cpu[0] ?? "",
    cpu[1] ?? "",
    row.cpuUs.map(({ userShare }) => `${Math.round(userShare * 100)} %`).join(" "),
    ratio === null ? "" : ratio.toFixed(2),
    showSpread(row.perSecond, 0),
    isTimed ? scaled(row.p50Us, 1_000, 2) : "",
    isTimed ? scaled(row.p99Us, 1_000, 2) : "",
    isTimed ? (row.p999Us.median === 0 ? "" : (row.p999Us.median / 1_000).toFixed(2)) : "",
    row.wireBytes.median.toFixed(0),
    String(row.failed),
    ...(areCounted(rows) ? [row.instructions === null ? "" : showSpread(row.instructions, 0)] : []),
  ];
}

const MEMORY_HEAD: readonly string[] = [
  "ready ms",
  "fresh MiB",
  "after the load MiB",
  "KiB per idle HTTP/1 connection",
  "… opaque",
];

/** One line of the table of memory, under `MEMORY_HEAD`, the process first. Memory is RSS / PSS / private. */
function memoryCells(row: MemoryRow): string[] {
  const mib = (used: MemoryUsed): string =>
    [used.rssKib, used.pssKib, used.privateKib].map((kib) => (kib / 1024).toFixed(1)).join(" / ");
  const idle = (kib: number | null): string => (kib === null ? "" : kib.toFixed(0));
  return [
    `${row.subject}, ${row.role}`,
    row.readyMs.toFixed(0),
    mib(row.fresh),
    mib(row.loaded),
    idle(row.idleKib.http1),
    idle(row.idleKib.tcp),
  ];
}

/** What was given on the command line, without paths of this machine: whoever repeats it has others. */
export function shownArguments(given: readonly string[]): string[] {
  return given.map((word) => {
    if (word.startsWith("/")) return "PATH";
    return word.replace(/=.*\/.*$/, "=PATH");
  });
}

const AIMS_HEAD = ["", "aim", "reached", ""] as const;

function aimRows(aims: readonly Aim[]): string[][] {
  return aims.map((aim) => [aim.what, aim.wanted, aim.reached, verdictOf(aim)]);
}

const CROWD_HEAD = ["", "ready ms", "RSS MiB", "PSS MiB", "private MiB", "idle CPU ms/s"] as const;

function crowdCells(row: CrowdRow): string[] {
  const mib = (used: Spread): string => scaled(used, 1024, 1);
  return [
    row.subject,
    showSpread(row.readyMs, 0),
    mib(row.rssKib),
    mib(row.pssKib),
    mib(row.privateKib),
    showSpread(row.idleMsPerSecond, 2),
  ];
}

/** Rows of meshes, a column for each subject, then what one endpoint, route and unused Service cost. */
function meshTable({ meshSizes }: Results): { head: string[]; rows: string[][] } {
  const subjects = [...new Set(meshSizes.map((row) => row.subject))];
  const rows = MESHES.map(({ name }) => [
    name,
    ...subjects.map((subject) => {
      const row = meshSizes.find((one) => one.subject === subject && one.mesh === name);
      if (row === undefined) return "";
      return (
        scaled(row.privateKib, 1024, 1) + (row.unanswered === 0 ? "" : ` (${row.unanswered} unanswered)`)
      );
    }),
  ]);
  const each = (what: string, mesh: string, base: string, count: number): string[] => [
    what,
    ...subjects.map((subject) => eachKib(meshSizes, subject, { mesh, base, count })?.toFixed(2) ?? ""),
  ];
  rows.push(
    each("KiB per endpoint", "1 service of 1,000 endpoints", "1 service", 999),
    each("KiB per route", "1 service with 1,000 routes", "1 service", 1_000),
    each("KiB per Service that is not used", "1,000 services, 5 used", "5 services, all used", 995),
  );
  return { head: ["", ...subjects], rows };
}

const WATCHED_HEAD = [
  "",
  "collections a second",
  "of the whole heap",
  "time in them",
  "longest ms",
  "loop late p99 ms",
  "longest ms",
] as const;

function watchedCells({ shape, role, seconds, gc, stalls }: WatchedRow): string[] {
  return [
    `${shape}, ${role}`,
    (gc.pauses / seconds).toFixed(0),
    (gc.majors / seconds).toFixed(1),
    `${(gc.totalMs / seconds / 10).toFixed(1)} %`,
    gc.longestMs.toFixed(1),
    stalls.p99Ms.toFixed(1),
    stalls.longestMs.toFixed(1),
  ];
}

const THROUGH_HEAD = [
  "",
  "no mesh, a second",
  "through Pillion's hooks",
  "ratio, within 95 %",
  "runs each",
  "hooks' own ns each",
] as const;

function throughRows({ rows }: LetThrough): string[][] {
  return rows.map((row) => [
    row.shape,
    showSpread(row.without, 0),
    showSpread(row.hooked, 0),
    showSpread(row.ratio, 3),
    row.hooks.reduce((sum, { runs }) => sum + runs, 0).toFixed(1),
    row.hooks.reduce((sum, { ns }) => sum + ns, 0).toFixed(0),
  ]);
}

function throughCount({ connections, bytesIn }: LetThrough): string {
  return `Still counted by the kernel: ${connections.client} connections at the client's pod, ${connections.server} at the server's, ${(bytesIn / 2 ** 30).toFixed(1)} GiB received.`;
}

const POLICY_HEAD = ["", "× the plain path", "aim"] as const;

function policyCells({ what, ratio, aimMax }: PolicyRow): string[] {
  return [what, showSpread(ratio, 2), `≤ ${aimMax.toFixed(2)}`];
}

export function policyText(rows: readonly PolicyRow[]): string {
  return table(["CPU of a request, in memory", ...POLICY_HEAD.slice(1)], rows.map(policyCells));
}

const READING = `All proxies share one core with their whole pair, load and application the other; each round gives every subject one burst of each shape in turn. Figures are min / median / max over the rounds. CPU is user and system time of each proxy process in µs, \`user\` the first's share (client, server). \`× peer\` is the CPU of all processes of a subject against the cheapest pair of another mesh in the same run: below 1 Pillion is cheaper. A single hop without TLS stands beside the pairs to show what a pair's two hops and encryption add; the prototype is our floor, a pair without policy, metrics or parsing. Compare within this page only.`;

/** The page `docs/performance.md`, whole. `plots`: the files of its pictures, beside it. */
export function markdownOf(
  results: Results,
  command: string,
  plots: Readonly<Record<Plotted, string>>,
): string {
  const { letThrough, reference, watched, crowd, meshSizes, memory, policy } = results;
  const shapes = SHAPES.filter(({ name }) => results.rows.some((row) => row.shape === name));
  const parts = shapes.map(({ name, unit, about }) => {
    const rows = results.rows.filter((row) => row.shape === name);
    return `### ${name}\n\n${about} Per ${unit}.\n\n${markdownTable(
      ["", ...shapeHead(results.rows)],
      rows.map((row) => shapeCells(row, results.rows)),
    )}`;
  });
  const aims = aimsOf(results);
  const met = aims.filter(({ isMet }) => isMet === true).length;
  const measured = aims.filter(({ isMet }) => isMet !== null).length;
  const versions = Object.entries(results.versions).map(([name, version]) => `${name} ${version}`);
  const section = (isThere: boolean, ...texts: string[]): string[] => (isThere ? texts : []);
  const mesh = meshTable(results);
  return (
    [
      "# Performance",
      "For whoever asks what a sidecar costs, and beside whom. Every figure on this page was printed by one run of",
      `    ${command}`,
      `on ${results.machine}. ${versions.join(", ")}. ${results.rounds} rounds of ${results.seconds} s. What the profiles say about the rows where we lose, and what was tried, is in [the notes](performance-notes.md).`,
      ...section(results.skipped.length > 0, `Not measured: ${results.skipped.join("; ")}.`),
      "## At a glance",
      glanceTable(results),
      `Median CPU of the pair and requests a second, ×: Pillion's ÷ the peer's. CPU below 1 and rates above 1 are where Pillion wins.`,
      `## Aims: ${met} of ${measured} met`,
      markdownTable(AIMS_HEAD, aimRows(aims)),
      ...Object.entries(plots).map(
        ([what, file]) => `![${PLOTTED[what as Plotted].title}, against the best peer's](${file})`,
      ),
      "## Memory and start",
      ...section(
        crowd.length > 0,
        `${CROWD} sidecars of each kind on the machine, fresh and idle, started one after another; ready is from exec until it could serve. PSS counts a page that several share in parts.`,
        markdownTable(CROWD_HEAD, crowd.map(crowdCells)),
      ),
      ...section(
        memory.length > 0,
        "The pairs: from exec to ready, RSS / PSS / private when fresh and after all load, and what each of 500 idle connections adds to RSS.",
        markdownTable(["", ...MEMORY_HEAD], memory.map(memoryCells)),
      ),
      ...section(
        meshSizes.length > 0,
        "What a client's sidecar remembers of the mesh: private MiB of a fresh one after twenty requests to each Service that it uses. Ours and linkerd2-proxy ask for what they use; an Envoy has here what its configuration lists.",
        markdownTable(mesh.head, mesh.rows),
      ),
      ...section(
        letThrough !== null,
        "## Connections without a proxy",
        "Through two pods with all of Pillion's eBPF hooks, on a port that is exempt, against the same two with the hooks taken away, in slices of 40 ms by turns: `h1-8-10MiB` is throughput, `new-connections` the rate of connections. The ratio is the median of all pairs of slices, within its interval of 95 %. How often the kernel runs a hook for one body, connection or request, at both pods, and what they then take, is by its own account (`kernel.bpf_stats_enabled`, which adds some 30 ns to each run).",
        letThrough === null ? "" : markdownTable(THROUGH_HEAD, throughRows(letThrough)),
        letThrough === null ? "" : throughCount(letThrough),
      ),
      ...section(
        policy.length > 0,
        "## Policy",
        "CPU of a request through two sidecars in memory, without sockets, against the same without policy: the worst ratios that there are.",
        markdownTable(POLICY_HEAD, policy.map(policyCells)),
      ),
      "## Shapes",
      READING,
      ...section(
        reference !== null,
        `Open loops of a share are shares of what the slowest other pair can do at 64 connections: ${reference?.subject ?? ""}, ${(reference?.perSecond ?? 0).toFixed(0)} requests a second. Latencies there are counted from when a request was due, so that a stall is not hidden by the requests it held back.`,
      ),
      ...parts,
      ...section(
        watched.length > 0,
        "## Inside our sidecars",
        "Garbage collection and the event loop of a third pair, watched from within, under one burst of each shape; it is no part of the comparison. Lateness is beyond a timer of 2 ms, and includes waiting for the processor that both sidecars share.",
        markdownTable(WATCHED_HEAD, watched.map(watchedCells)),
      ),
      "## How it is chosen",
      [
        "- Envoy's pair is configured as a sidecar's data path is: HTTP in, HTTP/2 over one connection of mutual TLS 1.3, out as it came in; one worker, no access log, no policy. linkerd2-proxy runs under Pillion's control plane, one worker. Pillion runs with all features on and is intercepted by nftables as linkerd2-proxy is; Envoy is dialled.",
        areCounted(results.rows)
          ? "- Instructions are those of all processes of a subject, user and system, by `perf stat`."
          : "- Instructions are not in these tables: this machine gives `perf stat` no counter for them. `npm run gate` counts them on the protocol machines and a whole pair.",
        "- CPU's split into user and system comes from the kernel's ticks of 10 ms, and is rough where a burst costs little.",
      ].join("\n"),
    ].join("\n\n") + "\n"
  );
}

/** Each shape in one line: ours against each peer pair, in CPU and rate. */
function glanceTable({ rows }: Results): string {
  const peers = [...new Set(rows.map((row) => row.subject).filter(isPeerPair))];
  const shapes = SHAPES.filter(({ name }) => rows.some((row) => row.shape === name));
  const find = (shape: string, wanted: (subject: string) => boolean): Row | undefined =>
    rows.find((row) => row.shape === shape && wanted(row.subject));
  const isOurs = (subject: string): boolean => subject === OURS;
  const cells = shapes.flatMap(({ name }) => {
    const ours = find(name, isOurs);
    if (ours === undefined || ours.cpuSumUs === null) return [];
    const cpuUs = ours.cpuSumUs.median;
    return [
      [
        name,
        cpuUs.toFixed(cpuUs > 1_000 ? 0 : 1),
        ...peers.flatMap((peer) => {
          const other = find(name, (subject) => subject === peer);
          if (other === undefined || other.cpuSumUs === null) return ["", ""];
          return [
            (cpuUs / other.cpuSumUs.median).toFixed(2),
            (ours.perSecond.median / other.perSecond.median).toFixed(2),
          ];
        }),
      ],
    ];
  });
  const head = peers.flatMap((peer) => {
    const short = peer.split(" ")[0] ?? peer;
    return [`CPU × ${short}`, `rate × ${short}`];
  });
  return markdownTable(["", "our CPU µs", ...head], cells);
}

function markdownTable(head: readonly string[], rows: readonly (readonly string[])[]): string {
  const line = (cells: readonly string[]): string => `| ${cells.join(" | ")} |`;
  return [line(head), line(head.map((_, i) => (i === 0 ? "---" : "---:"))), ...rows.map(line)].join("\n");
}

/** The same as text for a terminal. */
export function textOf(results: Results): string {
  const { memory, crowd, meshSizes, watched, letThrough, policy } = results;
  const shapes = SHAPES.filter(({ name }) => results.rows.some((row) => row.shape === name));
  const tables = shapes.map(({ name, unit }) => {
    const rows = results.rows.filter((row) => row.shape === name);
    return table(
      [`${name}, per ${unit}`, ...shapeHead(results.rows)],
      rows.map((row) => shapeCells(row, results.rows)),
    );
  });
  if (memory.length > 0)
    tables.push(table(["memory: RSS / PSS / private", ...MEMORY_HEAD], memory.map(memoryCells)));
  if (crowd.length > 0)
    tables.push(table([`${CROWD} idle sidecars`, ...CROWD_HEAD.slice(1)], crowd.map(crowdCells)));
  if (meshSizes.length > 0) {
    const { head, rows } = meshTable(results);
    tables.push(table(["private MiB", ...head.slice(1)], rows));
  }
  if (watched.length > 0)
    tables.push(table(["our sidecars", ...WATCHED_HEAD.slice(1)], watched.map(watchedCells)));
  if (letThrough !== null)
    tables.push(
      `${table(["let through", ...THROUGH_HEAD.slice(1)], throughRows(letThrough))}\n${throughCount(letThrough)}`,
    );
  if (policy.length > 0) tables.push(policyText(policy));
  const aims = aimsOf(results).filter(({ isMet }) => isMet !== null);
  if (aims.length > 0) tables.push(table(["aims", ...AIMS_HEAD.slice(1)], aimRows(aims)));
  return tables.join("\n\n");
}
