import assert from "node:assert/strict";
import { test } from "node:test";
import { create, toBinary } from "@bufbuild/protobuf";
import fc from "fast-check";
import type { IpAddress } from "#/base/address.ts";
import { standardAccess } from "#/control/answers/standard-access.ts";
import type { Loss } from "#/control/answers/standard-refusal.ts";
import type { Server } from "#/gen/linkerd/inbound_pb.ts";
import { ServerSchema } from "#/gen/linkerd/inbound_pb.ts";
import type {
  AccessPolicy,
  AccessRoute,
  AccessRule,
  AccessSource,
  AccessSubject,
  NetworkMatch,
  PeerMatch,
  RequestCondition,
} from "#/model/access.ts";
import type { PeerIdentity } from "#/model/identity.ts";
import { dnsName, spiffeUri } from "#/model/identity.ts";
import type { HttpMatch, PathMatch } from "#/model/route.ts";
import { decideAccess } from "#/stack/access/decide.ts";
import { linkerdLetsIn } from "./linkerd-reading.ts";
import { hasUnknownFields, readStandard } from "./standard-schema.ts";

// Whom a proxy lets in that knows the standard fields alone, the whole policy lets in: by our own evaluator, in a small world where
// rules often meet.

const MACHINE = "10.0.0.1";

const trustDomains = fc.constantFrom("a.org", "b.org");
const namespaces = fc.constantFrom("shop", "desk");
const accounts = fc.constantFrom("web", "api", "db");
const paths: readonly string[] = ["/", "/a", "/a/b", "/a/b/c", "/s.V/M", "/s.V/N", "/ready"];
const ODD_PATHS: readonly string[] = [
  "/a/../s.V/M",
  "/a//b",
  "/a/%62",
  "/a/b/",
  "/a/./b",
  "/%61",
  "/a/..;/b",
  "/a%2Fb",
  "/a\\b",
  "//a",
  "/.x",
  "/a?x=/../b",
];

const peers: fc.Arbitrary<PeerMatch> = fc.oneof(
  fc.constant({ kind: "anyone" } as const),
  fc.record({ kind: fc.constantFrom("unauthenticated", "authenticated") }),
  fc.record({ kind: fc.constant("trust-domain"), trustDomain: trustDomains }),
  fc.record({ kind: fc.constant("namespace"), trustDomain: trustDomains, namespace: namespaces }),
  fc.record({
    kind: fc.constant("identity"),
    trustDomain: trustDomains,
    namespace: namespaces,
    serviceAccount: accounts,
  }),
  fc.record({ kind: fc.constant("name"), name: fc.constantFrom("x.other", "spiffe://a.org/thing") }),
  fc.record({
    kind: fc.constant("suffix"),
    labels: fc.constantFrom([], ["other"], ["identity", "pillion", "a", "org"]),
  }),
);

const nets = fc.constantFrom("10.0.0.0/8", "10.1.0.0/16", "10.1.2.3/32", "0.0.0.0/0", "fd00::/8", "::/0");
const networks: fc.Arbitrary<NetworkMatch> = fc.record({
  net: nets,
  except: fc.array(nets, { maxLength: 1 }),
});

const sources: fc.Arbitrary<AccessSource> = fc.record({
  peer: peers,
  networks: fc.option(fc.array(networks, { maxLength: 2 }), { freq: 2 }),
});

const pathMatches: fc.Arbitrary<PathMatch> = fc.oneof(
  fc.record({ kind: fc.constantFrom("exact", "prefix"), value: fc.constantFrom(...paths, "/a/", "/a//b") }),
  fc.record({ kind: fc.constant("regex"), value: fc.constantFrom("/a.*", "/[ab]") }),
  fc.record({
    kind: fc.constant("rpc"),
    service: fc.constantFrom("s.V", ""),
    method: fc.constantFrom("M", ""),
  }),
);

