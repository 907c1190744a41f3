/**
 * HPACK judged by the stories of hpack-test-case, by two decoders nobody here wrote (libnghttp2's, which is
 * curl's and Node's, and Go's), and by the size that libnghttp2 needs for the same fields.
 *
 * What is compared in size: whole blocks, one connection a story, Huffman coding and a table of the same size on both sides.
 * Neither side indexes what it holds for secret: nghttp2 never indexes `authorization` and short cookies and writes
 * `set-cookie` as a literal without indexing; we do the same and mark all of them, and `proxy-authorization`, as never to be
 * indexed (RFC 7541 §7.1.3), which takes the same bytes. A sidecar writes without Huffman coding by default, since bytes
 * between two pods are cheaper than the time to code them; that size is printed beside.
 */
import { spawn } from "node:child_process";
import { once } from "node:events";
import { text } from "node:stream/consumers";
import type { Fields } from "#/base/fields.ts";
import { ByteWriter } from "#/wire/hpack/byte-writer.ts";
import { Decoded, HpackDecoder } from "#/wire/hpack/decoder.ts";
import { HpackEncoder } from "#/wire/hpack/encoder.ts";
import { goTool } from "../../tools/go-tool.ts";
import { Nghttp2Decoder, Nghttp2Encoder } from "./nghttp2.ts";
import { readStories, type Story } from "./stories.ts";

/** Folders of stories with wire bytes, and the decoder's limit at their beginning. */
const ENCODED: Readonly<Record<string, number>> = {
  "go-hpack": 4096,
  "nghttp2-16384-4096": 16_384,
  "nghttp2-change-table-size": 4096,
  "swift-nio-hpack-huffman": 4096,
};
/** Tables of our encoder that the other decoders must follow. */
const TABLES_BYTES = [4096, 256, 0];
const LIST_BYTES_MAX = 1 << 20;
/** The Go program's whole run; at the bound it is killed and its stories count as failed. */
const GO_MS = 60_000;

export interface HpackVerdict {
  readonly storiesDecoded: number;
  readonly blocksEncoded: number;
  /** Bytes of ours over bytes of theirs, by what theirs are. All are at most 1 where nothing is wrong. */
  readonly ratios: readonly { readonly against: string; readonly ours: number; readonly theirs: number }[];
  /** For people. */
  readonly lines: readonly string[];
  readonly problems: readonly string[];
}

export async function judgeHpack(): Promise<HpackVerdict> {
  const problems: string[] = [];
  const storiesDecoded = decodeStories(problems);
  const raw = readStories("raw-data");
  const runs = [true, false].flatMap((huffman) =>
    TABLES_BYTES.flatMap((tableBytes) => raw.map((story) => encodeStory(story, tableBytes, huffman))),
  );
  decodeByNghttp2(runs, problems);
  await decodeByGo(runs, problems);

  const lines: string[] = [];
  const ratios = [
    compare("nghttp2's recorded bytes", readStories("nghttp2-16384-4096"), recorded, lines),
    compare(
      "nghttp2's recorded bytes, table resized on the way",
      readStories("nghttp2-change-table-size"),
      recorded,
      lines,
    ),
    compare("libnghttp2 on this machine", raw, encodedByNghttp2, lines),
  ];
  for (const { against, ours, theirs } of ratios)
    if (ours > theirs) problems.push(`${ours} bytes, but ${against}: ${theirs}`);
  const plainBytes = runs
    .filter((run) => !run.huffman && run.tableBytes === 4096)
    .reduce((sum, run) => sum + sizeOf(run.blocks), 0);
  lines.push(`without Huffman coding, as sidecars write: ${plainBytes} bytes for the raw stories`);
  return {
    storiesDecoded,
    blocksEncoded: runs.reduce((sum, run) => sum + run.blocks.length, 0),
    ratios,
    lines,
    problems,
  };
}

/** One story as our encoder wrote it. */
interface Run {
  readonly story: Story;
  readonly tableBytes: number;
  readonly huffman: boolean;
  readonly blocks: readonly Buffer[];
}

function encodeStory(story: Story, tableBytes: number, huffman: boolean): Run {
  const encoder = new HpackEncoder({ tableBytesMax: tableBytes, huffman });
  const blocks = story.blocks.map(({ fields, tableBytesMax }) => {
    if (tableBytesMax !== null) encoder.setLimit(tableBytesMax);
    const out = new ByteWriter();
    encoder.encode(fields, out, out.at);
    return out.take()!;
  });
  return { story, tableBytes, huffman, blocks };
}

