import assert from "node:assert/strict";
import { test } from "node:test";
import { findWorkload } from "./rollout.ts";

const OBJECTS = [
  { kind: "Deployment", namespace: "shop", name: "front" },
  { kind: "Service", namespace: "shop", name: "front" },
  { kind: "Deployment", namespace: "other", name: "front" },
  { kind: "StatefulSet", namespace: "shop", name: "redis" },
];

test("a workload is found by its name alone, with its kind, and with the kind's short names", () => {
  const redis = { namespace: "shop", target: "statefulset/redis" };
  for (const words of ["redis", "statefulset/redis", "statefulsets/redis", "sts/redis", "StatefulSet/redis"])
    assert.deepEqual(findWorkload(OBJECTS, words, null), redis, words);
  assert.deepEqual(findWorkload(OBJECTS, "deploy/front", "other"), {
    namespace: "other",
    target: "deployment/front",
  });
});

test("no target is all workloads; one of several, or none, is refused with what there is", () => {
  assert.deepEqual(findWorkload(OBJECTS, "", null), { namespace: "", target: "" });
  assert.throws(
    () => findWorkload(OBJECTS, "front", null),
    /deployment\/front in shop, deployment\/front in other; say which/,
  );
  assert.throws(
    () => findWorkload(OBJECTS, "nosuch", null),
    /that can be rolled; there is: deployment\/front/,
  );
  assert.throws(() => findWorkload(OBJECTS, "deployment/redis", null), /no workload "deployment\/redis"/);
  assert.throws(() => findWorkload(OBJECTS, "", "shop"), /say which workload/);
});
