import type { Clock } from "#/base/clock.ts";
import type { ConnHandler } from "#/base/conn.ts";
import type { SocketAddress } from "#/base/address.ts";
import { ConnError } from "#/base/errors.ts";
import type { Random } from "#/base/random.ts";
import type { MeteredConn } from "#/stack/metrics/transport.ts";

const BUFFERED_BYTES_HIGH = 64 * 1024;
const BUFFERED_BYTES_LOW = 16 * 1024;
/** What a socket's receive buffer holds before the sender has to wait. */
const RECEIVED_BYTES_MAX = 32 * 1024;

/** How a link behaves: delay, and into what pieces it cuts what is written. */
export interface Link {
  readonly clock: Clock;
  readonly random: Random;
  readonly delayMs: number;
}

/** One end of a simulated TCP connection, with the semantics of `SocketConn`. Bytes arrive in pieces of random length. */
export class MemoryConn implements MeteredConn {
  readonly local: SocketAddress;
  readonly remote: SocketAddress;
  bytesRead = 0;
  bytesWritten = 0;
  closed: ((error: ConnError | null) => void) | null = null;
  peer: MemoryConn | null = null;
  readonly #link: Link;
  #handler: ConnHandler | null = null;
  /** Written, not yet taken by the peer's receive buffer. */
  #sendQueue: Uint8Array[] = [];
  #sendBytes = 0;
  #received: Uint8Array[] = [];
  #receivedBytes = 0;
  #isPaused = false;
  #wantsDrain = false;
  #isEnded = false;
  #finSent = false;
  #finReceived = false;
  #endTold = false;
  #error: ConnError | null = null;
  #isClosed = false;
  #closeTold = false;
  #deliveryScheduled = false;
  #sendScheduled = false;

  constructor(link: Link, local: SocketAddress, remote: SocketAddress) {
    this.#link = link;
    this.local = local;
    this.remote = remote;
  }

  static pair(link: Link, a: SocketAddress, b: SocketAddress): [MemoryConn, MemoryConn] {
    const left = new MemoryConn(link, a, b);
    const right = new MemoryConn(link, b, a);
    left.peer = right;
    right.peer = left;
    return [left, right];
  }

  get bufferedBytes(): number {
    return this.#sendBytes;
  }

  get sentBytes(): number {
    return this.bytesWritten - this.#sendBytes;
  }

  writeLent(bytes: Uint8Array): boolean {
    return this.write(new Uint8Array(bytes));
  }

