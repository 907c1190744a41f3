import assert from "node:assert/strict";
import { test } from "node:test";
import type { AccessPolicy, AccessRule } from "#/model/access.ts";
import { ruleOf } from "#/model/policy.ts";
import type { PodPlan } from "#/model/pod-plan.ts";
import type { KnownPod } from "../../services/compile.ts";
import type { MeshView } from "../../services/mesh-view.ts";
import { inboundPolicyFor } from "../policy.ts";
import { gatewayObject, parent, PolicyWorld, service } from "../testing.ts";

function ours(name: string, spec: string, more = "", namespace = "shop"): string {
  return `---\napiVersion: pillion.dev/v1alpha1\nkind: AuthorizationPolicy\nmetadata: {name: ${name}, namespace: ${namespace}${more}}\nspec: ${spec}\n`;
}

function linkerd(kind: string, name: string, spec: string, version = "v1alpha1", more = ""): string {
  return `---\napiVersion: policy.linkerd.io/${version}\nkind: ${kind}\nmetadata: {name: ${name}, namespace: shop${more}}\nspec: ${spec}\n`;
}

function pod(
  name: string,
  annotations: Record<string, string> = {},
  probes: readonly object[] = [],
): KnownPod {
  const [readinessProbe = null, livenessProbe = null] = probes;
  const container = {
    ports: [
      { name: "http", containerPort: 8080, protocol: "TCP" },
      { name: "admin", containerPort: 9000, protocol: "TCP" },
    ],
    startupProbe: null,
    readinessProbe,
    livenessProbe,
  };
  return {
    plan: {
      uid: name,
      name: `${name}-0`,
      namespace: "shop",
      owner: `Deployment/shop/${name}`,
      labels: { app: name },
      annotations,
      serviceAccount: name,
      hostname: name,
      subdomain: null,
      templateHash: "1",
      sidecar: null,
      containers: [container],
      initContainers: [],
      volumes: [],
    } as unknown as PodPlan,
    status: null,
    isLeaving: false,
    opaquePorts: [],
  };
}

const WEB = service(
  "web",
  "shop",
  "{name: http, port: 80, targetPort: http}, {name: admin, port: 81, targetPort: 9000}",
);

function world(text: string, ...pods: readonly KnownPod[]): PolicyWorld {
  return new PolicyWorld(WEB + text, pods.length === 0 ? [pod("web"), pod("api")] : pods);
}

function accessOf(view: MeshView, name: string, port = 8080): AccessPolicy {
  return inboundPolicyFor(view, view.podsByName.get(`shop/${name}-0`)!, port).access!;
}

/** `ACTION OBJECT SECTION (STAGE)`, without what is said by default. */
function lines({ rules }: AccessPolicy): string[] {
  return rules.map(({ action, source, stage }) =>
    [
      action,
      ruleOf(source),
      ...(source.section === "" ? [] : [source.section]),
      ...(stage === "both" ? [] : [`(${stage})`]),
    ].join(" "),
  );
}

const OPEN = "default default/all-unauthenticated";

test("without a policy the default decides: of the pod, else the namespace, else the mesh, else everybody", () => {
  const by = (value: string): Record<string, string> => ({
    "config.linkerd.io/default-inbound-policy": value,
  });
  const ofNamespace = `---\napiVersion: v1\nkind: Namespace\nmetadata: {name: shop, annotations: {config.linkerd.io/default-inbound-policy: all-authenticated}}\n`;
  const ofMesh = `---\napiVersion: v1\nkind: ConfigMap\nmetadata: {name: mesh-config, namespace: pillion}\ndata: {config.linkerd.io/default-inbound-policy: deny}\n`;
  const asked = (text: string, annotations = {}): string[] =>
    lines(accessOf(world(text, pod("web", annotations)).view, "web"));
  assert.deepEqual(asked(""), [OPEN]);
  assert.deepEqual(asked(ofMesh), ["default default/deny"]);
  assert.deepEqual(asked(ofMesh + ofNamespace), ["default default/all-authenticated"]);
  assert.deepEqual(asked(ofMesh + ofNamespace, by("audit")), [
    "default default/audit (enforced)",
    "default default/audit (proposed)",
  ]);
});

