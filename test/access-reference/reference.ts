import { parseIpBytes } from "#/base/address.ts";
import { dnsName, type PeerIdentity } from "#/model/identity.ts";
import type {
  AccessAction,
  AccessDecision,
  AccessPolicy,
  AccessRequest,
  AccessRule,
  AccessSource,
  AccessSubject,
  ClaimMatch,
  NetworkMatch,
  PeerMatch,
  RequestCondition,
} from "#/model/access.ts";
import type { PolicySource } from "#/model/policy.ts";
import type { FieldMatch, HostMatch, HttpMatch, PathMatch, StringMatch } from "#/model/route.ts";

/**
 * Access decided as slowly and plainly as it can be, from docs/reference/authorization.md and the model alone: nothing here is
 * compiled, kept or shared with what sidecars run, so that both have to make the same mistake for it to be missed.
 */
export function referenceDecision(policy: AccessPolicy, subject: AccessSubject): AccessDecision {
  // "From loopback: allowed." Nothing else is asked, so nothing is told either.
  if (isLoopback(subject.ip))
    return { verdict: "allowed", by: noObject("localhost"), reason: "", would: null, audits: [] };

  const enforced = outcome(policy, subject, "enforced");
  const proposed = outcome(policy, subject, "proposed");

  // "Where the two differ": in whether it is let through. How something is refused is no difference to whoever is refused.
  let would: AccessDecision["would"] = null;
  if (enforced.verdict === "allowed" && proposed.verdict !== "allowed")
    would = { verdict: "would_deny", by: proposed.by };
  if (enforced.verdict !== "allowed" && proposed.verdict === "allowed")
    would = { verdict: "would_allow", by: proposed.by };

  return {
    verdict: enforced.verdict,
    by: enforced.by,
    reason: enforced.verdict === "allowed" ? "" : "refused",
    would,
    // What is refused for its path is refused before anybody reads it.
    audits: enforced.verdict === "ambiguous" ? [] : audits(policy, subject),
  };
}

/** What was decided, and by what step; for the tables of what was drawn. */
export interface Outcome {
  readonly verdict: AccessDecision["verdict"];
  readonly step: AccessAction | "nothing" | "no-route" | "ambiguous";
  readonly by: PolicySource;
}

/** By the policies in mode Enforce alone, or as if all were enforced. */
export function outcome(
  policy: AccessPolicy,
  subject: AccessSubject,
  stage: "enforced" | "proposed",
): Outcome {
  const rules = policy.rules.filter((rule) => rule.stage === "both" || rule.stage === stage);
  const first = (action: AccessAction): AccessRule | undefined =>
    rules.find((rule) => rule.action === action && holds(policy, rule, subject));

  const exempt = first("exempt");
  if (exempt !== undefined) return { verdict: "allowed", step: "exempt", by: exempt.source };
  // "What servers read in several ways is refused", "on ports where any rule looks at paths". Probes and AUDIT rules refuse nobody.
  const deciding = rules.filter(({ action }) => action !== "exempt" && action !== "audit");
  if (subject.request !== null && looksAtPaths(policy, deciding) && normalPath(subject.request) === null)
    return { verdict: "ambiguous", step: "ambiguous", by: noObject("ambiguous-path") };

  const deny = first("deny");
  if (deny !== undefined) return { verdict: "denied", step: "deny", by: deny.source };
  // "A request that no route takes is answered 404 where no DENY rule holds."
  if (subject.request !== null && policy.routes.length > 0 && winner(policy, subject.request) === null)
    return { verdict: "no-route", step: "no-route", by: noObject("no-route") };
  const allow = first("allow");
  if (allow !== undefined) return { verdict: "allowed", step: "allow", by: allow.source };
  const restrict = first("restrict");
  if (restrict !== undefined) return { verdict: "denied", step: "restrict", by: restrict.source };
  const byDefault = first("default");
  if (byDefault !== undefined) return { verdict: "allowed", step: "default", by: byDefault.source };
  return { verdict: "denied", step: "nothing", by: noObject("deny") };
}

