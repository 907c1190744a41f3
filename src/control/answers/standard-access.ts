import type { MessageInitShape } from "@bufbuild/protobuf";
import type { AuthzSchema, HttpRouteSchema } from "#/gen/linkerd/inbound_pb.ts";
import type { AccessPolicy, AccessRoute, AccessRule, RequestCondition } from "#/model/access.ts";
import type { PolicySource } from "#/model/policy.ts";
import type { HostMatch, HttpMatch, PathMatch } from "#/model/route.ts";
import { wireHost, wireMatch } from "./encode-match.ts";
import type { Permit } from "./standard-permits.ts";
import { permitsOf, wirePermits } from "./standard-permits.ts";
import type { Lose } from "./standard-refusal.ts";
import { byDefault, wireSource } from "./wire.ts";

export type WireRoute = MessageInitShape<typeof HttpRouteSchema>;

/** Who may use a port, as proxies without our extension can be told: nobody whom the whole policy would refuse. */
export interface StandardAccess {
  /** Of connections whose bytes are passed on. */
  readonly connections: readonly MessageInitShape<typeof AuthzSchema>[];
  /** Of requests: each goes by the list of the one route that it belongs to. */
  readonly routes: readonly WireRoute[];
}

/**
 * What Linkerd's fields can say of a policy, and never more than it allows (facts §13). They know lists of clients that are let in, of
 * a port or of requests by method, path and host; so:
 *
 * - A rule that refuses takes all whom it may mean out of all lists, whatever it asks of requests.
 * - Where the policy restricts anything, the default lets nobody in.
 * - Requests are told apart by method, host and path; a rule that looks at more lets nobody in. Paths are not brought to one form there
 *   before they are compared: so where paths count at all, those that have another form are refused.
 * - What is only proposed or told of says nothing.
 */
export function standardAccess(policy: AccessPolicy, lose: Lose): StandardAccess {
  const rules = policy.rules.filter(({ stage }) => stage !== "proposed");
  const denials = rules.filter(({ action }) => action === "deny");
  for (const { source, requests, route } of denials)
    if (requests !== null || route !== null)
      lose(source, "refuse more than it does: whoever it is about, whatever is asked for");
  const isRestricted = rules.some(({ action }) => action === "restrict");
  const open = rules.filter(
    ({ action, requests, route }) =>
      (action === "allow" || (action === "default" && !isRestricted)) && requests === null && route === null,
  );
  const base = permitsOf(
    open.filter(({ layer }) => layer !== "connections"),
    denials,
    lose,
  );
  const connections = permitsOf(
    open.filter(({ layer }) => layer !== "requests"),
    denials,
    () => undefined,
  );
  const allows = rules.filter(({ action, layer }) => action === "allow" && layer !== "connections");
  const conditions = policy.routes.length === 0 ? conditionsOf(allows, denials, lose) : [];
  const routes =
    policy.routes.length === 0
      ? [...waysOf(conditions).map((way) => routeOf(way, conditions, base)), openRoute(base)]
      : serverRoutes(policy.routes, allows, denials, base, lose);
  return {
    connections: wirePermits([
      ...machines(rules.filter(({ requests }) => requests === null)),
      ...connections,
    ]),
    routes: [
      // Which of a Server's routes a probe's path is of is not asked: others are let in there by none.
      ...probeRoutes(rules, conditions, policy.routes.length === 0 ? base : []),
      ...(looksAtPaths(rules, policy.routes) ? unsafeRoutes(conditions) : []),
      ...routes,
    ],
  };
}

/** One thing that may be asked for. */
interface Asked {
  readonly host: HostMatch | null;
  readonly method: string | null;
  readonly path: PathMatch | null;
}

/** … and who may. */
interface Condition extends Asked {
  readonly permits: readonly Permit[];
}

function conditionsOf(
  allows: readonly AccessRule[],
  denials: readonly AccessRule[],
  lose: Lose,
): readonly Condition[] {
  return allows.flatMap((rule): Condition[] => {
    if (rule.requests === null || rule.route !== null) return [];
    const permits = permitsOf([rule], denials, lose);
    if (permits.length === 0) return [];
    return rule.requests.flatMap((condition) => {
      const paths: readonly (PathMatch | "none" | null)[] = condition.paths?.map(plainPath) ?? [null];
      if (!isPlain(condition) || paths.includes("none")) lose(rule.source, NOT_PLAIN);
      if (!isPlain(condition)) return [];
      return paths.flatMap((path) =>
        path === "none"
          ? []
          : (condition.methods ?? [null]).flatMap((method) =>
              (condition.hosts ?? [null]).map((host) => ({ host, method, path, permits })),
            ),
      );
    });
  });
}

