import type { Fields } from "#/base/fields.ts";
import { fieldCount, fieldValue } from "#/base/fields.ts";
import type { HttpVersion, RequestHead, ResponseHead } from "./exchange.ts";

/**
 * Heads between versions: HTTP/1 (RFC 9112), HTTP/2 (RFC 9113 §8) and HTTP/1 carried over HTTP/2 between sidecars
 * (`l5d-orig-proto`, facts §8.1). Heads are immutable once made, so one may be shared by equal requests.
 */

/** What is to be done with a field that arrived over HTTP/1. */
const Kind = {
  PASS: 0,
  CONNECTION: 1,
  DROP: 2,
  TE: 3,
  HOST: 4,
  INTERNAL: 5,
  CONTENT_LENGTH: 6,
  UPGRADE: 7,
} as const;
type Kind = (typeof Kind)[keyof typeof Kind];

const PROXY_ERROR = "l5d-proxy-error";
const PROXY_STATUS = "proxy-status";

/** RFC 9110 §7.6.1 and the mesh's own fields, which no application may set (facts §8.2). */
const KINDS: ReadonlyMap<string, Kind> = new Map<string, Kind>([
  ["connection", Kind.CONNECTION],
  ["keep-alive", Kind.DROP],
  ["proxy-connection", Kind.DROP],
  ["transfer-encoding", Kind.DROP],
  ["http2-settings", Kind.DROP],
  ["upgrade", Kind.UPGRADE],
  ["te", Kind.TE],
  ["host", Kind.HOST],
  ["content-length", Kind.CONTENT_LENGTH],
  ["l5d-orig-proto", Kind.INTERNAL],
  ["l5d-client-id", Kind.INTERNAL],
  [PROXY_ERROR, Kind.INTERNAL],
  ["l5d-proxy-connection", Kind.INTERNAL],
  ["l5d-dst-canonical", Kind.INTERNAL],
]);

/**
 * Lower-case form of field names seen, so that a name is lowered once and not per request. At 1,024 names it starts
 * afresh: a client that invents names costs itself lower-casing and nobody memory.
 */
const lowered = new Map<string, string>();

export function lowerName(name: string): string {
  let lower = lowered.get(name);
  if (lower === undefined) {
    if (lowered.size >= 1024) lowered.clear();
    lower = name.toLowerCase();
    lowered.set(name, lower);
  }
  return lower;
}

function kindOf(name: string): Kind {
  return KINDS.get(lowerName(name)) ?? Kind.PASS;
}

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
  /** What `requestToHttp2` made of it, or null. */
  http2Memo: Fields | null = null;
  http2MemoKind: Http2Carriage | null = null;

  constructor(head: RequestHead) {
    this.method = head.method;
    this.scheme = head.scheme;
    this.authority = head.authority;
    this.path = head.path;
    this.version = head.version;
    this.absoluteForm = head.absoluteForm;
    this.upgrade = head.upgrade;
    this.fields = head.fields;
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
  const fields = passedFields(parts.fields);
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
  });
}

/** RFC 9112 §3.2.2: a proxy sends the target's authority as Host, whatever Host came: two names must not travel together. */
function replaceHost(fields: Fields, authority: string): void {
  for (let i = 0; i < fields.length; i += 2)
    if (lowerName(fields[i] as string) === "host") fields[i + 1] = authority;
}

/**
 * Upgrade tokens that are worth a connection of their own. An offer may always be ignored (RFC 9110 §7.8): `h2c` (dropped
 * by RFC 9113 §3.1) and `TLS/1.x` (which some clients send with every request) end here.
 */
function passedUpgrade(offer: string | null): string | null {
  if (offer === null) return null;
  const lower = offer.toLowerCase();
  return lower === "h2c" || lower.startsWith("tls/") ? null : offer;
}

/**
 * Fields of an HTTP/1 message that travel on: less hop-by-hop ones, those that Connection names, and the mesh's own; of
 * those `l5d-proxy-error` stays where a sidecar may have said it (`meshed`).
 */
