import assert from "node:assert/strict";
import { test } from "node:test";
import type { IpAddress } from "#/base/address.ts";
import type { PeerIdentity } from "#/model/identity.ts";
import type { Authorization, InboundPolicy } from "#/model/policy.ts";
import { authorize } from "./authorize.ts";

const client = "10.1.2.3" as IpAddress;
const web: PeerIdentity = {
  identity: { trustDomain: "cluster.local", namespace: "shop", serviceAccount: "web" },
  name: "web.shop.serviceaccount.identity.pillion.cluster.local",
};

function policy(...authorizations: Partial<Authorization>[]): InboundPolicy {
  const defaults: Authorization = {
    networks: [{ net: "0.0.0.0/0", except: [] }],
    authentication: { kind: "unauthenticated" },
    labels: { name: "x" },
  };
  return {
    protocol: "opaque",
    labels: {},
    authorizations: authorizations.map((one) => ({ ...defaults, ...one })),
    limits: null,
    access: null,
    jwt: null,
  };
}

test("denies when nothing is authorized, and says so", () => {
  const decision = authorize(policy(), client, web);
  assert(!decision.allowed);
  assert.match(decision.reason, /nothing is authorized/);
});

test("always allows loopback", () => {
  assert.equal(authorize(policy(), "127.0.0.1" as IpAddress, null).allowed, true);
});

test("matches networks less their exceptions", () => {
  const networks = [{ net: "10.0.0.0/8", except: ["10.1.0.0/16"] }];
  assert.equal(authorize(policy({ networks }), client, null).allowed, false);
  assert.equal(authorize(policy({ networks }), "10.2.0.1" as IpAddress, null).allowed, true);
  assert.equal(authorize(policy({ networks }), "fd00::1" as IpAddress, null).allowed, false);
});

test("compares identities, not strings", () => {
  const one = (identities: string[]): InboundPolicy =>
    policy({ authentication: { kind: "meshed", identities, suffixes: [] } });
  assert.equal(authorize(one(["spiffe://cluster.local/ns/shop/sa/web"]), client, web).allowed, true);
  assert.equal(authorize(one(["spiffe://cluster.local/ns/shop/sa/other"]), client, web).allowed, false);
  assert.equal(authorize(one(["spiffe://cluster.local/ns/shop/sa/web"]), client, null).allowed, false);
});

test("matches suffixes by whole labels", () => {
  const one = (parts: string[]): InboundPolicy =>
    policy({ authentication: { kind: "meshed", identities: [], suffixes: [parts] } });
  assert.equal(
    authorize(one(["shop", "serviceaccount", "identity", "pillion", "cluster", "local"]), client, web)
      .allowed,
    true,
  );
  assert.equal(
    authorize(one(["op", "serviceaccount", "identity", "pillion", "cluster", "local"]), client, web).allowed,
    false,
  );
  assert.equal(authorize(one([]), client, web).allowed, true);
});
