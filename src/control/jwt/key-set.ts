/** An issuer has a handful of keys; each sidecar that needs them holds all. */
export const JWKS_BYTES_MAX = 65_536;
const KEYS_MAX = 64;

/**
 * Reads a JWKS (RFC 7517 §5) and says it again with nothing but public, asymmetric keys for signatures: what a sidecar is sent holds no
 * secret, even where somebody published one. Keys of kinds that are not known are left out (§5: they are to be ignored).
 */
export function readKeySet(text: string): { readonly jwks: string } | { readonly problem: string } {
  if (text.length > JWKS_BYTES_MAX) return { problem: `it has more than ${JWKS_BYTES_MAX} bytes` };
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch {
    return { problem: "it is no JSON" };
  }
  const keys = isObject(value) ? value["keys"] : undefined;
  if (!Array.isArray(keys)) return { problem: 'it is no JWKS: an object with a list "keys" (RFC 7517 §5)' };
  if (keys.length > KEYS_MAX) return { problem: `it has more than ${KEYS_MAX} keys` };
  const usable = keys.flatMap((key: unknown) => {
    const read = isObject(key) ? publicPart(key) : null;
    return read === null ? [] : [read];
  });
  if (usable.length === 0)
    return { problem: "it has no public key for signatures (RSA, EC or OKP); symmetric keys are not taken" };
  return { jwks: JSON.stringify({ keys: usable }) };
}

/** RFC 7518 §6, RFC 8037 §2. */
const PARTS: Readonly<Record<string, readonly string[]>> = {
  RSA: ["n", "e"],
  EC: ["crv", "x", "y"],
  OKP: ["crv", "x"],
};

function publicPart(key: Record<string, unknown>): Record<string, unknown> | null {
  const { kty, use, key_ops: operations } = key;
  const parts = typeof kty === "string" && Object.hasOwn(PARTS, kty) ? PARTS[kty] : undefined;
  if (parts === undefined || parts.some((part) => typeof key[part] !== "string")) return null;
  if (use !== undefined && use !== "sig") return null;
  // What a private key may do is said of it as "sign".
  if (operations !== undefined && !(Array.isArray(operations) && operations.includes("verify"))) return null;
  const out: Record<string, unknown> = { kty };
  for (const part of parts) out[part] = key[part];
  for (const part of ["kid", "alg"]) if (typeof key[part] === "string") out[part] = key[part];
  return out;
}

function isObject(value: unknown): value is Record<string, unknown> {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}
