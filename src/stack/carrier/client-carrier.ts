import type { SocketAddress } from "#/base/address.ts";
import { assert } from "#/base/assert.ts";
import type { Clock, Timer } from "#/base/clock.ts";
import type { Conn } from "#/base/conn.ts";
import type { Fields } from "#/base/fields.ts";
import { ErrorCode } from "#/wire/http2/frame.ts";
import type { Http2Settings } from "#/wire/http2/settings.ts";
import type { Http2LinkOwner } from "../http/http2-link.ts";
import { Http2Link } from "../http/http2-link.ts";
import { CarrierConn, type CarrierSide } from "./carrier-conn.ts";
import { KeptStreams } from "./kept-streams.ts";
import { CARRIER_MACHINE, STREAMS_MAX } from "./settings.ts";

export interface ClientCarrierEvents {
  /** Takes no more streams: GOAWAY came, it was closed, or it is gone. Once. */
  retired(): void;
  /** There may be room for another stream. */
  roomier(): void;
  /** The connection is over, after all streams. Once. */
  closed(): void;
}

/** A carrier without streams is kept so long. */
export const CARRIER_IDLE_MS = 60_000;

/** The client's end of a carrier: opens streams, and leaves when none was open for a while. Bounds: one timer. */
export class ClientCarrier implements Http2LinkOwner, CarrierSide {
  readonly borrows = true;
  readonly clock: Clock;
  readonly local: SocketAddress;
  readonly remote: SocketAddress;
  readonly isServer = false;
  readonly kept = new KeptStreams();
  /** Streams that move many bytes. */
  bulkyCount = 0;
  readonly #link: Http2Link;
  readonly #events: ClientCarrierEvents;
  #leftoversCount = 0;
  #isRetired = false;
  #isEmpty = true;
  #emptySinceMs: number;
  #idle: Timer | null = null;

  /** `conn` is past the transport header. */
  constructor(conn: Conn, clock: Clock, machine: Partial<Http2Settings>, events: ClientCarrierEvents) {
    this.clock = clock;
    this.local = conn.local;
    this.remote = conn.remote;
    this.#events = events;
    this.#emptySinceMs = clock.nowMs();
    this.#link = new Http2Link(conn, clock, this, { ...CARRIER_MACHINE, ...machine, role: "client" }, null);
    this.#watch(CARRIER_IDLE_MS);
  }

  get hasRoom(): boolean {
    const isFull = this.#link.streamCount + this.#leftoversCount >= STREAMS_MAX;
    return !this.#isRetired && !isFull && this.#link.hasRoom;
  }

  get streamCount(): number {
    return this.#link.streamCount;
  }

  /** Only with `hasRoom`. The caller may write at once. */
  open(connect: Fields): CarrierConn {
    assert(this.hasRoom, "a stream on a carrier without room");
    const id = this.#link.machine.request(connect, false);
    const stream = new CarrierConn(this, this.#link, id);
    this.#isEmpty = false;
    this.#link.add(stream);
    this.#link.touch();
    return stream;
  }

  /** No further streams; those that are open go on. */
  close(): void {
    this.#retire();
    this.#link.drain();
  }

  bulky(): void {
    this.bulkyCount++;
  }

  bulkyOver(): void {
    this.bulkyCount--;
    this.#events.roomier();
  }

  leftovers(): void {
    this.#leftoversCount++;
  }

  leftoversRead(): void {
    this.#leftoversCount--;
    this.#events.roomier();
  }

  opened(streamId: number): void {
    // RFC 9113 §8.4: push was switched off in our SETTINGS, so the machine has refused this already.
    this.#link.machine.reset(streamId, ErrorCode.REFUSED_STREAM);
  }

  goingAway(): void {
    this.#retire();
  }

  roomier(): void {
    if (this.#isRetired) return;
    if (!this.#isEmpty && this.#link.streamCount === 0) {
      this.#isEmpty = true;
      this.#emptySinceMs = this.clock.nowMs();
      if (this.#idle === null) this.#watch(CARRIER_IDLE_MS);
    }
    this.#events.roomier();
  }

  closed(): void {
    this.#retire();
    this.#events.closed();
  }

  /** A stream does not stop the timer, which then finds it, or finds that the carrier was in use meanwhile. */
  #watch(forMs: number): void {
    this.#idle = this.clock.after(forMs, () => {
      this.#idle = null;
      if (!this.#isEmpty) return;
      const leftMs = this.#emptySinceMs + CARRIER_IDLE_MS - this.clock.nowMs();
      if (leftMs > 0) this.#watch(leftMs);
      else this.close();
    });
  }

  #retire(): void {
    if (this.#isRetired) return;
    this.#isRetired = true;
    this.#idle?.cancel();
    this.#events.retired();
  }
}
