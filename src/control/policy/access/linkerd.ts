import type {
  LinkerdAuthorizationPolicyObject,
  LinkerdRef,
  ServerAuthorizationObject,
  ServerObject,
} from "#/kube/access-objects.ts";
import type { LoadedObject } from "#/kube/folder.ts";
import type { InboundDefault } from "#/kube/inbound-default.ts";
import { isInboundDefault } from "#/kube/inbound-default.ts";
import { groupOf, isLinkerds, LINKERD_POLICY, namespaceOf, selectorMatches } from "#/kube/objects.ts";
import type { KubeObject } from "#/kube/objects.ts";
import type { AccessRoute, AccessRule, AccessSource, NetworkMatch, PeerMatch } from "#/model/access.ts";
import type { ParentReference } from "#/model/node-protocol.ts";
import type { PolicySource } from "#/model/policy.ts";
import type { MeshView } from "../../services/mesh-view.ts";
import { ageKey, byAge, isServerRef } from "../attach.ts";
import { sourceOf } from "../backends.ts";
import type { Finding } from "../conditions.ts";
import { hostMatch, routeSource } from "../routes.ts";
import type { RankedRules, ServerEntry } from "./access-index.ts";
import { ANYONE, linkerdPeer, networksOf, refPeer } from "./sources.ts";
import type { AccessStatus } from "./status.ts";
import type { RequestRoute } from "./targets.ts";
import { matchesOf, RANK } from "./targets.ts";

type ByKind = ReadonlyMap<string, readonly LoadedObject[]>;
type Tell = (status: AccessStatus) => void;

interface OpenServer extends ServerEntry {
  readonly object: ServerObject;
  readonly routes: AccessRoute[];
  readonly rules: RankedRules[];
}

/** Linkerd's Servers with all that its kinds say about each: by namespace, older ones first. */
export function serverEntries(
  byKind: ByKind,
  view: MeshView,
  tell: Tell,
): ReadonlyMap<string, readonly ServerEntry[]> {
  const servers = openServers(byKind, tell);
  attachRoutes(byKind, servers, tell);
  authorize(byKind, servers, view.node.trustDomain, tell);
  authorizeOldStyle(byKind, servers, view.node.trustDomain, tell);
  return servers;
}

function openServers(byKind: ByKind, tell: Tell): Map<string, OpenServer[]> {
  const servers = new Map<string, OpenServer[]>();
  const first = new Map<string, string>();
  for (const loaded of (byKind.get("Server") ?? []).toSorted(byAge)) {
    const { object } = loaded;
    if (object.kind !== "Server") continue;
    const namespace = namespaceOf(object);
    const { podSelector: selector, port, accessPolicy } = object.spec;
    const same = `${namespace} ${port} ${JSON.stringify(selector)}`;
    const other = first.get(same);
    if (other === undefined) {
      first.set(same, object.metadata.name);
      const some = servers.get(namespace) ?? [];
      servers.set(namespace, some);
      some.push({
        object,
        source: sourceOf(groupOf(object), object.kind, namespace, object.metadata.name),
        selector,
        port,
        access: defaultOf(accessPolicy),
        routes: [],
        rules: [],
      });
    }
    tell({
      ...plain(loaded, { group: "", kind: "Pod", namespace, name: "", section: null, port: null }),
      refusal:
        other === undefined
          ? null
          : {
              reason: "Conflicted",
              message: `Server ${namespace}/${other} is about the same port of the same pods and goes first; join the two`,
              path: ["spec", "port"],
            },
      note: accessPolicy === "audit" ? "what accessPolicy: deny would refuse is told of and let in" : "",
    });
  }
  return servers;
}

function defaultOf(accessPolicy: string | undefined): InboundDefault {
  return isInboundDefault(accessPolicy) ? accessPolicy : "deny";
}

