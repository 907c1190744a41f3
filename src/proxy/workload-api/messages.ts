import { ProtoReader, ProtoWriter } from "#/wire/proto.ts";

/** Messages of the SPIFFE Workload API, written and read by field number. Null: the bytes are no such message. */

export interface X509Svid {
  readonly spiffeId: string;
  /** DER of the leaf, then of its issuers, one after the other. */
  readonly chain: Uint8Array;
  /** DER of PKCS#8. */
  readonly key: Uint8Array;
}

/** Roots by trust domain, DER of each. */
export type X509Bundles = ReadonlyMap<string, readonly Uint8Array[]>;

/** `X509SVIDResponse`: bundles of other trust domains than `trustDomain` are federated ones. */
export function encodeX509Svid(svid: X509Svid, trustDomain: string, bundles: X509Bundles): Uint8Array {
  const response = new ProtoWriter().message(
    1,
    new ProtoWriter()
      .text(1, svid.spiffeId)
      .bytes(2, svid.chain)
      .bytes(3, svid.key)
      .bytes(4, joined(bundles.get(trustDomain) ?? [])),
  );
  for (const [domain, roots] of bundles)
    if (domain !== trustDomain) response.message(3, entry(domain, joined(roots)));
  return response.finish();
}

/** `X509BundlesResponse`. */
export function encodeX509Bundles(bundles: X509Bundles): Uint8Array {
  const response = new ProtoWriter();
  for (const [domain, roots] of bundles) response.message(2, entry(domain, joined(roots)));
  return response.finish();
}

/** `JWTBundlesResponse`, of key sets by trust domain. */
export function encodeJwtBundles(keySets: ReadonlyMap<string, string>): Uint8Array {
  const response = new ProtoWriter();
  for (const [domain, keySet] of keySets) response.message(1, entry(domain, Buffer.from(keySet)));
  return response.finish();
}

/** `JWTSVIDRequest`. */
export function decodeJwtSvidRequest(
  bytes: Uint8Array,
): { readonly audience: readonly string[]; readonly spiffeId: string } | null {
  const reader = new ProtoReader(bytes);
  const audience: string[] = [];
  let spiffeId = "";
  while (reader.next()) {
    if (reader.field === 1) audience.push(reader.text());
    else if (reader.field === 2) spiffeId = reader.text();
  }
  return reader.error === null ? { audience, spiffeId } : null;
}

/** `JWTSVIDResponse` with one token. */
export function encodeJwtSvid(spiffeId: string, token: string): Uint8Array {
  return new ProtoWriter().message(1, new ProtoWriter().text(1, spiffeId).text(2, token)).finish();
}

/** `ValidateJWTSVIDRequest`. */
export function decodeValidateRequest(
  bytes: Uint8Array,
): { readonly audience: string; readonly token: string } | null {
  const reader = new ProtoReader(bytes);
  let audience = "";
  let token = "";
  while (reader.next()) {
    if (reader.field === 1) audience = reader.text();
    else if (reader.field === 2) token = reader.text();
  }
  return reader.error === null ? { audience, token } : null;
}

/** `ValidateJWTSVIDResponse`. */
export function encodeValidated(spiffeId: string, claims: Readonly<Record<string, unknown>>): Uint8Array {
  return new ProtoWriter().text(1, spiffeId).message(2, struct(claims)).finish();
}

/** An entry of a map from the SPIFFE ID of a trust domain to bytes. */
function entry(trustDomain: string, value: Uint8Array): ProtoWriter {
  return new ProtoWriter().text(1, `spiffe://${trustDomain}`).bytes(2, value);
}

function joined(ders: readonly Uint8Array[]): Uint8Array {
  return Buffer.concat(ders);
}

/** Claims nest little; what lies deeper is left out. */
const DEPTH_MAX = 16;

/** `google.protobuf.Struct` of what JSON can say. */
function struct(object: Readonly<Record<string, unknown>>, depth = 0): ProtoWriter {
  const fields = new ProtoWriter();
  for (const [name, member] of Object.entries(object))
    fields.message(1, new ProtoWriter().text(1, name).message(2, value(member, depth + 1)));
  return fields;
}

/** `google.protobuf.Value`: which member of its oneof is there says what it is, so also defaults are written. */
function value(json: unknown, depth: number): ProtoWriter {
  const writer = new ProtoWriter();
  if (typeof json === "number") return writer.double(2, json);
  if (typeof json === "string") return writer.member(3, json);
  if (typeof json === "boolean") return writer.flag(4, json);
  if (Array.isArray(json) && depth < DEPTH_MAX) {
    const list = new ProtoWriter();
    for (const each of json as unknown[]) list.message(1, value(each, depth + 1));
    return writer.message(6, list);
  }
  if (typeof json === "object" && json !== null && !Array.isArray(json) && depth < DEPTH_MAX)
    return writer.message(5, struct(json as Record<string, unknown>, depth));
  // NULL_VALUE is 0, as false is.
  return writer.flag(1, false);
}