function passedFields(from: Fields, meshed: boolean = false): Fields {
  const out: Fields = [];
  let named: string[] | null = null;
  for (let i = 0; i < from.length; i += 2) {
    const name = from[i] as string;
    const value = from[i + 1] as string;
    switch (kindOf(name)) {
      case Kind.PASS:
      case Kind.HOST:
      case Kind.CONTENT_LENGTH:
        out.push(name, value);
        break;
      case Kind.TE:
        // RFC 9113 §8.2.2: TE may say "trailers" and nothing else; what it says of codings ends at this hop.
        if (value.toLowerCase().includes("trailers")) out.push(name, "trailers");
        break;
      case Kind.CONNECTION: {
        const tokens = connectionTokens(value);
        if (tokens.length > 0) named = named === null ? tokens : named.concat(tokens);
        break;
      }
      case Kind.INTERNAL:
        if (meshed && lowerName(name) === PROXY_ERROR) out.push(name, value);
        break;
      case Kind.DROP:
      case Kind.UPGRADE:
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

function without(fields: Fields, names: string[]): Fields {
  const out: Fields = [];
  for (let i = 0; i < fields.length; i += 2) {
    if (!names.includes(lowerName(fields[i] as string)))
      out.push(fields[i] as string, fields[i + 1] as string);
  }
  return out;
}

/**
 * How a request travels over HTTP/2: "native" as HTTP/2, "upgraded" as HTTP/1 carried between sidecars (the far side restores it).
 */
export type Http2Carriage = "native" | "upgraded";

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
  const fromHttp1 = head.version !== "2";
  for (let i = 0; i < head.fields.length; i += 2) {
    const name = head.fields[i] as string;
    if (!fromHttp1) {
      out.push(name, head.fields[i + 1] as string);
      continue;
    }
    const lower = lowerName(name);
    if (lower !== "host") out.push(lower, head.fields[i + 1] as string);
  }
  if (carriage === "upgraded" && fromHttp1) {
    out.push(
      "l5d-orig-proto",
      head.absoluteForm ? `HTTP/${head.version}; absolute-form` : `HTTP/${head.version}`,
    );
  }
  if (head instanceof Request) {
    head.http2Memo = out;
    head.http2MemoKind = carriage;
  }
  return out;
}

/**
 * Reads a request that arrived over HTTP/2; the machine has checked its pseudo-fields. From another sidecar
 * (`meshed`) `l5d-orig-proto` restores HTTP/1; from anybody else the mesh's own fields are dropped unread.
 */
export function requestFromHttp2(fields: Fields, meshed: boolean, clientId: string | null): Request {
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
  const rest: Fields = [];
  for (; i < fields.length; i += 2) {
    const name = fields[i] as string;
    const value = fields[i + 1] as string;
    // Every name of the mesh starts with "l5d-": one comparison of a character spares most fields the look-up.
    if (name.charCodeAt(0) === 108 && KINDS.get(name) === Kind.INTERNAL) {
      // CONNECT and upgrades never travel so (facts §8.1): over HTTP/1 their body would have no frame.
      if (meshed && name === "l5d-orig-proto" && method !== "CONNECT") {
        version = value.startsWith("HTTP/1.0") ? "1.0" : "1.1";
        absoluteForm = value.endsWith("; absolute-form");
      }
      continue;
    }
    rest.push(name, value);
  }
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
  });
}

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
    if (kindOf(trailers[i] as string) === Kind.PASS)
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

/** Fields of a request as HTTP/1 writes them. `last`: it has no body. */
export function requestToHttp1(head: RequestHead, last: boolean): Http1Message {
  const out: Fields = [];
  if (head.authority !== "" && fieldCount(head.fields, "host") === 0) out.push("Host", head.authority);
  const cookies = head.version === "2" ? fieldCount(head.fields, "cookie") : 0;
  let cookie = "";
  for (let i = 0; i < head.fields.length; i += 2) {
    const name = head.fields[i] as string;
    const value = head.fields[i + 1] as string;
    if (cookies > 1 && name === "cookie") {
      // RFC 9113 §8.2.3: crumbs are joined before they leave HTTP/2.
      cookie = cookie === "" ? value : `${cookie}; ${value}`;
      continue;
    }
    out.push(name, value);
  }
  if (cookie !== "") out.push("cookie", cookie);
  if (head.upgrade !== null && head.method !== "CONNECT")
    out.push("Connection", "Upgrade", "Upgrade", head.upgrade);
  else if (head.version === "1.0") out.push("Connection", "keep-alive");
  const chunked = !last && fieldCount(head.fields, "content-length") === 0 && head.upgrade === null;
  if (chunked) out.push("Transfer-Encoding", "chunked");
  return { fields: out, chunked };
}

