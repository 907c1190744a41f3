import type { Fields } from "#/base/fields.ts";
import { fieldValue, keepNeverIndexed } from "#/base/fields.ts";
import { hashText } from "#/base/hash.ts";
import type { SessionPersistence } from "#/model/traffic.ts";
import type { Member } from "./member.ts";
import { cookieValue } from "./request-fields.ts";

/** What a request's token says. */
export interface Session {
  /** `endpointId` of whom it belongs to. */
  readonly id: string;
  readonly startedAtS: number;
}

/** A version, the endpoint, the start in seconds since 1970, "-", and a check of it all, in hexadecimal. */
const TOKEN = /^1([0-9a-f]{16})([0-9a-f]{1,12})-([0-9a-f]{8})$/;

/**
 * Session persistence (GEP-1619): the first answer gives the client a token that names the endpoint, and requests that bring it go
 * there while the endpoint lasts. All sidecars read each other's tokens, and share no secret; nor need they: a token holds only
 * hashes, and whoever makes one up chooses among the endpoints that the next request may reach anyway. Rules have sessions of
 * their own, whatever endpoints they share, so settings come with each request.
 */

/** The endpoint, by its id, of the request's session; null without one, and when it is over. */
export function sessionEndpoint(
  fields: Fields,
  { kind, name, absoluteTimeoutMs }: SessionPersistence,
  wallMs: number,
): string | null {
  const token = kind === "cookie" ? cookieValue(fields, name) : fieldValue(fields, name.toLowerCase());
  const session = token === null ? null : readToken(token, name);
  if (session === null) return null;
  const nowS = wallMs / 1000;
  // One that begins in the future is nobody's, but for clocks that differ.
  if (session.startedAtS > nowS + CLOCK_SKEW_S) return null;
  if (absoluteTimeoutMs !== null && nowS >= session.startedAtS + absoluteTimeoutMs / 1000) return null;
  return session.id;
}

/** An answer's fields with the token of a session at the endpoint `id`, which begins now. */
export function withSession(
  answer: Fields,
  id: string,
  { kind, name, path, isPermanent, absoluteTimeoutMs }: SessionPersistence,
  wallMs: number,
): Fields {
  const token = makeToken({ id, startedAtS: Math.floor(wallMs / 1000) }, name);
  const fields: Fields = [...answer];
  keepNeverIndexed(answer, fields);
  if (kind === "header") fields.push(name, token);
  else {
    // RFC 6265 §4.1: no Domain, so that only the host gets it back; no script needs to read it.
    let cookie = `${name}=${token}; Path=${path === "" ? "/" : path}; HttpOnly`;
    // GEP-1619: a permanent cookie lasts as long as its session, one of a browser's session has no end of its own.
    if (isPermanent && absoluteTimeoutMs !== null)
      cookie += `; Max-Age=${Math.ceil(absoluteTimeoutMs / 1000)}`;
    fields.push("set-cookie", cookie);
  }
  return fields;
}

const CLOCK_SKEW_S = 300;

/** Names a pod at an address: another pod that gets the address later is another endpoint. */
export function endpointId<T>({ key, endpoint }: Member<T>): string {
  const text = `${key} ${endpoint.identity?.name ?? ""} ${endpoint.labels["pod"] ?? ""}`;
  return hex(hashText(text, ID_SEED), 8) + hex(hashText(text, ID_SEED + 1), 8);
}

export function makeToken({ id, startedAtS }: Session, name: string): string {
  const body = `1${id}${hex(startedAtS, 1)}`;
  return `${body}-${hex(hashText(`${name} ${body}`, CHECK_SEED), 8)}`;
}

/** Null: it was not made for a session of this name, or was changed since. */
export function readToken(token: string, name: string): Session | null {
  const match = TOKEN.exec(token);
  if (match === null) return null;
  const [, id = "", start = ""] = match;
  const session = { id, startedAtS: Number.parseInt(start, 16) };
  return makeToken(session, name) === token ? session : null;
}

function hex(value: number, digitsMin: number): string {
  return value.toString(16).padStart(digitsMin, "0");
}

const ID_SEED = 0x5e551071;
const CHECK_SEED = 0x7c3a9b15;