/** Beyond, some are refused whom the policy lets in. */
const WAYS_MAX = 1_000;

/**
 * What routes are there for, those with the longest paths first, for of two that fit as well the first listed counts. A route that names
 * a host or a method goes before one that does not, however short its path is: so what names none is there for each that any names.
 */
function waysOf(all: readonly Condition[]): readonly (Asked & { readonly source: PolicySource })[] {
  const methods = [null, ...new Set(all.flatMap(({ method }) => method ?? []))];
  const named = all.flatMap(({ host }) => (host === null ? [] : [[JSON.stringify(host), host] as const]));
  const hosts = [null, ...new Map(named).values()];
  const isMany = all.length * methods.length * hosts.length > WAYS_MAX;
  const ways = all.flatMap(({ host, method, path, permits }) =>
    (method === null && !isMany ? methods : [method]).flatMap((one) =>
      (host === null && !isMany ? hosts : [host]).map((other) => ({
        source: permits[0]!.source,
        host: other,
        method: one,
        path,
      })),
    ),
  );
  const distinct = new Map(
    ways.toReversed().map((way) => [JSON.stringify([way.host, way.method, way.path]), way]),
  );
  return [...distinct.values()].toReversed().toSorted((a, b) => rankOf(b) - rankOf(a));
}

const NOT_PLAIN =
  "let nobody in by some of its rules: they tell requests apart by method, host and plain path alone";

function isPlain({ headers, query, claims }: RequestCondition): boolean {
  return headers.length === 0 && query.length === 0 && claims.length === 0;
}

function rankOf({ path }: Asked): number {
  return path === null ? 0 : path.kind === "exact" ? 10_000 : valueOf(path).length;
}

function valueOf(path: PathMatch): string {
  return path.kind === "rpc" ? `/${path.service}/${path.method}` : path.value;
}

/** Letters and digits in segments, none of which is empty or begins with a dot: the same to whoever reads it. */
const PLAIN_PATH = /^\/$|^(?:\/[A-Za-z0-9_~-][A-Za-z0-9._~-]*)+\/?$/;

/** "none": a path that proxies may read in several ways. A call is the path that it is. */
function plainPath(path: PathMatch): PathMatch | "none" {
  if (path.kind === "regex") return "none";
  const isCall = path.kind === "rpc";
  if (isCall && path.service === "" && path.method !== "") return "none";
  const isExact = isCall ? path.method !== "" : path.kind === "exact";
  const value = isCall && path.method === "" ? `/${path.service}` : valueOf(path);
  if (!PLAIN_PATH.test(value)) return "none";
  return { kind: isExact ? "exact" : "prefix", value: isExact ? value : value.replace(/\/$/, "") };
}

/** The route of what is asked for, with all who may ask for at least as much. */
function routeOf(
  way: Asked & { readonly source: PolicySource },
  all: readonly Condition[],
  base: readonly Permit[],
): WireRoute {
  const { host, method, path, source } = way;
  return {
    metadata: wireSource(source),
    hosts: host === null ? [] : [wireHost(host)],
    authorizations: wirePermits([...permitsFor(way, all), ...base]),
    rules: [{ matches: [wireMatch({ ...ANY_MATCH, method, path })] }],
  };
}

function permitsFor(asked: Asked, all: readonly Condition[]): readonly Permit[] {
  return [...new Set(all.filter((each) => holdsFor(each, asked)).flatMap(({ permits }) => permits))];
}

/** Whether a condition holds wherever the other does, for sure. */
function holdsFor(a: Asked, b: Asked): boolean {
  return (
    (a.host === null || JSON.stringify(a.host) === JSON.stringify(b.host)) &&
    (a.method === null || a.method === b.method) &&
    (a.path === null || (b.path !== null && pathHoldsFor(a.path, b.path)))
  );
}

function pathHoldsFor(a: PathMatch, b: PathMatch): boolean {
  const [one, other] = [valueOf(a), valueOf(b)];
  if (a.kind === "exact") return b.kind === "exact" && one === other;
  return other.startsWith(one) && (other.length === one.length || other[one.length] === "/");
}

/** What no other route takes. */
function openRoute(base: readonly Permit[]): WireRoute {
  return {
    metadata: byDefault("default"),
    authorizations: wirePermits(base),
    rules: [{ matches: [{ path: { kind: { case: "prefix", value: "/" } } }] }],
  };
}

