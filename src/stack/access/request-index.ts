import type { Claims, RequestCondition } from "#/model/access.ts";
import type { PathMatch } from "#/model/route.ts";
import { compilePattern, type Pattern } from "../route/pattern.ts";
import { latin1OfUtf8 } from "../route/text.ts";
import { ConditionTest, saidOf, type JudgedRequest } from "./condition.ts";
import { comparedPath, normalPath } from "./path.ts";
import { hashed, Segments } from "./segments.ts";

/** No rule: behind every number of one. */
export const NONE = 0x3fff_ffff;

/** What is asked, read once for all rules. */
export interface Asked {
  readonly request: JudgedRequest;
  /** Of its method. */
  readonly methodBit: number;
  readonly claims: Claims | null;
  /** As it is compared (`comparedPath`); null where it has several readings, or no rule looks. */
  readonly path: string | null;
  /** Which of the policy's routes takes it; -1 where none does. */
  readonly route: number;
}

/** Conditions of rules, in the order of those: numbers apart from tests, for most rules are about other clients and are not looked at. */
class Entries {
  readonly rules: number[] = [];
  /** Null: the rule asks nothing more. */
  readonly tests: (ConditionTest | null)[] = [];

  add(rule: number, test: ConditionTest | null): void {
    this.rules.push(rule);
    this.tests.push(test);
  }

  first(best: number, holds: Uint8Array, asked: Asked): number {
    const { rules } = this;
    for (let i = 0; i < rules.length; i++) {
      const rule = rules[i]!;
      if (rule >= best) return best;
      if (holds[rule] === 0) continue;
      const test = this.tests[i]!;
      if (test === null || test.holds(asked.request, asked.methodBit, asked.claims)) return rule;
    }
    return best;
  }
}

/** By step. */
type EntryLists = (Entries | undefined)[];

interface Node {
  /** Of rules whose prefix ends here. */
  readonly prefixes: EntryLists;
  /** Of rules that are about exactly this path. */
  readonly exact: EntryLists;
  children: Segments<Node> | null;
}

/**
 * The conditions of many rules by path and method, to find the first rule of each step of which one holds. A look-up costs one look at each
 * character of the path, as far as rules go, and a look at what stands there. Rules are added in their order.
 */
