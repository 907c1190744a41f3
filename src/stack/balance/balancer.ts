import { addressKey } from "#/base/address.ts";
import type { Random } from "#/base/random.ts";
import type { Endpoint } from "#/model/endpoint.ts";
import { Ejection } from "./ejection.ts";
import { PeakEwma } from "./peak-ewma.ts";

/** One endpoint as the balancer sees it. `extra` is what its user keeps per endpoint (connections, counters). */
export class Member<T> {
  readonly endpoint: Endpoint;
  readonly extra: T;
  readonly latency: PeakEwma;
  readonly ejection: Ejection;
  /** Requests (HTTP) or connections (opaque) under way. */
  pending = 0;

  constructor(endpoint: Endpoint, extra: T, latency: PeakEwma, ejection: Ejection) {
    this.endpoint = endpoint;
    this.extra = extra;
    this.latency = latency;
    this.ejection = ejection;
  }
}

export interface BalancerSettings {
  readonly defaultRttMs: number;
  readonly decayMs: number;
}

export const BALANCER_DEFAULTS: BalancerSettings = { defaultRttMs: 30, decayMs: 10_000 };

/**
 * Power of two choices over peak-EWMA load (facts §12): of two members drawn at random the less loaded one is taken, so
 * that load spreads without every sidecar flocking to the one best endpoint. Members set aside by ejection, or already
 * tried by this request, are only taken when nobody else is left.
 */
export class Balancer<T> {
  readonly #settings: BalancerSettings;
  readonly #random: Random;
  readonly #makeExtra: (endpoint: Endpoint) => T;
  readonly #dropExtra: (extra: T) => void;
  #members: Member<T>[] = [];

  constructor(options: {
    settings?: BalancerSettings;
    random: Random;
    make: (endpoint: Endpoint) => T;
    drop: (extra: T) => void;
  }) {
    this.#settings = options.settings ?? BALANCER_DEFAULTS;
    this.#random = options.random;
    this.#makeExtra = options.make;
    this.#dropExtra = options.drop;
  }

  get members(): readonly Member<T>[] {
    return this.#members;
  }

  /** Takes a new set: members whose endpoint is unchanged keep their connections and statistics. */
  update(endpoints: readonly Endpoint[], nowMs: number): void {
    const old = new Map(this.#members.map((member) => [addressKey(member.endpoint.address), member]));
    const members: Member<T>[] = [];
    for (const endpoint of endpoints) {
      const key = addressKey(endpoint.address);
      const known = old.get(key);
      if (known !== undefined && sameTransport(known.endpoint, endpoint)) {
        members.push(known);
        old.delete(key);
        continue;
      }
      const { defaultRttMs, decayMs } = this.#settings;
      members.push(
        new Member(
          endpoint,
          this.#makeExtra(endpoint),
          new PeakEwma(defaultRttMs, decayMs, nowMs),
          new Ejection(this.#random),
        ),
      );
    }
    this.#members = members;
    for (const gone of old.values()) this.#dropExtra(gone.extra);
  }

  /** Null only when there is no member at all, or all were tried. `tried` is never long: a request gives up after a few. */
  pick(nowMs: number, tried: readonly Member<T>[]): Member<T> | null {
    const members = this.#members;
    const count = members.length;
    if (count === 0) return null;
    if (count === 1) return tried.includes(members[0] as Member<T>) ? null : (members[0] as Member<T>);
    const first = Math.floor(this.#random.next() * count);
    const step = 1 + Math.floor(this.#random.next() * (count - 1));
    const a = members[first] as Member<T>;
    const b = members[(first + step) % count] as Member<T>;
    const aFits = fits(a, nowMs, tried);
    const bFits = fits(b, nowMs, tried);
    if (aFits && bFits) return b.latency.load(b.pending, nowMs) < a.latency.load(a.pending, nowMs) ? b : a;
    if (aFits) return a;
    if (bFits) return b;
    return this.#bestOfRest(nowMs, tried);
  }

  /** Looks at everybody: the least loaded that fits, else whoever is nearest to being taken back in. */
  #bestOfRest(nowMs: number, tried: readonly Member<T>[]): Member<T> | null {
    let best: Member<T> | null = null;
    let bestFits = false;
    for (const member of this.#members) {
      if (tried.includes(member)) continue;
      const memberFits = member.ejection.untilMs <= nowMs;
      const better =
        best === null ||
        (memberFits && !bestFits) ||
        (memberFits && member.latency.load(member.pending, nowMs) < best.latency.load(best.pending, nowMs)) ||
        (!memberFits && !bestFits && member.ejection.untilMs < best.ejection.untilMs);
      if (better) {
        best = member;
        bestFits = memberFits;
      }
    }
    return best;
  }
}

function fits<T>(member: Member<T>, nowMs: number, tried: readonly Member<T>[]): boolean {
  return member.ejection.untilMs <= nowMs && (tried.length === 0 || !tried.includes(member));
}

/** Whether connections made for `a` serve `b` as well. Labels and weight may differ. */
function sameTransport(a: Endpoint, b: Endpoint): boolean {
  return (
    a === b ||
    (a.identity?.name === b.identity?.name &&
      a.identity?.serverName === b.identity?.serverName &&
      a.protocolHint === b.protocolHint &&
      a.tunnelPort === b.tunnelPort &&
      a.authorityOverride === b.authorityOverride)
  );
}
