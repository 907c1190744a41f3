import type { Clock, Timer } from "#/base/clock.ts";
import type { Conn } from "#/base/conn.ts";
import { ConnError } from "#/base/errors.ts";
import type { Random } from "#/base/random.ts";
import type { PeerIdentity } from "#/model/identity.ts";
import type { Endpoint } from "#/model/endpoint.ts";
import { BACKEND_TRAFFIC_DEFAULTS, type BackendTraffic } from "#/model/traffic.ts";
import type { BackendLimit } from "#/stack/balance/backend-bounds.ts";
import { type BalancedClient, Balancer, type Member } from "#/stack/balance/balancer.ts";
import { isCarried } from "#/stack/carrier/carrier-conn.ts";
import { RECONNECT_WAIT_MS, ReconnectWait } from "#/stack/balance/reconnect-wait.ts";
import type { Cancel, Dial, DialDone, EndpointSource } from "#/stack/discovery.ts";

export interface OpaqueParts {
  readonly clock: Clock;
  readonly random: Random;
  readonly dial: Dial;
  /** How long a connection waits for an endpoint when there is none. */
  readonly waitTimeoutMs: number;
  /** Whose connections these are, for balancing. */
  readonly client: BalancedClient;
  /** A connection to a service was refused by a bound of its traffic policy. */
  limitReached(source: string, limit: BackendLimit): void;
}

/** An opaque connection to a chosen endpoint. Counted as load there until `release`. */
export interface OpaqueDialled {
  readonly conn: Conn;
  readonly peer: PeerIdentity | null;
  readonly endpoint: Endpoint;
  release(): void;
}

/** Endpoints that one connection tries without a pause. */
const ATTEMPTS_MAX = 4;
/** Differences below this say more of the processors than of the endpoint. */
const LATENCY_MS_LEAST = 5;
/** A connection of its own is there after as many round trips: TCP's and that of TLS. */
const ROUND_TRIPS = 2;
/** Balancers that nobody uses are kept so long, with what they learned of their endpoints. */
const IDLE_MS = 30_000;

/**
 * Connections that are balanced as such, by the service's traffic policy: one choice each, where what is under way are
 * connections and hashing has but their source; another endpoint when the first cannot be reached, and endpoints that failed are set
 * aside for a while. If none with a sidecar can be reached, the connection waits a moment for
 * one, as a request does in `Dispatch`. One balancer per endpoint source.
 */
export class OpaqueDialler {
  readonly #parts: OpaqueParts;
  readonly #balancers = new Map<string, SharedBalancer>();

  constructor(parts: OpaqueParts) {
    this.#parts = parts;
  }

