import { fieldValue } from "#/base/fields.ts";
import type { AccessRequest, Claims, ClaimMatch, RequestCondition } from "#/model/access.ts";
import type { FieldMatch, HostMatch } from "#/model/route.ts";
import { methodBit } from "./methods.ts";
import { FieldTest, headerValue } from "../route/candidate.ts";
import { formDecoded } from "../route/query.ts";
import { hostHolds, hostOf } from "../route/host.ts";
import { claimAt } from "./claim.ts";

/** What is looked at of a request; its claims are told beside it. */
export type JudgedRequest = Omit<AccessRequest, "claims">;

/** All of a condition but its paths, which are looked up (`RequestIndex`). */
export class ConditionTest {
  readonly methods: readonly string[] | null;
  /** Of `methods`; those without a bit are compared. */
  readonly #methodBits: number;
  readonly problem: string | null;
  readonly #hosts: readonly HostMatch[] | null;
  readonly #headers: readonly FieldTest[];
  readonly #query: readonly FieldTest[];
  readonly #claims: readonly ClaimMatch[];
  readonly #refuses: boolean;
  /** Nothing but methods and paths is looked at. */
  readonly #isPlain: boolean;

  /**
   * `refuses`: of a rule that refuses. What it says of a header or parameter holds also where one of several of the name is so, for an
   * application may read any of them; and a part that cannot be read holds.
   */
  constructor({ methods, hosts, headers, query, claims }: RequestCondition, refuses: boolean) {
    this.methods = saidOf(methods);
    this.#methodBits = (this.methods ?? []).reduce((bits, method) => bits | methodBit(method), 0);
    this.#hosts = saidOf(hosts);
    this.#headers = headers.map((field: FieldMatch) => new FieldTest(field));
    this.#query = query.map((field: FieldMatch) => new FieldTest(field));
    this.#claims = claims;
    this.#refuses = refuses;
    this.#isPlain = this.#hosts === null && headers.length === 0 && query.length === 0 && claims.length === 0;
    this.problem =
      [...this.#headers, ...this.#query].find(({ problem }) => problem !== null)?.problem ?? null;
  }

  /** `bit`: the `methodBit` of the request's method. */
  holds(request: JudgedRequest, bit: number, claims: Claims | null): boolean {
    if (
      this.methods !== null &&
      (bit === 0 ? !this.methods.includes(request.method) : (this.#methodBits & bit) === 0)
    )
      return false;
    return this.#isPlain || this.#restHolds(request, claims);
  }

  #restHolds(request: JudgedRequest, claims: Claims | null): boolean {
    if (this.#hosts !== null) {
      const host = judgedHost(request.authority);
      if (!this.#hosts.some((each) => hostHolds(each, host))) return false;
    }
    for (const test of this.#headers) if (!this.#fieldHolds(test, request, false)) return false;
    for (const test of this.#query) if (!this.#fieldHolds(test, request, true)) return false;
    for (const claim of this.#claims) if (!claimHolds(claim, claims)) return false;
    return true;
  }

  #fieldHolds(test: FieldTest, request: JudgedRequest, isQuery: boolean): boolean {
    if (test.problem !== null) return this.#refuses;
    const values = isQuery ? queryValues(request.path, test.name) : null;
    const joined =
      values === null ? headerValue(request, test.name) : values.length === 0 ? null : values.join(",");
    if (test.holds(joined)) return true;
    if (!this.#refuses) return false;
    return (values ?? headerValues(request, test.name)).some((value) => test.holds(value));
  }
}

/** Without port and case, and without the dot that may end a name of DNS. */
export function judgedHost(authority: string): string {
  const host = hostOf(authority);
  return host.endsWith(".") ? host.slice(0, -1) : host;
}

/** A list that says nothing where it is empty. */
export function saidOf<T>(list: readonly T[] | null): readonly T[] | null {
  return list === null || list.length === 0 ? null : list;
}

function headerValues({ fields }: JudgedRequest, name: string): string[] {
  if (fieldValue(fields, name) === null) return [];
  const values: string[] = [];
  for (let i = 0; i < fields.length; i += 2)
    if ((fields[i] as string).toLowerCase() === name) values.push(fields[i + 1] as string);
  return values;
}

/** WHATWG URL §5.1, one character per byte. */
function queryValues(path: string, name: string): string[] {
  const query = path.indexOf("?");
  if (query === -1) return [];
  const values: string[] = [];
  for (const pair of path.slice(query + 1).split("&")) {
    if (pair === "") continue;
    const equals = pair.indexOf("=");
    if (formDecoded(equals === -1 ? pair : pair.slice(0, equals)) === name)
      values.push(equals === -1 ? "" : formDecoded(pair.slice(equals + 1)));
  }
  return values;
}

function claimHolds({ claim, values }: ClaimMatch, claims: Claims | null): boolean {
  if (claims === null) return false;
  const found = claimAt(claims, claim);
  const all: readonly unknown[] = Array.isArray(found) ? found : [found];
  return all.some((one) => isScalar(one) && values.includes(String(one)));
}

function isScalar(value: unknown): value is string | number | boolean {
  return typeof value === "string" || typeof value === "number" || typeof value === "boolean";
}
