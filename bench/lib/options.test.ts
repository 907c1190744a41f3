import assert from "node:assert/strict";
import test from "node:test";
import { readOptions, USAGE } from "./options.ts";
import { SHAPES } from "./shapes.ts";

test("options are read, and what is wrong with them is told in one line", () => {
  const read = readOptions([
    "--rounds",
    "2",
    "--shape",
    "h1-8",
    "--variant",
    "a=node",
    "--variant",
    "b=node -x",
  ]);
  assert.ok(!("wrong" in read));
  assert.deepEqual(
    [read.options.rounds, read.options.shape, read.options.variant],
    ["2", "h1-8", ["a=node", "b=node -x"]],
  );
  for (const [words, complaint] of [
    [["--fast"], /--fast.*--help shows all options$/],
    [["--rounds", "many"], /^--rounds many: this is no number above 0/],
    [["--seconds", "0"], /^--seconds 0: /],
  ] as const) {
    const refused = readOptions(words);
    assert.ok("wrong" in refused);
    assert.match(refused.wrong, complaint);
    assert.ok(!refused.wrong.includes("\n"));
  }
});

test("the usage names each option and each shape, in lines of a screen", () => {
  const read = readOptions(["-h"]);
  assert.ok(!("wrong" in read) && read.options.help);
  for (const name of ["quick", "part", "profile", "linkerd2-proxy", "report", "access"])
    assert.match(USAGE, new RegExp(`--${name}\\b`));
  for (const { name } of SHAPES) assert.match(USAGE, new RegExp(`[ ,]${name}(?:,|$)`, "m"));
  for (const line of USAGE.split("\n")) assert.ok(line.length <= 140 && line === line.trimEnd(), line);
});
