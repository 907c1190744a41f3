import { describeError } from "#/base/errors.ts";
import type { Clock, Timer } from "#/base/clock.ts";
import type { Got } from "#/net/http-get.ts";
import type { Log } from "#/net/log.ts";
import type { StateFolder } from "../state-folder.ts";
import { JWKS_BYTES_MAX, readKeySet } from "./key-set.ts";

/** Where a key set is: its URL, and for a Service of the mesh the address of one of its pods. */
export interface KeySetSource {
  readonly url: string;
  readonly at: { readonly host: string; readonly port: number } | null;
}

/** One request, bounded in time and size. Rejects where no answer comes. */
export type Get = (
  url: URL,
  options: { readonly timeoutMs: number; readonly bytesMax: number; readonly at: KeySetSource["at"] },
) => Promise<Got>;

export interface KeySetsParts {
  readonly clock: Clock;
  readonly log: Log;
  readonly get: Get;
  /** A set has other keys than before, or another problem. */
  readonly changed: () => void;
  /** What outlives this process: by URL, the sets that were good last. */
  readonly kept: {
    read(): Readonly<Record<string, string>>;
    write(sets: Readonly<Record<string, string>>): void;
  };
}

/** As it stands: "" until the first good answer; `problem` "" while all is well. */
export interface KeySet {
  readonly jwks: string;
  readonly problem: string;
}

const SETS_MAX = 256;
const BEYOND: KeySet = { jwks: "", problem: `more than ${SETS_MAX} are wanted, and no more are fetched` };
const TIMEOUT_MS = 5_000;
/** `Cache-Control: max-age` counts between these; without it, the default. */
const FRESH_MS_MIN = 30_000;
const FRESH_MS_MAX = 3_600_000;
const FRESH_MS_DEFAULT = 300_000;
/** After a failure: soon at first, and never more rarely than keys are asked for anyway. */
const AGAIN_MS_MIN = 1_000;
const AGAIN_MS_MAX = 30_000;
/** Because a token names a key that is not known: anybody can send such tokens. */
const UNKNOWN_KEY_MS = 30_000;

interface Known {
  source: KeySetSource;
  set: KeySet;
  timer: Timer | null;
  againMs: number;
  /** Under way; all who want it wait for the one. */
  asking: Promise<void> | null;
  askedAtMs: number;
}

/**
 * The key sets of issuers, fetched here so that no sidecar has to: when their `Cache-Control` is over, and before that when a sidecar
 * meets a key that it does not know. What was good last stays while no better comes. At most 256.
 */
export class KeySets {
  readonly #parts: KeySetsParts;
  readonly #known = new Map<string, Known>();
  readonly #kept: Map<string, string>;
  #sets: ReadonlyMap<string, KeySet> | null = null;
  /** URLs that are wanted beyond the bound. */
  #beyond: readonly string[] = [];

  constructor(parts: KeySetsParts) {
    this.#parts = parts;
    this.#kept = new Map(Object.entries(parts.kept.read()));
  }

