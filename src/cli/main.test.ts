import assert from "node:assert/strict";
import { test } from "node:test";
import { CommanderError, type Command } from "commander";
import { makeProgram } from "./main.ts";

/** What a command line would do: its command's arguments and options, or what it is refused with. */
async function parse(...words: string[]): Promise<{ args: unknown[]; options: object } | string> {
  const program = makeProgram();
  let parsed: { args: unknown[]; options: object } | null = null;
  let said = "";
  const replace = (command: Command): void => {
    command.configureOutput({ writeErr: (text) => (said += text), writeOut: (text) => (said += text) });
    if (command.commands.length === 0)
      command.action((...given: unknown[]) => {
        parsed = { args: given.slice(0, -2), options: given.at(-2) as object };
      });
    for (const sub of command.commands) replace(sub);
  };
  replace(program);
  try {
    await program.parseAsync(words, { from: "user" });
  } catch (error) {
    if (!(error instanceof CommanderError)) throw error;
    return said;
  }
  return parsed ?? said;
}

async function refusal(...words: string[]): Promise<string> {
  const outcome = await parse(...words);
  return typeof outcome === "string" ? outcome : "";
}

test("exec is written as kubectl's: options before and after the pod, the command after --", async () => {
  const expected = {
    args: ["front", ["sh", "-c", "exit 7"]],
    options: { instance: "two", namespace: "shop", container: "app" },
  };
  const command = ["--", "sh", "-c", "exit 7"];
  const flags = ["-n", "shop", "-c", "app", "--instance", "two"];
  assert.deepEqual(await parse("exec", "front", ...flags, ...command), expected);
  assert.deepEqual(await parse("exec", ...flags, "front", ...command), expected);
  assert.deepEqual(await parse("exec", "front", "--", "cat", "--", "-n"), {
    args: ["front", ["cat", "--", "-n"]],
    options: { instance: "default" },
  });
  const interactive = await parse("exec", "-it", "front", "--", "sh");
  assert.ok(typeof interactive === "object" && "tty" in interactive.options);
  assert.match(await refusal("exec", "front", "ls", "-l"), /stands after --/);
});

test("values that cannot be are refused with the option's name", async () => {
  assert.match(await refusal("up", "-f", "x", "--timeout", "soon"), /--timeout.*number of seconds/);
  assert.match(await refusal("up", "-f", "x", "--pod-cidr", "10.0.0.0"), /--pod-cidr.*IPv4 network/);
  assert.match(await refusal("logs", "x", "--tail", "many"), /--tail.*number of lines/);
  assert.match(await refusal("authz", "explain", "a", "b", "--port", "http"), /--port.*a port/);
  assert.match(await refusal("authz", "test"), /--folder <folder>' not specified/);
  assert.match(await refusal("up"), /--folder <folder>' not specified/);
  assert.match(await refusal("statsu"), /Did you mean status\?/);
});

test("the version is told by the option too", async () => {
  assert.match(await refusal("--version"), /^pillion \d+\.\d+\.\d+ \(Node 26/);
});
