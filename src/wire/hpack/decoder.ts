import type { Fields } from "#/base/fields.ts";
import { isHost } from "../host.ts";
import { BAD_VALUE, FieldKind, kindOfName, kindOfValue, NAME_KIND, SENSITIVE } from "./field-kind.ts";
import { huffmanDecode, huffmanDecodedBytesMax } from "./huffman.ts";
import { latin1 } from "../latin1.ts";
import { STATIC_ENTRIES, STATIC_NAMES, STATIC_VALUES } from "./static-table.ts";

/** What `HpackDecoder.decode` says. */
export const Decoded = {
  OK: 0,
  /** The list is larger than allowed. The table is in step, but `fields` is cut short. */
  TOO_LARGE: 1,
  /** RFC 7541 §5: no valid encoding. The table is lost, and with it the connection. */
  BROKEN: 2,
} as const;

/**
 * Decodes header blocks (RFC 7541) of one direction of one connection. Holds at most the table (`tableBytesMax`), one
 * list of `listBytesMax`, and a scratch buffer for Huffman text.
 */
export class HpackDecoder {
  /** The list last decoded, which nobody may change: a block that repeats gives the very same list (`isRepeat`). */
  fields: Fields = [];
  /** `FieldKind` (with `BAD_VALUE`) of each field, same order; valid up to `fields.length / 2` until the next block. */
  kinds: Uint8Array = new Uint8Array(64);
  /**
   * Where the block last decoded is remembered, 0 to `REMEMBERED_BLOCKS` - 1, or -1 when it is not. With `isRepeat`
   * it is the very list that was last decoded with this `place`: what was found out about it still holds.
   */
  place = -1;
  isRepeat = false;

  readonly #listBytesMax: number;
  /** The largest table that the remote encoder may choose: our acknowledged SETTINGS_HEADER_TABLE_SIZE. */
  #limitBytes: number;
  /** The table size that the remote encoder chose. #tableBytes <= #sizeBytes <= #limitBytes. */
  #sizeBytes: number;
  /** RFC 7541 §4.2: after we lowered the limit below its choice, the next block must begin with an update. */
  #updateDue = false;

  // The dynamic table: a ring in which entry number n (1 is the first ever added) lies at n & #mask.
  #names: string[] = [];
  #values: string[] = [];
  #kindsOfEntries = new Uint8Array(RING_FIRST);
  #mask = RING_FIRST - 1;
  #added = 0;
  #entryCount = 0;
  #tableBytes = 0;

  /** Blocks of one-byte references only, such as every request after the first few of a busy client. */
  readonly #blocks: (Buffer | null)[] = NO_BLOCKS.slice();
  readonly #blockFields: Fields[] = NO_BLOCK_FIELDS.slice();
  readonly #blockKinds: Uint8Array[] = NO_BLOCK_KINDS.slice();
  /** Hash of the block last seen for each place: a block is remembered when it comes twice running. */
  readonly #blockHashes = new Int32Array(REMEMBERED_BLOCKS).fill(-1);
  /** Entries added when the block was remembered: its references mean the same while that stays. */
  readonly #blockAdded = new Float64Array(REMEMBERED_BLOCKS);

  /** `kinds` of blocks that are not remembered. */
  #kinds: Uint8Array = this.kinds;
  #bytes: Buffer = EMPTY;
  #at = 0;
  #stop = 0;
  /** Whether the string last read holds a character that no value may have. */
  #stringKind = 0;
  #scratch: Buffer = EMPTY;

  constructor(options: { tableBytesMax: number; listBytesMax: number }) {
    this.#limitBytes = options.tableBytesMax;
    this.#sizeBytes = options.tableBytesMax;
    this.#listBytesMax = options.listBytesMax;
    for (let i = 0; i < RING_FIRST; i++) {
      this.#names.push("");
      this.#values.push("");
    }
  }