/** Routes whose parent is a Server: requests there belong to one of them. */
function attachRoutes(byKind: ByKind, servers: ReadonlyMap<string, readonly OpenServer[]>, tell: Tell): void {
  const routes = [...(byKind.get("HTTPRoute") ?? []), ...(byKind.get("GRPCRoute") ?? [])].toSorted(byAge);
  for (const loaded of routes) {
    const route = loaded.object as RequestRoute;
    const namespace = namespaceOf(route);
    for (const [index, ref] of (route.spec.parentRefs ?? []).entries()) {
      if (!isServerRef(ref)) continue;
      const server =
        (ref.namespace ?? namespace) === namespace ? serverNamed(servers, namespace, ref.name) : undefined;
      server?.routes.push({
        source: routeSource(route),
        hosts: (route.spec.hostnames ?? []).map(hostMatch),
        matches: matchesOf(route),
      });
      const filters = (route.spec.rules ?? []).flatMap((rule, r): Finding[] =>
        (rule.filters ?? []).length === 0
          ? []
          : [
              {
                reason: "UnsupportedValue",
                message:
                  "have no effect at a Server, where a route only says which requests are meant; attach the route to a Service",
                path: ["spec", "rules", r, "filters"],
              },
            ],
      );
      tell({
        ...plain(loaded, parentOf(ref, namespace)),
        refusal:
          server === undefined
            ? {
                reason: "NoMatchingParent",
                message: `Server ${ref.namespace ?? namespace}/${ref.name} does not exist, or is of another namespace`,
                path: ["spec", "parentRefs", index, "name"],
              }
            : null,
        findings: filters,
      });
    }
  }
}

function serverNamed(
  servers: ReadonlyMap<string, readonly OpenServer[]>,
  namespace: string,
  name: string,
): OpenServer | undefined {
  return servers.get(namespace)?.find(({ object }) => object.metadata.name === name);
}

function authorize(
  byKind: ByKind,
  servers: ReadonlyMap<string, readonly OpenServer[]>,
  trustDomain: string,
  tell: Tell,
): void {
  for (const loaded of (byKind.get("AuthorizationPolicy") ?? []).toSorted(byAge)) {
    if (!isLinkerds(loaded.object)) continue;
    const policy = loaded.object as LinkerdAuthorizationPolicyObject;
    const namespace = namespaceOf(policy);
    const { targetRef: ref } = policy.spec;
    const sources = authenticate(policy, byKind, trustDomain);
    const rule = (route: number | null): AccessRule => ({
      ...allowRule(policy),
      sources: "reason" in sources ? [] : sources,
      route,
    });
    const add = (server: OpenServer, rank: number, route: number | null): void =>
      void server.rules.push({ rank, age: ageKey(loaded), rules: [rule(route)] });
    const inOwn = (ref.namespace ?? namespace) === namespace;
    // What is called so here is not what is meant elsewhere.
    const own = inOwn ? (servers.get(namespace) ?? []) : [];
    let found = false;
    if (ref.kind === "Namespace" && ref.name === namespace) {
      found = true;
      for (const server of own) add(server, RANK.namespace, null);
    } else if (ref.kind === "Server") {
      const server = own.find(({ object }) => object.metadata.name === ref.name);
      found = server !== undefined;
      if (server !== undefined) add(server, RANK.service, null);
    } else
      for (const server of own)
        for (const [index, { source }] of server.routes.entries()) {
          if (!isRouteNamed(source, ref, namespace)) continue;
          found = true;
          add(server, RANK.route, index);
        }
    tell({
      ...plain(loaded, parentOf({ group: "", ...ref }, namespace)),
      refusal:
        found && inOwn
          ? null
          : {
              reason: "TargetNotFound",
              message: targetMessage(ref, namespace),
              path: ["spec", "targetRef", "name"],
            },
      reference: "reason" in sources ? sources : null,
    });
  }
}

function isRouteNamed({ group, kind, name }: PolicySource, ref: LinkerdRef, namespace: string): boolean {
  return (
    kind === ref.kind &&
    name === ref.name &&
    group === (ref.group ?? LINKERD_POLICY) &&
    (ref.namespace ?? namespace) === namespace
  );
}

function targetMessage(ref: LinkerdRef, namespace: string): string {
  if (ref.kind === "Namespace")
    return `must be ${namespace}, the policy's own namespace; a policy is about its own namespace`;
  const name = `${ref.kind} ${ref.namespace ?? namespace}/${ref.name}`;
  return ref.kind === "Server"
    ? `${name} does not exist; a policy and its target share a namespace`
    : `${name} does not exist, or is attached to no Server; a policy and its target share a namespace`;
}

