import assert from "node:assert/strict";
import { test } from "node:test";
import type { PodStatus } from "#/model/pod-plan.ts";
import { findContainer, findPod } from "./pod-reference.ts";

function pod(name: string, namespace: string, owner: string, ready: boolean = true): PodStatus {
  return {
    uid: `${namespace}/${name}`,
    name,
    namespace,
    templateHash: "",
    owner,
    ip: "10.0.0.1",
    phase: "Running",
    ready,
    terminating: false,
    message: "",
    startedAtMs: 0,
    intercept: "ebpf",
    containers: ["app", "helper"].map((container) => ({
      name: container,
      ready,
      started: true,
      restartCount: 0,
      state: "running",
      reason: "",
      exitCode: null,
      startedAtMs: 0,
    })),
    sidecar: null,
  };
}

const PODS = [
  pod("web-1", "shop", "Deployment/shop/web", false),
  pod("web-2", "shop", "Deployment/shop/web"),
  pod("redis-0", "shop", "StatefulSet/shop/redis"),
  pod("redis-0", "other", "StatefulSet/other/redis"),
];

test("a pod is found by its own name, or any ready one by its workload's", () => {
  assert.equal(findPod(PODS, "web-1", null).name, "web-1");
  assert.equal(findPod(PODS, "pod/web-1", null).name, "web-1");
  assert.equal(findPod(PODS, "web", null).name, "web-2");
  assert.equal(findPod(PODS, "deployment/web", "shop").name, "web-2");
});

test("a name in several namespaces needs one, and an unknown name is told what there is", () => {
  assert.throws(
    () => findPod(PODS, "redis-0", null),
    /several namespaces \(shop, other\); say which with -n/,
  );
  assert.equal(findPod(PODS, "redis", "other").namespace, "other");
  assert.throws(() => findPod(PODS, "nosuch", null), /no pod "nosuch"; there is: web-1, web-2/);
  assert.throws(() => findPod(PODS, "web", "empty"), /in namespace empty; there are none/);
});

test("the first container is meant where none is named, and the sidecar only where there is one", () => {
  const [web] = PODS as [PodStatus];
  assert.equal(findContainer(web, null), "app");
  assert.equal(findContainer(web, "helper"), "helper");
  assert.throws(() => findContainer(web, "pillion-sidecar"), /it has: app, helper/);
});
