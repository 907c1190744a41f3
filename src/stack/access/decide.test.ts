import assert from "node:assert/strict";
import { test } from "node:test";
import type {
  AccessDecision,
  AccessPolicy,
  AccessSubject,
  PeerMatch,
  RequestCondition,
} from "#/model/access.ts";
import { spiffeUri } from "#/model/identity.ts";
import { matchOf, sourceNamed } from "../route/testing.ts";
import { accessRulesOf, decideAccess } from "./decide.ts";
import {
  accessOf,
  ANYONE,
  conditionOf,
  peerOf,
  policyNamed,
  requestOf,
  ruleOfAction,
  sourceOfAccount,
  subjectOf,
} from "./testing.ts";

/** "allowed allow-web", "denied deny". */
function outcome(policy: AccessPolicy, subject: AccessSubject): string {
  const { verdict, by } = decideAccess(policy, subject);
  return `${verdict} ${by.name}`;
}

const web = peerOf("web");
const everything = [ruleOfAction("default", "all")];

test("loopback is allowed, whatever the rules say", () => {
  const policy = accessOf([ruleOfAction("deny", "d")]);
  for (const ip of ["127.0.0.1", "127.9.9.9", "::1"]) {
    assert.equal(outcome(policy, subjectOf(null, null, ip)), "allowed localhost");
    assert.equal(outcome(policy, subjectOf(requestOf("/a%2Fb"), null, ip)), "allowed localhost");
  }
});

test("the steps have their order, and the first rule of a step is named", () => {
  const rules = [
    ruleOfAction("default", "default"),
    ruleOfAction("restrict", "restrict"),
    ruleOfAction("allow", "allow"),
    ruleOfAction("allow", "later"),
    ruleOfAction("deny", "deny"),
    ruleOfAction("exempt", "exempt"),
  ];
  const left = [...rules];
  for (const expected of ["allowed exempt", "denied deny", "allowed allow"]) {
    assert.equal(outcome(accessOf(left), subjectOf(null)), expected);
    assert.equal(outcome(accessOf(left), subjectOf(requestOf("/"))), expected);
    left.pop();
  }
  assert.equal(outcome(accessOf(rules.slice(0, 2)), subjectOf(requestOf("/"))), "denied restrict");
  assert.equal(outcome(accessOf(rules.slice(0, 1)), subjectOf(requestOf("/"))), "allowed default");
  assert.equal(outcome(accessOf([]), subjectOf(requestOf("/"))), "denied deny");
});

test("an earlier rule that asks something is named before a later one that asks nothing", () => {
  const policy = accessOf([
    ruleOfAction("allow", "reads", { requests: [conditionOf(null, { methods: ["GET"] })] }),
    ruleOfAction("allow", "all"),
    ruleOfAction("allow", "never", { requests: [conditionOf(["/"])] }),
  ]);
  assert.equal(outcome(policy, subjectOf(requestOf("/"))), "allowed reads");
  assert.equal(outcome(policy, subjectOf(requestOf("/", { method: "POST" }))), "allowed all");
});

test("sources hold by what is proven, never by a string's shape", () => {
  const spiffe = { ...web, name: spiffeUri(web.identity) };
  const foreign = peerOf("web", "shop", "other.test");
  const cases: readonly (readonly [PeerMatch, string])[] = [
    [{ kind: "anyone" }, "nobody web spiffe foreign"],
    [{ kind: "unauthenticated" }, "nobody"],
    [{ kind: "authenticated" }, "web spiffe foreign"],
    [{ kind: "trust-domain", trustDomain: "mesh.test" }, "web spiffe"],
    [{ kind: "namespace", trustDomain: "mesh.test", namespace: "shop" }, "web spiffe"],
    [{ kind: "namespace", trustDomain: "mesh.test", namespace: "sho" }, ""],
    [{ kind: "identity", trustDomain: "mesh.test", namespace: "shop", serviceAccount: "web" }, "web spiffe"],
    [{ kind: "identity", trustDomain: "mesh.test", namespace: "shop", serviceAccount: "we" }, ""],
    [{ kind: "name", name: web.name }, "web"],
    [{ kind: "suffix", labels: [] }, "web spiffe foreign"],
    [{ kind: "suffix", labels: ["mesh", "test"] }, "web spiffe"],
    [{ kind: "suffix", labels: ["esh", "test"] }, ""],
    [{ kind: "suffix", labels: web.name.split(".") }, ""],
  ];
  for (const [peer, expected] of cases) {
    const policy = accessOf([ruleOfAction("allow", "a", { sources: [{ peer, networks: null }] })]);
    const held = Object.entries({ nobody: null, web, spiffe, foreign })
      .filter(([, who]) => decideAccess(policy, subjectOf(null, who)).verdict === "allowed")
      .map(([name]) => name)
      .join(" ");
    assert.equal(held, expected, JSON.stringify(peer));
  }
});

