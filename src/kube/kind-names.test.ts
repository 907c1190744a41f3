import assert from "node:assert/strict";
import { test } from "node:test";
import { kindNamed } from "./kind-names.ts";

test("a kind is known by its name in any case, its plural and kubectl's short names", () => {
  for (const [word, kind] of [
    ["httproute", "HTTPRoute"],
    ["HTTPRoutes", "HTTPRoute"],
    ["trafficpolicies", "TrafficPolicy"],
    ["xbackendtrafficpolicy", "XBackendTrafficPolicy"],
    ["svc", "Service"],
    ["authorizationpolicies", "AuthorizationPolicy"],
    ["authorizationpolicies.policy.linkerd.io", "AuthorizationPolicy.policy.linkerd.io"],
    ["AuthorizationPolicy.policy.linkerd.io", "AuthorizationPolicy.policy.linkerd.io"],
    ["server", "Server"],
    ["service.policy.linkerd.io", null],
    ["namespaces", "Namespace"],
    ["gateway", null],
    ["", null],
  ] as const)
    assert.equal(kindNamed(word), kind, word);
});
