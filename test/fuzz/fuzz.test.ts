import assert from "node:assert/strict";
import { test } from "node:test";
import { Fuzz } from "./fuzz.ts";
import type { FuzzMachine } from "./fuzz-machine.ts";
import { MACHINES } from "./machines.ts";

/** A short form of `npm run fuzz`, the same every time. */
const EXECUTIONS = 300;
const EXECUTIONS_OF_PAIRS = 60;
const SEED = 20_261_127;

for (const machine of MACHINES) {
  test(`${machine.name}: mutated bytes neither throw, nor go over a bound, nor depend on where they are cut`, () => {
    const fuzz = new Fuzz(machine, SEED);
    const executions = machine.hasTurns === true ? EXECUTIONS_OF_PAIRS : EXECUTIONS;
    for (let i = 0; i < executions; i++) {
      const failure = fuzz.execute();
      if (failure === null) continue;
      const input = JSON.stringify(Buffer.from(failure.input).toString("latin1"));
      assert.fail(
        `seed ${SEED}, execution ${failure.execution}: ${failure.problem}\nsmallest input: ${input}`,
      );
    }
  });
}

const planted = (run: FuzzMachine["run"]): FuzzMachine => ({
  name: "planted",
  seeds: () => [Buffer.from("one two\nthree"), Buffer.from("four ;five")],
  parts: () => [4, 8],
  run,
});
const failing = (machine: FuzzMachine): string => {
  const fuzz = new Fuzz(machine, SEED);
  for (let i = 0; i < 20_000; i++) {
    const failure = fuzz.execute();
    if (failure !== null) return Buffer.from(failure.input).toString("latin1");
  }
  return "nothing found";
};

test("the fuzzer finds a fault in the reading of one byte, and shows it alone", () => {
  const input = failing(
    planted((pieces) => {
      if (Buffer.concat(pieces).toString("latin1").includes("two;")) throw new Error("planted");
      return [];
    }),
  );
  assert.equal(input, "two;");
});

test("the fuzzer finds what depends on where the bytes are cut", () => {
  const input = failing(
    planted((pieces) =>
      pieces
        .map((piece) => String(piece.includes(0x3b) && piece[0] === 0x3b))
        .filter((said) => said === "true"),
    ),
  );
  assert.ok(input.includes(";"));
  assert.ok(input.length <= 2, input);
});
