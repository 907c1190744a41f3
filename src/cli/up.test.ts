import assert from "node:assert/strict";
import { test } from "node:test";
import { countOf, describeProblem } from "./up.ts";

test("a problem is told as file:line, object, field and reason, less what is not known", () => {
  const problem = {
    file: "shop/web.yaml",
    line: 8,
    object: "Pod shop/web",
    field: "spec.x",
    reason: "unknown",
  };
  assert.equal(describeProblem(problem), "shop/web.yaml:8: Pod shop/web: spec.x: unknown");
  assert.equal(describeProblem({ ...problem, line: 0, object: "", field: "" }), "shop/web.yaml: unknown");
});

test("one is one, and the rest is many", () => {
  assert.deepEqual(
    [0, 1, 2].map((count) => countOf(count, "pod")),
    ["0 pods", "1 pod", "2 pods"],
  );
});
