import type { X509Certificate } from "node:crypto";
import type { Clock, Timer } from "#/base/clock.ts";
import type { Log } from "#/net/log.ts";

export interface ExpiryParts {
  readonly clock: Clock;
  readonly log: Log;
  /** The leaf in force, then those above it; empty before the first. */
  chain(): readonly X509Certificate[];
  roots(): readonly X509Certificate[];
}

/** By the wall clock: a machine that slept, or whose clock was set, passes an end without any timer of ours firing. */
const LOOK_EVERY_MS = 10_000;

/** Says, once each, which of the certificates that this sidecar goes by has expired, since when, and what helps. */
export class TrustExpiry {
  readonly #parts: ExpiryParts;
  #timer: Timer | null = null;
  #said = "";

  constructor(parts: ExpiryParts) {
    this.#parts = parts;
  }

  start(): void {
    this.#look();
  }

  stop(): void {
    this.#timer?.cancel();
  }

  /** A sentence for each certificate that is over, or does not hold yet. */
  problems(): string[] {
    const nowMs = this.#parts.clock.wallMs();
    const named = [
      ...this.#parts.chain().map((certificate, i) => [i === 0 ? "leaf" : "issuer", certificate] as const),
      ...this.#parts.roots().map((certificate) => ["root", certificate] as const),
    ];
    return named.flatMap(([what, certificate]) => {
      const { subject, serialNumber, validFromDate, validToDate } = certificate;
      const name = `the ${what}'s certificate "${(subject ?? "").replace(/^CN=/, "")}" (serial ${serialNumber.slice(0, 8).toLowerCase()}…)`;
      if (validToDate.getTime() <= nowMs)
        return [`${name} expired at ${validToDate.toISOString()}${REMEDY[what]}`];
      if (validFromDate.getTime() > nowMs)
        return [`${name} begins only at ${validFromDate.toISOString()}${REMEDY[what]}`];
      return [];
    });
  }

  #look(): void {
    const { clock, log } = this.#parts;
    const problems = this.problems();
    const text = problems.join("\n");
    if (text !== this.#said) for (const problem of problems) log.error("certificates", { problem });
    this.#said = text;
    this.#timer = clock.after(LOOK_EVERY_MS, () => this.#look());
  }
}

const AUTHORITY_REMEDY = "; check this machine's clock; if it is right: pillion identity repair";
const REMEDY = {
  leaf: "; a new one is asked for",
  issuer: AUTHORITY_REMEDY,
  root: AUTHORITY_REMEDY,
} as const;
