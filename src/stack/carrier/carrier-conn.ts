import type { SocketAddress } from "#/base/address.ts";
import type { Clock, Timer } from "#/base/clock.ts";
import type { Conn, ConnHandler } from "#/base/conn.ts";
import { copyOf } from "#/base/copy-of.ts";
import { ConnError } from "#/base/errors.ts";
import type { Fields } from "#/base/fields.ts";
import { KeptBytes } from "#/base/kept-bytes.ts";
import { giveSpare, SPARE_BYTES, takeSpare } from "#/base/spare-memory.ts";
import { errorCodeName, ErrorCode } from "#/wire/http2/frame.ts";
import { PASSED_BYTES_MIN } from "#/wire/http2/frame-writer.ts";
import type { Http2Link } from "../http/http2-link.ts";
import { Http2Stream } from "../http/http2-link.ts";
import type { MeteredConn } from "../metrics/transport.ts";
import type { KeptStreams } from "./kept-streams.ts";

/** What a stream tells the side of the carrier that it belongs to. */
export interface CarrierSide {
  readonly clock: Clock;
  /** The carrier's own two ends, which its streams show for theirs. */
  readonly local: SocketAddress;
  readonly remote: SocketAddress;
  readonly isServer: boolean;
  readonly kept: KeptStreams;
  /** The stream has moved more than `BULKY_BYTES`. Once. */
  bulky(): void;
  /** A stream that did has ended. Once. */
  bulkyOver(): void;
  /** A stream that has ended on both sides still holds bytes of its window. Once. `leftoversRead` follows. */
  leftovers(): void;
  leftoversRead(): void;
}

/** `write` asks its caller to wait from here on, as a socket does. */
const WAITING_BYTES_HIGH = 256 * 1024;
/** … until it is down to this. */
const WAITING_BYTES_LOW = 64 * 1024;
/** How long what was written before a reset may take to leave, until it is given up. */
const LINGER_MS = 5000;
/** A shorter rest of what is lent waits in memory of its own size. */
const REST_BYTES_MIN = SPARE_BYTES / 4;
/** A stream that has moved so much is one of many bytes, and new streams are better off on another carrier. */
export const BULKY_BYTES = 4 * 1024 * 1024;
/** RFC 9113 §8.5: a tunnel whose TCP connection failed, or was reset, ends so. */
const RESET_CODE = ErrorCode.CONNECT_ERROR;
const GRANTED: Fields = [":status", "200"];

/**
 * One opaque connection as a CONNECT stream of a carrier (`pillion/2`): END_STREAM is the end of a half, RST_STREAM a reset. A reset waits,
 * at most `LINGER_MS`, until what was written before it has left: the remote side reads it first. When the carrier breaks, so do all
 * streams on it, as connections would when a machine's link does.
 *
 * Bounds: what is written waits here while windows or the socket hold it back, and `write` returns false from `WAITING_BYTES_HIGH` on; what
 * arrives and is not read stays within the stream's window.
 */
export class CarrierConn extends Http2Stream implements MeteredConn {
  bytesRead = 0;
  bytesWritten = 0;
  closed: ((error: ConnError | null) => void) | null = null;

  readonly #side: CarrierSide;
  #handler: ConnHandler | null = null;
  /** Read and put back. */
  #front: Uint8Array[] = [];
  /** Arrived and not read; the remote side has no credit for it yet. Null while there is nothing. */
  #held: KeptBytes | null = null;
  /** Of `#held`, once the stream was reset and no window counts it any more. */
  #keptBytes = 0;
  /** Written and not taken by the machine. */
  #waitingBytes = 0;
  /** The first of it, where bytes that were lent came up against the window: memory that is used again, which nobody else knows. */
  #rest: Buffer | null = null;
  /** `#rest[#restStart, #restStop)` waits. */
  #restStart = 0;
  #restStop = 0;
  #isPaused = false;
  #isAnswered: boolean;
  #isEnded = false;
  #remoteEnded = false;
  #endTold = false;
  #isDrainWanted = false;
  #isDrainDue = false;
  #isBulky = false;
  #isDeliveryScheduled = false;
  #hasLeftovers = false;
  /** Set once, where it ends otherwise than by two ends. `isPrompt`: not behind what is still to be read. */
  #over: { readonly error: ConnError; isPrompt: boolean } | null = null;
  #isClosed = false;
  /** This side has reset the stream, and what was written before is still on its way. */
  #isLingering = false;
  #linger: Timer | null = null;

