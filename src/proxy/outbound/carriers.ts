import { addressKey } from "#/base/address.ts";
import type { Clock } from "#/base/clock.ts";
import type { ConnError } from "#/base/errors.ts";
import type { Fields } from "#/base/fields.ts";
import type { Endpoint } from "#/model/endpoint.ts";
import type { SecureResult } from "#/net/transport.ts";
import type { CarrierConn } from "#/stack/carrier/carrier-conn.ts";
import { ClientCarrier } from "#/stack/carrier/client-carrier.ts";
import type { Cancel, DialDone } from "#/stack/discovery.ts";
import type { Http2Settings } from "#/wire/http2/settings.ts";
import { encodeTransportHeader, PILLION_ALPN, TRANSPORT_ALPN } from "#/wire/transport-header.ts";

export interface CarriersParts {
  readonly clock: Clock;
  readonly machine: Partial<Http2Settings>;
  /** Connects to the sidecar of `endpoint`, and has it prove itself. */
  secure(
    endpoint: Endpoint,
    alpn: readonly string[],
    connectTimeoutMs: number,
    done: (error: ConnError | null, result: SecureResult | null) => void,
  ): Cancel;
  /** Such a connection carries nothing but bytes for `endpoint`: the far side is no sidecar of ours. */
  alone(endpoint: Endpoint, result: SecureResult, done: DialDone): void;
  /** A carrier was made. Returns what is to be called at its end. */
  carries(endpoint: Endpoint, result: SecureResult): () => void;
  /** A stream to `endpoint` was opened on a carrier that `result` proves. */
  opened(endpoint: Endpoint, stream: CarrierConn, result: SecureResult): void;
}

/** Carriers to one sidecar, so that streams that move many bytes do not hold up all others. More only where these are full. */
const CARRIERS_MAX = 4;
/** A sidecar that turned out not to be ours is not asked again for so long. */
const FOREIGN_MS = 60_000;
const FOREIGN_MAX = 1_024;
const CONNECTS_MAX = 1_024;
const EITHER: readonly string[] = [PILLION_ALPN, TRANSPORT_ALPN];
const FOREIGN: readonly string[] = [TRANSPORT_ALPN];

/**
 * Opaque connections to the sidecars of other pods: streams of carriers that are there, or are made when first needed and shared by all who
 * wait for one. A sidecar is an address and whom it must prove to be, whatever its port is for.
 *
 * Bounds: a sidecar is known while there is a carrier to it, or somebody waits for one; who waits is one of the connections that `Outbound`
 * bounds.
 */
export class Carriers {
  readonly #parts: CarriersParts;
  readonly #sidecars = new Map<string, Sidecar>();
  /** Until when, by the monotonic clock, sidecars are taken for foreign. */
  readonly #foreign = new Map<string, number>();
  /** Heads by target, which are the same objects each time. */
  readonly #connects = new Map<string, Fields>();

  constructor(parts: CarriersParts) {
    this.#parts = parts;
  }

  /** As `Dial`: `done` is called once and never synchronously. The timeout is that of whoever makes a carrier necessary. */
  dial(endpoint: Endpoint, connectTimeoutMs: number, done: DialDone): Cancel {
    const key = keyOf(endpoint);
    if (this.#isForeign(key)) return this.#dialAlone(endpoint, connectTimeoutMs, done);
    const sidecar = this.#sidecars.get(key) ?? this.#newSidecar(key);
    return sidecar.wait({ endpoint, connectTimeoutMs, done, current: null });
  }

  #newSidecar(key: string): Sidecar {
    const sidecar = new Sidecar(this.#parts, {
      connectTo: (target) => this.#connectTo(target),
      dialAlone: (waiter) => this.#dialAlone(waiter.endpoint, waiter.connectTimeoutMs, waiter.done),
      isForeign: () => this.#setForeign(key),
      unused: () => {
        if (this.#sidecars.get(key) === sidecar) this.#sidecars.delete(key);
      },
    });
    this.#sidecars.set(key, sidecar);
    return sidecar;
  }

  #dialAlone(endpoint: Endpoint, connectTimeoutMs: number, done: DialDone): Cancel {
    return this.#parts.secure(endpoint, FOREIGN, connectTimeoutMs, (error, result) => {
      if (result === null) done(error, null, null);
      else this.#parts.alone(endpoint, result, done);
    });
  }

  #isForeign(key: string): boolean {
    const untilMs = this.#foreign.get(key);
    if (untilMs === undefined) return false;
    if (this.#parts.clock.nowMs() < untilMs) return true;
    this.#foreign.delete(key);
    return false;
  }

  #setForeign(key: string): void {
    if (this.#foreign.size >= FOREIGN_MAX) this.#foreign.clear();
    this.#foreign.set(key, this.#parts.clock.nowMs() + FOREIGN_MS);
  }

  #connectTo({ address }: Endpoint): Fields {
    const authority = addressKey(address);
    let fields = this.#connects.get(authority);
    if (fields === undefined) {
      if (this.#connects.size >= CONNECTS_MAX) this.#connects.clear();
      fields = [":method", "CONNECT", ":authority", authority];
      this.#connects.set(authority, fields);
    }
    return fields;
  }
}

interface Waiter {
  readonly endpoint: Endpoint;
  readonly connectTimeoutMs: number;
  readonly done: DialDone;
  /** Set where it was handed on: what is to be cancelled then. */
  current: Cancel | null;
}

