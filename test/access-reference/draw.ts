import type { IpAddress } from "#/base/address.ts";
import { type Random, SeededRandom } from "#/base/random.ts";
import type {
  AccessAction,
  AccessPolicy,
  AccessRequest,
  AccessRoute,
  AccessRule,
  AccessSource,
  AccessSubject,
  Claims,
  ClaimMatch,
  NetworkMatch,
  PeerMatch,
  RequestCondition,
} from "#/model/access.ts";
import { dnsName, type Identity, type PeerIdentity, spiffeUri } from "#/model/identity.ts";
import type { PolicySource } from "#/model/policy.ts";
import type { FieldMatch, HostMatch, HttpMatch, PathMatch, StringMatch } from "#/model/route.ts";
import {
  claimHolds,
  fieldHolds,
  hostHolds,
  matchHolds,
  normalPath,
  pathHolds,
  sourceHolds,
} from "./reference.ts";

/** A policy and who comes. The same seed draws the same. */
export interface Case {
  readonly seed: number;
  readonly policy: AccessPolicy;
  readonly subject: AccessSubject;
  /** The same client with another request, asked behind the first: what was remembered must not answer it. In some cases. */
  readonly next: AccessSubject | null;
}

/**
 * Everything is drawn from a few words, so that rules and requests meet; and about every other part of a rule is drawn again until
 * the subject fits it, so that rules of several parts hold as well.
 */
export function drawCase(seed: number): Case {
  const draw = new Draw(new SeededRandom(seed));
  const subject = draw.subject();
  return { seed, policy: draw.policy(subject), subject, next: draw.next(subject) };
}

const TRUST_DOMAINS = ["mesh.test", "other.test"];
const NAMESPACES = ["shop", "bank"];
const ACCOUNTS = ["web", "web.api"];
const LOOPBACKS = ["127.0.0.1", "127.8.9.1", "::1"];
const ADDRESSES = [
  "10.0.0.1",
  "10.0.0.2",
  "10.0.1.129",
  "10.128.0.1",
  "128.0.0.1",
  "fd00::1",
  "fd00::8001",
  "fe00::1",
];
const NETS = [
  ...[
    "0.0.0.0/0",
    "10.0.0.0/8",
    "10.0.0.0/9",
    "10.0.0.0/24",
    "10.0.0.1/32",
    "10.0.0.2/31",
    "10.0.1.128/25",
    "128.0.0.0/1",
  ],
  ...["::/0", "fd00::/16", "fd00::/112", "fd00::/113", "fd00::1/128", "fe00::/7"],
];
const METHODS = ["GET", "POST", "get"];
const SEGMENTS = ["a", "b", "A", "a%20b", "%C3%A9"];
/** As clients may write what another could write plainly. */
const SPELLINGS = [
  "%61",
  "%62",
  "%41",
  "%c3%a9",
  "%C3%A9",
  ".",
  "..",
  "%2e",
  "%2E.",
  "",
  "a;x",
  "a%3Bx",
  "...",
  "%3f",
  "a.b",
  "~%7e",
];
/** What is read in several ways. */
const TRAPS = [
  ...["..%20", ".%3Bx", "a\tb", "a b", "a#b", "%0A", "%7f", "%C0%AF", "%e0%80%AF"],
  ...["/..", "a//..", "%c1%81", "a\x7f"],
  "%2F",
  "a%2fb",
  "%5C",
  "%5cb",
  "a%00",
  "\\a",
  "%252F",
  "%252e%252e",
  "%2%35",
  "..;x",
  ".;",
  "%2e%2E;a=b",
  "../..",
  "%",
  "%4",
  "%zz",
  "a%25%34%31",
];
/** Targets that are no path; of these two have no second reading. */
const NO_PATHS = ["*", "", "http://a.test/a", "a"];
const PATHS = ["/", "/a", "/a/", "/a/b", "/b", "/A", "/%C3%A9", "/a%20b", "/a.b", "/b/a"];
const PATTERNS = ["/.*", "/a.*", "/[ab]", "/(a|b)/.+", ".*b", "/a|/b/", "/é/?", "a"];
const QUERIES = [
  "?q=1",
  "?q=2",
  "?q=1&q=2",
  "?r=%31&q=1",
  "?q=+1&r=2",
  "?",
  "?Q=1",
  "?q",
  "?r=/../a%2Fb?q=1",
  "?q=1#a",
];
const HOSTS = ["a.test", "x.a.test", "test", "b.test"];
const AUTHORITIES = [
  "a.test",
  "A.Test:8080",
  "x.a.test",
  "y.x.a.test:80",
  "b.test",
  "test:80",
  "b.test.",
  "ba.test",
  "",
  "[fd00::1]:80",
];
const PARTS = ["method", "path", "path", "host", "header", "header", "query", "query", "claim"] as const;
const QUERY_NAMES = ["q", "r"];
const FIELD_NAMES = ["x-k", "x-l"];
const FIELD_VALUES = ["1", "2", "1,2", "", "one"];
const FIELD_PATTERNS = ["[12]", "1.*", ".*2", "one|two", "\\d+", ".*"];
const CLAIMS = ["role", "org.team", "groups", "level", "org"];
const CLAIM_VALUES = ["admin", "user", "3", "true", ""];
const KINDS = ["AuthorizationPolicy", "Server"];