export class RequestIndex {
  readonly problems: string[] = [];
  readonly #isRaw: boolean;
  readonly #root = newNode();
  /** Whole paths that begin with no slash: "*", and "" of CONNECT. */
  readonly #odd = new Map<string, EntryLists>();
  /** By what stands behind the first segment: gRPC methods of any service. */
  readonly #rests = new Map<string, EntryLists>();
  readonly #patterns: {
    readonly pattern: Pattern;
    readonly step: number;
    readonly rule: number;
    readonly test: ConditionTest;
  }[] = [];
  /** Of any path, by method. */
  readonly #byMethod = new Map<string, EntryLists>();
  /** Of any path and method. */
  readonly #any: EntryLists = [];
  /** What `look` found: lists to go through, and the path for patterns; null: none is to be tried. */
  readonly #found: EntryLists[] = [];
  #foundCount = 0;
  #path: string | null = null;

  /** `isRaw`: paths are compared byte for byte, as they came; but for exact ones only those that are in normal form. */
  constructor(isRaw: boolean) {
    this.#isRaw = isRaw;
  }

  /** A rule that asks nothing of requests. */
  addAny(step: number, rule: number): void {
    listAt(this.#any, step).add(rule, null);
  }

  /** `refuses`: see `ConditionTest`. */
  add(step: number, rule: number, condition: RequestCondition, refuses: boolean): void {
    const test = new ConditionTest(condition, refuses);
    if (test.problem !== null) this.problems.push(test.problem);
    const paths = saidOf(condition.paths);
    if (paths === null) {
      if (test.methods === null) listAt(this.#any, step).add(rule, test);
      else for (const method of test.methods) listAt(listsIn(this.#byMethod, method), step).add(rule, test);
      return;
    }
    for (const path of paths) {
      const where = this.#whereOf(path, step, rule, test);
      if (typeof where === "object") listAt(where, step).add(rule, test);
      else if (where !== "") {
        this.problems.push(where);
        if (refuses) listAt(this.#root.prefixes, step).add(rule, test);
      }
    }
  }

  /** Where conditions of such a path stand; "": among the patterns, where this one is now; else why nowhere. */
  #whereOf(path: PathMatch, step: number, rule: number, test: ConditionTest): EntryLists | string {
    if (path.kind === "rpc") {
      const service = literalName(path.service);
      const method = literalName(path.method);
      if (service !== "" && method !== "") return this.#nodeOf(`/${service}/${method}`).exact;
      if (service !== "") return this.#nodeOf(`/${service}`).prefixes;
      return method !== "" ? listsIn(this.#rests, method) : this.#root.prefixes;
    }
    if (path.kind === "regex") {
      const compiled = compilePattern(path.value);
      if (compiled.kind === "problem") return compiled.problem;
      this.#patterns.push({ pattern: compiled.pattern, step, rule, test });
      return "";
    }
    const value = this.#isRaw ? latin1OfUtf8(path.value) : literalPath(path.value);
    if (path.kind === "exact")
      return value.startsWith("/") ? this.#nodeOf(value).exact : listsIn(this.#odd, value);
    // A slash at the end says nothing.
    return value.startsWith("/")
      ? this.#nodeOf(value.replace(/\/$/, "")).prefixes
      : `the path prefix ${path.value} does not begin with "/"`;
  }

  /** Of a path that begins with a slash, or of "", the root. */
  #nodeOf(path: string): Node {
    let node = this.#root;
    for (const name of path.split("/").slice(1)) {
      node.children ??= new Segments();
      let next = node.children.get(name, 0, name.length, hashOf(name));
      if (next === null) node.children.add(name, (next = newNode()));
      node = next;
    }
    return node;
  }

  /** Looks the request up, for `first`. */
  look({ request, path }: Asked): void {
    this.#foundCount = 0;
    this.#path = null;
    if (this.#any.length > 0) this.#find(this.#any);
    if (this.#byMethod.size > 0) this.#find(this.#byMethod.get(request.method));
    if (this.#isRaw) this.#lookRaw(request.path);
    else if (path !== null) this.#lookAt(path, true);
  }

  #lookRaw(target: string): void {
    const query = target.indexOf("?");
    const path = query === -1 ? target : target.slice(0, query);
    this.#lookAt(path, normalPath(path) === path);
  }

  /** `isNormal`: else only what is about exactly this path. */
  #lookAt(path: string, isNormal: boolean): void {
    if (path.charCodeAt(0) !== SLASH) this.#find(this.#odd.get(path));
    else this.#walk(path, isNormal);
    if (!isNormal) return;
    this.#path = path;
    this.#find(this.#root.prefixes);
    if (this.#rests.size === 0) return;
    const slash = path.indexOf("/", 1);
    if (slash !== -1) this.#find(this.#rests.get(path.slice(slash + 1)));
  }

  #walk(path: string, isNormal: boolean): void {
    let node = this.#root;
    let start = 1;
    let hash = 0;
    const end = path.length;
    for (let at = 1; node.children !== null; at++) {
      const code = at === end ? SLASH : path.charCodeAt(at);
      if (code !== SLASH) {
        hash = hashed(hash, code);
        continue;
      }
      const next: Node | null = node.children.get(path, start, at, hash);
      if (next === null) return;
      node = next;
      if (isNormal && node.prefixes.length > 0) this.#find(node.prefixes);
      if (at === end) {
        if (node.exact.length > 0) this.#find(node.exact);
        return;
      }
      start = at + 1;
      hash = 0;
    }
  }

  #find(lists: EntryLists | undefined): void {
    if (lists !== undefined) this.#found[this.#foundCount++] = lists;
  }

  /** The first rule of the step before `limit` of which a condition holds, of those that `holds` has; else `limit`. Of what `look` saw last. */
  first(step: number, limit: number, holds: Uint8Array, asked: Asked): number {
    let best = limit;
    for (let i = 0; i < this.#foundCount; i++) {
      const list = this.#found[i]![step];
      if (list !== undefined) best = list.first(best, holds, asked);
    }
    if (this.#path === null || this.#patterns.length === 0) return best;
    for (const { pattern, step: of, rule, test } of this.#patterns) {
      if (of !== step || rule >= best || holds[rule] === 0) continue;
      if (test.holds(asked.request, asked.methodBit, asked.claims) && pattern.matches(this.#path))
        best = rule;
    }
    return best;
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

function newNode(): Node {
  return { prefixes: [], exact: [], children: null };
}

function hashOf(name: string): number {
  let hash = 0;
  for (let i = 0; i < name.length; i++) hash = hashed(hash, name.charCodeAt(i));
  return hash;
}

function listAt(lists: EntryLists, step: number): Entries {
  // No holes: they would make a list slow.
  while (lists.length <= step) lists.push(undefined);
  return (lists[step] ??= new Entries());
}

function listsIn(map: Map<string, EntryLists>, key: string): EntryLists {
  let lists = map.get(key);
  if (lists === undefined) map.set(key, (lists = []));
  return lists;
}

const SLASH = 0x2f;
