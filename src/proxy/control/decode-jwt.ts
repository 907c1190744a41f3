import type { JwtIssuer, JwtPolicy, RequestCondition } from "#/model/access.ts";
import type { ProtoReader } from "#/wire/proto.ts";
import { decodeRequests } from "./decode-access.ts";
import { decodeDurationMs, decodeSource, NO_SOURCE } from "./decode-common.ts";

/** `pillion.access.JwtPolicy`. As of access: what is not known might ask for more, so the policy cannot be followed. */
export function decodeJwt(reader: ProtoReader): JwtPolicy {
  let source = NO_SOURCE;
  const issuers: JwtIssuer[] = [];
  let required: readonly RequestCondition[] | null = null;
  while (reader.next()) {
    if (reader.field === 1) source = decodeSource(reader.part());
    else if (reader.field === 2) issuers.push(decodeIssuer(reader.part()));
    else if (reader.field === 3) required = decodeRequests(reader.part());
    else reader.reject(`field ${reader.field} of a policy on tokens is not known`);
  }
  if (issuers.length === 0) reader.reject("a policy on tokens without issuers");
  return { source, issuers, required };
}

function decodeIssuer(reader: ProtoReader): JwtIssuer {
  let issuer = "";
  const audiences: string[] = [];
  let jwks = "";
  let leewayMs = 0;
  const headers: string[] = [];
  let forwards = false;
  const claimHeaders: { claim: string; header: string }[] = [];
  while (reader.next()) {
    if (reader.field === 1) issuer = reader.text();
    else if (reader.field === 2) audiences.push(reader.text());
    else if (reader.field === 3) jwks = reader.text();
    else if (reader.field === 4) leewayMs = decodeDurationMs(reader.part());
    else if (reader.field === 5) headers.push(reader.text());
    else if (reader.field === 6) forwards = reader.flag();
    else if (reader.field === 7) claimHeaders.push(decodeClaimHeader(reader.part()));
    else reader.reject(`field ${reader.field} of an issuer is not known`);
  }
  if (headers.length === 0) reader.reject("an issuer whose tokens are looked for nowhere");
  return { issuer, audiences, jwks, leewayMs, headers, forwards, claimHeaders };
}

function decodeClaimHeader(reader: ProtoReader): { claim: string; header: string } {
  let claim = "";
  let header = "";
  while (reader.next()) {
    if (reader.field === 1) claim = reader.text();
    else if (reader.field === 2) header = reader.text();
    else reader.reject(`field ${reader.field} of a claim's header is not known`);
  }
  return { claim, header };
}
