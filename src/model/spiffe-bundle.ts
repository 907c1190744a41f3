import { readCertificate } from "#/wire/certificate.ts";
import { flawOfSigner } from "./svid.ts";

/** The keys that identities of one trust domain are verified with (SPIFFE Trust Domain and Bundle §4). */
export interface SpiffeBundle {
  /** DER of the roots for X.509-SVIDs. None: no certificate of the domain is good. */
  readonly x509Authorities: readonly Uint8Array[];
  /** JWKs (RFC 7517) for JWT-SVIDs, by `kid`. */
  readonly jwtAuthorities: ReadonlyMap<string, Readonly<Record<string, unknown>>>;
  /** Rises with each change of the bundle; null where it is not told. */
  readonly sequence: number | null;
  /** How often a consumer should ask again; null where it is not told. */
  readonly refreshHintMs: number | null;
}

export type BundleRead =
  | { readonly kind: "bundle"; readonly bundle: SpiffeBundle }
  | { readonly kind: "refused"; readonly reason: string };

/** More keys than any domain in the middle of a rotation has. */
const KEYS_MAX = 256;
const TEXT_CHARS_MAX = 4 * 1024 * 1024;

/**
 * Reads a bundle: a JWK Set with SPIFFE's own members. As §4.2 has it, keys of a `use` or `kty` that is not known are passed over, an
 * empty `keys` revokes everything, and anything that is there and wrong refuses the whole: half a bundle would lock out half a mesh.
 */
export function readSpiffeBundle(text: string): BundleRead {
  if (text.length > TEXT_CHARS_MAX) return refused(`it is longer than ${TEXT_CHARS_MAX} characters`);
  let json: unknown;
  try {
    json = JSON.parse(text);
  } catch {
    return refused("it is no JSON");
  }
  if (!isObject(json)) return refused("it is no JSON object");
  const { keys, spiffe_sequence: sequence = null, spiffe_refresh_hint: hint = null } = json;
  if (!Array.isArray(keys)) return refused("it has no list `keys`");
  if (keys.length > KEYS_MAX) return refused(`it has more than ${KEYS_MAX} keys`);
  if (sequence !== null && !isCount(sequence)) return refused("spiffe_sequence is no whole number");
  if (hint !== null && !isCount(hint)) return refused("spiffe_refresh_hint is no whole number of seconds");
  const x509Authorities: Uint8Array[] = [];
  const jwtAuthorities = new Map<string, Readonly<Record<string, unknown>>>();
  for (const [i, key] of (keys as unknown[]).entries()) {
    const where = `key ${i + 1}`;
    if (!isObject(key)) return refused(`${where} is no JSON object`);
    if (!KEY_TYPES.has(String(key["kty"]))) continue;
    if (key["use"] === "x509-svid") {
      const der = readX5c(key["x5c"]);
      if (typeof der === "string") return refused(`${where}: ${der}`);
      x509Authorities.push(der);
    } else if (key["use"] === "jwt-svid") {
      const { kid } = key;
      if (typeof kid !== "string" || kid === "") return refused(`${where} of use jwt-svid has no kid`);
      if (jwtAuthorities.has(kid))
        return refused(`two keys of use jwt-svid have the kid ${JSON.stringify(kid)}`);
      if ("d" in key || "k" in key) return refused(`${where} is a private key`);
      jwtAuthorities.set(kid, key);
    }
  }
  const refreshHintMs = hint === null ? null : hint * 1000;
  return { kind: "bundle", bundle: { x509Authorities, jwtAuthorities, sequence, refreshHintMs } };
}

const KEY_TYPES: ReadonlySet<string> = new Set(["EC", "RSA", "OKP"]);

/** §4.2.2: exactly one certificate, in base64 (RFC 7517 §4.7: not base64url). Its DER, or what is wrong. */
function readX5c(x5c: unknown): Uint8Array | string {
  if (!Array.isArray(x5c) || x5c.length !== 1) return "x5c holds not exactly one certificate";
  const [text] = x5c as unknown[];
  if (typeof text !== "string" || !/^[A-Za-z0-9+/]+={0,2}$/.test(text)) return "x5c is no base64";
  const der = Uint8Array.from(Buffer.from(text, "base64"));
  const facts = readCertificate(der);
  if (facts === null) return "x5c is no certificate";
  const flaw = flawOfSigner(facts, 0);
  return flaw === null ? der : "x5c is no certificate that may sign others";
}

function refused(reason: string): BundleRead {
  return { kind: "refused", reason };
}

function isObject(value: unknown): value is Record<string, unknown> {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

function isCount(value: unknown): value is number {
  return typeof value === "number" && Number.isSafeInteger(value) && value >= 0;
}
