import assert from "node:assert/strict";
import { test } from "node:test";
import type { PodPlan, ServicePlan } from "#/model/pod-plan.ts";
import { explicitTargets, loopbackOf, ownPorts, seenWithoutInterception } from "./explicit.ts";

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
    explicitTargets([service("10.202.3.4", [tcp(80), tcp(443)])], []),
    "127.202.3.4:443=10.202.3.4:443,127.202.3.4:80=10.202.3.4:80",
  );
  assert.equal(seenWithoutInterception([service("10.202.3.4", [tcp(80)])], [])[0]?.clusterIp, "127.202.3.4");
});

test("headless Services, UDP, and the address that is everybody's stay as they are", () => {
  const others = [
    service(null, [tcp(80)]),
    service("10.202.0.9", [{ name: "", port: 53, protocol: "UDP" }]),
    service("10.0.0.1", [tcp(80)]),
  ];
  assert.equal(explicitTargets(others, []), "");
  assert.deepEqual(seenWithoutInterception(others, []), others);
});

test("a port that the pod's own program listens on is the program's", () => {
  const own = ownPorts(
    {
      uid: "p",
      initContainers: [],
      containers: [{ ports: [{ containerPort: 9000 }] }],
    } as unknown as PodPlan,
    [
      {
        ...service("10.202.0.7", [tcp(6379)]),
        endpoints: [{ podUid: "p", ip: "", hostname: null, ready: false, targetPorts: [6379] }],
      },
    ],
  );
  assert.deepEqual(own, [6379, 9000]);
  const other = service("10.202.0.8", [tcp(6379), tcp(80)]);
  assert.equal(explicitTargets([other], own), "");
  assert.deepEqual(seenWithoutInterception([other], own), [other]);
});
