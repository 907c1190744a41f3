import type { CryptoKey, JWTPayload, JWTVerifyGetKey } from "jose";
import * as errors from "jose/errors";
import { createLocalJWKSet } from "jose/jwks/local";
import { jwtVerify } from "jose/jwt/verify";
import type { Claims, JwtIssuer, JwtPolicy } from "#/model/access.ts";
import type { TokenCheck, TokenRefusal, TokenVerdict } from "#/stack/jwt/token-verifier.ts";

/**
 * RFC 8725 §3.1, §3.2: a closed list, whatever a token or a key says of itself. No `none`; no HMAC, whose key would be the issuer's public
 * one.
 */
const ALGORITHMS = [
  "RS256",
  "RS384",
  "RS512",
  "PS256",
  "PS384",
  "PS512",
  "ES256",
  "ES384",
  "ES512",
  "EdDSA",
  "Ed25519",
];

/** RFC 8725 §3.11: a token of another purpose (`dpop+jwt`, `logout+jwt`, …) is signed by the same keys. */
const TYPES = new Set(["jwt", "at+jwt"]);

/** Keys that are tried for a token that names none of them. */
const KEYS_MAX = 16;

interface Issuer {
  readonly issuer: JwtIssuer;
  jwks: string;
  /** Null: none could be had yet. */
  keys: JWTVerifyGetKey | null;
}

/** Asks for an issuer's keys again; null where no other can be had now. Bounded in how often by whoever gives it. */
export type RefreshKeys = (issuer: string) => Promise<string | null>;

/**
 * Verifies tokens by the keys of their issuers and nothing else: what a token's header says of keys (`jwk`, `jku`, `x5c`, `x5u`) is not
 * looked at, and its `kid` is compared and never looked up anywhere.
 */
export function tokenCheck(
  { issuers }: JwtPolicy,
  wallMs: () => number,
  refresh: RefreshKeys = async () => await Promise.resolve(null),
): TokenCheck {
  const byName = new Map<string, Issuer>(
    issuers.map((issuer) => [issuer.issuer, { issuer, jwks: issuer.jwks, keys: keysOf(issuer.jwks) }]),
  );
  return async (token) => {
    const head = partOf(token, 0);
    const body = partOf(token, 1);
    if (head === null || body === null)
      return refused("malformed", "its head and body are not JSON objects in base64url");
    const { alg, crit, typ, kid } = head;
    if (typeof alg !== "string" || !ALGORITHMS.includes(alg))
      return refused("algorithm", `alg must be one of ${ALGORITHMS.join(", ")}`);
    if (typ !== undefined && (typeof typ !== "string" || !TYPES.has(typeOf(typ))))
      return refused("malformed", "typ is of a token for something else");
    // RFC 7515 §4.1.11: no extension is known here, and RFC 7797 §7 forbids the common one, `b64`, to JWTs.
    if (crit !== undefined) return refused("malformed", "crit asks for what is not supported");
    if (kid !== undefined && typeof kid !== "string") return refused("malformed", "kid is no string");
    const { iss } = body;
    const known = typeof iss === "string" ? byName.get(iss) : undefined;
    if (known === undefined)
      return refused("issuer", `its issuer, ${shown(iss)}, is none of ${[...byName.keys()].join(", ")}`);
    const tried = known.jwks;
    const verdict = await verify(token, known, kid, wallMs());
    // An issuer may sign with a new key before its set was asked for again.
    if (verdict.kind !== "refused" || (verdict.reason !== "key" && known.keys !== null)) return verdict;
    const jwks = await refresh(known.issuer.issuer);
    if (jwks !== null && jwks !== known.jwks) {
      known.jwks = jwks;
      known.keys = keysOf(jwks);
    }
    return known.jwks === tried ? verdict : await verify(token, known, kid, wallMs());
  };
}

