import type { AccessRuleSpec, AuthorizationPolicyObject } from "#/kube/access-objects.ts";
import type { LoadedObject } from "#/kube/folder.ts";
import { groupOf, isLinkerds, namespaceOf } from "#/kube/objects.ts";
import type { AccessAction, AccessRule, RequestCondition } from "#/model/access.ts";
import { AUDITED } from "#/model/node-protocol.ts";
import type { MeshView } from "../../services/mesh-view.ts";
import { ageKey, byAge } from "../attach.ts";
import { sourceOf } from "../backends.ts";
import type { Finding } from "../conditions.ts";
import type { AccessEntry, EntryRule } from "./access-index.ts";
import { bothOf, conditionOf } from "./requests.ts";
import { sourcesOf } from "./sources.ts";
import type { AccessStatus } from "./status.ts";
import { targetOf } from "./status.ts";
import type { AccessPlace } from "./targets.ts";
import { placesOf } from "./targets.ts";

/** The AuthorizationPolicies of ours at each of their targets. */
export function ownEntries(
  byKind: ReadonlyMap<string, readonly LoadedObject[]>,
  view: MeshView,
  tell: (status: AccessStatus) => void,
): Map<string, AccessEntry[]> {
  const entries = new Map<string, AccessEntry[]>();
  for (const loaded of (byKind.get("AuthorizationPolicy") ?? []).toSorted(byAge)) {
    if (isLinkerds(loaded.object)) continue;
    const policy = loaded.object as AuthorizationPolicyObject;
    const namespace = namespaceOf(policy);
    const notes = notesOn(policy);
    for (const [index, ref] of policy.spec.targetRefs.entries()) {
      const found = placesOf(policy, index, byKind, view);
      const findings: Finding[] = found.kind === "places" ? opacities(policy, found.places) : [];
      for (const place of found.kind === "places" ? found.places : []) {
        const some = entries.get(namespace) ?? [];
        entries.set(namespace, some);
        some.push({
          selector: place.selector,
          ports: place.ports,
          rank: place.rank,
          age: ageKey(loaded),
          rules: rulesOf(policy, place, view.node.trustDomain, findings),
        });
      }
      tell({
        loaded,
        parent: targetOf(ref, namespace),
        refusal: found.kind === "places" ? null : found.refusal,
        reference: null,
        note: [isAudited(policy) ? AUDITED : [], notes.map(({ message }) => message)].flat().join("; "),
        findings: [...notes, ...findings],
      });
    }
  }
  return entries;
}

const ACTIONS = { ALLOW: "allow", DENY: "deny", AUDIT: "audit" } as const satisfies Record<
  string,
  AccessAction
>;

function rulesOf(
  policy: AuthorizationPolicyObject,
  { conditions }: AccessPlace,
  trustDomain: string,
  findings: Finding[],
): readonly EntryRule[] {
  const { action, rules = [] } = policy.spec;
  const namespace = namespaceOf(policy);
  const source = sourceOf(groupOf(policy), policy.kind, namespace, policy.metadata.name);
  const shared = {
    stage: isAudited(policy) ? "proposed" : "both",
    route: null,
    layer: "both",
  } as const;
  const made = rules.map((rule, i): EntryRule => ({
    ports: rule.networkAttributes === undefined ? null : new Set(rule.networkAttributes.ports),
    rule: {
      ...shared,
      action: ACTIONS[action],
      source: { ...source, section: rule.name ?? String(i) },
      sources: sourcesOf(rule.sources, { trustDomain, namespace }),
      requests: requestsOf(rule, i, ACTIONS[action], conditions, findings),
    },
  }));
  if (action !== "ALLOW") return made;
  const restrict: AccessRule = { ...shared, action: "restrict", source, sources: null, requests: conditions };
  return [...made, { ports: null, rule: restrict }];
}

function isAudited({ spec }: AuthorizationPolicyObject): boolean {
  return spec.mode === "Audit" && spec.action !== "AUDIT";
}

/** A rule's matches times a route's: what may come of it. */
const CONDITIONS_MAX = 4_096;

/** What a rule looks at; of a route, within what the route takes. Null: everything. */
function requestsOf(
  { requests, name }: AccessRuleSpec,
  index: number,
  action: AccessAction,
  route: readonly RequestCondition[] | null,
  findings: Finding[],
): readonly RequestCondition[] | null {
  const own = requests?.map(conditionOf) ?? null;
  if (own === null || route === null) return own ?? route;
  const joined = own.flatMap((a) => route.map((b) => bothOf(a, b)).filter((each) => each !== null));
  if (joined.every(({ isExact }) => isExact) && joined.length <= CONDITIONS_MAX)
    return joined.map(({ condition }) => condition);
  // What cannot be said exactly lets nobody in, and refuses more.
  const isAllow = action === "allow";
  findings.push({
    reason: "UnsupportedValue",
    message: `rule ${name ?? index} and the route both match paths by expressions, which cannot be joined, so it ${isAllow ? "allows nothing" : "holds for all that it matches itself, of the route or not"}; write the policy about the Service, with the paths in the rule`,
    path: ["spec", "rules", index, "requests"],
  });
  return isAllow ? [] : own;
}

/** What is surely not meant. */
function notesOn({ spec }: AuthorizationPolicyObject): Finding[] {
  const { action, rules = [] } = spec;
  const note = (path: Finding["path"], message: string): Finding => ({
    reason: "NoEffect",
    message,
    path: ["spec", ...path],
  });
  if (rules.length === 0 && action !== "ALLOW")
    return [note(["rules"], `has no rule, so it ${action === "DENY" ? "refuses" : "tells of"} nobody`)];
  return rules.flatMap(({ sources, requests }, i) => [
    ...(sources?.length === 0 && action !== "ALLOW"
      ? [note(["rules", i, "sources"], "is empty, so the rule holds for nobody; delete the field for anyone")]
      : []),
    ...(requests?.length === 0
      ? [
          note(
            ["rules", i, "requests"],
            "is empty, so the rule holds for nothing; delete the field for everything",
          ),
        ]
      : []),
  ]);
}

/** What looks at requests where none are seen. */
function opacities({ spec }: AuthorizationPolicyObject, places: readonly AccessPlace[]): Finding[] {
  const opaque = [...new Set(places.flatMap((place) => place.opaquePorts))];
  if (opaque.length === 0) return [];
  const where = `port ${opaque.join(", ")} of the Service is opaque, so requests are not seen there`;
  return (spec.rules ?? []).flatMap(({ requests }, i) =>
    requests === undefined
      ? []
      : [
          {
            reason: "UnsupportedProtocol",
            message: `${where}: the rule ${spec.action === "ALLOW" ? "allows nothing" : "holds for every connection"}; give the port appProtocol: http, or delete requests`,
            path: ["spec", "rules", i, "requests"],
          },
        ],
  );
}
