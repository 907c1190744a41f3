import assert from "node:assert/strict";
import { test } from "node:test";
import type { InboundLimits } from "#/model/traffic.ts";
import { SILENT } from "#/net/log.ts";
import { ManualClock, RecordingReply, ScriptedService } from "#/stack/http/testing.ts";
import { PortLimits } from "#/stack/limits/port-limits.ts";
import { QuotaShares } from "#/stack/limits/quota-shares.ts";
import { headOf, sourceNamed } from "#/stack/route/testing.ts";
import type { ControlApi } from "../control/control-api.ts";
import { QuotaClient } from "./quota-client.ts";

const NONE: InboundLimits = { exempt: [], rates: [], concurrency: null };
const GLOBAL: InboundLimits = {
  ...NONE,
  rates: [
    {
      source: sourceNamed("web", "RateLimitPolicy"),
      matches: [],
      key: { kind: "total" },
      requests: 10,
      windowMs: 1_000,
      burst: 2,
      scope: "global",
    },
  ],
};

test("a request that waits for its share is let in when the limit is taken away before anybody was asked", () => {
  const clock = new ManualClock();
  const quota = new QuotaShares();
  const control: Pick<ControlApi, "isConnected" | "leaseQuota"> = {
    isConnected: true,
    leaseQuota: () => assert.fail("there is nothing to ask for"),
  };
  new QuotaClient(quota, control as ControlApi, clock, SILENT);
  const limits = new PortLimits(80, { clock, quota, limited: () => {}, shed: () => {} });
  limits.update(GLOBAL);
  const service = new ScriptedService();
  limits.call(service, null, headOf("/"), true, new RecordingReply());
  assert.equal(quota.waitingCount, 1);
  limits.update(NONE);
  clock.advance(10);
  assert.equal(quota.waitingCount, 0);
  assert.equal(service.calls.length, 1);
});
