import type { X509Certificate } from "node:crypto";
import type { TLSSocket } from "node:tls";
import { parseIdentity, type PeerIdentity } from "#/model/identity.ts";
import { flawOfLeaf, flawOfSigner } from "#/model/svid.ts";
import { readCertificate, type CertificateFacts } from "#/wire/certificate.ts";
import type { SecureRefusal } from "./transport.ts";

export type PeerProof = Proven | Refused;

export interface Proven {
  readonly kind: "proven";
  readonly peer: PeerIdentity;
  /** DNS and URI names in the order of the certificate; DNS names in lower case. */
  readonly names: readonly string[];
  /** Wall-clock end of the first certificate of the chain that ends. */
  readonly endsAtMs: number;
  /** SHA-256 of the root that the chain ends in: with that no longer trusted, this is no proof any more. */
  readonly root: string;
}

interface Refused {
  readonly kind: "refused";
  readonly refusal: SecureRefusal;
  readonly detail: string;
}

/** Roots by trust domain. A chain counts only against the roots of the domain that its leaf names. */
export type TrustBundles = ReadonlyMap<string, readonly X509Certificate[]>;

/**
 * Turns a handshaken socket into a proven identity. Nothing else in Pillion may make a `PeerIdentity`.
 *
 * OpenSSL has verified the chain against all roots that the context knows; `proveChain` checks what it does not. And a
 * resumed session shows no certificate and still says "authorized".
 */
export function provePeer(
  socket: TLSSocket,
  trust: TrustBundles,
  wallMs: number = Date.now(),
  proven: ProvenLeaves | null = null,
): PeerProof {
  if (socket.isSessionReused()) return refused("resumed_session", "a resumed session shows no certificate");
  const leaf = socket.getPeerX509Certificate();
  if (leaf === undefined) return refused("no_client_certificate", "no certificate was shown");
  if (!socket.authorized) {
    const refusal = refusalOf(socket.authorizationError);
    // OpenSSL has one word for whatever a certificate may not be used for.
    const facts = refusal === "bad_certificate" ? readCertificate(leaf.raw) : null;
    const flaw = facts === null ? null : flawOfLeaf(facts);
    if (flaw !== null) return refused(flaw.kind, flaw.detail);
    return refused(refusal, detailOf(refusal, leaf, String(socket.authorizationError ?? "not verified")));
  }
  const known = proven?.find(leaf, wallMs) ?? null;
  if (known !== null) return known;
  const shown = [leaf];
  // As it was shown; a root that was sent along leads to itself.
  for (
    let at = leaf.issuerCertificate;
    at !== undefined && shown.length < SHOWN_MAX && at !== shown.at(-1);
    at = at.issuerCertificate
  )
    shown.push(at);
  const proof = proveChain(shown, trust, wallMs);
  if (proof.kind === "proven") proven?.add(leaf, proof, wallMs);
  return proof;
}

/** Peers that one sidecar has at a time, with some to spare: a kilobyte or two each. */
const PROVEN_MAX = 128;

/**
 * Leaves that were proven against one set of roots: whoever connects again before its certificate is renewed is spared the signatures.
 * A proof holds for whatever was shown beside the leaf, from when it was made until the first certificate of its chain ends. Make a new
 * one when the roots change. Keeps at most `PROVEN_MAX`, then starts anew.
 */
export class ProvenLeaves {
  /** By the leaf's DER, a byte a character. */
  readonly #proofs = new Map<string, { readonly proof: Proven; readonly atMs: number }>();

  find(leaf: X509Certificate, wallMs: number): Proven | null {
    const known = this.#proofs.get(leaf.raw.toString("latin1"));
    // A wall clock that went back, too, may have left the time of a certificate.
    if (known === undefined || wallMs < known.atMs || wallMs > known.proof.endsAtMs) return null;
    return known.proof;
  }

