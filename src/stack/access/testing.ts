import type { IpAddress } from "#/base/address.ts";
import type { Fields } from "#/base/fields.ts";
import type {
  AccessAction,
  AccessPolicy,
  AccessRequest,
  AccessRoute,
  AccessRule,
  AccessSource,
  AccessSubject,
  Claims,
  RequestCondition,
} from "#/model/access.ts";
import { dnsName, type PeerIdentity } from "#/model/identity.ts";
import type { PolicySource } from "#/model/policy.ts";
import { matchOf } from "../route/testing.ts";

export function policyNamed(name: string, section: string = ""): PolicySource {
  return { group: "pillion.dev", kind: "AuthorizationPolicy", namespace: "shop", name, section, port: 0 };
}

export function ruleOfAction(
  action: AccessAction,
  name: string,
  more: Partial<Omit<AccessRule, "action">> = {},
): AccessRule {
  return {
    action,
    stage: "both",
    source: policyNamed(name),
    sources: null,
    requests: null,
    route: null,
    layer: "both",
    ...more,
  };
}

export function accessOf(rules: readonly AccessRule[], routes: readonly AccessRoute[] = []): AccessPolicy {
  return { routes, rules };
}

/** Everybody may do everything. */
export const ACCESS_OF_ALL: AccessPolicy = accessOf([
  ruleOfAction("default", "all-unauthenticated", {
    source: { group: "", kind: "default", namespace: "", name: "all-unauthenticated", section: "", port: 0 },
  }),
]);
export const ACCESS_OF_NOBODY: AccessPolicy = accessOf([]);

/** Paths as `matchOf` has them: "/a", "/a*", "~/a.*", "rpc svc/method". */
export function conditionOf(
  paths: readonly string[] | null,
  more: Partial<Omit<RequestCondition, "paths">> = {},
): RequestCondition {
  return {
    methods: null,
    paths: paths?.map((path) => matchOf(path).path!) ?? null,
    hosts: null,
    headers: [],
    query: [],
    claims: [],
    ...more,
  };
}

export function peerOf(
  serviceAccount: string,
  namespace: string = "shop",
  trustDomain: string = "mesh.test",
): PeerIdentity {
  const identity = { trustDomain, namespace, serviceAccount };
  return { identity, name: dnsName(identity) };
}

export function sourceOfAccount(serviceAccount: string, namespace: string = "shop"): AccessSource {
  return { peer: { kind: "identity", trustDomain: "mesh.test", namespace, serviceAccount }, networks: null };
}

export const ANYONE: AccessSource = { peer: { kind: "anyone" }, networks: null };

export function requestOf(
  path: string,
  more: { method?: string; authority?: string; fields?: Fields; claims?: Claims | null } = {},
): AccessRequest {
  return { method: "GET", path, authority: "orders", fields: [], claims: null, ...more };
}

export function subjectOf(
  request: AccessRequest | null,
  peer: PeerIdentity | null = null,
  ip: string = "10.0.0.9",
): AccessSubject {
  return { ip: ip as IpAddress, peer, request };
}
