import assert from "node:assert/strict";
import { test } from "node:test";
import type { DescMessage, Message, MessageInitShape } from "@bufbuild/protobuf";
import { create, toBinary } from "@bufbuild/protobuf";
import fc from "fast-check";
import type { IpAddress } from "#/base/address.ts";
import { HttpMethod_Registered } from "#/gen/linkerd/http_types_pb.ts";
import type { AuthzSchema } from "#/gen/linkerd/inbound_pb.ts";
import { ServerSchema } from "#/gen/linkerd/inbound_pb.ts";
import { AccessRule_Action, AccessRule_Layer, AccessRule_Stage } from "#/gen/pillion/access_pb.ts";
import type { AccessPolicySchema, AccessRuleSchema } from "#/gen/pillion/access_pb.ts";
import type { AccessPolicy, AccessSubject } from "#/model/access.ts";
import type { PeerIdentity } from "#/model/identity.ts";
import { decideAccess } from "#/stack/access/decide.ts";
import { conditionOf, peerOf, requestOf, subjectOf } from "#/stack/access/testing.ts";
import { ProtoWriter } from "#/wire/proto.ts";
import { decodeInboundPolicy } from "./decode-inbound.ts";

// What the library for all of protobuf writes, our reader understands.

/** As it is written down, and not a message that is made already. */
type Init<Desc extends DescMessage> = Exclude<MessageInitShape<Desc>, Message>;
type ServerInit = Init<typeof ServerSchema>;

function serverBytes(init: ServerInit): Uint8Array {
  return toBinary(
    ServerSchema,
    create(ServerSchema, { protocol: { kind: { case: "detect", value: {} } }, ...init }),
  );
}

function accessFrom(init: ServerInit): AccessPolicy {
  const policy = decodeInboundPolicy(serverBytes(init));
  assert(policy !== null);
  return policy.access;
}

const WEB = "web.shop.serviceaccount.identity.linkerd.cluster.local";
const web: PeerIdentity = peerOf("web", "shop", "cluster.local");

type NetworkInit = { ip: { ip: { case: "ipv4"; value: number } }; prefixLen: number };
function network(value: number, prefixLen: number): NetworkInit {
  return { ip: { ip: { case: "ipv4", value } }, prefixLen };
}
const ALL = [{ net: network(0, 0) }];

function authz(
  name: string,
  permit: NonNullable<NonNullable<Init<typeof AuthzSchema>["authentication"]>["permit"]>,
): Init<typeof AuthzSchema> {
  return {
    networks: ALL,
    authentication: { permit },
    labels: { group: "policy.linkerd.io", kind: "authorizationpolicy", name },
  };
}
const anyone = { case: "unauthenticated", value: {} } as const;
const meshed = { case: "meshTLS", value: { clients: { case: "unauthenticated", value: {} } } } as const;
function named(identities: string[], suffixes: string[][] = []) {
  const value = {
    identities: identities.map((name) => ({ name })),
    suffixes: suffixes.map((parts) => ({ parts })),
  };
  return { case: "meshTLS", value: { clients: { case: "identities", value } } } as const;
}

function outcome(policy: AccessPolicy, subject: AccessSubject): string {
  const { verdict, by } = decideAccess(policy, subject);
  return `${verdict} ${by.name}`;
}

test("without routes a Server's list is for requests and connections; what it does not let in is refused (facts §13)", () => {
  const access = accessFrom({
    labels: { group: "policy.linkerd.io", kind: "server", name: "web" },
    authorizations: [
      {
        ...authz("cluster", anyone),
        networks: [{ net: network(0x0a000000, 8), except: [network(0x0a010000, 16)] }],
      },
      authz("web", named([WEB])),
    ],
  });
  for (const request of [null, requestOf("/a%2Fb")]) {
    assert.equal(outcome(access, subjectOf(request, null, "10.2.0.1")), "allowed cluster");
    assert.equal(outcome(access, subjectOf(request, null, "10.1.0.1")), "denied deny");
    assert.equal(outcome(access, subjectOf(request, web, "10.1.0.1")), "allowed web");
    assert.equal(outcome(access, subjectOf(request, peerOf("web"), "10.1.0.1")), "denied deny");
    assert.equal(outcome(access, subjectOf(request, null, "127.0.0.1")), "allowed localhost");
  }
});

