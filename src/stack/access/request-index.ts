import type { Claims, RequestCondition } from "#/model/access.ts";
import type { PathMatch } from "#/model/route.ts";
import { compilePattern, type Pattern } from "../route/pattern.ts";
import { latin1OfUtf8 } from "../route/text.ts";
import { ConditionTest, saidOf, type JudgedRequest } from "./condition.ts";
import { comparedPath, normalPath } from "./path.ts";

/** No rule: behind every number of one. */
export const NONE = 0x3fff_ffff;

/** What is asked, read once for all rules. */
export interface Asked {
  readonly request: JudgedRequest;
  readonly claims: Claims | null;
  /** As it came, without its query. */
  readonly rawPath: string;
  /** As it is compared (`comparedPath`); null where it has several readings, or no rule looks. */
  readonly path: string | null;
  /** Which of the policy's routes takes it; -1 where none does. */
  readonly route: number;
}

/** One path of one condition of a rule. `test` null: it holds as it is. */
interface Entry {
  readonly rule: number;
  readonly test: ConditionTest | null;
}

interface Segment {
  readonly entries: Entry[];
  next: Map<string, Segment> | null;
}

/**
 * The conditions of many rules by path and method, to find the first rule of which one holds: a look-up costs one access for each
 * segment of the path, and a look at what is there. Rules are added in their order.
 */
export class RequestIndex {
  readonly problems: string[] = [];
  readonly #isRaw: boolean;
  readonly #exact = new Map<string, Entry[]>();
  readonly #root: Segment = { entries: [], next: null };
  /** By what stands behind the first segment: gRPC methods of any service. */
  readonly #rests = new Map<string, Entry[]>();
  readonly #patterns: { readonly pattern: Pattern; readonly entry: Entry }[] = [];
  /** Of any path, by method; "" of any method. */
  readonly #byMethod = new Map<string, Entry[]>();

  /** `isRaw`: paths are compared byte for byte, as they came; but for exact ones only those that are in normal form. */
  constructor(isRaw: boolean) {
    this.#isRaw = isRaw;
  }

