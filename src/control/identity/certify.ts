import { Pkcs10CertificateRequest, SubjectAlternativeNameExtension } from "./x509.ts";
import type { PublicKey } from "./x509.ts";
import type { Identity } from "#/model/identity.ts";
import { dnsName, parseIdentity, sameIdentity, spiffeUri } from "#/model/identity.ts";
import type { Authority, Leaf, SanForm } from "./authority.ts";
import type { Tokens } from "./tokens.ts";

/** Who calls, by the certificate of its TLS connection; null without one. */
export interface Caller {
  readonly identity: Identity;
  /** Which SANs its present certificate has: a renewal keeps them. */
  readonly form: SanForm;
}

export interface CertifyInput {
  readonly identity: string;
  readonly token: Uint8Array;
  readonly csr: Uint8Array;
  readonly caller: Caller | null;
  /** Which SANs a token's certificate gets, where that is not as the token's grant says. */
  readonly form?: SanForm;
  /** Whether any pod still runs as this identity: a certificate outlives its pod by at most its own life. */
  readonly inUse: (identity: Identity) => boolean;
  /** Whether the operator has taken this identity out of use. */
  readonly isRevoked?: (identity: Identity) => boolean;
}

export type CertifyRefusal = {
  readonly kind: "refused";
  readonly code: "invalid-argument" | "unauthenticated" | "permission-denied" | "failed-precondition";
  readonly reason: string;
};
export type CertifyAnswer =
  | { readonly kind: "issued"; readonly leaf: Leaf; readonly podUid: string | null }
  | CertifyRefusal;

const CSR_BYTES_MAX = 8 * 1024;
const TOKEN_BYTES_MAX = 8 * 1024;

/**
 * One Certify call: a certificate for whom the token was given to, or, without a token, a new one for the caller's own
 * identity. The request is read before the token is used up, so that a malformed one can be corrected and repeated.
 */
export async function certify(
  authority: Authority,
  tokens: Tokens,
  input: CertifyInput,
): Promise<CertifyAnswer> {
  const identity = parseIdentity(input.identity);
  if (identity === null || dnsName(identity) !== input.identity)
    return invalid(`${JSON.stringify(input.identity.slice(0, 300))} is no identity of this mesh`);
  if (identity.trustDomain !== authority.trustDomain)
    return invalid(`the trust domain is ${authority.trustDomain}, not ${identity.trustDomain}`);
  if (input.isRevoked?.(identity) === true)
    return {
      kind: "refused",
      code: "permission-denied",
      reason: `${spiffeUri(identity)} was revoked; an operator may undo that: pillion identity revoke ${spiffeUri(identity)} --undo`,
    };
  // Before the token is used up, so that the same one is good after the repair.
  if (!authority.canSign)
    return { kind: "refused", code: "failed-precondition", reason: authority.problems().join("; ") };
  const request = await checkRequest(input.csr, identity);
  if (request.kind === "refused") return request;

  if (input.token.length === 0) {
    if (input.caller === null)
      return {
        kind: "refused",
        code: "unauthenticated",
        reason: "neither a token nor a certificate of this mesh was shown",
      };
    if (!sameIdentity(input.caller.identity, identity))
      return {
        kind: "refused",
        code: "permission-denied",
        reason: "a certificate can only be renewed for its own identity",
      };
    if (!input.inUse(identity))
      return { kind: "refused", code: "permission-denied", reason: "no pod runs as this identity any more" };
    return {
      kind: "issued",
      leaf: await authority.issue(identity, request.publicKey, input.caller.form),
      podUid: null,
    };
  }
  if (input.token.length > TOKEN_BYTES_MAX) return invalid("the token is too long");
  const verdict = tokens.redeem(
    Buffer.from(input.token).toString("utf8").trim(),
    input.identity,
    new Uint8Array(request.publicKey.rawData),
    dnsName,
  );
  if (verdict.kind === "refused") return { kind: "refused", code: "unauthenticated", reason: verdict.reason };
  return {
    kind: "issued",
    leaf: await authority.issue(identity, request.publicKey, input.form ?? verdict.grant.form),
    podUid: verdict.grant.podUid,
  };
}

/** The request's own signature proves that whoever asks holds the key; its names must be exactly those that are asked for. */
async function checkRequest(
  der: Uint8Array,
  identity: Identity,
): Promise<{ kind: "ok"; publicKey: PublicKey } | CertifyRefusal> {
  if (der.length === 0 || der.length > CSR_BYTES_MAX)
    return invalid("the certificate signing request is empty or too long");
  let csr: Pkcs10CertificateRequest;
  try {
    csr = new Pkcs10CertificateRequest(Buffer.from(der));
  } catch {
    return invalid("the certificate signing request is no PKCS#10 in DER");
  }
  try {
    const algorithm = csr.publicKey.algorithm as { name: string; namedCurve?: string };
    if (algorithm.name !== "ECDSA" || algorithm.namedCurve !== "P-256")
      return invalid("the key must be ECDSA on P-256");
    if (!(await csr.verify())) return invalid("the certificate signing request's signature does not verify");
    const extensions = csr.extensions.filter((extension) => extension.type === "2.5.29.17");
    if (extensions.length !== 1)
      return invalid("the certificate signing request must hold one subject alternative name extension");
    const names = new SubjectAlternativeNameExtension(extensions[0]!.rawData).names.items;
    const dns = names.filter((name) => name.type === "dns");
    const uris = names.filter((name) => name.type === "url");
    if (dns.length !== 1 || dns[0]!.value !== dnsName(identity))
      return invalid("the request must name exactly the identity that is asked for, as its one DNS name");
    if (uris.length > 1 || (uris.length === 1 && uris[0]!.value !== spiffeUri(identity)))
      return invalid("the request's URI is not this identity's SPIFFE ID");
    if (dns.length + uris.length !== names.length)
      return invalid("the request holds names other than the identity's");
    const common = csr.subjectName.getField("CN");
    if (common.length > 1 || (common.length === 1 && common[0] !== "" && common[0] !== dnsName(identity)))
      return invalid("the request's common name is not the identity that is asked for");
    return { kind: "ok", publicKey: csr.publicKey };
  } catch {
    return invalid("the certificate signing request cannot be read");
  }
}

function invalid(reason: string): CertifyRefusal {
  return { kind: "refused", code: "invalid-argument", reason };
}
