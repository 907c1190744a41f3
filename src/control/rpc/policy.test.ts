import assert from "node:assert/strict";
import { test } from "node:test";
import { create, fromBinary, toBinary } from "@bufbuild/protobuf";
import { parseIp } from "#/base/address.ts";
import { PortSpecSchema } from "#/gen/linkerd/inbound_pb.ts";
import type { OutboundPolicy } from "#/gen/linkerd/outbound_pb.ts";
import { OutboundPolicySchema, TrafficSpecSchema } from "#/gen/linkerd/outbound_pb.ts";
import { withCapabilities } from "#/model/capabilities.ts";
import { GrpcStatus } from "#/wire/grpc.ts";
import { StandardLosses } from "../answers/standard-losses.ts";
import type { MeshView, ViewPod } from "../services/mesh-view.ts";
import { gatewayObject, parent, PolicyWorld, service } from "../policy/testing.ts";
import { LiveView } from "./live-view.ts";
import { policyMethods } from "./policy.ts";
import type { CallContext } from "./server.ts";
import { RpcError } from "./status.ts";

const ROUTE = (weight: number): string =>
  gatewayObject(
    "HTTPRoute",
    "web",
    `{parentRefs: [${parent("web")}], rules: [{filters: [{type: URLRewrite, urlRewrite: {hostname: h}}], backendRefs: [{name: a, port: 80, weight: ${weight}}, {name: b, port: 80, weight: 1}]}]}`,
  );
const SERVICES = service("web") + service("a") + service("b");

/** What is answered to a client, as the names of what comes: a message's bytes, or a status. */
function watch(
  live: LiveView,
  method: string,
  request: Uint8Array,
  caller: CallContext["caller"],
  losses: StandardLosses = new StandardLosses(),
): unknown[] {
  const got: unknown[] = [];
  const fail = (error: unknown): void => {
    assert.ok(error instanceof RpcError, String(error));
    got.push(error.status);
  };
  try {
    policyMethods(live, losses).get(`/io.linkerd.proxy.${method}`)!.watch!(
      request,
      { send: (bytes) => void got.push(bytes), fail },
      { caller, isTrusted: caller === null, peer: "test" },
    );
  } catch (error) {
    fail(error);
  }
  return got;
}

function ask(workload: string, service: string): Uint8Array {
  return toBinary(
    TrafficSpecSchema,
    create(TrafficSpecSchema, {
      sourceWorkload: workload,
      target: { case: "authority", value: `${service}.shop.svc.cluster.local:80` },
    }),
  );
}

function callerIn(namespace: string, serviceAccount = "web"): CallContext["caller"] {
  return { identity: { trustDomain: "cluster.local", namespace, serviceAccount }, form: "dns" };
}

function liveOf(yaml: string): LiveView {
  const live = new LiveView();
  live.publish(viewOf(yaml));
  return live;
}

function viewOf(yaml: string): MeshView {
  const { view } = new PolicyWorld(yaml);
  const pod = {
    namespace: "shop",
    name: "web-0",
    identity: { trustDomain: "cluster.local", namespace: "shop", serviceAccount: "web" },
    workload: null,
    ip: "10.201.0.9",
    opaquePorts: [],
    ports: [],
    probes: [],
    grpcProbePorts: [],
    tcpProbePorts: [],
    inboundDefault: null,
    protocols: new Map(),
  } as unknown as ViewPod;
  return { ...view, podsByName: new Map([["shop/web-0", pod]]) };
}

const OUTBOUND = "outbound.OutboundPolicies/Watch";
const WORKLOAD = '{"ns":"shop","pod":"web-0"}';

test("a workload is told its own policy only", () => {
  const live = liveOf(SERVICES + ROUTE(1));
  const port = toBinary(PortSpecSchema, create(PortSpecSchema, { workload: WORKLOAD, port: 80 }));
  const inbound = "inbound.InboundServerPolicies/WatchPort";
  assert.ok(watch(live, inbound, port, callerIn("shop"))[0] instanceof Uint8Array);
  assert.ok(watch(live, OUTBOUND, ask(WORKLOAD, "web"), callerIn("shop"))[0] instanceof Uint8Array);
  for (const caller of [callerIn("other"), callerIn("shop", "other")]) {
    assert.deepEqual(watch(live, inbound, port, caller), [GrpcStatus.PERMISSION_DENIED]);
    assert.deepEqual(watch(live, OUTBOUND, ask(WORKLOAD, "web"), caller), [GrpcStatus.PERMISSION_DENIED]);
  }
  const elsewhere = ask('{"ns":"other","pod":"x"}', "web");
  assert.deepEqual(watch(live, OUTBOUND, elsewhere, callerIn("shop")), [GrpcStatus.PERMISSION_DENIED]);
});

test("a sidecar gets what it says that it knows, another proxy what standard fields can say", () => {
  const live = liveOf(SERVICES + ROUTE(1));
  const ruleOf = (workload: string) => {
    const [bytes] = watch(live, OUTBOUND, ask(workload, "web"), null);
    const { protocol } = fromBinary(OutboundPolicySchema, bytes as Uint8Array);
    assert.ok(protocol?.kind.case === "detect" || protocol?.kind.case === "http1");
    const { routes } = protocol.kind.case === "detect" ? protocol.kind.value.http1! : protocol.kind.value;
    return routes[0]!.rules[0]!;
  };
  assert.equal(ruleOf(withCapabilities(WORKLOAD)).extensionFilters[0]?.kind.case, "rewrite");
  assert.equal(ruleOf(WORKLOAD).extensionFilters.length, 0);
  assert.equal(ruleOf(WORKLOAD).filters[0]?.kind.case, "failureInjector");
});