test("reads every way of Linkerd's to name clients", () => {
  const allows = (permit: Parameters<typeof authz>[1], peer: PeerIdentity | null): boolean =>
    outcome(accessFrom({ authorizations: [authz("a", permit)] }), subjectOf(null, peer)) === "allowed a";
  assert(allows(anyone, null));
  assert(!allows(meshed, null));
  assert(allows(meshed, web));
  assert(allows(named(["spiffe://cluster.local/ns/shop/sa/web"]), web));
  assert(!allows(named(["spiffe://cluster.local/ns/shop/sa/other"]), web));
  assert(!allows(named([]), web));
  assert(allows(named([], [["shop", "serviceaccount", "identity", "pillion", "cluster", "local"]]), web));
  assert(!allows(named([], [["op", "serviceaccount", "identity", "pillion", "cluster", "local"]]), web));
  assert(allows(named([], [[]]), web));
  assert(!allows(named([], [[]]), null));
});

test("what of a list cannot be read lets nobody in", () => {
  const access = accessFrom({
    authorizations: [
      { ...authz("no networks", anyone), networks: [] },
      { ...authz("no authentication", anyone), authentication: {} },
      { ...authz("no address", anyone), networks: [{ net: {} }] },
      { ...authz("no exception", anyone), networks: [{ net: network(0, 0), except: [{}] }] },
    ],
  });
  assert.equal(outcome(access, subjectOf(null, web)), "denied deny");
});

test("with routes each request goes by its route's list, and connections by the Server's (facts §13)", () => {
  const resource = (name: string) =>
    ({
      kind: {
        case: "resource",
        value: { group: "gateway.networking.k8s.io", kind: "HTTPRoute", name, namespace: "shop" },
      },
    }) as const;
  const exact = (value: string) => ({ path: { kind: { case: "exact", value } } }) as const;
  const access = accessFrom({
    protocol: {
      kind: {
        case: "http1",
        value: {
          routes: [
            {
              metadata: { kind: { case: "default", value: "probe" } },
              authorizations: [authz("probe", anyone)],
              rules: [
                {
                  matches: [
                    {
                      ...exact("/live"),
                      method: { type: { case: "registered", value: HttpMethod_Registered.GET } },
                    },
                  ],
                },
              ],
            },
            {
              metadata: resource("admin"),
              authorizations: [authz("a", named([WEB]))],
              rules: [{ matches: [exact("/admin")] }],
            },
            {
              metadata: resource("rest"),
              authorizations: [authz("r", anyone)],
              rules: [{ matches: [{ path: { kind: { case: "prefix", value: "/shop" } } }] }],
            },
          ],
        },
      },
    },
    authorizations: [authz("server", meshed)],
  });
  assert.equal(outcome(access, subjectOf(requestOf("/live"))), "allowed probe");
  assert.equal(outcome(access, subjectOf(requestOf("/admin"), web)), "allowed a");
  assert.equal(outcome(access, subjectOf(requestOf("/admin"), peerOf("x"))), "denied deny");
  assert.equal(outcome(access, subjectOf(requestOf("/shop/../admin"), peerOf("x"))), "denied deny");
  assert.equal(
    outcome(access, subjectOf(requestOf("/shop/..%2Fadmin"), peerOf("x"))),
    "ambiguous ambiguous-path",
  );
  assert.equal(outcome(access, subjectOf(requestOf("/shop/1"))), "allowed r");
  assert.equal(outcome(access, subjectOf(requestOf("/other"), web)), "no-route no-route");
  assert.equal(outcome(access, subjectOf(null, web)), "allowed server");
  assert.equal(outcome(access, subjectOf(null)), "denied deny");
});

test("a route of Linkerd's for everything changes no path", () => {
  const access = accessFrom({
    protocol: {
      kind: {
        case: "http2",
        value: {
          routes: [
            {
              metadata: { kind: { case: "default", value: "default" } },
              authorizations: [authz("a", anyone)],
              rules: [{ matches: [{ path: { kind: { case: "prefix", value: "/" } } }] }],
            },
          ],
        },
      },
    },
  });
  assert.equal(outcome(access, subjectOf(requestOf("/a%2F../b"))), "allowed a");
});

test("a match that is not known makes the policy one that is not followed", () => {
  const matching = (match: object): Uint8Array =>
    serverBytes({
      protocol: {
        kind: {
          case: "http1",
          value: { routes: [{ authorizations: [authz("a", anyone)], rules: [{ matches: [match] }] }] },
        },
      },
    });
  assert.notEqual(decodeInboundPolicy(matching({})), null);
  assert.equal(decodeInboundPolicy(matching({ path: {} })), null);
  assert.equal(decodeInboundPolicy(matching({ path: { kind: { case: "regex", value: "(" } } })), null);
  assert.equal(decodeInboundPolicy(matching({ headers: [{ name: "a" }] })), null);
});