/** "AUDIT rules that hold, the first of each object." */
function audits(policy: AccessPolicy, subject: AccessSubject): PolicySource[] {
  const found: PolicySource[] = [];
  for (const rule of policy.rules) {
    if (rule.action !== "audit" || !holds(policy, rule, subject)) continue;
    const { group, kind, namespace, name } = rule.source;
    const isThere = found.some(
      (other) =>
        other.group === group && other.kind === kind && other.namespace === namespace && other.name === name,
    );
    if (!isThere) found.push(rule.source);
  }
  return found;
}

export function holds(policy: AccessPolicy, rule: AccessRule, subject: AccessSubject): boolean {
  const { request } = subject;
  if (rule.layer === "connections" && request !== null) return false;
  if (rule.layer === "requests" && request === null) return false;
  if (rule.sources !== null && !rule.sources.some((source) => sourceHolds(source, subject))) return false;

  if (request === null) {
    const isAboutRequests = rule.requests !== null || rule.route !== null;
    // "Empty: nothing", seen or not.
    if (rule.requests !== null && rule.requests.length === 0) return false;
    // "What cannot be seen is not allowed."
    return !isAboutRequests || rule.action === "deny" || rule.action === "restrict";
  }

  if (rule.route !== null && winner(policy, request) !== rule.route) return false;
  if (rule.requests === null) return true;
  // A probe is known as the pod declares it, byte for byte: it has no other form, and gives none to other requests.
  const holdsProbe = (condition: RequestCondition): boolean =>
    conditionHolds({ ...condition, paths: null }, request, false) &&
    (!isSaid(condition.paths) || condition.paths.some((path) => isProbed(path, request)));
  return rule.requests.some((condition) =>
    rule.action === "exempt"
      ? holdsProbe(condition)
      : conditionHolds(condition, request, rule.action === "deny" || rule.action === "restrict"),
  );
}

function isProbed(match: PathMatch, { path }: AccessRequest): boolean {
  return match.kind === "exact" && match.value === path.split("?")[0];
}

// Sources.

export function sourceHolds(source: AccessSource, subject: AccessSubject): boolean {
  return (
    peerHolds(source.peer, subject.peer) &&
    (source.networks === null || source.networks.some((network) => networkHolds(network, subject.ip)))
  );
}

export function peerHolds(match: PeerMatch, peer: PeerIdentity | null): boolean {
  if (match.kind === "anyone") return true;
  if (match.kind === "unauthenticated") return peer === null;
  if (peer === null) return false;
  const { identity, name } = peer;
  switch (match.kind) {
    case "authenticated":
      return true;
    case "trust-domain":
      return identity.trustDomain === match.trustDomain;
    case "namespace":
      return identity.trustDomain === match.trustDomain && identity.namespace === match.namespace;
    case "identity":
      return (
        identity.trustDomain === match.trustDomain &&
        identity.namespace === match.namespace &&
        identity.serviceAccount === match.serviceAccount
      );
    case "name":
      return name === match.name;
    case "suffix": {
      if (match.labels.length === 0) return true;
      const labels = (name.startsWith("spiffe://") ? dnsName(identity) : name).split(".");
      const count = match.labels.length;
      // "*" stands for one label at least.
      return (
        labels.length > count && labels.slice(labels.length - count).join(".") === match.labels.join(".")
      );
    }
  }
}

export function networkHolds({ net, except }: NetworkMatch, ip: string): boolean {
  return isWithin(ip, net) && !except.some((hole) => isWithin(ip, hole));
}

/** Bit by bit, as text. */
export function isWithin(ip: string, net: string): boolean {
  const [address = "", length] = net.split("/");
  const ours = bitsOf(ip);
  const theirs = bitsOf(address);
  if (ours.length !== theirs.length) return false;
  const prefix = length === undefined ? theirs.length : Number(length);
  return ours.slice(0, prefix) === theirs.slice(0, prefix);
}