  /** `traffic`: null for the defaults. */
  dial(
    source: EndpointSource,
    traffic: BackendTraffic | null,
    done: (error: ConnError | null, dialled: OpaqueDialled | null) => void,
  ): Cancel {
    let balancer = this.#balancers.get(source.key);
    if (balancer === undefined) {
      balancer = new SharedBalancer(source, this.#parts, () => this.#balancers.delete(source.key));
      this.#balancers.set(source.key, balancer);
    }
    balancer.balancer.configure(traffic ?? BACKEND_TRAFFIC_DEFAULTS, this.#parts.clock.nowMs());
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

  constructor(source: EndpointSource, { client, clock, random }: OpaqueParts, dropped: () => void) {
    this.source = source;
    this.#clock = clock;
    this.#dropped = dropped;
    this.balancer = new Balancer({ client, random, make: () => null, drop: () => undefined });
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

  get waitingCount(): number {
    return this.#waiting.size;
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
  /** Null until an endpoint could not be reached. */
  #wait: ReconnectWait | null = null;
  /** The dial under way, or the subscription to changes while it waits. */
  #current: Cancel | null = null;
  #pause: Timer | null = null;
  #member: Member<null> | null = null;
  #startedAtMs = 0;
  #lastError: ConnError | null = null;
  /** The endpoint that it came from has a sidecar. */
  #isMeshed = false;
  #isOutOfTime = false;
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
    parts.clock.soon(() => this.#next(false));
  }

  cancel(): void {
    if (!this.#finish()) return;
    this.#current?.cancel();
    if (this.#member !== null) this.#shared.balancer.end(this.#member, this.#startedAtMs);
    this.#shared.release();
  }

  /** `isDue`: after a pause, when endpoints that were tried may be tried again. */
  #next(isDue: boolean): void {
    if (this.#isOver) return;
    const { balancer } = this.#shared;
    const limit = this.#limit();
    if (limit !== null) {
      this.#refuse(limit);
      return;
    }
    const nowMs = this.#parts.clock.nowMs();
    const isFree = this.#tried.length < ATTEMPTS_MAX;
    const member =
      (isFree ? balancer.pick(nowMs, this.#tried) : null) ?? (isDue ? balancer.pick(nowMs, []) : null);
    if (member !== null) this.#dial(member);
    else if (balancer.members.length > 0) this.#waitToReconnect(nowMs);
    else this.#waitForEndpoint();
  }

  /** The bound that is reached. One connection is one request. */
  #limit(): BackendLimit | null {
    const { pending, traffic } = this.#shared.balancer;
    const { connectionsMax, requestsMax } = traffic.limits;
    if (connectionsMax > 0 && pending >= connectionsMax) return "connectionsMax";
    return requestsMax > 0 && pending >= requestsMax ? "requestsMax" : null;
  }

  #refuse(limit: BackendLimit): void {
    const { balancer, source } = this.#shared;
    const service = source.key.replace(/^balancer:|#\d+$/g, "");
    this.#parts.limitReached(service, limit);
    const max = balancer.traffic.limits[limit];
    const what = limit === "pendingMax" ? "wait for an endpoint" : "are open or being made";
    const message = `${service}: ${max} connections ${what}, as many as this client may have (${limit}=${max})`;
    this.#fail(new ConnError("CONNECT_FAILED", message));
  }

  #waitForEndpoint(): void {
    this.#pause?.cancel();
    this.#pause = null;
    const { source } = this.#shared;
    if (source.state === "absent") {
      const absent = `${source.key} does not exist; check the Service's name`;
      this.#fail(this.#lastError ?? new ConnError("CONNECT_FAILED", absent));
    } else if (this.#isOutOfTime) this.#runOutOfTime();
    // Whoever comes is new.
    else this.#whenChanged(true);
  }

  #waitToReconnect(nowMs: number): void {
    if (this.#pause === null) {
      const waitMs = this.#isMeshed ? (this.#wait?.nextMs(nowMs) ?? null) : null;
      if (waitMs === null) {
        this.#runOutOfTime();
        return;
      }
      this.#pause = this.#parts.clock.after(waitMs, () => {
        this.#current?.cancel();
        this.#pause = null;
        this.#next(true);
      });
    }
    // A change that brings nobody new does not lengthen the pause.
    this.#whenChanged(false);
  }

  #whenChanged(isDue: boolean): void {
    const { pendingMax } = this.#shared.balancer.traffic.limits;
    if (pendingMax > 0 && this.#shared.waitingCount >= pendingMax) {
      this.#refuse("pendingMax");
      return;
    }
    this.#current = this.#shared.whenChanged(() => {
      this.#current?.cancel();
      this.#next(isDue);
    });
  }

  #dial(member: Member<null>): void {
    const { clock, random } = this.#parts;
    this.#pause?.cancel();
    this.#pause = null;
    if (!this.#tried.includes(member)) this.#tried.push(member);
    this.#member = member;
    const { balancer } = this.#shared;
    balancer.begin(member);
    const startedAtMs = clock.nowMs();
    this.#startedAtMs = startedAtMs;
    const opened: DialDone = (error, conn, peer) => {
      if (conn === null) {
        balancer.connectFailed(member, clock.nowMs());
        balancer.end(member, startedAtMs);
        this.#member = null;
        this.#lastError = error ?? new ConnError("CONNECT_FAILED", "no connection");
        this.#wait ??= new ReconnectWait(random, startedAtMs + RECONNECT_WAIT_MS);
        this.#isMeshed = member.endpoint.identity !== null;
        this.#next(false);
        return;
      }
      const nowMs = clock.nowMs();
      balancer.observe(member, latencyOf(conn, nowMs - startedAtMs), false, nowMs);
      if (!this.#finish()) return;
      this.#done(null, {
        conn,
        peer,
        endpoint: member.endpoint,
        release: this.#releaseOf(member, startedAtMs),
      });
    };
    const { connectTimeoutMs } = balancer.traffic;
    this.#current = this.#parts.dial(member.endpoint, "opaque", opened, connectTimeoutMs);
  }

  #releaseOf(member: Member<null>, startedAtMs: number): () => void {
    let isReleased = false;
    return () => {
      if (isReleased) return;
      isReleased = true;
      this.#shared.balancer.end(member, startedAtMs);
      this.#shared.release();
    };
  }

  #runOutOfTime(): void {
    this.#isOutOfTime = true;
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
    this.#pause?.cancel();
    return true;
  }
}

/**
 * What an endpoint is measured by. A stream of a carrier that is there takes no time to open, which would let an endpoint look far quicker
 * than one that has to be connected to: it counts as what a connection would have taken.
 */
function latencyOf(conn: Conn, tookMs: number): number {
  return Math.max(LATENCY_MS_LEAST, isCarried(conn) ? ROUND_TRIPS * conn.rttMs : tookMs);
}