test("no source is nobody; networks hold less their exceptions, and none is nowhere", () => {
  const from = (networks: readonly { net: string; except: string[] }[]): AccessPolicy =>
    accessOf([ruleOfAction("allow", "a", { sources: [{ peer: { kind: "anyone" }, networks }] })]);
  const cluster = from([{ net: "10.0.0.0/8", except: ["10.1.0.0/16"] }]);
  assert.equal(outcome(cluster, subjectOf(null, null, "10.2.0.1")), "allowed a");
  assert.equal(outcome(cluster, subjectOf(null, null, "10.1.0.1")), "denied deny");
  assert.equal(outcome(cluster, subjectOf(null, null, "fd00::1")), "denied deny");
  assert.equal(outcome(from([]), subjectOf(null)), "denied deny");
  assert.equal(
    outcome(accessOf([ruleOfAction("allow", "a", { sources: [] })]), subjectOf(null)),
    "denied deny",
  );
});

function holds(
  condition: RequestCondition,
  request: ReturnType<typeof requestOf>,
  action: "allow" | "deny" = "allow",
): boolean {
  const rules = [
    ruleOfAction(action, "x", { requests: [condition] }),
    ...(action === "deny" ? everything : []),
  ];
  const { verdict } = decideAccess(accessOf(rules), subjectOf(request, web));
  return (verdict === "allowed") === (action === "allow");
}

test("paths are compared in normal form", () => {
  const prefix = conditionOf(["/orders*"]);
  for (const path of ["/orders", "/orders/", "/orders/7?x", "/%6frders", "//orders/7", "/a/../orders"])
    assert(holds(prefix, requestOf(path)), path);
  for (const path of ["/ordersx", "/Orders", "/orders/../x", "/?/orders", "/x/orders"])
    assert(!holds(prefix, requestOf(path)), path);
  assert(holds(conditionOf(["/a"]), requestOf("/a")));
  assert(!holds(conditionOf(["/a"]), requestOf("/a/")));
  assert(holds(conditionOf(["/users/bob@x:1"]), requestOf("/users/bob%40x%3a1")));
  assert(holds(conditionOf(["/caf\u00e9"]), requestOf("/caf%c3%a9")));
  assert(holds(conditionOf(["/caf%C3%A9"]), requestOf("/caf\xc3\xa9")));
  assert(!holds(conditionOf(["/a?b"]), requestOf("/a?b")));
  assert(holds(conditionOf(["/a?b"]), requestOf("/a%3Fb")));
  assert(holds(conditionOf(["~/[a-c]+/\\d+"]), requestOf("/abc/12")));
  assert(!holds(conditionOf(["~/[a-c]+"]), requestOf("/abcd")));
  assert(holds(conditionOf(["~/caf.\\d"]), requestOf("/caf%C3%A91")));
});

test("gRPC methods hold by their path", () => {
  assert(holds(conditionOf(["rpc shop.Cart/Add"]), requestOf("/shop.Cart/Add")));
  assert(!holds(conditionOf(["rpc shop.Cart/Add"]), requestOf("/shop.Cart/Remove")));
  assert(holds(conditionOf(["rpc shop.Cart/"]), requestOf("/shop.Cart/Remove")));
  assert(!holds(conditionOf(["rpc shop.Cart/"]), requestOf("/shop.CartX/Remove")));
  assert(holds(conditionOf(["rpc /Add"]), requestOf("/shop.Cart/Add")));
  assert(holds(conditionOf(["rpc /"]), requestOf("/shop.Cart/Add")));
});

