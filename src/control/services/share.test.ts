import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import { create, fromBinary, toBinary, toJsonString } from "@bufbuild/protobuf";
import { GetDestinationSchema, UpdateSchema, WeightedAddrSchema } from "#/gen/linkerd/destination_pb.ts";
import { TrafficSpecSchema } from "#/gen/linkerd/outbound_pb.ts";
import { withCapabilities } from "#/model/capabilities.ts";
import type { PodPlan, PodStatus } from "#/model/pod-plan.ts";
import { loadFolder } from "#/kube/folder.ts";
import { PolicyWorld } from "../policy/testing.ts";
import { destinationMethods } from "../rpc/destination.ts";
import { LiveView } from "../rpc/live-view.ts";
import { policyMethods } from "../rpc/policy.ts";
import type { KnownPod } from "./compile.ts";
import type { MeshView } from "./mesh-view.ts";
import { shareUnchanged } from "./share.ts";

const SERVICES = ["a", "b"]
  .map(
    (name) => `apiVersion: v1
kind: Service
metadata: { name: ${name}, namespace: shop }
spec: { clusterIP: None, selector: { app: ${name} }, ports: [{ name: http, port: 80, targetPort: 8080 }, { name: db, port: 81, targetPort: web }] }
`,
  )
  .join("---\n");

const NO_OPAQUE: KnownPod["opaquePorts"] = [];
const OPAQUE: KnownPod["opaquePorts"] = [{ from: 8080, to: 8080 }];

function planOf(name: string): PodPlan {
  return {
    uid: `uid-${name}`,
    name,
    namespace: "shop",
    labels: { app: name[0] },
    annotations: {},
    owner: `Deployment/shop/${name[0]}`,
    serviceAccount: "default",
    templateHash: "1",
    hostname: name,
    subdomain: null,
    sidecar: { skipInboundPorts: [] },
    containers: [
      {
        ports: [{ name: "web", containerPort: 8080, protocol: "TCP" }],
        startupProbe: null,
        readinessProbe: null,
        livenessProbe: null,
      },
    ],
    initContainers: [],
    volumes: [],
  } as unknown as PodPlan;
}

const NAMES = ["a0", "a1", "a2", "b0", "b1"];
/** Plans live as long as their pods. */
const PLANS = new Map(
  NAMES.map((name) => [name, [planOf(name), { ...planOf(name), uid: `uid-${name}-new` }] as const]),
);

interface State {
  readonly isThere: boolean;
  readonly ready: boolean;
  readonly ip: number;
  readonly isLeaving: boolean;
  readonly isOpaque: boolean;
  /** Another pod by the same name. */
  readonly isNew: boolean;
}
const state: fc.Arbitrary<State> = fc.record({
  isThere: fc.boolean(),
  ready: fc.boolean(),
  ip: fc.constantFrom(1, 1, 2),
  isLeaving: fc.oneof(
    { weight: 4, arbitrary: fc.constant(false) },
    { weight: 1, arbitrary: fc.constant(true) },
  ),
  isOpaque: fc.oneof(
    { weight: 4, arbitrary: fc.constant(false) },
    { weight: 1, arbitrary: fc.constant(true) },
  ),
  isNew: fc.oneof({ weight: 4, arbitrary: fc.constant(false) }, { weight: 1, arbitrary: fc.constant(true) }),
});
const states = fc.tuple(state, state, state, state, state);

const folder = loadFolder([{ path: "f.yaml", text: SERVICES }], new Map());
assert.equal(folder.problems.length, 0);

function viewOf(all: readonly State[], extra = ""): MeshView {
  const pods = all.flatMap(({ isThere, ready, ip, isLeaving, isOpaque, isNew }, i): KnownPod[] => {
    const plan = PLANS.get(NAMES[i]!)!;
    const status = { ip: `10.201.${ip}.${i + 1}`, ready, terminating: false, phase: "Running" };
    return isThere
      ? [
          {
            plan: plan[isNew ? 1 : 0],
            status: status as unknown as PodStatus,
            isLeaving,
            opaquePorts: isOpaque ? OPAQUE : NO_OPAQUE,
          },
        ]
      : [];
  });
  return new PolicyWorld(SERVICES + extra, pods).view;
}

