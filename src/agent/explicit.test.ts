import assert from "node:assert/strict";
import { test } from "node:test";
import type { ServicePlan } from "#/model/pod-plan.ts";
import { explicitTargets, loopbackOf, seenWithoutInterception } from "./explicit.ts";

const service = (clusterIp: string | null, ports: ServicePlan["ports"]): ServicePlan => ({
  name: "s",
  namespace: "n",
  clusterIp,
  externalName: null,
  publishNotReady: false,
  sessionAffinityClientIp: false,
  ports,
  endpoints: [],
});
const tcp = (port: number): ServicePlan["ports"][number] => ({ name: "", port, protocol: "TCP" });

test("each TCP Service has its loopback address, and the sidecar is told of each port", () => {
  assert.equal(loopbackOf("10.202.3.4"), "127.202.3.4");
  assert.equal(
    explicitTargets([service("10.202.3.4", [tcp(80), tcp(443)])]),
    "127.202.3.4:443=10.202.3.4:443,127.202.3.4:80=10.202.3.4:80",
  );
  assert.equal(seenWithoutInterception([service("10.202.3.4", [tcp(80)])])[0]?.clusterIp, "127.202.3.4");
});

test("headless Services, UDP, and the address that is everybody's stay as they are", () => {
  const others = [
    service(null, [tcp(80)]),
    service("10.202.0.9", [{ name: "", port: 53, protocol: "UDP" }]),
    service("10.0.0.1", [tcp(80)]),
  ];
  assert.equal(explicitTargets(others), "");
  assert.deepEqual(seenWithoutInterception(others), others);
});
