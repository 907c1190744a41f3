import type { Fields } from "#/base/fields.ts";
import { fieldCount, fieldValue, keepNeverIndexed } from "#/base/fields.ts";
import type { Framing } from "#/wire/http1/reader.ts";
import {
  encodeRequestHead,
  encodeResponseHead,
  isMethod,
  isRequestTarget,
  reasonOf,
} from "#/wire/http1/writer.ts";
import type { HttpVersion, RequestHead, ResponseHead } from "./exchange.ts";
import type { RequestTrace } from "../trace/request-trace.ts";
import { DEBUG_FIELD } from "../trace/request-trace.ts";
import {
  FAR_DEBUG_FIELD,
  fieldName,
  isTransferEncoding,
  Kind,
  kindOfLower,
  SPELLING_FIELD,
} from "./field-names.ts";
import { spellingOf, SpellingWriter } from "./spelling.ts";
import { passedUpgrade, upgradeConnection } from "./upgrade.ts";

/**
 * Heads between versions: HTTP/1 (RFC 9112), HTTP/2 (RFC 9113 §8) and HTTP/1 carried over HTTP/2 between sidecars
 * (`l5d-orig-proto`, facts §8.1). Heads are immutable once made, so one may be shared by equal requests.
 */

const PROXY_ERROR = "l5d-proxy-error";
const PROXY_STATUS = "proxy-status";

/** A `RequestHead` that remembers its HTTP/2 form, since equal requests on a connection share one head. */
export class Request implements RequestHead {
  readonly method: string;
  readonly scheme: string;
  readonly authority: string;
  readonly path: string;
  readonly version: HttpVersion;
  readonly absoluteForm: boolean;
  readonly upgrade: string | null;
  readonly fields: Fields;
  readonly asksTrace: "program" | "sidecar" | null;
  readonly trace: RequestTrace | null;
  /** What `requestToHttp2` made of it, or null. */
  http2Memo: Fields | null = null;
  http2MemoKind: Http2Carriage | null = null;
  /** What `encodeRequest` made of it when it came a second time, or null. */
  http1Memo: Http1Request | null = null;
  wasEncoded = false;

  constructor(head: RequestHead) {
    this.method = head.method;
    this.scheme = head.scheme;
    this.authority = head.authority;
    this.path = head.path;
    this.version = head.version;
    this.absoluteForm = head.absoluteForm;
    this.upgrade = head.upgrade;
    this.fields = head.fields;
    this.asksTrace = head.asksTrace ?? null;
    this.trace = head.trace ?? null;
  }
}

/** A `ResponseHead` that remembers its other forms, since equal answers on a connection share one head. */
export class Response implements ResponseHead {
  readonly status: number;
  readonly version: HttpVersion;
  readonly reason: string | null;
  readonly fields: Fields;
  readonly endsWithConnection: boolean;
  /** What `responseToHttp2` made of it, or null. */
  http2Memo: Fields | null = null;
  http2MemoKind: Http2Carriage | null = null;
  /** What `encodeResponse` made of it when it came a second time, or null. */
  http1Memo: Uint8Array | null = null;
  http1MemoKind = 0;
  wasEncoded = false;

  constructor(
    status: number,
    version: HttpVersion,
    reason: string | null,
    fields: Fields,
    endsWithConnection: boolean,
  ) {
    this.status = status;
    this.version = version;
    this.reason = reason;
    this.fields = fields;
    this.endsWithConnection = endsWithConnection;
  }
}

/** What a reader of HTTP/1 found in a request's head. */
export interface Http1RequestParts {
  readonly method: string;
  readonly target: string;
  readonly version: "1.0" | "1.1";
  readonly fields: Fields;
  readonly absoluteForm: boolean;
  readonly upgrade: string | null;
}