test("what is shared says the same, and all that has not changed is shared", () => {
  fc.assert(
    fc.property(states, states, (first, second) => {
      const before = viewOf(first);
      const view = viewOf(second);
      const shared = shareUnchanged(before, view);
      assert.deepEqual(shared, view);
      for (const [name, pod] of shared.podsByName) {
        const old = before.podsByName.get(name);
        if (old !== undefined && same(old, pod)) assert.equal(pod, old, name);
      }
      for (const [name, service] of shared.servicesByName) {
        const old = before.servicesByName.get(name);
        if (old !== undefined && same(old, service)) assert.equal(service, old, name);
      }
      for (const pod of shared.podsByIp.values())
        assert.equal(pod, shared.podsByName.get(`${pod.namespace}/${pod.name}`));
    }),
    { numRuns: 150 },
  );
});

function same(a: unknown, b: unknown): boolean {
  try {
    assert.deepEqual(a, b);
    return true;
  } catch {
    return false;
  }
}

const WORKLOAD = withCapabilities(JSON.stringify({ ns: "shop", pod: "a0" }));
const call = { caller: null, isTrusted: true, peer: "" };

/** What the streams of a client have been told: the policy's last message, and the addresses that are left of all updates. */
function toldOf(
  live: LiveView,
  name: string,
): { readonly policy: () => string; readonly endpoints: () => string } {
  const authority = `${name}.shop.svc.cluster.local:80`;
  let policy = "";
  const endpoints = new Map<string, string>();
  const addressOf = (address: object | undefined): string => JSON.stringify(address);
  const outbound = toBinary(
    TrafficSpecSchema,
    create(TrafficSpecSchema, { sourceWorkload: "", target: { case: "authority", value: authority } }),
  );
  const destination = toBinary(
    GetDestinationSchema,
    create(GetDestinationSchema, { path: authority, contextToken: WORKLOAD }),
  );
  const fail = (error: Error): void => assert.fail(error.message);
  policyMethods(live).get("/io.linkerd.proxy.outbound.OutboundPolicies/Watch")!.watch!(
    outbound,
    { send: (bytes) => (policy = Buffer.from(bytes).toString("hex")), fail },
    call,
  );
  destinationMethods(live).get("/io.linkerd.proxy.destination.Destination/Get")!.watch!(
    destination,
    {
      send: (bytes) => {
        const { update } = fromBinary(UpdateSchema, bytes);
        if (update.case === "add")
          for (const one of update.value.addrs)
            endpoints.set(addressOf(one.addr), toJsonString(WeightedAddrSchema, one));
        else if (update.case === "remove")
          for (const one of update.value.addrs) endpoints.delete(addressOf(one));
        else endpoints.clear();
      },
      fail,
    },
    call,
  );
  return { policy: () => policy, endpoints: () => [...endpoints.values()].toSorted().join("\n") };
}

test("streams that live through changes have been told what new ones are", () => {
  const route = `---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: { name: r, namespace: shop }
spec: { parentRefs: [{ group: "", kind: Service, name: a }], rules: [{ backendRefs: [{ name: b, port: 80 }] }] }
`;
  fc.assert(
    fc.property(fc.array(fc.tuple(states, fc.boolean()), { minLength: 2, maxLength: 6 }), (steps) => {
      const live = new LiveView();
      const views = steps.map(([all, hasRoute]) => viewOf(all, hasRoute ? route : ""));
      live.publish(views[0]!);
      const names = ["a", "b"];
      const old = names.map((name) => toldOf(live, name));
      for (const view of views.slice(1)) {
        live.publish(shareUnchanged(live.current!, view));
        const anew = new LiveView();
        anew.publish(view);
        for (const [i, name] of names.entries()) {
          const { policy, endpoints } = toldOf(anew, name);
          assert.equal(old[i]!.policy(), policy());
          assert.equal(old[i]!.endpoints(), endpoints());
        }
      }
    }),
    { numRuns: 30 },
  );
});
