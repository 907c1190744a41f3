import type { RateLimit } from "#/model/traffic.ts";
import { ruleOf } from "#/model/policy.ts";
import type { RequestHead } from "../http/exchange.ts";
import { headerValue } from "../route/candidate.ts";
import type { Bucket, Rate } from "./bucket.ts";
import { convert, isFull, rateOf, take, waitMs } from "./bucket.ts";
import { KeyedPlaces } from "./keyed-places.ts";
import { ASK, QuotaShare } from "./quota-share.ts";
import type { GlobalLimit, QuotaShares } from "./quota-shares.ts";
import { anyHolds, RequestMatch } from "./request-match.ts";

/** Keys that one local limit counts apart. */
export const LOCAL_KEYS_MAX = 10_000;

/** What the limits say of one request. */
export type RateDecision =
  | { readonly kind: "admit" }
  | { readonly kind: "refuse"; readonly limit: RateLimit; readonly waitMs: number; readonly why: string }
  /** Only the control plane can tell. */
  | { readonly kind: "ask"; readonly share: QuotaShare };

const ADMIT: RateDecision = { kind: "admit" };

/** All rate limits of one port. A request has to fit each that counts it, and is taken from none unless it fits all. */
export class RateLimiter {
  readonly #port: number;
  readonly #quota: QuotaShares;
  #limits: readonly (LocalLimit | SharedLimit)[] = [];
  /** Of the request at hand: what counts it, and by which limit. */
  readonly #counted: (Bucket | QuotaShare)[] = [];
  readonly #by: (LocalLimit | SharedLimit)[] = [];

  constructor(port: number, quota: QuotaShares) {
    this.#port = port;
    this.#quota = quota;
  }

  get isEmpty(): boolean {
    return this.#limits.length === 0;
  }

  /** A limit that is still there keeps its counts, also where its numbers have changed. */
  update(rates: readonly RateLimit[], nowMs: number): void {
    const before = new Map(this.#limits.map((limit) => [limit.id, limit]));
    const ids = limitIds(rates);
    this.#limits = rates.map((rate, i) => {
      const id = ids[i] as string;
      const whose = new Counted(rate, rates);
      if (rate.scope === "global")
        return new SharedLimit(id, rate, whose, this.#quota.limit(this.#port, id, rate, nowMs));
      const known = before.get(id);
      if (!(known instanceof LocalLimit) || !known.countsTheSame(rate))
        return new LocalLimit(id, rate, whose);
      known.update(rate, whose, nowMs);
      return known;
    });
    this.#quota.keep(
      this.#port,
      new Set(this.#limits.filter((limit) => limit instanceof SharedLimit).map(({ id }) => id)),
    );
  }

  /** `client`: proven name; null for a plaintext client. `isFirst`: it was not asked for this request before. */
  decide(head: RequestHead, client: string | null, nowMs: number, isFirst: boolean): RateDecision {
    const counted = this.#counted;
    const by = this.#by;
    counted.length = 0;
    by.length = 0;
    let longestMs = 0;
    let refusing: LocalLimit | SharedLimit | null = null;
    let ask: QuotaShare | null = null;
    for (const limit of this.#limits) {
      if (!limit.counted.has(client) || !anyHolds(limit.counted.matches, head)) continue;
      const found = limit.find(head, client, nowMs);
      let wait: number;
      if (found instanceof QuotaShare) {
        if (isFirst) {
          found.arrived(nowMs);
          this.#quota.touched();
        }
        wait = found.look(nowMs);
        if (wait === ASK) ask ??= found;
      } else wait = waitMs(found, (limit as LocalLimit).rate, nowMs);
      counted.push(found);
      by.push(limit);
      if (wait <= longestMs) continue;
      longestMs = wait;
      refusing = limit;
    }
    if (refusing !== null) {
      const { limit } = refusing;
      return { kind: "refuse", limit, waitMs: longestMs, why: explainLimit(limit) };
    }
    if (ask !== null) return { kind: "ask", share: ask };
    for (let i = 0; i < counted.length; i++) {
      const one = counted[i] as Bucket | QuotaShare;
      if (one instanceof QuotaShare) one.take(nowMs);
      else take(one, (by[i] as LocalLimit).rate, nowMs);
    }
    return ADMIT;
  }
}

/** Which requests a limit counts. */
class Counted {
  readonly matches: readonly RequestMatch[];
  /** Of these alone; null: of all. */
  readonly #only: ReadonlySet<string> | null;
  /** Not of these, for which another limit of the same policy stands. */
  readonly #except: ReadonlySet<string>;

