import assert from "node:assert/strict";
import { test } from "node:test";
import { create, toBinary } from "@bufbuild/protobuf";
import { parseIp } from "#/base/address.ts";
import { VirtualClock } from "#/base/virtual-clock.ts";
import { PortSpecSchema } from "#/gen/linkerd/inbound_pb.ts";
import { TrafficSpecSchema } from "#/gen/linkerd/outbound_pb.ts";
import { LeaseRequestSchema } from "#/gen/pillion/quota_pb.ts";
import { ConfirmRequestSchema, WatchRequestSchema } from "#/gen/pillion/trust_pb.ts";
import { GrpcStatus } from "#/wire/grpc.ts";
import type { Authority } from "../identity/authority.ts";
import type { JwtAuthority } from "../identity/jwt-authority.ts";
import type { Trusting } from "../identity/trusting.ts";
import { PolicyWorld, service } from "../policy/testing.ts";
import type { ViewPod } from "../services/mesh-view.ts";
import { destinationMethods } from "./destination.ts";
import { LiveView } from "./live-view.ts";
import { policyMethods } from "./policy.ts";
import { quotaMethods } from "./quota.ts";
import type { CallContext } from "./server.ts";
import { RpcError } from "./status.ts";
import { svidMethods } from "./svid.ts";
import { trustMethods } from "./trust.ts";

const WORKLOAD = '{"ns":"shop","pod":"web-0"}';
const PORT = toBinary(PortSpecSchema, create(PortSpecSchema, { workload: WORKLOAD, port: 80 }));
const TARGET = toBinary(
  TrafficSpecSchema,
  create(TrafficSpecSchema, {
    sourceWorkload: WORKLOAD,
    target: { case: "authority", value: "web.shop.svc.cluster.local:80" },
  }),
);

/** What names a workload in its question. */
const OF_A_WORKLOAD: Readonly<Record<string, Uint8Array>> = {
  "/io.linkerd.proxy.inbound.InboundServerPolicies/GetPort": PORT,
  "/io.linkerd.proxy.inbound.InboundServerPolicies/WatchPort": PORT,
  "/io.linkerd.proxy.outbound.OutboundPolicies/Get": TARGET,
  "/io.linkerd.proxy.outbound.OutboundPolicies/Watch": TARGET,
  "/dev.pillion.quota.Quota/Lease": toBinary(
    LeaseRequestSchema,
    create(LeaseRequestSchema, { workload: WORKLOAD }),
  ),
  "/dev.pillion.trust.Trust/Watch": toBinary(
    WatchRequestSchema,
    create(WatchRequestSchema, { workload: WORKLOAD }),
  ),
  "/dev.pillion.trust.Trust/Confirm": toBinary(
    ConfirmRequestSchema,
    create(ConfirmRequestSchema, { workload: WORKLOAD }),
  ),
};

/** What names none: whoever is of the mesh is told the same, or it is about who asks. */
const OF_NO_WORKLOAD: ReadonlySet<string> = new Set([
  "/io.linkerd.proxy.destination.Destination/Get",
  "/io.linkerd.proxy.destination.Destination/GetProfile",
  "/dev.pillion.svid.Svid/SignJwt",
  "/dev.pillion.svid.Svid/WatchJwtBundles",
]);

function methods() {
  const { view } = new PolicyWorld(service("web"));
  const pod = {
    uid: "web-0",
    namespace: "shop",
    name: "web-0",
    labels: {},
    identity: { trustDomain: "cluster.local", namespace: "shop", serviceAccount: "web" },
    workload: null,
    ip: parseIp("10.201.0.9"),
    opaquePorts: [],
    ports: [],
    probes: [],
    grpcProbePorts: [],
    tcpProbePorts: [],
    inboundDefault: null,
    protocols: new Map(),
  } as unknown as ViewPod;
  const live = new LiveView();
  live.publish({ ...view, podsByName: new Map([["shop/web-0", pod]]) });
  const bundle = { sequence: 1, trustDomain: "cluster.local", authorities: [], issuer: "" };
  const authority = { bundle, listen: () => () => undefined } as unknown as Authority;
  const trusting = { watches: () => undefined, confirms: () => undefined } as unknown as Trusting;
  const log = { info: () => undefined } as never;
  return new Map([
    ...destinationMethods(live),
    ...policyMethods(live),
    ...trustMethods(live, authority, trusting),
    ...quotaMethods(live, new VirtualClock(), () => null),
    ...svidMethods({} as JwtAuthority, () => true, log),
  ]);
}

async function answer(method: string, request: Uint8Array, caller: CallContext["caller"]): Promise<string> {
  const handler = methods().get(method)!;
  const call: CallContext = { caller, isTrusted: false, peer: "test" };
  let failed: string | null = null;
  const fail = (error: unknown): void => {
    assert.ok(error instanceof RpcError, String(error));
    failed = error.status === GrpcStatus.PERMISSION_DENIED ? "denied" : error.message;
  };
  try {
    if (handler.unary !== undefined) await handler.unary(request, call);
    else handler.watch!(request, { send: () => undefined, fail }, call);
  } catch (error) {
    fail(error);
  }
  return failed ?? "answered";
}

test("every call is known to be about a workload, or about none", () => {
  for (const [method, { isOpen }] of methods()) {
    assert.notEqual(method in OF_A_WORKLOAD, OF_NO_WORKLOAD.has(method), method);
    assert.equal(isOpen, false, `${method} is for those of the mesh alone`);
  }
});

test("what is about a workload is answered to that workload alone, by each call", async () => {
  const callerIn = (namespace: string, serviceAccount: string, trustDomain = "cluster.local") => ({
    identity: { trustDomain, namespace, serviceAccount },
    form: "dns" as const,
  });
  for (const [method, request] of Object.entries(OF_A_WORKLOAD)) {
    assert.equal(await answer(method, request, callerIn("shop", "web")), "answered", method);
    for (const other of [
      callerIn("shop", "api"),
      callerIn("desk", "web"),
      callerIn("shop", "web", "other.example"),
    ])
      assert.equal(await answer(method, request, other), "denied", method);
  }
});