const conditions: fc.Arbitrary<RequestCondition> = fc.record({
  methods: fc.option(fc.constantFrom(["GET"], ["GET", "POST"])),
  paths: fc.option(fc.array(pathMatches, { minLength: 1, maxLength: 2 })),
  hosts: fc
    .option(
      fc.constantFrom([{ kind: "exact", host: "web" } as const], [{ kind: "suffix", host: "org" } as const]),
      { freq: 3 },
    )
    .map((value) => value),
  headers: fc.constantFrom([], [], [], [{ name: "x", value: { kind: "exact", value: "1" } } as const]),
  query: fc.constantFrom([], [], [], [{ name: "q", value: { kind: "exact", value: "1" } } as const]),
  claims: fc.constantFrom([], [], [], [{ claim: "c", values: ["1"] }]),
});

const source = (kind: string, name: string): AccessRule["source"] => ({
  group: "pillion.dev",
  kind,
  namespace: "shop",
  name,
  section: "",
  port: 0,
});

const rules: fc.Arbitrary<AccessRule> = fc.record({
  action: fc.constantFrom("deny", "allow", "allow", "allow", "restrict", "default", "default", "audit"),
  stage: fc.constantFrom("both", "both", "both", "enforced", "proposed"),
  source: fc.constantFrom("p", "q").map((name) => source("AuthorizationPolicy", name)),
  sources: fc.option(fc.array(sources, { maxLength: 2 })),
  requests: fc.option(fc.array(conditions, { maxLength: 2 }), { freq: 2 }),
  route: fc.option(fc.nat(2), { freq: 2 }),
  layer: fc.constant("both"),
});

const PROBE: AccessRule = {
  action: "exempt",
  stage: "both",
  source: { ...source("default", "probe"), group: "", namespace: "" },
  sources: [{ peer: { kind: "unauthenticated" }, networks: [{ net: `${MACHINE}/32`, except: [] }] }],
  requests: [
    {
      methods: ["GET"],
      paths: [
        { kind: "exact", value: "/ready" },
        { kind: "exact", value: "/a//b" },
      ],
      hosts: null,
      headers: [],
      query: [],
      claims: [],
    },
  ],
  route: null,
  layer: "requests",
};

const TCP_PROBE: AccessRule = { ...PROBE, requests: null, layer: "connections" };

const matches: fc.Arbitrary<HttpMatch> = fc.record({
  path: fc.option(pathMatches),
  headers: fc.constant([]),
  query: fc.constant([]),
  method: fc.option(fc.constantFrom("GET", "POST")),
});

const routes: fc.Arbitrary<AccessRoute> = fc.record({
  source: fc.constantFrom("r", "s").map((name) => source("HTTPRoute", name)),
  hosts: fc.constantFrom([], [], [], [{ kind: "exact", host: "web" } as const]),
  matches: fc.array(matches, { maxLength: 2 }),
});

const policies: fc.Arbitrary<AccessPolicy> = fc
  .record({
    routes: fc.oneof(
      { weight: 3, arbitrary: fc.constant([]) },
      { weight: 1, arbitrary: fc.array(routes, { minLength: 1, maxLength: 3 }) },
    ),
    rules: fc.array(rules, { maxLength: 5 }),
    probe: fc.boolean(),
  })
  .map(({ routes: all, rules: some, probe }) => ({
    routes: all,
    rules: [
      ...(probe ? [PROBE, TCP_PROBE] : []),
      ...some.map((rule) => ({
        ...rule,
        route: all.length === 0 || rule.route === null ? null : rule.route % all.length,
      })),
    ],
  }));

const clients: fc.Arbitrary<PeerIdentity | null> = fc.option(
  fc
    .record({ trustDomain: trustDomains, namespace: namespaces, serviceAccount: accounts })
    .chain((identity) =>
      fc
        .constantFrom(dnsName(identity), dnsName(identity), spiffeUri(identity))
        .map((name) => ({ identity, name })),
    ),
  { freq: 4 },
);

