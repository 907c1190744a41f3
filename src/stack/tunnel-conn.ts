import type { Clock, Timer } from "#/base/clock.ts";
import type { Conn, ConnHandler } from "#/base/conn.ts";
import type { SocketAddress } from "#/base/address.ts";
import { ConnError } from "#/base/errors.ts";
import {
  encodeOpaqueEnd,
  encodeOpaqueHead,
  encodeOpaqueReset,
  OPAQUE_PAYLOAD_BYTES_MAX,
  OpaqueFound,
  OpaqueReader,
} from "#/wire/opaque-frames.ts";

/** How long the carrier may take to deliver a RESET mark, behind what was written before it, until it is cut. */
const LINGER_MS = 5000;

/**
 * An opaque stream between two of our own sidecars (`pillion/1`): a `Conn` on top of a TLS connection whose halves end by
 * marks. TLS shows neither a reset nor, through Node, a missing close_notify; here a stream that stops without its END
 * mark is a reset, and a reset arrives after the bytes that were sent before it.
 */
export class TunnelConn implements Conn, ConnHandler {
  readonly local: SocketAddress;
  readonly remote: SocketAddress;
  readonly #clock: Clock;
  readonly #carrier: Conn;
  readonly #reader = new OpaqueReader();
  #handler: ConnHandler | null = null;
  #front: Uint8Array[] = [];
  #isPaused = false;
  #isEnded = false;
  #remoteEnded = false;
  #endTold = false;
  #deliveryScheduled = false;
  /** Set once: why the stream is over, whether or not the handler has been told. */
  #over: { readonly error: ConnError | null } | null = null;
  #closeTold = false;
  #linger: Timer | null = null;

  /** `carrier` is past its transport header; what was read beyond that has been put back into it. */
  constructor(clock: Clock, carrier: Conn) {
    this.#clock = clock;
    this.#carrier = carrier;
    this.local = carrier.local;
    this.remote = carrier.remote;
  }

  get bufferedBytes(): number {
    return this.#carrier.bufferedBytes;
  }

  get sentBytes(): number {
    return this.#carrier.sentBytes;
  }

  /** Bytes are in frames at once, which stay. */
  unsend(): boolean {
    return false;
  }

  setHandler(handler: ConnHandler): void {
    const isFirst = this.#handler === null;
    this.#handler = handler;
    this.#endTold = false;
    if (isFirst) this.#carrier.setHandler(this);
    this.#scheduleDelivery();
  }

  write(bytes: Uint8Array): boolean {
    return this.#frame(bytes, false);
  }

  writeLent(bytes: Uint8Array): boolean {
    return this.#frame(bytes, true);
  }

  #frame(bytes: Uint8Array, isLent: boolean): boolean {
    if (this.#isEnded || this.#over !== null || bytes.length === 0) return true;
    for (let at = 0; at < bytes.length; at += OPAQUE_PAYLOAD_BYTES_MAX) {
      const part =
        bytes.length <= OPAQUE_PAYLOAD_BYTES_MAX ? bytes : bytes.subarray(at, at + OPAQUE_PAYLOAD_BYTES_MAX);
      this.#carrier.write(encodeOpaqueHead(part.length));
      const goesOn = isLent ? this.#carrier.writeLent(part) : this.#carrier.write(part);
      if (!goesOn && at + OPAQUE_PAYLOAD_BYTES_MAX >= bytes.length) return false;
    }
    return true;
  }

  end(): void {
    if (this.#isEnded || this.#over !== null) return;
    this.#isEnded = true;
    this.#carrier.write(encodeOpaqueEnd());
    if (this.#remoteEnded) this.#finish(null);
  }

  reset(): void {
    if (this.#over !== null) return;
    this.#carrier.write(encodeOpaqueReset());
    this.#finish(new ConnError("ABORTED", "the stream was reset by this side"));
  }

  pause(): void {
    this.#isPaused = true;
    this.#carrier.pause();
  }

  resume(): void {
    if (!this.#isPaused) return;
    this.#isPaused = false;
    this.#scheduleDelivery();
  }

  unread(bytes: Uint8Array): void {
    if (bytes.length === 0) return;
    this.#front.unshift(bytes);
    this.#scheduleDelivery();
  }

  onData(bytes: Uint8Array): void {
    if (this.#over !== null) return;
    this.#reader.feed(bytes);
    this.#deliver();
  }

  onEnd(): void {
    this.#reader.end();
    this.#scheduleDelivery();
  }

  onDrain(): void {
    if (this.#over === null) this.#handler?.onDrain();
  }

  onClose(error: ConnError | null): void {
    this.#linger?.cancel();
    if (this.#over !== null) return;
    // A carrier cannot end cleanly before both marks have gone by.
    this.#over = { error: error ?? new ConnError("RESET", "the tunnel ended without its END mark") };
    this.#scheduleDelivery();
  }

  #scheduleDelivery(): void {
    if (this.#deliveryScheduled) return;
    this.#deliveryScheduled = true;
    this.#clock.soon(this.#deliverLater);
  }

  readonly #deliverLater = (): void => {
    this.#deliveryScheduled = false;
    this.#deliver();
  };

  #deliver(): void {
    if (this.#handler === null || this.#closeTold) return;
    while (!this.#isPaused && this.#front.length > 0) this.#handler.onData(this.#front.shift() as Uint8Array);
    while (!this.#isPaused && this.#front.length === 0 && this.#over === null) {
      const found = this.#reader.next();
      if (found === OpaqueFound.NOTHING) break;
      if (found === OpaqueFound.DATA) {
        const { bytes, start, stop } = this.#reader;
        this.#handler.onData(start === 0 && stop === bytes.length ? bytes : bytes.subarray(start, stop));
      } else if (found === OpaqueFound.END) {
        this.#remoteEnded = true;
        // Nothing may follow; only its own end is still to come from the carrier.
        break;
      } else {
        this.#carrier.reset();
        const why =
          found === OpaqueFound.RESET
            ? "the remote side reset the stream"
            : (this.#reader.error?.message ?? "");
        this.#finish(new ConnError("RESET", why));
      }
    }
    if (this.#isPaused || this.#front.length > 0) {
      if (this.#over !== null && this.#over.error !== null) this.#tellClose(this.#over.error);
      return;
    }
    if (this.#remoteEnded && !this.#endTold) {
      this.#endTold = true;
      this.#handler.onEnd();
      if (this.#isEnded && this.#over === null) this.#finish(null);
    }
    if (this.#over !== null) this.#tellClose(this.#over.error);
    else this.#carrier.resume();
  }

  /**
   * The stream is over for us; the carrier still delivers what was written. After a clean end that may take as long as
   * the far reader likes, as with TCP (keep-alive finds a dead one); after a reset, `LINGER_MS`.
   */
  #finish(error: ConnError | null): void {
    if (this.#over !== null) return;
    this.#over = { error };
    this.#carrier.end();
    this.#carrier.resume();
    if (error !== null) this.#linger = this.#clock.after(LINGER_MS, () => this.#carrier.reset());
    this.#scheduleDelivery();
  }

  #tellClose(error: ConnError | null): void {
    if (this.#closeTold) return;
    this.#closeTold = true;
    this.#handler?.onClose(error);
  }
}
