import { fieldValue, type Fields } from "#/base/fields.ts";
import type { Cors } from "#/model/route.ts";
import type { RequestHead } from "../http/exchange.ts";

/** Fetch §3.3.1 and §3.3.2: OPTIONS with an origin and the method that is meant. */
export function isPreflight({ method, fields }: RequestHead): boolean {
  return (
    method === "OPTIONS" &&
    fieldValue(fields, "origin") !== null &&
    fieldValue(fields, "access-control-request-method") !== null
  );
}

/**
 * What the answer to a preflight says; for an origin that is not allowed nothing but that it depends on the origin, which
 * makes a browser refuse (Fetch §4.8).
 */
export function preflightFields(cors: Cors, { fields }: RequestHead): Fields {
  const out = originFields(cors, fieldValue(fields, "origin"));
  out.push("vary", "Access-Control-Request-Method, Access-Control-Request-Headers");
  if (fieldValue(out, ALLOW_ORIGIN) === null) return out;
  const method = fieldValue(fields, "access-control-request-method");
  const headers = fieldValue(fields, "access-control-request-headers");
  const methods = listed(cors.allowMethods, cors.allowCredentials, method);
  if (methods !== "") out.push("access-control-allow-methods", methods);
  const allowed = listed(cors.allowHeaders, cors.allowCredentials, headers);
  if (allowed !== "") out.push("access-control-allow-headers", allowed);
  if (cors.maxAgeSeconds > 0) out.push("access-control-max-age", String(cors.maxAgeSeconds));
  return out;
}

/** What the answer to any other request says, in place of what the application says of it. */
export function corsFields(cors: Cors, origin: string | null): Fields {
  const out = originFields(cors, origin);
  if (fieldValue(out, ALLOW_ORIGIN) === null) return out;
  if (cors.exposeHeaders.length > 0) out.push("access-control-expose-headers", cors.exposeHeaders.join(", "));
  return out;
}

/** Fields of an application's answer that the policy decides in its place. */
export const CORS_FIELDS: ReadonlySet<string> = new Set([
  "access-control-allow-origin",
  "access-control-allow-credentials",
  "access-control-expose-headers",
]);

/** Fetch §4.9: with credentials "*" is no wildcard, so the origin itself is named. */
function originFields(cors: Cors, origin: string | null): Fields {
  const isForAll = cors.allowOrigins.includes("*") && !cors.allowCredentials;
  const out: Fields = isForAll ? [] : ["vary", "Origin"];
  if (origin === null || !cors.allowOrigins.some((allowed) => isOrigin(allowed, origin))) return out;
  out.push(ALLOW_ORIGIN, isForAll ? "*" : origin);
  if (cors.allowCredentials) out.push("access-control-allow-credentials", "true");
  return out;
}

/** "*" in an origin stands for one or more characters: "https://*.example.com" has any depth of names. */
function isOrigin(allowed: string, origin: string): boolean {
  const star = allowed.indexOf("*");
  // Scheme and host have no case (RFC 6454 §4), and browsers write them small.
  const asked = origin.toLowerCase();
  const pattern = allowed.toLowerCase();
  if (star === -1 || pattern === "*") return pattern === "*" || pattern === asked;
  const after = pattern.slice(star + 1);
  return (
    asked.length > pattern.length - 1 && asked.startsWith(pattern.slice(0, star)) && asked.endsWith(after)
  );
}

/** With credentials "*" is no wildcard either: what was asked for is named. */
function listed(values: readonly string[], hasCredentials: boolean, asked: string | null): string {
  if (!values.includes("*")) return values.join(", ");
  return hasCredentials ? (asked ?? "") : "*";
}

const ALLOW_ORIGIN = "access-control-allow-origin";