  unsend(bytes: number): boolean {
    if (this.#sendBytes !== bytes) return false;
    this.#sendQueue = [];
    this.#sendBytes = 0;
    this.bytesWritten -= bytes;
    return true;
  }

  setHandler(handler: ConnHandler): void {
    this.#handler = handler;
    this.#endTold = false;
    this.#scheduleDelivery();
  }

  write(bytes: Uint8Array): boolean {
    if (this.#isEnded || this.#isClosed || bytes.length === 0) return true;
    this.bytesWritten += bytes.length;
    this.#sendQueue.push(bytes);
    this.#sendBytes += bytes.length;
    this.#scheduleSend();
    if (this.#sendBytes < BUFFERED_BYTES_HIGH) return true;
    this.#wantsDrain = true;
    return false;
  }

  end(): void {
    if (this.#isEnded || this.#isClosed) return;
    this.#isEnded = true;
    this.#scheduleSend();
  }

  reset(): void {
    if (this.#isClosed) return;
    const { clock, delayMs } = this.#link;
    const { peer } = this;
    // What was written goes first, as far as it fits; then RST.
    const last = this.#sendQueue;
    this.#close(new ConnError("ABORTED", "reset by this side"));
    clock.after(delayMs, () => {
      if (peer === null) return;
      for (const bytes of last) if (peer.#receivedBytes < RECEIVED_BYTES_MAX) peer.#receive(bytes);
      clock.after(0, () => peer.#close(new ConnError("RESET", "reset by the remote side")));
    });
  }

  /** The machine vanished: nothing is sent, and this side learns nothing. */
  vanish(): void {
    this.peer = null;
    this.#isClosed = true;
    this.#closeTold = true;
  }

  pause(): void {
    this.#isPaused = true;
  }

  resume(): void {
    if (!this.#isPaused) return;
    this.#isPaused = false;
    this.#scheduleDelivery();
  }

  unread(bytes: Uint8Array): void {
    if (bytes.length === 0) return;
    this.#received.unshift(bytes);
    this.#receivedBytes += bytes.length;
    this.bytesRead -= bytes.length;
    this.#scheduleDelivery();
  }

  #scheduleSend(): void {
    if (this.#sendScheduled) return;
    this.#sendScheduled = true;
    this.#link.clock.after(this.#link.delayMs, () => this.#send());
  }

  /** Moves what fits into the peer's receive buffer, in pieces. */
  #send(): void {
    this.#sendScheduled = false;
    const { peer } = this;
    if (peer === null || this.#isClosed) return;
    while (this.#sendQueue.length > 0 && peer.#receivedBytes < RECEIVED_BYTES_MAX) {
      const bytes = this.#sendQueue[0] as Uint8Array;
      const most = Math.min(bytes.length, RECEIVED_BYTES_MAX - peer.#receivedBytes);
      // Often whole, often cut anywhere: a byte at a time would only cost time.
      const size =
        this.#link.random.next() < 0.6 ? most : Math.max(1, Math.ceil(most * this.#link.random.next()));
      peer.#receive(bytes.slice(0, size));
      if (size === bytes.length) this.#sendQueue.shift();
      else this.#sendQueue[0] = bytes.subarray(size);
      this.#sendBytes -= size;
    }
    if (this.#sendQueue.length === 0 && this.#isEnded && !this.#finSent) {
      this.#finSent = true;
      peer.#finReceived = true;
      peer.#scheduleDelivery();
      this.#closeIfOver();
    }
    if (this.#wantsDrain && this.#sendBytes <= BUFFERED_BYTES_LOW) {
      this.#wantsDrain = false;
      this.#link.clock.soon(() => this.#handler?.onDrain());
    }
  }

  #receive(bytes: Uint8Array): void {
    if (this.#isClosed) return;
    this.#received.push(bytes);
    this.#receivedBytes += bytes.length;
    this.#scheduleDelivery();
  }

  #scheduleDelivery(): void {
    if (this.#deliveryScheduled) return;
    this.#deliveryScheduled = true;
    this.#link.clock.soon(() => this.#deliver());
  }

  #deliver(): void {
    this.#deliveryScheduled = false;
    if (this.#handler === null || this.#closeTold) return;
    while (!this.#isPaused && this.#received.length > 0) {
      const bytes = this.#received.shift() as Uint8Array;
      this.#receivedBytes -= bytes.length;
      this.bytesRead += bytes.length;
      this.#handler.onData(bytes);
      if (this.#closeTold) return;
    }
    if (this.peer !== null) this.peer.#scheduleSend();
    if (this.#isClosed && this.#error !== null) {
      this.#tellClose();
      return;
    }
    if (this.#isPaused || this.#received.length > 0) return;
    if (this.#finReceived && !this.#endTold) {
      this.#endTold = true;
      this.#handler.onEnd();
      this.#closeIfOver();
    }
    if (this.#isClosed) this.#tellClose();
  }

  #closeIfOver(): void {
    if (this.#finSent && this.#finReceived && this.#received.length === 0) this.#close(null);
  }

  #close(error: ConnError | null): void {
    if (this.#isClosed) return;
    this.#isClosed = true;
    this.#error = error;
    this.#sendQueue = [];
    this.#sendBytes = 0;
    this.closed?.(error);
    this.closed = null;
    this.#scheduleDelivery();
  }

  #tellClose(): void {
    if (this.#closeTold) return;
    this.#closeTold = true;
    this.#handler?.onClose(this.#error);
  }
}
