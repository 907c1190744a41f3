import { Resolver } from "node:dns/promises";
import { parseIp } from "#/base/address.ts";
import type { IpAddress } from "#/base/address.ts";
import type { Clock, Timer } from "#/base/clock.ts";
import type { Log } from "#/net/log.ts";
import { networkContains, parseNetwork } from "#/stack/networks.ts";

/** Addresses of a name and how long they hold, in seconds. */
export type Resolve = (
  host: string,
) => Promise<readonly { readonly address: string; readonly ttl: number }[]>;

export interface OutsideNamesParts {
  readonly clock: Clock;
  readonly log: Log;
  readonly resolve: Resolve;
  /** A name has other addresses than before. */
  readonly changed: () => void;
}

const HOSTS_MAX = 256;
const ADDRESSES_MAX = 32;
/** A record that lives shorter or longer is asked for again after these. */
const AGAIN_MS_MIN = 5_000;
const AGAIN_MS_MAX = 300_000;

/** To a sidecar that dialled these a name would mean its own pod, or its machine's services, such as a cloud's metadata. */
const NEVER_OUTSIDE = ["0.0.0.0/8", "127.0.0.0/8", "169.254.0.0/16", "::/127", "fe80::/10"].map((text) =>
  parseNetwork(text)!,
);

interface Known {
  addresses: readonly IpAddress[];
  timer: Timer | null;
  isFailing: boolean;
}

/**
 * Addresses of names outside, resolved on the machine and again when their records' time is over. What was good last stays
 * while the name cannot be resolved. At most 256 names, with 32 addresses each.
 */
export class OutsideNames {
  readonly #parts: OutsideNamesParts;
  #last: ReadonlyMap<string, readonly IpAddress[]> = new Map();
  readonly #known = new Map<string, Known>();
  #refused = 0;

  constructor(parts: OutsideNamesParts) {
    this.#parts = parts;
  }

  /** Which names are wanted from now on; others are forgotten. */
  want(hosts: Iterable<string>): void {
    const wanted = new Set(hosts);
    for (const [host, known] of this.#known) {
      if (wanted.has(host)) continue;
      known.timer?.cancel();
      this.#known.delete(host);
    }
    let refused = 0;
    for (const host of wanted) {
      if (this.#known.has(host)) continue;
      if (this.#known.size >= HOSTS_MAX) {
        refused++;
        continue;
      }
      const known: Known = { addresses: [], timer: null, isFailing: false };
      this.#known.set(host, known);
      void this.#resolve(host, known);
    }
    if (refused > 0 && refused !== this.#refused)
      this.#parts.log.warn("more names outside than are resolved", { max: HOSTS_MAX, left: refused });
    this.#refused = refused;
  }

  /** By name, as they stand; the same object as long as nothing has changed. */
  get addresses(): ReadonlyMap<string, readonly IpAddress[]> {
    const last = this.#last;
    const isCurrent =
      last.size === this.#known.size &&
      [...this.#known].every(([host, { addresses }]) => last.get(host) === addresses);
    if (!isCurrent) this.#last = new Map([...this.#known].map(([host, { addresses }]) => [host, addresses]));
    return this.#last;
  }

  close(): void {
    this.want([]);
  }

  async #resolve(host: string, known: Known): Promise<void> {
    const { changed, clock, log, resolve } = this.#parts;
    let againMs = AGAIN_MS_MIN;
    try {
      const records = await resolve(host);
      const usable = records.flatMap(({ address }) => {
        const ip = parseIp(address);
        return ip === null || NEVER_OUTSIDE.some((network) => networkContains(network, ip)) ? [] : [ip];
      });
      if (usable.length === 0) throw new Error("it has no address that can be dialled");
      const addresses = [...new Set(usable)].toSorted().slice(0, ADDRESSES_MAX);
      const ttlMs = Math.min(...records.map(({ ttl }) => ttl)) * 1000;
      againMs = Math.min(AGAIN_MS_MAX, Math.max(AGAIN_MS_MIN, ttlMs));
      known.isFailing = false;
      if (this.#known.get(host) !== known) return;
      if (addresses.join(" ") !== known.addresses.join(" ")) {
        known.addresses = addresses;
        changed();
      }
    } catch (error) {
      if (this.#known.get(host) !== known) return;
      if (!known.isFailing)
        log.warn("a name outside cannot be resolved; what was known of it stays", {
          host,
          addresses: known.addresses.length,
          error,
        });
      known.isFailing = true;
    }
    known.timer = clock.after(againMs, () => void this.#resolve(host, known));
  }
}

/** By the machine's own resolvers: IPv4, and IPv6 where there is none. */
export function systemResolve(): Resolve {
  const resolver = new Resolver({ timeout: 2_000, tries: 2 });
  return async (host) => {
    try {
      return await resolver.resolve4(host, { ttl: true });
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== "ENODATA") throw error;
      return await resolver.resolve6(host, { ttl: true });
    }
  };
}
