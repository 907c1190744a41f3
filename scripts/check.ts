/**
 * Everything that must hold before a change lands, in order, one line a step. `npm test` and CI run it whole;
 * `scripts/run node scripts/check.ts tidy unit` runs the named steps, and what follows `--` picks test files by
 * part of their name: `… check.ts e2e -- redis`.
 *
 * The last line, alone, is `N passed, N failed, N skipped`; the exit code is 1 where anything failed.
 */
import { spawn } from "node:child_process";
import { existsSync, globSync, mkdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { release } from "node:os";
import { join } from "node:path";
import type { TestOutcome } from "./reporter.ts";

interface Step {
  readonly name: string;
  /** Runs the step; `report` prints a line below it. */
  run(report: (line: string) => void): Promise<TestOutcome>;
}

const ROOT = join(import.meta.dirname, "..");
const LOGS = join(ROOT, ".cache/check");
/** The whole run, at the very most. It should take under 15 minutes on 2 cores that do nothing else. */
const TOTAL_MS = 30 * 60_000;
/** One step, or one file of the tests that run each in their own process. */
const STEP_MS = 5 * 60_000;
/** Separate files run two at a time: each has its own namespaces and instance, and most of them mostly wait. */
const LANES = 2;
/** … but for files whose bounds are in milliseconds or whose load fills the machine: those run after the others, alone. */
const ALONE =
  /(server-first|cpu-limit|memory-limit|sidecar-killed|control-away|rollout|global-rate-limit|policy-changes|telemetry|h2spec)\.test\.ts$/;
/** What a process told to end has for cleaning up before it is killed. */
const END_MS = 15_000;

process.chdir(ROOT);
mkdirSync(LOGS, { recursive: true });
const startedMs = performance.now();

const separator = process.argv.indexOf("--");
const wantedSteps = process.argv.slice(2, separator === -1 ? undefined : separator);
const wantedFiles = separator === -1 ? [] : process.argv.slice(separator + 1);

const STEPS: readonly Step[] = [
  tool("format", "oxfmt/bin/oxfmt", ["--check"]),
  tool("lint", "oxlint/bin/oxlint", ["--type-aware", "--deny-warnings"]),
  tool("types", "typescript/bin/tsc", ["-p", "."]),
  script("generated", "scripts/generate.ts", ["--check"]),
  script("bpf", "bpf/build.ts", ["--check"]),
  tests("tidy", "test/*.test.ts"),
  tests("unit", "{src,scripts,bench,demo,bpf,test/soak}/**/*.test.ts"),
  tests("wire", "test/{wire,fuzz}/**/*.test.ts"),
  tests("sim", "test/sim/**/*.test.ts"),
  tests("access", "test/access-reference/**/*.test.ts"),
  script("gate", "bench/gate.ts", []),
  separateTests("e2e", "test/e2e/**/*.test.ts"),
  separateTests("conformance", "test/conformance/**/*.test.ts"),
];

const stepNames = STEPS.map((step) => step.name).join(", ");
if (wantedSteps.includes("--help") || wantedSteps.includes("-h")) {
  console.log(`Usage: npm run check -- [STEP…] [-- TEXT…]

Everything that must hold before a change lands, or the steps that are named: ${stepNames}.
What follows a second -- picks test files by part of their name.`);
  process.exit();
}
const unknown = wantedSteps.filter((name) => STEPS.every((step) => step.name !== name));
if (unknown.length > 0) {
  console.error(`check: no step is called ${unknown.join(", ")}; there are: ${stepNames}`);
  process.exit(2);
}

const total = { passed: 0, failed: 0, skipped: 0 };
for (const step of STEPS) {
  if (wantedSteps.length > 0 && !wantedSteps.includes(step.name)) continue;
  const stepStartedMs = performance.now();
  const lines: string[] = [];
  // Lines of a slow step are shown as they come, those of a quick one below its own.
  const outcome = await step.run((line) => console.log(`  ${line}`));
  for (const { name, place, reason } of outcome.failures)
    lines.push(`  ✗ ${place} ${name}\n${indent(reason)}`);
  for (const { name, place, reason } of outcome.skips) lines.push(`  - ${place} ${name}: skipped: ${reason}`);
  const { passed, failures, skips } = outcome;
  const counts = `${passed} passed, ${failures.length} failed, ${skips.length} skipped`;
  const seconds = ((performance.now() - stepStartedMs) / 1000).toFixed(1);
  console.log(
    `${failures.length === 0 ? "✓" : "✗"} ${step.name.padEnd(12)} ${seconds.padStart(6)} s  ${counts}`,
  );
  for (const line of lines) console.log(line);
  total.passed += passed;
  total.failed += failures.length;
  total.skipped += skips.length;
}
console.log(
  `\nTotal ${((performance.now() - startedMs) / 1000).toFixed(0)} s; what each step printed is in .cache/check/`,
);
console.log(`${total.passed} passed, ${total.failed} failed, ${total.skipped} skipped`);
process.exitCode = total.failed === 0 ? 0 : 1;

function tool(name: string, file: string, args: readonly string[]): Step {
  return script(name, join("node_modules", file), args);
}

/** A step that one script decides by its exit code. */
function script(name: string, file: string, args: readonly string[]): Step {
  return {
    name,
    async run() {
      const { code, output, isOutOfTime } = await runLogged(name, [file, ...args]);
      if (code === 0) return { passed: 1, failures: [], skips: [] };
      const reason = isOutOfTime ? `not done after ${STEP_MS / 1000} s\n${output}` : output;
      return {
        passed: 0,
        failures: [{ name, place: [file, ...args].join(" "), reason: lastLines(reason, 60) }],
        skips: [],
      };
    },
  };
}

/** Tests without sockets or namespaces: all files in one process. */
function tests(name: string, pattern: string): Step {
  return {
    name,
    run: () => runTests(name, filesOf(pattern)),
  };
}

/** Tests that take over parts of the machine: each file in its own process and time. */
function separateTests(name: string, pattern: string): Step {
  return {
    name,
    async run(report) {
      const whole: TestOutcome = { passed: 0, failures: [], skips: [] };
      const runFile = async (file: string): Promise<void> => {
        const fileStartedMs = performance.now();
        const outcome = await runTests(`${name}-${file.replaceAll("/", "-")}`, [file]);
        whole.passed += outcome.passed;
        whole.failures.push(...outcome.failures);
        for (const skip of outcome.skips) {
          // Where everything is at hand, a skipped test is a promise not kept. Only what needs something that the
          // checkout cannot bring, such as another project's binary, may say so.
          if (canRunEverything() && !skip.reason.startsWith("optional: "))
            whole.failures.push({ ...skip, reason: `skipped: ${skip.reason}` });
          else whole.skips.push(skip);
        }
        const isGood = outcome.failures.length === 0;
        report(`${isGood ? "✓" : "✗"} ${file} ${((performance.now() - fileStartedMs) / 1000).toFixed(1)} s`);
      };
      const files = filesOf(pattern);
      const shared = files.filter((file) => !ALONE.test(file));
      const lane = async (): Promise<void> => {
        for (let file = shared.shift(); file !== undefined; file = shared.shift()) await runFile(file);
      };
      await Promise.all(Array.from({ length: LANES }, lane));
      for (const file of files.filter((one) => ALONE.test(one))) await runFile(file);
      return whole;
    },
  };
}

async function runTests(name: string, files: readonly string[]): Promise<TestOutcome> {
  if (files.length === 0) {
    // Asked for by name, nothing is an answer; in a whole run it means that a folder moved.
    const failures = wantedFiles.length > 0 ? [] : [{ name, place: "-", reason: "no test file matches" }];
    return { passed: 0, failures, skips: [] };
  }
  const results = join(LOGS, `${name}.json`);
  rmSync(results, { force: true });
  const reporters = ["--test-reporter=spec", "--test-reporter-destination=stdout"];
  reporters.push("--test-reporter=./scripts/reporter.ts", `--test-reporter-destination=${results}`);
  const args = [
    "--disable-warning=ExperimentalWarning",
    "--test",
    "--test-isolation=none",
    ...reporters,
    ...files,
  ];
  const { code, output, isOutOfTime } = await runLogged(name, args);
  const outcome = existsSync(results) ? readOutcome(results) : null;
  const place = files.length === 1 ? files[0]! : name;
  if (isOutOfTime || outcome === null || (code !== 0 && outcome.failures.length === 0)) {
    const why = isOutOfTime ? "not done in time" : `ended with ${code} before its results were written`;
    const failure = { name: why, place, reason: lastLines(output, 40) };
    return {
      passed: outcome?.passed ?? 0,
      failures: [...(outcome?.failures ?? []), failure],
      skips: outcome?.skips ?? [],
    };
  }
  return outcome;
}

function readOutcome(file: string): TestOutcome | null {
  const text = readFileSync(file, "utf8");
  return text === "" ? null : (JSON.parse(text) as TestOutcome);
}

/**
 * Runs a script with this same Node in its own process group, within the time that a step and the whole run have. Its output goes to the
 * step's log and is returned, cut to its last megabyte.
 */
function runLogged(
  name: string,
  args: readonly string[],
): Promise<{ code: number | string; output: string; isOutOfTime: boolean }> {
  const { promise, resolve } = Promise.withResolvers<{
    code: number | string;
    output: string;
    isOutOfTime: boolean;
  }>();
  const child = spawn(process.execPath, args, { stdio: ["ignore", "pipe", "pipe"], detached: true });
  let output = "";
  let isOutOfTime = false;
  const collect = (chunk: Buffer): void => {
    output = (output + chunk.toString()).slice(-(1 << 20));
  };
  child.stdout.on("data", collect);
  child.stderr.on("data", collect);

  // Clean-up hooks of the tests run on SIGTERM; only who does not end is killed.
  const end = (): void => {
    signalGroup("SIGTERM");
    killTimer = setTimeout(() => signalGroup("SIGKILL"), END_MS);
  };
  const signalGroup = (signal: NodeJS.Signals): void => {
    try {
      if (child.pid !== undefined) process.kill(-child.pid, signal);
    } catch {
      // It ended meanwhile.
    }
  };
  let killTimer: NodeJS.Timeout | undefined;
  const leftMs = Math.max(1, TOTAL_MS - (performance.now() - startedMs));
  const timer = setTimeout(
    () => {
      isOutOfTime = true;
      end();
    },
    Math.min(STEP_MS, leftMs),
  );
  // The child is no member of our terminal's group, so Ctrl-C reaches it through us.
  const onSignal = (): void => {
    end();
    child.once("close", () => process.exit(130));
  };
  process.once("SIGINT", onSignal).once("SIGTERM", onSignal);

  child.once("error", (error) => collect(Buffer.from(`${error.message}\n`)));
  child.once("close", (code, signal) => {
    clearTimeout(timer);
    clearTimeout(killTimer);
    process.off("SIGINT", onSignal).off("SIGTERM", onSignal);
    writeFileSync(join(LOGS, `${name}.log`), output);
    resolve({ code: code ?? signal ?? "no start", output, isOutOfTime });
  });
  return promise;
}

function filesOf(pattern: string): string[] {
  const files = globSync(pattern).sort();
  return wantedFiles.length === 0
    ? files
    : files.filter((file) => wantedFiles.some((part) => file.includes(part)));
}

/** Root on a kernel that has all the eBPF hooks: nothing may be skipped. */
function canRunEverything(): boolean {
  const [major = 0, minor = 0] = release().split(".").map(Number);
  return process.getuid?.() === 0 && (major > 5 || (major === 5 && minor >= 10));
}

function lastLines(text: string, count: number): string {
  return text.trimEnd().split("\n").slice(-count).join("\n");
}

function indent(text: string): string {
  return text.replace(/^/gm, "      ");
}
