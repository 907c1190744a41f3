import { latin1Bytes } from "./latin1.ts";

/**
 * What a sidecar tells one that it refuses, after a handshake of TLS 1.3: there the client takes itself for connected before the
 * server has looked at its certificate, and would only see the connection break. Sent where `pillion/2` was agreed on, as the first and
 * last bytes of the server. Neither HTTP/2 nor an opaque stream can begin so: as their first length it is far over either's limit.
 *
 *     ff 50 52 31 | length of the reason, u8 | reason | length of the detail, u16 | detail
 */
export interface RefusalNote {
  /** A short word, as in logs and metrics. */
  readonly reason: string;
  readonly detail: string;
}

const MAGIC = [0xff, 0x50, 0x52, 0x31] as const;
const REASON_BYTES_MAX = 40;
const DETAIL_BYTES_MAX = 400;

export function encodeRefusalNote({ reason, detail }: RefusalNote): Uint8Array {
  const word = latin1Bytes(printable(reason, REASON_BYTES_MAX));
  const text = latin1Bytes(printable(detail, DETAIL_BYTES_MAX));
  return Uint8Array.of(...MAGIC, word.length, ...word, text.length >> 8, text.length & 0xff, ...text);
}

/**
 * Whether a server's first bytes are a note, and what it says; null: they are not. A note comes in one piece; of one that is cut short
 * what is there counts. Its words are another's: whatever a terminal could take for more than text is left out.
 */
export function readRefusalNote(first: Uint8Array): RefusalNote | null {
  if (first.length < MAGIC.length || MAGIC.some((byte, i) => first[i] !== byte)) return null;
  const wordAt = MAGIC.length + 1;
  const textAt = wordAt + (first[wordAt - 1] ?? 0) + 2;
  const length = ((first[textAt - 2] ?? 0) << 8) | (first[textAt - 1] ?? 0);
  return {
    reason: printable(textOf(first.subarray(wordAt, textAt - 2)), REASON_BYTES_MAX),
    detail: printable(textOf(first.subarray(textAt, textAt + length)), DETAIL_BYTES_MAX),
  };
}

function textOf(bytes: Uint8Array): string {
  return String.fromCharCode(...bytes.subarray(0, DETAIL_BYTES_MAX));
}

function printable(text: string, max: number): string {
  return text.slice(0, max).replaceAll(/[^ -~]/g, "?");
}
