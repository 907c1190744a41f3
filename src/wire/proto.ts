import { ProtocolError } from "#/base/errors.ts";

/**
 * Reads one protobuf message field by field, straight into whatever its reader builds: no descriptors, no objects in
 * between. A sidecar reads a dozen kinds of message; the library that knows all of protobuf costs it 20 MB.
 *
 *     const reader = new ProtoReader(bytes);
 *     while (reader.next()) {
 *       if (reader.field === 1) name = reader.text();
 *     }
 *     if (reader.error !== null) …
 *
 * A field that is not asked for is skipped. Wrong wire types and lengths set `error` and end the reading.
 */
export class ProtoReader {
  /** Number of the field that `next` came to. */
  field = 0;
  error: ProtocolError | null = null;
  readonly #bytes: Uint8Array;
  readonly #view: DataView;
  readonly #parent: ProtoReader | null;
  #wireType: number = Wire.VARINT;
  /** Where the field's value begins, and where the next field does. */
  #start = 0;
  #at = 0;
  /** Value of a varint field. */
  #value = 0n;

  constructor(bytes: Uint8Array, parent: ProtoReader | null = null) {
    this.#bytes = bytes;
    this.#parent = parent;
    this.#view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
  }

  /** Goes to the next field; false at the end and after an error. */
  next(): boolean {
    if (this.error !== null || this.#at >= this.#bytes.length) return false;
    const tag = Number(this.#varint());
    this.field = Math.floor(tag / 8);
    this.#wireType = tag % 8;
    this.#start = this.#at;
    if (this.#wireType === Wire.VARINT) this.#value = this.#varint();
    else if (this.#wireType === Wire.FIXED64) this.#at += 8;
    else if (this.#wireType === Wire.FIXED32) this.#at += 4;
    else if (this.#wireType === Wire.BYTES) {
      const length = Number(this.#varint());
      this.#start = this.#at;
      this.#at += length;
    } else this.#fail(`wire type ${this.#wireType} is not known`);
    if (this.field === 0) this.#fail("field 0 does not exist");
    if (this.#at > this.#bytes.length) this.#fail("a field goes on beyond the message");
    return this.error === null;
  }

  /** A view of the bytes that were given. */
  bytes(): Uint8Array {
    if (!this.#is(Wire.BYTES)) return EMPTY;
    return this.#bytes.subarray(this.#start, this.#at);
  }

  text(): string {
    return this.#is(Wire.BYTES) ? UTF8.decode(this.bytes()) : "";
  }

  /** The message in this field; what is wrong in it shows in its own `error`. */
  message(): ProtoReader {
    return new ProtoReader(this.bytes());
  }

  /** As `message`, but what is wrong in it is wrong in this one too: for messages that hold as a whole or not at all. */
  part(): ProtoReader {
    return new ProtoReader(this.bytes(), this);
  }

  /** Says that the message is well formed and cannot be followed; the reading ends. */
  reject(message: string): void {
    this.#fail(message);
  }

  uint(): number {
    return this.#is(Wire.VARINT) ? Number(this.#value & 0xffff_ffffn) : 0;
  }

  /** Appends what a repeated uint32 holds here: one number, or many (packed). */
  uints(into: number[]): void {
    if (this.#wireType === Wire.VARINT) {
      into.push(this.uint());
      return;
    }
    const packed = this.part();
    while (packed.#at < packed.#bytes.length && packed.error === null)
      into.push(Number(packed.#varint() & 0xffff_ffffn));
  }

  /** int64 and int32: two's complement. */
  int(): number {
    return this.#is(Wire.VARINT) ? Number(BigInt.asIntN(64, this.#value)) : 0;
  }

  flag(): boolean {
    return this.#is(Wire.VARINT) && this.#value !== 0n;
  }

  fixed32(): number {
    return this.#is(Wire.FIXED32) ? this.#view.getUint32(this.#start, true) : 0;
  }

  fixed64(): bigint {
    return this.#is(Wire.FIXED64) ? this.#view.getBigUint64(this.#start, true) : 0n;
  }

  /** NaN where the wire type is wrong. */
  double(): number {
    return this.#is(Wire.FIXED64) ? this.#view.getFloat64(this.#start, true) : Number.NaN;
  }

  /** The decimal number of up to 7 digits that a float stands for: 0.1 and not 0.10000000149. */
  float(): number {
    return this.#is(Wire.FIXED32)
      ? Number(this.#view.getFloat32(this.#start, true).toPrecision(7))
      : Number.NaN;
  }

  #is(wireType: number): boolean {
    if (this.#wireType === wireType) return true;
    this.#fail(`field ${this.field} has the wrong wire type`);
    return false;
  }

  #varint(): bigint {
    let value = 0n;
    for (let shift = 0n; shift < 70n; shift += 7n) {
      const byte = this.#bytes[this.#at++];
      if (byte === undefined) break;
      value |= BigInt(byte & 0x7f) << shift;
      if (byte < 0x80) return BigInt.asUintN(64, value);
    }
    this.#fail("a number is cut off or too long");
    return 0n;
  }

  #fail(message: string): void {
    this.error ??= new ProtocolError("PROTOBUF_INVALID", message);
    this.#parent?.reject(message);
  }
}

/** Writes one message. Fields that hold their default are left out, as proto3 does. */
export class ProtoWriter {
  #bytes: number[] = [];

  text(field: number, value: string): this {
    return value === "" ? this : this.bytes(field, new TextEncoder().encode(value));
  }

  bytes(field: number, value: Uint8Array): this {
    if (value.length === 0) return this;
    this.#tag(field, Wire.BYTES).#varint(value.length);
    for (const byte of value) this.#bytes.push(byte);
    return this;
  }

  /** A message field, written also when it is empty: its presence means something. */
  message(field: number, value: ProtoWriter): this {
    this.#tag(field, Wire.BYTES).#varint(value.#bytes.length);
    for (const byte of value.#bytes) this.#bytes.push(byte);
    return this;
  }

  uint(field: number, value: number): this {
    if (value !== 0) this.#tag(field, Wire.VARINT).#varint(value);
    return this;
  }

  /** Written also when it is 0: for members of a oneof. */
  fixed32(field: number, value: number): this {
    this.#tag(field, Wire.FIXED32);
    for (let shift = 0; shift < 32; shift += 8) this.#bytes.push((value >>> shift) & 0xff);
    return this;
  }

  fixed64(field: number, value: bigint): this {
    if (value === 0n) return this;
    this.#tag(field, Wire.FIXED64);
    for (let shift = 0n; shift < 64n; shift += 8n) this.#bytes.push(Number((value >> shift) & 0xffn));
    return this;
  }

  /** Written also when it is 0: for members of a oneof. */
  double(field: number, value: number): this {
    const bytes = new Uint8Array(8);
    new DataView(bytes.buffer).setFloat64(0, value, true);
    this.#tag(field, Wire.FIXED64);
    for (const byte of bytes) this.#bytes.push(byte);
    return this;
  }

  /** Written also when it is false: for members of a oneof. */
  flag(field: number, value: boolean): this {
    return this.#tag(field, Wire.VARINT).#varint(value ? 1 : 0);
  }

  /** As `text`, and written also when it is empty: for members of a oneof. */
  member(field: number, value: string): this {
    const bytes = new TextEncoder().encode(value);
    this.#tag(field, Wire.BYTES).#varint(bytes.length);
    for (const byte of bytes) this.#bytes.push(byte);
    return this;
  }

  finish(): Uint8Array {
    return Uint8Array.from(this.#bytes);
  }

  #tag(field: number, wireType: number): this {
    return this.#varint(field * 8 + wireType);
  }

  #varint(value: number): this {
    for (; value > 0x7f; value = Math.floor(value / 128)) this.#bytes.push((value % 128) | 0x80);
    this.#bytes.push(value);
    return this;
  }
}

const Wire = { VARINT: 0, FIXED64: 1, BYTES: 2, FIXED32: 5 } as const;
const EMPTY = new Uint8Array(0);
const UTF8 = new TextDecoder();
