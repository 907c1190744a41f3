import { keepNeverIndexed, type Fields } from "#/base/fields.ts";
import type { HeaderChange } from "#/model/route.ts";
import { fieldName, Kind } from "../http/field-names.ts";
import { latin1OfUtf8 } from "./text.ts";

/**
 * Why no filter may change this field; null when it may. What frames a message or belongs to one connection (RFC 9110 §7.6.1) is
 * decided by whoever writes it, the host by a rewrite, and the mesh's own fields by the mesh.
 */
export function fieldProblem(name: string): string | null {
  const lower = name.toLowerCase();
  const { kind } = fieldName(lower);
  if (!isToken(name)) return `"${name}" is no name of a header (RFC 9110 §5.1)`;
  if (kind === Kind.HOST) return "Host is changed by a URL rewrite's hostname";
  if (kind === Kind.INTERNAL) return `${name} belongs to the mesh`;
  if (kind !== Kind.PASS || OF_CONNECTIONS.has(lower))
    return `${name} belongs to a connection, or frames a message`;
  return null;
}

/** RFC 9110 §5.6.2. */
export function isToken(text: string): boolean {
  return TOKEN.test(text);
}

/** A header filter, ready to be applied. What cannot be done is left out. */
export class HeaderEdit {
  /** By name in lower case: the value, and the name as the filter writes it. */
  readonly #set = new Map<string, readonly [name: string, value: string]>();
  readonly #add: (readonly [name: string, lower: string, value: string])[] = [];
  readonly #remove = new Set<string>();

  constructor(changes: readonly HeaderChange[]) {
    for (const { add, set, remove } of changes) {
      for (const [name, value] of set)
        if (isAllowed(name, value)) this.#set.set(name.toLowerCase(), [name, latin1OfUtf8(value)]);
      for (const [name, value] of add)
        if (isAllowed(name, value)) this.#add.push([name, name.toLowerCase(), latin1OfUtf8(value)]);
      for (const name of remove) if (fieldProblem(name) === null) this.#remove.add(name.toLowerCase());
    }
  }

  /**
   * A changed copy. What is replaced keeps its place and its spelling; what is new stands last, spelled as the filter writes it
   * over HTTP/1 and in lower case over HTTP/2.
   */
  apply(fields: Fields, isHttp2: boolean): Fields {
    const out: Fields = [];
    let replaced: Set<string> | null = null;
    for (let i = 0; i < fields.length; i += 2) {
      const name = fields[i] as string;
      const { lower } = fieldName(name);
      if (this.#remove.has(lower)) continue;
      const set = this.#set.get(lower);
      if (set === undefined) out.push(name, fields[i + 1] as string);
      else if (replaced === null || !replaced.has(lower)) {
        out.push(name, set[1]);
        (replaced ??= new Set()).add(lower);
      }
    }
    for (const [lower, [name, value]] of this.#set)
      if (!this.#remove.has(lower) && (replaced === null || !replaced.has(lower)))
        out.push(isHttp2 ? lower : name, value);
    for (const [name, lower, value] of this.#add)
      if (!this.#remove.has(lower)) out.push(isHttp2 ? lower : name, value);
    keepNeverIndexed(fields, out);
    return out;
  }
}

function isAllowed(name: string, value: string): boolean {
  return fieldProblem(name) === null && VALUE.test(value);
}

const TOKEN = /^[!#$%&'*+\-.^_`|~0-9A-Za-z]+$/;
/** RFC 9110 §5.5: no control character, no white space at the ends. */
// oxlint-disable-next-line no-control-regex
const VALUE = /^(?![ \t])[^\x00-\x08\x0a-\x1f\x7f]*(?<![ \t])$/;
/** What our own machines answer or announce, beside the kinds that never pass. */
const OF_CONNECTIONS: ReadonlySet<string> = new Set([
  "trailer",
  "expect",
  "proxy-authenticate",
  "proxy-authorization",
]);
