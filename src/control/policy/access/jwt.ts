import type { JwtIssuerSpec, JwtPolicyObject } from "#/kube/access-objects.ts";
import { durationMs } from "#/kube/duration.ts";
import type { LoadedObject } from "#/kube/folder.ts";
import { serviceHost } from "#/kube/jwt-semantics.ts";
import { groupOf, namespaceOf, selectorMatches } from "#/kube/objects.ts";
import type { JwtIssuer, JwtPolicy } from "#/model/access.ts";
import { readKeySet } from "../../jwt/key-set.ts";
import type { KeySet, KeySetSource } from "../../jwt/key-sets.ts";
import type { MeshView, ViewPod } from "../../services/mesh-view.ts";
import { ageKey, byAge } from "../attach.ts";
import { sourceOf } from "../backends.ts";
import type { Finding } from "../conditions.ts";
import { isOneOf } from "./access-index.ts";
import { conditionOf } from "./requests.ts";
import type { AccessStatus } from "./status.ts";
import { targetOf } from "./status.ts";
import { placesOf, type AccessPlace } from "./targets.ts";

/** A JwtPolicy at one of its targets. */
export interface JwtEntry {
  readonly place: AccessPlace;
  readonly age: string;
  readonly policy: JwtPolicy;
  /** By issuer: where its keys are fetched; null where they are given. */
  readonly urls: readonly (string | null)[];
}

/** By namespace; what is about less first, and of that the older. */
export type JwtIndex = ReadonlyMap<string, readonly JwtEntry[]>;

const LEEWAY_MS = 60_000;

/** All JwtPolicies, as far as they can be told without the keys that are fetched. */
export function jwtIndex(
  byKind: ReadonlyMap<string, readonly LoadedObject[]>,
  view: MeshView,
  tell: (status: AccessStatus) => void,
): JwtIndex {
  const entries = new Map<string, JwtEntry[]>();
  for (const loaded of (byKind.get("JwtPolicy") ?? []).toSorted(byAge)) {
    const object = loaded.object as JwtPolicyObject;
    const namespace = namespaceOf(object);
    const findings: Finding[] = [];
    const policy = policyOf(object, byKind, findings);
    const urls = object.spec.issuers.map(({ jwks }) => jwks.url ?? null);
    for (const [index, ref] of object.spec.targetRefs.entries()) {
      const found = placesOf(object, index, byKind, view);
      const some = entries.get(namespace) ?? [];
      entries.set(namespace, some);
      if (found.kind === "places")
        some.push(...found.places.map((place) => ({ place, age: ageKey(loaded), policy, urls })));
      tell({
        loaded,
        parent: targetOf(ref, namespace),
        refusal: found.kind === "places" ? null : found.refusal,
        reference: findings[0] ?? null,
        note: "",
        findings: found.kind === "places" ? opacities(object, found.places) : [],
      });
    }
  }
  for (const some of entries.values())
    some.sort((a, b) => a.place.rank - b.place.rank || (a.age < b.age ? -1 : a.age > b.age ? 1 : 0));
  return entries;
}

function policyOf(
  policy: JwtPolicyObject,
  byKind: ReadonlyMap<string, readonly LoadedObject[]>,
  findings: Finding[],
): JwtPolicy {
  const { issuers, required } = policy.spec;
  return {
    source: sourceOf(groupOf(policy), policy.kind, namespaceOf(policy), policy.metadata.name),
    issuers: issuers.map((issuer, index) => issuerOf(policy, issuer, index, byKind, findings)),
    required: required === undefined ? null : (required.requests ?? []).map(conditionOf),
  };
}

function issuerOf(
  policy: JwtPolicyObject,
  { issuer, audiences, jwks, leeway, headers, forward, claimHeaders }: JwtIssuerSpec,
  index: number,
  byKind: ReadonlyMap<string, readonly LoadedObject[]>,
  findings: Finding[],
): JwtIssuer {
  const given = givenKeys(policy, jwks, byKind);
  const read = given === null ? { jwks: "" } : "problem" in given ? given : readKeySet(given.text);
  if ("problem" in read)
    findings.push({
      reason: "InvalidKeys",
      message: `${"problem" in (given ?? {}) ? read.problem : `the key set cannot be used: ${read.problem}`}; no token of ${issuer} is taken`,
      path: ["spec", "issuers", index, "jwks"],
    });
  return {
    issuer,
    audiences: audiences ?? [],
    jwks: "problem" in read ? "" : read.jwks,
    leewayMs: durationMs(leeway ?? "") ?? LEEWAY_MS,
    headers: [...new Set((headers ?? ["authorization"]).map((name) => name.toLowerCase()))],
    forwards: forward ?? false,
    claimHeaders: (claimHeaders ?? []).map(({ claim, header }) => ({ claim, header: header.toLowerCase() })),
  };
}

