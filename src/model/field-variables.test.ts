import assert from "node:assert/strict";
import { test } from "node:test";
import { fieldVariables, withFieldVariables } from "./field-variables.ts";

test("puts in what only the agent knows, and leaves everything else as it is", () => {
  const variables = fieldVariables(
    [
      { name: "LEVEL", value: "high" },
      { name: "POD_IP", field: "status.podIP" },
      { name: "HOST", field: "status.hostIP" },
    ],
    (field) => (field === "status.podIP" ? "10.0.0.1" : "10.0.0.254"),
  );
  assert.equal(withFieldVariables("--bind=$(POD_IP):$(HOST)", variables), "--bind=10.0.0.1:10.0.0.254");
  assert.equal(
    withFieldVariables("$(LEVEL) $(NOBODY) $POD_IP $()", variables),
    "$(LEVEL) $(NOBODY) $POD_IP $()",
  );
});
