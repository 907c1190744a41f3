import { KeyUsage, type CertificateFacts } from "#/wire/certificate.ts";
import { parseIdentity, parseSpiffeId, sameIdentity } from "./identity.ts";

/** Why a certificate of a chain cannot be what it stands there for. */
export interface CertificateFlaw {
  readonly kind: "signing_certificate" | "bad_certificate" | "unnamed_peer" | "ambiguous_name";
  readonly detail: string;
}

const SERVER_AUTH = "1.3.6.1.5.5.7.3.1";
const CLIENT_AUTH = "1.3.6.1.5.5.7.3.2";

/**
 * What X.509-SVID §5.2 has a verifier look at in the certificate that a peer authenticates with. One without a URI is Linkerd's, whose
 * identity is a DNS name: the same holds for it, except that it may leave keyUsage out (RFC 5280 §4.2.1.3: then nothing is forbidden).
 */
export function flawOfLeaf(facts: CertificateFacts): CertificateFlaw | null {
  if (facts.isAuthority) return flaw("signing_certificate", "it is a CA's, which proves nobody (cA)");
  const usage = facts.keyUsage;
  if (usage !== null) {
    if ((usage & KeyUsage.KEY_CERT_SIGN) !== 0)
      return flaw("signing_certificate", "it may sign certificates (keyCertSign)");
    if ((usage & KeyUsage.CRL_SIGN) !== 0)
      return flaw("signing_certificate", "it may sign revocations (cRLSign)");
    if ((usage & KeyUsage.DIGITAL_SIGNATURE) === 0)
      return flaw("bad_certificate", "its key may not sign a handshake (no digitalSignature)");
  }
  const kinds = facts.extendedKeyUsage;
  if (kinds !== null && !(kinds.includes(SERVER_AUTH) && kinds.includes(CLIENT_AUTH)))
    return flaw("bad_certificate", "extendedKeyUsage lacks serverAuth or clientAuth");
  return flawOfNames(facts);
}

function flawOfNames(facts: CertificateFacts): CertificateFlaw | null {
  const uris = facts.names.filter(({ kind }) => kind === "uri").map(({ value }) => value);
  const dns = facts.names.filter(({ kind }) => kind === "dns").map(({ value }) => value);
  const uri = uris[0];
  const name = dns[0];
  if (uris.length > 1) return flaw("ambiguous_name", `it has ${uris.length} URIs, where one is allowed`);
  if (dns.length > 1) return flaw("ambiguous_name", `it has ${dns.length} DNS names, where one is allowed`);
  if (uri === undefined)
    return name === undefined ? flaw("unnamed_peer", "the certificate names nobody") : null;
  const id = parseSpiffeId(uri);
  if (id === null) return flaw("unnamed_peer", `${JSON.stringify(uri)} is no SPIFFE ID`);
  if (id.path === "") return flaw("unnamed_peer", `${uri} is a trust domain's ID, and no workload's`);
  if (facts.keyUsage === null || !facts.isKeyUsageCritical)
    return flaw("bad_certificate", "keyUsage is missing or not critical");
  if (name === undefined) return null;
  const byUri = parseIdentity(uri);
  const byName = parseIdentity(name.toLowerCase());
  if (byUri === null || byName === null || !sameIdentity(byUri, byName))
    return flaw("ambiguous_name", `${JSON.stringify(name)} and ${uri} are not the same workload`);
  return null;
}

/** What a certificate lacks to have issued the one below it. `below`: how many signing certificates stand between it and the leaf. */
export function flawOfSigner(facts: CertificateFacts, below: number): CertificateFlaw | null {
  if (!facts.isAuthority) return flaw("bad_certificate", "an issuer in the chain is no CA (cA)");
  if (facts.keyUsage === null || (facts.keyUsage & KeyUsage.KEY_CERT_SIGN) === 0)
    return flaw("bad_certificate", "an issuer in the chain may not sign certificates (no keyCertSign)");
  if (facts.pathLength !== null && below > facts.pathLength)
    return flaw("bad_certificate", "the chain is longer than an issuer in it allows (pathLen)");
  for (const { kind, value } of facts.names) {
    // X.509-SVID §3.1: a signing certificate's ID has no path, so that it can never pass for a workload's.
    if (kind === "uri" && (parseSpiffeId(value)?.path ?? "") !== "")
      return flaw("bad_certificate", `an issuer in the chain has a workload's ID, ${value}`);
  }
  return null;
}

function flaw(kind: CertificateFlaw["kind"], detail: string): CertificateFlaw {
  return { kind, detail };
}