  addAny(rule: number): void {
    listIn(this.#byMethod, "").push({ rule, test: null });
  }

  /** `refuses`: see `ConditionTest`. */
  add(rule: number, condition: RequestCondition, refuses: boolean): void {
    const test = new ConditionTest(condition, refuses);
    const entry = { rule, test };
    if (test.problem !== null) this.problems.push(test.problem);
    const paths = saidOf(condition.paths);
    if (paths !== null) for (const path of paths) this.#addPath(path, entry, refuses);
    else for (const method of test.methods ?? [""]) listIn(this.#byMethod, method).push(entry);
  }

  #addPath(path: PathMatch, entry: Entry, refuses: boolean): void {
    if (path.kind === "rpc") {
      const service = literalName(path.service);
      const method = literalName(path.method);
      if (service !== "" && method !== "") listIn(this.#exact, `/${service}/${method}`).push(entry);
      else if (service !== "") this.#segmentOf(`/${service}`).entries.push(entry);
      else if (method !== "") listIn(this.#rests, method).push(entry);
      else this.#root.entries.push(entry);
    } else if (path.kind === "regex") {
      const compiled = compilePattern(path.value);
      if (compiled.kind === "pattern") this.#patterns.push({ pattern: compiled.pattern, entry });
      else {
        this.problems.push(compiled.problem);
        if (refuses) this.#root.entries.push(entry);
      }
    } else {
      const value = this.#isRaw ? latin1OfUtf8(path.value) : literalPath(path.value);
      if (path.kind === "prefix" && !value.startsWith("/")) {
        this.problems.push(`the path prefix ${path.value} does not begin with "/"`);
        if (refuses) this.#root.entries.push(entry);
      } else if (path.kind === "exact") listIn(this.#exact, value).push(entry);
      else this.#segmentOf(value).entries.push(entry);
    }
  }

  /** The first rule before `limit` of which a condition holds, of those that `holds` has; else `limit`. */
  first(limit: number, holds: Uint8Array, asked: Asked): number {
    const { request, claims } = asked;
    let best = limit;
    const path = this.#isRaw ? asked.rawPath : asked.path;
    if (path !== null) {
      const exact = this.#exact.size === 0 ? undefined : this.#exact.get(path);
      if (exact !== undefined) best = firstOf(exact, best, holds, request, claims);
      if (this.#isRaw && normalPath(path) !== path) return this.#firstOfAny(best, holds, asked);
      let segments = this.#root.next;
      if (segments !== null && path.charCodeAt(0) === SLASH) {
        for (let at = 1; segments !== null;) {
          const slash: number = path.indexOf("/", at);
          const segment: Segment | undefined = segments.get(path.slice(at, slash === -1 ? undefined : slash));
          if (segment === undefined) break;
          if (segment.entries.length > 0) best = firstOf(segment.entries, best, holds, request, claims);
          if (slash === -1) break;
          segments = segment.next;
          at = slash + 1;
        }
      }
      if (this.#rests.size > 0) {
        const slash = path.indexOf("/", 1);
        const entries = slash === -1 ? undefined : this.#rests.get(path.slice(slash + 1));
        if (entries !== undefined) best = firstOf(entries, best, holds, request, claims);
      }
      for (const { pattern, entry } of this.#patterns) {
        if (entry.rule >= best || holds[entry.rule] === 0) continue;
        if (entry.test?.holds(request, claims) !== false && pattern.matches(path)) best = entry.rule;
      }
      if (this.#root.entries.length > 0) best = firstOf(this.#root.entries, best, holds, request, claims);
    }
    return this.#firstOfAny(best, holds, asked);
  }

  /** … of those that ask nothing of the path. */
  #firstOfAny(limit: number, holds: Uint8Array, { request, claims }: Asked): number {
    if (this.#byMethod.size === 0) return limit;
    let best = limit;
    const ofMethod = this.#byMethod.get(request.method);
    if (ofMethod !== undefined) best = firstOf(ofMethod, best, holds, request, claims);
    const ofAny = this.#byMethod.get("");
    if (ofAny !== undefined) best = firstOf(ofAny, best, holds, request, claims);
    return best;
  }

  /** A slash at the end says nothing. */
  #segmentOf(prefix: string): Segment {
    let segment = this.#root;
    const stop = prefix.endsWith("/") ? prefix.length - 1 : prefix.length;
    if (stop <= 0) return segment;
    for (const name of prefix.slice(1, stop).split("/")) {
      segment.next ??= new Map();
      let next = segment.next.get(name);
      if (next === undefined) segment.next.set(name, (next = { entries: [], next: null }));
      segment = next;
    }
    return segment;
  }
}

/** A path that an object names, as requests' are compared. One that has no such form is taken as it is written. */
export function literalPath(value: string): string {
  // In a path it can only be escaped.
  const latin1 = latin1OfUtf8(value).replaceAll("?", "%3F");
  const normal = normalPath(latin1);
  return normal === null ? latin1 : comparedPath(normal);
}

/** A service or method of gRPC, as paths have it. */
export function literalName(name: string): string {
  return literalPath(`/${name}`).slice(1);
}

/** Entries are in the order of their rules. */
function firstOf(
  entries: readonly Entry[],
  best: number,
  holds: Uint8Array,
  request: JudgedRequest,
  claims: Claims | null,
): number {
  for (let i = 0; i < entries.length; i++) {
    const entry = entries[i] as Entry;
    if (entry.rule >= best) return best;
    if (holds[entry.rule] === 0) continue;
    if (entry.test === null || entry.test.holds(request, claims)) return entry.rule;
  }
  return best;
}

function listIn(lists: Map<string, Entry[]>, key: string): Entry[] {
  let list = lists.get(key);
  if (list === undefined) lists.set(key, (list = []));
  return list;
}

const SLASH = 0x2f;