function bitsOf(ip: string): string {
  const bytes = parseIpBytes(ip);
  if (bytes === null) throw new Error(`${ip} is no address`);
  return Array.from(bytes, (byte) => byte.toString(2).padStart(8, "0")).join("");
}

export function isLoopback(ip: string): boolean {
  return isWithin(ip, "127.0.0.0/8") || isWithin(ip, "::1/128");
}

// Requests.

/** `refuses`: of a DENY rule, or of a route's scope. */
export function conditionHolds(
  condition: RequestCondition,
  request: AccessRequest,
  refuses: boolean,
): boolean {
  const { methods, paths, hosts, headers, query, claims } = condition;
  if (isSaid(methods) && !methods.includes(request.method)) return false;
  if (isSaid(paths) && !paths.some((path) => pathHolds(path, request))) return false;
  if (isSaid(hosts) && !hosts.some((host) => hostHolds(host, request.authority))) return false;
  if (!headers.every((match) => fieldHolds("header", match, request, refuses))) return false;
  if (!query.every((match) => fieldHolds("query", match, request, refuses))) return false;
  return claims.every((match) => claimHolds(match, request.claims));
}

function isSaid<T>(list: readonly T[] | null): list is readonly T[] {
  return list !== null && list.length > 0;
}

export function pathHolds(match: PathMatch, request: AccessRequest): boolean {
  const normal = normalPath(request);
  if (normal === null) return false;
  // "/" is every path, and so that of `OPTIONS *`.
  if (match.kind === "prefix" && withoutSlashAtEnd(match.value) === "") return true;
  const path = resolved(normal);
  switch (match.kind) {
    case "exact":
      return path === comparable(match.value);
    case "prefix": {
      const prefix = withoutSlashAtEnd(comparable(match.value));
      return path === prefix || path.startsWith(`${prefix}/`);
    }
    case "regex":
      return wholly(match.value, Buffer.from(path, "latin1").toString("utf8"));
    case "rpc": {
      // Routing's reading: the path's first segment is the service, all that follows the method.
      const [, service, ...rest] = path.split("/");
      return (
        (match.service === "" || match.service === service) &&
        (match.method === "" || match.method === rest.join("/"))
      );
    }
  }
}

/** "For comparing, the escapes that are left are resolved too, but for `%3F`." One character for each byte. */
function resolved(path: string): string {
  return path.replace(/%(?!3F)[0-9A-F]{2}/g, (escape) =>
    String.fromCodePoint(Number.parseInt(escape.slice(1), 16)),
  );
}

/** "In the rule's path as in the request's"; one that has no such form is as it is written. */
function comparable(value: string): string {
  const bytes = Buffer.from(value, "utf8").toString("latin1");
  const normal = normalPath({ path: bytes });
  return normal === null ? bytes : resolved(normal);
}

function withoutSlashAtEnd(prefix: string): string {
  return prefix.endsWith("/") ? prefix.slice(0, -1) : prefix;
}

/** "`*.example.com` is every name below it." */
export function hostHolds(match: HostMatch, authority: string): boolean {
  const host = authority.toLowerCase().replace(/:\d*$/, "").replace(/\.$/, "");
  if (match.kind === "exact") return host === match.host;
  return host.endsWith(`.${match.host}`) && host.length > match.host.length + 1;
}

/** "Several of one name are one value, joined by `,`"; to rules that refuse also each by itself. */
export function fieldHolds(
  what: "header" | "query",
  { name, value }: FieldMatch,
  request: AccessRequest,
  refuses: boolean,
): boolean {
  const values = what === "header" ? headerValues(name, request) : queryValues(name, request);
  if (values.length === 0) return false;
  if (stringHolds(value, values.join(","))) return true;
  return refuses && values.some((one) => stringHolds(value, one));
}

function headerValues(name: string, { fields }: AccessRequest): string[] {
  return fields.filter((_, at) => at % 2 === 1 && fields[at - 1]?.toLowerCase() === name);
}