/** Fields of an answer that came over HTTP/1, less what belonged to that hop. Only another sidecar may name an error of the mesh. */
export function responseFromHttp1(
  parts: { status: number; reason: string; version: "1.0" | "1.1"; fields: Fields },
  meshed: boolean,
): ResponseHead {
  const fields = passedFields(parts.fields, meshed);
  if (!meshed) signForeignStatus(fields, parts.status);
  return { status: parts.status, reason: parts.reason, version: parts.version, fields };
}

/**
 * RFC 9209 §2: whoever has Proxy-Status from further away adds a member of its own, and the last one is of who is nearest
 * to the client. So what an application says there stays, and cannot pass for the mesh's.
 */
function signForeignStatus(fields: Fields, status: number): void {
  for (let i = 0; i < fields.length; i += 2) {
    const name = fields[i] as string;
    if (name.length !== PROXY_STATUS.length || lowerName(name) !== PROXY_STATUS) continue;
    fields.push(PROXY_STATUS, `pillion;received-status=${status}`);
    return;
  }
}

/** As above for 101, whose Upgrade must reach the client. */
export function switchingFromHttp1(parts: {
  status: number;
  reason: string;
  version: "1.0" | "1.1";
  fields: Fields;
}): ResponseHead {
  const fields: Fields = [];
  for (let i = 0; i < parts.fields.length; i += 2) {
    if (kindOf(parts.fields[i] as string) !== Kind.INTERNAL)
      fields.push(parts.fields[i] as string, parts.fields[i + 1] as string);
  }
  return { status: parts.status, reason: parts.reason, version: parts.version, fields };
}

/** An answer that arrived over HTTP/2. Only another sidecar (`meshed`) may name the version or an error of the mesh. */
export function responseFromHttp2(fields: Fields, meshed: boolean): ResponseHead {
  const status = Number(fields[1]);
  let version: HttpVersion = "2";
  const rest: Fields = [];
  for (let i = 2; i < fields.length; i += 2) {
    const name = fields[i] as string;
    if (name.charCodeAt(0) === 108 && KINDS.get(name) === Kind.INTERNAL) {
      if (!meshed) continue;
      if (name === "l5d-orig-proto") {
        version = (fields[i + 1] as string) === "HTTP/1.0" ? "1.0" : "1.1";
        continue;
      }
      if (name !== PROXY_ERROR) continue;
    }
    rest.push(name, fields[i + 1] as string);
  }
  if (!meshed) signForeignStatus(rest, status);
  return { status, version, reason: "", fields: rest };
}

/** `upgraded`: the request came as HTTP/1 over HTTP/2, so the answer says its version too (facts §8.1). */
export function responseToHttp2(head: ResponseHead, upgraded: boolean): Fields {
  const out: Fields = [":status", String(head.status)];
  for (let i = 0; i < head.fields.length; i += 2)
    out.push(lowerName(head.fields[i] as string), head.fields[i + 1] as string);
  if (upgraded) out.push("l5d-orig-proto", head.version === "1.0" ? "HTTP/1.0" : "HTTP/1.1");
  return out;
}

/** Lower-case copy, for trailers and informational fields on their way to HTTP/2. */
export function fieldsToHttp2(fields: Fields): Fields {
  const out: Fields = [];
  for (let i = 0; i < fields.length; i += 2) {
    const lower = lowerName(fields[i] as string);
    if (KINDS.get(lower) === undefined) out.push(lower, fields[i + 1] as string);
  }
  return out;
}

/** Seconds that a peer promises to keep an idle connection (`Keep-Alive: timeout=5`), or -1. */
export function keepAliveTimeoutSeconds(fields: Fields): number {
  const value = fieldValue(fields, "keep-alive");
  if (value === null) return -1;
  const match = /(?:^|[,;\s])timeout\s*=\s*"?(\d{1,6})/i.exec(value);
  return match === null ? -1 : Number(match[1]);
}
