import type {
  GrpcRoute,
  GrpcRoute_Filter,
  HttpRoute,
  HttpRoute_Filter,
  HttpRoute_RouteBackend,
  OutboundPolicy,
} from "#/gen/linkerd/outbound_pb.ts";
import type { GrpcRouteMatch } from "#/gen/linkerd/grpc_route_pb.ts";
import type { HeaderMatch, HostMatch, HttpRouteMatch, PathMatch } from "#/gen/linkerd/http_route_pb.ts";
import type { Authz, HttpRoute as InboundRoute, Server } from "#/gen/linkerd/inbound_pb.ts";
import type { IPNetwork } from "#/gen/linkerd/net_pb.ts";
import { isLoopback, networkContains, parseNetwork } from "#/stack/networks.ts";
import type { IpAddress } from "#/base/address.ts";
import type { HttpMethod } from "#/gen/linkerd/http_types_pb.ts";

/** A request, as far as policy looks at one. Header names are in lower case; each is there once. */
export interface Asked {
  readonly isHttp2: boolean;
  readonly method: string;
  readonly host: string;
  /** Without a query. */
  readonly path: string;
  readonly headers: Readonly<Record<string, string>>;
  readonly query: Readonly<Record<string, string>>;
}

/** Where a request may go: to services, each with what is changed on the way, or back to the client with a redirect. */
export interface Reading {
  readonly to: ReadonlySet<string>;
  readonly redirect: string | null;
}

export const REFUSED: Reading = { to: new Set(), redirect: null };

/**
 * What linkerd2-proxy makes of a request by a policy's standard fields (facts §12, §13), in the fewest words: the reference that
 * the proof rests on.
 */
export function linkerdReading(policy: OutboundPolicy, asked: Asked): Reading {
  const kind = policy.protocol?.kind;
  if (kind?.case === "grpc") return take(kind.value.routes, (match) => rpcRank(match, asked), 0, asked);
  if (kind?.case === "http1" || kind?.case === "http2")
    return take(kind.value.routes, (match) => httpRank(match, asked), 1, asked);
  if (kind?.case === "detect") {
    const http = asked.isHttp2 ? kind.value.http2 : kind.value.http1;
    return take(http?.routes ?? [], (match) => httpRank(match, asked), 1, asked);
  }
  return REFUSED;
}

/** Whom a connection's certificate proves, as far as a list of clients looks at one; null: it has shown none. */
export interface Client {
  readonly ip: IpAddress;
  readonly name: string | null;
}

/** Whether linkerd2-proxy lets a request in, or (null) a connection whose bytes it passes on (facts §13). */
export function linkerdLetsIn(server: Server, asked: Asked | null, client: Client): boolean {
  if (isLoopback(client.ip)) return true;
  if (asked === null) return isAuthorized(server.authorizations, client);
  const kind = server.protocol?.kind;
  const routes =
    kind?.case === "detect"
      ? kind.value.httpRoutes
      : kind?.case === "http1" || kind?.case === "http2"
        ? kind.value.routes
        : [];
  let best: { readonly rank: Rank; readonly route: InboundRoute } | null = null;
  for (const route of routes) {
    const host =
      route.hosts.length === 0 ? [0, 0] : highest(route.hosts.map((one) => hostRank(one, asked.host)));
    if (host === null) continue;
    for (const { matches } of route.rules) {
      const found = matches.length === 0 ? [1, 0, 0, 0] : highest(matches.map((one) => httpRank(one, asked)));
      if (found === null) continue;
      const rank = [...host, ...found];
      if (best === null || compare(rank, best.rank) > 0) best = { rank, route };
    }
  }
  return best !== null && isAuthorized(best.route.authorizations, client);
}

function isAuthorized(all: readonly Authz[], { ip, name }: Client): boolean {
  return all.some(({ networks, authentication }) => {
    const isFrom = networks.some(
      ({ net, except }) => isIn(net, ip) && !except.some((other) => isIn(other, ip)),
    );
    const permit = authentication?.permit;
    if (!isFrom || permit?.case === undefined) return false;
    if (permit.case === "unauthenticated") return true;
    if (name === null) return false;
    const { clients } = permit.value;
    if (clients.case === "unauthenticated") return true;
    return (
      clients.case === "identities" &&
      (clients.value.identities.some((one) => one.name === name) ||
        clients.value.suffixes.some(
          ({ parts }) => parts.length === 0 || name.endsWith(`.${parts.join(".")}`),
        ))
    );
  });
}

function isIn(net: IPNetwork | undefined, ip: IpAddress): boolean {
  const part = net?.ip?.ip;
  if (part?.case === undefined) return false;
  const address =
    part.case === "ipv4"
      ? [24, 16, 8, 0].map((shift) => (part.value >>> shift) & 0xff).join(".")
      : [part.value.first, part.value.last]
          .map((half) =>
            half
              .toString(16)
              .padStart(16, "0")
              .replace(/(.{4})(?!$)/g, "$1:"),
          )
          .join(":");
  return networkContains(parseNetwork(`${address}/${net!.prefixLen}`)!, ip);
}

type Rank = readonly number[];
type Rule = Pick<HttpRoute["rules"][number] | GrpcRoute["rules"][number], "filters" | "backends">;