/** Null: they are fetched. */
function givenKeys(
  policy: JwtPolicyObject,
  { inline, configMap }: JwtIssuerSpec["jwks"],
  byKind: ReadonlyMap<string, readonly LoadedObject[]>,
): { readonly text: string } | { readonly problem: string } | null {
  if (inline !== undefined) return { text: inline };
  if (configMap === undefined) return null;
  const namespace = namespaceOf(policy);
  const found = (byKind.get("ConfigMap") ?? []).find(
    ({ object }) => object.metadata.name === configMap.name && namespaceOf(object) === namespace,
  )?.object;
  const text = found?.kind === "ConfigMap" ? found.data?.[configMap.key] : undefined;
  if (text !== undefined) return { text };
  return {
    problem:
      found === undefined
        ? `ConfigMap ${namespace}/${configMap.name} does not exist`
        : `ConfigMap ${namespace}/${configMap.name} has no key ${configMap.key}`,
  };
}

function opacities({ spec }: JwtPolicyObject, places: readonly AccessPlace[]): Finding[] {
  const opaque = [...new Set(places.flatMap((place) => place.opaquePorts))];
  if (opaque.length === 0 || spec.required === undefined) return [];
  return [
    {
      reason: "UnsupportedProtocol",
      message: `port ${opaque.join(", ")} of the Service is opaque, so no token is seen there and every connection is refused; give the port appProtocol: http, or delete required`,
      path: ["spec", "required"],
    },
  ];
}

interface Filled {
  readonly keys: string;
  readonly policy: JwtPolicy;
}

/** Of an entry with the keys as they stood last, so that equal answers are one object. */
const FILLED = new WeakMap<JwtEntry, Filled>();

/** Whose tokens a port of a pod takes, with their keys of this moment; null: tokens are not looked at. */
export function inboundJwtFor(view: MeshView, pod: ViewPod, port: number): JwtPolicy | null {
  const entry = entryAt(view, pod, port);
  if (entry === undefined) return null;
  const sets = entry.urls.map((url) => (url === null ? "" : (view.keySets?.get(url)?.jwks ?? "")));
  const keys = sets.join("\n");
  let filled = FILLED.get(entry);
  if (filled === undefined || filled.keys !== keys) {
    const issuers = entry.policy.issuers.map((issuer, i) =>
      entry.urls[i] === null ? issuer : { ...issuer, jwks: sets[i] as string },
    );
    FILLED.set(entry, (filled = { keys, policy: { ...entry.policy, issuers } }));
  }
  return filled.policy;
}

function entryAt(view: MeshView, pod: ViewPod, port: number): JwtEntry | undefined {
  return view.policy.jwt
    .get(pod.namespace)
    ?.find(
      ({ place: { selector, ports } }) =>
        (selector === null || selectorMatches(selector, pod.labels)) &&
        (ports === null || isOneOf(ports, pod, port)),
    );
}

/** Where the keys of an issuer that a port takes are fetched; null where they are not. */
export function keySetUrlFor(view: MeshView, pod: ViewPod, port: number, issuer: string): string | null {
  const entry = entryAt(view, pod, port);
  const index = entry?.policy.issuers.findIndex((each) => each.issuer === issuer) ?? -1;
  return entry?.urls[index] ?? null;
}

/** The key sets that policies of this view ask for. A Service is asked at the first of its pods that is ready. */
export function keySetSources({ policy, servicesByName }: MeshView): KeySetSource[] {
  const urls = new Set([...policy.jwt.values()].flatMap((entries) => entries.flatMap((entry) => entry.urls)));
  return [...urls].flatMap((text) => {
    if (text === null) return [];
    const url = new URL(text);
    const host = url.protocol === "http:" ? serviceHost(url.hostname) : null;
    if (host === null) return [{ url: text, at: null }];
    const wanted = url.port === "" ? 80 : Number(url.port);
    const service = servicesByName.get(`${host.namespace}/${host.name}`);
    const endpoint = service?.ports.find(({ port }) => port === wanted)?.endpoints[0];
    return [{ url: text, at: endpoint === undefined ? null : { host: endpoint.ip, port: endpoint.port } }];
  });
}

/** What is wrong with the keys that a policy's issuers are to be known by. */
export function keyFindings(
  { spec }: JwtPolicyObject,
  keySets: ReadonlyMap<string, KeySet>,
): { readonly findings: readonly Finding[]; readonly hasAll: boolean } {
  const findings: Finding[] = [];
  let hasAll = true;
  for (const [index, { issuer, jwks }] of spec.issuers.entries()) {
    const set = jwks.url === undefined ? undefined : keySets.get(jwks.url);
    if (set === undefined || set.problem === "") continue;
    if (set.jwks === "") hasAll = false;
    findings.push({
      reason: "InvalidKeys",
      message: `the key set cannot be had: ${set.problem}; ${set.jwks === "" ? `no token of ${issuer} is taken until it can` : "what was good last stays"}. Check the URL, and whether it answers on this machine`,
      path: ["spec", "issuers", index, "jwks", "url"],
    });
  }
  return { findings, hasAll };
}