test("egress by host is kept by another proxy too, or refused; what is only audited it forwards", () => {
  const policyOf = (mode: string, workload: string, port: number): OutboundPolicy => {
    const live = liveOf(
      `apiVersion: pillion.dev/v1alpha1\nkind: EgressPolicy\nmetadata: {name: e, namespace: shop}\nspec: {mode: ${mode}, allow: [{hosts: [api.example]}]}\n`,
    );
    const addr = { ip: { ip: { case: "ipv4", value: 0xc0000201 } }, port } as const;
    const spec = create(TrafficSpecSchema, {
      sourceWorkload: workload,
      target: { case: "addr", value: addr },
    });
    const [bytes] = watch(live, OUTBOUND, toBinary(TrafficSpecSchema, spec), null);
    return fromBinary(OutboundPolicySchema, bytes as Uint8Array);
  };
  const http = policyOf("Deny", WORKLOAD, 80).protocol!.kind;
  assert.ok(http.case === "detect");
  for (const { routes } of [http.value.http1!, http.value.http2!]) {
    assert.deepEqual(
      routes.map(({ hosts }) => hosts.map(({ match }) => match.value)),
      [["api.example"], []],
    );
    const [failure] = routes[1]!.rules[0]!.filters;
    assert.ok(failure?.kind.case === "failureInjector");
    assert.equal(failure.kind.value.status, 403);
  }
  // It cannot tell names in bytes that might be anything.
  assert.deepEqual(
    http.value.opaque!.routes.map(({ rules }) => rules[0]!.filters.map(({ kind }) => kind.case)),
    [["forbidden"]],
  );
  const tls = policyOf("Deny", WORKLOAD, 443).protocol!.kind;
  assert.ok(tls.case === "tls");
  assert.deepEqual(
    tls.value.routes.map(({ snis, rules }) => [
      snis.map(({ match }) => match.value),
      rules[0]!.filters.map(({ kind }) => kind.case),
    ]),
    [
      [["api.example"], []],
      [[], ["forbidden"]],
    ],
  );
  for (const port of [80, 443]) {
    const { metadata } = policyOf("Audit", WORKLOAD, port);
    assert.deepEqual(metadata!.kind, { case: "default", value: "egress-fallback" });
    const { kind } = policyOf("Audit", withCapabilities(WORKLOAD), port).protocol!;
    assert.ok(kind.case === "detect");
    assert.deepEqual(
      kind.value.opaque!.routes.map(({ snis, rules }) => [snis.length, rules[0]!.filters.length]),
      [
        [1, 0],
        [0, 0],
      ],
    );
  }
});

test("a stream hears of changes that concern it, and of no others", () => {
  const live = liveOf(SERVICES + ROUTE(1));
  const web = watch(live, OUTBOUND, ask(WORKLOAD, "web"), null);
  const other = watch(live, OUTBOUND, ask(WORKLOAD, "a"), null);
  const mine = withCapabilities(WORKLOAD);
  const extended = watch(live, OUTBOUND, ask(mine, "web"), null);
  for (let weight = 1; weight <= 20; weight++) live.publish(viewOf(SERVICES + ROUTE(weight)));
  assert.deepEqual([web.length, extended.length, other.length], [1, 20, 1]);
});

test("the object whose rule is refused says so for as long as such a proxy listens", () => {
  const live = liveOf(SERVICES + ROUTE(1));
  const losses = new StandardLosses();
  const route = { kind: "HTTPRoute", namespace: "shop", name: "web" };
  watch(live, OUTBOUND, ask(withCapabilities(WORKLOAD), "web"), null, losses);
  assert.equal(losses.describe(route), "");
  watch(live, OUTBOUND, ask(WORKLOAD, "web"), null, losses);
  const said = "proxies of another kind refuse these requests: they cannot rewrite URLs";
  assert.equal(losses.describe(route), said);
  live.publish(viewOf(SERVICES + ROUTE(2)));
  assert.equal(losses.describe(route), said);
  live.publish(viewOf(SERVICES));
  assert.equal(losses.describe(route), "");
});

test("a pod hears of its own ports what changes about them, whatever else does", () => {
  const live = liveOf(SERVICES);
  const request = toBinary(
    PortSpecSchema,
    create(PortSpecSchema, { workload: withCapabilities(WORKLOAD), port: 80 }),
  );
  const got = watch(live, "inbound.InboundServerPolicies/WatchPort", request, null);
  const view = live.current!;
  const web = view.podsByName.get("shop/web-0")!;
  const publish = (change: Partial<ViewPod>, policy: MeshView["policy"] = view.policy): void =>
    live.publish({ ...view, policy, podsByName: new Map([["shop/web-0", { ...web, ...change }]]) });
  const ip = parseIp("10.201.0.10")!;
  const counts = [got.length];
  const told = (): void => void counts.push(got.length);
  publish({ isReady: false });
  told();
  publish({ ip });
  told();
  publish({ ip, protocols: new Map([[80, "http1"]]) });
  told();
  const opaquePorts = [{ from: 80, to: 80 }];
  publish({ ip, opaquePorts });
  told();
  const limits = "{selector: {}, rates: [{requests: 5}]}";
  const limited = gatewayObject("RateLimitPolicy", "all", limits).replace(
    "gateway.networking.k8s.io/v1",
    "pillion.dev/v1alpha1",
  );
  publish({}, viewOf(SERVICES + limited).policy);
  told();
  assert.deepEqual(counts, [1, 1, 2, 3, 4, 5]);
});