interface Carrier {
  readonly client: ClientCarrier;
  readonly result: SecureResult;
}

interface SidecarOwner {
  connectTo(endpoint: Endpoint): Fields;
  dialAlone(waiter: Waiter): Cancel;
  /** It is a sidecar, and none of ours. */
  isForeign(): void;
  /** There is neither a carrier nor anybody who waits for one. May come again. */
  unused(): void;
}

class Sidecar {
  readonly #parts: CarriersParts;
  readonly #owner: SidecarOwner;
  /** Those that take streams. */
  #carriers: Carrier[] = [];
  #waiting: Waiter[] = [];
  #opening: Cancel | null = null;
  #isPumpDue = false;

  constructor(parts: CarriersParts, owner: SidecarOwner) {
    this.#parts = parts;
    this.#owner = owner;
  }

  wait(waiter: Waiter): Cancel {
    this.#waiting.push(waiter);
    this.#pumpSoon();
    return {
      cancel: () => {
        const place = this.#waiting.indexOf(waiter);
        if (place < 0) {
          waiter.current?.cancel();
          return;
        }
        this.#waiting.splice(place, 1);
        if (this.#waiting.length > 0) return;
        // Nobody wants it any more.
        this.#opening?.cancel();
        this.#opening = null;
        this.#leaveIfUnused();
      },
    };
  }

  #pumpSoon(): void {
    if (this.#isPumpDue) return;
    this.#isPumpDue = true;
    this.#parts.clock.soon(this.#pump);
  }

  readonly #pump = (): void => {
    this.#isPumpDue = false;
    while (this.#waiting.length > 0) {
      const carrier = this.#choose(this.#carriers.length >= CARRIERS_MAX);
      if (carrier === null) {
        this.#open(this.#waiting[0] as Waiter);
        return;
      }
      this.#begin(carrier);
    }
    this.#leaveIfUnused();
  };

  /** One with room whose streams are small ones; `anyOne`: else the least busy. */
  #choose(anyOne: boolean): Carrier | null {
    let best: Carrier | null = null;
    for (const carrier of this.#carriers) {
      const { client } = carrier;
      if (!client.hasRoom) continue;
      if (client.bulkyCount === 0) return carrier;
      if (best === null || busier(best.client, client)) best = carrier;
    }
    return anyOne ? best : null;
  }

  #begin({ client, result }: Carrier): void {
    const { endpoint, done } = this.#waiting.shift() as Waiter;
    const stream = client.open(this.#owner.connectTo(endpoint));
    this.#parts.opened(endpoint, stream, result);
    done(null, stream, result.peer);
  }

  #open({ endpoint, connectTimeoutMs }: Waiter): void {
    if (this.#opening !== null) return;
    this.#opening = this.#parts.secure(endpoint, EITHER, connectTimeoutMs, (error, result) => {
      this.#opening = null;
      if (result === null) this.#failed(error);
      else if (result.alpn === PILLION_ALPN) this.#made(endpoint, result);
      else this.#madeForeign(result);
    });
  }

  #made(endpoint: Endpoint, result: SecureResult): void {
    const { clock, machine } = this.#parts;
    const { conn } = result;
    // The port is nobody's: each stream names its own.
    conn.write(
      encodeTransportHeader({ port: endpoint.tunnelPort ?? conn.remote.port, name: null, protocol: null }),
    );
    const over = this.#parts.carries(endpoint, result);
    const client = new ClientCarrier(conn, clock, machine, {
      retired: () => {
        this.#carriers = this.#carriers.filter((other) => other.client !== client);
        this.#pumpSoon();
      },
      roomier: () => {
        if (this.#waiting.length > 0) this.#pumpSoon();
      },
      closed: over,
    });
    this.#carriers.push({ client, result });
    this.#pump();
  }

  /** Who waits longest gets the connection, and the others one each. */
  #madeForeign(result: SecureResult): void {
    if (result.alpn === TRANSPORT_ALPN) this.#owner.isForeign();
    const [first, ...others] = this.#waiting;
    this.#waiting = [];
    for (const waiter of others) waiter.current = this.#owner.dialAlone(waiter);
    this.#leaveIfUnused();
    if (first === undefined) result.conn.reset();
    else this.#parts.alone(first.endpoint, result, first.done);
  }

  #failed(error: ConnError | null): void {
    // A busy carrier is better than none.
    while (this.#waiting.length > 0) {
      const carrier = this.#choose(true);
      if (carrier === null) break;
      this.#begin(carrier);
    }
    const failed = this.#waiting;
    this.#waiting = [];
    this.#leaveIfUnused();
    for (const { done } of failed) done(error, null, null);
  }

  #leaveIfUnused(): void {
    if (this.#carriers.length === 0 && this.#waiting.length === 0 && this.#opening === null)
      this.#owner.unused();
  }
}

function busier(one: ClientCarrier, other: ClientCarrier): boolean {
  return one.bulkyCount === other.bulkyCount
    ? one.streamCount > other.streamCount
    : one.bulkyCount > other.bulkyCount;
}

function keyOf({ address, identity, tunnelPort }: Endpoint): string {
  return `${address.ip} ${tunnelPort} ${identity?.name} ${identity?.serverName}`;
}
