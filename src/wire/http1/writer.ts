import { assert } from "#/base/assert.ts";
import type { Fields } from "#/base/fields.ts";
import { latin1Bytes, latin1Message } from "../latin1.ts";
import { IS_TARGET, IS_TOKEN, IS_VALUE } from "./tables.ts";

export interface RequestHead {
  readonly method: string;
  readonly target: string;
  readonly version: "1.0" | "1.1";
  readonly fields: Fields;
}

export interface ResponseHead {
  readonly version: "1.0" | "1.1";
  readonly status: number;
  readonly reason: string;
  readonly fields: Fields;
}

/**
 * A request head, ready to be sent. Adds and changes nothing: framing fields are the caller's. Fields must be fit to be sent
 * (they are when they come from one of our readers), and so must method and target (`isMethod`, `isRequestTarget`): a character
 * that would end a line early is a bug of the caller and stops it.
 */
export function encodeRequestHead(head: RequestHead): Uint8Array {
  return encodeHead(requestLine(head), head.fields);
}

/** A response head, ready to be sent; see `encodeRequestHead`. */
export function encodeResponseHead(head: ResponseHead): Uint8Array {
  return encodeHead(statusLine(head), head.fields);
}

/** What goes before the data of a chunk. `CHUNK_TAIL` goes after it. 0 < dataBytes. */
export function encodeChunkHead(dataBytes: number): Uint8Array {
  assert(dataBytes > 0, "an empty chunk would end the message");
  return latin1Bytes(`${dataBytes.toString(16)}\r\n`);
}

/** Not to be written to: the same memory is handed to every connection. */
export const CHUNK_TAIL: Uint8Array = Uint8Array.of(0x0d, 0x0a);

/** A whole chunk in one piece. Copies the data, which is cheaper than three writes up to some 16 KiB. */
export function encodeChunk(bytes: Uint8Array, start: number, stop: number): Uint8Array {
  const head = encodeChunkHead(stop - start);
  const out = new Uint8Array(head.length + stop - start + 2);
  out.set(head);
  out.set(bytes.subarray(start, stop), head.length);
  out.set(CHUNK_TAIL, out.length - 2);
  return out;
}

/** The last chunk and the trailer section: what ends a chunked message. */
export function encodeLastChunk(trailers: Fields | null): Uint8Array {
  return encodeHead("0\r\n", trailers ?? []);
}

/** RFC 9110 §9.1. */
export function isMethod(text: string): boolean {
  return text.length > 0 && allIn(IS_TOKEN, text);
}

/** Whether our own reader would take it as a request target: no blank, no control character, no "#". */
export function isRequestTarget(text: string): boolean {
  return text.length > 0 && allIn(IS_TARGET, text);
}

/** Whether it may stand in a status line (RFC 9112 §4). */
export function isReason(text: string): boolean {
  return allIn(IS_VALUE, text);
}

/** The reason phrase that goes with a status; empty for an unknown one. HTTP/2 has none, so it is needed on the way back. */
export function reasonOf(status: number): string {
  return REASONS.get(status) ?? "";
}

function requestLine(head: RequestHead): string {
  assert(isMethod(head.method), "a method that is no token");
  assert(isRequestTarget(head.target), "a request target that would break the request line");
  return `${head.method} ${head.target} HTTP/${head.version}\r\n`;
}

function statusLine(head: ResponseHead): string {
  const { status } = head;
  assert(status >= 100 && status <= 999 && Number.isInteger(status), `status ${status}`);
  assert(isReason(head.reason), "a reason that would break the status line");
  return `HTTP/${head.version} ${status} ${head.reason}\r\n`;
}

function encodeHead(startLine: string, fields: Fields): Uint8Array {
  let text = startLine;
  // Adding to one string and writing it at once is twice as fast as writing the parts (bench/machines/http1.ts).
  for (let i = 0; i < fields.length; i += 2) text += `${fields[i] as string}: ${fields[i + 1] as string}\r\n`;
  const bytes = latin1Message(`${text}\r\n`);
  assert(lineCount(bytes) === fields.length / 2 + 2, "a field that would break its line");
  return bytes;
}

const CR = 0x0d;
const LF = 0x0a;

/** How many CRLF there are; -1 when CR, LF or NUL stand anywhere else. */
function lineCount(bytes: Uint8Array): number {
  const size = bytes.length;
  let lines = 0;
  for (let i = 0; i < size;) {
    // Four at a time: the sign says that one of them is at most CR (this scan is a third of what encoding costs).
    const isPlain =
      i + 4 <= size &&
      (((bytes[i] as number) - 14) |
        ((bytes[i + 1] as number) - 14) |
        ((bytes[i + 2] as number) - 14) |
        ((bytes[i + 3] as number) - 14)) >=
        0;
    if (isPlain) {
      i += 4;
      continue;
    }
    const byte = bytes[i++] as number;
    if (byte === LF || byte === 0) return -1;
    if (byte === CR) {
      if (bytes[i++] !== LF) return -1;
      lines++;
    }
  }
  return lines;
}

function allIn(table: Uint8Array, text: string): boolean {
  for (let i = 0; i < text.length; i++) if (table[text.charCodeAt(i)] !== 1) return false;
  return true;
}

/** RFC 9110 §15 and the registered additions. */
const REASONS: ReadonlyMap<number, string> = new Map([
  [100, "Continue"],
  [101, "Switching Protocols"],
  [103, "Early Hints"],
  [200, "OK"],
  [201, "Created"],
  [202, "Accepted"],
  [203, "Non-Authoritative Information"],
  [204, "No Content"],
  [205, "Reset Content"],
  [206, "Partial Content"],
  [300, "Multiple Choices"],
  [301, "Moved Permanently"],
  [302, "Found"],
  [303, "See Other"],
  [304, "Not Modified"],
  [307, "Temporary Redirect"],
  [308, "Permanent Redirect"],
  [400, "Bad Request"],
  [401, "Unauthorized"],
  [402, "Payment Required"],
  [403, "Forbidden"],
  [404, "Not Found"],
  [405, "Method Not Allowed"],
  [406, "Not Acceptable"],
  [407, "Proxy Authentication Required"],
  [408, "Request Timeout"],
  [409, "Conflict"],
  [410, "Gone"],
  [411, "Length Required"],
  [412, "Precondition Failed"],
  [413, "Content Too Large"],
  [414, "URI Too Long"],
  [415, "Unsupported Media Type"],
  [416, "Range Not Satisfiable"],
  [417, "Expectation Failed"],
  [421, "Misdirected Request"],
  [422, "Unprocessable Content"],
  [425, "Too Early"],
  [426, "Upgrade Required"],
  [428, "Precondition Required"],
  [429, "Too Many Requests"],
  [431, "Request Header Fields Too Large"],
  [451, "Unavailable For Legal Reasons"],
  [500, "Internal Server Error"],
  [501, "Not Implemented"],
  [502, "Bad Gateway"],
  [503, "Service Unavailable"],
  [504, "Gateway Timeout"],
  [505, "HTTP Version Not Supported"],
  [508, "Loop Detected"],
  [511, "Network Authentication Required"],
]);