class Draw {
  readonly #random: Random;
  constructor(random: Random) {
    this.#random = random;
  }

  subject(): AccessSubject {
    const ip = this.#one(this.#chance(0.07) ? LOOPBACKS : ADDRESSES) as IpAddress;
    return { ip, peer: this.#peer(), request: this.#chance(0.2) ? null : this.#request() };
  }

  next(subject: AccessSubject): AccessSubject | null {
    return this.#chance(0.2) ? { ...subject, request: this.#request() } : null;
  }

  #peer(): PeerIdentity | null {
    if (this.#chance(0.3)) return null;
    const identity = this.#identity();
    return { identity, name: this.#chance(0.3) ? spiffeUri(identity) : dnsName(identity) };
  }

  #identity(): Identity {
    return {
      trustDomain: this.#one(TRUST_DOMAINS),
      namespace: this.#one(NAMESPACES),
      serviceAccount: this.#one(ACCOUNTS),
    };
  }

  #request(): AccessRequest {
    const isGrpc = this.#chance(0.3);
    const fields = this.#list(0, 4, () => [
      this.#one(["x-k", "X-K", "x-l", "X-l"]),
      this.#one(FIELD_VALUES),
    ]).flat();
    if (isGrpc) fields.push("Content-Type", this.#one(["application/grpc", "application/grpc+proto"]));
    else if (this.#chance(0.2)) fields.push("content-type", this.#one(["text/html", "application/grpc-web"]));
    return {
      method: this.#one(METHODS),
      path: this.#chance(0.02)
        ? this.#one(NO_PATHS)
        : this.#path() + (this.#chance(0.8) ? this.#one(QUERIES) : ""),
      authority: this.#one(AUTHORITIES),
      fields,
      claims: this.#chance(0.3) ? null : this.#claims(),
    };
  }

  #path(): string {
    const segments = this.#list(this.#chance(0.5) ? 2 : 0, this.#chance(0.6) ? 2 : 3, () =>
      this.#one(this.#chance(0.25) ? SPELLINGS : SEGMENTS),
    );
    if (this.#chance(0.17)) segments.splice(this.#below(segments.length + 1), 0, this.#one(TRAPS));
    if (this.#chance(0.1)) segments.push("");
    return `/${segments.join("/")}`;
  }

  #claims(): Claims {
    const value = (): unknown =>
      this.#one(["admin", "user", "3", 3, true, null, ["admin", 3], [], { team: "user" }]);
    const claims: Record<string, unknown> = {};
    for (const name of ["role", "groups", "level"]) if (this.#chance(0.6)) claims[name] = value();
    if (this.#chance(0.1)) claims["org.team"] = value();
    if (this.#chance(0.7)) claims["org"] = this.#chance(0.8) ? { team: value() } : value();
    return claims;
  }

  policy(subject: AccessSubject): AccessPolicy {
    const routes = this.#chance(0.5) ? this.#list(1, 3, () => this.#route(subject.request)) : [];
    const rules = this.#list(0, 10, () => this.#rule(subject, routes.length));
    return { routes, rules };
  }

  #route(request: AccessRequest | null): AccessRoute {
    const isGrpc = this.#chance(0.3);
    return {
      source: this.#source(isGrpc ? "GRPCRoute" : "HTTPRoute"),
      hosts: this.#chance(0.4) ? this.#list(1, 2, () => this.#host(request)) : [],
      matches: this.#list(this.#chance(0.1) ? 0 : 1, 2, () =>
        this.#fitting(
          0.6,
          () => this.#match(isGrpc, request),
          (match) => request !== null && matchHolds(match, request),
        ),
      ),
    };
  }

  #match(isGrpc: boolean, request: AccessRequest | null): HttpMatch {
    return {
      path: this.#chance(0.8) ? (isGrpc ? ofAny(this.#rpc(request)) : this.#pathMatch(request)) : null,
      headers: this.#chance(0.3) ? this.#fieldMatches("header", request) : [],
      query: this.#chance(0.2) && !isGrpc ? this.#fieldMatches("query", request) : [],
      method: this.#chance(0.3) && !isGrpc ? this.#one(METHODS) : null,
    };
  }

  #rule(subject: AccessSubject, routes: number): AccessRule {
    const action = this.#one(ACTIONS);
    // As policies are compiled, most scopes are all of a port and defaults never look at requests.
    const isWhole = action === "default" || (action === "restrict" && this.#chance(0.6));
    return {
      action,
      stage: this.#one(STAGES),
      source: this.#source(this.#one(KINDS)),
      sources: this.#chance(action === "restrict" ? 0.6 : 0.2)
        ? null
        : this.#list(this.#chance(0.05) ? 0 : 1, 3, () =>
            this.#fitting(
              0.6,
              () => this.#accessSource(subject),
              (source) => sourceHolds(source, subject),
            ),
          ),
      requests:
        isWhole || this.#chance(0.15)
          ? null
          : this.#list(this.#chance(0.04) ? 0 : 1, 3, () => this.#condition(action, subject.request)),
      route: routes > 0 && !UNROUTED.has(action) && this.#chance(0.5) ? this.#below(routes) : null,
      layer: this.#one(["both", "both", "both", "connections", "requests"] as const),
    };
  }

  #source(kind: string): PolicySource {
    return {
      group: this.#one(["pillion.dev", "policy.linkerd.io"]),
      kind,
      namespace: this.#one(NAMESPACES),
      name: this.#one(["p", "q"]),
      section: this.#one(["0", "1", "named"]),
      port: 0,
    };
  }

  #accessSource({ peer }: AccessSubject): AccessSource {
    const networks = this.#chance(0.4)
      ? this.#list(this.#chance(0.05) ? 0 : 1, 2, () => this.#network())
      : null;
    const identity = peer !== null && this.#chance(0.4) ? peer.identity : this.#identity();
    return { peer: this.#peerMatch(identity), networks };
  }

  #peerMatch(identity: Identity): PeerMatch {
    const { trustDomain, namespace, serviceAccount } = identity;
    const kind = this.#one(PEERS);
    switch (kind) {
      case "anyone":
      case "unauthenticated":
      case "authenticated":
        return { kind };
      case "trust-domain":
        return { kind, trustDomain };
      case "namespace":
        return { kind, trustDomain, namespace };
      case "identity":
        return { kind, trustDomain, namespace, serviceAccount };
      case "name":
        return { kind, name: this.#chance(0.4) ? spiffeUri(identity) : dnsName(identity) };
      case "suffix": {
        const labels = dnsName(identity).split(".");
        return { kind, labels: this.#chance(0.1) ? [] : labels.slice(this.#below(labels.length)) };
      }
    }
  }

  #network(): NetworkMatch {
    return {
      net: this.#one(NETS),
      except: this.#chance(0.4) ? this.#list(1, 2, () => this.#one(NETS)) : [],
    };
  }

  #condition(action: AccessAction, request: AccessRequest | null): RequestCondition {
    const parts = this.#list(1, 2, () => this.#one(PARTS));
    const has = (part: (typeof PARTS)[number]): boolean => parts.includes(part);
    const path = (): PathMatch => {
      if (action === "exempt") return this.#probe(request);
      return this.#chance(0.38) ? this.#rpc(request) : this.#pathMatch(request);
    };
    return {
      methods: has("method") ? this.#list(1, 2, () => this.#one(METHODS)) : this.#nothing(),
      paths: has("path") ? this.#list(1, 2, path) : this.#nothing(),
      hosts: has("host") ? this.#list(1, 2, () => this.#host(request)) : this.#nothing(),
      headers: has("header") ? this.#fieldMatches("header", request) : [],
      query: has("query") ? this.#fieldMatches("query", request) : [],
      claims: has("claim") ? this.#list(1, 2, () => this.#claimMatch(request)) : [],
    };
  }

  /** "Null or empty: not looked at." */
  #nothing(): null | [] {
    return this.#chance(0.5) ? null : [];
  }

  #pathMatch(request: AccessRequest | null): PathMatch {
    const kind = this.#one(["exact", "exact", "prefix", "prefix", "regex", "regex"] as const);
    const path = request === null ? null : normalPath(request);
    if (kind === "regex")
      return this.#fitting(
        0.7,
        () => ({ kind, value: this.#one(PATTERNS) }),
        (match) => request !== null && pathHolds(match, request),
      );
    if (path === null || !path.startsWith("/") || this.#chance(0.3)) return { kind, value: this.#one(PATHS) };
    // Some end within a segment.
    const end = kind === "exact" && this.#chance(0.8) ? path.length : 1 + this.#below(path.length);
    return { kind, value: path.slice(0, end) };
  }

  /** Probes are declared as one path. */
  #probe(request: AccessRequest | null): PathMatch {
    const path = request?.path.split("?")[0] ?? "";
    return { kind: "exact", value: path.startsWith("/") && this.#chance(0.7) ? path : this.#one(PATHS) };
  }

  #rpc(request: AccessRequest | null): PathMatch {
    const path = request === null || this.#chance(0.15) ? null : normalPath(request);
    const [, service, method] = path?.split("/") ?? ["", this.#one(["a", "b"]), this.#one(["a", "b"])];
    // Names of services and methods have no escapes.
    const named = (name: string | undefined): string =>
      this.#chance(0.3) ? "" : name === undefined || name.includes("%") ? this.#one(["a", "b"]) : name;
    return { kind: "rpc", service: named(service), method: named(method) };
  }

  #host(request: AccessRequest | null): HostMatch {
    return this.#fitting(
      0.5,
      () => ({ kind: this.#one(["exact", "suffix"]), host: this.#one(HOSTS) }),
      (host) => request !== null && hostHolds(host, request.authority),
    );
  }

  #fieldMatches(what: "header" | "query", request: AccessRequest | null): FieldMatch[] {
    return this.#list(1, 2, () =>
      this.#fitting(
        0.8,
        () => ({ name: this.#one(what === "header" ? FIELD_NAMES : QUERY_NAMES), value: this.#value() }),
        (match) => request !== null && fieldHolds(what, match, request, false),
      ),
    );
  }

  #value(): StringMatch {
    const kind = this.#one(["exact", "exact", "exact", "regex"] as const);
    return { kind, value: this.#one(kind === "regex" ? FIELD_PATTERNS : FIELD_VALUES) };
  }

  #claimMatch(request: AccessRequest | null): ClaimMatch {
    return this.#fitting(
      0.8,
      () => ({ claim: this.#one(CLAIMS), values: this.#list(1, 2, () => this.#one(CLAIM_VALUES)) }),
      (match) => request !== null && claimHolds(match, request.claims),
    );
  }

  /** In `share` of cases drawn anew, a bounded number of times, until it fits. */
  #fitting<T>(share: number, make: () => T, fits: (made: T) => boolean): T {
    let made = make();
    if (this.#chance(share)) for (let tries = 0; tries < 8 && !fits(made); tries++) made = make();
    return made;
  }

  #chance(share: number): boolean {
    return this.#random.next() < share;
  }

  #below(count: number): number {
    return Math.floor(this.#random.next() * count);
  }

  #one<T>(of: readonly T[]): T {
    return of[this.#below(of.length)] as T;
  }

  #list<T>(min: number, max: number, make: () => T): T[] {
    const list: T[] = [];
    for (let left = min + this.#below(max - min + 1); left > 0; left--) list.push(make());
    return list;
  }
}

/** A route of gRPC that names neither says nothing of paths. */
function ofAny(path: PathMatch): PathMatch | null {
  return path.kind === "rpc" && path.service === "" && path.method === "" ? null : path;
}

const ACTIONS: readonly AccessAction[] = ["exempt", "deny", "allow", "allow", "restrict", "default", "audit"];
/** These are of a port; routes of an AUDIT policy are compiled into its requests. */
const UNROUTED: ReadonlySet<AccessAction> = new Set(["exempt", "default", "audit"]);
const STAGES = ["both", "both", "both", "enforced", "proposed"] as const;
const PEERS: readonly PeerMatch["kind"][] = [
  ...([
    "anyone",
    "unauthenticated",
    "authenticated",
    "trust-domain",
    "namespace",
    "identity",
    "name",
    "suffix",
  ] as const),
];