test("each default lets in whom it says", () => {
  const sources = (value: string): AccessRule["sources"][] =>
    accessOf(
      world("", pod("web", { "config.linkerd.io/default-inbound-policy": value })).view,
      "web",
    ).rules.map((rule) => rule.sources);
  const networks = [
    { net: "10.201.0.0/16", except: [] },
    { net: "10.201.0.1/32", except: [] },
  ];
  assert.deepEqual(sources("all-unauthenticated"), [null]);
  assert.deepEqual(sources("all-authenticated"), [[{ peer: { kind: "authenticated" }, networks: null }]]);
  assert.deepEqual(sources("cluster-unauthenticated"), [[{ peer: { kind: "anyone" }, networks }]]);
  assert.deepEqual(sources("cluster-authenticated"), [[{ peer: { kind: "authenticated" }, networks }]]);
  assert.deepEqual(sources("deny"), [[]]);
  assert.deepEqual(sources("audit"), [null, []]);
});

test("the machine's probes are exempt: their paths, from where the machine is, without an identity", () => {
  const http = { action: { kind: "http", path: "/ready?full=1", port: 8080 } };
  const grpc = { action: { kind: "grpc", port: 8080, service: "" } };
  const { view } = world("", pod("web", {}, [http, grpc]));
  const [exempt] = accessOf(view, "web").rules;
  assert.equal(exempt!.action, "exempt");
  assert.deepEqual(exempt!.sources, [
    { peer: { kind: "unauthenticated" }, networks: [{ net: "10.201.0.1/32", except: [] }] },
  ]);
  assert.deepEqual(
    exempt!.requests!.map(({ methods, paths }) => [methods, paths]),
    [
      [["GET"], [{ kind: "exact", value: "/ready" }]],
      [["POST"], [{ kind: "rpc", service: "grpc.health.v1.Health", method: "Check" }]],
    ],
  );
  assert.deepEqual(lines(accessOf(view, "web", 9000)), [OPEN]);
});

test("a TCP probe is exempt as a connection of the machine, and lets in no request", () => {
  const tcp = { action: { kind: "tcp", port: 8080, host: null } };
  const { view } = world("", pod("web", {}, [tcp]));
  const [exempt] = accessOf(view, "web").rules;
  assert.deepEqual(
    [exempt!.action, exempt!.layer, exempt!.requests, exempt!.sources],
    [
      "exempt",
      "connections",
      null,
      [{ peer: { kind: "unauthenticated" }, networks: [{ net: "10.201.0.1/32", except: [] }] }],
    ],
  );
});

test("each kind of target is the ports of its pods, and what is about less goes first", () => {
  const rules = "rules: [{name: r}]";
  const { view, problems } = world(
    ours("by-namespace", `{targetRefs: [{group: "", kind: Namespace}], action: DENY, ${rules}}`) +
      ours(
        "by-pod",
        `{targetRefs: [{group: "", kind: Pod, selector: {matchLabels: {app: web}}}], action: DENY, ${rules}}`,
      ) +
      ours("by-service", `{targetRefs: [{group: "", kind: Service, name: web}], action: DENY, ${rules}}`) +
      ours(
        "by-route",
        `{targetRefs: [{group: gateway.networking.k8s.io, kind: HTTPRoute, name: r}], action: DENY, ${rules}}`,
      ) +
      gatewayObject(
        "HTTPRoute",
        "r",
        `{parentRefs: [${parent("web", ", port: 80")}], rules: [{backendRefs: [{name: web, port: 80}]}]}`,
      ),
  );
  assert.deepEqual(problems, []);
  const policy = (...names: string[]): string[] => [
    ...names.map((name) => `deny AuthorizationPolicy/shop/${name} r`),
    OPEN,
  ];
  assert.deepEqual(lines(accessOf(view, "web")), policy("by-route", "by-service", "by-pod", "by-namespace"));
  assert.deepEqual(lines(accessOf(view, "web", 9000)), policy("by-service", "by-pod", "by-namespace"));
  assert.deepEqual(lines(accessOf(view, "web", 7000)), policy("by-pod", "by-namespace"));
  assert.deepEqual(lines(accessOf(view, "api")), policy("by-namespace"));
});