  /** Bytes that the dynamic table counts now (RFC 7541 §4.1). */
  get tableBytes(): number {
    return this.#tableBytes;
  }

  /** A new SETTINGS_HEADER_TABLE_SIZE of ours was acknowledged. */
  setLimit(limitBytes: number): void {
    this.#limitBytes = limitBytes;
    if (limitBytes < this.#sizeBytes) this.#updateDue = true;
  }

  /** Decodes one whole block `bytes[start, stop)` into `fields` and `kinds`. */
  decode(bytes: Buffer, start: number, stop: number): number {
    const hash = this.#updateDue ? -1 : hashOf(bytes, start, stop);
    if (hash >= 0) {
      const place = hash & (REMEMBERED_BLOCKS - 1);
      const block = this.#blocks[place]!;
      if (block !== null && this.#blockAdded[place] === this.#added && isSame(block, bytes, start, stop)) {
        this.place = place;
        this.isRepeat = true;
        this.fields = this.#blockFields[place]!;
        this.kinds = this.#blockKinds[place]!;
        return Decoded.OK;
      }
    }
    this.place = -1;
    this.isRepeat = false;
    this.kinds = this.#kinds;
    const result = this.#decodeNew(bytes, start, stop);
    this.#bytes = EMPTY;
    if (hash >= 0 && result === Decoded.OK) this.#remember(hash, bytes.subarray(start, stop));
    return result;
  }

  #remember(hash: number, block: Buffer): void {
    const place = hash & (REMEMBERED_BLOCKS - 1);
    if (this.#blockHashes[place] !== hash) {
      this.#blockHashes[place] = hash;
      return;
    }
    this.place = place;
    this.#blocks[place] = Buffer.from(block);
    this.#blockFields[place] = this.fields;
    this.#blockKinds[place] = this.kinds.slice(0, this.fields.length >>> 1);
    this.#blockAdded[place] = this.#added;
  }

  #decodeNew(bytes: Buffer, start: number, stop: number): number {
    const fields: Fields = [];
    this.fields = fields;
    this.#bytes = bytes;
    this.#at = start;
    this.#stop = stop;
    let listBytes = 0;
    let isTooLarge = false;