function queryValues(name: string, { path }: AccessRequest): string[] {
  const at = path.indexOf("?");
  return at === -1 ? [] : new URLSearchParams(path.slice(at + 1)).getAll(name);
}

function stringHolds(match: StringMatch, text: string): boolean {
  return match.kind === "exact" ? match.value === text : wholly(match.value, text);
}

/** The patterns that are drawn mean the same to JavaScript as to RE2. */
function wholly(pattern: string, text: string): boolean {
  let whole = PATTERNS.get(pattern);
  if (whole === undefined) PATTERNS.set(pattern, (whole = new RegExp(`^(?:${pattern})$`)));
  return whole.test(text);
}

/** Of the few that are drawn; made once, for a hundred thousand cases ask for them. */
const PATTERNS = new Map<string, RegExp>();

/** "The whole name of one, else its dots lead into objects"; one of the values, or a list that holds one. */
export function claimHolds({ claim, values }: ClaimMatch, claims: AccessRequest["claims"]): boolean {
  if (claims === null) return false;
  const found = Object.hasOwn(claims, claim) ? claims[claim] : withinObjects(claims, claim.split("."));
  const all: readonly unknown[] = Array.isArray(found) ? found : [found];
  return all.some((one) => isPlain(one) && values.includes(String(one)));
}

function withinObjects(claims: object, [name = "", ...rest]: readonly string[]): unknown {
  if (Array.isArray(claims) || !Object.hasOwn(claims, name)) return undefined;
  const found = (claims as Record<string, unknown>)[name];
  if (rest.length === 0) return found;
  return typeof found === "object" && found !== null ? withinObjects(found, rest) : undefined;
}

function isPlain(value: unknown): boolean {
  return typeof value === "string" || typeof value === "number" || typeof value === "boolean";
}

// Paths.

function looksAtPaths(policy: AccessPolicy, rules: readonly AccessRule[]): boolean {
  return (
    (!isOneForAll(policy) &&
      policy.routes.some((route) => route.matches.some(({ path }) => rankOfPath(path)[0] !== 0))) ||
    rules.some((rule) => rule.requests?.some(({ paths }) => isSaid(paths)))
  );
}

/** One route that takes everything: nothing is told apart. */
function isOneForAll({ routes }: AccessPolicy): boolean {
  const [route] = routes;
  if (route === undefined || routes.length > 1) return false;
  if (route.source.kind === "GRPCRoute" || route.hosts.length > 0 || route.matches.length > 1) return false;
  return route.matches.every(
    ({ path, headers, query, method }) =>
      rankOfPath(path)[0] === 0 && headers.length === 0 && query.length === 0 && method === null,
  );
}

/** The form that is forwarded, without the query; null where servers read it in several ways. */
export function normalPath({ path: target }: Pick<AccessRequest, "path">): string | null {
  // "What does not begin with `/`, but for `*` and CONNECT."
  if (target === "*" || target === "") return target;
  if (target.includes("#")) return null;
  const raw = target.split("?")[0] as string;
  if (!raw.startsWith("/")) return null;
  if (/[\0-\x20\x7f\\]/.test(raw)) return null;
  if (/%(?![0-9A-Fa-f]{2})/.test(raw)) return null;
  const path = raw.replace(/%[0-9A-Fa-f]{2}/g, (escape) => {
    const character = String.fromCodePoint(Number.parseInt(escape.slice(1), 16));
    return /[A-Za-z0-9\-._~]/.test(character) ? character : escape.toUpperCase();
  });
  if (/%2F|%5C|%[01][0-9A-F]|%7F/.test(path)) return null;
  if (/%25[0-9A-Fa-f]{2}/.test(path)) return null;
  if (isOverlong(resolved(path))) return null;

  // RFC 3986 §5.2.4, of segments: what `..` takes away is the segment before it, with its slash.
  const out: string[] = [];
  const segments = path.slice(1).split("/");
  for (const [i, segment] of segments.entries()) {
    const isLast = i === segments.length - 1;
    if (/^\.\.?[;%]/.test(segment)) return null;
    if (segment === "." || segment === "..") {
      // Some servers merge slashes before they go up, and some after.
      if (segment === ".." && (out.length === 0 || segments[i - 1] === "")) return null;
      if (segment === "..") out.pop();
    } else if (segment !== "") out.push(segment);
    // A slash at the end stays.
    if (isLast && (segment === "" || segment === "." || segment === "..")) out.push("");
  }
  return `/${out.join("/")}`;
}

