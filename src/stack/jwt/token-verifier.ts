import type { Claims, JwtIssuer } from "#/model/access.ts";
import type { Cancel } from "../discovery.ts";

/** A token whose signature and claims are good. */
export interface VerifiedToken {
  readonly issuer: JwtIssuer;
  readonly claims: Claims;
  /** By the calendar: `exp`, and the issuer's leeway. */
  readonly untilMs: number;
}

/** Why a token is not taken. Closed: each is a value of `reason` in `pillion_inbound_token_refusals_total`. */
export type TokenRefusal =
  | "missing"
  | "malformed" // not a signed JWT, or several where one is expected
  | "issuer" // none of the policy's, or its keys could not be had yet
  | "algorithm" // not one of the asymmetric ones
  | "key" // signed by none of the issuer's keys
  | "signature"
  | "audience"
  | "expired"
  | "not_yet"
  | "claims"
  | "header"; // not where this issuer's tokens are looked for

export type TokenVerdict =
  | { readonly kind: "verified"; readonly token: VerifiedToken }
  /** `detail` is for the client and holds nothing of the token but its `iss` and `kid`. */
  | { readonly kind: "refused"; readonly reason: TokenRefusal; readonly detail: string }
  /** As many are being looked at as may be. */
  | { readonly kind: "busy" };

/** Verifies one token. Never rejects. */
export type TokenCheck = (token: string) => Promise<TokenVerdict>;

/** Verifies the tokens of one policy. */
export interface TokenVerifier {
  /** Of a token that was verified before and still holds; null: it has to be verified. */
  known(token: string): VerifiedToken | null;
  /** `done` is called once, never synchronously, and not after `cancel`. */
  verify(token: string, done: (verdict: TokenVerdict) => void): Cancel;
}
