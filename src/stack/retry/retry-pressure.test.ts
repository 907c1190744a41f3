import assert from "node:assert/strict";
import { test } from "node:test";
import type { Fields } from "#/base/fields.ts";
import { fieldValue } from "#/base/fields.ts";
import type { RequestHead } from "../http/exchange.ts";
import { ManualClock, RecordingReply, ScriptedService } from "../http/testing.ts";
import { isWithheldBehind, RetryDamping, RetryPressure } from "./retry-pressure.ts";

const GET: RequestHead = {
  method: "GET",
  scheme: "http",
  authority: "web",
  path: "/",
  version: "2",
  absoluteForm: false,
  upgrade: null,
  fields: [],
};

/** Gives the answer and takes its fields as they are passed on. */
type Answer = (status: number, fields?: Fields) => Fields;

function scene(): { clock: ManualClock; pressure: RetryPressure; begin: () => Answer; ask: Answer } {
  const clock = new ManualClock();
  const pressure = new RetryPressure();
  pressure.isPossible = true;
  const service = new ScriptedService();
  const damping = new RetryDamping(service, pressure, clock);
  const begin = (isCall = false): Answer => {
    const reply = new RecordingReply();
    damping.call({ ...GET, fields: isCall ? ["content-type", "application/grpc"] : [] }, true, reply);
    const call = service.calls.at(-1)!;
    return (status, fields = []) => {
      call.answer(status, fields, "");
      return reply.fields;
    };
  };
  const ask: Answer = (status, fields = []) =>
    begin(fieldValue(fields, "grpc-status") !== null)(status, fields);
  return { clock, pressure, begin, ask };
}

test("a workload that is out of retries says so with its failures, for a second after the last that was withheld", () => {
  const { clock, pressure, ask } = scene();
  assert.ok(!isWithheldBehind(ask(503)));
  pressure.withheld(clock.nowMs());
  clock.advance(999);
  const fields = ask(503, ["x", "y"]);
  assert.deepEqual(fields, [
    "x",
    "y",
    "proxy-status",
    'pillion;received-status=503;pillion-side=server;pillion-retry=withheld;details="what it asked for was not sent again"',
  ]);
  assert.ok(isWithheldBehind(fields));
  clock.advance(1);
  assert.ok(!isWithheldBehind(ask(503)));
});

test("where its own requests have no retries nothing stands in the way of its answers", () => {
  const pressure = new RetryPressure();
  const service = new ScriptedService();
  const reply = new RecordingReply();
  new RetryDamping(service, pressure, new ManualClock()).call(GET, true, reply);
  assert.equal(service.calls[0]!.reply, reply);
});

test("what counts is the moment of the answer", () => {
  const { clock, pressure, begin } = scene();
  pressure.withheld(clock.nowMs());
  const early = begin();
  clock.advance(5_000);
  const late = begin();
  assert.ok(!isWithheldBehind(early(503)));
  pressure.withheld(clock.nowMs());
  assert.ok(isWithheldBehind(late(503)));
});

test("its other answers are as they were", () => {
  const { clock, pressure, ask } = scene();
  pressure.withheld(clock.nowMs());
  assert.deepEqual(ask(200, ["x", "y"]), ["x", "y"]);
  assert.deepEqual(ask(404), []);
  assert.deepEqual(ask(200, ["grpc-status", "0"]), ["grpc-status", "0"]);
  assert.ok(isWithheldBehind(ask(200, ["grpc-status", "14"])));
});

test("what somebody else says in Proxy-Status counts for nothing: the mesh has the last member", () => {
  const forged = "pillion;received-status=503;pillion-retry=withheld";
  assert.ok(isWithheldBehind(["proxy-status", forged]));
  // As a sidecar passes on what its application says (decision 7).
  assert.ok(!isWithheldBehind(["proxy-status", forged, "proxy-status", "pillion;received-status=503"]));
  assert.ok(!isWithheldBehind(["proxy-status", `${forged}, pillion;received-status=503`]));
  assert.ok(!isWithheldBehind(["via", forged]));
});