  /** Which are wanted from now on; others are forgotten. */
  want(sources: Iterable<KeySetSource>): void {
    const wanted = new Map([...sources].map((source) => [source.url, source]));
    for (const [url, known] of this.#known) {
      if (wanted.has(url)) continue;
      known.timer?.cancel();
      this.#known.delete(url);
      this.#sets = null;
    }
    const beyond: string[] = [];
    for (const [url, source] of wanted) {
      const before = this.#known.get(url);
      if (before !== undefined) {
        const isFirst = before.source.at === null && source.at !== null;
        before.source = source;
        // The Service has got its first pod: there is no need to wait for the next try.
        if (isFirst && before.set.jwks === "") void this.#begin(before);
        continue;
      }
      if (this.#known.size >= SETS_MAX) {
        beyond.push(url);
        continue;
      }
      const known: Known = {
        source,
        set: { jwks: this.#kept.get(url) ?? "", problem: "" },
        timer: null,
        againMs: AGAIN_MS_MIN,
        asking: null,
        askedAtMs: Number.NEGATIVE_INFINITY,
      };
      this.#known.set(url, known);
      this.#sets = null;
      void this.#begin(known);
    }
    if (beyond.join(" ") === this.#beyond.join(" ")) return;
    if (beyond.length > 0)
      this.#parts.log.warn("more key sets than are fetched", { max: SETS_MAX, left: beyond.length });
    this.#beyond = beyond;
    this.#sets = null;
  }

  /** By URL, as they stand: the same object until one of them changes. */
  get sets(): ReadonlyMap<string, KeySet> {
    return (this.#sets ??= new Map([
      ...[...this.#known].map(([url, { set }]) => [url, set] as const),
      ...this.#beyond.map((url) => [url, BEYOND] as const),
    ]));
  }

  /**
   * For a token whose key is not known: asks again, at most once in 30 seconds for each set, and gives what is known then. Null: no such
   * set is wanted.
   */
  async refresh(url: string): Promise<string | null> {
    const known = this.#known.get(url);
    if (known === undefined) return null;
    if (known.asking !== null) await known.asking;
    else if (this.#parts.clock.nowMs() - known.askedAtMs >= UNKNOWN_KEY_MS) await this.#begin(known);
    return known.set.jwks;
  }

  close(): void {
    this.want([]);
  }

  /** Also of sets that are no longer wanted, up to the bound: a policy that is taken out and put back should begin where it was. */
  #keep(url: string, jwks: string): void {
    this.#kept.delete(url);
    this.#kept.set(url, jwks);
    for (const oldest of this.#kept.keys()) {
      if (this.#kept.size <= SETS_MAX) break;
      this.#kept.delete(oldest);
    }
    this.#parts.kept.write(Object.fromEntries(this.#kept));
  }

  #begin(known: Known): Promise<void> {
    known.timer?.cancel();
    known.asking ??= this.#ask(known).finally(() => (known.asking = null));
    return known.asking;
  }

  async #ask(known: Known): Promise<void> {
    const { clock, log, get, changed } = this.#parts;
    const { url, at } = known.source;
    known.askedAtMs = clock.nowMs();
    let set: KeySet;
    let againMs: number;
    try {
      const got = await get(new URL(url), { timeoutMs: TIMEOUT_MS, bytesMax: JWKS_BYTES_MAX, at });
      if (got.status !== 200) throw new Error(`it answers with status ${got.status}, not 200`);
      const read = readKeySet(got.body);
      if ("problem" in read) throw new Error(read.problem);
      set = { jwks: read.jwks, problem: "" };
      againMs = freshMs(got.cacheControl);
      known.againMs = AGAIN_MS_MIN;
    } catch (error) {
      set = { jwks: known.set.jwks, problem: describeError(error) };
      againMs = known.againMs;
      known.againMs = Math.min(known.againMs * 2, AGAIN_MS_MAX);
    }
    if (this.#known.get(url) !== known) return;
    const before = known.set;
    known.set = set;
    if (set.jwks !== "" && this.#kept.get(url) !== set.jwks) this.#keep(url, set.jwks);
    if (set.problem !== "" && before.problem === "")
      log.warn("a key set for tokens cannot be had; what was good last stays", {
        url,
        problem: set.problem,
        hasKeys: set.jwks !== "",
      });
    else if (set.problem === "" && (before.problem !== "" || before.jwks !== set.jwks))
      log.info("a key set for tokens was fetched", { url, keys: keyNames(set.jwks) });
    known.timer = clock.after(againMs, () => void this.#begin(known));
    if (before.jwks === set.jwks && before.problem === set.problem) return;
    this.#sets = null;
    changed();
  }
}

/** In the state folder; what is there and cannot be read begins anew. */
export function keptKeySets(state: StateFolder): KeySetsParts["kept"] {
  return {
    read: () => {
      const kept = state.readJson(FILE);
      if (typeof kept !== "object" || kept === null) return {};
      return Object.fromEntries(Object.entries(kept).filter(([, jwks]) => typeof jwks === "string"));
    },
    write: (sets) => state.writeJson(FILE, sets),
  };
}

const FILE = "key-sets.json";

/** RFC 9111 §5.2.2. */
function freshMs(cacheControl: string): number {
  if (/(?:^|[\s,])(?:no-store|no-cache)(?:$|[\s,=])/i.test(cacheControl)) return FRESH_MS_MIN;
  const seconds = /(?:^|[\s,])max-age=(\d{1,10})(?:$|[\s,])/i.exec(cacheControl)?.[1];
  if (seconds === undefined) return FRESH_MS_DEFAULT;
  return Math.min(FRESH_MS_MAX, Math.max(FRESH_MS_MIN, Number(seconds) * 1000));
}

function keyNames(jwks: string): string {
  const { keys } = JSON.parse(jwks) as { keys: readonly { kid?: string }[] };
  return keys.map(({ kid }) => kid ?? "-").join(" ");
}