test("within a kind of target the older goes first, then the name; rules as written", () => {
  const spec = '{targetRefs: [{group: "", kind: Namespace}], action: DENY, rules: [{}, {name: b}]}';
  const { view } = world(
    ours("z", spec, ', creationTimestamp: "2020-01-01T00:00:00Z"') + ours("b", spec) + ours("a", spec),
  );
  assert.deepEqual(
    lines(accessOf(view, "web")),
    ["z", "a", "b"]
      .flatMap((name) => ["0", "b"].map((section) => `deny AuthorizationPolicy/shop/${name} ${section}`))
      .concat(OPEN),
  );
});

test("an ALLOW policy brings the scope that it restricts, whatever ports its rules have", () => {
  const { view } = world(
    ours(
      "a",
      '{targetRefs: [{group: "", kind: Service, name: web}], action: ALLOW, rules: [{networkAttributes: {ports: [8080]}, sources: [{type: ServiceAccount, serviceAccount: {name: front}}]}]}',
    ),
  );
  assert.deepEqual(lines(accessOf(view, "web")), [
    "allow AuthorizationPolicy/shop/a 0",
    "restrict AuthorizationPolicy/shop/a",
    OPEN,
  ]);
  assert.deepEqual(lines(accessOf(view, "web", 9000)), ["restrict AuthorizationPolicy/shop/a", OPEN]);
  const [restrict] = accessOf(view, "web", 9000).rules;
  assert.deepEqual([restrict!.sources, restrict!.requests], [null, null]);
});

test("a policy in audit mode is only proposed", () => {
  const { view } = world(
    ours("a", '{targetRefs: [{group: "", kind: Namespace}], action: ALLOW, mode: Audit, rules: [{}]}') +
      ours("b", '{targetRefs: [{group: "", kind: Namespace}], action: AUDIT, rules: [{}]}'),
  );
  assert.deepEqual(lines(accessOf(view, "web")), [
    "allow AuthorizationPolicy/shop/a 0 (proposed)",
    "restrict AuthorizationPolicy/shop/a (proposed)",
    "audit AuthorizationPolicy/shop/b 0",
    OPEN,
  ]);
});

test("sources are whom they name, in this mesh's trust domain", () => {
  const { view } = world(
    ours(
      "a",
      `{targetRefs: [{group: "", kind: Namespace}], action: DENY, rules: [{sources: [
        {type: ServiceAccount, serviceAccount: {name: front}},
        {type: ServiceAccount, serviceAccount: {namespace: desk, name: "*"}, cidrs: [10.0.0.0/8]},
        {type: SPIFFE, spiffe: "spiffe://other.org/ns/a/sa/b"},
        {type: Namespace, namespace: desk},
        {type: TrustDomain, trustDomain: other.org},
        {type: Authenticated}, {type: Unauthenticated},
        {type: CIDR, cidr: 10.0.0.0/8, except: [10.1.0.0/16]}]}, {sources: []}, {}]}`,
    ),
  );
  const trustDomain = "cluster.local";
  const [first, nobody, anyone] = accessOf(view, "web").rules;
  assert.deepEqual(first!.sources, [
    { peer: { kind: "identity", trustDomain, namespace: "shop", serviceAccount: "front" }, networks: null },
    {
      peer: { kind: "namespace", trustDomain, namespace: "desk" },
      networks: [{ net: "10.0.0.0/8", except: [] }],
    },
    {
      peer: { kind: "identity", trustDomain: "other.org", namespace: "a", serviceAccount: "b" },
      networks: null,
    },
    { peer: { kind: "namespace", trustDomain, namespace: "desk" }, networks: null },
    { peer: { kind: "trust-domain", trustDomain: "other.org" }, networks: null },
    { peer: { kind: "authenticated" }, networks: null },
    { peer: { kind: "unauthenticated" }, networks: null },
    { peer: { kind: "anyone" }, networks: [{ net: "10.0.0.0/8", except: ["10.1.0.0/16"] }] },
  ]);
  assert.deepEqual(nobody!.sources, []);
  assert.equal(anyone!.sources, null);
});

