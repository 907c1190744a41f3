import type { Clock, Timer } from "#/base/clock.ts";
import type { Random } from "#/base/random.ts";
import type { Proof } from "#/net/transport.ts";

/** Something that goes on for as long as its peer is who it was. */
export interface Proven {
  /** The proof will end: whatever can go over to a new connection without loss should. May come again. */
  renew(): void;
  /** It has ended and no other came: cut it, and say so. */
  expire(detail: string): void;
}

export interface ProofParts<Where> {
  readonly clock: Clock;
  readonly random: Random;
  /** Whether chains that end in this root still prove anything. */
  readonly trusts: (root: string) => boolean;
  /**
   * Makes one short handshake with a peer, to prove both anew: `proven` tells of it. Null on the side that is dialled, which can but wait.
   */
  readonly prove: ((where: Where, done: () => void) => void) | null;
}

/**
 * A connection may live for days, and certificates last for one: it stays while its peer, the same identity at the same address, has proven
 * itself anew by another handshake (docs/decisions/0018-long-connections.md). Of each peer with a connection the latest proof is kept.
 * Bounds: there are no more peers than connections; one timer, which goes while there are any, looks at all of them.
 */
export class Proofs<Where> {
  readonly #parts: ProofParts<Where>;
  readonly #peers = new Map<string, Peer<Where>>();
  #timer: Timer | null = null;

  constructor(parts: ProofParts<Where>) {
    this.#parts = parts;
  }

  get peerCount(): number {
    return this.#peers.size;
  }

  /** A handshake has proven `name` at `address`, and `proven` rests on it. Returns how to say that it is over. */
  hold(name: string, address: string, where: Where, proof: Proof, proven: Proven): () => void {
    const key = `${name} ${address}`;
    this.proven(name, address, proof);
    let peer = this.#peers.get(key);
    if (peer === undefined) {
      const holders = new Set<Proven>();
      peer = { name, address, where, proof, renewAtMs: 0, endedAtMs: null, holders, isProving: false };
      this.#renewLater(peer);
      this.#peers.set(key, peer);
    }
    const held = peer.holders;
    held.add(proven);
    this.#look();
    return () => {
      held.delete(proven);
      // Another peer of the same key may have come since.
      if (held.size > 0 || this.#peers.get(key)?.holders !== held) return;
      this.#peers.delete(key);
      if (this.#peers.size > 0) return;
      this.#timer?.cancel();
      this.#timer = null;
    };
  }

  /** A handshake that carries nothing else. Of a peer without connections nothing is kept. */
  proven(name: string, address: string, proof: Proof): void {
    const peer = this.#peers.get(`${name} ${address}`);
    if (peer === undefined) return;
    if (proof.endsAtMs < peer.proof.endsAtMs && this.#parts.trusts(peer.proof.root)) return;
    peer.proof = proof;
    this.#renewLater(peer);
  }

  /** Other roots are trusted: proofs by those that are gone have ended. */
  trustChanged(): void {
    this.#sweep();
  }

  #look(): void {
    this.#timer ??= this.#parts.clock.after(LOOK_EVERY_MS, () => {
      this.#timer = null;
      this.#sweep();
      if (this.#peers.size > 0) this.#look();
    });
  }

  #sweep(): void {
    const { clock, prove, random, trusts } = this.#parts;
    const nowMs = clock.wallMs();
    let proving = 0;
    for (const peer of [...this.#peers.values()]) {
      if (!trusts(peer.proof.root) && peer.proof.endsAtMs > nowMs) {
        peer.proof = { endsAtMs: nowMs, root: peer.proof.root };
        const from = prove === null ? 0 : UNTRUSTED_SPREAD_MS;
        peer.renewAtMs = nowMs + from + UNTRUSTED_SPREAD_MS * random.next();
      }
      if (nowMs < peer.proof.endsAtMs) {
        // The clock went back, or another proof came. What was reckoned by the other clock is reckoned anew.
        if (peer.endedAtMs !== null) this.#renewLater(peer);
        peer.endedAtMs = null;
      } else peer.endedAtMs ??= clock.nowMs();
      if (peer.endedAtMs !== null && clock.nowMs() - peer.endedAtMs >= GRACE_MS) {
        const when = new Date(peer.proof.endsAtMs).toISOString();
        const why = trusts(peer.proof.root) ? "its certificate ended" : "its root is trusted no more";
        const detail = `${peer.name} at ${peer.address} proved itself for the last time until ${when} (${why})`;
        for (const holder of [...peer.holders]) holder.expire(detail);
      } else if (nowMs >= peer.renewAtMs && !peer.isProving) {
        if (prove !== null && proving++ >= PROVING_MAX) continue;
        peer.renewAtMs = nowMs + Math.max(RETRY_MS_MIN, (peer.proof.endsAtMs - nowMs) / 4);
        for (const holder of [...peer.holders]) holder.renew();
        if (prove === null || peer.holders.size === 0) continue;
        peer.isProving = true;
        prove(peer.where, () => void (peer.isProving = false));
      }
    }
  }

  #renewLater(peer: Peer<Where>): void {
    const { clock, prove, random } = this.#parts;
    const nowMs = clock.wallMs();
    const from = prove === null ? RENEW_AT : PROVE_AT;
    peer.renewAtMs = nowMs + (from + SPREAD * random.next()) * (peer.proof.endsAtMs - nowMs);
  }
}

interface Peer<Where> {
  readonly name: string;
  readonly address: string;
  readonly where: Where;
  /** The one that ends last. */
  proof: Proof;
  /** Wall clock. */
  renewAtMs: number;
  /** Since when the proof is seen to have ended, by the monotonic clock: a jump of the other one leaves all the grace. */
  endedAtMs: number | null;
  readonly holders: Set<Proven>;
  isProving: boolean;
}

/**
 * Shares of what is left of a proof when it is made. Both leaves are renewed at 70 % of their lives, so a new proof made after these marks
 * lasts longer. The server's mark is earlier: HTTP/2 that moves to a new connection is proof enough, and spares the client the handshake.
 */
const RENEW_AT = 0.8;
const PROVE_AT = 0.88;
const SPREAD = 0.07;
/** How long connections go on without a proof in force: for clocks that differ, and for handshakes that fail for a while. */
export const GRACE_MS = 300_000;
const RETRY_MS_MIN = 30_000;
/**
 * All sidecars hear at once that a root is gone. Servers move their HTTP/2 over so long, and clients begin only then: the whole mesh's
 * handshakes in one moment would keep requests waiting.
 */
const UNTRUSTED_SPREAD_MS = 60_000;
const LOOK_EVERY_MS = 10_000;
/** Handshakes begun in one look: all peers at once would take the processor from requests. */
const PROVING_MAX = 64;
