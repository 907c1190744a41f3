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

function scene(): {
  clock: ManualClock;
  pressure: RetryPressure;
  ask: (status: number, fields?: Fields) => Fields;
} {
  const clock = new ManualClock();
  const pressure = new RetryPressure();
  const service = new ScriptedService();
  const damping = new RetryDamping(service, pressure, clock);
  const ask = (status: number, fields: Fields = []): Fields => {
    const reply = new RecordingReply();
    const isCall = fieldValue(fields, "grpc-status") !== null;
    damping.call({ ...GET, fields: isCall ? ["content-type", "application/grpc"] : [] }, true, reply);
    service.calls.at(-1)!.answer(status, fields, "");
    return reply.fields;
  };
  return { clock, pressure, ask };
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
