import { parseSocketAddress, type SocketAddress } from "#/base/address.ts";
import type { Clock } from "#/base/clock.ts";
import type { Conn } from "#/base/conn.ts";
import type { Fields } from "#/base/fields.ts";
import { ErrorCode } from "#/wire/http2/frame.ts";
import type { HttpServing } from "../discovery.ts";
import { keepAlive, type Guard } from "../http/guard.ts";
import type { Http2LinkOwner } from "../http/http2-link.ts";
import { Http2Link } from "../http/http2-link.ts";
import { CarrierConn, type CarrierSide } from "./carrier-conn.ts";
import { KeptStreams } from "./kept-streams.ts";
import { CARRIER_MACHINE, STREAMS_MAX } from "./settings.ts";

export interface ServerCarrierEvents {
  /** The client opened a stream to `target`. It has no handler yet, and must get one or be reset. */
  opened(stream: CarrierConn, target: SocketAddress): void;
  /** A request that is no CONNECT to an address was turned away. */
  refused(detail: string): void;
  /** The connection is over, after all streams. Once. */
  closed(): void;
}

/** The server's end of a carrier. */
export class ServerCarrier implements Http2LinkOwner, CarrierSide, HttpServing {
  readonly borrows = true;
  readonly clock: Clock;
  readonly local: SocketAddress;
  readonly remote: SocketAddress;
  readonly isServer = true;
  readonly kept = new KeptStreams();
  /** Streams are no requests. */
  readonly activeRequests = 0;
  readonly #link: Http2Link;
  readonly #events: ServerCarrierEvents;
  #leftoversCount = 0;

  /** `conn` is past the transport header; what was read beyond that has been put back into it. */
  constructor(conn: Conn, clock: Clock, guard: Guard, events: ServerCarrierEvents) {
    this.clock = clock;
    this.local = conn.local;
    this.remote = conn.remote;
    this.#events = events;
    const settings = { ...CARRIER_MACHINE, ...keepAlive(guard.limits), role: "server" as const };
    this.#link = new Http2Link(conn, clock, this, settings, guard);
  }

  opened(streamId: number, fields: Fields, last: boolean): void {
    const target = targetOf(fields);
    if (target === null) {
      this.#link.machine.reset(streamId, ErrorCode.PROTOCOL_ERROR);
      this.#link.touch();
      this.#events.refused("a carrier takes CONNECT to an IP address and port, and nothing else");
      return;
    }
    const stream = new CarrierConn(this, this.#link, streamId);
    this.#link.add(stream);
    if (last) stream.receiveEnd();
    this.#events.opened(stream, target);
    // The client cannot know of them.
    if (this.#leftoversCount > 0 && this.#link.streamCount + this.#leftoversCount >= STREAMS_MAX)
      this.drain();
  }

  /** New streams go to another carrier; those that are open go on, for as long as the client proves itself. */
  drain(): void {
    this.#link.drain();
  }

  close(): void {
    this.#link.drain();
  }

  /** Each stream looks after its own permission. */
  recheck(): void {}
  bulky(): void {}
  bulkyOver(): void {}

  leftovers(): void {
    this.#leftoversCount++;
  }

  leftoversRead(): void {
    this.#leftoversCount--;
  }

  goingAway(): void {}
  roomier(): void {}

  closed(): void {
    this.#events.closed();
  }
}

/** Where a CONNECT leads (RFC 9113 §8.5). */
function targetOf(fields: Fields): SocketAddress | null {
  let authority = "";
  let isConnect = false;
  for (let i = 0; i < fields.length; i += 2) {
    if (fields[i] === ":method") isConnect = fields[i + 1] === "CONNECT";
    else if (fields[i] === ":authority") authority = fields[i + 1] as string;
    else if (fields[i] === ":protocol") return null;
  }
  return isConnect ? parseSocketAddress(authority) : null;
}