/** What others encoded, read by our decoder; and our own writing, which must leave both tables of one size. */
function decodeStories(problems: string[]): number {
  let storyCount = 0;
  for (const [folder, limitBytes] of Object.entries(ENCODED)) {
    for (const { name, blocks } of readStories(folder)) {
      const decoder = new HpackDecoder({ tableBytesMax: limitBytes, listBytesMax: LIST_BYTES_MAX });
      const wrongAt = blocks.findIndex(({ wire, fields, tableBytesMax }) => {
        if (tableBytesMax !== null) decoder.setLimit(tableBytesMax);
        return decoder.decode(wire, 0, wire.length) !== Decoded.OK || !isSame(decoder.fields, fields);
      });
      storyCount++;
      if (wrongAt >= 0) problems.push(`${folder} ${name}: our decoder is wrong at block ${wrongAt}`);
    }
  }
  return storyCount;
}

function decodeByNghttp2(runs: readonly Run[], problems: string[]): void {
  for (const { story, tableBytes, huffman, blocks } of runs) {
    using decoder = new Nghttp2Decoder(tableBytes);
    const lists = blocks.map((block) => decoder.decode(block));
    report(`libnghttp2, table ${tableBytes}, Huffman ${huffman}`, story, lists, problems);
  }
}

async function decodeByGo(runs: readonly Run[], problems: string[]): Promise<void> {
  const go = spawn(await goTool("hpack-decode"), {
    stdio: ["pipe", "pipe", "inherit"],
    timeout: GO_MS,
    killSignal: "SIGKILL",
  });
  go.stdin.on("error", (error) => problems.push(`the program in Go does not read: ${error.message}`));
  go.stdin.end(
    runs
      .map(({ tableBytes, blocks }) =>
        JSON.stringify({ table: tableBytes, blocks: blocks.map((block) => block.toString("base64")) }),
      )
      .join("\n"),
  );
  const [output] = await Promise.all([text(go.stdout), once(go, "exit")]);
  const answers = output.split("\n");
  for (const [i, { story, tableBytes, huffman, blocks }] of runs.entries()) {
    const answer = JSON.parse(answers[i] || '"no answer"') as string[][] | string;
    const lists =
      typeof answer === "string"
        ? blocks.map(() => answer)
        : answer.map((list) => list.map((one) => Buffer.from(one, "base64").toString("latin1")));
    report(`Go, table ${tableBytes}, Huffman ${huffman}`, story, lists, problems);
  }
}

function report(who: string, story: Story, lists: readonly (Fields | string)[], problems: string[]): void {
  for (const [i, { fields }] of story.blocks.entries()) {
    const list = lists[i] ?? "nothing";
    if (typeof list !== "string" && isSame(list, fields)) continue;
    problems.push(
      `${who}: ${story.name}, block ${i}: ${typeof list === "string" ? list : "other fields than we encoded"}`,
    );
    return;
  }
}

function compare(
  against: string,
  stories: readonly Story[],
  theirsOf: (story: Story) => readonly Buffer[],
  lines: string[],
): { against: string; ours: number; theirs: number } {
  let [ours, theirs] = [0, 0];
  const ratios: string[] = [];
  for (const story of stories) {
    const our = sizeOf(encodeStory(story, 4096, true).blocks);
    const their = sizeOf(theirsOf(story));
    ours += our;
    theirs += their;
    ratios.push(`${story.name.replace("story_", "")} ${(our / their).toFixed(3)}`);
  }
  lines.push(`bytes of ours / ${against}, by story: ${ratios.join(", ")}`);
  lines.push(`bytes of ours / ${against}: ${ours} / ${theirs} = ${(ours / theirs).toFixed(4)}`);
  return { against, ours, theirs };
}

function recorded(story: Story): Buffer[] {
  return story.blocks.map((block) => block.wire);
}

function encodedByNghttp2(story: Story): Buffer[] {
  using encoder = new Nghttp2Encoder(4096);
  return story.blocks.map((block) => encoder.encode(block.fields));
}

function sizeOf(blocks: readonly Buffer[]): number {
  return blocks.reduce((sum, block) => sum + block.length, 0);
}

function isSame(some: Fields, others: Fields): boolean {
  return some.length === others.length && some.every((text, i) => text === others[i]);
}
