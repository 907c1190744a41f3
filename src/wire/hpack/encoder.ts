import { assert } from "#/base/assert.ts";
import type { Fields } from "#/base/fields.ts";
import { putLatin1 } from "../latin1.ts";
import type { ByteWriter } from "./byte-writer.ts";
import { ENTRY_OVERHEAD_BYTES } from "./decoder.ts";
import { FieldKind, kindOfName } from "./field-kind.ts";
import { huffmanEncode, huffmanEncodedBytes } from "./huffman.ts";
import { STATIC_ENTRIES, STATIC_INDEX_OF_NAME, STATIC_NAMES, STATIC_VALUES } from "./static-table.ts";

/**
 * Encodes header blocks (RFC 7541) of one direction of one connection.
 *
 * A value enters the dynamic table when it is seen a second time: request ids and trace contexts, which never come
 * back, would only push out what does. (One of them enters for the sake of its name.) Blocks of the same length are compared field by field with the one before, so
 * what repeats costs two comparisons and one byte. Text goes out unencoded unless `huffman` is set: between two
 * proxies on one network, the time to code it is dearer than the bytes.
 *
 * Holds no more than `NAMES_MAX` × `VALUES_MAX` values of `REMEMBERED_BYTES_MAX`, and `SHAPES` blocks' references.
 */
export class HpackEncoder {
  readonly #tableBytesMax: number;
  readonly #huffman: boolean;
  #sizeBytes: number;
  /** Size updates still to be said at the next block: the smallest passed through, then the last. -1: none. */
  #smallestUpdate = -1;
  #lastUpdate = -1;

  #names = new Map<string, Name>();
  readonly #shapes: Shape[] = [];

  // The dynamic table needs only sizes here: entry number n (1 is the first ever added) lies at n & #mask.
  #entryBytes = new Int32Array(32);
  #mask = 31;
  #added = 0;
  #entryCount = 0;
  #tableBytes = 0;