const ROUTE = `{parentRefs: [${parent("web", ", port: 80")}], rules: [
  {matches: [{path: {type: PathPrefix, value: /orders}, method: GET}, {path: {type: Exact, value: /health}}], backendRefs: [{name: web, port: 80}]}]}`;

test("a policy of a route is of the requests that the route takes", () => {
  const target = "targetRefs: [{group: gateway.networking.k8s.io, kind: HTTPRoute, name: r}]";
  const { view, problems } = world(
    gatewayObject("HTTPRoute", "r", ROUTE) +
      ours(
        "a",
        `{${target}, action: ALLOW, rules: [{}, {requests: [{paths: [{type: PathPrefix, value: /orders/new}, {type: Exact, value: /other}], hosts: [a.example]}]}]}`,
      ),
  );
  assert.deepEqual(problems, []);
  const [whole, part, restrict] = accessOf(view, "web").rules;
  const short = ({ requests }: AccessRule): unknown =>
    requests!.map(({ methods, paths }) => [methods, paths]);
  const route = [
    [["GET"], [{ kind: "prefix", value: "/orders" }]],
    [null, [{ kind: "exact", value: "/health" }]],
  ];
  assert.deepEqual(short(whole!), route);
  assert.deepEqual(short(part!), [[["GET"], [{ kind: "prefix", value: "/orders/new" }]]]);
  assert.deepEqual(short(restrict!), route);
  assert.equal(restrict!.action, "restrict");
});

test("paths that cannot be joined with a route's allow nothing, refuse more, and are told of", () => {
  const route = gatewayObject(
    "HTTPRoute",
    "r",
    `{parentRefs: [${parent("web")}], rules: [{matches: [{path: {type: RegularExpression, value: "/a/.*"}}], backendRefs: [{name: web, port: 80}]}]}`,
  );
  const policy = (action: string): string =>
    ours(
      "a",
      `{targetRefs: [{group: gateway.networking.k8s.io, kind: HTTPRoute, name: r}], action: ${action}, rules: [{requests: [{paths: [{type: PathPrefix, value: /a/b}]}]}]}`,
    );
  const allow = world(route + policy("ALLOW"));
  assert.deepEqual(accessOf(allow.view, "web").rules[0]!.requests, []);
  assert.match(allow.problems.join(), /f\.yaml:\d+: .*rules\[0\]\.requests rule 0 and the route both match/);
  const deny = world(route + policy("DENY"));
  assert.deepEqual(
    accessOf(deny.view, "web").rules[0]!.requests!.map(({ paths }) => paths),
    [[{ kind: "prefix", value: "/a/b" }]],
  );
});

test("a target that is not there is told of, and decides nothing", () => {
  for (const [target, expected] of [
    ['{group: "", kind: Service, name: gone}', /name Service shop\/gone does not exist/],
    [
      "{group: gateway.networking.k8s.io, kind: HTTPRoute, name: gone}",
      /HTTPRoute shop\/gone does not exist/,
    ],
  ] as const) {
    const { view, problems } = world(ours("a", `{targetRefs: [${target}], action: ALLOW, rules: [{}]}`));
    assert.match(problems.join(), expected);
    assert.deepEqual(lines(accessOf(view, "web")), [OPEN]);
  }
});

test("rules about requests at an opaque port, and rules that hold for nobody, are told of", () => {
  const { problems } = new PolicyWorld(
    service(
      "db",
      "shop",
      "{name: tcp, port: 5432, appProtocol: linkerd.io/opaque}",
      "config.linkerd.io/opaque-ports: '5432'",
    ) +
      ours(
        "a",
        '{targetRefs: [{group: "", kind: Service, name: db}], action: ALLOW, rules: [{requests: [{methods: [GET]}]}]}',
      ) +
      ours("b", '{targetRefs: [{group: "", kind: Service, name: db}], action: DENY, rules: [{sources: []}]}'),
  );
  assert.match(problems.join("\n"), /requests port 5432 of the Service is opaque.* allows nothing/);
  assert.match(problems.join("\n"), /sources is empty, so the rule holds for nobody/);
});

