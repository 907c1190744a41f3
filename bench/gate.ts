/**
 * Says whether a change made the path of a request dearer: counts, which come out the same on any load of the machine, against
 * those of this architecture, `bench/gate/baseline.x64.json`. `npm test` runs it; exits 1 beyond the tolerance, in either direction.
 * Where nobody has counted on this architecture yet, it says so and exits 0.
 *
 *     scripts/run test bench/gate.ts [--update]      --update: these counts are the baseline from now on
 *
 * Per unit of work: instructions of V8's interpreter, counted by valgrind's callgrind, as the difference of two runs of unequal
 * length, so that the start does not count; and bytes that V8 allocates with its compilers on, as in production, once they have
 * compiled what is hot. Why so, and how well it repeats: docs/decisions/0008-counting-gate.md.
 */
import { spawn } from "node:child_process";
import { existsSync, globSync, mkdtempSync, readFileSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { writeJavaScript } from "#/agent/stripped-sources.ts";
import { commandLine } from "../scripts/command-line.ts";
import { table } from "./lib/report.ts";

const { update: isUpdate } = commandLine(
  `Usage: npm run gate -- [options]

What a request costs, counted in instructions and allocated bytes, against bench/gate's baseline.

Options:
  --update     accepts the new counts
  -h, --help   shows this`,
  { update: { type: "boolean", default: false } },
);

/** What counts may differ by before somebody has to look. With nothing changed instructions differ by less than 0.3 %. */
const TOLERANCE = 0.02;
/** What the compilers' whims come to, when nothing has changed: less than this for each unit of work. */
const ALLOCATED_SLACK_BYTES = 100;

interface Gated {
  readonly group: string;
  readonly name: string;
  /** Of the shorter interpreted run; the longer does three times as many. */
  readonly units: number;
}

const GATED: readonly Gated[] = [
  { group: "http1", name: "request: new target and fields, read and encoded", units: 300 },
  { group: "http2", name: "GET, 1 KiB answer, 16 streams", units: 320 },
  { group: "http2", name: "… unique path and trace", units: 320 },
  { group: "sidecar", name: "pair: GET, 1 KiB answer", units: 100 },
  { group: "sidecar", name: "pair: GET, 200 targets, 200 routes", units: 400 },
  { group: "sidecar", name: "pair: POST 4 KiB, 1 KiB answer", units: 100 },
  { group: "sidecar", name: "pair: opaque, 64 bytes there and back", units: 200 },
  { group: "streams", name: "a message of 1,200 bytes on each of 8 streams", units: 40 },
];

interface Counts {
  readonly instructions: number;
  readonly allocatedBytes: number;
}
type Baseline = Readonly<Record<string, Counts>>;

/** Of interpreted runs: enough for tables and memos. */
const WARM_UNITS = 64;
/** Of compiled runs: enough that whatever runs for each unit is compiled. */
const COMPILED_WARM_UNITS = 12_000;
const COMPILED_UNITS = 8_000;
/** Compiled runs settle on one of two or three values, some percent apart. The highest counts, which so many nearly always have among them. */
const COMPILED_RUNS = 5;
/** One thread, and every choice that V8 leaves to chance made beforehand. */
const STEADY = ["--single-threaded", "--predictable", "--hash-seed=7", "--random-seed=7"];
const PARALLEL = 2;
const RUN_MS_MAX = 280_000;
const ROOT = join(import.meta.dirname, "..");
/** The interpreter's own instructions are the processor's, so each architecture has its counts. */
const BASELINE = join(import.meta.dirname, `gate/baseline.${process.arch}.json`);

const folder = mkdtempSync(join(tmpdir(), "pillion-gate-"));
try {
  process.exitCode = await main();
} finally {
  rmSync(folder, { recursive: true, force: true });
}

async function main(): Promise<number> {
  strip();
  const counted: Record<string, Counts> = {};
  const left = [...GATED];
  const lane = async (): Promise<void> => {
    for (let one = left.shift(); one !== undefined; one = left.shift())
      counted[`${one.group}: ${one.name}`] = await count(one);
  };
  await Promise.all(Array.from({ length: PARALLEL }, lane));

  const names = GATED.map(({ group, name }) => `${group}: ${name}`);
  if (isUpdate) {
    const ordered = Object.fromEntries(names.map((name) => [name, counted[name]]));
    writeFileSync(BASELINE, `${JSON.stringify(ordered, null, 2)}\n`);
  }
  const baseline = existsSync(BASELINE) ? (JSON.parse(readFileSync(BASELINE, "utf8")) as Baseline) : null;
  const rows: string[][] = [];
  let off = 0;
  for (const name of names) {
    const now = counted[name]!;
    const then = baseline?.[name];
    const verdict = baseline === null ? "" : then === undefined ? "not in the baseline" : judge(now, then);
    if (verdict !== "") off++;
    rows.push([
      name,
      String(now.instructions),
      ratio(now.instructions, then?.instructions),
      String(now.allocatedBytes),
      ratio(now.allocatedBytes, then?.allocatedBytes),
      verdict,
    ]);
  }
  console.log(
    table(["per unit of work", "instructions", "× baseline", "bytes allocated", "× baseline", ""], rows),
  );
  if (baseline === null) {
    console.log(
      `no baseline for ${process.arch} to compare with; to begin one: scripts/run test bench/gate.ts --update`,
    );
    return 0;
  }
  if (off > 0) {
    console.log(
      "\nA change made this path dearer or cheaper. If it is meant, say why in the commit, with the new counts:\n" +
        "  scripts/run test bench/gate.ts --update",
    );
  }
  console.log(`${names.length - off} of ${names.length} cases cost what the baseline says`);
  return off === 0 ? 0 : 1;
}

function judge(now: Counts, then: Counts): string {
  const words: string[] = [];
  const compare = (a: number, b: number, slack: number, what: string): void => {
    if (Math.abs(a - b) <= b * TOLERANCE + slack) return;
    words.push(a > b ? `✗ more ${what}` : `✗ less ${what}: well done, update the baseline`);
  };
  compare(now.instructions, then.instructions, 0, "work");
  // All compiled runs may have settled low: that alone is no news.
  if (now.allocatedBytes > then.allocatedBytes)
    compare(now.allocatedBytes, then.allocatedBytes, ALLOCATED_SLACK_BYTES, "garbage");
  return words.join(", ");
}

function ratio(now: number, then: number | undefined): string {
  return then === undefined ? "-" : (now / then).toFixed(3);
}

/** The sources as JavaScript: stripping types inside the process would take more instructions than all that is counted. */
function strip(): void {
  const files = globSync(["src/**/*.ts", "bench/machines/*.ts", "bench/gate/*.ts", "test/sim/*.ts"], {
    cwd: ROOT,
    exclude: (name) => name.endsWith(".test.ts"),
  });
  for (const file of files) writeJavaScript(readFileSync(join(ROOT, file), "utf8"), join(folder, file));
  writeFileSync(
    join(folder, "package.json"),
    JSON.stringify({ type: "module", imports: { "#/*": "./src/*" } }),
  );
  symlinkSync(join(ROOT, "node_modules"), join(folder, "node_modules"));
}

async function count(gated: Gated): Promise<Counts> {
  return { instructions: await instructions(gated), allocatedBytes: await allocatedBytes(gated) };
}

async function instructions(gated: Gated): Promise<number> {
  const valgrind = ["valgrind", "--tool=callgrind", "--callgrind-out-file=/dev/null"];
  const interpreted = [...valgrind, process.execPath, "--jitless", ...STEADY];
  const fewer = await run(interpreted, gated, WARM_UNITS, gated.units);
  const more = await run(interpreted, gated, WARM_UNITS, 3 * gated.units);
  return Math.round((more.instructions - fewer.instructions) / (more.units - fewer.units));
}

async function allocatedBytes(gated: Gated): Promise<number> {
  const counts: number[] = [];
  for (let i = 0; i < COMPILED_RUNS; i++) {
    const { allocatedBytes, units } = await run(
      [process.execPath, ...STEADY],
      gated,
      COMPILED_WARM_UNITS,
      COMPILED_UNITS,
    );
    counts.push(Math.round(allocatedBytes / units));
  }
  return Math.max(...counts);
}

interface Run extends Counts {
  readonly units: number;
}

/** One run; throws with what it printed where it fails or takes too long. */
async function run(
  command: readonly string[],
  { group, name }: Gated,
  warmUnits: number,
  wantedUnits: number,
): Promise<Run> {
  const counter = join(folder, "bench/gate/count.js");
  const argv = [...command, counter, group, name, String(warmUnits), String(wantedUnits)];
  // An environment of its own: how large it is moves the stack, and so a few counts.
  const child = spawn(argv[0] as string, argv.slice(1), {
    env: { PATH: process.env["PATH"] ?? "" },
    stdio: ["ignore", "pipe", "pipe"],
    timeout: RUN_MS_MAX,
  });
  let stdout = "";
  let stderr = "";
  child.stdout.setEncoding("utf8").on("data", (text: string) => (stdout += text));
  child.stderr.setEncoding("utf8").on("data", (text: string) => (stderr += text));
  const { promise, resolve, reject } = Promise.withResolvers<number | string>();
  child.once("error", reject).once("close", (code, signal) => resolve(code ?? signal ?? "no start"));
  const code = await promise;
  if (code !== 0) throw new Error(`${argv.join(" ")}: ended with ${code}\n${stderr}`);
  const { units, allocatedBytes } = JSON.parse(stdout) as { units: number; allocatedBytes: number };
  return { units, allocatedBytes, instructions: Number(/Collected : (\d+)/.exec(stderr)?.[1] ?? Number.NaN) };
}