/** Whom all references together let in; or why nobody: what is not there never lets anybody in. */
function authenticate(
  policy: LinkerdAuthorizationPolicyObject,
  byKind: ByKind,
  trustDomain: string,
): readonly AccessSource[] | Finding {
  let peers: readonly PeerMatch[] = [ANYONE];
  let networks: readonly NetworkMatch[] | null = null;
  for (const [index, ref] of policy.spec.requiredAuthenticationRefs.entries()) {
    const namespace = ref.namespace ?? namespaceOf(policy);
    const found = objectNamed(byKind, ref, namespace);
    if (ref.kind === "ServiceAccount") peers = [refPeer(ref, trustDomain, namespace)];
    else if (found?.kind === "MeshTLSAuthentication")
      peers = [
        ...(found.spec.identities ?? []).map(linkerdPeer),
        ...(found.spec.identityRefs ?? []).map((each) => refPeer(each, trustDomain, namespace)),
      ];
    else if (found?.kind === "NetworkAuthentication") networks = networksOf(found.spec.networks);
    else
      return {
        reason: "RefNotFound",
        message: `${ref.kind} ${namespace}/${ref.name} does not exist, so this policy lets nobody in; check the name and the namespace`,
        path: ["spec", "requiredAuthenticationRefs", index, "name"],
      };
  }
  return peers.map((peer) => ({ peer, networks }));
}

function objectNamed(byKind: ByKind, { kind, name }: LinkerdRef, namespace: string): KubeObject | undefined {
  return (byKind.get(kind) ?? []).find(
    ({ object }) => object.metadata.name === name && namespaceOf(object) === namespace,
  )?.object;
}

/** ServerAuthorization: what AuthorizationPolicy came after. */
function authorizeOldStyle(
  byKind: ByKind,
  servers: ReadonlyMap<string, readonly OpenServer[]>,
  trustDomain: string,
  tell: Tell,
): void {
  for (const loaded of (byKind.get("ServerAuthorization") ?? []).toSorted(byAge)) {
    const { object } = loaded;
    if (object.kind !== "ServerAuthorization") continue;
    const namespace = namespaceOf(object);
    const { name, selector } = object.spec.server;
    const meant = (servers.get(namespace) ?? []).filter(({ object: { metadata } }) =>
      selector === undefined ? metadata.name === name : selectorMatches(selector, metadata.labels ?? {}),
    );
    const rule: AccessRule = { ...allowRule(object), sources: clientsOf(object, trustDomain, namespace) };
    for (const server of meant) server.rules.push({ rank: RANK.service, age: ageKey(loaded), rules: [rule] });
    tell({
      ...plain(loaded, {
        group: LINKERD_POLICY,
        kind: "Server",
        namespace,
        name: name ?? "",
        section: null,
        port: null,
      }),
      refusal:
        meant.length > 0
          ? null
          : {
              reason: "TargetNotFound",
              message: `no Server of ${namespace} is meant; check its name or labels`,
              path: ["spec", "server"],
            },
    });
  }
}

function clientsOf(
  { spec }: ServerAuthorizationObject,
  trustDomain: string,
  namespace: string,
): readonly AccessSource[] {
  const { unauthenticated, networks, meshTLS } = spec.client;
  const peers: readonly PeerMatch[] =
    unauthenticated === true
      ? [ANYONE]
      : [
          ...(meshTLS?.identities ?? []).map(linkerdPeer),
          ...(meshTLS?.serviceAccounts ?? []).map((each) =>
            refPeer({ kind: "ServiceAccount", ...each }, trustDomain, namespace),
          ),
        ];
  const from = networks === undefined ? null : networksOf(networks);
  return peers.map((peer) => ({ peer, networks: from }));
}

function allowRule(policy: LinkerdAuthorizationPolicyObject | ServerAuthorizationObject): AccessRule {
  return {
    action: "allow",
    stage: "both",
    source: sourceOf(groupOf(policy), policy.kind, namespaceOf(policy), policy.metadata.name),
    sources: [],
    requests: null,
    route: null,
    layer: "both",
  };
}

function parentOf(
  ref: { readonly group: string; readonly kind: string; readonly name: string; readonly namespace?: string },
  namespace: string,
): ParentReference {
  return {
    group: ref.group,
    kind: ref.kind,
    namespace: ref.kind === "Namespace" ? "" : (ref.namespace ?? namespace),
    name: ref.name,
    section: null,
    port: null,
  };
}

function plain(loaded: LoadedObject, parent: ParentReference): AccessStatus {
  return { loaded, parent, refusal: null, reference: null, note: "", findings: [] };
}
