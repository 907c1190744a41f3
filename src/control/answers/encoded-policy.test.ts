import assert from "node:assert/strict";
import { test } from "node:test";
import { fromBinary } from "@bufbuild/protobuf";
import { OutboundPolicySchema } from "#/gen/linkerd/outbound_pb.ts";
import { gatewayObject, parent, PolicyWorld, service } from "../policy/testing.ts";
import type { MeshView } from "../services/mesh-view.ts";
import { encodedPolicyOf } from "./encoded-policy.ts";
import { StandardLosses } from "./standard-losses.ts";
import { targetOfService } from "./target.ts";

const SERVICES = service("web") + service("a");
const route = (name: string, namespace: string): string =>
  gatewayObject(
    "HTTPRoute",
    name,
    `{parentRefs: [${parent("web", ", namespace: shop")}], rules: [{filters: [{type: URLRewrite, urlRewrite: {hostname: ${name}}}], backendRefs: [{name: a, namespace: shop, port: 80}]}]}`,
    namespace,
  );
const FAULT = `---
apiVersion: pillion.dev/v1alpha1
kind: FaultPolicy
metadata: {name: drill, namespace: shop}
spec: {targetRefs: [{group: "", kind: Service, name: web}], from: [{namespace: shop, serviceAccount: cart}], faults: [{abort: {httpStatus: 418}}]}
`;

function ask(
  view: MeshView,
  namespace: string | null,
  serviceAccount = "default",
  isExtended = true,
  losses: StandardLosses = new StandardLosses(),
): Uint8Array {
  const target = targetOfService(view.servicesByName.get("shop/web")!, 80);
  const client = namespace === null ? null : { namespace, serviceAccount };
  return encodedPolicyOf(view, target, client, { isExtended }, losses);
}

/** The mesh after an endpoint has come or gone: all is new but what was compiled of the folder. */
function later(view: MeshView): MeshView {
  const services = [...view.servicesByName].map(
    ([key, one]) => [key, { ...one, ports: [...one.ports] }] as const,
  );
  return { ...view, servicesByName: new Map(services) };
}

test("clients that are told the same share one answer, until the folder changes and whatever endpoints do", () => {
  const { view } = new PolicyWorld(SERVICES + route("own", "shop") + route("theirs", "far"));
  const own = ask(view, "shop");
  for (const other of [ask(view, "other", "x"), ask(view, null), ask(later(view), "shop", "cart")])
    assert.equal(other, own);
  const theirs = ask(view, "far");
  assert.equal(ask(later(view), "far", "y"), theirs);
  assert.notDeepEqual(theirs, own);
  assert.notDeepEqual(ask(view, "shop", "default", false), own);
  const { view: changed } = new PolicyWorld(SERVICES + route("own", "shop"));
  assert.notEqual(ask(changed, "shop"), own);
});

test("a client that a fault is for is told of it, and no other", () => {
  const { view } = new PolicyWorld(SERVICES + FAULT);
  const faultsOf = (bytes: Uint8Array): number => {
    const { protocol } = fromBinary(OutboundPolicySchema, bytes);
    assert.ok(protocol?.kind.case === "http1" || protocol?.kind.case === "detect");
    const http = protocol.kind.case === "detect" ? protocol.kind.value.http1! : protocol.kind.value;
    return http.routes[0]!.rules[0]!.extensionFilters.length;
  };
  assert.equal(faultsOf(ask(view, "shop", "cart")), 1);
  for (const [namespace, account] of [
    ["shop", "default"],
    ["far", "cart"],
  ] as const)
    assert.equal(faultsOf(ask(view, namespace, account)), 0);
});

test("what other proxies lose is told of each state of the mesh, also where the answer is an earlier one's", () => {
  const { view } = new PolicyWorld(SERVICES + route("own", "shop"));
  const losses = new StandardLosses();
  ask(view, "shop", "default", false, losses);
  const object = { kind: "HTTPRoute", namespace: "shop", name: "own" };
  const said = losses.describe(object);
  assert.match(said, /rewrite/);
  losses.note({ ...view }, []);
  assert.equal(losses.describe(object), "");
  ask(later(view), "shop", "default", false, losses);
  assert.equal(losses.describe(object), said);
});