test("an empty list says nothing, and a rule without requests holds for none", () => {
  assert(holds(conditionOf([], { methods: [], hosts: [] }), requestOf("/")));
  const policy = accessOf([ruleOfAction("deny", "d", { requests: [] }), ...everything]);
  assert.equal(outcome(policy, subjectOf(requestOf("/"))), "allowed all");
  assert.equal(outcome(policy, subjectOf(null)), "allowed all");
});

test("methods are compared as they are, hosts without case, port and last dot", () => {
  assert(!holds(conditionOf(null, { methods: ["GET"] }), requestOf("/", { method: "get" })));
  const hosts = conditionOf(null, {
    hosts: [
      { kind: "exact", host: "web.shop" },
      { kind: "suffix", host: "example.com" },
    ],
  });
  for (const authority of ["web.shop", "WEB.shop:80", "web.shop.", "web.shop.:8080", "a.example.com"])
    assert(holds(hosts, requestOf("/", { authority })), authority);
  for (const authority of ["", "example.com", "xexample.com", "web.shop.evil", ".example.com"])
    assert(!holds(hosts, requestOf("/", { authority })), authority);
});

test("several fields of a name are one value; a rule that refuses holds for each of them too", () => {
  const admin = { name: "x-role", value: { kind: "exact", value: "admin" } } as const;
  const role = conditionOf(null, { headers: [admin] });
  const twice = requestOf("/?x-role=admin&x-role=user", { fields: ["X-Role", "admin", "x-role", "user"] });
  assert(holds(role, requestOf("/", { fields: ["X-ROLE", "admin"] })));
  assert(!holds(role, requestOf("/", { fields: [] })));
  assert(!holds(role, twice));
  assert(holds(role, twice, "deny"));
  const query = conditionOf(null, { query: [admin] });
  assert(holds(query, requestOf("/?a=b&x%2Drole=%61dmin")));
  assert(!holds(query, twice));
  assert(holds(query, twice, "deny"));
  assert(holds(query, requestOf("/?x-role=user&x-role=admin"), "deny"));
});

test("claims hold by value, or by one of a list; without a token none does", () => {
  const claims = { iss: "x", roles: ["a", "b"], realm: { access: { level: 3 } }, ok: true };
  const asks = (claim: string, ...values: string[]): boolean =>
    holds(conditionOf(null, { claims: [{ claim, values }] }), requestOf("/", { claims }));
  assert(asks("iss", "y", "x"));
  assert(asks("roles", "b"));
  assert(!asks("roles", "c"));
  assert(asks("realm.access.level", "3"));
  assert(asks("ok", "true"));
  assert(!asks("realm", "[object Object]"));
  assert(!asks("constructor.name", "Object"));
  assert(!asks("roles.0", "a"));
  assert(!holds(conditionOf(null, { claims: [{ claim: "iss", values: ["x"] }] }), requestOf("/")));
});

test("what cannot be seen is not allowed: opaque connections", () => {
  const some = { requests: [conditionOf(["/a"])] };
  const opaque = (...rules: Parameters<typeof accessOf>[0]): string =>
    outcome(accessOf(rules), subjectOf(null, web));
  assert.equal(opaque(ruleOfAction("deny", "d", some), ...everything), "denied d");
  assert.equal(
    opaque(ruleOfAction("deny", "d", { ...some, sources: [sourceOfAccount("other")] }), ...everything),
    "allowed all",
  );
  assert.equal(opaque(ruleOfAction("restrict", "r", some), ...everything), "denied r");
  assert.equal(opaque(ruleOfAction("allow", "a", some)), "denied deny");
  assert.equal(opaque(ruleOfAction("exempt", "e", some)), "denied deny");
  assert.equal(opaque(ruleOfAction("default", "f", some)), "denied deny");
  assert.equal(opaque(ruleOfAction("allow", "a", { route: 0 })), "denied deny");
  assert.equal(opaque(ruleOfAction("deny", "d", { route: 0 }), ...everything), "denied d");
  assert.deepEqual(
    decideAccess(accessOf([ruleOfAction("audit", "a", some), ...everything]), subjectOf(null)).audits,
    [],
  );
});

test("layers tell connections from requests", () => {
  const policy = accessOf([
    ruleOfAction("allow", "connections", { layer: "connections" }),
    ruleOfAction("allow", "requests", { layer: "requests" }),
  ]);
  assert.equal(outcome(policy, subjectOf(null)), "allowed connections");
  assert.equal(outcome(policy, subjectOf(requestOf("/"))), "allowed requests");
});

