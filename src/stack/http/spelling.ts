import type { Fields } from "#/base/fields.ts";
import { keepNeverIndexed } from "#/base/fields.ts";
import { isReason } from "#/wire/http1/writer.ts";
import type { FieldName } from "./field-names.ts";
import { fieldName, Kind, NAME_KEPT_BYTES_MAX } from "./field-names.ts";
import { caseEnd, caseOf, withCase } from "./letter-case.ts";

/**
 * What HTTP/1 says of a head and HTTP/2 does not: the case of names, the place of Host and Transfer-Encoding, the reason
 * phrase, and whether an answer ends with its connection. Between two of our own sidecars it travels as `l5d-orig-head`:
 *
 *     spelling = [ "$" ] *( letter-case / "@" letter-case / "*" letter-case letter-case ) [ DQUOTE reason DQUOTE ]
 *
 * One letter case (`letter-case.ts`) for each field, in their order; "@" is Host, whose value is `:authority`; "*" is
 * Transfer-Encoding, with the case of its name and of "chunked"; "$" an answer that ends with its connection. Fields at the
 * end that are in lower case need none. It depends on names and not on values, so that a client's requests share one text,
 * which HPACK sends as a byte.
 *
 * It is believed in nothing but spelling: whoever writes HTTP/1 decides anew how the message is framed.
 */
export class SpellingWriter {
  /** Of the head now being written, in order. */
  readonly #names: FieldName[] = [];
  #count = 0;
  #hash = 0;
  #coding = "";
  #endsWithConnection = false;
  #isKeepable = true;
  /** By hash: heads repeat their names, and building the text costs as much as all else that is done to a head. */
  readonly #kept: (Kept | null)[] = Array.from({ length: KEPT }, () => null);

  begin(endsWithConnection: boolean): void {
    this.#count = 0;
    this.#hash = 0;
    this.#coding = "";
    this.#endsWithConnection = endsWithConnection;
    this.#isKeepable = true;
  }

  /** RFC 9112 §7: the value of Transfer-Encoding is "chunked", whose case is free. Others say nothing here. */
  field(name: FieldName, value: string): void {
    this.#names[this.#count++] = name;
    this.#hash = (31 * this.#hash + name.number) | 0;
    if (name.lower.length > NAME_KEPT_BYTES_MAX) this.#isKeepable = false;
    if (name.kind === Kind.TRANSFER_ENCODING) this.#coding = value;
  }

  /** "" when there is nothing to say. `reason` null: the usual one of the status. */
  end(reason: string | null): string {
    const place = this.#hash & (KEPT - 1);
    const kept = this.#kept[place] ?? null;
    if (kept !== null && this.#isSame(kept) && kept.reason === reason) return kept.text;
    const text = this.#text(reason);
    if (this.#isKeepable && this.#count <= NAMES_KEPT_MAX && text.length <= TEXT_KEPT_BYTES_MAX)
      this.#kept[place] = {
        names: this.#names.slice(0, this.#count),
        coding: this.#coding,
        endsWithConnection: this.#endsWithConnection,
        reason,
        text,
      };
    return text;
  }

  #isSame({ names, coding, endsWithConnection }: Kept): boolean {
    if (names.length !== this.#count) return false;
    for (let i = 0; i < names.length; i++) if (names[i] !== this.#names[i]) return false;
    return coding === this.#coding && endsWithConnection === this.#endsWithConnection;
  }

  #text(reason: string | null): string {
    let names = this.#endsWithConnection ? "$" : "";
    /** Up to the last field that is not simply in lower case. */
    let length = names.length;
    for (let i = 0; i < this.#count; i++) {
      const { kind, letterCase } = this.#names[i] as FieldName;
      if (kind === Kind.HOST) names += "@";
      else if (kind === Kind.TRANSFER_ENCODING) names += `*${letterCase}${caseOf(this.#coding)}`;
      if (kind !== Kind.TRANSFER_ENCODING) names += letterCase;
      if (kind !== Kind.PASS || letterCase !== "-") ({ length } = names);
    }
    names = names.slice(0, length);
    const text = reason === null ? names : `${names}"${reason}"`;
    if (text.length <= SPELLING_BYTES_MAX) return text;
    return names.length <= SPELLING_BYTES_MAX ? names : "";
  }
}

interface Kept {
  readonly names: readonly FieldName[];
  readonly coding: string;
  readonly endsWithConnection: boolean;
  readonly reason: string | null;
  readonly text: string;
}

/** Power of two. */
const KEPT = 256;
/** Of one head that is remembered; with longer ones a peer could make many of them large. */
const NAMES_KEPT_MAX = 64;
const TEXT_KEPT_BYTES_MAX = 512;

/** A head whose spelling is longer, which takes hundreds of odd names, goes on in lower case; a reason, without. */
export const SPELLING_BYTES_MAX = 8_192;

/** A spelling that was read. It remembers the names that it was last used on: a client's requests have the same. */
export class Spelling {
  readonly endsWithConnection: boolean;
  /** Null: the usual one, also where HTTP/2 brought what no status line may hold. */
  readonly reason: string | null;
  /** Of one letter case each, in order; null when the text is none of ours. */
  readonly #marks: readonly string[] | null;
  /** Names that came last, in lower case, and what became of them. */
  #names: string[] = [];
  #spelled: string[] = [];
  /** Where the value of each is: index of the field that came, HOST or TRANSFER_ENCODING. */
  #sources: number[] = [];
  #transferEncoding = "";
  #isFit = false;