/** Paths that are not what they look like: nobody. At each host that a route names too, for such a route goes before one that names none. */
function unsafeRoutes(conditions: readonly Condition[]): WireRoute[] {
  const hosts = conditions.flatMap(({ host }) => (host === null ? [] : [wireHost(host)]));
  const rules = [{ matches: [{ path: { kind: { case: "regex" as const, value: UNSAFE_PATH } } }] }];
  const route: WireRoute = { metadata: byDefault("unsafe-path"), authorizations: [], rules };
  return hosts.length === 0 ? [route] : [route, { ...route, hosts }];
}

const UNSAFE_PATH = String.raw`.*(?:[%\\#]|[^!-~]|//|/\.\.?(?:/|;|$)).*`;

function looksAtPaths(rules: readonly AccessRule[], routes: readonly AccessRoute[]): boolean {
  return (
    routes.length > 0 ||
    rules.some(
      ({ action, requests }) => action !== "exempt" && (requests ?? []).some(({ paths }) => paths !== null),
    )
  );
}

/** The machine's own probes, whose paths nobody else may use for that. */
function probeRoutes(
  rules: readonly AccessRule[],
  conditions: readonly Condition[],
  base: readonly Permit[],
): WireRoute[] {
  return rules.flatMap((rule) => {
    const machine = machines([rule]);
    if (machine.length === 0) return [];
    return (rule.requests ?? []).flatMap(({ methods, paths }) =>
      (paths ?? []).flatMap((path): WireRoute[] => {
        const value = valueOf(path);
        const method = methods?.[0] ?? null;
        const exact: PathMatch = { kind: "exact", value };
        const others = PLAIN_PATH.test(value)
          ? [...permitsFor({ host: null, method, path: exact }, conditions), ...base]
          : [];
        return [
          {
            metadata: byDefault("probe"),
            authorizations: wirePermits([...machine, ...others]),
            rules: [{ matches: [wireMatch({ ...ANY_MATCH, method, path: exact })] }],
          },
        ];
      }),
    );
  });
}

/** Who is let in for having no identity is let in as anyone: at the machine's own address nobody has one. */
function machines(rules: readonly AccessRule[]): readonly Permit[] {
  return rules.flatMap(({ action, source, sources }) =>
    action === "exempt"
      ? (sources ?? []).map(({ networks }): Permit => ({
          source,
          peer: { kind: "anyone" },
          networks: networks ?? [],
        }))
      : [],
  );
}

/**
 * Routes of a Server as they are, where both kinds of proxy choose alike between them: by plain paths and methods. Where not, nobody
 * is let in: a request would be held against the wrong list.
 */
function serverRoutes(
  routes: readonly AccessRoute[],
  allows: readonly AccessRule[],
  denials: readonly AccessRule[],
  base: readonly Permit[],
  lose: Lose,
): WireRoute[] {
  for (const { source, requests } of allows) if (requests !== null) lose(source, NOT_PLAIN);
  const all = routes.flatMap(({ source, matches }, index) => {
    const own = permitsOf(
      allows.filter(({ route, requests }) => route === index && requests === null),
      denials,
      lose,
    );
    const authorizations = wirePermits([...own, ...base]);
    return (matches.length === 0 ? [ANY_MATCH] : matches).map((match) => ({ source, match, authorizations }));
  });
  const isAlike =
    routes.every(({ hosts }) => hosts.length === 0) &&
    all.every(({ match }) => isPlainMatch(match)) &&
    !all.some(({ match: a }) => all.some(({ match: b }) => isSameLength(a, b)));
  if (!isAlike) {
    for (const { source } of routes)
      lose(source, "let nobody in: they choose between routes by method and plain path alone");
    return [openRoute([])];
  }
  return all
    .toSorted((a, b) => Number(b.match.path?.kind === "exact") - Number(a.match.path?.kind === "exact"))
    .map(({ source, match, authorizations }) => ({
      metadata: wireSource(source),
      authorizations,
      rules: [{ matches: [wireMatch(match)] }],
    }));
}

const ANY_MATCH: HttpMatch = { path: null, headers: [], query: [], method: null };

function isPlainMatch({ path, headers, query }: HttpMatch): boolean {
  return (
    headers.length === 0 &&
    query.length === 0 &&
    (path === null || (path.kind !== "rpc" && path.kind !== "regex" && PLAIN_PATH.test(path.value)))
  );
}

/** An exact path and a prefix that are as long: theirs decides by what else there is, ours by which is exact. */
function isSameLength({ path: a }: HttpMatch, { path: b }: HttpMatch): boolean {
  if (a?.kind !== "exact") return false;
  const bare = (value: string): string => value.replace(/\/$/, "");
  return (b === null || b.kind === "prefix") && bare(a.value) === bare(b?.kind === "prefix" ? b.value : "/");
}