test("an identity that was taken back is refused at every port, before everything else", () => {
  const { view } = world(
    ours("a", '{targetRefs: [{group: "", kind: Namespace}], action: DENY, rules: [{}]}'),
  );
  const identity = { trustDomain: "cluster.local", namespace: "shop", serviceAccount: "front" };
  const revoked: MeshView = { ...view, revoked: [identity] };
  const [first, second] = accessOf(revoked, "web").rules;
  assert.deepEqual(first!.source.kind, "Revocation");
  assert.deepEqual([first!.action, first!.stage], ["deny", "both"]);
  assert.deepEqual(first!.sources, [{ peer: { kind: "identity", ...identity }, networks: null }]);
  assert.equal(second!.source.name, "a");
  assert.equal(accessOf(view, "web").rules[0]!.source.name, "a", "and nobody without");
});

test("pods of one workload share what is said of them", () => {
  const { view } = world(
    ours("a", '{targetRefs: [{group: "", kind: Namespace}], action: DENY, rules: [{}]}'),
  );
  assert.equal(accessOf(view, "web"), accessOf(view, "web"));
  assert.equal(accessOf(view, "web"), accessOf({ ...view }, "web"));
  assert.notEqual(accessOf(view, "web"), accessOf(view, "web", 9000));
});

const SERVER = linkerd(
  "Server",
  "web-http",
  "{podSelector: {matchLabels: {app: web}}, port: http}",
  "v1beta3",
);

test("a Server of Linkerd's takes its ports out of the default, and lets in whom its policies say", () => {
  const { view, problems } = world(
    SERVER +
      linkerd(
        "MeshTLSAuthentication",
        "front",
        '{identities: ["*.desk.serviceaccount.identity.linkerd.cluster.local", "a.b.serviceaccount.identity.linkerd.cluster.local", "*", "spiffe://x.org/other"], identityRefs: [{kind: ServiceAccount, name: front}]}',
      ) +
      linkerd("NetworkAuthentication", "near", "{networks: [{cidr: 10.0.0.0/8, except: [10.1.2.3]}]}") +
      linkerd(
        "AuthorizationPolicy",
        "web",
        "{targetRef: {group: policy.linkerd.io, kind: Server, name: web-http}, requiredAuthenticationRefs: [{group: policy.linkerd.io, kind: MeshTLSAuthentication, name: front}, {group: policy.linkerd.io, kind: NetworkAuthentication, name: near}]}",
      ),
  );
  assert.deepEqual(problems, []);
  assert.deepEqual(lines(accessOf(view, "web")), [
    "allow AuthorizationPolicy/shop/web",
    "default Server/shop/web-http deny",
  ]);
  assert.deepEqual(lines(accessOf(view, "web", 9000)), [OPEN]);
  const networks = [{ net: "10.0.0.0/8", except: ["10.1.2.3/32"] }];
  const trustDomain = "cluster.local";
  assert.deepEqual(accessOf(view, "web").rules[0]!.sources, [
    { peer: { kind: "namespace", trustDomain, namespace: "desk" }, networks },
    { peer: { kind: "identity", trustDomain, namespace: "b", serviceAccount: "a" }, networks },
    { peer: { kind: "suffix", labels: [] }, networks },
    { peer: { kind: "name", name: "spiffe://x.org/other" }, networks },
    { peer: { kind: "identity", trustDomain, namespace: "shop", serviceAccount: "front" }, networks },
  ]);
});

