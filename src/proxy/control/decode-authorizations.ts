import type {
  AccessPolicy,
  AccessRoute,
  AccessRule,
  AccessSource,
  NetworkMatch,
  PeerMatch,
} from "#/model/access.ts";
import type { Labels } from "#/model/identity.ts";
import { parseIdentity } from "#/model/identity.ts";
import type { PolicySource } from "#/model/policy.ts";
import type { HostMatch, HttpMatch } from "#/model/route.ts";
import type { ProtoReader } from "#/wire/proto.ts";
import { decodeSource, NO_SOURCE } from "./decode-common.ts";
import { decodeLabel, decodeName } from "./decode-endpoint.ts";
import { decodeHost, decodeHttpMatch, decodeRpcMatch } from "./decode-match.ts";
import { decodeNetwork } from "./decode-network.ts";

/** `inbound.Authz`: whom it lets in, and what it is called. */
export interface Authorization {
  readonly source: PolicySource;
  readonly sources: readonly AccessSource[];
}

/** `inbound.HttpRoute`, or `inbound.GrpcRoute`: what it takes, and whom it lets in. */
export interface AuthorizedRoute {
  readonly route: AccessRoute;
  readonly authorizations: readonly Authorization[];
}

/**
 * What Linkerd's own lists mean (facts §13), as rules: what none of them lets in is refused. With routes a request goes by the list
 * of its route, into which the control plane has put those of the Server, and the Server's own is for opaque connections.
 */
export function accessOf(
  labels: Labels,
  authorizations: readonly Authorization[],
  routes: readonly AuthorizedRoute[],
): AccessPolicy {
  // The routes that no object stands behind: of probes, which have to be known byte for byte, and the one that takes the rest.
  const probes = routes.filter(({ route }) => isProbe(route));
  const others = routes.filter(({ route }) => !isProbe(route));
  const rules: AccessRule[] = [
    ...probes.flatMap((probe) =>
      probe.authorizations.map((each) => ({
        ...ruleFrom(each),
        action: "exempt" as const,
        requests: conditionsOf(probe.route),
      })),
    ),
    ...others.flatMap((other, route) => other.authorizations.map((each) => ({ ...ruleFrom(each), route }))),
    ...authorizations.map((each) => ({
      ...ruleFrom(each),
      layer: routes.length === 0 ? ("both" as const) : ("connections" as const),
    })),
    { ...ruleFrom({ source: sourceFrom(labels), sources: [] }), action: "default" },
  ];
  return { routes: others.map(({ route }) => route), rules };
}

function ruleFrom({ source, sources }: Authorization): AccessRule {
  return { action: "allow", stage: "both", source, sources, requests: null, route: null, layer: "both" };
}

function isProbe({ source, hosts, matches }: AccessRoute): boolean {
  return (
    source.kind === "default" &&
    hosts.length === 0 &&
    matches.length > 0 &&
    matches.every(({ path, method }) => path?.kind === "exact" && method === "GET")
  );
}

function conditionsOf({ matches }: AccessRoute): AccessRule["requests"] {
  return matches.map(({ path, method, headers, query }) => ({
    methods: method === null ? null : [method],
    paths: path === null ? null : [path],
    hosts: null,
    headers,
    query,
    claims: [],
  }));
}

/** Null: it cannot be read. One without networks is invalid (facts §11.3). What is left out lets nobody in. */
export function decodeAuthorization(reader: ProtoReader): Authorization | null {
  const networks: NetworkMatch[] = [];
  const labels: Record<string, string> = {};
  let source: PolicySource | null = null;
  let peers: readonly PeerMatch[] | null = null;
  while (reader.next()) {
    if (reader.field === 1) {
      const network = decodeNetwork(reader.message());
      if (network !== null) networks.push(network);
    } else if (reader.field === 2) peers = decodeAuthentication(reader.message());
    else if (reader.field === 3) decodeLabel(reader.message(), labels);
    else if (reader.field === 4) source = decodeSource(reader.message());
  }
  if (reader.error !== null || networks.length === 0 || peers === null) return null;
  return {
    source: source ?? sourceFrom(labels),
    sources: peers.map((peer) => ({ peer, networks })),
  };
}

function sourceFrom({ group = "", kind = "", namespace = "", name = "" }: Labels): PolicySource {
  return { ...NO_SOURCE, group, kind, namespace, name };
}

/** Null: one without rules, which takes nothing. */
export function decodeRoute(reader: ProtoReader, isGrpc: boolean): AuthorizedRoute | null {
  let source = NO_SOURCE;
  const hosts: HostMatch[] = [];
  const authorizations: Authorization[] = [];
  const rules: (readonly HttpMatch[])[] = [];
  while (reader.next()) {
    if (reader.field === 1) source = decodeSource(reader.part());
    else if (reader.field === 2) hosts.push(decodeHost(reader.part()));
    else if (reader.field === 3) {
      const authorization = decodeAuthorization(reader.message());
      if (authorization !== null) authorizations.push(authorization);
    } else if (reader.field === 4) rules.push(decodeMatches(reader.part(), isGrpc));
  }
  if (rules.length === 0) return null;
  // A rule without matches takes everything.
  const matches = rules.some((each) => each.length === 0) ? [] : rules.flat();
  return { route: { source, hosts, matches }, authorizations };
}

function decodeMatches(reader: ProtoReader, isGrpc: boolean): HttpMatch[] {
  const matches: HttpMatch[] = [];
  while (reader.next())
    if (reader.field === 1)
      matches.push(isGrpc ? decodeRpcMatch(reader.part()) : decodeHttpMatch(reader.part()));
  return matches;
}

function decodeAuthentication(reader: ProtoReader): readonly PeerMatch[] | null {
  let peers: readonly PeerMatch[] | null = null;
  while (reader.next()) {
    if (reader.field === 1) peers = [{ kind: "anyone" }];
    else if (reader.field === 2) peers = decodeMeshTls(reader.message());
  }
  return reader.error === null ? peers : null;
}

function decodeMeshTls(reader: ProtoReader): readonly PeerMatch[] | null {
  let peers: readonly PeerMatch[] | null = null;
  while (reader.next()) {
    if (reader.field === 1) peers = [{ kind: "authenticated" }];
    else if (reader.field === 2) peers = decodeClients(reader.message());
  }
  return reader.error === null ? peers : null;
}

function decodeClients(reader: ProtoReader): readonly PeerMatch[] | null {
  const peers: PeerMatch[] = [];
  while (reader.next()) {
    if (reader.field === 1) peers.push(identityNamed(decodeName(reader.message())));
    else if (reader.field === 2) {
      const labels: string[] = [];
      const suffix = reader.message();
      while (suffix.next()) if (suffix.field === 1) labels.push(suffix.text());
      // Cut short it would be of more names, and of all when nothing is left.
      if (suffix.error !== null) return null;
      peers.push({ kind: "suffix", labels });
    }
  }
  return reader.error === null ? peers : null;
}

/** Identities are compared as such, whichever form each is written in. */
function identityNamed(name: string): PeerMatch {
  const identity = parseIdentity(name);
  return identity === null ? { kind: "name", name } : { kind: "identity", ...identity };
}
