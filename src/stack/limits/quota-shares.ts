import type { RateLimit } from "#/model/traffic.ts";
import { KeyedPlaces } from "./keyed-places.ts";
import type { ShareReport } from "./quota-share.ts";
import { QuotaShare } from "./quota-share.ts";

/** Keys of one limit that are counted apart among all pods; the rest share one count. */
export const GLOBAL_KEYS_MAX = 256;
/** Requests that may wait for an answer; one more goes by what is known. */
const WAITING_MAX = 1_000;
/** Shares in one report, and characters of their keys and of the names of their limits; the others are in the next. */
const REPORTED_MAX = 256;
const REPORTED_CHARS_MAX = 32 * 1024;

/** One share, in one report. */
export interface Reported {
  readonly port: number;
  /** As the control plane finds it again among the port's limits. */
  readonly limitId: string;
  /** Null: of all keys that have no share of their own. */
  readonly key: string | null;
  readonly share: QuotaShare;
  readonly report: ShareReport;
}

interface Entry {
  readonly key: string | null;
  readonly share: QuotaShare;
}

/** One global limit of one port, with a share for each key. */
export class GlobalLimit {
  readonly port: number;
  readonly limitId: string;
  #limit: RateLimit;
  readonly #keys: KeyedPlaces<Entry>;
  /** For keys without a place, one for all of them: the control plane knows no clients. */
  #rest: Entry | null = null;
  #isAlone = false;

  constructor(port: number, limitId: string, limit: RateLimit) {
    this.port = port;
    this.limitId = limitId;
    this.#limit = limit;
    this.#keys = new KeyedPlaces<Entry>({
      keysMax: GLOBAL_KEYS_MAX,
      make: (key, nowMs) =>
        key === null ? (this.#rest ??= this.#make(null, nowMs)) : this.#make(key, nowMs),
      isFresh: ({ share }, nowMs) => share.isFresh(nowMs),
    });
  }

  /** What was given and taken stays. */
  update(limit: RateLimit): void {
    this.#limit = limit;
    for (const { share } of this.#entries()) share.limit = limit;
  }

  share(key: string, client: string | null, nowMs: number): QuotaShare {
    return this.#keys.find(key, client, nowMs).share;
  }

  leftAlone(nowMs: number, isAlone: boolean): void {
    this.#isAlone = isAlone;
    if (isAlone) for (const { share } of this.#entries()) share.leftAlone(nowMs);
  }

  *active(nowMs: number): Generator<Entry> {
    for (const entry of this.#entries()) if (!entry.share.isIdle(nowMs)) yield entry;
  }

  #entries(): Set<Entry> {
    return new Set(this.#keys);
  }

  #make(key: string | null, nowMs: number): Entry {
    const share = new QuotaShare(this.#limit, nowMs);
    if (this.#isAlone) share.leftAlone(nowMs);
    return { key, share };
  }
}

/** Whoever asks the control plane. */
export interface QuotaDriver {
  /** There is traffic again. */
  begin(): void;
  /** A request waits for an answer. */
  hurry(): void;
}

/** All shares of a sidecar in limits that count for all pods of the workload, and who waits for them. */
export class QuotaShares {
  driver: QuotaDriver | null = null;
  readonly #limits = new Map<string, GlobalLimit>();
  readonly #waiting = new Set<() => void>();
  #isAlone = false;
  /** Nothing was to be reported at the last look. */
  #isQuiet = true;
  #offset = 0;

  /** The limit of that port, as it is now; it keeps what it has. */
  limit(port: number, limitId: string, limit: RateLimit, nowMs: number): GlobalLimit {
    const key = `${port} ${limitId}`;
    const known = this.#limits.get(key);
    if (known !== undefined) {
      known.update(limit);
      return known;
    }
    const made = new GlobalLimit(port, limitId, limit);
    made.leftAlone(nowMs, this.#isAlone);
    this.#limits.set(key, made);
    return made;
  }

  /** Limits of that port that are not among `limitIds` are over. */
  keep(port: number, limitIds: ReadonlySet<string>): void {
    for (const [key, limit] of this.#limits)
      if (limit.port === port && !limitIds.has(limit.limitId)) this.#limits.delete(key);
  }

  /** A request has come that one of the limits counts. */
  touched(): void {
    if (!this.#isQuiet) return;
    this.#isQuiet = false;
    this.driver?.begin();
  }

  get waitingCount(): number {
    return this.#waiting.size;
  }

  /** What there is to say. Each call hands back what is held too much, so what it gives must be sent. */
  report(nowMs: number, intervalMs: number): readonly Reported[] {
    const all: Omit<Reported, "report">[] = [];
    for (const { port, limitId, active } of this.#withActive(nowMs))
      for (const { key, share } of active) all.push({ port, limitId, key, share });
    const from = this.#offset < all.length ? this.#offset : 0;
    const turn: typeof all = [];
    for (let chars = 0; turn.length < Math.min(all.length, REPORTED_MAX);) {
      const next = all[(from + turn.length) % all.length]!;
      chars += (next.key?.length ?? 0) + next.limitId.length;
      if (chars > REPORTED_CHARS_MAX && turn.length > 0) break;
      turn.push(next);
    }
    this.#offset = turn.length === all.length ? 0 : (from + turn.length) % all.length;
    this.#isQuiet = all.length === 0;
    return turn.map((one) => ({ ...one, report: one.share.report(nowMs, intervalMs) }));
  }

  *#withActive(nowMs: number): Generator<{ port: number; limitId: string; active: Iterable<Entry> }> {
    for (const limit of this.#limits.values())
      yield { port: limit.port, limitId: limit.limitId, active: limit.active(nowMs) };
  }

  /** The control plane cannot be asked (or can be again, as far as is known). */
  setAlone(isAlone: boolean, nowMs: number): void {
    if (this.#isAlone === isAlone) return;
    this.#isAlone = isAlone;
    for (const limit of this.#limits.values()) limit.leftAlone(nowMs, isAlone);
  }

  /** `woken` is called once, after the next answer or failure. Null: no room. */
  wait(share: QuotaShare, woken: () => void): (() => void) | null {
    if (this.#waiting.size >= WAITING_MAX) return null;
    share.waiting++;
    const leave = (): void => {
      if (this.#waiting.delete(wake)) share.waiting--;
    };
    const wake = (): void => {
      leave();
      woken();
    };
    this.#waiting.add(wake);
    this.driver?.hurry();
    return leave;
  }

  /** Answers have been applied, or none will come. */
  wake(): void {
    for (const wake of [...this.#waiting]) wake();
  }
}