test("a reference that leads nowhere never lets anybody in, and is told of", () => {
  const { view, problems } = world(
    SERVER +
      linkerd(
        "AuthorizationPolicy",
        "web",
        "{targetRef: {group: policy.linkerd.io, kind: Server, name: web-http}, requiredAuthenticationRefs: [{kind: NetworkAuthentication, name: gone}, {kind: ServiceAccount, name: front}]}",
      ),
  );
  assert.deepEqual(accessOf(view, "web").rules[0]!.sources, []);
  assert.match(
    problems.join(),
    /NetworkAuthentication shop\/gone does not exist, so this policy lets nobody in/,
  );
});

test("attack: a policy of Linkerd's about another namespace lets nobody in at what has the same name in its own", () => {
  const { view, problems } = world(
    SERVER +
      linkerd(
        "AuthorizationPolicy",
        "web",
        "{targetRef: {group: policy.linkerd.io, kind: Server, name: web-http, namespace: bank}, requiredAuthenticationRefs: [{kind: ServiceAccount, name: front}]}",
      ),
  );
  assert.deepEqual(lines(accessOf(view, "web")), ["default Server/shop/web-http deny"]);
  assert.match(problems.join(), /Server bank\/web-http does not exist/);
});

test("requests at a Server belong to its routes, and a policy may be about one", () => {
  const { view, problems } = world(
    SERVER +
      linkerd(
        "HTTPRoute",
        "get",
        "{parentRefs: [{group: policy.linkerd.io, kind: Server, name: web-http}], rules: [{matches: [{method: GET}]}]}",
        "v1beta3",
      ) +
      linkerd(
        "HTTPRoute",
        "other",
        "{parentRefs: [{group: policy.linkerd.io, kind: Server, name: web-http}]}",
        "v1beta3",
      ) +
      linkerd(
        "AuthorizationPolicy",
        "get",
        "{targetRef: {group: policy.linkerd.io, kind: HTTPRoute, name: get}, requiredAuthenticationRefs: [{kind: ServiceAccount, name: front}]}",
      ) +
      linkerd(
        "AuthorizationPolicy",
        "all",
        "{targetRef: {group: core, kind: Namespace, name: shop}, requiredAuthenticationRefs: [{kind: ServiceAccount, name: admin}]}",
      ),
  );
  assert.deepEqual(problems, []);
  const { routes, rules } = accessOf(view, "web");
  assert.deepEqual(
    routes.map(({ source }) => source.name),
    ["get", "other"],
  );
  assert.equal(routes[0]!.matches[0]!.method, "GET");
  assert.deepEqual(
    rules.map(({ action, source, route }) => [action, source.name, route]),
    [
      ["allow", "get", 0],
      ["allow", "all", null],
      ["default", "web-http", null],
    ],
  );
});

test("a Server says what its port speaks, and the oldest of a port counts", () => {
  const { view, problems } = world(
    linkerd(
      "Server",
      "b",
      "{podSelector: {}, port: 9000, proxyProtocol: opaque}",
      "v1beta1",
      ', creationTimestamp: "2020-01-01T00:00:00Z"',
    ) +
      linkerd(
        "Server",
        "a",
        "{podSelector: {}, port: admin, proxyProtocol: HTTP/2, accessPolicy: audit}",
        "v1beta2",
      ),
  );
  assert.deepEqual(problems, []);
  const web = view.podsByName.get("shop/web-0")!;
  assert.equal(inboundPolicyFor(view, web, 9000).protocol, "opaque");
  assert.deepEqual(lines(accessOf(view, "web", 9000)), ["default Server/shop/b deny"]);
});

test("a ServerAuthorization is read as it is", () => {
  const { view, problems } = world(
    SERVER +
      linkerd(
        "ServerAuthorization",
        "web",
        "{server: {name: web-http}, client: {networks: [{cidr: 10.0.0.0/8}], meshTLS: {serviceAccounts: [{name: front}]}}}",
        "v1beta1",
      ),
  );
  assert.deepEqual(problems, []);
  assert.deepEqual(accessOf(view, "web").rules[0]!.sources, [
    {
      peer: { kind: "identity", trustDomain: "cluster.local", namespace: "shop", serviceAccount: "front" },
      networks: [{ net: "10.0.0.0/8", except: [] }],
    },
  ]);
});
