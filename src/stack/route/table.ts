import type { Backend, HttpMatch, HttpRoute, HttpRule } from "#/model/route.ts";
import { ruleOf } from "#/model/policy.ts";
import type { RequestHead } from "../http/exchange.ts";
import { isGrpc } from "../http/mesh-answer.ts";
import { Candidate, pathOf } from "./candidate.ts";
import { hostOf } from "./host.ts";
import { straightBackend } from "./straight.ts";
import { latin1OfUtf8 } from "./text.ts";

/**
 * Finds which rule takes a request, among all routes of a target (GEP-1426, HTTPRouteRule.matches and GRPCRouteRule.matches
 * of Gateway API v1.6). What is more specific wins, whatever stands first:
 *
 *     GRPCRoute for gRPC calls > host: exact > longest suffix > any
 *       > path: exact > longest prefix > regex > "/" or none;  gRPC: service and method > service > method > any
 *       > with a method > more headers > more query parameters
 *       > the order of `routes` (the control plane's: oldest first, then by name) > first rule > first match
 *
 * A path is compared byte for byte as it is forwarded, without its query: no escape is resolved, no segment removed.
 * Immutable; shared by all connections of a target. A look-up costs one map access per segment of the path, and a look at the
 * candidates of that path alone, so its cost hardly depends on how many routes there are.
 */
export class RouteTable {
  readonly routes: readonly HttpRoute[];
  /** What could not be followed, one line each, for the log: such a match never holds. */
  readonly problems: readonly string[];
  /** All matches of all rules, in order. */
  readonly candidates: readonly Candidate[];
  /** The one rule of a target that has nothing to choose by; null otherwise. */
  readonly only: Candidate | null;
  /** Where all requests go, unchanged and uncounted, if that is all that becomes of them; null otherwise. */
  readonly straight: Backend | null;
  readonly #http = new HostIndex();
  readonly #grpc: HostIndex | null;

  constructor(routes: readonly HttpRoute[]) {
    this.routes = routes;
    const candidates = routes.flatMap(candidatesOf);
    this.candidates = candidates;
    this.problems = candidates.flatMap(({ problem }) => (problem === null ? [] : [problem]));
    const [first] = candidates;
    const isOnly =
      first !== undefined && candidates.length === 1 && first.takesAll && !isGrpcRoute(first.route);
    this.only = isOnly ? first : null;
    this.straight = this.only === null ? null : straightBackend(this.only);
    const isRpc = candidates.some(({ route }) => isGrpcRoute(route));
    this.#grpc = isRpc ? new HostIndex() : null;
    for (const candidate of candidates) {
      if (candidate.problem !== null) continue;
      if (isGrpcRoute(candidate.route)) this.#grpc?.add(candidate);
      else this.#http.add(candidate);
    }
    this.#http.sort();
    this.#grpc?.sort();
  }

  /** Null when none takes it. */
  find(head: RequestHead): Candidate | null {
    if (this.only !== null) return this.only;
    if (this.#grpc !== null && isGrpc(head)) {
      const found = this.#grpc.find(head);
      if (found !== null) return found;
    }
    return this.#http.find(head);
  }
}

/** One candidate that was looked at, and what became of it. */
export interface Considered {
  readonly candidate: Candidate;
  /** Whether it wins. */
  readonly wins: boolean;
  /** Why it does, or does not: the first part that does not hold, or by what the winner is more specific. */
  readonly why: string;
}

/** All candidates with their verdict, for `explain`. Looks at every one: not for the path of requests. */
export function consider(table: RouteTable, head: RequestHead): readonly Considered[] {
  const winner = table.find(head);
  return table.candidates.map((candidate) => {
    if (candidate === winner) return { candidate, wins: true, why: candidate.why };
    const missing =
      isGrpcRoute(candidate.route) && !isGrpc(head)
        ? "it is a GRPCRoute, and this is no gRPC call"
        : candidate.missing(head);
    const why =
      missing ??
      `it holds, and ${winner === null ? "is not followed" : `${nameOf(winner)} is more specific`}`;
    return { candidate, wins: false, why };
  });
}

/** As messages name it: "HTTPRoute/shop/web, rule 2 (canary)". Rules count from 1. */
export function nameOf({ route, rule, ruleIndex }: Candidate): string {
  const name = rule.name === "" ? "" : ` (${rule.name})`;
  return `${ruleOf(route.source)}, rule ${ruleIndex + 1}${name}`;
}

/** GEP-1426: where kinds compete for a call, GRPCRoute goes first. */
export function isGrpcRoute(route: HttpRoute): boolean {
  return route.source.kind === "GRPCRoute";
}

function candidatesOf(route: HttpRoute): Candidate[] {
  return route.rules.flatMap((rule: HttpRule, ruleIndex) => {
    const matches: readonly (HttpMatch | null)[] = rule.matches.length === 0 ? [null] : rule.matches;
    return matches.map((match, matchIndex) => new Candidate(route, rule, ruleIndex, match, matchIndex));
  });
}

/** Candidates by the host that their route names. */
class HostIndex {
  readonly #exact = new Map<string, PathIndex>();
  readonly #suffix = new Map<string, PathIndex>();
  readonly #any = new PathIndex();

  add(candidate: Candidate): void {
    const { hosts } = candidate.route;
    if (hosts.length === 0) this.#any.add(candidate);
    for (const { kind, host } of hosts) {
      const byHost = kind === "exact" ? this.#exact : this.#suffix;
      let index = byHost.get(host);
      if (index === undefined) byHost.set(host, (index = new PathIndex()));
      index.add(candidate);
    }
  }

