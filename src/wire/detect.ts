/** What the first bytes of a client's half say. `more` means: every answer but this one is still possible. */
export type HttpDetection = "http2" | "http1" | "opaque" | "more";

/**
 * Looks at everything a client has sent so far, `bytes[start, stop)`, and says what it speaks. Call again with more
 * bytes after `more`; an answer never changes once it is given. Holds nothing, allocates nothing.
 *
 * The two mistakes do not weigh the same. Opaque bytes taken for HTTP/1 end in a refusal; HTTP/1 taken for opaque
 * goes around every rule written for HTTP. So the grammar is wider than what our reader accepts: whatever some
 * server may take for a request (leading empty lines, bare LF, runs of blanks, HTTP/0.9 GET) is `http1` here and
 * then refused by the reader. For the same reason a caller that stops waiting at `more` must not go on as opaque where a
 * rule for HTTP applies. Everything else is `opaque` at the first byte that settles it.
 */
export function detectHttp(bytes: Uint8Array, start = 0, stop = bytes.length): HttpDetection {
  const preface = matchPreface(bytes, start, stop);
  if (preface !== "no") return preface;

  let at = start;
  // RFC 9112 §2.2: a server ignores empty lines before the request line.
  while (at < stop && (bytes[at] === CR || bytes[at] === LF)) at++;
  if (at === stop) return stop - start >= LINE_BYTES_MAX ? "opaque" : "more";

  const methodStart = at;
  while (at < stop && IS_TOKEN[bytes[at] as number] === 1) at++;
  const methodBytes = at - methodStart;
  if (methodBytes > METHOD_BYTES_MAX || isBanner(bytes, methodStart, at)) return "opaque";
  if (at === stop) return "more";
  if (methodBytes === 0 || !isBlank(bytes[at] as number)) return "opaque";

  while (at < stop && isBlank(bytes[at] as number)) at++;
  if (at === stop) return stop - start >= LINE_BYTES_MAX ? "opaque" : "more";
  const targetStart = at;
  // A method that every server knows and a path: nothing else begins so, and waiting for the line would let a slow
  // sender choose to be taken for opaque.
  if (bytes[at] === SLASH && isCommonMethod(bytes, methodStart, methodBytes)) return "http1";

  while (at < stop && isTargetByte(bytes[at] as number)) at++;
  if (at === stop) return undecided(bytes, start, stop, targetStart);
  if (at === targetStart || !isBlank(bytes[at] as number)) return "opaque";
  while (at < stop && isBlank(bytes[at] as number)) at++;
  for (let i = 0; i < VERSION.length; i++, at++) {
    if (at === stop) return undecided(bytes, start, stop, targetStart);
    if (bytes[at] !== VERSION[i]) return "opaque";
  }
  return "http1";
}

/**
 * Whether a server's first bytes are its HTTP/2 preface: a SETTINGS frame on stream 0 without ACK (RFC 9113 §3.4).
 * Many servers send it unasked, before they have read anything.
 */
export function isHttp2ServerPreface(
  bytes: Uint8Array,
  start = 0,
  stop = bytes.length,
): "yes" | "no" | "more" {
  const have = stop - start;
  if (have > 0 && bytes[start] !== 0) return "no";
  // RFC 9113 §6.5: the length is a multiple of six, and at most the 16384 bytes that we start with.
  if (have > 1 && (bytes[start + 1] as number) > 0x40) return "no";
  if (have > 2 && (((bytes[start + 1] as number) << 8) | (bytes[start + 2] as number)) % 6 !== 0) return "no";
  if (have > 3 && bytes[start + 3] !== 4) return "no";
  // RFC 9113 §6.5: only ACK is defined, and an ACK cannot be first. Unknown flags are ignored (§4.1).
  if (have > 4 && ((bytes[start + 4] as number) & 1) !== 0) return "no";
  if (have > 5 && ((bytes[start + 5] as number) & 0x7f) !== 0) return "no";
  for (let i = 6; i < 9 && i < have; i++) if (bytes[start + i] !== 0) return "no";
  return have >= 9 ? "yes" : "more";
}

const CR = 0x0d;
const LF = 0x0a;
const SLASH = 0x2f;

/** Longer first words are no method anybody uses; the longest registered one has 17 characters. */
const METHOD_BYTES_MAX = 32;
/** At the bound a line that is still undecided counts as HTTP/1 when its target is a path, else as opaque. */
const LINE_BYTES_MAX = 8192;

const PREFACE = codes("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n");
/** As much of the preface as no HTTP/1 request can begin with. */
const PREFACE_DECIDES = "PRI * HTTP/2".length;
const VERSION = codes("HTTP/");
const SSH = codes("SSH-");
const COMMON_METHODS = ["GET", "PUT", "POST", "HEAD", "PATCH", "DELETE", "OPTIONS", "TRACE"].map(codes);

/** RFC 9110 §5.6.2: tchar. */
const IS_TOKEN = new Uint8Array(256);
for (const code of codes("!#$%&'*+-.^_`|~0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz")) {
  IS_TOKEN[code] = 1;
}

function matchPreface(bytes: Uint8Array, start: number, stop: number): "http2" | "more" | "no" {
  const have = Math.min(stop - start, PREFACE.length);
  for (let i = 0; i < have; i++) {
    // An answer, once given, stays: after the decisive part a mismatch is for the HTTP/2 machine to refuse.
    if (bytes[start + i] !== PREFACE[i]) return i >= PREFACE_DECIDES ? "http2" : "no";
  }
  return have >= PREFACE_DECIDES ? "http2" : "more";
}

function undecided(bytes: Uint8Array, start: number, stop: number, targetStart: number): HttpDetection {
  if (stop - start < LINE_BYTES_MAX) return "more";
  return bytes[targetStart] === SLASH ? "http1" : "opaque";
}

// RFC 9112 §3: a lenient recipient takes any of these for the space between the words of a request line.
function isBlank(byte: number): boolean {
  return byte === 0x20 || byte === 0x09 || byte === 0x0b || byte === 0x0c;
}

function isTargetByte(byte: number): boolean {
  return byte > 0x20 && byte !== 0x7f;
}

/** RFC 4253 §4.2: "SSH-" consists of token characters only, so it would otherwise be opaque only at its line end. */
function isBanner(bytes: Uint8Array, start: number, stop: number): boolean {
  if (stop - start < SSH.length) return false;
  return SSH.every((code, i) => bytes[start + i] === code);
}

function isCommonMethod(bytes: Uint8Array, start: number, length: number): boolean {
  for (const method of COMMON_METHODS) {
    if (method.length !== length) continue;
    let same = 0;
    while (same < length && bytes[start + same] === method[same]) same++;
    if (same === length) return true;
  }
  return false;
}

function codes(text: string): readonly number[] {
  return Array.from(text, (c) => c.charCodeAt(0));
}
