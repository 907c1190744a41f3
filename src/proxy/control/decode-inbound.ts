import type { Authorization, InboundPolicy, Protocol } from "#/model/policy.ts";
import { ProtoReader } from "#/wire/proto.ts";
import type { InboundLimits } from "#/model/traffic.ts";
import { decodeIp, decodeLabel, decodeName } from "./decode-endpoint.ts";
import { decodeLimits, decodeStandardLimit } from "./decode-limits.ts";

const PROTOCOLS: Readonly<Record<number, Protocol>> = {
  1: "detect",
  2: "opaque",
  3: "tls",
  4: "http1",
  5: "http2",
  6: "grpc",
};

/** What an `inbound.Server` says, or null when it cannot be followed: what was in force before then stays. */
export function decodeInboundPolicy(bytes: Uint8Array): InboundPolicy | null {
  const reader = new ProtoReader(bytes);
  let protocol: Protocol | undefined;
  let standard: InboundLimits | null = null;
  let own: InboundLimits | null = null;
  const authorizations: Authorization[] = [];
  const labels: Record<string, string> = {};
  while (reader.next()) {
    if (reader.field === 1) {
      const kind = reader.part();
      while (kind.next()) {
        protocol = PROTOCOLS[kind.field] ?? protocol;
        standard = decodeProtocolLimit(kind.part(), kind.field) ?? standard;
      }
    } else if (reader.field === 3) {
      const authorization = decodeAuthorization(reader.message());
      // What cannot be read must not allow anything; leaving it out denies.
      if (authorization !== null) authorizations.push(authorization);
    } else if (reader.field === 4) decodeLabel(reader.message(), labels);
    else if (reader.field === 10_000) own = decodeLimits(reader.part());
  }
  return reader.error !== null || protocol === undefined
    ? null
    : { protocol, labels, authorizations, limits: own ?? standard, access: null, jwt: null };
}

/** Where each kind of protocol has its limit. */
const LIMIT_FIELDS: Readonly<Record<number, number>> = { 1: 4, 4: 3, 5: 3 };

function decodeProtocolLimit(reader: ProtoReader, kind: number): InboundLimits | null {
  let limits: InboundLimits | null = null;
  while (reader.next()) if (reader.field === LIMIT_FIELDS[kind]) limits = decodeStandardLimit(reader.part());
  return limits;
}

/** An authorization without networks is invalid (facts §11.3). */
function decodeAuthorization(reader: ProtoReader): Authorization | null {
  const networks: Authorization["networks"][number][] = [];
  const labels: Record<string, string> = {};
  let authentication: Authorization["authentication"] | null = null;
  while (reader.next()) {
    if (reader.field === 1) {
      const network = decodeNetwork(reader.message());
      if (network !== null) networks.push(network);
    } else if (reader.field === 2) authentication = decodeAuthentication(reader.message());
    else if (reader.field === 3) decodeLabel(reader.message(), labels);
  }
  return reader.error !== null || networks.length === 0 || authentication === null
    ? null
    : { networks, authentication, labels };
}

function decodeNetwork(reader: ProtoReader): Authorization["networks"][number] | null {
  let net: string | null = null;
  const except: string[] = [];
  while (reader.next()) {
    if (reader.field === 1) net = networkText(reader.message());
    else if (reader.field === 2) {
      const one = networkText(reader.message());
      // An exception that cannot be read would let in whom it should keep out.
      if (one === null) return null;
      except.push(one);
    }
  }
  return net === null || reader.error !== null ? null : { net, except };
}

function networkText(reader: ProtoReader): string | null {
  let ip: string | null = null;
  let prefixBits = 0;
  while (reader.next()) {
    if (reader.field === 1) ip = decodeIp(reader.message());
    else if (reader.field === 2) prefixBits = reader.uint();
  }
  return ip === null || reader.error !== null ? null : `${ip}/${prefixBits}`;
}

function decodeAuthentication(reader: ProtoReader): Authorization["authentication"] | null {
  let permit: Authorization["authentication"] | null = null;
  while (reader.next()) {
    if (reader.field === 1) permit = { kind: "unauthenticated" };
    else if (reader.field === 2) permit = decodeMeshTls(reader.message());
  }
  return reader.error === null ? permit : null;
}

function decodeMeshTls(reader: ProtoReader): Authorization["authentication"] | null {
  let clients: Authorization["authentication"] | null = null;
  while (reader.next()) {
    if (reader.field === 1) clients = { kind: "meshed-any" };
    else if (reader.field === 2) clients = decodeClients(reader.message());
  }
  return reader.error === null ? clients : null;
}

function decodeClients(reader: ProtoReader): Authorization["authentication"] | null {
  const identities: string[] = [];
  const suffixes: string[][] = [];
  while (reader.next()) {
    if (reader.field === 1) identities.push(decodeName(reader.message()));
    else if (reader.field === 2) {
      const parts: string[] = [];
      const suffix = reader.message();
      while (suffix.next()) if (suffix.field === 1) parts.push(suffix.text());
      suffixes.push(parts);
    }
  }
  return reader.error === null ? { kind: "meshed", identities, suffixes } : null;
}
