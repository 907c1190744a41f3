import type { Clock, Timer } from "#/base/clock.ts";
import type { Conn } from "#/base/conn.ts";
import { ConnError } from "#/base/errors.ts";
import type { Random } from "#/base/random.ts";
import type { PeerIdentity } from "#/model/identity.ts";
import type { Endpoint } from "#/model/endpoint.ts";
import { Balancer, type Member } from "#/stack/balance/balancer.ts";
import type { Cancel, Dial, EndpointSource } from "#/stack/discovery.ts";

export interface OpaqueParts {
  readonly clock: Clock;
  readonly random: Random;
  readonly dial: Dial;
  /** How long a connection waits for an endpoint when there is none. */
  readonly waitTimeoutMs: number;
}

/** An opaque connection to a chosen endpoint. Counted as load there until `release`. */
export interface OpaqueDialled {
  readonly conn: Conn;
  readonly peer: PeerIdentity | null;
  readonly endpoint: Endpoint;
  release(): void;
}

/** Endpoints that one connection tries before it gives up. */
const ATTEMPTS_MAX = 4;
/** Balancers that nobody uses are kept so long, with what they learned of their endpoints. */
const IDLE_MS = 30_000;

/**
 * Connections that are balanced as such: one choice each (P2C), another endpoint when the first cannot be reached, and
 * endpoints that failed are set aside for a while. One balancer per endpoint source.
 */
export class OpaqueDialler {
  readonly #parts: OpaqueParts;
  readonly #balancers = new Map<string, SharedBalancer>();

  constructor(parts: OpaqueParts) {
    this.#parts = parts;
  }

  dial(
    source: EndpointSource,
    done: (error: ConnError | null, dialled: OpaqueDialled | null) => void,
  ): Cancel {
    let balancer = this.#balancers.get(source.key);
    if (balancer === undefined) {
      balancer = new SharedBalancer(source, this.#parts, () => this.#balancers.delete(source.key));
      this.#balancers.set(source.key, balancer);
    }
    return new OpaqueAttempt(this.#parts, balancer, done);
  }
}

class SharedBalancer {
  readonly source: EndpointSource;
  readonly balancer: Balancer<null>;
  readonly #clock: Clock;
  readonly #dropped: () => void;
  readonly #subscription: Cancel;
  readonly #waiting = new Set<() => void>();
  #users = 0;
  #idle: Timer | null = null;

  constructor(source: EndpointSource, { clock, random }: OpaqueParts, dropped: () => void) {
    this.source = source;
    this.#clock = clock;
    this.#dropped = dropped;
    this.balancer = new Balancer({ random, make: () => null, drop: () => undefined });
    this.balancer.update(source.endpoints, clock.nowMs());
    this.#subscription = source.subscribe(() => {
      this.balancer.update(source.endpoints, clock.nowMs());
      // A copy: whoever still finds nothing waits again, and a set gives what is added while it is walked.
      for (const wake of [...this.#waiting]) wake();
    });
  }

  hold(): void {
    this.#users++;
    this.#idle?.cancel();
  }

  release(): void {
    if (--this.#users > 0) return;
    this.#idle = this.#clock.after(IDLE_MS, () => {
      this.#subscription.cancel();
      this.#dropped();
    });
  }

  whenChanged(wake: () => void): Cancel {
    this.#waiting.add(wake);
    return { cancel: () => void this.#waiting.delete(wake) };
  }
}

class OpaqueAttempt implements Cancel {
  readonly #parts: OpaqueParts;
  readonly #shared: SharedBalancer;
  readonly #done: (error: ConnError | null, dialled: OpaqueDialled | null) => void;
  readonly #tried: Member<null>[] = [];
  readonly #deadline: Timer;
  #current: Cancel | null = null;
  #member: Member<null> | null = null;
  #lastError: ConnError | null = null;
  #isOver = false;

  constructor(
    parts: OpaqueParts,
    shared: SharedBalancer,
    done: (error: ConnError | null, dialled: OpaqueDialled | null) => void,
  ) {
    this.#parts = parts;
    this.#shared = shared;
    this.#done = done;
    shared.hold();
    // Never synchronously.
    this.#deadline = parts.clock.after(parts.waitTimeoutMs, () => this.#runOutOfTime());
    parts.clock.soon(() => this.#next());
  }

  cancel(): void {
    if (!this.#finish()) return;
    this.#current?.cancel();
    if (this.#member !== null) this.#member.pending--;
    this.#shared.release();
  }

  #next(): void {
    if (this.#isOver) return;
    const { clock } = this.#parts;
    const member =
      this.#tried.length >= ATTEMPTS_MAX ? null : this.#shared.balancer.pick(clock.nowMs(), this.#tried);
    if (member === null) {
      if (this.#lastError !== null) this.#fail(this.#lastError);
      else if (this.#shared.source.state === "absent")
        this.#fail(
          new ConnError(
            "CONNECT_FAILED",
            `${this.#shared.source.key} does not exist; check the Service's name`,
          ),
        );
      else {
        this.#current = this.#shared.whenChanged(() => {
          this.#current?.cancel();
          this.#next();
        });
      }
      return;
    }
    this.#tried.push(member);
    this.#member = member;
    member.pending++;
    const startedAtMs = clock.nowMs();
    this.#current = this.#parts.dial(member.endpoint, "opaque", (error, conn, peer) => {
      if (conn === null) {
        member.pending--;
        this.#member = null;
        member.ejection.failed(clock.nowMs());
        this.#lastError = error ?? new ConnError("CONNECT_FAILED", "no connection");
        this.#next();
        return;
      }
      member.ejection.succeeded();
      member.latency.observe(clock.nowMs() - startedAtMs, clock.nowMs());
      if (!this.#finish()) return;
      this.#done(null, { conn, peer, endpoint: member.endpoint, release: this.#releaseOf(member) });
    });
  }

  #releaseOf(member: Member<null>): () => void {
    let isReleased = false;
    return () => {
      if (isReleased) return;
      isReleased = true;
      member.pending--;
      this.#shared.release();
    };
  }

  #runOutOfTime(): void {
    // A connection attempt has its own timeout.
    if (this.#member !== null) return;
    this.#fail(
      this.#lastError ??
        new ConnError(
          "CONNECT_FAILED",
          `${this.#shared.source.key} has no endpoint; check that its pods are ready`,
        ),
    );
  }

  #fail(error: ConnError): void {
    if (!this.#finish()) return;
    this.#current?.cancel();
    this.#shared.release();
    this.#done(error, null);
  }

  #finish(): boolean {
    if (this.#isOver) return false;
    this.#isOver = true;
    this.#deadline.cancel();
    return true;
  }
}
