import assert from "node:assert/strict";
import { test } from "node:test";
import { describeProblem, loadFile, loadFolder } from "./folder.ts";
import { shownKind } from "./objects.ts";

function problems(kind: string, spec: string, apiVersion = "pillion.dev/v1alpha1", annotations = ""): string {
  const text = `apiVersion: ${apiVersion}\nkind: ${kind}\nmetadata: {name: p, annotations: {${annotations}}}\nspec: ${spec}\n`;
  return loadFile({ path: "p.yaml", text }).problems.map(describeProblem).join("\n");
}

const WEB = '{group: "", kind: Service, name: web}';

function policy(more: string, targets = WEB, action = "DENY"): string {
  return `{targetRefs: [${targets}], action: ${action}${more}}`;
}

function rule(text: string): string {
  return policy(`, rules: [${text}]`);
}

test("an AuthorizationPolicy that is whole is taken", () => {
  for (const spec of [
    policy(""),
    policy(", rules: []", '{group: "", kind: Pod, selector: {}}', "ALLOW"),
    policy(
      ", mode: Audit, enforcementLevel: Network",
      '{group: "", kind: Namespace}, {group: "", kind: Service, name: a}',
    ),
    policy("", '{group: "", kind: Namespace, name: default}', "AUDIT"),
    policy("", "{group: gateway.networking.k8s.io, kind: GRPCRoute, name: r}"),
    rule("{name: r, sources: [], requests: [], networkAttributes: {ports: [80]}}"),
    rule('{sources: [{type: ServiceAccount, serviceAccount: {name: "*"}, cidrs: [10.0.0.0/8]}]}'),
    rule(
      '{sources: [{type: SPIFFE, spiffe: "spiffe://a.b/ns/c/sa/d"}, {type: CIDR, cidr: "fd00::/8", except: ["fd00::/16"]}]}',
    ),
    rule(
      "{requests: [{methods: [get, M-SEARCH], hosts: [a.example, '*.example'], grpc: [{service: a.B}, {}], headers: [{name: x, value: ''}]}]}",
    ),
    rule(
      "{requests: [{paths: [{type: RegularExpression, value: '/a/[0-9]+'}], claims: [{claim: a.b, values: [x]}]}]}",
    ),
  ])
    assert.equal(problems("AuthorizationPolicy", spec), "", spec);
});