  constructor(options: { tableBytesMax: number; huffman?: boolean }) {
    this.#tableBytesMax = options.tableBytesMax;
    this.#huffman = options.huffman ?? false;
    // RFC 9113 §6.5.2: the remote's table begins at 4,096 bytes until its SETTINGS say otherwise.
    this.#sizeBytes = Math.min(options.tableBytesMax, DEFAULT_TABLE_BYTES);
    if (this.#sizeBytes < DEFAULT_TABLE_BYTES) this.#smallestUpdate = this.#lastUpdate = this.#sizeBytes;
    for (let i = 0; i < SHAPES; i++) this.#shapes.push(new Shape());
  }

  /** Bytes that the dynamic table counts now (RFC 7541 §4.1). */
  get tableBytes(): number {
    return this.#tableBytes;
  }

  /** The remote's SETTINGS_HEADER_TABLE_SIZE. We use at most our own bound of it. */
  setLimit(limitBytes: number): void {
    const sizeBytes = Math.min(limitBytes, this.#tableBytesMax);
    if (sizeBytes === this.#sizeBytes) return;
    this.#sizeBytes = sizeBytes;
    this.#evict(0);
    this.#smallestUpdate = this.#smallestUpdate < 0 ? sizeBytes : Math.min(this.#smallestUpdate, sizeBytes);
    this.#lastUpdate = sizeBytes;
  }

  /** Appends the block of `fields` to `out`, contiguous with `keepFrom`; gives where `keepFrom` is now. */
  encode(fields: Fields, out: ByteWriter, keepFrom: number): number {
    let from = out.reserve(16, keepFrom);
    if (this.#lastUpdate >= 0) this.#writeSizeUpdates(out);
    const shape = this.#shapes[(fields.length >>> 1) & (SHAPES - 1)]!;
    const { names, values, refs } = shape;
    for (let i = 0; i < fields.length; i += 2) {
      const name = fields[i]!;
      const value = fields[i + 1]!;
      if (out.bytes.length - out.at < 16) from = out.reserve(256, from);
      let ref = NO_REF;
      if (i < names.length && value === values[i] && name === names[i]) {
        ref = refs[i]!;
        if (ref > 0 && ref <= this.#added - this.#entryCount) ref = NO_REF;
      }
      if (ref === NO_REF) {
        from = this.#encodeUnknown(name, value, out, from);
        ref = this.#ref;
        // What went out as a literal is not kept: it may be a secret, and costs the same next time.
        const kept = ref === NO_REF ? "" : value;
        if (i < names.length) {
          names[i] = name;
          values[i] = kept;
          refs[i] = ref;
        } else if (i < SHAPE_STRINGS_MAX) {
          names.push(name, "");
          values.push(kept, "");
          refs.push(ref, 0);
        }
        continue;
      }
      const index = ref < 0 ? -ref : STATIC_ENTRIES + 1 + this.#added - ref;
      if (index < 0x7f) out.bytes[out.at++] = 0x80 | index;
      else writeInteger(out, 0x80, 0x7f, index);
    }
    return from;
  }

  /** Reference of the field last written: negative static index, entry number, or NO_REF for a literal. */
  #ref = 0;

  #encodeUnknown(name: string, value: string, out: ByteWriter, keepFrom: number): number {
    const known = this.#names.get(name) ?? this.#learn(name);
    this.#ref = NO_REF;

    for (let index = known.staticIndex; index > 0 && index <= known.staticLast; index++) {
      if (STATIC_VALUES[index] !== value) continue;
      this.#ref = -index;
      out.bytes[out.at++] = 0x80 | index;
      return keepFrom;
    }

    // RFC 7541 §7.1.3: secrets are never indexed, here or by whoever passes the field on. A short cookie is guessable.
    if (known.isSensitive || (known.isCookie && value.length < COOKIE_GUESSABLE_BYTES)) {
      return this.#writeLiteral(0x10, 0x0f, known, value, out, keepFrom);
    }
    // Forgotten values are not searched for: what is that long or never comes back is written as it is.
    const at = known.isVolatile || value.length > REMEMBERED_BYTES_MAX ? -1 : known.recall(value);
    if (at >= 0 && known.entries[at]! > this.#added - this.#entryCount) {
      this.#ref = known.entries[at]!;
      writeInteger(out, 0x80, 0x7f, STATIC_ENTRIES + 1 + this.#added - this.#ref);
      return keepFrom;
    }

    const entryBytes = name.length + value.length + ENTRY_OVERHEAD_BYTES;
    // A value seen before enters the table, unless it would push out more than half of it. A name that is in neither
    // table enters with the first value that is short, so that from then on it costs one byte.
    const isNameKnown = known.staticIndex > 0 || known.lastEntry > this.#added - this.#entryCount;
    const bytesMax =
      at >= 0 ? this.#sizeBytes >>> 1 : known.isRepeated && !isNameKnown ? this.#sizeBytes >>> 4 : 0;
    known.isRepeated = true;
    if (entryBytes > bytesMax) return this.#writeLiteral(0x00, 0x0f, known, value, out, keepFrom);
    const from = this.#writeLiteral(0x40, 0x3f, known, value, out, keepFrom);
    this.#add(entryBytes);
    known.lastEntry = this.#added;
    if (at >= 0) {
      known.entries[at] = this.#added;
      this.#ref = this.#added;
    }
    return from;
  }

  #writeLiteral(
    pattern: number,
    mask: number,
    name: Name,
    value: string,
    out: ByteWriter,
    keepFrom: number,
  ): number {
    const from = out.reserve(name.text.length + 4 * value.length + 32, keepFrom);
    if (name.staticIndex > 0) {
      writeInteger(out, pattern, mask, name.staticIndex);
    } else if (name.lastEntry > this.#added - this.#entryCount) {
      writeInteger(out, pattern, mask, STATIC_ENTRIES + 1 + this.#added - name.lastEntry);
    } else {
      out.bytes[out.at++] = pattern;
      this.#writeString(name.text, out);
    }
    this.#writeString(value, out);
    return from;
  }

  #writeString(text: string, out: ByteWriter): void {
    const length = text.length;
    if (this.#huffman) {
      const encodedBytes = huffmanEncodedBytes(text);
      if (encodedBytes < length) {
        writeInteger(out, 0x80, 0x7f, encodedBytes);
        out.at = huffmanEncode(text, out.bytes, out.at);
        return;
      }
    }
    writeInteger(out, 0x00, 0x7f, length);
    // Below some length a loop beats the call into native code.
    if (length >= NATIVE_BYTES_MIN) {
      out.at += putLatin1(out.bytes, text, out.at);
      return;
    }
    const bytes = out.bytes;
    let at = out.at;
    for (let i = 0; i < length; i++) bytes[at++] = text.charCodeAt(i);
    out.at = at;
  }

  #writeSizeUpdates(out: ByteWriter): void {
    // RFC 7541 §4.2: when it went down and up again, say the smallest first.
    if (this.#smallestUpdate < this.#lastUpdate) writeInteger(out, 0x20, 0x1f, this.#smallestUpdate);
    writeInteger(out, 0x20, 0x1f, this.#lastUpdate);
    this.#smallestUpdate = this.#lastUpdate = -1;
  }

  #learn(text: string): Name {
    // At the bound everything learned is forgotten at once; the remote's table is not touched by that.
    if (this.#names.size === NAMES_MAX) this.#names.clear();
    const name = new Name(text);
    this.#names.set(text, name);
    return name;
  }

  #add(entryBytes: number): void {
    this.#evict(entryBytes);
    if (this.#entryCount > this.#mask) this.#growRing();
    this.#entryBytes[++this.#added & this.#mask] = entryBytes;
    this.#entryCount++;
    this.#tableBytes += entryBytes;
  }

  #evict(roomBytes: number): void {
    while (this.#entryCount > 0 && this.#tableBytes + roomBytes > this.#sizeBytes) {
      this.#tableBytes -= this.#entryBytes[(this.#added - this.#entryCount + 1) & this.#mask]!;
      this.#entryCount--;
    }
  }

  #growRing(): void {
    const size = 2 * (this.#mask + 1);
    const entryBytes = new Int32Array(size);
    for (let n = this.#added - this.#entryCount + 1; n <= this.#added; n++) {
      entryBytes[n & (size - 1)] = this.#entryBytes[n & this.#mask]!;
    }
    this.#entryBytes = entryBytes;
    this.#mask = size - 1;
  }
}

/** What the encoder remembers of one field name. */
class Name {
  readonly text: string;
  /** First and last static entry with this name, 0 when there is none. */
  readonly staticIndex: number;
  readonly staticLast: number;
  readonly isSensitive: boolean;
  readonly isCookie: boolean;
  readonly isVolatile: boolean;
  /** Values seen lately, and the entry number that each got (0: seen once). */
  readonly values: string[] = [];
  readonly entries: number[] = [];
  /** Which of `values` is overwritten next. */
  turn = 0;
  /** The youngest entry with this name. */
  lastEntry = 0;
  /** The name was sent before. */
  isRepeated = false;

  constructor(text: string) {
    const kind = kindOfName(text);
    assert(
      kind !== FieldKind.BAD_NAME && kind !== FieldKind.UNKNOWN_PSEUDO,
      `field name "${text}" is not one for HTTP/2`,
    );
    this.text = text;
    this.staticIndex = STATIC_INDEX_OF_NAME.get(text) ?? 0;
    let last = this.staticIndex;
    while (last > 0 && STATIC_NAMES[last + 1] === text) last++;
    this.staticLast = last;
    this.isSensitive = SENSITIVE.has(text);
    this.isCookie = text === "cookie";
    this.isVolatile = VOLATILE.has(text);
  }

  /** Where `value` is in `values`; -1 when it was not there and is now, in place of the oldest. */
  recall(value: string): number {
    const { values } = this;
    for (let i = 0; i < values.length; i++) if (values[i] === value) return i;
    if (values.length < VALUES_MAX) {
      values.push(value);
      this.entries.push(0);
    } else {
      values[this.turn] = value;
      this.entries[this.turn] = 0;
      this.turn = (this.turn + 1) % VALUES_MAX;
    }
    return -1;
  }
}

/** The block last encoded with so many fields; the odd places are unused, so that indexes match those of `Fields`. */
class Shape {
  readonly names: string[] = [];
  readonly values: string[] = [];
  readonly refs: number[] = [];
}

const DEFAULT_TABLE_BYTES = 4096;
/** A field that must be looked up or written as a literal. */
const NO_REF = 0;
/** Power of two. */
const SHAPES = 8;
const SHAPE_STRINGS_MAX = 128;
const NAMES_MAX = 128;
const VALUES_MAX = 4;
const REMEMBERED_BYTES_MAX = 512;
const NATIVE_BYTES_MIN = 24;
const COOKIE_GUESSABLE_BYTES = 20;

const SENSITIVE: ReadonlySet<string> = new Set(["authorization", "proxy-authorization", "set-cookie"]);
/** Hardly ever the same twice. */
const VOLATILE: ReadonlySet<string> = new Set(["age", "traceparent", "x-request-id", "l5d-ctx-trace"]);

/** RFC 7541 §5.1. */
function writeInteger(out: ByteWriter, pattern: number, mask: number, value: number): void {
  const bytes = out.bytes;
  if (value < mask) {
    bytes[out.at++] = pattern | value;
    return;
  }
  bytes[out.at++] = pattern | mask;
  let rest = value - mask;
  while (rest >= 0x80) {
    bytes[out.at++] = (rest & 0x7f) | 0x80;
    rest >>>= 7;
  }
  bytes[out.at++] = rest;
}