function take<Match>(
  routes: readonly {
    readonly hosts: readonly HostMatch[];
    readonly rules: readonly (Rule & { readonly matches: readonly Match[] })[];
  }[],
  rankOf: (match: Match) => Rank | null,
  /** Characters that a rule without matches is said to match. */
  lengthOfNone: number,
  asked: Asked,
): Reading {
  let best: { readonly rank: Rank; readonly rule: Rule } | null = null;
  for (const route of routes) {
    const host =
      route.hosts.length === 0 ? [0, 0] : highest(route.hosts.map((one) => hostRank(one, asked.host)));
    if (host === null) continue;
    for (const rule of route.rules) {
      const { matches } = rule;
      const found = matches.length === 0 ? [lengthOfNone, 0, 0, 0] : highest(matches.map(rankOf));
      if (found === null) continue;
      const rank = [...host, ...found];
      if (best === null || compare(rank, best.rank) > 0) best = { rank, rule };
    }
  }
  return best === null ? REFUSED : follow(best.rule);
}

/** The first of the highest. */
function highest(ranks: readonly (Rank | null)[]): Rank | null {
  let best: Rank | null = null;
  for (const rank of ranks) if (rank !== null && (best === null || compare(rank, best) > 0)) best = rank;
  return best;
}

function compare(a: Rank, b: Rank): number {
  for (const [i, value] of a.entries()) if (value !== b[i]) return value - b[i]!;
  return 0;
}

function hostRank({ match }: HostMatch, host: string): Rank | null {
  if (match.case === "exact") return match.value === host ? [2, host.length] : null;
  if (match.case !== "suffix") return null;
  const suffix = `.${match.value.reverseLabels.toReversed().join(".")}`;
  return host.endsWith(suffix) ? [1, suffix.length] : null;
}

function httpRank({ path, headers, queryParams, method }: HttpRouteMatch, asked: Asked): Rank | null {
  const length = path === undefined ? 1 : pathLength(path, asked.path);
  if (length === null || (method !== undefined && methodText(method) !== asked.method)) return null;
  if (!headers.every((header) => headerHolds(header, asked))) return null;
  for (const { name, value } of queryParams) {
    const has = asked.query[name];
    if (has === undefined || !(value.case === "regex" ? isWhole(value.value, has) : value.value === has))
      return null;
  }
  return [length, Number(method !== undefined), headers.length, queryParams.length];
}

/** A path of more than two segments is no call; here there are none. */
function rpcRank({ rpc, headers }: GrpcRouteMatch, asked: Asked): Rank | null {
  const [, service = "", method] = asked.path.split("/");
  if (asked.method !== "POST" || method === undefined) return null;
  if ((rpc?.service ?? "") !== "" && rpc!.service !== service) return null;
  if ((rpc?.method ?? "") !== "" && rpc!.method !== method) return null;
  if (!headers.every((header) => headerHolds(header, asked))) return null;
  return [rpc?.service.length ?? 0, rpc?.method.length ?? 0, headers.length, 0];
}

function pathLength({ kind }: PathMatch, path: string): number | null {
  if (kind.case === "exact") return kind.value === path ? path.length : null;
  if (kind.case === "regex") return isWhole(kind.value, path) ? path.length : null;
  if (kind.case !== "prefix") return null;
  if (kind.value === "/") return 1;
  const prefix = kind.value.replace(/\/+$/, "");
  const bare = path.replace(/\/+$/, "");
  const isPrefix = bare.startsWith(prefix) && (bare.length === prefix.length || bare[prefix.length] === "/");
  return isPrefix ? prefix.length : null;
}

function headerHolds({ name, value }: HeaderMatch, asked: Asked): boolean {
  const has = asked.headers[name];
  if (has === undefined) return false;
  return value.case === "regex"
    ? isWhole(value.value, has)
    : Buffer.from(value.value ?? []).equals(Buffer.from(has));
}

/** What the pattern finds first is all there is. */
function isWhole(pattern: string, text: string): boolean {
  const found = new RegExp(pattern, "u").exec(text);
  return found !== null && found.index === 0 && found[0] === text;
}

const METHODS = ["GET", "POST", "PUT", "DELETE", "PATCH", "OPTIONS", "CONNECT", "HEAD", "TRACE"];

function methodText({ type }: HttpMethod): string {
  return type.case === "registered" ? METHODS[type.value]! : (type.value ?? "");
}

function follow(rule: Rule): Reading {
  const done: string[] = [];
  const answer = pass(rule.filters, done);
  if (answer !== null) return answer;
  const to = new Set<string>();
  const kind = rule.backends?.kind;
  const backends: (HttpRoute_RouteBackend | undefined)[] =
    kind?.case === "firstAvailable"
      ? kind.value.backends.map((one) => one as HttpRoute_RouteBackend)
      : kind?.case === "randomAvailable"
        ? kind.value.backends
            .filter(({ weight }) => weight > 0)
            .map(({ backend }) => backend as HttpRoute_RouteBackend | undefined)
        : [];
  for (const one of backends) {
    const own = [...done];
    if (one?.backend?.kind.case !== "balancer" || pass(one.filters, own) !== null) continue;
    const path = one.backend.kind.value.discovery?.kind.value?.path;
    to.add(`${path} ${own.join(" ")}`);
  }
  return { to, redirect: null };
}

/** Null: the request goes on, `done` to it. */
function pass(filters: readonly (HttpRoute_Filter | GrpcRoute_Filter)[], done: string[]): Reading | null {
  for (const { kind } of filters) {
    if (kind.case === "failureInjector") {
      const { numerator, denominator } = kind.value.ratio ?? { numerator: 1, denominator: 1 };
      // A share that cannot be makes the proxy refuse the policy.
      if (denominator === 0 || numerator >= denominator) return REFUSED;
    } else if (kind.case === "redirect") return { to: new Set(), redirect: String(kind.value.status) };
    else if (kind.case === "requestHeaderModifier") done.push(`+${kind.value.set?.headers[0]?.name ?? ""}`);
  }
  return null;
}
