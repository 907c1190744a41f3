import { compilePattern } from "#/stack/route/pattern.ts";
import type {
  AccessSourceSpec,
  AuthorizationPolicyObject,
  LinkerdAuthorizationPolicyObject,
  MeshTlsAuthenticationObject,
  RequestSpec,
  ServerAuthorizationObject,
} from "./access-objects.ts";
import { isLinkerds } from "./objects.ts";
import type { KubeObject } from "./objects.ts";

type Path = readonly (string | number)[];
type Say = (path: Path, reason: string) => void;

/** What the schemas of the kinds that say who may cannot say: fields that must agree with each other inside one object. */
export function checkAccessSemantics(object: KubeObject, say: Say): void {
  if (object.kind === "AuthorizationPolicy") {
    if (isLinkerds(object)) checkLinkerdPolicy(object as LinkerdAuthorizationPolicyObject, say);
    else checkAuthorizationPolicy(object as AuthorizationPolicyObject, say);
  } else if (object.kind === "MeshTLSAuthentication") checkMeshTls(object, say);
  else if (object.kind === "ServerAuthorization") checkServerAuthorization(object, say);
}

function checkAuthorizationPolicy({ spec, metadata }: AuthorizationPolicyObject, say: Say): void {
  checkTargets(spec, metadata.namespace ?? "default", say);
  if (spec.action === "AUDIT" && spec.mode === "Audit")
    say(["spec", "mode"], "has no effect with action: AUDIT, which refuses nobody; delete it");
  const names = new Set<string>();
  for (const [i, rule] of (spec.rules ?? []).entries()) {
    const at = ["spec", "rules", i];
    if (rule.name !== undefined) {
      if (names.has(rule.name))
        say([...at, "name"], `${rule.name} is used twice; rules are told apart by it`);
      names.add(rule.name);
    }
    for (const [s, source] of (rule.sources ?? []).entries()) checkSource(source, [...at, "sources", s], say);
    if (spec.enforcementLevel === "Network" && rule.requests !== undefined)
      say(
        [...at, "requests"],
        "contradicts enforcementLevel: Network, where nothing is known of requests; write Application or delete one",
      );
    for (const [r, request] of (rule.requests ?? []).entries())
      checkRequest(request, [...at, "requests", r], say);
  }
}

const CORE = new Set(["Pod", "Service", "Namespace"]);

export function checkTargets(
  {
    targetRefs,
    enforcementLevel,
  }: Pick<AuthorizationPolicyObject["spec"], "targetRefs" | "enforcementLevel">,
  namespace: string,
  say: Say,
): void {
  const seen = new Set<string>();
  for (const [i, ref] of targetRefs.entries()) {
    const at = ["spec", "targetRefs", i];
    const { group, kind, name, selector } = ref;
    const wanted = CORE.has(kind) ? "" : "gateway.networking.k8s.io";
    if (group !== wanted) say([...at, "group"], `must be ${JSON.stringify(wanted)} for kind: ${kind}`);
    if (kind === "Pod") {
      if (selector === undefined)
        say(at, "selector is missing; a Pod target selects by labels, {} being all pods of the namespace");
      if (name !== undefined)
        say([...at, "name"], "is not for kind: Pod, which selects by labels; use selector");
      if (targetRefs.length > 1)
        say(at, "must be the only target, being a selector; write another policy for the others");
    } else if (selector !== undefined)
      say([...at, "selector"], `is for kind: Pod only; a ${kind} is known by its name`);
    if (kind === "Namespace" && name !== undefined && name !== namespace)
      say(
        [...at, "name"],
        `must be ${namespace}, the policy's own namespace, or not be there; a policy is about its own namespace`,
      );
    if (name === undefined && kind !== "Pod" && kind !== "Namespace") say(at, "name is missing");
    if (enforcementLevel === "Network" && !CORE.has(kind))
      say(
        [...at, "kind"],
        `${kind} contradicts enforcementLevel: Network, where nothing is known of requests; write Application`,
      );
    const key = `${kind} ${name ?? ""}`;
    if (seen.has(key) && kind !== "Pod") say(at, "is listed twice; remove one");
    seen.add(key);
  }
}

