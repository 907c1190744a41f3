/** The HPACK of libnghttp2, the system's shared library (curl's HTTP/2), through `node:ffi`. */
import assert from "node:assert/strict";
import ffi from "node:ffi";
import type { Fields } from "#/base/fields.ts";

const { functions: nghttp2 } = ffi.dlopen("libnghttp2.so.14", {
  nghttp2_hd_deflate_new: { arguments: ["buffer", "uint64"], return: "int32" },
  nghttp2_hd_deflate_hd: { arguments: ["pointer", "buffer", "uint64", "buffer", "uint64"], return: "int64" },
  nghttp2_hd_deflate_del: { arguments: ["pointer"], return: "void" },
  nghttp2_hd_inflate_new: { arguments: ["buffer"], return: "int32" },
  nghttp2_hd_inflate_change_table_size: { arguments: ["pointer", "uint64"], return: "int32" },
  nghttp2_hd_inflate_hd2: {
    arguments: ["pointer", "buffer", "buffer", "buffer", "uint64", "int32"],
    return: "int64",
  },
  nghttp2_hd_inflate_end_headers: { arguments: ["pointer"], return: "int32" },
  nghttp2_hd_inflate_del: { arguments: ["pointer"], return: "void" },
});

// struct nghttp2_nv { uint8_t *name, *value; size_t namelen, valuelen; uint8_t flags; }
const NV_BYTES = 40;
const NGHTTP2_HD_INFLATE_FINAL = 1;
const NGHTTP2_HD_INFLATE_EMIT = 2;
const BLOCK_BYTES_MAX = 64 * 1024;

export class Nghttp2Encoder {
  readonly #deflater: bigint;
  readonly #out = Buffer.alloc(BLOCK_BYTES_MAX);

  constructor(tableBytesMax: number) {
    const pointer = Buffer.alloc(8);
    assert.equal(nghttp2.nghttp2_hd_deflate_new(pointer, BigInt(tableBytesMax)), 0);
    this.#deflater = pointer.readBigUInt64LE();
  }

  encode(fields: Fields): Buffer {
    // The text that the structs point to stands behind them: in one buffer with them it lives as long as the call.
    const text = fields.join("");
    const structsBytes = (fields.length / 2) * NV_BYTES;
    const nva = Buffer.alloc(structsBytes + text.length);
    nva.write(text, structsBytes, "latin1");
    const textAt = ffi.getRawPointer(nva) + BigInt(structsBytes);
    let offset = 0n;
    for (let i = 0; i < fields.length; i += 2) {
      const at = (i / 2) * NV_BYTES;
      const [nameBytes, valueBytes] = [BigInt(fields[i]!.length), BigInt(fields[i + 1]!.length)];
      nva.writeBigUInt64LE(textAt + offset, at);
      nva.writeBigUInt64LE(textAt + offset + nameBytes, at + 8);
      nva.writeBigUInt64LE(nameBytes, at + 16);
      nva.writeBigUInt64LE(valueBytes, at + 24);
      offset += nameBytes + valueBytes;
    }
    const bytes = Number(
      nghttp2.nghttp2_hd_deflate_hd(
        this.#deflater,
        this.#out,
        BigInt(this.#out.length),
        nva,
        BigInt(fields.length / 2),
      ),
    );
    assert.ok(bytes >= 0, `nghttp2_hd_deflate_hd: ${bytes}`);
    return Buffer.copyBytesFrom(this.#out, 0, bytes);
  }

  [Symbol.dispose](): void {
    nghttp2.nghttp2_hd_deflate_del(this.#deflater);
  }
}

export class Nghttp2Decoder {
  readonly #inflater: bigint;

  constructor(tableBytesMax: number) {
    const pointer = Buffer.alloc(8);
    assert.equal(nghttp2.nghttp2_hd_inflate_new(pointer), 0);
    this.#inflater = pointer.readBigUInt64LE();
    assert.equal(nghttp2.nghttp2_hd_inflate_change_table_size(this.#inflater, BigInt(tableBytesMax)), 0);
  }

  /** The fields of a whole block; a string says why there are none. */
  decode(block: Buffer): Fields | string {
    const fields: Fields = [];
    const nv = Buffer.alloc(NV_BYTES);
    const flags = Buffer.alloc(4);
    let rest = block;
    for (;;) {
      const taken = Number(
        nghttp2.nghttp2_hd_inflate_hd2(this.#inflater, nv, flags, rest, BigInt(rest.length), 1),
      );
      if (taken < 0) return `nghttp2_hd_inflate_hd2: ${taken}`;
      rest = rest.subarray(taken);
      if ((flags.readUInt32LE() & NGHTTP2_HD_INFLATE_EMIT) !== 0) fields.push(textAt(nv, 0), textAt(nv, 8));
      if ((flags.readUInt32LE() & NGHTTP2_HD_INFLATE_FINAL) !== 0) break;
    }
    nghttp2.nghttp2_hd_inflate_end_headers(this.#inflater);
    return fields;
  }

  [Symbol.dispose](): void {
    nghttp2.nghttp2_hd_inflate_del(this.#inflater);
  }
}

/** The string whose pointer is at `at` of an `nghttp2_nv`, and whose length is 16 bytes after. */
function textAt(nv: Buffer, at: number): string {
  const bytes = nv.readBigUInt64LE(at + 16);
  return bytes === 0n ? "" : ffi.toBuffer(nv.readBigUInt64LE(at), Number(bytes)).toString("latin1");
}
