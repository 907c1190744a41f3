import assert from "node:assert/strict";
import { test } from "node:test";
import type { IpAddress } from "#/base/address.ts";
import { endpointSet } from "../rpc/destination.ts";
import type { MeshView } from "../services/mesh-view.ts";
import { gatewayObject, parent, PolicyWorld, service } from "./testing.ts";

const PEM = "-----BEGIN CERTIFICATE-----\\nAAAA\\n-----END CERTIFICATE-----\\n";
const CA = `---\napiVersion: v1\nkind: ConfigMap\nmetadata: {name: roots, namespace: shop}\ndata: {ca.crt: "${PEM}"}\n`;
const SYSTEM = "{mode: ServerOnly, validation: {hostname: api.example, wellKnownCACertificates: System}}";

function external(name: string, more: string): string {
  return `---\napiVersion: gateway.networking.x-k8s.io/v1alpha1\nkind: XBackend\nmetadata: {name: ${name}, namespace: shop}\nspec: {type: ExternalHostname, externalHostname: {hostname: api.example}, port: {port: 443}, ${more}}\n`;
}

function route(name: string, port = 443): string {
  const ref = `{group: gateway.networking.x-k8s.io, kind: XBackend, name: ${name}, port: ${port}}`;
  return gatewayObject(
    "HTTPRoute",
    "r",
    `{parentRefs: [${parent("web")}], rules: [{backendRefs: [${ref}]}]}`,
  );
}

function resolved(world: PolicyWorld): MeshView {
  const ips = ["192.0.2.1", "192.0.2.2"] as readonly string[] as readonly IpAddress[];
  return { ...world.view, outsideAddresses: new Map([["api.example", ips]]) };
}

test("a route's XBackend is discovered by a name of its own, with the TLS that it asks for", () => {
  const world = new PolicyWorld(service("web") + external("api", `tls: ${SYSTEM}`) + route("api"));
  const backend = world.ask("shop/web").http[0]!.rules[0]!.backends[0]!.backend;
  assert.ok(backend.kind === "balancer");
  assert.equal(backend.path, "api.shop.xbackend.cluster.local:443");
  assert.deepEqual(world.conditions("XBackend", "shop/api"), [""]);
  const set = endpointSet(resolved(world), "api.shop.xbackend.cluster.local", 443, true);
  assert.deepEqual([...set.endpoints.keys()], ["192.0.2.1:443", "192.0.2.2:443"]);
  for (const { message } of set.endpoints.values()) {
    assert.equal(message.originateTls?.serverName, "api.example");
    assert.equal(message.originateTls.caPem, "");
  }
});

test("a proxy that begins no TLS is told of no endpoint that needs it, and of those that do not", () => {
  const view = resolved(
    new PolicyWorld(external("tls", `tls: ${SYSTEM}`) + external("plain", "protocol: HTTP")),
  );
  const count = (name: string, isExtended: boolean): number =>
    endpointSet(view, `${name}.shop.xbackend.cluster.local`, 443, isExtended).endpoints.size;
  assert.deepEqual([count("tls", false), count("tls", true)], [0, 2]);
  assert.deepEqual([count("plain", false), count("plain", true)], [2, 2]);
  assert.equal(endpointSet(view, "gone.shop.xbackend.cluster.local", 443, true).exists, false);
});

test("roots of a ConfigMap are the only ones, and the name is that of the validation", () => {
  const validation =
    '{hostname: other.example, caCertificateRefs: [{group: "", kind: ConfigMap, name: roots}]}';
  const world = new PolicyWorld(CA + external("api", `tls: {mode: ServerOnly, validation: ${validation}}`));
  const entry = world.view.policy.externals.get("shop/api");
  assert.ok(entry?.kind === "backend");
  assert.equal(entry.backend.tls?.serverName, "other.example");
  assert.match(entry.backend.tls.caPem, /^-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n$/);
});

test("what cannot be kept is refused as a whole, and its share of requests gets an error", () => {
  const refs = (ref: string): string =>
    `tls: {mode: ServerOnly, validation: {hostname: api.example, caCertificateRefs: [${ref}]}}`;
  for (const [spec, reason, message] of [
    ["protocol: MCP", "UnsupportedValue", /spec\.protocol MCP is not spoken/],
    [`protocol: H2C, tls: ${SYSTEM}`, "UnsupportedValue", /H2C is HTTP\/2 without TLS/],
    [
      "tls: {mode: ClientAndServer, clientCertificateRef: {name: s}}",
      "UnsupportedValue",
      /client certificates/,
    ],
    [refs('{group: "", kind: Secret, name: s}'), "InvalidKind", /must be a ConfigMap, not a Secret/],
    [
      refs('{group: "", kind: ConfigMap, name: gone}'),
      "InvalidCACertificateRef",
      /shop\/gone does not exist/,
    ],
    [
      "tls: {mode: ServerOnly, validation: {hostname: api.example, wellKnownCACertificates: System, subjectAltNames: [{type: Hostname, hostname: b.example}]}}",
      "UnsupportedValue",
      /other names than hostname/,
    ],
  ] as const) {
    const world = new PolicyWorld(service("web") + external("api", spec) + route("api"));
    assert.deepEqual(world.conditions("XBackend", "shop/api"), [`Accepted=False (${reason})`], spec);
    assert.match(world.problems.join("\n"), message);
    const [one] = world.ask("shop/web").http[0]!.rules[0]!.backends;
    assert.equal(one?.backend.kind, "forbidden", spec);
  }
});

test("a reference to no XBackend, or to another port of it, is told", () => {
  const api = service("web") + external("api", `tls: ${SYSTEM}`);
  for (const [text, expected] of [
    [api + route("gone"), /XBackend shop\/gone does not exist/],
    [api + route("api", 80), /XBackend shop\/api has port 443/],
  ] as const)
    assert.match(new PolicyWorld(text).problems.join("\n"), expected);
});