const subjects: fc.Arbitrary<AccessSubject> = fc.record({
  ip: fc.constantFrom(
    ...["10.0.0.1", "10.1.2.3", "10.1.9.9", "192.0.2.1", "fd00::5", "2001:db8::1"],
  ) as fc.Arbitrary<IpAddress>,
  peer: clients,
  request: fc.option(
    fc.record({
      method: fc.constantFrom("GET", "POST", "PUT"),
      path: fc.constantFrom(...paths, ...paths, ...ODD_PATHS),
      authority: fc.constantFrom("web", "web.a.org", "other:80"),
      fields: fc.constantFrom([], ["x", "1"]),
      claims: fc.constant(null),
    }),
    { freq: 5 },
  ),
});

function serverOf(policy: AccessPolicy, lose: (loss: Loss) => void = () => undefined): Server {
  const { connections, routes: all } = standardAccess(policy, (from, what) => lose({ source: from, what }));
  const server = create(ServerSchema, {
    protocol: { kind: { case: "http2", value: { routes: [...all] } } },
    authorizations: [...connections],
  });
  return readStandard(ServerSchema, server);
}

function theirs(server: Server, { ip, peer, request }: AccessSubject): boolean {
  const client = { ip, name: peer?.name ?? null };
  if (request === null) return linkerdLetsIn(server, null, client);
  const { method, authority, fields } = request;
  const [path = "", search = ""] = request.path.split("?");
  const asked = {
    isHttp2: true,
    method,
    host: authority.replace(/:\d+$/, ""),
    path,
    headers: Object.fromEntries(fields.length === 0 ? [] : [[fields[0]!, fields[1]!]]),
    query: Object.fromEntries(new URLSearchParams(search)),
  };
  return linkerdLetsIn(server, asked, client);
}

/** Nobody has an identity at the machine's own address; there a probe lets in without looking for one. */
function isMachine({ ip, peer }: AccessSubject): boolean {
  return ip === MACHINE && peer !== null;
}

test("whom the standard fields let in, the whole policy lets in", () => {
  let ours = 0;
  let kept = 0;
  fc.assert(
    fc.property(policies, fc.array(subjects, { minLength: 12, maxLength: 12 }), (policy, all) => {
      const server = serverOf(policy);
      for (const subject of all) {
        if (isMachine(subject)) continue;
        const whole = decideAccess(policy, subject).verdict === "allowed";
        const standard = theirs(server, subject);
        assert.ok(whole || !standard, JSON.stringify(subject));
        ours += Number(whole);
        kept += Number(standard);
      }
    }),
    { numRuns: 4_000 },
  );
  // It could refuse everybody and be right.
  assert.ok(kept > ours / 3, `${kept} of ${ours} are let in still`);
});

test("a policy of lists of clients alone is kept by both alike", () => {
  const plain = rules
    .filter(({ action, sources: some }) => action !== "deny" && (some ?? []).every(isSayable))
    .map((rule) => ({
      ...rule,
      sources: rule.action === "restrict" ? null : rule.sources,
      requests: null,
      route: null,
    }));
  fc.assert(
    fc.property(
      fc.array(plain, { maxLength: 4 }),
      fc.array(subjects, { minLength: 8, maxLength: 8 }),
      (some, all) => {
        const policy = { routes: [], rules: some };
        const server = serverOf(policy);
        for (const subject of all) {
          // A certificate that has the SPIFFE form alone is known by whole names.
          if (subject.peer?.name.startsWith("spiffe:") === true) continue;
          assert.equal(theirs(server, subject), decideAccess(policy, subject).verdict === "allowed");
        }
      },
    ),
    { numRuns: 1_000 },
  );
});

function isSayable({ peer }: AccessSource): boolean {
  return peer.kind !== "unauthenticated";
}