    while (this.#at < stop) {
      const first = bytes[this.#at]!;
      let name: string;
      let value: string;
      let kind: number;

      if (first >= 0x80) {
        // RFC 7541 §6.1: indexed field.
        let index = first & 0x7f;
        if (index === 0x7f) index = this.#integer(0x7f);
        else this.#at++;
        if (index <= STATIC_ENTRIES) {
          // RFC 7541 §6.1: index 0 is an error; so is a broken integer (-1).
          if (index <= 0) return Decoded.BROKEN;
          name = STATIC_NAMES[index]!;
          value = STATIC_VALUES[index]!;
          kind = STATIC_KINDS[index]!;
        } else {
          if (index - STATIC_ENTRIES > this.#entryCount) return Decoded.BROKEN;
          const slot = (this.#added - (index - STATIC_ENTRIES - 1)) & this.#mask;
          name = this.#names[slot]!;
          value = this.#values[slot]!;
          kind = this.#kindsOfEntries[slot]!;
        }
        if (this.#updateDue) return Decoded.BROKEN;
      } else if (first >= 0x20 && first < 0x40) {
        // RFC 7541 §4.2: a size update stands at the beginning of a block and nowhere else.
        if (listBytes > 0) return Decoded.BROKEN;
        const sizeBytes = this.#integer(0x1f);
        if (sizeBytes < 0 || sizeBytes > this.#limitBytes) return Decoded.BROKEN;
        this.#sizeBytes = sizeBytes;
        this.#updateDue = false;
        // Entries may go without others coming.
        this.#blocks.fill(null);
        this.#evict(0);
        continue;
      } else {
        // RFC 7541 §6.2: a literal, with incremental indexing (01), without (0000) or never indexed (0001).
        if (this.#updateDue) return Decoded.BROKEN;
        const mask = first >= 0x40 ? 0x3f : 0x0f;
        const index = this.#integer(mask);
        if (index === 0) {
          const text = this.#string(FieldKind.ORDINARY);
          if (text === null) return Decoded.BROKEN;
          name = text;
          kind = kindOfName(text);
        } else if (index < 0) {
          return Decoded.BROKEN;
        } else if (index <= STATIC_ENTRIES) {
          name = STATIC_NAMES[index]!;
          kind = STATIC_KINDS[index]!;
        } else {
          if (index - STATIC_ENTRIES > this.#entryCount) return Decoded.BROKEN;
          const slot = (this.#added - (index - STATIC_ENTRIES - 1)) & this.#mask;
          name = this.#names[slot]!;
          kind = this.#kindsOfEntries[slot]! & NAME_KIND;
        }
        const text = this.#string(kind);
        if (text === null) return Decoded.BROKEN;
        value = text;
        if (kind === FieldKind.AUTHORITY && !isHost(text)) kind |= BAD_VALUE;
        kind |= this.#stringKind;
        if (first >= 0x40) this.#add(name, value, kind);
        else if (first >= 0x10 && !SENSITIVE.has(name)) (fields.neverIndexed ??= new Set()).add(name);
      }

      listBytes += name.length + value.length + ENTRY_OVERHEAD_BYTES;
      // RFC 9113 §10.5.1: what is over the limit is decoded for the table's sake and dropped.
      if (listBytes > this.#listBytesMax) isTooLarge = true;
      if (isTooLarge) continue;
      const place = fields.length >>> 1;
      if (place === this.kinds.length) this.#growKinds();
      this.kinds[place] = kind;
      fields.push(name, value);
    }
    // RFC 7541 §4.2 asks for the update in the next block, even an empty one.
    if (this.#updateDue) return Decoded.BROKEN;
    return isTooLarge ? Decoded.TOO_LARGE : Decoded.OK;
  }

  /** RFC 7541 §5.1: an integer whose prefix is `mask`; -1 when it is cut short or above 2^28. */
  #integer(mask: number): number {
    const bytes = this.#bytes;
    let value = bytes[this.#at++]! & mask;
    if (value < mask) return value;
    let shift = 0;
    for (;;) {
      if (this.#at >= this.#stop || shift > 21) return -1;
      const byte = bytes[this.#at++]!;
      value += (byte & 0x7f) << shift;
      if (byte < 0x80) return value;
      shift += 7;
    }
  }

  /** RFC 7541 §5.2: a string; null when it is cut short or no valid Huffman code. Sets `#stringKind`, for a value of `kind`. */
  #string(kind: number): string | null {
    if (this.#at >= this.#stop) return null;
    const isHuffman = this.#bytes[this.#at]! >= 0x80;
    const length = this.#integer(0x7f);
    const start = this.#at;
    if (length < 0 || length > this.#stop - start) return null;
    this.#at = start + length;
    if (!isHuffman) {
      this.#stringKind = kindOfValue(kind, this.#bytes, start, start + length);
      return latin1(this.#bytes, start, start + length);
    }
    const bytesMax = huffmanDecodedBytesMax(length);
    if (this.#scratch.length < bytesMax) this.#scratch = Buffer.allocUnsafeSlow(Math.max(512, 2 * bytesMax));
    const decoded = huffmanDecode(this.#bytes, start, start + length, this.#scratch);
    if (decoded < 0) return null;
    this.#stringKind = kindOfValue(kind, this.#scratch, 0, decoded);
    return latin1(this.#scratch, 0, decoded);
  }

  /** RFC 7541 §4.4: makes room, then adds; an entry larger than the table just empties it. */
  #add(name: string, value: string, kind: number): void {
    const entryBytes = name.length + value.length + ENTRY_OVERHEAD_BYTES;
    this.#evict(entryBytes);
    if (entryBytes > this.#sizeBytes) {
      // All went, and none came by whose number remembered blocks would be seen to be old.
      this.#blocks.fill(null);
      return;
    }
    if (this.#entryCount > this.#mask) this.#growRing();
    const slot = ++this.#added & this.#mask;
    this.#names[slot] = name;
    this.#values[slot] = value;
    this.#kindsOfEntries[slot] = kind;
    this.#entryCount++;
    this.#tableBytes += entryBytes;
  }

  #evict(roomBytes: number): void {
    while (this.#entryCount > 0 && this.#tableBytes + roomBytes > this.#sizeBytes) {
      const slot = (this.#added - this.#entryCount + 1) & this.#mask;
      this.#tableBytes -= this.#names[slot]!.length + this.#values[slot]!.length + ENTRY_OVERHEAD_BYTES;
      this.#names[slot] = "";
      this.#values[slot] = "";
      this.#entryCount--;
    }
  }

  /** At most limit / 32 entries fit, so the ring is bounded by the table's size. */
  #growRing(): void {
    const size = 2 * (this.#mask + 1);
    const names: string[] = [];
    const values: string[] = [];
    const kinds = new Uint8Array(size);
    for (let i = 0; i < size; i++) {
      names.push("");
      values.push("");
    }
    for (let n = this.#added - this.#entryCount + 1; n <= this.#added; n++) {
      names[n & (size - 1)] = this.#names[n & this.#mask]!;
      values[n & (size - 1)] = this.#values[n & this.#mask]!;
      kinds[n & (size - 1)] = this.#kindsOfEntries[n & this.#mask]!;
    }
    this.#names = names;
    this.#values = values;
    this.#kindsOfEntries = kinds;
    this.#mask = size - 1;
  }

  /** Bounded by listBytesMax / 32. */
  #growKinds(): void {
    const kinds = new Uint8Array(2 * this.kinds.length);
    kinds.set(this.#kinds);
    this.#kinds = this.kinds = kinds;
  }
}

/** RFC 7541 §4.1, RFC 9113 §6.5.2: what an entry counts beyond its name and value. */
export const ENTRY_OVERHEAD_BYTES = 32;

/** Power of two. Each holds a block of at most `BLOCK_BYTES_MAX` and its list, whose text the table holds anyway. */
const REMEMBERED_BLOCKS = 8;
/** To be copied for each connection, which costs less than to make the same. */
export const NO_BLOCKS: readonly null[] = Array.from({ length: REMEMBERED_BLOCKS }, () => null);
const NO_FIELDS: Fields = [];
const NO_BLOCK_FIELDS: readonly Fields[] = NO_BLOCKS.map(() => NO_FIELDS);
const NO_KINDS = new Uint8Array(0);
const NO_BLOCK_KINDS: readonly Uint8Array[] = NO_BLOCKS.map(() => NO_KINDS);
const BLOCK_BYTES_MAX = 48;
const RING_FIRST = 32;
const EMPTY: Buffer = Buffer.alloc(0);
const STATIC_KINDS: Uint8Array = Uint8Array.from(STATIC_NAMES, (name) =>
  name === "" ? FieldKind.BAD_NAME : kindOfName(name),
);

/** Hash of a block of one-byte references; -1 for any other, usually seen at its first literal. */
function hashOf(bytes: Buffer, start: number, stop: number): number {
  if (stop - start > BLOCK_BYTES_MAX) return -1;
  let hash = 0;
  for (let i = start; i < stop; i++) {
    const byte = bytes[i]!;
    if (byte <= 0x80 || byte === 0xff) return -1;
    hash = (31 * hash + byte) & 0xff_ffff;
  }
  return hash ^ (hash >>> 7);
}

function isSame(block: Buffer, bytes: Buffer, start: number, stop: number): boolean {
  const length = stop - start;
  if (block.length !== length) return false;
  for (let i = 0; i < length; i++) if (block[i] !== bytes[start + i]) return false;
  return true;
}
