import type { HttpMatch } from "#/model/route.ts";
import type { RequestHead } from "../http/exchange.ts";
import { FieldTest, headerValue, pathHolds, pathOf } from "../route/candidate.ts";
import { compilePattern, type Pattern } from "../route/pattern.ts";
import { queryValue } from "../route/query.ts";

/** One `HttpMatch`, ready to be asked of each request. A match that cannot be compiled holds for nothing. */
export class RequestMatch {
  readonly #match: HttpMatch;
  readonly #pattern: Pattern | null;
  readonly #headers: readonly FieldTest[];
  readonly #query: readonly FieldTest[];

  constructor(match: HttpMatch) {
    this.#match = match;
    const { path } = match;
    const compiled = path?.kind === "regex" ? compilePattern(path.value) : null;
    this.#pattern = compiled?.kind === "pattern" ? compiled.pattern : null;
    this.#headers = match.headers.map((field) => new FieldTest(field));
    this.#query = match.query.map((field) => new FieldTest(field));
  }

  holds(head: RequestHead): boolean {
    const { method } = this.#match;
    if (method !== null && method !== head.method) return false;
    if (!pathHolds(this.#match.path, this.#pattern, pathOf(head))) return false;
    for (const header of this.#headers) if (!header.holds(headerValue(head, header.name))) return false;
    for (const param of this.#query) if (!param.holds(queryValue(head.path, param.name))) return false;
    return true;
  }
}

/** Whether any of them holds; none at all holds for everything. */
export function anyHolds(matches: readonly RequestMatch[], head: RequestHead): boolean {
  if (matches.length === 0) return true;
  for (const match of matches) if (match.holds(head)) return true;
  return false;
}