test("a request is its winning route's; one that none takes is answered 404 unless it is denied", () => {
  const routes = [
    { source: sourceNamed("reads"), hosts: [], matches: [matchOf("/a*")] },
    { source: sourceNamed("exact"), hosts: [], matches: [matchOf("/a/b"), matchOf(null, { method: "PUT" })] },
  ];
  const policy = accessOf(
    [
      ruleOfAction("deny", "no-teapots", { requests: [conditionOf(null, { methods: ["BREW"] })] }),
      ruleOfAction("allow", "of-reads", { route: 0 }),
      ruleOfAction("allow", "of-exact", { route: 1, sources: [sourceOfAccount("web")] }),
    ],
    routes,
  );
  assert.equal(outcome(policy, subjectOf(requestOf("/a/c"))), "allowed of-reads");
  assert.equal(outcome(policy, subjectOf(requestOf("/a/b"))), "denied deny");
  assert.equal(outcome(policy, subjectOf(requestOf("/a/%62"), web)), "allowed of-exact");
  assert.equal(outcome(policy, subjectOf(requestOf("/x"), web)), "no-route no-route");
  assert.equal(outcome(policy, subjectOf(requestOf("/x", { method: "PUT" }), web)), "allowed of-exact");
  assert.equal(outcome(policy, subjectOf(requestOf("/x", { method: "BREW" }), web)), "denied no-teapots");
  assert.equal(outcome(policy, subjectOf(requestOf("/a%2Fb"), web)), "ambiguous ambiguous-path");
});

test("one route that takes everything is looked up for nobody", () => {
  const routes = [{ source: sourceNamed("all"), hosts: [], matches: [matchOf("/*")] }];
  const policy = accessOf(
    [ruleOfAction("allow", "a", { route: 0, sources: [sourceOfAccount("web")] })],
    routes,
  );
  assert.equal(accessRulesOf(policy).table, null);
  assert.equal(accessRulesOf(policy).normalisesPaths, false);
  assert.equal(outcome(policy, subjectOf(requestOf("/a%2Fb"), web)), "allowed a");
  assert.equal(outcome(policy, subjectOf(requestOf("/"))), "denied deny");
  assert.equal(outcome(policy, subjectOf(null, web)), "denied deny");
});

test("ambiguous paths are refused only where an enforced rule tells paths apart", () => {
  const trick = subjectOf(requestOf("/public/..%2Fadmin"));
  const path = { requests: [conditionOf(["/public*"])] };
  assert.equal(outcome(accessOf([ruleOfAction("allow", "a", path)]), trick), "ambiguous ambiguous-path");
  assert.equal(outcome(accessOf([ruleOfAction("audit", "a", path), ...everything]), trick), "allowed all");
  assert.equal(outcome(accessOf([ruleOfAction("exempt", "a", path), ...everything]), trick), "allowed all");
  const proposed = decideAccess(
    accessOf([ruleOfAction("allow", "a", { ...path, stage: "proposed" }), ...everything]),
    trick,
  );
  assert.equal(proposed.verdict, "allowed");
  assert.equal(proposed.would?.by.name, "ambiguous-path");
});

test("a probe is known byte for byte, also where its path has several readings", () => {
  const policy = accessOf([
    ruleOfAction("exempt", "probe", { requests: [conditionOf(["/live%2Fx"], { methods: ["GET"] })] }),
    ruleOfAction("deny", "d", { requests: [conditionOf(["/"])] }),
  ]);
  assert.equal(outcome(policy, subjectOf(requestOf("/live%2Fx"))), "allowed probe");
  assert.equal(outcome(policy, subjectOf(requestOf("/live%2fx"))), "ambiguous ambiguous-path");
});

test("the path that was decided upon is the one to forward", () => {
  const decided = (policy: AccessPolicy, path: string): string => {
    const client = accessRulesOf(policy).clientOf(subjectOf(null).ip, null);
    client.decide(requestOf(path), null);
    return client.path;
  };
  const looks = accessOf([ruleOfAction("allow", "a", { requests: [conditionOf(["/b"])] }), ...everything]);
  assert.equal(decided(looks, "/a/../b?q=%61"), "/b?q=%61");
  assert.equal(decided(looks, "/%41"), "/A");
  // Rules about others are rules of the port.
  const ofOthers = accessOf([
    ruleOfAction("deny", "d", { sources: [], requests: [conditionOf(["/b"])] }),
    ...everything,
  ]);
  assert.equal(decided(ofOthers, "/a/../b"), "/b");
  assert.equal(decided(accessOf(everything), "/a/../b%2F"), "/a/../b%2F");
});