  add(leaf: X509Certificate, proof: Proven, wallMs: number): void {
    if (this.#proofs.size >= PROVEN_MAX) this.#proofs.clear();
    this.#proofs.set(leaf.raw.toString("latin1"), { proof, atMs: wallMs });
  }
}

/**
 * That the leaf is one which a workload may authenticate with and says who that is, once; and that the chain ends in a root of that
 * identity's own trust domain (SPIFFE Federation §4.2: in a merged pool one domain could forge another's identities).
 *
 * `shown`: the leaf, then others in any order, needed or not (RFC 8446 §4.4.2).
 */
export function proveChain(
  shown: readonly X509Certificate[],
  trust: TrustBundles,
  wallMs: number,
): PeerProof {
  const [leaf, ...others] = shown;
  if (leaf === undefined) return refused("no_client_certificate", "no certificate was shown");
  const facts = readCertificate(leaf.raw);
  if (facts === null) return refused("bad_certificate", "the certificate cannot be read");
  const flaw = flawOfLeaf(facts);
  if (flaw !== null) return refused(flaw.kind, flaw.detail);
  const names = namesOf(facts);
  // linkerd2-proxy takes the first SAN as the client's identity; ours carry the DNS form first.
  const name = names[0] ?? "";
  const identity = parseIdentity(name);
  if (identity === null) return refused("unnamed_peer", `${JSON.stringify(name)} is no workload identity`);
  const roots = trust.get(identity.trustDomain);
  if (roots === undefined)
    return refused("foreign_trust_domain", `trust domain ${identity.trustDomain} is not ours`);
  const late = outOfTime(facts, wallMs, "it");
  if (late !== null) return late;
  const path = new Path(roots, wallMs);
  const end = path.from(leaf, facts.notAfterMs, 0, others);
  if (end === null)
    return (
      path.refusal ??
      refused("foreign_trust_domain", `the chain does not end in a root of ${identity.trustDomain}`)
    );
  return { kind: "proven", peer: { identity, name }, names, ...end };
}

/** More than a chain needs in the middle of a rotation, where an issuer has two certificates. */
const SHOWN_MAX = 8;
/** Signatures that are verified for one chain; what is shown beyond proves nothing. */
const STEPS_MAX = 24;

/** Looks for a way from a certificate to a root, through issuers that were shown. */
class Path {
  /** What was wrong with the last issuer that could not be passed. */
  refusal: Refused | null = null;
  readonly #roots: readonly X509Certificate[];
  readonly #wallMs: number;
  #steps = 0;

  constructor(roots: readonly X509Certificate[], wallMs: number) {
    this.#roots = roots;
    this.#wallMs = wallMs;
  }

  /** `below`: signing certificates passed so far. */
  from(
    at: X509Certificate,
    endsAtMs: number,
    below: number,
    shown: readonly X509Certificate[],
  ): { readonly endsAtMs: number; readonly root: string } | null {
    for (const root of this.#roots) {
      if (!root.raw.equals(at.raw) && !this.#isIssuedBy(at, root)) continue;
      const facts = readCertificate(root.raw);
      const late = facts === null ? null : outOfTime(facts, this.#wallMs, "the root");
      if (late !== null) this.refusal = late;
      else return { endsAtMs: Math.min(endsAtMs, facts?.notAfterMs ?? Infinity), root: root.fingerprint256 };
    }
    for (const issuer of shown) {
      if (issuer.subject !== at.issuer || issuer.raw.equals(at.raw)) continue;
      const facts = readCertificate(issuer.raw);
      if (facts === null) continue;
      const flaw = flawOfSigner(facts, below);
      const wrong =
        flaw === null
          ? outOfTime(facts, this.#wallMs, "an issuer in the chain")
          : refused(flaw.kind, flaw.detail);
      if (wrong !== null) this.refusal = wrong;
      else if (this.#isIssuedBy(at, issuer)) {
        const rest = shown.filter((one) => one !== issuer);
        const end = this.from(issuer, Math.min(endsAtMs, facts.notAfterMs), below + 1, rest);
        if (end !== null) return end;
      }
    }
    return null;
  }

  #isIssuedBy(certificate: X509Certificate, issuer: X509Certificate): boolean {
    if (certificate.issuer !== issuer.subject || this.#steps >= STEPS_MAX) return false;
    this.#steps++;
    return certificate.checkIssued(issuer) && certificate.verify(issuer.publicKey);
  }
}

/** DNS and URI names of a certificate, in its order; none of one that cannot be read. DNS names in lower case. */
export function subjectNames(certificate: X509Certificate): string[] {
  const facts = readCertificate(certificate.raw);
  return facts === null ? [] : namesOf(facts);
}

function namesOf(facts: CertificateFacts): string[] {
  return facts.names.map(({ kind, value }) => (kind === "dns" ? value.toLowerCase() : value));
}

/** OpenSSL looks at the times of the chain that it has built, which may lead through other issuers than ours. */
function outOfTime(facts: CertificateFacts, wallMs: number, what: string): Refused | null {
  if (wallMs > facts.notAfterMs)
    return refused("expired", `${what} ended at ${new Date(facts.notAfterMs).toISOString()}`);
  if (wallMs < facts.notBeforeMs)
    return refused("not_yet_valid", `${what} begins at ${new Date(facts.notBeforeMs).toISOString()}`);
  return null;
}

/** OpenSSL's word, with what an operator asks next: whose certificate, and since when. */
function detailOf(refusal: SecureRefusal, leaf: X509Certificate, code: string): string {
  const facts = readCertificate(leaf.raw);
  if (facts === null) return code;
  const who = namesOf(facts)[0] ?? "nobody";
  const when =
    refusal === "expired"
      ? `, ended at ${new Date(facts.notAfterMs).toISOString()}`
      : refusal === "not_yet_valid"
        ? `, begins at ${new Date(facts.notBeforeMs).toISOString()}`
        : "";
  return `${code} (certificate of ${JSON.stringify(who)}${when})`;
}

function refused(refusal: SecureRefusal, detail: string): Refused {
  return { kind: "refused", refusal, detail };
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
  INVALID_PURPOSE: "bad_certificate",
  INVALID_CA: "bad_certificate",
  PATH_LENGTH_EXCEEDED: "bad_certificate",
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
