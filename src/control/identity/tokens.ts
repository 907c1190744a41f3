import { createHash, randomBytes } from "node:crypto";
import type { Identity } from "#/model/identity.ts";
import type { SanForm } from "./authority.ts";

/** For whom a token was given out. */
export interface TokenGrant {
  readonly podUid: string;
  readonly identity: Identity;
  readonly form: SanForm;
}

export type TokenVerdict =
  | { readonly kind: "granted"; readonly grant: TokenGrant }
  | { readonly kind: "refused"; readonly reason: string };

export const TOKEN_LIFE_MS = 60_000;
/** Tokens that were given out and neither used nor forgotten. At the bound the oldest is forgotten; its sidecar asks again. */
const TOKENS_MAX = 10_000;
/** How long a used or expired token is remembered, only to say which of the two it was. */
const REMEMBER_MS = 10 * 60_000;

interface Entry {
  readonly grant: TokenGrant;
  readonly expiresAtMs: number;
  /** Digest of the public key that it was used for, or null. */
  usedFor: string | null;
}

/**
 * Tokens good for one key each: 256 random bits, bound to a pod and its identity, good for a minute. Kept in memory as digests, so
 * that neither a dump nor the timing of a look-up gives one away. A restart of the control plane voids them all.
 */
export class Tokens {
  readonly #nowMs: () => number;
  readonly #entries = new Map<string, Entry>();

  constructor(nowMs: () => number) {
    this.#nowMs = nowMs;
  }

  give(grant: TokenGrant): string {
    this.#sweep();
    const token = randomBytes(32).toString("base64url");
    this.#entries.set(digest(token), { grant, expiresAtMs: this.#nowMs() + TOKEN_LIFE_MS, usedFor: null });
    return token;
  }

  /**
   * Uses a token up, whatever the answer: one that was shown for another identity is burnt. Shown again for the same key
   * it is good again, as long as it lives: an answer may be lost on its way, and nobody else has that key.
   */
  redeem(
    token: string,
    identity: string,
    publicKey: Uint8Array,
    nameOf: (identity: Identity) => string,
  ): TokenVerdict {
    const entry = this.#entries.get(digest(token));
    if (entry === undefined)
      return { kind: "refused", reason: "the token is not known; the pod must be attested again" };
    const key = digest(publicKey);
    if (entry.usedFor !== null && entry.usedFor !== key)
      return { kind: "refused", reason: "the token was used before; each is good for one certificate" };
    entry.usedFor = key;
    if (entry.expiresAtMs <= this.#nowMs())
      return { kind: "refused", reason: `the token expired; it is good for ${TOKEN_LIFE_MS / 1000} s` };
    if (nameOf(entry.grant.identity) !== identity)
      return { kind: "refused", reason: "the token was given to a pod of another identity" };
    return { kind: "granted", grant: entry.grant };
  }

  #sweep(): void {
    const now = this.#nowMs();
    for (const [key, entry] of this.#entries) {
      if (entry.expiresAtMs + REMEMBER_MS > now && this.#entries.size < TOKENS_MAX) break;
      this.#entries.delete(key);
    }
  }
}

function digest(value: string | Uint8Array): string {
  return createHash("sha256").update(value).digest("base64");
}
