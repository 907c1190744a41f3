import type { AccessPolicy, JwtPolicy } from "#/model/access.ts";
import type { InboundPolicy, Protocol } from "#/model/policy.ts";
import type { InboundLimits } from "#/model/traffic.ts";
import { accessRulesOf } from "#/stack/access/decide.ts";
import { asksForTokens, needsOf } from "#/stack/jwt/port-tokens.ts";
import { ProtoReader } from "#/wire/proto.ts";
import { decodeAccess } from "./decode-access.ts";
import {
  accessOf,
  decodeAuthorization,
  decodeRoute,
  type Authorization,
  type AuthorizedRoute,
} from "./decode-authorizations.ts";
import { decodeLabel } from "./decode-endpoint.ts";
import { decodeJwt } from "./decode-jwt.ts";
import { decodeLimits, decodeStandardLimit } from "./decode-limits.ts";

const PROTOCOLS: Readonly<Record<number, Protocol>> = {
  1: "detect",
  2: "opaque",
  3: "tls",
  4: "http1",
  5: "http2",
  6: "grpc",
};

/** Of a port whose policy has never been one that could be followed (facts §11.2). */
export const UNREADABLE_POLICY: InboundPolicy = {
  protocol: "detect",
  labels: { group: "", kind: "default", name: "unreadable" },
  limits: null,
  access: { routes: [], rules: [] },
  jwt: null,
};

/** What an `inbound.Server` says, or null when it cannot be followed: what was in force before then stays. */
export function decodeInboundPolicy(bytes: Uint8Array): InboundPolicy | null {
  const reader = new ProtoReader(bytes);
  let protocol: Protocol | undefined;
  let standard: InboundLimits | null = null;
  let own: InboundLimits | null = null;
  let access: AccessPolicy | null = null;
  let jwt: JwtPolicy | null = null;
  const authorizations: Authorization[] = [];
  const routes: AuthorizedRoute[] = [];
  const labels: Record<string, string> = {};
  while (reader.next()) {
    if (reader.field === 1) {
      const kind = reader.part();
      while (kind.next()) {
        const known = PROTOCOLS[kind.field];
        if (known === undefined) continue;
        protocol = known;
        standard = decodeProtocol(kind.part(), kind.field, routes) ?? standard;
      }
    } else if (reader.field === 3) {
      const authorization = decodeAuthorization(reader.message());
      // What cannot be read must not allow anything; leaving it out denies.
      if (authorization !== null) authorizations.push(authorization);
    } else if (reader.field === 4) decodeLabel(reader.message(), labels);
    else if (reader.field === 10_000) own = decodeLimits(reader.part());
    else if (reader.field === 10_001) access = decodeAccess(reader.part());
    else if (reader.field === 10_002) jwt = decodeJwt(reader.part());
  }
  if (reader.error !== null || protocol === undefined) return null;
  access ??= accessOf(labels, authorizations, routes);
  // Made ready here, where what cannot be understood can still be declined as a whole.
  if (accessRulesOf(access).problems.length > 0) return null;
  const policy = { protocol, labels, limits: own ?? standard, access, jwt };
  return asksForTokens(policy) && accessRulesOf(needsOf(policy)).problems.length > 0 ? null : policy;
}

/** Where each kind of protocol has its limit and its routes. */
const LIMIT_FIELDS: Readonly<Record<number, number>> = { 1: 4, 4: 3, 5: 3 };
const ROUTE_FIELDS: Readonly<Record<number, number>> = { 1: 3, 4: 2, 5: 2, 6: 2 };
const GRPC_FIELD = 6;

function decodeProtocol(reader: ProtoReader, kind: number, routes: AuthorizedRoute[]): InboundLimits | null {
  let limits: InboundLimits | null = null;
  while (reader.next()) {
    if (reader.field === LIMIT_FIELDS[kind]) limits = decodeStandardLimit(reader.part());
    else if (reader.field === ROUTE_FIELDS[kind]) {
      const route = decodeRoute(reader.part(), kind === GRPC_FIELD);
      if (route !== null) routes.push(route);
    }
  }
  return limits;
}
