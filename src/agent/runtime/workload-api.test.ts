import assert from "node:assert/strict";
import { test } from "node:test";
import type { PodPlan } from "#/model/pod-plan.ts";
import { ONE_USER, OWN_USERS } from "./users.ts";
import { asksForWorkloadApi, workloadApiBind, workloadApiSettings } from "./workload-api.ts";

function plan(workloadApi: boolean | undefined, ...uids: (number | null)[]): PodPlan {
  const containers = uids.map((runAsUser, at) => ({ name: `c${at}`, runAsUser }));
  return {
    initContainers: containers.slice(0, 1),
    containers: containers.slice(1),
    sidecar: workloadApi === undefined ? {} : { workloadApi },
  } as unknown as PodPlan;
}

test("a pod has the Workload API only if it says so, and a pod of an earlier version did not", () => {
  assert.equal(asksForWorkloadApi(plan(true, 0)), true);
  assert.equal(asksForWorkloadApi(plan(false, 0)), false);
  assert.equal(asksForWorkloadApi(plan(undefined, 0)), false);
  assert.equal(asksForWorkloadApi({ ...plan(true, 0), sidecar: null }), false);
});

test("the users of all containers are served, each once; root where none is said", () => {
  const served = (...uids: (number | null)[]): string | undefined =>
    workloadApiSettings(plan(true, ...uids), OWN_USERS)["PILLION_WORKLOAD_API_UIDS"];
  assert.equal(served(null, 1001, 1001, 7), "0,1001,7");
  assert.equal(
    workloadApiSettings(plan(true, 1001), ONE_USER)["PILLION_WORKLOAD_API_UIDS"],
    "0",
    "where all are one user, the kernel knows no other",
  );
});

test("only the sidecar may write where the socket lies", () => {
  assert.deepEqual(workloadApiBind("/run/x/pods/1", false), {
    source: "/run/x/pods/1/volumes/.workload-api",
    target: "/run/spiffe",
    readOnly: true,
  });
  assert.equal(workloadApiBind("/run/x/pods/1", true).readOnly, false);
});
