import assert from "node:assert/strict";
import test from "node:test";
import { OPTIONS, USAGE } from "./options.ts";
import { SHAPES } from "./shapes.ts";

test("the usage names each option and each shape, in lines of a screen", () => {
  for (const name of Object.keys(OPTIONS)) assert.match(USAGE, new RegExp(`--${name}\\b`));
  for (const { name } of SHAPES) assert.match(USAGE, new RegExp(`[ ,]${name}(?:,|$)`, "m"));
  for (const line of USAGE.split("\n")) assert.ok(line.length <= 140 && line === line.trimEnd(), line);
});
