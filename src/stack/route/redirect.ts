import type { Fields } from "#/base/fields.ts";
import type { HttpFilter } from "#/model/route.ts";
import type { RequestHead } from "../http/exchange.ts";
import type { Candidate } from "./candidate.ts";
import { hostOf } from "./host.ts";
import { changedPath } from "./path-change.ts";
import { latin1OfUtf8 } from "./text.ts";

export type Redirect = Extract<HttpFilter, { kind: "redirect" }>;

/**
 * Fields of the answer that sends a client elsewhere (HTTPRequestRedirectFilter of Gateway API). Without a port of its own, a
 * redirect that names a scheme goes to that scheme's, and any other to `port`, which the client dialled. A port that the
 * scheme implies is not written.
 */
export function redirectFields(
  filter: Redirect,
  head: RequestHead,
  candidate: Candidate,
  port: number,
): Fields {
  const scheme = filter.scheme ?? head.scheme;
  const implied = PORTS[scheme] ?? 0;
  const to = filter.port ?? (filter.scheme === null ? port : implied || port);
  const host = filter.host === null ? hostOf(head.authority) : latin1OfUtf8(filter.host);
  const path = filter.path === null ? head.path : changedPath(head.path, filter.path, candidate);
  const authority = to === implied ? host : `${host}:${to}`;
  return ["location", `${scheme}://${authority}${path === "*" ? "" : path}`, "content-length", "0"];
}

const PORTS: Readonly<Record<string, number>> = { http: 80, https: 443 };