// --- our own ------------------------------------------------------------------------------------------------------

type RuleInit = Init<typeof AccessRuleSchema>;
const base: RuleInit = {
  metadata: {
    kind: {
      case: "resource",
      value: {
        group: "pillion.dev",
        kind: "AuthorizationPolicy",
        name: "p",
        namespace: "shop",
        section: "0",
      },
    },
  },
  action: AccessRule_Action.ALLOW,
  stage: AccessRule_Stage.BOTH_STAGES,
  layer: AccessRule_Layer.BOTH_LAYERS,
};

function accessBytes(rules: readonly RuleInit[], more: Init<typeof AccessPolicySchema> = {}): Uint8Array {
  return serverBytes({ authorizations: [authz("standard", anyone)], access: { rules: [...rules], ...more } });
}

test("reads all of an access policy, which replaces the standard lists", () => {
  const networks = { networks: [{ net: network(0x0a000000, 8), except: [network(0x0a010000, 16)] }] };
  const bytes = accessBytes(
    [
      {
        ...base,
        action: AccessRule_Action.DENY,
        stage: AccessRule_Stage.PROPOSED,
        layer: AccessRule_Layer.REQUESTS,
        route: 0,
        sources: {
          sources: [
            { peer: { case: "anyone", value: {} }, networks },
            { peer: { case: "unauthenticated", value: {} }, networks: {} },
            { peer: { case: "authenticated", value: {} } },
            { peer: { case: "trustDomain", value: "mesh.test" } },
            { peer: { case: "namespace", value: { trustDomain: "mesh.test", namespace: "shop" } } },
            {
              peer: {
                case: "identity",
                value: { trustDomain: "mesh.test", namespace: "shop", serviceAccount: "web" },
              },
            },
            { peer: { case: "name", value: "x" } },
            { peer: { case: "suffix", value: { labels: ["a", "b"] } } },
          ],
        },
        requests: {
          conditions: [
            {
              methods: { methods: ["GET"] },
              paths: {
                paths: [
                  { kind: { case: "path", value: { kind: { case: "prefix", value: "/a" } } } },
                  { kind: { case: "rpc", value: { service: "s", method: "m" } } },
                ],
              },
              hosts: { hosts: [{ match: { case: "exact", value: "Web" } }] },
              headers: [{ name: "X-A", value: { case: "exact", value: new TextEncoder().encode("1") } }],
              query: [{ name: "Q", value: { case: "regex", value: "1+" } }],
              claims: [{ claim: "role", values: ["admin"] }],
            },
          ],
        },
      },
      { ...base, sources: {}, requests: {} },
    ],
    { routes: [{ hosts: [{ match: { case: "exact", value: "web" } }], matches: [{}] }] },
  );
  const source = {
    group: "pillion.dev",
    kind: "AuthorizationPolicy",
    namespace: "shop",
    name: "p",
    section: "0",
    port: 0,
  };
  assert.deepEqual(decodeInboundPolicy(bytes)?.access, {
    routes: [
      {
        source: { group: "", kind: "default", namespace: "", name: "", section: "", port: 0 },
        hosts: [{ kind: "exact", host: "web" }],
        matches: [{ path: null, headers: [], query: [], method: null }],
      },
    ],
    rules: [
      {
        source,
        action: "deny",
        stage: "proposed",
        layer: "requests",
        route: 0,
        sources: [
          { peer: { kind: "anyone" }, networks: [{ net: "10.0.0.0/8", except: ["10.1.0.0/16"] }] },
          { peer: { kind: "unauthenticated" }, networks: [] },
          { peer: { kind: "authenticated" }, networks: null },
          { peer: { kind: "trust-domain", trustDomain: "mesh.test" }, networks: null },
          { peer: { kind: "namespace", trustDomain: "mesh.test", namespace: "shop" }, networks: null },
          {
            peer: { kind: "identity", trustDomain: "mesh.test", namespace: "shop", serviceAccount: "web" },
            networks: null,
          },
          { peer: { kind: "name", name: "x" }, networks: null },
          { peer: { kind: "suffix", labels: ["a", "b"] }, networks: null },
        ],
        requests: [
          conditionOf(["/a*", "rpc s/m"], {
            methods: ["GET"],
            hosts: [{ kind: "exact", host: "web" }],
            headers: [{ name: "x-a", value: { kind: "exact", value: "1" } }],
            query: [{ name: "Q", value: { kind: "regex", value: "1+" } }],
            claims: [{ claim: "role", values: ["admin"] }],
          }),
        ],
      },
      { source, action: "allow", stage: "both", layer: "both", route: null, sources: [], requests: [] },
    ],
  });
});

