import type { Clock } from "#/base/clock.ts";
import type { Cancel } from "../discovery.ts";
import type { TokenCheck, TokenVerdict, TokenVerifier, VerifiedToken } from "./token-verifier.ts";

/** Verified tokens that are kept, and what they may weigh together. At either bound the one unused for longest goes. */
const TOKENS_MAX = 1_024;
const CHARS_MAX = 2_097_152;
/** Tokens that are being verified. Beyond, whoever comes with a new one is told that there are too many. */
const CHECKS_MAX = 256;

type Done = (verdict: TokenVerdict) => void;

/**
 * Remembers tokens for as long as they hold, so that a client's second request waits for nothing. Only good ones: who sends what is not
 * good must not be able to push out what is.
 */
export class RememberedTokens implements TokenVerifier {
  readonly #check: TokenCheck;
  readonly #clock: Clock;
  /** The one used last at the end. */
  readonly #known = new Map<string, VerifiedToken>();
  #chars = 0;
  /** Requests that wait for one token. */
  readonly #waiting = new Map<string, Set<Done>>();

  constructor(check: TokenCheck, clock: Clock) {
    this.#check = check;
    this.#clock = clock;
  }

  get size(): number {
    return this.#known.size;
  }

  known(token: string): VerifiedToken | null {
    const found = this.#known.get(token);
    if (found === undefined) return null;
    this.#forget(token);
    if (found.untilMs <= this.#clock.wallMs()) return null;
    this.#keep(token, found);
    return found;
  }

  verify(token: string, done: Done): Cancel {
    let waiting = this.#waiting.get(token);
    if (waiting === undefined && this.#waiting.size >= CHECKS_MAX) {
      let isCancelled = false;
      this.#clock.soon(() => {
        if (!isCancelled) done({ kind: "busy" });
      });
      return { cancel: () => (isCancelled = true) };
    }
    if (waiting === undefined) {
      this.#waiting.set(token, (waiting = new Set()));
      void this.#look(token, waiting);
    }
    const entry: Done = (verdict) => done(verdict);
    const all = waiting;
    all.add(entry);
    return { cancel: () => all.delete(entry) };
  }

  async #look(token: string, waiting: Set<Done>): Promise<void> {
    const verdict = await this.#check(token);
    this.#waiting.delete(token);
    if (verdict.kind === "verified") this.#keep(token, verdict.token);
    for (const done of waiting) done(verdict);
  }

  #keep(token: string, verified: VerifiedToken): void {
    this.#forget(token);
    this.#known.set(token, verified);
    this.#chars += token.length;
    while (this.#known.size > TOKENS_MAX || this.#chars > CHARS_MAX)
      this.#forget(this.#known.keys().next().value as string);
  }

  #forget(token: string): void {
    if (this.#known.delete(token)) this.#chars -= token.length;
  }
}