/** `clientId`: the proven identity of a meshed client, told to the application as `l5d-client-id`; null adds nothing. */
export function requestFromHttp1(
  parts: Http1RequestParts,
  clientId: string | null,
  upgradable: boolean,
): Request {
  const upgrade = parts.method === "CONNECT" ? "" : upgradable ? passedUpgrade(parts.upgrade) : null;
  hasDebugField = false;
  const fields = passedFields(parts.fields, upgrade !== null && upgrade !== "", false);
  if (clientId !== null) fields.push("l5d-client-id", clientId);
  let authority = fieldValue(parts.fields, "host") ?? "";
  let path = parts.target;
  let scheme = "http";
  if (parts.absoluteForm) {
    // RFC 9112 §3.2.2: the target's authority replaces what Host says.
    const match = /^([A-Za-z][A-Za-z0-9+.-]*):\/\/([^/?#]*)(.*)$/s.exec(parts.target);
    if (match !== null) {
      scheme = (match[1] as string).toLowerCase();
      authority = match[2] as string;
      path = (match[3] as string) === "" ? (parts.method === "OPTIONS" ? "*" : "/") : (match[3] as string);
      if (path.startsWith("?")) path = `/${path}`;
      replaceHost(fields, authority);
    }
  } else if (parts.method === "CONNECT") {
    authority = parts.target;
    path = "";
  }
  return new Request({
    method: parts.method,
    scheme,
    authority,
    path,
    version: parts.version,
    absoluteForm: parts.absoluteForm,
    upgrade,
    fields,
    asksTrace: hasDebugField ? "program" : null,
  });
}

/** RFC 9112 §3.2.2: a proxy sends the target's authority as Host, whatever Host came: two names must not travel together. */
function replaceHost(fields: Fields, authority: string): void {
  for (let i = 0; i < fields.length; i += 2)
    if (fieldName(fields[i] as string).lower === "host") fields[i + 1] = authority;
}

/** Whether the fields that were last gone through had one that asks for a trace: known while their names are looked at anyway. */
let hasDebugField = false;

/**
 * Fields of an HTTP/1 message that travel on: less hop-by-hop ones, those that Connection names, and the mesh's own; of
 * those `l5d-proxy-error` stays where a sidecar may have said it (`meshed`). An offer to upgrade stays where it is passed on
 * (`upgrades`), and Transfer-Encoding always: whoever writes HTTP/1 takes its place, and nothing else, from it.
 */
function passedFields(from: Fields, upgrades: boolean, meshed: boolean): Fields {
  const out: Fields = [];
  let named: Set<string> | null = null;
  for (let i = 0; i < from.length; i += 2) {
    const name = from[i] as string;
    const value = from[i + 1] as string;
    const known = fieldName(name);
    switch (known.kind) {
      case Kind.PASS:
      case Kind.HOST:
      case Kind.CONTENT_LENGTH:
      case Kind.TRANSFER_ENCODING:
        out.push(name, value);
        break;
      case Kind.TE:
        // RFC 9113 §8.2.2: TE may say "trailers" and nothing else; what it says of codings ends at this hop.
        if (value.toLowerCase().includes("trailers")) out.push(name, "trailers");
        break;
      case Kind.CONNECTION: {
        const tokens = connectionTokens(value);
        if (tokens.length > 0) named ??= new Set();
        for (const token of tokens) named?.add(token);
        const passed = upgrades ? upgradeConnection(value) : null;
        if (passed !== null) out.push(name, passed);
        break;
      }
      case Kind.UPGRADE: {
        const passed = upgrades ? passedUpgrade(value) : null;
        if (passed !== null) out.push(name, passed);
        break;
      }
      case Kind.INTERNAL:
        if (meshed && known.lower === PROXY_ERROR) out.push(name, value);
        break;
      case Kind.DEBUG:
        hasDebugField = true;
        break;
      case Kind.DROP:
        break;
    }
  }
  return named === null ? out : without(out, named);
}

/** Names in a Connection field beyond the everyday ones. RFC 9110 §7.6.1: end-to-end fields may not be listed, so those stay. */
function connectionTokens(value: string): string[] {
  switch (value) {
    case "keep-alive":
    case "Keep-Alive":
    case "close":
    case "Upgrade":
    case "upgrade":
      return [];
  }
  const tokens: string[] = [];
  for (const part of value.toLowerCase().split(",")) {
    const token = part.trim();
    if (token === "" || token === "keep-alive" || token === "close" || token === "upgrade" || token === "te")
      continue;
    if (token === "host" || token === "content-length" || token === "authorization" || token === "cookie")
      continue;
    tokens.push(token);
  }
  return tokens;
}

function without(fields: Fields, names: ReadonlySet<string>): Fields {
  const out: Fields = [];
  for (let i = 0; i < fields.length; i += 2) {
    if (!names.has(fieldName(fields[i] as string).lower))
      out.push(fields[i] as string, fields[i + 1] as string);
  }
  return out;
}

/**
 * How a message travels over HTTP/2: "native" as HTTP/2; "upgraded" as HTTP/1 carried between sidecars, and restored by the far
 * one; "spelled" the same between two of ours, as HTTP/1 spelled it (`spelling.ts`).
 */
export type Http2Carriage = "native" | "upgraded" | "spelled";

/** How HTTP/1 travels to whoever is at the far end. */
export function carriageTo(far: FarSide): Http2Carriage {
  return far === "foreign" ? "native" : far === "sidecar" ? "upgraded" : "spelled";
}

/** Used by one conversion at a time. */
const spelling = new SpellingWriter();

/** Pseudo-fields first, names lower-case. HTTP/1's Host becomes `:authority`. The result is shared: never changed. */
export function requestToHttp2(head: RequestHead, carriage: Http2Carriage): Fields {
  if (head instanceof Request && head.http2MemoKind === carriage && head.http2Memo !== null)
    return head.http2Memo;
  const out: Fields = [":method", head.method];
  const extended = head.version === "2" && head.method === "CONNECT" && head.upgrade !== null;
  if (head.method !== "CONNECT" || extended) out.push(":scheme", head.scheme, ":path", head.path);
  // RFC 8441 §4: what an extended CONNECT bootstraps.
  if (extended) out.push(":protocol", head.upgrade as string);
  if (head.authority !== "") out.push(":authority", head.authority);
  if (head.version === "2") {
    for (const text of head.fields) out.push(text);
  } else {
    const isSpelled = carriage === "spelled";
    pushHttp1Fields(head.fields, out, isSpelled, false, null);
    if (carriage !== "native")
      out.push(
        "l5d-orig-proto",
        head.absoluteForm ? `HTTP/${head.version}; absolute-form` : `HTTP/${head.version}`,
      );
  }
  keepNeverIndexed(head.fields, out);
  if (head instanceof Request) {
    head.http2Memo = out;
    head.http2MemoKind = carriage;
  }
  return out;
}

/**
 * Fields of HTTP/1 in the form of HTTP/2, and behind them how they were spelled. Host is `:authority` there, and frames say
 * where a body ends.
 */
function pushHttp1Fields(
  fields: Fields,
  out: Fields,
  isSpelled: boolean,
  endsWithConnection: boolean,
  reason: string | null,
): void {
  if (isSpelled) spelling.begin(endsWithConnection);
  for (let i = 0; i < fields.length; i += 2) {
    const value = fields[i + 1] as string;
    const name = fieldName(fields[i] as string);
    const { kind } = name;
    if (kind !== Kind.HOST && kind !== Kind.TRANSFER_ENCODING) out.push(name.lower, value);
    if (isSpelled) spelling.field(name, value);
  }
  if (!isSpelled) return;
  const text = spelling.end(reason);
  if (text !== "") out.push(SPELLING_FIELD, text);
}

/**
 * Reads a request that arrived over HTTP/2; the machine has checked its pseudo-fields. From another sidecar
 * `l5d-orig-proto` restores HTTP/1, and from one of ours also the spelling; from anybody else the mesh's own fields are
 * dropped unread.
 */
export function requestFromHttp2(fields: Fields, client: FarSide, clientId: string | null): Request {
  let method = "";
  let scheme = "http";
  let authority = "";
  let path = "";
  let protocol: string | null = null;
  let i = 0;
  for (; i < fields.length; i += 2) {
    const name = fields[i] as string;
    if (name.charCodeAt(0) !== 58) break; // ':'
    const value = fields[i + 1] as string;
    if (name === ":method") method = value;
    else if (name === ":path") path = value;
    else if (name === ":authority") authority = value;
    else if (name === ":scheme") scheme = value;
    else if (name === ":protocol") protocol = value;
  }
  let version: HttpVersion = "2";
  let absoluteForm = false;
  let spelled = "";
  let asksTrace: RequestHead["asksTrace"] = null;
  let rest: Fields = [];
  for (; i < fields.length; i += 2) {
    const name = fields[i] as string;
    const value = fields[i + 1] as string;
    // Every name of the mesh but one starts with "l5d": comparing a character spares most fields the look-up.
    const first = name.charCodeAt(0);
    if (first === 120 && name === DEBUG_FIELD) {
      asksTrace ??= "program";
      continue;
    }
    if (first === 108 && kindOfLower(name) === Kind.INTERNAL) {
      // CONNECT and upgrades never travel so (facts §8.1): over HTTP/1 their body would have no frame.
      if (client !== "foreign" && name === "l5d-orig-proto" && method !== "CONNECT") {
        version = value.startsWith("HTTP/1.0") ? "1.0" : "1.1";
        absoluteForm = value.endsWith("; absolute-form");
      } else if (client === "pillion" && name === SPELLING_FIELD) spelled = value;
      else if (client === "pillion" && name === FAR_DEBUG_FIELD) asksTrace = "sidecar";
      continue;
    }
    rest.push(name, value);
  }
  if (spelled !== "" && version !== "2") rest = spellingOf(spelled).restore(rest, authority);
  keepNeverIndexed(fields, rest);
  if (clientId !== null) rest.push("l5d-client-id", clientId);
  if (authority === "") authority = fieldValue(rest, "host") ?? "";
  return new Request({
    method,
    scheme,
    authority,
    path,
    version,
    absoluteForm,
    upgrade: protocol,
    fields: rest,
    asksTrace,
  });
}

/** Who is at the other end of HTTP/2: anybody, a proven sidecar, or a proven sidecar that is one of ours. */
export type FarSide = "foreign" | "sidecar" | "pillion";

const SLASH = 0x2f;

export interface Http1Message {
  readonly fields: Fields;
  /** The body goes in chunks because its length is not known beforehand. */
  readonly chunked: boolean;
}

/** Fields that no trailer section may carry (RFC 9110 §6.5.1): they frame or route, or only a head may say them. */
export function trailersToHttp1(trailers: Fields | null): Fields | null {
  if (trailers === null) return null;
  const out: Fields = [];
  for (let i = 0; i < trailers.length; i += 2) {
    if (fieldName(trailers[i] as string).kind === Kind.PASS)
      out.push(trailers[i] as string, trailers[i + 1] as string);
  }
  return out;
}

/** The target to write on the request line; "" where HTTP/1 has no form for it. */
export function http1Target(head: RequestHead): string {
  if (head.method === "CONNECT") return head.authority;
  // RFC 9112 §3.2: over HTTP/2 a scheme of its own may come with a path of any form.
  if (head.path.charCodeAt(0) !== SLASH && !(head.path === "*" && head.method === "OPTIONS")) return "";
  if (!head.absoluteForm) return head.path;
  return `${head.scheme}://${head.authority}${head.path === "*" ? "" : head.path}`;
}

/** Fields of a request as HTTP/1 writes them: those of the head where it may write them as they are. `last`: it has no body. */
export function requestToHttp1(head: RequestHead, last: boolean): Http1Message {
  const { fields, upgrade } = head;
  if (head.version === "1.1" && upgrade === null && goesAsItIs(fields, last))
    return { fields, chunked: false };
  const out: Fields = [];
  const isTunnel = upgrade !== null;
  // RFC 9112 §3.2: an empty one where the client named no host.
  if ((head.authority !== "" || head.version !== "1.0") && fieldCount(fields, "host") === 0)
    out.push("Host", head.authority);
  const chunked = !last && !isTunnel && fieldCount(fields, "content-length") === 0;
  const cookies = head.version === "2" ? fieldCount(fields, "cookie") : 0;
  let cookie = "";
  let isPlaced = false;
  for (let i = 0; i < fields.length; i += 2) {
    const name = fields[i] as string;
    const value = fields[i + 1] as string;
    if (cookies > 1 && name === "cookie") {
      // RFC 9113 §8.2.3: crumbs are joined before they leave HTTP/2.
      cookie = cookie === "" ? value : `${cookie}; ${value}`;
      continue;
    }
    if (isTransferEncoding(name)) {
      if (!chunked || isPlaced) continue;
      isPlaced = true;
    }
    out.push(name, value);
  }
  if (cookie !== "") out.push("cookie", cookie);
  if (isTunnel && head.method !== "CONNECT") {
    if (fieldCount(fields, "upgrade") === 0) out.push("Connection", "Upgrade", "Upgrade", upgrade);
  } else if (head.version === "1.0") out.push("Connection", "keep-alive");
  if (chunked && !isPlaced) out.push("Transfer-Encoding", "chunked");
  return { fields: out, chunked };
}

/** A request's head as it goes out over HTTP/1. */
export interface Http1Request {
  /** Not to be written to: the same head again gives the same bytes. */
  readonly bytes: Uint8Array;
  readonly chunked: boolean;
  /** It has no body. */
  readonly last: boolean;
}

/** Longer heads are encoded anew each time. */
const HTTP1_MEMO_BYTES_MAX = 2_048;

/** Null: HTTP/2 may carry what HTTP/1 cannot say. */
export function encodeRequest(head: RequestHead, last: boolean): Http1Request | null {
  const known = head instanceof Request ? head : null;
  if (known !== null && known.http1Memo !== null && known.http1Memo.last === last) return known.http1Memo;
  const { method } = head;
  const target = http1Target(head);
  if (!isMethod(method) || !isRequestTarget(target)) return null;
  const { fields, chunked } = requestToHttp1(head, last);
  // RFC 9112 §6.1: HTTP/1.0 knows no chunks. A body of unknown length came over HTTP/2 here.
  const version = head.version === "1.0" && !chunked ? "1.0" : "1.1";
  const bytes = encodeRequestHead({ method, target, version, fields });
  if (known !== null && known.wasEncoded && bytes.length <= HTTP1_MEMO_BYTES_MAX)
    known.http1Memo = { bytes: new Uint8Array(bytes), chunked, last };
  else if (known !== null) known.wasEncoded = true;
  return { bytes, chunked, last };
}

/** What an answer's head says over HTTP/1 beside its own fields, in sum. */
export const Added = {
  NOTHING: 0,
  /** `Content-Length: 0`. */
  NO_LENGTH: 1,
  /** Transfer-Encoding, where the application had it, else at the end. */
  CHUNKED: 2,
  /** Transfer-Encoding stays where it is, though nothing is chunked; without this and `CHUNKED` it goes. */
  CODING_STAYS: 4,
  CLOSE: 8,
  KEEP_ALIVE: 16,
} as const;

/** `added`: a sum of `Added`. The result is not to be written to: the same head again may give the same bytes. */
export function encodeResponse(head: ResponseHead, added: number): Uint8Array {
  const known = head instanceof Response ? head : null;
  if (known !== null && known.http1Memo !== null && known.http1MemoKind === added) return known.http1Memo;
  const isChunked = (added & Added.CHUNKED) !== 0;
  let fields: Fields = head.fields.slice();
  if ((added & Added.NO_LENGTH) !== 0) fields.push("Content-Length", "0");
  fields = placeTransferEncoding(fields, isChunked, isChunked || (added & Added.CODING_STAYS) !== 0);
  if ((added & Added.CLOSE) !== 0) fields.push("Connection", "close");
  else if ((added & Added.KEEP_ALIVE) !== 0) fields.push("Connection", "keep-alive");
  const bytes = encodeResponseHead({
    // RFC 9110 §6.2: a version is the sender's own, whatever the client's: the application's word goes on.
    version: head.version === "1.0" && !isChunked ? "1.0" : "1.1",
    status: head.status,
    reason: head.reason ?? reasonOf(head.status),
    fields,
  });
  if (known !== null && known.wasEncoded && bytes.length <= HTTP1_MEMO_BYTES_MAX) {
    known.http1Memo = new Uint8Array(bytes);
    known.http1MemoKind = added;
  } else if (known !== null) known.wasEncoded = true;
  return bytes;
}

/**
 * Transfer-Encoding where the application had it, if it may be there at all; at the end where a chunked answer came without.
 * It changes nothing where there is none and none is needed.
 */
function placeTransferEncoding(fields: Fields, isNeeded: boolean, mayBe: boolean): Fields {
  let isThere = false;
  for (let i = 0; i < fields.length && !isThere; i += 2) isThere = isTransferEncoding(fields[i] as string);
  if (isThere && !mayBe) return withoutTransferEncoding(fields);
  if (!isThere && isNeeded) fields.push("Transfer-Encoding", "chunked");
  return fields;
}

/** RFC 9112 §6.1: no transfer coding in a 1xx. */
export function withoutTransferEncoding(fields: Fields): Fields {
  return fields.filter((_, i) => !isTransferEncoding(fields[i - (i % 2)] as string));
}

/** Whether fields that came from HTTP/1.1 name a host, say nothing of codings, and frame the body that follows. */
function goesAsItIs(fields: Fields, last: boolean): boolean {
  let hosts = 0;
  let isFramed = last;
  for (let i = 0; i < fields.length; i += 2) {
    const name = fields[i] as string;
    if (isTransferEncoding(name)) return false;
    if (name.length === "host".length && fieldName(name).kind === Kind.HOST) hosts++;
    else if (name.length === "content-length".length && fieldName(name).kind === Kind.CONTENT_LENGTH)
      isFramed = true;
  }
  return hosts > 0 && isFramed;
}

/** Fields of an answer that came over HTTP/1, less what belonged to that hop. Only another sidecar may name an error of the mesh. */
export function responseFromHttp1(
  parts: { status: number; reason: string; version: "1.0" | "1.1"; fields: Fields; framing: Framing },
  meshed: boolean,
): Response {
  const fields = passedFields(parts.fields, false, meshed);
  if (!meshed) signForeignStatus(fields, parts.status);
  return new Response(parts.status, parts.version, parts.reason, fields, parts.framing === "close");
}

/**
 * RFC 9209 §2: whoever has Proxy-Status from further away adds a member of its own, and the last one is of who is nearest
 * to the client. So what an application says there stays, and cannot pass for the mesh's.
 */
function signForeignStatus(fields: Fields, status: number): void {
  for (let i = 0; i < fields.length; i += 2) {
    const name = fields[i] as string;
    if (name.length !== PROXY_STATUS.length || fieldName(name).lower !== PROXY_STATUS) continue;
    fields.push(PROXY_STATUS, `pillion;received-status=${status}`);
    return;
  }
}

/** As above for 101, whose Upgrade must reach the client. */
export function switchingFromHttp1(
  parts: { status: number; reason: string; version: "1.0" | "1.1"; fields: Fields },
  meshed: boolean,
): ResponseHead {
  const fields: Fields = [];
  for (let i = 0; i < parts.fields.length; i += 2) {
    const { kind } = fieldName(parts.fields[i] as string);
    // RFC 9112 §6.1: no transfer coding in a 1xx.
    if (kind !== Kind.INTERNAL && kind !== Kind.TRANSFER_ENCODING)
      fields.push(parts.fields[i] as string, parts.fields[i + 1] as string);
  }
  if (!meshed) signForeignStatus(fields, parts.status);
  return { status: parts.status, reason: parts.reason, version: parts.version, fields };
}

/** An answer that arrived over HTTP/2. Only another sidecar may name the version, the spelling or an error of the mesh. */
export function responseFromHttp2(fields: Fields, server: FarSide): Response {
  const status = Number(fields[1]);
  let version: HttpVersion = "2";
  let spelled = "";
  const rest: Fields = [];
  for (let i = 2; i < fields.length; i += 2) {
    const name = fields[i] as string;
    if (name.charCodeAt(0) === 108 && kindOfLower(name) === Kind.INTERNAL) {
      if (server === "foreign") continue;
      if (name === "l5d-orig-proto") {
        version = (fields[i + 1] as string) === "HTTP/1.0" ? "1.0" : "1.1";
        continue;
      }
      if (name === SPELLING_FIELD && server === "pillion") spelled = fields[i + 1] as string;
      if (name !== PROXY_ERROR) continue;
    }
    rest.push(name, fields[i + 1] as string);
  }
  keepNeverIndexed(fields, rest);
  if (server === "foreign") signForeignStatus(rest, status);
  if (spelled === "" || version === "2") return new Response(status, version, null, rest, false);
  const known = spellingOf(spelled);
  return new Response(status, version, known.reason, known.restore(rest, ""), known.endsWithConnection);
}

/**
 * `carriage` other than "native": the request came as HTTP/1, so the answer says its version too (facts §8.1). The result is
 * shared: never changed.
 */
export function responseToHttp2(head: ResponseHead, carriage: Http2Carriage): Fields {
  if (head instanceof Response && head.http2MemoKind === carriage && head.http2Memo !== null)
    return head.http2Memo;
  const { status, version, reason } = head;
  const out: Fields = [":status", String(status)];
  const isSpelled = carriage === "spelled" && version !== "2";
  const oddReason = reason === null || reason === reasonOf(status) ? null : reason;
  pushHttp1Fields(head.fields, out, isSpelled, head.endsWithConnection === true, oddReason);
  if (carriage !== "native") out.push("l5d-orig-proto", version === "1.0" ? "HTTP/1.0" : "HTTP/1.1");
  keepNeverIndexed(head.fields, out);
  if (head instanceof Response) {
    head.http2Memo = out;
    head.http2MemoKind = carriage;
  }
  return out;
}

/** Trailers on their way to HTTP/2: nothing that frames, routes or speaks for the mesh. */
export function trailersToHttp2(trailers: Fields, isSpelled: boolean): Fields {
  const out: Fields = [];
  if (isSpelled) spelling.begin(false);
  for (let i = 0; i < trailers.length; i += 2) {
    const name = fieldName(trailers[i] as string);
    if (name.kind !== Kind.PASS) continue;
    out.push(name.lower, trailers[i + 1] as string);
    if (isSpelled) spelling.field(name, "");
  }
  const text = isSpelled ? spelling.end(null) : "";
  if (text !== "") out.push(SPELLING_FIELD, text);
  keepNeverIndexed(trailers, out);
  return out;
}

/** The way back. Other fields of the mesh are dropped where the trailers are written (`trailersToHttp1`, `trailersToHttp2`). */
export function trailersFromHttp2(trailers: Fields, far: FarSide): Fields {
  if (far !== "pillion" || fieldValue(trailers, SPELLING_FIELD) === null) return trailers;
  const text = fieldValue(trailers, SPELLING_FIELD) as string;
  const rest: Fields = [];
  for (let i = 0; i < trailers.length; i += 2)
    if (trailers[i] !== SPELLING_FIELD) rest.push(trailers[i] as string, trailers[i + 1] as string);
  keepNeverIndexed(trailers, rest);
  return spellingOf(text).restore(rest, "");
}

/** Of an answer, also without an application's Proxy-Status: signing it, as in a head, would need a trailer of our own. */
export function answerTrailersFromHttp2(trailers: Fields, far: FarSide): Fields {
  return far === "foreign" ? withoutStatus(trailers) : trailersFromHttp2(trailers, far);
}

/** As above. */
export function answerTrailersFromHttp1(trailers: Fields | null, meshed: boolean): Fields | null {
  return meshed || trailers === null ? trailers : withoutStatus(trailers);
}

const STATUS_ALONE: ReadonlySet<string> = new Set([PROXY_STATUS]);

function withoutStatus(trailers: Fields): Fields {
  if (fieldCount(trailers, PROXY_STATUS) === 0) return trailers;
  const rest = without(trailers, STATUS_ALONE);
  keepNeverIndexed(trailers, rest);
  return rest;
}

/** Seconds that a peer promises to keep an idle connection (`Keep-Alive: timeout=5`), or -1. */
export function keepAliveTimeoutSeconds(fields: Fields): number {
  const value = fieldValue(fields, "keep-alive");
  if (value === null) return -1;
  const match = /(?:^|[,;\s])timeout\s*=\s*"?(\d{1,6})/i.exec(value);
  return match === null ? -1 : Number(match[1]);
}
