import type { X509Certificate } from "node:crypto";
import type { TLSSocket } from "node:tls";
import { parseIdentity, type PeerIdentity } from "#/model/identity.ts";
import type { SecureRefusal } from "./transport.ts";

export type PeerProof =
  | { readonly kind: "proven"; readonly peer: PeerIdentity; readonly names: readonly string[] }
  | { readonly kind: "refused"; readonly refusal: SecureRefusal; readonly detail: string };

/** Roots by trust domain. A chain counts only against the roots of the domain that its leaf names. */
export type TrustBundles = ReadonlyMap<string, readonly X509Certificate[]>;

/**
 * Turns a handshaken socket into a proven identity. Nothing else in Pillion may make a `PeerIdentity`.
 *
 * OpenSSL has verified the chain against all roots that the context knows; this checks what it does not: that the
 * session is no resumed one (those show no certificate and still say "authorized"), that the leaf names an identity, and
 * that the chain ends in a root of that identity's own trust domain.
 */
export function provePeer(socket: TLSSocket, trust: TrustBundles): PeerProof {
  if (socket.isSessionReused()) return refused("resumed_session", "a resumed session shows no certificate");
  if (!socket.authorized)
    return refused(refusalOf(socket.authorizationError), String(socket.authorizationError ?? "not verified"));
  const leaf = socket.getPeerX509Certificate();
  if (leaf === undefined) return refused("no_client_certificate", "no certificate was shown");
  const names = subjectNames(leaf.subjectAltName ?? "");
  const first = names[0];
  if (first === undefined) return refused("unnamed_peer", "the certificate names nobody");
  // linkerd2-proxy takes the first SAN as the client's identity; ours carry the DNS form first.
  const identity = parseIdentity(first);
  if (identity === null) return refused("unnamed_peer", `${JSON.stringify(first)} is no workload identity`);
  const roots = trust.get(identity.trustDomain);
  if (roots === undefined)
    return refused("foreign_trust_domain", `trust domain ${identity.trustDomain} is not ours`);
  if (trust.size > 1 && !chainEndsIn(leaf, roots)) {
    return refused("foreign_trust_domain", `the chain does not end in a root of ${identity.trustDomain}`);
  }
  return { kind: "proven", peer: { identity, name: first }, names };
}

function refused(refusal: SecureRefusal, detail: string): PeerProof {
  return { kind: "refused", refusal, detail };
}

/** DNS and URI names in the order of the certificate. Node quotes names with odd characters; those name nobody. */
export function subjectNames(subjectAltName: string): string[] {
  if (subjectAltName.includes('"')) return [];
  const names: string[] = [];
  for (const part of subjectAltName.split(", ")) {
    if (part.startsWith("DNS:")) names.push(part.slice(4).toLowerCase());
    else if (part.startsWith("URI:")) names.push(part.slice(4));
  }
  return names;
}

const CHAIN_LENGTH_MAX = 8;

function chainEndsIn(leaf: X509Certificate, roots: readonly X509Certificate[]): boolean {
  let at: X509Certificate | undefined = leaf;
  for (let depth = 0; at !== undefined && depth < CHAIN_LENGTH_MAX; depth++) {
    const certificate: X509Certificate = at;
    if (
      roots.some(
        (root) =>
          root.raw.equals(certificate.raw) ||
          (certificate.checkIssued(root) && certificate.verify(root.publicKey)),
      )
    )
      return true;
    at = certificate.issuerCertificate;
  }
  return false;
}

/** What OpenSSL's verdict or error code means. */
export function refusalOf(code: unknown): SecureRefusal {
  const text = String(code instanceof Error ? ((code as NodeJS.ErrnoException).code ?? code.message) : code);
  return (
    REFUSALS[text] ??
    (text.startsWith("ERR_SSL")
      ? "handshake_failed"
      : text.includes("CERT")
        ? "bad_certificate"
        : "handshake_failed")
  );
}

const REFUSALS: Readonly<Record<string, SecureRefusal>> = {
  DEPTH_ZERO_SELF_SIGNED_CERT: "self_signed",
  SELF_SIGNED_CERT_IN_CHAIN: "unknown_issuer",
  UNABLE_TO_VERIFY_LEAF_SIGNATURE: "unknown_issuer",
  UNABLE_TO_GET_ISSUER_CERT: "unknown_issuer",
  UNABLE_TO_GET_ISSUER_CERT_LOCALLY: "unknown_issuer",
  CERT_SIGNATURE_FAILURE: "unknown_issuer",
  ERR_TLS_CERT_ALTNAME_INVALID: "wrong_identity",
  CERT_HAS_EXPIRED: "expired",
  CERT_NOT_YET_VALID: "not_yet_valid",
  ERR_SSL_PEER_DID_NOT_RETURN_A_CERTIFICATE: "no_client_certificate",
  ERR_SSL_NO_APPLICATION_PROTOCOL: "foreign_alpn",
  ERR_SSL_UNSUPPORTED_PROTOCOL: "old_tls",
  ERR_SSL_TLSV1_ALERT_PROTOCOL_VERSION: "old_tls",
  ERR_SSL_TLSV1_ALERT_NO_APPLICATION_PROTOCOL: "no_alpn",
  ERR_SSL_TLSV1_ALERT_UNKNOWN_CA: "unknown_issuer",
  ECONNRESET: "peer_closed",
  EPIPE: "peer_closed",
};