test("methods, hosts and plain paths let in whom they should", () => {
  const allow = (requests: RequestCondition[], serviceAccount: string): AccessRule => ({
    action: "allow",
    stage: "both",
    source: source("AuthorizationPolicy", "p"),
    sources: [
      {
        peer: { kind: "identity", trustDomain: "a.org", namespace: "shop", serviceAccount },
        networks: null,
      },
    ],
    requests,
    route: null,
    layer: "both",
  });
  const of = (more: Partial<RequestCondition>): RequestCondition => ({
    methods: null,
    paths: null,
    hosts: null,
    headers: [],
    query: [],
    claims: [],
    ...more,
  });
  const policy: AccessPolicy = {
    routes: [],
    rules: [
      allow([of({ methods: ["GET"], paths: [{ kind: "prefix", value: "/a" }] })], "web"),
      allow([of({ paths: [{ kind: "prefix", value: "/a/b" }] })], "api"),
      allow([of({ paths: [{ kind: "rpc", service: "s.V", method: "M" }] })], "db"),
      { ...allow([], "web"), action: "restrict", sources: null, requests: null },
    ],
  };
  const server = serverOf(policy);
  const asks = (serviceAccount: string, method: string, path: string): boolean => {
    const identity = { trustDomain: "a.org", namespace: "shop", serviceAccount };
    const subject: AccessSubject = {
      ip: "10.1.9.9" as IpAddress,
      peer: { identity, name: dnsName(identity) },
      request: { method, path, authority: "web", fields: [], claims: null },
    };
    const both = theirs(server, subject);
    assert.equal(decideAccess(policy, subject).verdict === "allowed", both, `${serviceAccount} ${path}`);
    return both;
  };
  assert.ok(asks("web", "GET", "/a"));
  assert.ok(asks("web", "GET", "/a/b/c"), "also where another's prefix is longer");
  assert.ok(asks("api", "GET", "/a/b/c"));
  assert.ok(asks("api", "POST", "/a/b"));
  assert.ok(asks("db", "POST", "/s.V/M"));
  assert.ok(!asks("web", "POST", "/a"));
  assert.ok(!asks("api", "GET", "/a"));
  assert.ok(!asks("db", "POST", "/s.V/N"));
});

test("where theirs would choose another route of a Server, nobody is let in", () => {
  const route = (name: string, match: Partial<HttpMatch>): AccessRoute => ({
    source: source("HTTPRoute", name),
    hosts: [],
    matches: [{ path: null, headers: [], query: [], method: null, ...match }],
  });
  const policy: AccessPolicy = {
    routes: [
      route("exact", { path: { kind: "exact", value: "/a" } }),
      route("get", { path: { kind: "prefix", value: "/a" }, method: "GET" }),
    ],
    rules: [
      {
        action: "allow",
        stage: "both",
        source: source("AuthorizationPolicy", "p"),
        sources: null,
        requests: null,
        route: 1,
        layer: "both",
      },
    ],
  };
  const subject = (path: string): AccessSubject => ({
    ip: "10.1.9.9" as IpAddress,
    peer: null,
    request: { method: "GET", path, authority: "web", fields: [], claims: null },
  });
  assert.equal(decideAccess(policy, subject("/a")).verdict, "denied");
  assert.equal(theirs(serverOf(policy), subject("/a")), false);
  const apart = {
    ...policy,
    routes: [route("exact", { path: { kind: "exact", value: "/b" } }), policy.routes[1]!],
  };
  assert.equal(theirs(serverOf(apart), subject("/a")), true);
});

test("what is lost is told of the object that asked for it", () => {
  const told: Loss[] = [];
  const rule: AccessRule = {
    action: "deny",
    stage: "both",
    source: source("AuthorizationPolicy", "p"),
    sources: null,
    requests: [{ methods: ["GET"], paths: null, hosts: null, headers: [], query: [], claims: [] }],
    route: null,
    layer: "both",
  };
  serverOf({ routes: [], rules: [rule] }, (loss) => told.push(loss));
  assert.deepEqual(told, [
    {
      source: rule.source,
      what: "refuse more than it does: whoever it is about, whatever is asked for",
    },
  ]);
});

test("no field of ours is in what a proxy without our extension gets", () => {
  fc.assert(
    fc.property(policies, (policy) => {
      assert.ok(!hasUnknownFields(serverOf(policy)));
      // What it is made of can be sent.
      toBinary(ServerSchema, serverOf(policy));
    }),
    { numRuns: 300 },
  );
});
