import assert from "node:assert/strict";
import { test } from "node:test";
import type { AccessPolicy, AccessRequest } from "#/model/access.ts";
import { accessOf, conditionOf, ruleOfAction } from "./testing.ts";
import { decideUnseen, isAbout, reachOf, ruleHolds } from "./what-if.ts";
import type { IpAddress } from "#/base/address.ts";

const WHO = { ip: "10.0.0.1" as IpAddress, peer: null };
const DENY_REST = ruleOfAction("default", "deny", { sources: [] });
const ALL = ruleOfAction("default", "all");

function request(method: string, path: string): AccessRequest {
  return { method, path, authority: "web", fields: [], claims: null };
}

test("what may be asked is everything, some, or nothing, also were audit mode enforced", () => {
  const reach = (policy: AccessPolicy, isOpaque = false): string => {
    const { enforced, proposed } = reachOf(policy, WHO, isOpaque);
    return enforced === proposed ? enforced : `${enforced}, ${proposed}`;
  };
  const reads = { requests: [conditionOf(["/a*"], { methods: ["GET"] })] };
  assert.equal(reach(accessOf([ALL])), "allowed");
  assert.equal(reach(accessOf([DENY_REST])), "denied");
  assert.equal(reach(accessOf([ruleOfAction("allow", "a", reads), DENY_REST])), "partly");
  assert.equal(reach(accessOf([ruleOfAction("allow", "a", reads), ALL])), "allowed");
  assert.equal(reach(accessOf([ruleOfAction("deny", "a", reads), ALL])), "partly");
  assert.equal(reach(accessOf([ruleOfAction("deny", "a"), ALL])), "denied");
  assert.equal(reach(accessOf([ruleOfAction("deny", "a", { stage: "proposed" }), ALL])), "allowed, denied");
  // Of an opaque connection nothing is seen: what allows by requests does not hold, and what denies by them does.
  assert.equal(reach(accessOf([ruleOfAction("allow", "a", reads), DENY_REST]), true), "denied");
  assert.equal(reach(accessOf([ruleOfAction("deny", "a", reads), ALL]), true), "denied");
});

test("of a request whose fields are not known, best and worst differ where a rule that counts looks at them", () => {
  const verdicts = (policy: AccessPolicy, asked: AccessRequest): string => {
    const { best, worst } = decideUnseen(policy, { ...WHO, request: asked });
    return best.verdict === worst.verdict ? best.verdict : `${best.verdict} or ${worst.verdict}`;
  };
  const keyed = {
    requests: [conditionOf(["/a*"], { headers: [{ name: "x-key", value: { kind: "exact", value: "1" } }] })],
  };
  const allow = accessOf([ruleOfAction("allow", "a", keyed), DENY_REST]);
  assert.equal(verdicts(allow, request("GET", "/a/b")), "allowed or denied");
  assert.equal(verdicts(allow, request("GET", "/b")), "denied");
  const deny = accessOf([ruleOfAction("deny", "a", keyed), ALL]);
  assert.equal(verdicts(deny, request("GET", "/a/b")), "allowed or denied");
  assert.equal(verdicts(deny, request("GET", "/b")), "allowed");
});

test("each rule is told by itself whether it holds, whatever stands before it", () => {
  const onA = { requests: [conditionOf(["/a*"])] };
  const rules = [
    ruleOfAction("deny", "d", onA),
    ruleOfAction("allow", "a", { ...onA, stage: "proposed" }),
    ruleOfAction("restrict", "r"),
    ruleOfAction("audit", "t", onA),
    DENY_REST,
  ];
  const policy = accessOf(rules);
  const held = (path: string): (boolean | null)[] =>
    rules.map((rule) => ruleHolds(policy, rule, { ...WHO, request: request("GET", path) }));
  assert.deepEqual(held("/a"), [true, true, true, true, false]);
  assert.deepEqual(held("/b"), [false, false, true, false, false]);
  assert.equal(held("/a/%2e%2e%2fb")[0], null);
});

test("a rule is about whom its sources hold for, whatever is asked", () => {
  const requests = [conditionOf(["/a"])];
  assert.equal(isAbout(ruleOfAction("deny", "d", { requests }), WHO.ip, null), true);
  assert.equal(isAbout(ruleOfAction("deny", "d", { requests: [] }), WHO.ip, null), false);
  const sources = [{ peer: { kind: "authenticated" }, networks: null }] as const;
  assert.equal(isAbout(ruleOfAction("allow", "a", { sources }), WHO.ip, null), false);
});