  constructor(text: string) {
    this.endsWithConnection = text.charCodeAt(0) === DOLLAR;
    const quote = text.indexOf('"');
    const isQuoted = quote !== -1 && text.length > quote + 1 && text.endsWith('"');
    const reason = isQuoted ? text.slice(quote + 1, -1) : null;
    this.reason = reason !== null && isReason(reason) ? reason : null;
    this.#marks = marksOf(text.slice(this.endsWithConnection ? 1 : 0, quote === -1 ? text.length : quote));
    this.#learn([]);
  }

  /** `fields`, which HTTP/2 brought, as HTTP/1 had them; as they are where the spelling does not fit them. */
  restore(fields: Fields, host: string): Fields {
    if (!this.#isKnown(fields)) this.#learn(fields);
    if (!this.#isFit) {
      if (!this.#isKeepable()) this.#learn([]);
      return fields;
    }
    const spelled = this.#spelled;
    const sources = this.#sources;
    const out: Fields = [];
    for (let i = 0; i < spelled.length; i++) {
      const source = sources[i] as number;
      const value =
        source >= 0 ? (fields[source + 1] as string) : source === FROM_HOST ? host : this.#transferEncoding;
      out.push(spelled[i] as string, value);
    }
    if (!this.#isKeepable()) this.#learn([]);
    keepNeverIndexed(fields, out);
    return out;
  }

  #isKeepable(): boolean {
    const names = this.#names;
    if (names.length > NAMES_KEPT_MAX) return false;
    for (let i = 0; i < names.length; i++)
      if ((names[i] as string).length > NAME_KEPT_BYTES_MAX) return false;
    return true;
  }

  #isKnown(fields: Fields): boolean {
    const names = this.#names;
    if (2 * names.length !== fields.length) return false;
    for (let i = 0; i < names.length; i++) if (names[i] !== fields[2 * i]) return false;
    return true;
  }

  #learn(fields: Fields): void {
    this.#names = fields.filter((_, i) => i % 2 === 0);
    this.#spelled = [];
    this.#sources = [];
    this.#isFit = this.#fit();
  }

  /** Lays the marks over the names. False when one is left over, or says what cannot be. */
  #fit(): boolean {
    if (this.#marks === null) return false;
    const names = this.#names;
    let at = 0;
    for (const mark of this.#marks) {
      const first = mark.charCodeAt(0);
      let name: string | undefined;
      let source = 2 * at;
      let letterCase = mark;
      if (first === AT) {
        name = "host";
        source = FROM_HOST;
        letterCase = mark.slice(1);
      } else if (first === ASTERISK) {
        name = "transfer-encoding";
        source = FROM_CODING;
        const end = caseEnd(mark, 1);
        letterCase = mark.slice(1, end);
        const value = withCase("chunked", mark.slice(end));
        if (value === null) return false;
        this.#transferEncoding = value;
      } else name = names[at++];
      const spelled = name === undefined ? null : withCase(name, letterCase);
      if (spelled === null) return false;
      this.#spelled.push(spelled);
      this.#sources.push(source);
    }
    for (; at < names.length; at++) {
      this.#spelled.push(names[at] as string);
      this.#sources.push(2 * at);
    }
    return this.#isOnce(Kind.HOST) && this.#isOnce(Kind.TRANSFER_ENCODING);
  }

  /** A second Host or coding, from whatever source, would be read differently by different servers. */
  #isOnce(kind: Kind): boolean {
    let count = 0;
    for (const name of this.#spelled) if (fieldName(name).kind === kind) count++;
    return count <= 1;
  }
}

/**
 * The spelling of a text, shared by all heads that carry it. At 256 texts it starts afresh; only proven sidecars are
 * read, so it is their applications that would have to invent orders of names.
 */
export function spellingOf(text: string): Spelling {
  let known = read.get(text);
  if (known === undefined) {
    if (read.size >= READ_MAX) read.clear();
    known = new Spelling(text);
    if (text.length <= TEXT_KEPT_BYTES_MAX) read.set(text, known);
  }
  return known;
}

const read = new Map<string, Spelling>();
const READ_MAX = 256;

function marksOf(text: string): string[] | null {
  const marks: string[] = [];
  for (let at = 0; at < text.length;) {
    const first = text.charCodeAt(at);
    let end = caseEnd(text, first === AT || first === ASTERISK ? at + 1 : at);
    if (first === ASTERISK && end !== -1) end = caseEnd(text, end);
    if (end === -1) return null;
    marks.push(text.slice(at, end));
    at = end;
  }
  return marks;
}

const FROM_HOST = -1;
const FROM_CODING = -2;
const DOLLAR = 0x24;
const AT = 0x40;
const ASTERISK = 0x2a;
