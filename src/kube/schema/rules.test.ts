import assert from "node:assert/strict";
import { test } from "node:test";
import { describeProblem, loadFile } from "../folder.ts";
import { KINDS } from "./kinds.ts";
import { checkRule, rulesIn } from "./rules.ts";

/** `field reason` of each violation. */
function problems(spec: string, apiVersion = "gateway.networking.k8s.io/v1", kind = "HTTPRoute"): string[] {
  const text = `{apiVersion: ${apiVersion}, kind: ${kind}, metadata: {name: r}, spec: ${spec}}`;
  return loadFile({ path: "r.yaml", text }).problems.map((problem) => {
    assert.match(describeProblem(problem), /^r\.yaml:1: /);
    return `${problem.field} ${problem.reason}`;
  });
}

test("every rule of the published schemas can be evaluated", () => {
  const rules = new Set(Object.values(KINDS).flatMap(rulesIn));
  assert.ok(rules.size >= 70, String(rules.size));
  for (const rule of rules) assert.equal(checkRule(rule), null, rule);
});

const header = "{type: RequestHeaderModifier, requestHeaderModifier: {set: [{name: a, value: b}]}}";
const redirect = "{type: RequestRedirect, requestRedirect: {port: 80}}";
const rewrite = "{type: URLRewrite, urlRewrite: {hostname: a.example}}";

test("what a cluster refuses by a rule is refused here, in the rule's words", () => {
  for (const [spec, expected] of [
    [
      `{rules: [{filters: [${header}, ${header}]}]}`,
      /^spec\.rules\[0\]\.filters is refused: RequestHeaderModifier filter cannot be repeated$/,
    ],
    [
      `{rules: [{filters: [${redirect}, ${rewrite}]}]}`,
      /filters is refused: May specify either httpRouteFilterRequestRedirect or httpRouteFilterRequestRewrite, but not both/,
    ],
    [
      `{rules: [{filters: [${redirect}], backendRefs: [{name: a, port: 1}]}]}`,
      /rules\[0\] is refused: RequestRedirect filter must not be used together with backendRefs/,
    ],
    [
      "{rules: [{matches: [{path: {value: a}}]}]}",
      /matches\[0\]\.path is refused: value must be an absolute path/,
    ],
    ["{rules: [{matches: [{path: {value: /a//b}}]}]}", /must not contain '\/\/'/],
    [
      "{rules: [{timeouts: {request: 1s, backendRequest: 2s}}]}",
      /timeouts is refused: backendRequest timeout cannot be longer/,
    ],
    ["{rules: [{name: a}, {name: a}]}", /Rule name must be unique/],
    [
      "{rules: [{backendRefs: [{name: a}]}]}",
      /backendRefs\[0\] is refused: Must have port for Service reference/,
    ],
    ["{rules: [{filters: [{type: CORS}]}]}", /filter\.cors must be specified/],
    [
      '{parentRefs: [{group: "", kind: Service, name: a}, {group: "", kind: Service, name: a}]}',
      /parentRefs is refused: sectionName or port must be unique/,
    ],
  ] as const)
    assert.match(problems(spec).join("\n"), expected, spec);
});

test("the structure is checked with hints: unknown fields, bounds, forms", () => {
  for (const [spec, expected] of [
    ["{rules: [{match: []}]}", "spec.rules[0].match unknown field; did you mean matches?"],
    [
      "{rules: [{backendRefs: [{name: a, port: 1, weight: 1000001}]}]}",
      "spec.rules[0].backendRefs[0].weight must be at most 1000000",
    ],
    [
      "{rules: [{timeouts: {request: 1d}}]}",
      'spec.rules[0].timeouts.request "1d" has not the right form; it must match ^([0-9]{1,5}(h|m|s|ms)){1,4}$',
    ],
    [
      `{rules: [{matches: [{path: {type: RegularExpression, value: ${"a".repeat(1025)}}}]}]}`,
      "spec.rules[0].matches[0].path.value is too long; at most 1024 characters are allowed",
    ],
  ] as const)
    assert.deepEqual(problems(spec), [expected]);
});

test("defaults of the schemas are filled in", () => {
  const { objects } = loadFile({
    path: "r.yaml",
    text: "{apiVersion: gateway.networking.k8s.io/v1beta1, kind: HTTPRoute, metadata: {name: r}, spec: {parentRefs: [{name: g}], rules: [{backendRefs: [{name: a, port: 1}]}]}}",
  });
  const { object } = objects[0]!;
  assert.ok(object.kind === "HTTPRoute");
  assert.deepEqual(object.spec.parentRefs, [
    { group: "gateway.networking.k8s.io", kind: "Gateway", name: "g" },
  ]);
  assert.deepEqual(object.spec.rules, [
    {
      matches: [{ path: { type: "PathPrefix", value: "/" } }],
      backendRefs: [{ group: "", kind: "Service", name: "a", port: 1, weight: 1 }],
    },
  ]);
});

test("rules of other kinds: gRPC methods, server names, external backends, retry budgets", () => {
  const grpc = "gateway.networking.k8s.io/v1";
  const extended = "gateway.networking.x-k8s.io/v1alpha1";
  for (const [spec, apiVersion, kind, expected] of [
    ["{rules: [{matches: [{method: {service: a.B}}]}]}", grpc, "GRPCRoute", /^$/],
    [
      '{rules: [{matches: [{method: {service: "a b"}}]}]}',
      grpc,
      "GRPCRoute",
      /service must only contain valid characters/,
    ],
    [
      "{hostnames: [192.0.2.1], rules: [{backendRefs: [{name: a, port: 1}]}]}",
      grpc,
      "TLSRoute",
      /Hostnames cannot contain an IP/,
    ],
    ["{hostnames: [a.example], rules: [{backendRefs: [{name: a, port: 1}]}]}", grpc, "TLSRoute", /^$/],
    [
      "{type: ExternalHostname, port: {port: 443, name: A_b}, externalHostname: {hostname: a.example}}",
      extended,
      "XBackend",
      /Name must be a valid DNS label/,
    ],
    ["{type: ExternalHostname, port: {port: 443}}", extended, "XBackend", /externalHostname must be set/],
    [
      '{targetRefs: [{group: "", kind: Service, name: a}], retryConstraint: {budget: {interval: 2h}}}',
      extended,
      "XBackendTrafficPolicy",
      /interval cannot be greater than one hour/,
    ],
  ] as const)
    assert.match(problems(spec, apiVersion, kind).join("\n"), expected, spec);
});