/** Which field each type has; null: none. */
const FIELD_OF = {
  ServiceAccount: "serviceAccount",
  SPIFFE: "spiffe",
  Namespace: "namespace",
  TrustDomain: "trustDomain",
  Authenticated: null,
  Unauthenticated: null,
  CIDR: "cidr",
} as const;

function checkSource(source: AccessSourceSpec, at: Path, say: Say): void {
  const own = FIELD_OF[source.type];
  if (own !== null && source[own] === undefined)
    say(at, `${own} is missing; type: ${source.type} is said by it`);
  for (const field of Object.values(FIELD_OF))
    if (field !== null && field !== own && source[field] !== undefined)
      say([...at, field], `is not for type: ${source.type}; write another entry, for one of them must hold`);
  if (source.except !== undefined && source.type !== "CIDR")
    say([...at, "except"], "is for type: CIDR only, whose addresses it takes out");
  if (source.cidrs !== undefined && source.type === "CIDR")
    say([...at, "cidrs"], "says the same as cidr; write another entry of type: CIDR");
}

/** As a sidecar would: what it could not match by, it would never match. */
export function checkRequest(request: RequestSpec, at: Path, say: Say): void {
  const { paths, grpc, headers, query } = request;
  if (paths !== undefined && grpc !== undefined)
    say([...at, "grpc"], "says the same as paths, for a call is a path; write one of them");
  for (const [i, { type, value }] of (paths ?? []).entries()) {
    if (type === "RegularExpression") checkPattern(value, [...at, "paths", i, "value"], say);
    else if (!value.startsWith("/"))
      say([...at, "paths", i, "value"], "must begin with /; every path does, so nothing would match");
    else if (/[?#]/.test(value))
      say(
        [...at, "paths", i, "value"],
        "must be without ? and #; paths are compared without the query, for which there is query",
      );
  }
  for (const [field, matches] of [
    ["headers", headers],
    ["query", query],
  ] as const) {
    const names = new Set<string>();
    for (const [i, { name, type, value }] of (matches ?? []).entries()) {
      const key = field === "headers" ? name.toLowerCase() : name;
      if (names.has(key)) say([...at, field, i, "name"], `${name} is listed twice; remove one`);
      names.add(key);
      if (type === "RegularExpression") checkPattern(value, [...at, field, i, "value"], say);
    }
  }
}

function checkPattern(source: string, at: Path, say: Say): void {
  const compiled = compilePattern(source);
  if (compiled.kind === "problem") say(at, compiled.problem);
}

function checkLinkerdPolicy({ spec }: LinkerdAuthorizationPolicyObject, say: Say): void {
  let identities = 0;
  let networks = 0;
  for (const [i, ref] of spec.requiredAuthenticationRefs.entries()) {
    const isNetwork = ref.kind === "NetworkAuthentication";
    if (isNetwork ? ++networks > 1 : ++identities > 1)
      say(
        ["spec", "requiredAuthenticationRefs", i],
        isNetwork
          ? "is a second NetworkAuthentication, and all must hold; join their networks in one"
          : "is a second one that asks for an identity, and all must hold; join them in one MeshTLSAuthentication",
      );
  }
}

function checkMeshTls({ spec }: MeshTlsAuthenticationObject, say: Say): void {
  if (spec.identities === undefined && spec.identityRefs === undefined)
    say(["spec"], "must have identities or identityRefs; without either nobody could be meant");
}

function checkServerAuthorization({ spec }: ServerAuthorizationObject, say: Say): void {
  if ((spec.server.name === undefined) === (spec.server.selector === undefined))
    say(["spec", "server"], "must have either name or selector, which say whose ports it is about");
  const { unauthenticated, meshTLS } = spec.client;
  if (unauthenticated !== true && meshTLS === undefined)
    say(["spec", "client"], "must have unauthenticated: true or meshTLS; nobody would be let in");
  else if (
    unauthenticated !== true &&
    meshTLS?.identities === undefined &&
    meshTLS?.serviceAccounts === undefined
  )
    say(["spec", "client", "meshTLS"], "must have identities or serviceAccounts; nobody would be let in");
}