/** RFC 3629 §3: no character in more bytes than it needs. */
function isOverlong(bytes: string): boolean {
  return /[\xc0\xc1]|\xe0[\x80-\x9f]|\xf0[\x80-\x8f]/.test(bytes);
}

// Routes.

/** The route that takes a request: of all matches of all routes the most specific, else the earlier. Null: none. */
export function winner(policy: AccessPolicy, request: AccessRequest): number | null {
  let best: { readonly route: number; readonly rank: readonly number[] } | null = null;
  for (const [index, route] of policy.routes.entries()) {
    const hosts = route.hosts.filter((host) => hostHolds(host, request.authority));
    if (route.hosts.length > 0 && hosts.length === 0) continue;
    // A GRPCRoute takes gRPC calls alone, and those before any HTTPRoute.
    const isGrpc = route.source.kind === "GRPCRoute";
    if (isGrpc && !isGrpcCall(request)) continue;
    const everything: HttpMatch = { path: null, headers: [], query: [], method: null };
    for (const match of route.matches.length === 0 ? [everything] : route.matches) {
      if (!matchHolds(match, request)) continue;
      const rank = [
        isGrpc ? 1 : 0,
        ...bestOf(
          hosts.map(({ kind, host }) => [kind === "exact" ? 1 : 0, host.length]),
          [-1, 0],
        ),
        ...rankOfPath(match.path),
        match.method === null ? 0 : 1,
        match.headers.length,
        match.query.length,
      ];
      if (best === null || compare(rank, best.rank) > 0) best = { route: index, rank };
    }
  }
  return best === null ? null : best.route;
}

function isGrpcCall(request: AccessRequest): boolean {
  const at = request.fields.findIndex((text, i) => i % 2 === 0 && text.toLowerCase() === "content-type");
  return at !== -1 && /^application\/grpc(?:$|[+;])/.test(request.fields[at + 1] as string);
}

export function matchHolds({ path, headers, query, method }: HttpMatch, request: AccessRequest): boolean {
  return (
    // What says nothing of the path takes one of several readings too.
    (path === null || rankOfPath(path)[0] === 0 || pathHolds(path, request)) &&
    (method === null || method === request.method) &&
    headers.every((match) => fieldHolds("header", match, request, false)) &&
    // "Counts by its first value there, as in an HTTPRoute."
    query.every(({ name, value }) => {
      const [first] = queryValues(name, request);
      return first !== undefined && stringHolds(value, first);
    })
  );
}

/** Exact, longest prefix, regular expression, anything. */
function rankOfPath(path: PathMatch | null): number[] {
  if (path === null) return [0, 0];
  switch (path.kind) {
    case "exact":
      return [3, 0];
    case "prefix": {
      const prefix = withoutSlashAtEnd(path.value);
      return prefix === "" ? [0, 0] : [2, prefix.length];
    }
    case "regex":
      return [1, 0];
    case "rpc":
      if (path.service !== "") return [3, path.method === "" ? 0 : 1];
      return path.method === "" ? [0, 0] : [1, 0];
  }
}

function bestOf(ranks: readonly number[][], none: number[]): number[] {
  return ranks.reduce((best, rank) => (compare(rank, best) > 0 ? rank : best), none);
}

function compare(a: readonly number[], b: readonly number[]): number {
  for (const [i, value] of a.entries()) {
    const difference = value - (b[i] as number);
    if (difference !== 0) return difference;
  }
  return 0;
}

function noObject(name: string): PolicySource {
  return { group: "", kind: "default", namespace: "", name, section: "", port: 0 };
}
