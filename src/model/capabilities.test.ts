import assert from "node:assert/strict";
import { test } from "node:test";
import { capabilitiesIn, withCapabilities } from "./capabilities.ts";

test("a sidecar states what it understands in the workload that it names", () => {
  const stated = withCapabilities('{"ns":"shop","pod":"web-0"}');
  assert.deepEqual(JSON.parse(stated), { ns: "shop", pod: "web-0", pillion: ["policy/1"] });
  assert.equal(capabilitiesIn(stated).isExtended, true);
});

test("what is not said is not understood", () => {
  for (const workload of [
    "",
    "shop:web-0",
    "{",
    "null",
    '{"ns":"shop","pod":"web-0"}',
    '{"ns":"shop","pod":"web-0","pillion":"policy/1"}',
    '{"ns":"shop","pod":"web-0","pillion":["policy/2"]}',
  ])
    assert.equal(capabilitiesIn(workload).isExtended, false, workload);
});

test("a workload in another form is named as it was given", () => {
  assert.equal(withCapabilities("shop:web-0"), "shop:web-0");
  assert.equal(withCapabilities(""), "");
});
