import assert from "node:assert/strict";
import { cpSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, test } from "node:test";
import { CommandError } from "../exit.ts";
import type { SimulateOptions } from "./simulate.ts";
import { simulateFolder } from "./simulate.ts";

const EXAMPLE = join(import.meta.dirname, "../../../examples/simulate");
const OPTIONS: SimulateOptions = {
  folder: join(EXAMPLE, "shop"),
  scenario: join(EXAMPLE, "prices-fail.yaml"),
  from: null,
  to: null,
  rate: 100,
  fail: [],
  seed: null,
  json: false,
  plot: null,
};
const scratch = mkdtempSync(join(tmpdir(), "pillion-simulate-"));
after(() => rmSync(scratch, { recursive: true }));

function run(over: Partial<SimulateOptions>): { code: number; text: string } {
  let text = "";
  const print = (line: string): void => void (text += `${line}\n`);
  const code = simulateFolder({ ...OPTIONS, ...over }, print, print);
  return { code, text };
}

test("the example keeps what it promises, prints the same for the same seed, and draws", () => {
  const plot = join(scratch, "plot.svg");
  const first = run({ plot });
  assert.equal(first.code, 0, first.text);
  assert.match(
    first.text,
    /✓ .*prices-fail\.yaml:\d+: prices\.shop\S+, during: 1\.1\d* × the load from before/,
  );
  assert.match(first.text, /prices\.shop:80 [^✓]*not retried: the budget was spent/);
  assert.equal(run({ plot }).text, first.text);
  assert.match(readFileSync(plot, "utf8"), /^<svg /);
  const json = JSON.parse(run({ json: true, seed: 2 }).text) as { seed: number; violations: unknown[] };
  assert.deepEqual([json.seed, json.violations], [2, []]);
});

test("without its budgets the example is a storm, and fails", () => {
  const folder = join(scratch, "shop");
  cpSync(OPTIONS.folder, folder, { recursive: true });
  const file = join(folder, "retries.yaml");
  const documents = readFileSync(file, "utf8").split("---\n");
  writeFileSync(file, documents.filter((text) => !text.includes("XBackendTrafficPolicy")).join("---\n"));
  const { code, text } = run({ folder });
  assert.equal(code, 1);
  assert.match(
    text,
    /✗ .*prices\.shop\S+, during: 1\.[2-9]\d* × the load from before, at most 1\.2 expected/,
  );
});

test("flags alone are enough for a first look", () => {
  const flags = {
    scenario: null,
    from: "shop/load",
    to: "http://prices.shop/",
    fail: ["shop/prices=errors:100%"],
  };
  const { code, text } = run(flags);
  assert.equal(code, 0);
  assert.match(text, /during +\d+\.\d +0\.[01]\d%/);
});

test("an expectation that is not met is exit code 1; what cannot be read is a mistake with its place", () => {
  const scenario = join(scratch, "s.yaml");
  const load = "run: 1s\nload: [{ from: load, to: 'http://front.shop/', rate: 20 }]\n";
  writeFileSync(scenario, `${load}expect: [{ p99: 1us }]\n`);
  assert.equal(run({ scenario }).code, 1);
  writeFileSync(scenario, `${load}expects: []\n`);
  const refused = (options: Partial<SimulateOptions>, reason: RegExp): void => {
    assert.throws(
      () => run(options),
      (error) => error instanceof CommandError && error.exitCode === 2 && reason.test(error.message),
    );
  };
  refused({ scenario }, /s\.yaml:3: expects unknown field/);
  refused({ scenario: join(scratch, "none.yaml") }, /cannot read the scenario/);
  refused({ scenario: null }, /--scenario FILE, or --from/);
  refused({ scenario: null, from: "load", to: "http://front.shop/", fail: ["x=y"] }, /--fail x=y: write/);
});
