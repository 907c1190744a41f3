import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import { ManualClock } from "../http/testing.ts";
import { RequestTrace, TRACE_CHARS_MAX } from "./request-trace.ts";

/** RFC 9651 §4.2.1, for the parts of it that a trace has: a List of tokens with parameters. */
const PARAMETER = /;[a-z][a-z0-9_-]*(=("(?:[\x20\x21\x23-\x5b\x5d-\x7e]|\\["\\])*"|-?\d{1,12}(\.\d{1,3})?))?/;
const LIST = new RegExp(`^[a-z][a-z-]*(${PARAMETER.source})*(, [a-z][a-z-]*(${PARAMETER.source})*)*$`);

test("attempts have their time, outcome and reason; what says nothing is left out", () => {
  const clock = new ManualClock();
  const trace = new RequestTrace(clock);
  trace.add("client", [
    ["workload", "a.b"],
    ["none", ""],
    ["no", false],
    ["yes", true],
  ]);
  clock.advance(2);
  trace.attempt([["endpoint", "10.0.0.1:80"]]);
  clock.advance(1.23456);
  trace.ended("CONNECT_FAILED", 'it said "no"');
  trace.attempt([["endpoint", "10.0.0.2:80"]]);
  trace.ended(200, "");
  trace.ended(500, "nobody is under way");
  assert.equal(
    trace.text,
    'client;workload="a.b";yes, attempt;n=1;at=2;endpoint="10.0.0.1:80";took=1.235;failed="CONNECT_FAILED";why="it said \\"no\\"", ' +
      'attempt;n=2;at=3.235;endpoint="10.0.0.2:80";took=0;status=200',
  );
});

test("whatever is written, it is a List within its bound, and no byte of it breaks a head (RFC 9651 §4.1)", () => {
  const step = fc.record({
    text: fc.string({ maxLength: 400, unit: "binary" }),
    number: fc.double({ min: 0, max: 1e9, noNaN: true }),
  });
  fc.assert(
    fc.property(fc.array(step, { maxLength: 80 }), (steps) => {
      const trace = new RequestTrace(new ManualClock());
      trace.add("client", []);
      for (const { text, number } of steps)
        trace.attempt([
          ["why", text],
          ["x", number],
        ]);
      assert.match(trace.text, LIST);
      assert.ok(trace.text.length <= TRACE_CHARS_MAX);
    }),
  );
});

test("what a far sidecar says is cut to its bound, and cannot end the field", () => {
  const trace = new RequestTrace(new ManualClock());
  trace.add("client", []);
  trace.far(`server\r\nset-cookie: a${"x".repeat(10_000)}`);
  assert.ok(trace.text.length < TRACE_CHARS_MAX);
  assert.doesNotMatch(trace.text, /[\r\n]/);
  for (let i = 0; i < 200; i++) trace.add("step", [["why", "y".repeat(50)]]);
  assert.match(trace.text, /, truncated$/);
});