test("whatever is not known in an access policy makes it one that is not followed", () => {
  const follows = (rule: RuleInit): boolean => decodeInboundPolicy(accessBytes([rule])) !== null;
  assert(follows(base));
  const broken: Record<string, RuleInit> = {
    "no action": { ...base, action: AccessRule_Action.ACTION_UNSPECIFIED },
    "an action": { ...base, action: 99 as AccessRule_Action },
    "no stage": { ...base, stage: AccessRule_Stage.STAGE_UNSPECIFIED },
    "a layer": { ...base, layer: 9 as AccessRule_Layer },
    "a route": { ...base, route: 0 },
    "a kind of source": { ...base, sources: { sources: [{}] } },
    "a network": {
      ...base,
      sources: { sources: [{ peer: { case: "anyone", value: {} }, networks: { networks: [{}] } }] },
    },
    "a prefix length": {
      ...base,
      sources: {
        sources: [{ peer: { case: "anyone", value: {} }, networks: { networks: [{ net: network(0, 33) }] } }],
      },
    },
    "a kind of path": { ...base, requests: { conditions: [{ paths: { paths: [{}] } }] } },
    "a kind of host": { ...base, requests: { conditions: [{ hosts: { hosts: [{}] } }] } },
    "a kind of header match": { ...base, requests: { conditions: [{ headers: [{ name: "a" }] }] } },
    "a regular expression": {
      ...base,
      requests: {
        conditions: [
          { paths: { paths: [{ kind: { case: "path", value: { kind: { case: "regex", value: "(" } } } }] } },
        ],
      },
    },
    "a claim": { ...base, requests: { conditions: [{ claims: [{ values: ["x"] }] }] } },
  };
  for (const [what, rule] of Object.entries(broken)) assert(!follows(rule), what);
});

test("a field that a later version may add, at any place, makes an access policy one that is not followed", () => {
  const later = new ProtoWriter().uint(15, 1);
  const at = (...fields: number[]): Uint8Array =>
    new ProtoWriter()
      .message(1, new ProtoWriter().message(1, new ProtoWriter()))
      .message(
        10_001,
        fields.reduceRight((inner, field) => new ProtoWriter().message(field, inner), later),
      )
      .finish();
  for (const fields of [
    [],
    [1],
    [2],
    [2, 5],
    [2, 5, 1],
    [2, 5, 1, 9],
    [2, 6],
    [2, 6, 1],
    [2, 6, 1, 1],
    [2, 6, 1, 2],
    [2, 6, 1, 2, 1],
    [2, 6, 1, 6],
  ])
    assert.equal(decodeInboundPolicy(at(...fields)), null, fields.join("."));
});

test("attack: a policy that is cut off or flipped anywhere never lets in more than it says", () => {
  const bytes = accessBytes([
    {
      ...base,
      sources: {
        sources: [
          {
            peer: {
              case: "identity",
              value: { trustDomain: "mesh.test", namespace: "shop", serviceAccount: "web" },
            },
            networks: { networks: [{ net: network(0x0a000000, 8) }] },
          },
        ],
      },
      requests: { conditions: [{ methods: { methods: ["GET"] } }] },
    },
  ]);
  const mallory = subjectOf(
    requestOf("/", { method: "POST" }),
    peerOf("mallory", "other", "evil.test"),
    "192.0.2.1",
  );
  // What is cut off before our field leaves the standard lists, which our control plane keeps as narrow.
  const from = bytes.length - serverBytes({}).length;
  for (let stop = from; stop < bytes.length; stop++) {
    const policy = decodeInboundPolicy(bytes.subarray(0, stop));
    if (policy !== null) assert.equal(decideAccess(policy.access, mallory).by.name, "standard");
  }
  fc.assert(
    fc.property(fc.uint8Array({ maxLength: 200 }), (random) => {
      const policy = decodeInboundPolicy(random);
      assert(
        policy === null ||
          decideAccess(policy.access, { ...mallory, ip: "192.0.2.2" as IpAddress }).verdict !== "allowed",
      );
    }),
  );
});
