import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { test } from "node:test";
import { completion } from "./completion.ts";
import { makeProgram } from "./main.ts";

/** What bash would offer for a line whose last word is being typed. */
function offered(...words: string[]): string[] {
  const script = [
    completion(makeProgram(), "bash"),
    `COMP_WORDS=(${words.map((word) => `'${word}'`).join(" ")}); COMP_CWORD=${words.length - 1}`,
    '_pillion; printf "%s\\n" "${COMPREPLY[@]}"',
  ].join("\n");
  const ran = spawnSync("bash", ["--norc", "-c", script], { encoding: "utf8" });
  assert.equal(ran.stderr, "");
  return ran.stdout.split("\n").filter((line) => line !== "");
}

test("bash offers commands, their options, choices of options, and commands below commands", () => {
  assert.deepEqual(offered("pillion", "st"), ["status", "stat"]);
  assert.deepEqual(offered("pillion", "up", "--pod"), ["--pod-cidr"]);
  assert.deepEqual(offered("pillion", "up", "--intercept", "e"), ["ebpf", "explicit"]);
  assert.deepEqual(offered("pillion", "status", "-o", ""), ["text", "json"]);
  assert.deepEqual(offered("pillion", "rollout", "re"), ["restart"]);
  assert.deepEqual(offered("pillion", "rollout", "restart", "--time"), ["--timeout"]);
  assert.deepEqual(offered("pillion", "authz", "su"), ["suggest"]);
  assert.deepEqual(offered("pillion", "authz", "suggest", "--level", "r"), ["requests"]);
  assert.deepEqual(offered("pillion", "completion", "z"), ["zsh"]);
  assert.deepEqual(offered("pillion", "up", "-f", "/de"), ["/dev"]);
  assert.deepEqual(offered("pillion", "ex"), ["exec", "explain"]);
  assert.deepEqual(offered("pillion", "explain", "--http"), ["--http2"]);
  assert.deepEqual(offered("pillion", "diff", "--from", "/de"), ["/dev"]);
  assert.deepEqual(offered("pillion", "validate", "-o", "j"), ["json"]);
});

test("another shell is refused by name, and every command is in zsh's script", () => {
  assert.throws(() => completion(makeProgram(), "fish"), /"fish" is not made; there is bash and zsh/);
  const script = completion(makeProgram(), "zsh");
  for (const command of makeProgram().commands)
    assert.ok(script.includes(`"${command.name()}")`), command.name());
});
