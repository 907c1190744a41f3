/** http2jp/hpack-test-case: lists of fields, plain and as several encoders wrote them. Each story is one connection. */
import assert from "node:assert/strict";
import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import type { Fields } from "#/base/fields.ts";
import { corpusFolder } from "../corpora.ts";

export interface Story {
  readonly name: string;
  readonly blocks: readonly Block[];
}

interface Block {
  readonly fields: Fields;
  /** As the folder's encoder wrote it; empty in `raw-data`. */
  readonly wire: Buffer;
  /** The decoder's limit from this block on, where it changes. */
  readonly tableBytesMax: number | null;
}

interface JsonStory {
  readonly cases: readonly {
    readonly wire?: string;
    readonly header_table_size?: number | null;
    readonly headers: readonly Readonly<Record<string, string>>[];
  }[];
}

export function readStories(folder: string): Story[] {
  const at = join(corpusFolder("hpack"), folder);
  const files = readdirSync(at)
    .filter((name) => name.endsWith(".json"))
    .sort();
  assert.ok(files.length >= 30, `only ${files.length} stories in ${at}`);
  return files.map((file) => ({
    name: file.replace(".json", ""),
    blocks: (JSON.parse(readFileSync(join(at, file), "utf8")) as JsonStory).cases.map((each) => ({
      // The corpus is JSON: its text is UTF-8 where fields are bytes.
      fields: each.headers
        .flatMap((header) => Object.entries(header).flat())
        .map((text) => Buffer.from(text).toString("latin1")),
      wire: Buffer.from(each.wire ?? "", "hex"),
      tableBytesMax: each.header_table_size ?? null,
    })),
  }));
}
