import { showSpread, table } from "./report.ts";
import { ratioToPeer, type MemoryRow, type Results, type Row } from "./results.ts";
import { SHAPES } from "./shapes.ts";
import type { MemoryUsed } from "./process-cost.ts";

const scaled = ({ min, median, max }: Row["p50Us"], by: number, digits: number): string =>
  showSpread({ min: min / by, median: median / by, max: max / by }, digits);

export const SHAPE_HEAD: readonly string[] = [
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

/** One line of a shape's table, under `SHAPE_HEAD`, the subject first. */
export function shapeCells(row: Row, rows: readonly Row[]): string[] {
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
  ];
}

export const MEMORY_HEAD: readonly string[] = [
  "ready ms",
  "fresh MiB",
  "after the load MiB",
  "KiB per idle HTTP/1 connection",
  "… opaque",
];

/** One line of the table of memory, under `MEMORY_HEAD`, the process first. Memory is RSS / PSS / private. */
export function memoryCells(row: MemoryRow): string[] {
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

/** The page `docs/performance.md`, whole. `plot`: the file of its picture, beside it. */
export function markdownOf(results: Results, command: string, plot: string): string {
  const shapes = SHAPES.filter(({ name }) => results.rows.some((row) => row.shape === name));
  const parts = shapes.map(({ name, unit }) => {
    const rows = results.rows.filter((row) => row.shape === name);
    return `### ${name}\n\nPer ${unit}.\n\n${markdownTable(
      ["", ...SHAPE_HEAD],
      rows.map((row) => shapeCells(row, results.rows)),
    )}`;
  });
  const versions = Object.entries(results.versions).map(([name, version]) => `${name} ${version}`);
  return (
    [
      "# Performance",
      "For whoever asks what a sidecar costs, and beside whom. Every figure on this page was printed by one run of",
      `    ${command}`,
      `on ${results.machine}. ${versions.join(", ")}. ${results.rounds} rounds of ${results.seconds} s of each shape for each subject in turn; min / median / max. CPU is user and system time of each proxy process in µs; \`× peer\` is the CPU of all processes of a subject against the cheapest pair of another mesh in the same run. All proxies share one core, load and application the other. A single hop without TLS stands beside the pairs to show what a pair's two hops and encryption add; the prototype is our floor, a pair without policy, metrics or parsing.`,
      ...(results.skipped.length === 0 ? [] : [`Not measured: ${results.skipped.join("; ")}.`]),
      `![CPU per unit, against the cheapest peer](${plot})`,
      "## Memory and start",
      markdownTable(["", ...MEMORY_HEAD], results.memory.map(memoryCells)),
      "## Shapes",
      ...parts,
    ].join("\n\n") + "\n"
  );
}

function markdownTable(head: readonly string[], rows: readonly (readonly string[])[]): string {
  const line = (cells: readonly string[]): string => `| ${cells.join(" | ")} |`;
  return [line(head), line(head.map((_, i) => (i === 0 ? "---" : "---:"))), ...rows.map(line)].join("\n");
}

/** The same as text for a terminal. */
export function textOf(results: Results): string {
  const shapes = SHAPES.filter(({ name }) => results.rows.some((row) => row.shape === name));
  const tables = shapes.map(({ name, unit }) => {
    const rows = results.rows.filter((row) => row.shape === name);
    return table(
      [`${name}, per ${unit}`, ...SHAPE_HEAD],
      rows.map((row) => shapeCells(row, results.rows)),
    );
  });
  if (results.memory.length > 0)
    tables.push(table(["memory: RSS / PSS / private", ...MEMORY_HEAD], results.memory.map(memoryCells)));
  return tables.join("\n\n");
}