test("proposed rules tell what they would change", () => {
  const would = (...rules: Parameters<typeof accessOf>[0]): AccessDecision["would"] =>
    decideAccess(accessOf(rules), subjectOf(requestOf("/"), web)).would;
  assert.deepEqual(would(ruleOfAction("deny", "d", { stage: "proposed" }), ...everything), {
    verdict: "would_deny",
    by: policyNamed("d"),
  });
  assert.deepEqual(
    would(
      ruleOfAction("allow", "a", { stage: "proposed" }),
      ruleOfAction("deny", "d", { stage: "enforced" }),
    ),
    {
      verdict: "would_allow",
      by: policyNamed("a"),
    },
  );
  assert.equal(would(ruleOfAction("default", "audit", { stage: "enforced" }))?.by.name, "deny");
  assert.equal(would(ruleOfAction("deny", "d", { stage: "proposed", sources: [] }), ...everything), null);
  assert.equal(
    would(ruleOfAction("deny", "d", { stage: "proposed" }), ruleOfAction("deny", "e", { stage: "enforced" })),
    null,
  );
});

test("AUDIT tells the first rule of each object that holds, and decides nothing", () => {
  const policy = accessOf([
    ruleOfAction("audit", "a", { source: policyNamed("a", "0"), requests: [conditionOf(["/x"])] }),
    ruleOfAction("audit", "a", { source: policyNamed("a", "1") }),
    ruleOfAction("audit", "a", { source: policyNamed("a", "2") }),
    ruleOfAction("audit", "b", { sources: [sourceOfAccount("web")] }),
    ...everything,
  ]);
  const told = (...subject: Parameters<typeof subjectOf>): string[] =>
    decideAccess(policy, subjectOf(...subject)).audits.map(({ name, section }) => name + section);
  assert.deepEqual(told(requestOf("/x"), web), ["a0", "b"]);
  assert.deepEqual(told(requestOf("/")), ["a1"]);
  assert.deepEqual(told(null), ["a1"]);
});

test("what cannot be read refuses, and allows nobody", () => {
  const network = [{ peer: ANYONE.peer, networks: [{ net: "10.0.0.0/99", except: [] }] }];
  const except = [{ peer: ANYONE.peer, networks: [{ net: "0.0.0.0/0", except: ["x"] }] }];
  const path = [conditionOf(["~/("])];
  const header = [conditionOf(null, { headers: [{ name: "a", value: { kind: "regex", value: "(" } }] })];
  const prefix = [conditionOf(["orders*"])];
  for (const part of [
    { sources: network },
    { sources: except },
    { requests: path },
    { requests: header },
    { requests: prefix },
  ]) {
    const allow = accessOf([ruleOfAction("allow", "a", part)]);
    const request = requestOf("/rders", { fields: ["a", "b"] });
    assert.equal(decideAccess(allow, subjectOf(request)).verdict, "denied", JSON.stringify(part));
    assert.equal(
      outcome(accessOf([ruleOfAction("deny", "d", part), ...everything]), subjectOf(request)),
      "denied d",
    );
    assert.equal(accessRulesOf(allow).problems.length, 1);
  }
});

test("equal outcomes of one client are one decision, and a refusal says who and why", () => {
  const policy = accessOf([
    ruleOfAction("allow", "a", { requests: [conditionOf(["/a*"])] }),
    ruleOfAction("restrict", "a"),
  ]);
  const decide = (path: string): AccessDecision => decideAccess(policy, subjectOf(requestOf(path), web));
  assert.equal(decide("/a/1"), decide("/a/2"));
  assert.notEqual(decide("/a/1"), decide("/b"));
  assert.equal(
    decide("/b").reason,
    `${web.name} (10.0.0.9) was refused: AuthorizationPolicy/shop/a is for those whom a policy here allows, and none allows this`,
  );
});
