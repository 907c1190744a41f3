import { SeededRandom } from "#/base/random.ts";
import { bodyOf, CASE_FIELD, RUN_FIELD, type Case, type Run } from "./case.ts";

export interface RequestBytes {
  readonly head: Buffer;
  /** The body as it is framed: what is sent before the client waits, and the rest. */
  readonly first: Buffer;
  readonly rest: Buffer;
}

export function requestBytes(one: Case, run: Run): RequestBytes {
  const fields = [[CASE_FIELD, String(one.id)], [RUN_FIELD, run], ...one.fields];
  const lines = [
    `${one.method} ${one.target} HTTP/${one.version}`,
    ...fields.map(([name, value]) => `${name}: ${value}`),
  ];
  const head = Buffer.from(`${lines.join("\r\n")}\r\n\r\n`, "latin1");
  const body = bodyOf(one.id, one.bodyBytes);
  const first = body.subarray(0, one.firstBytes);
  const rest = body.subarray(one.firstBytes);
  if (one.framing !== "chunked") return { head, first, rest };
  const trailers = one.trailers.map(([name, value]) => `${name}: ${value}\r\n`).join("");
  const last = Buffer.from(`0\r\n${trailers}\r\n`, "latin1");
  if (rest.length === 0 && one.firstBytes === one.bodyBytes)
    return { head, first: Buffer.concat([inChunks(one.id, first), last]), rest };
  return { head, first: inChunks(one.id, first), rest: Buffer.concat([inChunks(one.id, rest), last]) };
}

/** Chunks of all sizes, some with extensions, sizes in either case and with leading zeros: all that RFC 9112 §7.1 allows. */
function inChunks(seed: number, body: Buffer): Buffer {
  const random = new SeededRandom(seed);
  const parts: Buffer[] = [];
  const chunkBytesMax = [7, 1000, 16_384, 70_000][Math.floor(random.next() * 4)] as number;
  const least = Math.ceil(body.length / 200);
  for (let at = 0; at < body.length;) {
    const bytes = Math.min(body.length - at, least + Math.floor(random.next() * chunkBytesMax));
    let size = bytes.toString(16);
    if (random.next() < 0.3) size = size.toUpperCase();
    if (random.next() < 0.2) size = `00${size}`;
    if (random.next() < 0.2) size += ';name=value;other="quoted value"';
    parts.push(Buffer.from(`${size}\r\n`), body.subarray(at, at + bytes), Buffer.from("\r\n"));
    at += bytes;
  }
  return Buffer.concat(parts);
}

/** The bytes in a few pieces, cut anywhere, as a network may deliver them. */
export function inPieces(bytes: Buffer, seed: number): Buffer[] {
  const random = new SeededRandom(seed * 7 + 1);
  const cuts = Array.from({ length: Math.floor(random.next() * 4) }, () =>
    Math.floor(random.next() * bytes.length),
  ).toSorted((a, b) => a - b);
  return [0, ...cuts]
    .map((start, index) => bytes.subarray(start, cuts[index] ?? bytes.length))
    .filter((piece) => piece.length > 0);
}
