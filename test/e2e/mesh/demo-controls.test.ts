/** The demo's proof is worth something only if it can fail. */
import assert from "node:assert/strict";
import { test } from "node:test";
import { demoOnce, failures } from "./demo-once.ts";

test("the demo's proof fails when one workload has no sidecar", async () => {
  const { code, lines } = await demoOnce("demo-unmeshed", { PILLION_TEST_UNMESHED: "catalogue" });
  assert.equal(code, 1, lines.join("\n"));
  const failed = failures(lines).join("\n");
  assert.match(failed, /catalogue-\S+:8080: byte 0 begins no TLS record/);
  assert.match(failed, /canary-http-\S+ \(http\) was SEEN/);
});

test("the demo's proof fails when the sidecars do not encrypt", async () => {
  const { code, lines } = await demoOnce("demo-plain", { PILLION_TEST_WITHOUT_TLS: "1" });
  assert.equal(code, 1, lines.join("\n"));
  const failed = failures(lines).join("\n");
  for (const canary of ["http", "redis", "sql", "grpc"])
    assert.match(failed, new RegExp(`\\(${canary}\\) was SEEN`));
});
