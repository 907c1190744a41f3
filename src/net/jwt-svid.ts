import {
  createLocalJWKSet,
  decodeJwt,
  decodeProtectedHeader,
  errors,
  jwtVerify,
  type JSONWebKeySet,
} from "jose";

/** A JWT-SVID that holds, or why it does not, in words for whoever showed it. */
export type JwtSvidVerdict =
  | { readonly kind: "valid"; readonly spiffeId: string; readonly claims: Readonly<Record<string, unknown>> }
  | { readonly kind: "refused"; readonly reason: string };

/** JWT-SVID §2.1: signatures by key pairs only, never `none` or a shared secret. */
const ALGORITHMS = ["RS256", "RS384", "RS512", "ES256", "ES384", "ES512", "PS256", "PS384", "PS512"];
/** How far clocks may differ. */
const LEEWAY_SECONDS = 60;
/** JWT-SVID §2.3: the header's type may be absent. */
const TYPES: readonly unknown[] = [undefined, "JWT", "JOSE"];

/**
 * Verifies a token for one audience (JWT-SVID §4). It must be signed by a key of the trust domain that its subject names, and of no
 * other: `keySets` has the key set (JWKS as JSON) of each trust domain that is known.
 */
export async function verifyJwtSvid(
  token: string,
  audience: string,
  keySets: ReadonlyMap<string, string>,
  nowMs: number,
): Promise<JwtSvidVerdict> {
  let subject: unknown;
  let header;
  try {
    header = decodeProtectedHeader(token);
    subject = decodeJwt(token).sub;
  } catch {
    return refused("the token is no JWT in compact form");
  }
  const trustDomain = typeof subject === "string" ? trustDomainOf(subject) : null;
  if (trustDomain === null) return refused("the token's subject is no SPIFFE ID of a workload");
  if (!TYPES.includes(header.typ)) return refused("the token's type is neither JWT nor JOSE");
  if (header.kid === undefined || header.kid === "") return refused("the token does not name its key (kid)");
  const keySet = keySets.get(trustDomain);
  if (keySet === undefined) return refused(`no keys are known of the trust domain ${trustDomain}`);
  try {
    const keys = createLocalJWKSet(keysForTokens(JSON.parse(keySet) as JSONWebKeySet));
    const { payload } = await jwtVerify(token, keys, {
      algorithms: ALGORITHMS,
      audience,
      requiredClaims: ["sub", "aud", "exp"],
      clockTolerance: LEEWAY_SECONDS,
      currentDate: new Date(nowMs),
    });
    return { kind: "valid", spiffeId: payload.sub as string, claims: payload };
  } catch (error) {
    return refused(reasonOf(error, audience));
  }
}

/** Only keys whose use is `jwt-svid` (JWT-SVID §6.2), and without saying so: libraries for the web know no such use. */
function keysForTokens({ keys }: JSONWebKeySet): JSONWebKeySet {
  const fit = keys.filter(({ use }) => use === "jwt-svid").map((key) => ({ ...key }));
  for (const key of fit) delete key.use;
  return { keys: fit };
}

/** SPIFFE-ID §2: lower-case trust domain, a path that is not empty and has no empty, `.` or `..` segment. */
function trustDomainOf(spiffeId: string): string | null {
  if (spiffeId.length > 2048) return null;
  const match = /^spiffe:\/\/([a-z0-9._-]{1,255})((?:\/[a-zA-Z0-9._-]+)+)$/.exec(spiffeId);
  if (match === null || match[2]!.split("/").some((segment) => segment === "." || segment === ".."))
    return null;
  return match[1]!;
}

function reasonOf(error: unknown, audience: string): string {
  if (error instanceof errors.JWTExpired) return "the token has expired";
  if (error instanceof errors.JWTClaimValidationFailed)
    return error.claim === "aud"
      ? `the token is not for the audience ${JSON.stringify(audience.slice(0, 200))}`
      : `the token's claim ${error.claim} is missing or wrong`;
  if (error instanceof errors.JWKSNoMatchingKey)
    return "no key of its trust domain has the name and the algorithm that the token gives";
  if (error instanceof errors.JOSEAlgNotAllowed)
    return "the token's algorithm is none that JWT-SVIDs may have";
  if (error instanceof errors.JWSSignatureVerificationFailed) return "the token's signature does not verify";
  return "the token cannot be verified";
}

function refused(reason: string): JwtSvidVerdict {
  return { kind: "refused", reason };
}
