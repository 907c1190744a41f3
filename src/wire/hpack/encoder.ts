import { assert } from "#/base/assert.ts";
import type { Fields } from "#/base/fields.ts";
import { putLatin1 } from "../latin1.ts";
import type { ByteWriter } from "./byte-writer.ts";
import { ENTRY_OVERHEAD_BYTES } from "./decoder.ts";
import { FieldKind, kindOfName, SENSITIVE } from "./field-kind.ts";
import { huffmanEncode, huffmanEncodedBytes } from "./huffman.ts";
import { STATIC_ENTRIES, STATIC_INDEX_OF_NAME, STATIC_NAMES, STATIC_VALUES } from "./static-table.ts";

/**
 * Encodes header blocks (RFC 7541) of one direction of one connection.
 *
 * A value enters the dynamic table when it is first seen, until `UNUSED_MAX` values of its name have entered and none
 * came back: from then on when it is seen a second time. Request ids and trace contexts, which never come back, would
 * only push out what does. (One of them enters for the sake of its name.) Blocks of the same length are compared field
 * by field with the one before, so what repeats costs two comparisons and one byte. Text goes out unencoded unless
 * `huffman` is set: between two proxies on one network, the time to code it is dearer than the bytes.
 *
 * Holds no more than `NAMES_MAX` names, `REMEMBERED_BYTES_MAX` of their values, and `SHAPES` blocks' references.
 */
export class HpackEncoder {
  readonly #tableBytesMax: number;
  readonly #huffman: boolean;
  #sizeBytes: number;
  /** Size updates still to be said at the next block: the smallest passed through, then the last. -1: none. */
  #smallestUpdate = -1;
  #lastUpdate = -1;

  #names = new Map<string, Name>();
  /** All values that `#names` remember. */
  #rememberedBytes = 0;
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
    const { neverIndexed } = fields;
    for (let i = 0; i < fields.length; i += 2) {
      const name = fields[i]!;
      const value = fields[i + 1]!;
      if (out.bytes.length - out.at < 16) from = out.reserve(256, from);
      let ref = NO_REF;
      if (i < names.length && value === values[i] && name === names[i]) {
        ref = refs[i]!;
        if (ref > 0 && ref <= this.#added - this.#entryCount) ref = NO_REF;
      }
      const isForbidden = neverIndexed !== undefined && neverIndexed.has(name);
      if (ref === NO_REF || isForbidden) {
        if (isForbidden) from = this.#encodeNever(name, value, out, from);
        else from = this.#encodeUnknown(name, value, out, from);
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
    const youngestGone = this.#added - this.#entryCount;
    const canRemember = !known.isVolatile && value.length <= VALUE_BYTES_MAX;
    const seenAt = canRemember ? known.find(value) : -1;
    if (seenAt >= 0 && known.entries[seenAt]! > youngestGone) {
      known.unused = 0;
      this.#ref = known.entries[seenAt]!;
      writeInteger(out, 0x80, 0x7f, STATIC_ENTRIES + 1 + this.#added - this.#ref);
      return keepFrom;
    }

    const entryBytes = name.length + value.length + ENTRY_OVERHEAD_BYTES;
    let bytesMax = 0;
    if (seenAt >= 0 || (canRemember && known.unused < UNUSED_MAX)) {
      // No entry pushes out more than half of the table.
      bytesMax = this.#sizeBytes >>> 1;
    } else if (known.isRepeated && known.staticIndex === 0 && known.lastEntry <= youngestGone) {
      // A name that is in neither table enters with the first value that is short; from then on it costs one byte.
      bytesMax = this.#sizeBytes >>> 4;
    }
    known.isRepeated = true;
    const at = seenAt < 0 && canRemember ? this.#remember(known, value) : seenAt;
    if (entryBytes > bytesMax) return this.#writeLiteral(0x00, 0x0f, known, value, out, keepFrom);
    const from = this.#writeLiteral(0x40, 0x3f, known, value, out, keepFrom);
    this.#add(entryBytes);
    known.lastEntry = this.#added;
    if (seenAt < 0) known.unused++;
    if (at >= 0) {
      known.entries[at] = this.#added;
      this.#ref = this.#added;
    }
    return from;
  }

  /** RFC 7541 §6.2.3: as it came, so it goes on. Its value is not remembered, and no entry is used that has it. */
  #encodeNever(name: string, value: string, out: ByteWriter, keepFrom: number): number {
    this.#ref = NO_REF;
    return this.#writeLiteral(0x10, 0x0f, this.#names.get(name) ?? this.#learn(name), value, out, keepFrom);
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
    if (this.#names.size === NAMES_MAX) {
      this.#names.clear();
      this.#rememberedBytes = 0;
    }
    const name = new Name(text);
    this.#names.set(text, name);
    return name;
  }

  /** Gives the place of `value` among those of `name`, where it takes the oldest one's. */
  #remember(name: Name, value: string): number {
    // At the bound the values of all names are forgotten at once.
    if (this.#rememberedBytes + value.length > REMEMBERED_BYTES_MAX) {
      for (const each of this.#names.values()) each.forgetValues();
      this.#rememberedBytes = 0;
    }
    const at = name.turn;
    if (at < name.values.length) this.#rememberedBytes -= name.values[at]!.length;
    this.#rememberedBytes += value.length;
    name.put(value);
    return at;
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
  /** Values seen lately, and the entry number that each got (0: none). */
  readonly values: string[] = [];
  readonly entries: number[] = [];
  /** Which of `values` is overwritten next. */
  turn = 0;
  /** The youngest entry with this name. */
  lastEntry = 0;
  /** The name was sent before. */
  isRepeated = false;
  /** Values that entered when first seen since one last came back. */
  unused = 0;

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

  /** Where `value` is in `values`, or -1. */
  find(value: string): number {
    const { values } = this;
    for (let i = 0; i < values.length; i++) if (values[i] === value) return i;
    return -1;
  }

  /** Puts `value` at `turn`. */
  put(value: string): void {
    const { values, entries, turn } = this;
    if (turn === values.length) {
      values.push(value);
      entries.push(0);
    } else {
      values[turn] = value;
      entries[turn] = 0;
    }
    this.turn = (turn + 1) % VALUES_MAX;
  }

  forgetValues(): void {
    this.values.length = this.entries.length = this.turn = 0;
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
const VALUES_MAX = 8;
const UNUSED_MAX = 4;
/** Longer values never enter the table. */
const VALUE_BYTES_MAX = 1024;
const REMEMBERED_BYTES_MAX = 128 * 1024;
const NATIVE_BYTES_MIN = 24;
const COOKIE_GUESSABLE_BYTES = 20;

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
