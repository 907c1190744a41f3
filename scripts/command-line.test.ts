import assert from "node:assert/strict";
import test from "node:test";
import { readCommandLine, type Options } from "./command-line.ts";

const OPTIONS = {
  rounds: { type: "string" },
  seconds: { type: "string", default: "1" },
  variant: { type: "string", multiple: true, default: [] },
} satisfies Options;

test("options are read, and what is wrong with them is told in one line", () => {
  const read = (...words: string[]) => readCommandLine(words, OPTIONS, ["rounds", "seconds"]);
  assert.deepEqual(read("--rounds", "2", "--variant", "a=node", "--variant", "b=node -x"), {
    values: { __proto__: null, rounds: "2", seconds: "1", variant: ["a=node", "b=node -x"] },
  });
  for (const [words, complaint] of [
    [["--fast"], /--fast.*--help shows all options$/],
    [["word"], /word.*--help shows all options$/],
    [["--rounds"], /--rounds.*--help shows all options$/],
    [["--rounds", "many"], /^--rounds many: this is no number above 0; --help shows all options$/],
    [["--seconds", "0"], /^--seconds 0: /],
  ] as const) {
    const refused = read(...words);
    assert.ok("wrong" in refused);
    assert.match(refused.wrong, complaint);
    assert.ok(!refused.wrong.includes("\n"));
  }
});
