import assert from "node:assert/strict";
import { readdirSync, readFileSync } from "node:fs";
import { test } from "node:test";
import { expected, parseTranscript, play, type MakeMachine } from "./transcript.ts";

const HERE = new URL("./", import.meta.url);
const KINDS = new Set(["machine", "in", "do", "out"]);

for (const file of readdirSync(HERE).filter((name) => name.endsWith(".md"))) {
  const { makeMachine } = (await import(new URL(file.replace(/\.md$/, ".machine.ts"), HERE).href)) as {
    makeMachine: MakeMachine;
  };
  const cases = parseTranscript(readFileSync(new URL(file, HERE), "utf8"));
  test(`${file} has cases`, () => assert.ok(cases.length > 0));
  for (const each of cases) {
    const line = each.blocks[0]?.line ?? 0;
    test(`${file}:${line}: ${each.title}`, () => {
      for (const block of each.blocks)
        assert.ok(KINDS.has(block.kind), `unknown block "${block.kind}" in line ${block.line}`);
      const wanted = expected(each);
      assert.ok(wanted.length > 0, "a case without an out block proves nothing");
      assert.deepEqual(play(each, makeMachine, Infinity), wanted, "fed at once");
      assert.deepEqual(play(each, makeMachine, 1), wanted, "fed byte by byte");
    });
  }
}
