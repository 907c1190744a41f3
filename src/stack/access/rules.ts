import type { IpAddress } from "#/base/address.ts";
import type { AccessPolicy, AccessRoute, AccessRule } from "#/model/access.ts";
import type { PeerIdentity } from "#/model/identity.ts";
import type { HttpRoute, PathMatch } from "#/model/route.ts";
import { RouteTable } from "../route/table.ts";
import { utf8OfLatin1 } from "../route/text.ts";
import { AccessClient } from "./client.ts";
import { looksAtPaths, objectOf, readRule, type ReadRule } from "./read-rule.ts";
import { literalName, literalPath } from "./request-index.ts";
import { RuleIndex, Stage } from "./stage.ts";

/** Clients of one policy whose rules are kept. Beyond, those asked for first are worked out again when they come back. */
const CLIENTS_MAX = 128;

/**
 * An `AccessPolicy` made ready: once for each policy. What its rules ask of requests is indexed for all clients together; which rules
 * are about a client at all is found once for each (`AccessClient`).
 */
export class AccessRules {
  readonly policy: AccessPolicy;
  readonly rules: readonly ReadRule[];
  readonly enforced: Stage;
  /** Null: the same. */
  readonly proposed: Stage | null;
  /** AUDIT rules by object. */
  readonly audits: readonly RuleIndex[];
  /** Whether any rule does, of whatever kind but `exempt`. */
  readonly looksAtPaths: boolean;
  /** Whether paths are forwarded in normal form, and refused where they have none: whether enforced rules tell them apart. */
  readonly normalisesPaths: boolean;
  /** Null: requests are not routed, or all belong to one route. */
  readonly table: RouteTable | null;
  /** What cannot be read: such a part holds in rules that refuse, and nowhere else. */
  readonly problems: readonly string[];
  readonly #routeNumbers = new Map<HttpRoute, number>();
  readonly #clients = new Map<string, AccessClient>();

  constructor(policy: AccessPolicy) {
    this.policy = policy;
    const table =
      policy.routes.length === 0
        ? null
        : new RouteTable(policy.routes.map((route, i) => this.#routeOf(route, i)));
    this.table = table?.only === null ? table : null;
    const only = table === null || table.only === null ? null : this.numberOf(table.only.route);
    this.rules = policy.rules.map((rule) => readRule(rule, only));
    const looks =
      this.table !== null &&
      policy.routes.some(({ matches }) => matches.some(({ path }) => !isAnyPath(path)));
    this.enforced = new Stage(this.rules, "enforced", looks, this.table !== null);
    const differs = policy.rules.some(({ stage }) => stage !== "both");
    this.proposed = differs ? new Stage(this.rules, "proposed", looks, this.table !== null) : null;
    const objects = Map.groupBy(
      policy.rules.keys().filter((i) => policy.rules[i]?.action === "audit"),
      (i) => objectOf(policy.rules[i] as AccessRule),
    );
    this.audits = [...objects.values()].map((numbers) => {
      const index = new RuleIndex(false);
      for (const i of numbers) index.add(0, i, this.rules[i] as ReadRule);
      return index;
    });
    this.normalisesPaths = this.enforced.looksAtPaths;
    this.looksAtPaths =
      this.normalisesPaths ||
      this.proposed?.looksAtPaths === true ||
      policy.rules.some((rule) => rule.action === "audit" && looksAtPaths(rule));
    this.problems = [
      ...(table?.problems ?? []),
      ...this.rules.flatMap(({ sources }) => sources?.flatMap(({ problem }) => problem ?? []) ?? []),
      ...this.enforced.problems,
      ...(this.proposed?.problems ?? []),
      ...this.audits.flatMap(({ problems }) => problems),
    ];
  }

  numberOf(route: HttpRoute): number {
    return this.#routeNumbers.get(route) ?? -1;
  }

  /** What the policy is to one client. */
  clientOf(ip: IpAddress, peer: PeerIdentity | null): AccessClient {
    const key = peer === null ? ip : `${ip} ${peer.name}`;
    let client = this.#clients.get(key);
    if (client !== undefined) return client;
    if (this.#clients.size >= CLIENTS_MAX) this.#clients.delete(this.#clients.keys().next().value as string);
    client = new AccessClient(this, ip, peer);
    this.#clients.set(key, client);
    return client;
  }

  #routeOf({ source, hosts, matches }: AccessRoute, number: number): HttpRoute {
    const route: HttpRoute = {
      source,
      hosts,
      rules: [
        {
          name: "",
          matches: matches.map((match) => ({ ...match, path: comparable(match.path) })),
          filters: [],
          choice: "first",
          backends: [],
          timeouts: { requestMs: null, responseMs: null, attemptMs: null, idleMs: null },
          retry: null,
          allowsRequestHeaders: false,
        },
      ],
    };
    this.#routeNumbers.set(route, number);
    return route;
  }
}

function isAnyPath(path: PathMatch | null): boolean {
  return path === null || (path.kind === "prefix" && path.value === "/");
}

/** For the table, which takes UTF-8. */
function comparable(path: PathMatch | null): PathMatch | null {
  if (path === null || path.kind === "regex") return path;
  if (path.kind === "rpc")
    return { ...path, service: literalName(path.service), method: literalName(path.method) };
  return { kind: path.kind, value: utf8OfLatin1(literalPath(path.value)) };
}