async function verify(
  token: string,
  { issuer, keys }: Issuer,
  kid: string | undefined,
  nowMs: number,
): Promise<TokenVerdict> {
  if (keys === null)
    return refused(
      "issuer",
      `the keys of ${issuer.issuer} could not be had yet; the status of its policy says why`,
    );
  const options = {
    algorithms: ALGORITHMS,
    issuer: issuer.issuer,
    ...(issuer.audiences.length === 0 ? {} : { audience: [...issuer.audiences] }),
    clockTolerance: issuer.leewayMs / 1000,
    currentDate: new Date(nowMs),
    // Without an end it would be remembered for good, and could never be taken back.
    requiredClaims: ["exp"],
  };
  try {
    const { payload } = await jwtVerify(token, keys, options);
    return verified(issuer, payload);
  } catch (error) {
    if (!(error instanceof errors.JWKSMultipleMatchingKeys)) return refusalOf(error, issuer, kid);
    let tried = 0;
    let last: TokenVerdict = refused("key", `it names none of the keys of ${issuer.issuer}`);
    for await (const key of error as AsyncIterable<CryptoKey>) {
      if (tried++ === KEYS_MAX) break;
      try {
        const { payload } = await jwtVerify(token, key, options);
        return verified(issuer, payload);
      } catch (cause) {
        last = refusalOf(cause, issuer, kid);
        // Another key would say the same of its claims.
        if (!(cause instanceof errors.JWSSignatureVerificationFailed)) break;
      }
    }
    return last;
  }
}

function verified(issuer: JwtIssuer, payload: JWTPayload): TokenVerdict {
  const claims: Claims = payload;
  return {
    kind: "verified",
    token: { issuer, claims, untilMs: (payload.exp as number) * 1000 + issuer.leewayMs },
  };
}

/** jose's errors hold the payload, so none is handed on. */
function refusalOf(error: unknown, { issuer, leewayMs }: JwtIssuer, kid: string | undefined): TokenVerdict {
  const leeway = `${leewayMs / 1000} s of leeway`;
  if (error instanceof errors.JWTExpired) return refused("expired", `it has expired, also with ${leeway}`);
  if (error instanceof errors.JWTClaimValidationFailed) {
    if (error.claim === "aud") return refused("audience", "its aud is none that is asked for here");
    if (error.claim === "nbf") return refused("not_yet", `its nbf is in the future, also with ${leeway}`);
    return refused("claims", `its claim ${error.claim} is missing or not valid`);
  }
  if (error instanceof errors.JWKSNoMatchingKey)
    return refused(
      "key",
      kid === undefined
        ? `${issuer} has no key for its algorithm`
        : `${issuer} has no key called ${shown(kid)} for its algorithm`,
    );
  if (error instanceof errors.JWSSignatureVerificationFailed)
    return refused("signature", "its signature does not hold");
  if (error instanceof errors.JWTInvalid || error instanceof errors.JWSInvalid)
    return refused("malformed", "it is not a signed JSON Web Token");
  if (error instanceof errors.JOSENotSupported)
    return refused("malformed", "its head asks for what is not supported");
  // A key of the set that cannot be used: RSA below 2,048 bits, a point off the curve.
  return refused(
    "key",
    `the key that it names cannot be used; whoever runs ${issuer} has to mend its key set`,
  );
}

function refused(reason: TokenRefusal, detail: string): TokenVerdict {
  return { kind: "refused", reason, detail: `the token is refused: ${detail}` };
}

/** What a token says of itself may be said back, within bounds. */
function shown(value: unknown): string {
  return typeof value === "string" ? JSON.stringify(value.slice(0, 128)) : "none";
}

/** RFC 7515 §4.1.9: `application/` may be left out; media types have no case. */
function typeOf(typ: string): string {
  return typ.toLowerCase().replace(/^application\//, "");
}

function keysOf(jwks: string): JWTVerifyGetKey | null {
  if (jwks === "") return null;
  try {
    return createLocalJWKSet(JSON.parse(jwks));
  } catch {
    // The control plane has looked at it; who else wrote it gets no token through.
    return null;
  }
}

function partOf(token: string, index: number): Record<string, unknown> | null {
  try {
    const text = new TextDecoder("utf-8", { fatal: true }).decode(
      Buffer.from(token.split(".")[index] ?? "", "base64url"),
    );
    const value: unknown = JSON.parse(text);
    return typeof value === "object" && value !== null && !Array.isArray(value)
      ? (value as Record<string, unknown>)
      : null;
  } catch {
    return null;
  }
}