test("parts of an AuthorizationPolicy must agree with each other", () => {
  for (const [spec, expected] of [
    [policy(", mode: Maybe"), /spec\.mode must be one of "Enforce", "Audit"/],
    [policy(", mode: Audit", WEB, "AUDIT"), /spec\.mode has no effect with action: AUDIT/],
    [policy("", '{group: "", kind: Pod}'), /selector is missing/],
    [policy("", '{group: "", kind: Pod, selector: {}, name: a}'), /name is not for kind: Pod/],
    [policy("", `{group: "", kind: Pod, selector: {}}, ${WEB}`), /targetRefs\[0\] must be the only target/],
    [policy("", '{group: "", kind: Service}'), /targetRefs\[0\] name is missing/],
    [policy("", '{group: "", kind: Service, name: a, selector: {}}'), /selector is for kind: Pod only/],
    [policy("", '{group: "", kind: Namespace, name: other}'), /name must be default, the policy's own/],
    [policy("", '{group: "", kind: HTTPRoute, name: a}'), /group must be "gateway\.networking\.k8s\.io"/],
    [policy("", `${WEB}, ${WEB}`), /targetRefs\[1\] is listed twice/],
    [
      policy(", enforcementLevel: Network", "{group: gateway.networking.k8s.io, kind: HTTPRoute, name: a}"),
      /HTTPRoute contradicts enforcementLevel: Network/,
    ],
    [policy(", enforcementLevel: Network, rules: [{requests: []}]"), /requests contradicts enforcementLevel/],
    [policy(", rules: [{name: a}, {name: a}]"), /rules\[1\]\.name a is used twice/],
    [rule("{sources: [{type: ServiceAccount}]}"), /sources\[0\] serviceAccount is missing/],
    [rule("{sources: [{type: Authenticated, namespace: a}]}"), /namespace is not for type: Authenticated/],
    [rule("{sources: [{type: SPIFFE, spiffe: 'spiffe://a/b'}]}"), /spiffe must be of the form/],
    [rule("{sources: [{type: CIDR, cidr: 10.0.0.0/8, cidrs: [10.0.0.0/8]}]}"), /cidrs says the same as cidr/],
    [
      rule("{sources: [{type: Namespace, namespace: a, except: [10.0.0.0/8]}]}"),
      /except is for type: CIDR only/,
    ],
    [rule("{requests: [{methods: []}]}"), /methods must not be empty/],
    [rule("{requests: [{paths: [{type: Exact, value: /a}], grpc: [{}]}]}"), /grpc says the same as paths/],
    [rule("{requests: [{paths: [{type: PathPrefix, value: a}]}]}"), /value must begin with \//],
    [rule("{requests: [{paths: [{type: Exact, value: '/a?b'}]}]}"), /without \? and #/],
    [
      rule("{requests: [{paths: [{type: RegularExpression, value: '('}]}]}"),
      /regular expression \( cannot be used/,
    ],
    [rule("{requests: [{headers: [{name: A, value: a}, {name: a, value: b}]}]}"), /a is listed twice/],
    [rule("{from: []}"), /unknown field/],
  ] as const)
    assert.match(problems("AuthorizationPolicy", spec), expected, spec);
});

test("Linkerd's kinds are read as they are, and what they cannot mean is refused", () => {
  const linkerd = (kind: string, spec: string, version = "v1alpha1"): string =>
    problems(kind, spec, `policy.linkerd.io/${version}`);
  const target = "targetRef: {group: policy.linkerd.io, kind: Server, name: a}";
  const network = "{group: policy.linkerd.io, kind: NetworkAuthentication, name: a}";
  for (const [kind, spec, version] of [
    ["Server", "{podSelector: {}, port: http, proxyProtocol: gRPC, accessPolicy: audit}", "v1beta3"],
    ["Server", "{podSelector: {matchLabels: {a: b}}, port: 80}", "v1beta1"],
    ["AuthorizationPolicy", `{${target}, requiredAuthenticationRefs: [${network}]}`, "v1alpha1"],
    ["MeshTLSAuthentication", "{identities: ['*']}", "v1alpha1"],
    ["NetworkAuthentication", "{networks: [{cidr: 10.0.0.1, except: [10.0.0.0/30]}]}", "v1alpha1"],
    ["ServerAuthorization", "{server: {selector: {}}, client: {unauthenticated: true}}", "v1beta1"],
  ] as const)
    assert.equal(linkerd(kind, spec, version), "", kind);
  for (const [kind, spec, expected, version] of [
    ["Server", "{podSelector: {}, port: 80, accessPolicy: open}", /accessPolicy must be one of/, "v1beta3"],
    ["Server", "{podSelector: {}, port: 80}", /has apiVersion policy\.linkerd\.io\/v1beta1/, "v1"],
    ["AuthorizationPolicy", `{${target}, requiredAuthenticationRefs: []}`, /must not be empty/, "v1alpha1"],
    [
      "AuthorizationPolicy",
      `{${target}, requiredAuthenticationRefs: [${network}, ${network}]}`,
      /is a second NetworkAuthentication/,
      "v1alpha1",
    ],
    ["AuthorizationPolicy", policy(""), /targetRef is missing|unknown field/, "v1alpha1"],
    ["MeshTLSAuthentication", "{}", /must have identities or identityRefs/, "v1alpha1"],
    [
      "ServerAuthorization",
      "{server: {name: a}, client: {}}",
      /must have unauthenticated: true or meshTLS/,
      "v1beta1",
    ],
    [
      "ServerAuthorization",
      "{server: {}, client: {unauthenticated: true}}",
      /must have either name or selector/,
      "v1beta1",
    ],
    ["NetworkAuthentication", "{networks: []}", /must not be empty/, "v1alpha1"],
  ] as const)
    assert.match(linkerd(kind, spec, version), expected, `${kind} ${spec}`);
});

test("two kinds of one name are kept apart by their group", () => {
  const text = `apiVersion: pillion.dev/v1alpha1
kind: AuthorizationPolicy
metadata: {name: web}
spec: ${policy("")}
---
apiVersion: policy.linkerd.io/v1alpha1
kind: AuthorizationPolicy
metadata: {name: web}
spec: {targetRef: {kind: Server, name: a}, requiredAuthenticationRefs: [{kind: ServiceAccount, name: a}]}
`;
  const { objects, problems: found } = loadFolder([{ path: "p.yaml", text }], new Map());
  assert.deepEqual(found, []);
  assert.deepEqual(
    [...objects].map(([key, { object }]) => [key, shownKind(object)]),
    [
      ["AuthorizationPolicy/default/web", "AuthorizationPolicy"],
      ["AuthorizationPolicy.linkerd/default/web", "AuthorizationPolicy.policy.linkerd.io"],
    ],
  );
});

test("the default for a port is one of Linkerd's words", () => {
  const annotated = (value: string): string => {
    const text = `apiVersion: v1\nkind: Namespace\nmetadata: {name: p, annotations: {config.linkerd.io/default-inbound-policy: ${value}}}\n`;
    return loadFile({ path: "p.yaml", text }).problems.map(describeProblem).join("\n");
  };
  assert.equal(annotated("cluster-authenticated"), "");
  assert.match(annotated("open"), /p\.yaml:3: .*"open" is not honoured: write one of all-unauthenticated, /);
});
