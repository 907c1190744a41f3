import assert from "node:assert/strict";
import { test } from "node:test";
import { workloadName } from "./config.ts";

test("answers name the pod, in whichever form the workload was told", () => {
  assert.equal(workloadName('{"ns":"shop","pod":"catalogue-1"}'), "catalogue-1.shop");
  assert.equal(workloadName("shop:catalogue-1"), "catalogue-1.shop");
  for (const none of ["", "catalogue-1", '{"external_workload":"a","ns":"b"}', '{"ns":"a:b"'])
    assert.equal(workloadName(none), "");
});
