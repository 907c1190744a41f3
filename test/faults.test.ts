import assert from "node:assert/strict";
import test from "node:test";
import { ACCESS_FAULTS } from "./access-reference/faults.ts";
import { faultyAccess } from "./access-reference/seeded.ts";
import { FAULTS } from "./differential/faults.ts";
import { faulty } from "./differential/seeded.ts";

test("each fault that the differential run puts into the sidecars has its place in the sources", () => {
  for (const fault of FAULTS) assert.ok(faulty(fault).includes(fault.replace), fault.name);
});

test("each fault that the comparison with the reference of access puts into the evaluator has its place in the sources", () => {
  for (const fault of ACCESS_FAULTS) assert.ok(faultyAccess(fault).includes(fault.replace), fault.name);
});
