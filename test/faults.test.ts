import assert from "node:assert/strict";
import test from "node:test";
import { FAULTS } from "./differential/faults.ts";
import { faulty } from "./differential/seeded.ts";

test("each fault that the differential run puts into the sidecars has its place in the sources", () => {
  for (const fault of FAULTS) assert.ok(faulty(fault).includes(fault.replace), fault.name);
});
