import { fieldValue, type Fields } from "#/base/fields.ts";
import type { FieldMatch, HttpMatch, HttpRoute, HttpRule, PathMatch } from "#/model/route.ts";
import { ruleOf } from "#/model/policy.ts";
import type { RequestHead } from "../http/exchange.ts";
import { hostHolds, hostOf, hostText } from "./host.ts";
import { compilePattern, type Pattern } from "./pattern.ts";
import { queryValue } from "./query.ts";
import { latin1OfUtf8 } from "./text.ts";

/** One match of one rule: what a look-up finds. `match` null: the rule has none, and takes everything. */
export class Candidate {
  readonly route: HttpRoute;
  readonly rule: HttpRule;
  readonly ruleIndex: number;
  readonly match: HttpMatch | null;
  readonly matchIndex: number;
  /** Of a match by path that is a regular expression; null otherwise. */
  readonly pathPattern: Pattern | null;
  /** Why this match can never hold; null when it can. */
  readonly problem: string | null;
  readonly #headers: readonly FieldTest[];
  readonly #query: readonly FieldTest[];

  constructor(
    route: HttpRoute,
    rule: HttpRule,
    ruleIndex: number,
    match: HttpMatch | null,
    matchIndex: number,
  ) {
    this.route = route;
    this.rule = rule;
    this.ruleIndex = ruleIndex;
    this.match = match;
    this.matchIndex = matchIndex;
    const path = match?.path ?? null;
    const pathPattern = path?.kind === "regex" ? compilePattern(path.value) : null;
    this.#headers = (match?.headers ?? []).map((field) => new FieldTest(field));
    this.#query = (match?.query ?? []).map((field) => new FieldTest(field));
    const problem = [
      ...(pathPattern?.kind === "problem" ? [pathPattern.problem] : []),
      ...[...this.#headers, ...this.#query].flatMap((test) => (test.problem === null ? [] : [test.problem])),
    ][0];
    this.pathPattern = pathPattern?.kind === "pattern" ? pathPattern.pattern : null;
    this.problem =
      problem === undefined
        ? null
        : `${ruleOf(route.source)}, rule ${ruleIndex + 1}, match ${matchIndex + 1} never holds: ${problem}`;
  }

  /** Holds for every request of every host. */
  get takesAll(): boolean {
    const { match, route } = this;
    if (route.hosts.length > 0) return false;
    if (match === null) return true;
    return (
      isAnyPath(match.path) && match.method === null && match.headers.length === 0 && match.query.length === 0
    );
  }

  /** Whether method, headers and query hold; path and host are looked up. */
  restHolds(head: RequestHead): boolean {
    const { match } = this;
    if (match === null) return true;
    if (match.method !== null && match.method !== head.method) return false;
    for (const header of this.#headers) if (!header.holds(headerValue(head, header.name))) return false;
    for (const param of this.#query) if (!param.holds(queryValue(head.path, param.name))) return false;
    return true;
  }

  /** The first part that does not hold, for people; null when all do. Not for the path of requests. */
  missing(head: RequestHead): string | null {
    const { match, route } = this;
    if (this.problem !== null) return this.problem;
    const host = hostOf(head.authority);
    if (route.hosts.length > 0 && !route.hosts.some((each) => hostHolds(each, host)))
      return `host "${host}" is none of ${route.hosts.map(hostText).join(", ")}`;
    if (match === null) return null;
    if (!pathHolds(match.path, this.pathPattern, pathOf(head)))
      return `path "${pathOf(head)}" is not ${pathText(match.path)}`;
    if (match.method !== null && match.method !== head.method)
      return `method ${head.method} is not ${match.method}`;
    for (const header of this.#headers) {
      const value = headerValue(head, header.name);
      if (!header.holds(value)) return `header ${header.says(value)}`;
    }
    for (const param of this.#query) {
      const value = queryValue(head.path, param.name);
      if (!param.holds(value)) return `query parameter ${param.says(value)}`;
    }
    return null;
  }

  /** What of the request it matched by, for people: 'prefix "/v2", header version, of HTTPRoute/shop/web, rule 2'. */
  get why(): string {
    const { match, route, rule, ruleIndex } = this;
    const parts = [
      ...(route.hosts.length === 0 ? [] : [`host ${route.hosts.map(hostText).join(" or ")}`]),
      pathText(match?.path ?? null),
      ...((match?.method ?? null) === null ? [] : [`method ${match?.method}`]),
      ...(match?.headers ?? []).map(({ name }) => `header ${name}`),
      ...(match?.query ?? []).map(({ name }) => `query parameter ${name}`),
    ];
    const name = rule.name === "" ? "" : ` (${rule.name})`;
    return `${parts.join(", ")}, of ${ruleOf(route.source)}, rule ${ruleIndex + 1}${name}`;
  }
}

/** Path of a request, without its query. */
export function pathOf({ path }: RequestHead): string {
  const query = path.indexOf("?");
  return query === -1 ? path : path.slice(0, query);
}

/** Whether `path`, without its query, is as `asked`. `pattern`: that of a regular expression, compiled; null: it could not be. */
export function pathHolds(asked: PathMatch | null, pattern: Pattern | null, path: string): boolean {
  if (asked === null) return true;
  if (asked.kind !== "rpc") {
    if (asked.kind === "exact") return path === latin1OfUtf8(asked.value);
    if (asked.kind === "prefix") return hasPrefix(path, latin1OfUtf8(asked.value));
    return pattern?.matches(path) === true;
  }
  const slash = path.indexOf("/", 1);
  return (
    (asked.service === "" || path.slice(1, slash === -1 ? undefined : slash) === asked.service) &&
    (asked.method === "" || (slash !== -1 && path.slice(slash + 1) === asked.method))
  );
}

/** Whole segments: "/a" has the paths "/a", "/a/" and "/a/b", not "/ab". "/" has all. */
function hasPrefix(path: string, prefix: string): boolean {
  const length = prefix.endsWith("/") ? prefix.length - 1 : prefix.length;
  if (length === 0) return true;
  return (
    path.startsWith(prefix.slice(0, length)) && (path.length === length || path.charCodeAt(length) === SLASH)
  );
}

/**
 * What a header says: all fields of the name, joined by commas (RFC 9110 §5.3), crumbs of a cookie by semicolons (RFC 9113
 * §8.2.3). Null without any.
 */
export function headerValue(
  { authority, fields }: Pick<RequestHead, "authority" | "fields">,
  name: string,
): string | null {
  const first = fieldValue(fields, name);
  if (first === null) return name === "host" && authority !== "" ? authority : null;
  const last = lastValue(fields, name);
  return last === null ? first : joined(fields, name);
}

/** Value of the last field of the name if it is not the first; null otherwise. */
function lastValue(fields: Fields, name: string): string | null {
  let count = 0;
  let value: string | null = null;
  for (let i = 0; i < fields.length; i += 2) {
    if (!isNamed(fields[i] as string, name)) continue;
    if (++count > 1) value = fields[i + 1] as string;
  }
  return value;
}

function joined(fields: Fields, name: string): string {
  const values: string[] = [];
  for (let i = 0; i < fields.length; i += 2)
    if (isNamed(fields[i] as string, name)) values.push(fields[i + 1] as string);
  return values.join(name === "cookie" ? "; " : ",");
}

function isNamed(at: string, name: string): boolean {
  return at === name || (at.length === name.length && at.toLowerCase() === name);
}

/** A header's or parameter's value against what a match asks of it. */
export class FieldTest {
  readonly name: string;
  readonly problem: string | null;
  readonly #exact: string | null;
  readonly #pattern: Pattern | null;
  readonly #text: string;

  constructor({ name, value }: FieldMatch) {
    this.name = latin1OfUtf8(name);
    this.#text = value.kind === "exact" ? `"${value.value}"` : `a match of ${value.value}`;
    this.#exact = value.kind === "exact" ? latin1OfUtf8(value.value) : null;
    const compiled = value.kind === "regex" ? compilePattern(value.value) : null;
    this.#pattern = compiled?.kind === "pattern" ? compiled.pattern : null;
    this.problem = compiled?.kind === "problem" ? compiled.problem : null;
  }

  /** `value` null: there is none, and nothing holds of it. */
  holds(value: string | null): boolean {
    if (value === null) return false;
    return this.#exact !== null ? value === this.#exact : this.#pattern?.matches(value) === true;
  }

  says(value: string | null): string {
    return value === null ? `${this.name} is missing` : `${this.name} is "${value}" and not ${this.#text}`;
  }
}

function isAnyPath(path: PathMatch | null): boolean {
  if (path === null) return true;
  return path.kind === "rpc"
    ? path.service === "" && path.method === ""
    : path.kind === "prefix" && path.value === "/";
}

function pathText(path: PathMatch | null): string {
  if (path === null) return "any path";
  if (path.kind === "rpc")
    return `gRPC ${path.service === "" ? "any service" : path.service}/${path.method === "" ? "any method" : path.method}`;
  return `${path.kind} "${path.value}"`;
}

const SLASH = 0x2f;