  constructor({ key, matches, source }: RateLimit, all: readonly RateLimit[]) {
    this.matches = matches.map((match) => new RequestMatch(match));
    this.#only = key.kind === "clients" ? new Set(key.identities) : null;
    const others =
      key.kind === "identity" ? all.filter((other) => ruleOf(other.source) === ruleOf(source)) : [];
    this.#except = new Set(
      others.flatMap((other) => (other.key.kind === "clients" ? other.key.identities : [])),
    );
  }

  has(client: string | null): boolean {
    if (client === null) return this.#only === null;
    return (this.#only === null || this.#only.has(client)) && !this.#except.has(client);
  }
}

/** A limit that this sidecar keeps by itself. */
class LocalLimit {
  readonly id: string;
  limit: RateLimit;
  rate: Rate;
  counted: Counted;
  readonly #total: Bucket = { earnedAtMs: 0 };
  readonly #keys: KeyedPlaces<Bucket> | null;

  constructor(id: string, limit: RateLimit, counted: Counted) {
    this.id = id;
    this.limit = limit;
    this.rate = rateOf(limit.requests, limit.windowMs, limit.burst);
    this.counted = counted;
    this.#keys =
      limit.key.kind === "total"
        ? null
        : new KeyedPlaces({ keysMax: LOCAL_KEYS_MAX, make: () => ({ earnedAtMs: 0 }), isFresh: isFull });
  }

  countsTheSame({ key, matches }: RateLimit): boolean {
    return JSON.stringify([key, matches]) === JSON.stringify([this.limit.key, this.limit.matches]);
  }

  update(limit: RateLimit, counted: Counted, nowMs: number): void {
    const before = this.rate;
    this.limit = limit;
    this.counted = counted;
    this.rate = rateOf(limit.requests, limit.windowMs, limit.burst);
    for (const bucket of [this.#total, ...(this.#keys ?? [])]) convert(bucket, before, this.rate, nowMs);
  }

  find(head: RequestHead, client: string | null, nowMs: number): Bucket {
    const keys = this.#keys;
    if (keys === null) return this.#total;
    return keys.find(keyOf(this.limit, head, client), inventorOf(this.limit, client), nowMs);
  }
}

/** A limit that all pods of the workload keep together. */
class SharedLimit {
  readonly id: string;
  readonly limit: RateLimit;
  readonly counted: Counted;
  readonly #global: GlobalLimit;

  constructor(id: string, limit: RateLimit, counted: Counted, global: GlobalLimit) {
    this.id = id;
    this.limit = limit;
    this.counted = counted;
    this.#global = global;
  }

  find(head: RequestHead, client: string | null, nowMs: number): QuotaShare {
    return this.#global.share(keyOf(this.limit, head, client), inventorOf(this.limit, client), nowMs);
  }
}

/** Requests without the header share one count, or leaving it out would be the way around; so do clients without a name. */
function keyOf({ key }: RateLimit, head: RequestHead, client: string | null): string {
  if (key.kind === "header") return headerValue(head, key.name) ?? "";
  return key.kind === "total" ? "" : (client ?? "");
}

function inventorOf({ key }: RateLimit, client: string | null): string | null {
  return key.kind === "header" ? (client ?? "") : null;
}

/** Names for the limits of one port, short and the same when only their numbers change. */
export function limitIds(rates: readonly RateLimit[]): readonly string[] {
  const seen = new Map<string, number>();
  return rates.map(({ source, key }) => {
    const what = key.kind === "header" ? `header:${key.name}` : key.kind;
    const name = [ruleOf(source), source.section, what].filter((part) => part !== "").join("/");
    const times = seen.get(name) ?? 0;
    seen.set(name, times + 1);
    return times === 0 ? name : `${name}#${times + 1}`;
  });
}

/** "more than 100 requests in 10 s of this client, in all pods together". */
export function explainLimit({ requests, windowMs, key, scope }: RateLimit): string {
  const windowText = windowMs % 1_000 === 0 ? `${windowMs / 1_000} s` : `${windowMs} ms`;
  let whose = "";
  if (key.kind === "identity" || key.kind === "clients") whose = " of this client";
  else if (key.kind === "header") whose = ` with this ${key.name}`;
  const where = scope === "global" ? " in all pods together" : "";
  return `more than ${requests} requests in ${windowText}${whose}${where}`;
}
