import assert from "node:assert/strict";
import { existsSync, readdirSync, readFileSync } from "node:fs";
import { test } from "node:test";
import { ByteWriter } from "./byte-writer.ts";
import { Decoded, HpackDecoder } from "./decoder.ts";
import { HpackEncoder } from "./encoder.ts";

/** http2jp/hpack-test-case: lists of fields as several encoders wrote them. */
const CORPUS = new URL("../../../../shared/corpora/hpack/", import.meta.url);
/** Corpora are others' and no part of this repository: they lie beside the checkout, or nowhere. */
const skip = existsSync(CORPUS) ? false : `no ${CORPUS.pathname}`;

interface Story {
  readonly cases: readonly {
    readonly wire?: string;
    readonly header_table_size?: number | null;
    readonly headers: readonly Readonly<Record<string, string>>[];
  }[];
}

function stories(folder: string): Story[] {
  const at = new URL(`${folder}/`, CORPUS);
  const files = readdirSync(at).filter((name) => name.endsWith(".json"));
  assert.ok(files.length >= 20, `only ${files.length} stories in ${at.pathname}`);
  return files.map((name) => JSON.parse(readFileSync(new URL(name, at), "utf8")) as Story);
}

/** The corpus is JSON: its text is UTF-8 where fields are bytes. */
function fieldsOf(headers: Story["cases"][number]["headers"]): string[] {
  return headers
    .flatMap((header) => Object.entries(header).flat())
    .map((text) => Buffer.from(text).toString("latin1"));
}

const TABLE_BYTES: Readonly<Record<string, number>> = { "nghttp2-16384-4096": 16384 };

const ENCODERS = ["go-hpack", "nghttp2-16384-4096", "nghttp2-change-table-size", "swift-nio-hpack-huffman"];

for (const folder of ENCODERS) {
  test(`decodes what ${folder} encoded (RFC 7541 §3)`, { skip }, () => {
    for (const story of stories(folder)) {
      const decoder = new HpackDecoder({ tableBytesMax: TABLE_BYTES[folder] ?? 4096, listBytesMax: 1 << 20 });
      for (const each of story.cases) {
        if (typeof each.header_table_size === "number") decoder.setLimit(each.header_table_size);
        const block = Buffer.from(each.wire!, "hex");
        assert.equal(decoder.decode(block, 0, block.length), Decoded.OK);
        assert.deepEqual(decoder.fields, fieldsOf(each.headers));
      }
    }
  });
}

for (const huffman of [false, true]) {
  test(`decodes what it encodes itself, huffman ${huffman} (RFC 7541 §3)`, { skip }, (t) => {
    let wireBytes = 0;
    let textBytes = 0;
    for (const story of stories("raw-data")) {
      const encoder = new HpackEncoder({ tableBytesMax: 4096, huffman });
      const decoder = new HpackDecoder({ tableBytesMax: 4096, listBytesMax: 1 << 20 });
      for (const each of story.cases) {
        const fields = fieldsOf(each.headers);
        const out = new ByteWriter();
        encoder.encode(fields, out, out.at);
        const block = out.take()!;
        assert.equal(decoder.decode(block, 0, block.length), Decoded.OK);
        assert.deepEqual(decoder.fields, fields);
        assert.equal(decoder.tableBytes, encoder.tableBytes, "both sides agree on the table");
        wireBytes += block.length;
        textBytes += fields.join("").length;
      }
    }
    t.diagnostic(`${wireBytes} bytes on the wire for ${textBytes} bytes of text`);
    assert.ok(wireBytes < (huffman ? 0.45 : 0.6) * textBytes);
  });
}