  sort(): void {
    for (const byHost of [this.#exact, this.#suffix]) for (const index of byHost.values()) index.sort();
    this.#any.sort();
  }

  find(head: RequestHead): Candidate | null {
    const path = pathOf(head);
    if (this.#exact.size > 0 || this.#suffix.size > 0) {
      const found = this.#findByHost(hostOf(head.authority), path, head);
      if (found !== null) return found;
    }
    return this.#any.find(path, head);
  }

  #findByHost(host: string, path: string, head: RequestHead): Candidate | null {
    const exact = this.#exact.get(host)?.find(path, head) ?? null;
    if (exact !== null || this.#suffix.size === 0) return exact;
    // "*.example.com" takes one or more labels before it; the longest suffix comes first.
    for (let dot = host.indexOf(".", 1); dot !== -1; dot = host.indexOf(".", dot + 1)) {
      const found = this.#suffix.get(host.slice(dot + 1))?.find(path, head) ?? null;
      if (found !== null) return found;
    }
    return null;
  }
}

/** A segment of paths, and what may come behind it. */
interface Segment {
  /** Whose prefix ends here. */
  readonly candidates: Candidate[];
  next: Map<string, Segment> | null;
}

/** Candidates of one host by path. */
class PathIndex {
  readonly #exact = new Map<string, Candidate[]>();
  readonly #root: Segment = { candidates: [], next: null };
  /** gRPC methods of any service. */
  readonly #methods = new Map<string, Candidate[]>();
  readonly #regexes: Candidate[] = [];

  add(candidate: Candidate): void {
    const path = candidate.match?.path ?? null;
    if (path === null) this.#root.candidates.push(candidate);
    else if (path.kind === "rpc") this.#addRpc(path.service, path.method, candidate);
    else if (path.kind === "exact") listIn(this.#exact, latin1OfUtf8(path.value)).push(candidate);
    else if (path.kind === "prefix") this.#segmentOf(latin1OfUtf8(path.value)).candidates.push(candidate);
    else this.#regexes.push(candidate);
  }

  /** A call's path is "/service/method". */
  #addRpc(service: string, method: string, candidate: Candidate): void {
    if (service !== "" && method !== "") listIn(this.#exact, `/${service}/${method}`).push(candidate);
    else if (service !== "") this.#segmentOf(`/${service}`).candidates.push(candidate);
    else if (method !== "") listIn(this.#methods, method).push(candidate);
    else this.#root.candidates.push(candidate);
  }

  sort(): void {
    for (const list of this.#exact.values()) list.sort(bySpecificity);
    for (const list of this.#methods.values()) list.sort(bySpecificity);
    this.#regexes.sort(bySpecificity);
    sortSegments(this.#root);
  }

  find(path: string, head: RequestHead): Candidate | null {
    const exact = this.#exact.get(path);
    if (exact !== undefined) {
      const found = firstThatHolds(exact, head);
      if (found !== null) return found;
    }
    if (this.#root.next !== null && path.charCodeAt(0) === SLASH) {
      const found = deepest(this.#root.next, path, 1, head);
      if (found !== null) return found;
    }
    if (this.#methods.size > 0) {
      const methods = this.#methods.get(path.slice(path.indexOf("/", 1) + 1));
      const found = methods === undefined ? null : firstThatHolds(methods, head);
      if (found !== null) return found;
    }
    for (const candidate of this.#regexes)
      if (candidate.pathPattern!.matches(path) && candidate.restHolds(head)) return candidate;
    return firstThatHolds(this.#root.candidates, head);
  }

  /** A slash at the end says nothing: "/a/" and "/a" are one prefix. */
  #segmentOf(prefix: string): Segment {
    let segment = this.#root;
    const stop = prefix.endsWith("/") ? prefix.length - 1 : prefix.length;
    if (stop === 0) return segment;
    for (const name of prefix.slice(1, stop).split("/")) {
      segment.next ??= new Map();
      let next = segment.next.get(name);
      if (next === undefined) segment.next.set(name, (next = { candidates: [], next: null }));
      segment = next;
    }
    return segment;
  }
}

/** Goes as deep as prefixes do, and takes the longest that holds. */
function deepest(
  segments: Map<string, Segment>,
  path: string,
  at: number,
  head: RequestHead,
): Candidate | null {
  const slash = path.indexOf("/", at);
  const segment = segments.get(slash === -1 ? path.slice(at) : path.slice(at, slash));
  if (segment === undefined) return null;
  if (segment.next !== null && slash !== -1) {
    const found = deepest(segment.next, path, slash + 1, head);
    if (found !== null) return found;
  }
  return firstThatHolds(segment.candidates, head);
}

function firstThatHolds(candidates: readonly Candidate[], head: RequestHead): Candidate | null {
  for (const candidate of candidates) if (candidate.restHolds(head)) return candidate;
  return null;
}

function sortSegments({ candidates, next }: Segment): void {
  candidates.sort(bySpecificity);
  if (next !== null) for (const segment of next.values()) sortSegments(segment);
}

/** Of candidates with equal hosts and paths. A sort is stable, so the order of routes, rules and matches decides last. */
function bySpecificity({ match: a }: Candidate, { match: b }: Candidate): number {
  return (
    Number((b?.method ?? null) !== null) - Number((a?.method ?? null) !== null) ||
    (b?.headers.length ?? 0) - (a?.headers.length ?? 0) ||
    (b?.query.length ?? 0) - (a?.query.length ?? 0)
  );
}

function listIn(lists: Map<string, Candidate[]>, key: string): Candidate[] {
  let list = lists.get(key);
  if (list === undefined) lists.set(key, (list = []));
  return list;
}

const SLASH = 0x2f;
