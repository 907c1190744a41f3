import { ProtocolError } from "#/base/errors.ts";

export type Http1ErrorCode =
  | "HTTP1_HEAD_INVALID" // start line or fields break the grammar
  | "HTTP1_HEAD_TOO_LARGE" // head, target, fields or trailers over their bound
  | "HTTP1_VERSION_UNSUPPORTED" // neither HTTP/1.0 nor HTTP/1.1
  | "HTTP1_FRAMING_AMBIGUOUS" // peers could disagree on where the message ends
  | "HTTP1_CODING_UNSUPPORTED" // a transfer coding other than chunked
  | "HTTP1_CHUNK_INVALID" // chunk size, extension or line end
  | "HTTP1_TRUNCATED" // the connection ended inside a message
  | "HTTP1_CLOSED_BEFORE_RESPONSE" // the connection ended before the first byte of an awaited response
  | "HTTP1_RESPONSE_UNEXPECTED"; // bytes from a server that nobody asked for

/** What a peer did wrong, and the status that says so. */
export class Http1Error extends ProtocolError {
  declare readonly code: Http1ErrorCode;
  /** What a server answers: 400, 414, 431, 501 or 505. For a broken response always 502. */
  readonly statusHint: number;

  constructor(code: Http1ErrorCode, message: string, statusHint: number) {
    super(code, message);
    this.statusHint = statusHint;
  }
}