  constructor(side: CarrierSide, link: Http2Link, id: number) {
    super(link, id);
    this.#side = side;
    this.#isAnswered = !side.isServer;
  }

  get local(): SocketAddress {
    return this.#side.local;
  }

  get remote(): SocketAddress {
    return this.#side.remote;
  }

  /** The carrier's round trip, as well as it is known. */
  get rttMs(): number {
    return this.link.machine.rttMs;
  }

  get bufferedBytes(): number {
    return this.#waitingBytes;
  }

  get sentBytes(): number {
    return this.bytesWritten - this.#waitingBytes;
  }

  /** What leaves shares a write with other streams, so that nothing is known of single bytes. */
  unsend(): boolean {
    return false;
  }

  setHandler(handler: ConnHandler): void {
    this.#handler = handler;
    this.#endTold = false;
    this.#deliverSoon();
  }

  write(bytes: Uint8Array): boolean {
    if (this.#isEnded || this.#over !== null || bytes.length === 0) return true;
    this.#answer();
    this.bytesWritten += bytes.length;
    this.#waitingBytes += bytes.length;
    this.#queueRest();
    this.sendData(bytes, 0, bytes.length);
    if (!this.#isBulky) this.#weigh();
    if (this.#waitingBytes < WAITING_BYTES_HIGH) return true;
    this.#isDrainWanted = true;
    return false;
  }

  writeLent(bytes: Uint8Array): boolean {
    if (this.#isEnded || this.#over !== null || bytes.length === 0) return true;
    this.#answer();
    this.bytesWritten += bytes.length;
    const sent = this.#waitingBytes === 0 ? this.#sendLent(bytes) : 0;
    if (sent < bytes.length) this.#wait(bytes, sent);
    if (!this.#isBulky) this.#weigh();
    const { flowing } = this.link;
    // Whoever lends reads on only to have it copied.
    if (flowing && this.#waitingBytes === 0) return true;
    this.#isDrainWanted = true;
    if (!flowing) this.link.stalled(this);
    return false;
  }

  #sendLent(bytes: Uint8Array): number {
    const { link } = this;
    if (this.gone || link.over) return bytes.length;
    if (bytes.length >= PASSED_BYTES_MIN) return link.sendLent(this, bytes, false);
    if (!link.flowing) return 0;
    const sent = link.machine.sendData(this.id, bytes, 0, bytes.length, false);
    link.touch();
    return sent;
  }

  /** What windows or the socket hold back of bytes that are lent: a window's last part, once for each window. */
  #wait(bytes: Uint8Array, start: number): void {
    const size = bytes.length - start;
    const isFirst = this.#waitingBytes === 0;
    this.#waitingBytes += size;
    if (!isFirst || size < REST_BYTES_MIN || size > SPARE_BYTES) {
      this.#queueRest();
      this.sendData(copyOf(bytes, start, bytes.length), 0, size);
      return;
    }
    this.#rest = takeSpare();
    this.#rest.set(start === 0 ? bytes : bytes.subarray(start));
    this.#restStart = 0;
    this.#restStop = size;
    if (!this.link.flowing) this.link.stalled(this);
  }

  /** Sends of it what may go. */
  #offerRest(): void {
    const rest = this.#rest;
    if (rest === null) return;
    const sent = this.#sendLent(rest.subarray(this.#restStart, this.#restStop));
    this.#restStart += sent;
    if (this.#restStart === this.#restStop) {
      this.#rest = null;
      giveSpare(rest);
    } else if (!this.link.flowing) this.link.stalled(this);
    if (sent > 0) this.credited(sent);
  }

  /** Something is to follow it: it goes the way of all else that waits, and its memory with it. */
  #queueRest(): void {
    const rest = this.#rest;
    if (rest === null) return;
    this.#rest = null;
    this.sendData(rest, this.#restStart, this.#restStop);
  }

  end(): void {
    if (this.#isEnded || this.#over !== null) return;
    this.#isEnded = true;
    this.#answer();
    this.#queueRest();
    this.sendEnd(null);
  }

  reset(): void {
    if (this.#over !== null || this.#isClosed) return;
    this.#over = { error: new ConnError("ABORTED", "the stream was reset by this side"), isPrompt: true };
    this.#front = [];
    this.#held = null;
    // The remote side must be able to send, or it could not end.
    this.release(this.heldBytes);
    if (this.#waitingBytes === 0 || this.link.over) this.resetStream(RESET_CODE);
    else {
      this.#isLingering = true;
      this.#linger = this.#side.clock.after(LINGER_MS, () => this.resetStream(RESET_CODE));
    }
    this.#deliverSoon();
  }

  /** Others on the carrier go on: what comes meanwhile is bounded by the window of this stream. */
  pause(): void {
    this.#isPaused = true;
  }

  resume(): void {
    if (!this.#isPaused) return;
    this.#isPaused = false;
    this.#deliverSoon();
  }

  unread(bytes: Uint8Array): void {
    if (bytes.length === 0) return;
    this.#front.unshift(bytes);
    this.#deliverSoon();
  }

  // --- from the link ---

  /** Both sides speak when they have something to say, and may be silent for days. */
  look(): void {}
  /** The client has gone ahead without the answer; ours refuse by a reset. */
  receiveHead(fields: Fields, last: boolean): void {
    const status = fields[1];
    if (status === "200") {
      if (last) this.receiveEnd();
    } else if (this.#over === null) {
      this.#over = {
        error: new ConnError("RESET", `the remote side answered CONNECT with ${status}`),
        isPrompt: true,
      };
      this.resetStream(ErrorCode.CANCEL);
      this.#deliver();
    }
  }
  receiveInformational(): void {}

  receiveData(bytes: Uint8Array, start: number, stop: number): void {
    const size = stop - start;
    if (this.#over !== null) {
      this.release(size);
      return;
    }
    this.bytesRead += size;
    if (!this.#isBulky) this.#weigh();
    if (this.#handler === null || this.#isPaused || this.#front.length > 0 || this.#held !== null) {
      this.#hold(bytes, start, stop);
      return;
    }
    // They are lent to the carrier, and by it.
    this.#handler.onData(
      this.#handler.borrows === true ? bytes.subarray(start, stop) : copyOf(bytes, start, stop),
    );
    this.release(size);
  }

  receiveEnd(): void {
    this.received = true;
    if (this.#over !== null) return;
    this.#remoteEnded = true;
    this.leaveIfDone();
    this.#deliver();
  }

  receiveReset(errorCode: number, ownReason: string): void {
    this.gone = true;
    this.#linger?.cancel();
    if (this.#over !== null) return;
    const { heldBytes } = this;
    const isKept = heldBytes === 0 || this.#side.kept.keep(heldBytes);
    if (isKept) this.#keptBytes = heldBytes;
    this.heldBytes = 0;
    const why =
      ownReason === ""
        ? `the remote side reset the stream (${errorCodeName(errorCode)})`
        : `the remote side broke HTTP/2: ${ownReason}`;
    this.#over = { error: new ConnError("RESET", why), isPrompt: !isKept };
    this.#deliver();
  }

  receiveLost(reason: string): void {
    this.gone = true;
    this.#linger?.cancel();
    if (this.#over !== null) return;
    this.#over = { error: new ConnError("RESET", `the carrier is gone: ${reason}`), isPrompt: true };
    this.#deliverSoon();
  }

  /** What is written to it comes from a pipe, which a socket's drain starts again. */
  protected override get takesTurns(): boolean {
    return false;
  }

  protected credited(bytes: number): void {
    this.#waitingBytes -= bytes;
    if (!this.#isLingering) this.#drained();
    else if (this.#waitingBytes === 0) this.resetStream(RESET_CODE);
  }

  override offer(): void {
    this.#offerRest();
    super.offer();
    this.#drained();
  }

  #drained(): void {
    if (!this.#isDrainWanted || this.#waitingBytes > WAITING_BYTES_LOW || this.#rest !== null) return;
    if (!this.link.flowing) {
      this.link.stalled(this);
      return;
    }
    this.#isDrainWanted = false;
    this.#isDrainDue = true;
    // Not from here: this may be within `write`.
    this.#deliverSoon();
  }

  protected override resetStream(errorCode: number): void {
    this.#linger?.cancel();
    super.resetStream(errorCode);
  }

  protected override leaveIfDone(): void {
    super.leaveIfDone();
    if (!this.gone) return;
    this.#deliverSoon();
    // HTTP/2 counts it no more, and its bytes still take from the connection's window.
    if (this.#over !== null || this.heldBytes === 0 || this.#hasLeftovers) return;
    this.#hasLeftovers = true;
    this.#side.leftovers();
  }

  // --- between ---

  /** A server says that it granted the request together with its first byte, or its end: nobody waits for it sooner. */
  #answer(): void {
    if (this.#isAnswered || this.gone || this.link.over) return;
    this.#isAnswered = true;
    this.link.machine.respond(this.id, GRANTED, false);
  }

  #weigh(): void {
    if (this.bytesRead + this.bytesWritten < BULKY_BYTES) return;
    this.#isBulky = true;
    if (!this.#isClosed) this.#side.bulky();
  }

  #hold(bytes: Uint8Array, start: number, stop: number): void {
    this.#held ??= new KeptBytes();
    this.#held.push(copyOf(bytes, start, stop), 0, stop - start);
  }

  #deliverSoon(): void {
    if (this.#isDeliveryScheduled) return;
    this.#isDeliveryScheduled = true;
    this.#side.clock.soon(this.#deliverLater);
  }

  readonly #deliverLater = (): void => {
    this.#isDeliveryScheduled = false;
    this.#deliver();
  };

  #deliver(): void {
    if (this.#isClosed) return;
    if (this.#handler === null) {
      // Nobody is there to be told, but who counts it.
      if (this.#over !== null) this.#close(this.#over.error);
      return;
    }
    if (this.#isDrainDue) {
      this.#isDrainDue = false;
      if (this.#over === null) this.#handler.onDrain();
    }
    while (!this.#isPaused && this.#front.length > 0) this.#handler.onData(this.#front.shift() as Uint8Array);
    while (!this.#isPaused && this.#front.length === 0 && this.#held !== null) this.#deliverHeld(this.#held);
    if (this.#over !== null) {
      const isRead = this.#front.length === 0 && this.#held === null;
      if (this.#over.isPrompt || isRead) this.#close(this.#over.error);
      return;
    }
    if (this.#isPaused || this.#front.length > 0 || !this.#remoteEnded) return;
    if (!this.#endTold) {
      this.#endTold = true;
      this.#handler.onEnd();
    }
    if (this.#over === null && this.sent) this.#close(null);
  }

  #deliverHeld(held: KeptBytes): void {
    const bytes = held.chunks.shift() as Uint8Array;
    if (held.isEmpty) this.#held = null;
    if (this.#keptBytes > 0) {
      this.#keptBytes -= bytes.length;
      this.#side.kept.letGo(bytes.length);
    } else this.release(bytes.length);
    if (this.heldBytes === 0) this.#readLeftovers();
    this.#handler?.onData(bytes);
  }

  #readLeftovers(): void {
    if (!this.#hasLeftovers) return;
    this.#hasLeftovers = false;
    this.#side.leftoversRead();
  }

  #close(error: ConnError | null): void {
    if (this.#isClosed) return;
    this.#isClosed = true;
    if (this.#isBulky) this.#side.bulkyOver();
    if (this.#keptBytes > 0) this.#side.kept.letGo(this.#keptBytes);
    this.#keptBytes = 0;
    this.#readLeftovers();
    this.#front = [];
    this.#held = null;
    this.closed?.(error);
    this.closed = null;
    this.#handler?.onClose(error);
  }
}

export function isCarried(conn: Conn): conn is CarrierConn {
  return conn instanceof CarrierConn;
}
