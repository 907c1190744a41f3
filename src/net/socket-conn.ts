import type { Socket } from "node:net";
import type { Clock, Timer } from "#/base/clock.ts";
import type { Conn, ConnHandler } from "#/base/conn.ts";
import { LONG_READ_BYTES_MIN } from "#/base/conn.ts";
import { parseIp, type IpAddress, type SocketAddress } from "#/base/address.ts";
import { assert } from "#/base/assert.ts";
import { copyOf } from "#/base/copy-of.ts";
import { ConnError, type ConnErrorCode } from "#/base/errors.ts";
import { KeptBytes } from "#/base/kept-bytes.ts";
import { BLOCK_BYTES, giveBlock, join, joinBuffer, takeBlock } from "./blocks.ts";
import {
  isConnected,
  lendReads,
  putInFront,
  queuedBytesOf,
  readBuffer,
  startReading,
  stopLending,
  stopReading,
  writeAllDirectly,
  writeDirectly,
} from "./node-socket.ts";
import {
  GatheredReads,
  giveReadBlock,
  isKeepable,
  keepLent,
  READ_BLOCK_BYTES,
  RECORD_BYTES,
  type ReadBlock,
} from "./read-block.ts";
import { SOON_ROUNDS_MAX, turn } from "./turn.ts";

/** `write` asks its caller to wait from here on; about what a fast reader takes in one turn. */
const BUFFERED_BYTES_HIGH = 256 * 1024;
/** … until it is down to this. */
const BUFFERED_BYTES_LOW = 64 * 1024;
/** So often a reset looks whether a FIN under way is gone: in three turns of the event loop. */
const RESET_LOOKS_MAX = 3 * SOON_ROUNDS_MAX;
/** A half-closed connection is asked so often whether the remote side is still there. */
const HALF_CLOSED_LOOK_MS = 15_000;
/** Writes of one turn are copied together up to here, and given as a list beyond. TLS would copy a list itself, to memory of its own. */
const JOIN_BYTES_MAX = 16 * 1024;
/** From here on blocks that are used again are worth it: many connections may have one under way each. */
const BLOCK_USE_BYTES_MIN = 8 * 1024;
/** What is lent to TLS goes at once from here on, with what is pending: a record's worth. */
const LENT_AT_ONCE_BYTES_MIN = RECORD_BYTES;
/** A ClientHello with two post-quantum key shares fits. */
const peekBuffer = Buffer.allocUnsafeSlow(4 * 1024);
/** Of a block that is lent and may be kept, half or more is worth all of it. */
const KEPT_BYTES_MIN = READ_BLOCK_BYTES / 2;

/**
 * A TCP connection, or the TLS connection on top of one, as a `Conn`. Nothing is read before the first handler is set.
 * A handler that is set after the remote side ended (or everything did) is told so again.
 *
 * Bounds: one write to the kernel is under way at a time; what is given meanwhile waits here, and `write` returns false
 * from `BUFFERED_BYTES_HIGH` on. Whoever goes on writing then is the bound.
 */
export class SocketConn implements Conn {
  /** Payload bytes so far (plaintext under TLS). */
  bytesRead = 0;
  bytesWritten = 0;
  /** Told at the close, beside the handler: for metrics. */
  closed: ((error: ConnError | null) => void) | null = null;
  /** Shown the first bytes that come, once, before any handler: an error means that they are none of its, and ends the connection. */
  inspectFirst: ((bytes: Uint8Array) => ConnError | null) | null = null;

  /**
   * Copies what the kernel has to be read and leaves it there: how many bytes; 0 at an end, null where the connection is broken. Set before the
   * first handler is, which is shown the first bytes so. A TLS connection on top reads them itself then: Node reads for a TLS connection's whole
   * life in pieces as long as the first that it is handed.
   */
  peek: ((into: Uint8Array) => number | null) | null = null;

  readonly #clock: Clock;
  readonly #socket: Socket;
  /** The TCP socket below: `#socket` itself without TLS. Only it can send RST. */
  readonly #tcp: Socket;
  readonly #isTls: boolean;
  #handler: ConnHandler | null = null;
  readonly #pending = new KeptBytes();
  #pendingBytes = 0;
  /** What was pending at the close, or given later. */
  #lostBytes = 0;
  /** Bytes given to the socket whose write has not completed. */
  #flyingBytes = 0;
  /** What `writeLent` copied to and is pending; the last may have room. */
  #blocks: Buffer[] = [];
  #lastBlockBytes = 0;
  /** … and those whose write has not completed. Nobody else has a view of either. */
  #flyingBlocks: Buffer[] = [];
  /** … in a block of reads that was kept for it. */
  #keptBlock: ReadBlock | null = null;
  /** Under TLS. */
  #gathered: GatheredReads | null = null;
  #flushScheduled = false;
  #wantsDrain = false;
  #front: Uint8Array[] = [];
  /** The first bytes that the kernel has were given to the handler already. */
  #peekedBytes = 0;
  #deliveryScheduled = false;
  /** The kernel is read from. */
  #isReading = false;
  /** Within `onData` of a read that was not all that could come: see `#stopReading`. */
  #isInShortRead = false;
  #isPaused = false;
  #isEnded = false;
  #isFinished = false;
  #isReset = false;
  #resetLooks = 0;
  #remoteEnded = false;
  #endTold = false;
  #isClosed = false;
  #closeTold = false;
  #error: ConnError | null = null;
  #look: Timer | null = null;
  #local: SocketAddress | null = null;
  #remote: SocketAddress | null = null;

  constructor(clock: Clock, socket: Socket, tcp: Socket = socket) {
    this.#clock = clock;
    this.#socket = socket;
    this.#tcp = tcp;
    this.#isTls = tcp !== socket;
    socket.on("error", this.#onError);
    socket.on("close", this.#onClose);
  }

  /** Asking for either end is a system call. Who does so first once it is closed is told of zeros. */
  get remote(): SocketAddress {
    this.#remote ??= addressOf(this.#tcp.remoteAddress, this.#tcp.remotePort);
    return this.#remote;
  }

  get local(): SocketAddress {
    this.#local ??= addressOf(this.#tcp.localAddress, this.#tcp.localPort);
    return this.#local;
  }

  get bufferedBytes(): number {
    // A write under way may have gone in part; its callback only tells of the whole.
    const flying = this.#flyingBytes;
    return this.#pendingBytes + (flying === 0 ? 0 : Math.min(flying, queuedBytesOf(this.#tcp)));
  }

  get sentBytes(): number {
    return this.bytesWritten - this.bufferedBytes;
  }

  get isClosed(): boolean {
    return this.#isClosed;
  }

  setHandler(handler: ConnHandler): void {
    const isFirst = this.#handler === null;
    this.#handler = handler;
    this.#endTold = false;
    if (isFirst) {
      this.#socket.on("end", this.#onEnd);
      if (this.#isTls) this.#gathered = new GatheredReads(this.#clock, this.#onLent);
      const before = lendReads(this.#socket, this.#onRead, this.peek === null ? null : this.#onReadable);
      if (before === null) this.#socket.on("data", this.#onData);
      else this.#front.push(...before);
    }
    this.#scheduleDelivery();
  }

  write(bytes: Uint8Array): boolean {
    // Whoever has not been told of the close yet goes on writing: it has not been sent.
    if (this.#isClosed && !this.#isEnded) this.#lostBytes += bytes.length;
    if (this.#isEnded || this.#isClosed || bytes.length === 0) return true;
    this.#pending.push(bytes, 0, bytes.length);
    return this.#hasQueued(bytes.length);
  }

  writeLent(bytes: Uint8Array, isPatient = false): boolean {
    const isSmall = bytes.length < BLOCK_USE_BYTES_MIN && this.#blocks.length === 0;
    if (this.#isEnded || this.#isClosed || isSmall) return this.write(copyOf(bytes));
    // OpenSSL has encrypted or copied everything before the call returns, while the kernel would read from this memory later.
    if (
      this.#isTls &&
      this.#flyingBytes === 0 &&
      bytes.length >= LENT_AT_ONCE_BYTES_MIN &&
      (this.#pendingBytes === 0 || this.#pendingBytes + bytes.length <= joinBuffer.length)
    ) {
      const whole = putInFront(this.#pending.chunks, this.#pendingBytes, bytes);
      if (whole === null) this.#pending.push(bytes, 0, bytes.length);
      else {
        this.#pending.take();
        this.#pending.push(whole, 0, whole.length);
      }
      this.#pendingBytes += bytes.length;
      this.bytesWritten += bytes.length;
      this.#writePending();
      if (!isPatient || this.#flyingBytes === 0) return true;
      this.#wantsDrain = true;
      return false;
    }
    // Without a copy: what the kernel does not take at once stays where it is.
    if (!this.#isTls && this.#flyingBytes === 0 && bytes.length >= KEPT_BYTES_MIN && isKeepable(bytes)) {
      this.#pending.push(bytes, 0, bytes.length);
      this.#pendingBytes += bytes.length;
      this.bytesWritten += bytes.length;
      this.#writePending();
      if (this.#flyingBytes > 0) this.#keptBlock = keepLent();
      return true;
    }
    for (let at = 0; at < bytes.length;) {
      if (this.#blocks.length === 0 || this.#lastBlockBytes === BLOCK_BYTES) {
        this.#blocks.push(takeBlock());
        this.#lastBlockBytes = 0;
      }
      const block = this.#blocks[this.#blocks.length - 1] as Buffer;
      const start = this.#lastBlockBytes;
      const size = Math.min(bytes.length - at, BLOCK_BYTES - start);
      block.set(size === bytes.length ? bytes : bytes.subarray(at, at + size), start);
      this.#pending.push(block, start, start + size);
      this.#lastBlockBytes += size;
      at += size;
    }
    return this.#hasQueued(bytes.length);
  }

  #hasQueued(bytes: number): boolean {
    this.#pendingBytes += bytes;
    this.bytesWritten += bytes;
    if (!this.#flushScheduled && this.#flyingBytes === 0) {
      this.#flushScheduled = true;
      this.#clock.soon(this.#flush, true);
    }
    if (this.#pendingBytes + this.#flyingBytes < BUFFERED_BYTES_HIGH) return true;
    this.#wantsDrain = true;
    return false;
  }

  unsend(bytes: number): boolean {
    if (this.#isClosed) return bytes <= this.#lostBytes;
    if (this.#pendingBytes !== bytes) return false;
    this.#pending.take();
    this.#blocks = [];
    this.#pendingBytes = 0;
    this.bytesWritten -= bytes;
    return true;
  }

  end(): void {
    if (this.#isEnded || this.#isClosed) return;
    this.#isEnded = true;
    if (!this.#flushScheduled && this.#flyingBytes === 0) {
      this.#flushScheduled = true;
      this.#clock.soon(this.#flush, true);
    }
  }

  reset(): void {
    if (this.#isClosed || this.#isReset) return;
    // What was written before the reset goes first, as far as the kernel takes it at once: an application that
    // answers and then resets is heard in full by a client without a proxy, too.
    this.#isReset = true;
    if (this.#flyingBytes === 0 && this.#pendingBytes > 0 && !this.#isFinished) this.#writePending();
    this.#pending.take();
    this.#blocks = [];
    this.#pendingBytes = 0;
    this.#isEnded = true;
    this.#error ??= new ConnError("ABORTED", "the connection was reset by this side");
    // The TCP socket must not go while OpenSSL is calling us from inside its own work on it (Node 26 crashes).
    if (this.#isTls || this.#isShuttingDown) this.#clock.soon(this.#resetBelow);
    else this.#tcp.resetAndDestroy();
  }

  /** The FIN was asked for and has not gone yet. A handle in that state refuses to be reset, and then never closes (Node 26). */
  get #isShuttingDown(): boolean {
    return this.#isFinished && !this.#socket.writableFinished;
  }

  readonly #resetBelow = (): void => {
    // The FIN goes in the next turn, unless bytes that TLS still holds stand before it: those do not hinder a reset.
    if (this.#isShuttingDown && this.#resetLooks++ < RESET_LOOKS_MAX) {
      this.#clock.soon(this.#resetBelow);
      return;
    }
    if (!this.#tcp.destroyed) this.#tcp.resetAndDestroy();
    this.#socket.destroy();
  };

  pause(): void {
    this.#isPaused = true;
    this.#stopReading();
  }

  resume(): void {
    if (!this.#isPaused) return;
    this.#isPaused = false;
    this.#scheduleDelivery();
  }

  unread(bytes: Uint8Array): void {
    if (bytes.length === 0) return;
    this.#front.unshift(bytes);
    this.bytesRead -= bytes.length;
    this.#stopReading();
    this.#scheduleDelivery();
  }

  /**
   * Gives the socket away, with unread bytes put back into it, to become the lower half of a TLS connection. This object
   * is dead afterwards: no call comes from it and none may be made.
   */
  detach(): Socket {
    assert(
      this.#pendingBytes === 0 && this.#flyingBytes === 0,
      "a connection with unsent bytes cannot be detached",
    );
    const socket = this.#socket;
    stopLending(socket);
    socket.pause();
    this.#look?.cancel();
    socket.off("data", this.#onData);
    socket.off("end", this.#onEnd);
    socket.off("error", this.#onError);
    socket.off("close", this.#onClose);
    if (this.#peekedBytes === 0)
      for (let i = this.#front.length - 1; i >= 0; i--) socket.unshift(this.#front[i] as Uint8Array);
    else {
      const putBackBytes = this.#front.reduce((sum, { length }) => sum + length, 0);
      assert(putBackBytes === this.#peekedBytes, "what was only looked at must be put back as it was");
    }
    this.#front = [];
    this.#isEnded = true;
    this.#isClosed = true;
    this.#closeTold = true;
    return socket;
  }

  /**
   * From within a short read it waits for the end of the turn: nothing more is read before, and whoever looks at the first bytes and hands
   * the connection on has resumed by then. Stopping and starting are two system calls.
   */
  #stopReading(): void {
    if (!this.#isReading) return;
    if (this.#isInShortRead) this.#scheduleDelivery();
    else {
      this.#isReading = false;
      stopReading(this.#socket);
    }
  }

  #scheduleDelivery(): void {
    if (this.#deliveryScheduled) return;
    this.#deliveryScheduled = true;
    this.#clock.soon(this.#deliver);
  }

  /** Gives put-back bytes first, then lets the socket flow, then tells of an end that came before this handler. */
  readonly #deliver = (): void => {
    this.#deliveryScheduled = false;
    if (this.#handler === null || this.#closeTold) return;
    // A paused owner still learns of a broken connection: nothing can be read from it any more.
    if (this.#isClosed && this.#error !== null) {
      this.#tellClose();
      return;
    }
    while (!this.#isPaused && !this.#isReset && this.#front.length > 0) {
      const bytes = this.#front.shift() as Uint8Array;
      this.bytesRead += bytes.length;
      this.#handler.onData(bytes);
      // `reset` and `detach` inside the call.
      if (this.#closeTold) return;
    }
    if (this.#isPaused || this.#isReset || this.#front.length > 0) {
      this.#stopReading();
      return;
    }
    if (this.#remoteEnded && !this.#endTold) {
      this.#endTold = true;
      this.#handler.onEnd();
    }
    if (this.#isClosed) {
      this.#tellClose();
    } else if (!this.#isReading && !this.#remoteEnded) {
      this.#isReading = true;
      startReading(this.#socket);
    }
  };

  readonly #onReadable = (): void => {
    turn.inputBegins();
    let size: number | null = null;
    try {
      size = this.peek?.(peekBuffer) ?? null;
      if (size === null) this.#broke("the remote side reset the connection before it had said anything");
      // An end is read.
      else if (size > 0) this.#peeked(copyOf(peekBuffer, 0, size));
    } finally {
      turn.inputEnds(size ?? 0);
    }
  };

  #peeked(bytes: Uint8Array): void {
    this.#peekedBytes = bytes.length;
    this.#isInShortRead = true;
    this.#onData(bytes);
    this.#isInShortRead = false;
  }

  readonly #onRead = (memory: Uint8Array, size: number): Uint8Array | null => {
    turn.inputBegins();
    try {
      return this.#read(memory, size);
    } finally {
      turn.inputEnds(size);
    }
  };

  #read(memory: Uint8Array, size: number): Uint8Array | null {
    if (this.#peekedBytes > 0) return this.#readBehindPeeked(memory, size);
    const gathered = this.#gathered;
    if (gathered !== null && gathered.isGathering) return gathered.came(size) ?? readBuffer;
    this.#onLent(size === memory.length ? memory : memory.subarray(0, size));
    const handler = this.#handler;
    if (gathered === null || size !== RECORD_BYTES || handler === null) return null;
    if (handler.borrows !== true && handler.borrowsLong !== true) return null;
    return this.#isClosed || this.#isReset ? null : gathered.begin();
  }

  #readBehindPeeked(memory: Uint8Array, size: number): null {
    const peekedBytes = this.#peekedBytes;
    // Only a peer that sets TCP's urgent mark into what it had sent before brings that about: a read stops there, and leaves out a byte.
    if (size < peekedBytes) {
      this.#broke("what came is not what was looked at before");
      return null;
    }
    this.#peekedBytes = 0;
    if (peekedBytes < size) this.#onLent(memory.subarray(peekedBytes, size));
    return null;
  }

  readonly #onLent = (bytes: Uint8Array): void => {
    this.#isInShortRead = !this.#isTls && bytes.length < LONG_READ_BYTES_MIN;
    this.#take(bytes);
    this.#isInShortRead = false;
  };

  #take(bytes: Uint8Array): void {
    const handler = this.#handler;
    if (
      handler !== null &&
      (handler.borrows === true || (handler.borrowsLong === true && bytes.length >= LONG_READ_BYTES_MIN)) &&
      this.inspectFirst === null &&
      this.#front.length === 0 &&
      !this.#isPaused &&
      !this.#isReset
    ) {
      this.bytesRead += bytes.length;
      handler.onData(bytes);
    } else this.#onData(copyOf(bytes));
  }

  readonly #onData = (bytes: Uint8Array): void => {
    if (this.#isReset) return;
    if (this.inspectFirst !== null) {
      const error = this.inspectFirst(bytes);
      this.inspectFirst = null;
      if (error !== null) {
        this.#error ??= error;
        this.reset();
        return;
      }
    }
    // Put back while the socket was already flowing: keep the order.
    if (this.#front.length > 0 || this.#isPaused) {
      this.#front.push(bytes);
      this.#isInShortRead = false;
      this.#stopReading();
      this.#scheduleDelivery();
      return;
    }
    this.bytesRead += bytes.length;
    this.#handler?.onData(bytes);
  };

  readonly #onEnd = (): void => {
    // Before any task of this turn can tell of the end.
    this.#gathered?.handOver();
    this.#remoteEnded = true;
    // Once our own end is under way, the kernel tells how that goes.
    if (!this.#isFinished) this.#look = this.#clock.after(HALF_CLOSED_LOOK_MS, this.#lookForRemote);
    this.#scheduleDelivery();
  };

  /**
   * After the remote side's end libuv polls a socket only while it is written to, so that a reset goes unnoticed (Node 26). A
   * program that has closed its socket altogether looks half-closed first; its kernel resets when a keep-alive probe comes
   * after a minute or so. Whoever waits to answer must hear of that, or both connections stay for ever.
   */
  readonly #lookForRemote = (): void => {
    if (this.#isClosed || this.#isReset) return;
    if (isConnected(this.#tcp)) {
      this.#look = this.#clock.after(HALF_CLOSED_LOOK_MS, this.#lookForRemote);
      return;
    }
    this.#broke("the remote side reset the connection after it had ended its half");
  };

  #broke(message: string): void {
    this.#error ??= new ConnError("RESET", message);
    this.#tcp.destroy();
    this.#socket.destroy();
  }

  readonly #onError = (error: NodeJS.ErrnoException): void => {
    this.#error ??= connError(error);
  };

  readonly #onClose = (): void => {
    this.#gathered?.handOver();
    this.#gathered?.close();
    this.#isClosed = true;
    this.#look?.cancel();
    this.#pending.take();
    this.#blocks = [];
    this.#lostBytes = this.#pendingBytes;
    this.#pendingBytes = 0;
    this.#flyingBytes = 0;
    // A socket that is destroyed with neither error nor both ends (a server shutting its handles) was cut.
    if (this.#error === null && !(this.#remoteEnded && this.#isFinished)) {
      this.#error = new ConnError("RESET", "the connection was cut before both sides had ended it");
    }
    if (this.#error !== null) this.#front = [];
    this.closed?.(this.#error);
    this.closed = null;
    this.#scheduleDelivery();
  };

  #tellClose(): void {
    if (this.#closeTold || this.#handler === null) return;
    this.#closeTold = true;
    this.#handler.onClose(this.#error);
  }

  readonly #flush = (): void => {
    this.#flushScheduled = false;
    // An end that came before these bytes leave is told before: its owner may want them back.
    if (this.#remoteEnded && !this.#endTold) this.#deliver();
    if (this.#isClosed || this.#isReset || this.#flyingBytes > 0) return;
    if (this.#pendingBytes > 0) this.#writePending();
    else if (this.#isEnded && !this.#isFinished) {
      this.#isFinished = true;
      this.#socket.end();
    }
  };

  #writePending(): void {
    const pending = this.#pending.take();
    this.#flyingBytes = this.#pendingBytes;
    this.#pendingBytes = 0;
    if (this.#isTls) turn.writeBegins();
    if (this.#blocks.length > 0) {
      this.#flyingBlocks = this.#blocks;
      this.#blocks = [];
    }
    if (pending.length === 1) writeDirectly(this.#socket, pending[0] as Uint8Array, this.#written);
    else if (this.#isTls && this.#flyingBytes <= joinBuffer.length) {
      join(pending, joinBuffer);
      writeDirectly(this.#socket, joinBuffer.subarray(0, this.#flyingBytes), this.#written);
    } else if (!this.#isTls && this.#flyingBytes <= JOIN_BYTES_MAX) {
      const block = takeBlock();
      this.#flyingBlocks.push(block);
      join(pending, block);
      writeDirectly(this.#socket, block.subarray(0, this.#flyingBytes), this.#written);
    } else writeAllDirectly(this.#socket, pending, this.#written);
    if (!this.#isTls) return;
    // OpenSSL has encrypted or copied it all by now.
    this.#giveBlocks();
  }

  #giveBlocks(): void {
    if (this.#keptBlock !== null) giveReadBlock(this.#keptBlock);
    this.#keptBlock = null;
    const blocks = this.#flyingBlocks;
    // Emptying a list that is empty is a call into V8's runtime.
    if (blocks.length === 0) return;
    for (let i = 0; i < blocks.length; i++) giveBlock(blocks[i] as Buffer);
    blocks.length = 0;
  }

  readonly #written = (error?: Error | null): void => {
    this.#flyingBytes = 0;
    if (this.#isTls) turn.writeEnds();
    if (error) this.#socket.destroy(error);
    if (error || this.#isClosed || this.#isReset) return;
    this.#giveBlocks();
    if (this.#pendingBytes > 0 || this.#isEnded) this.#flush();
    if (this.#wantsDrain && this.#pendingBytes + this.#flyingBytes <= BUFFERED_BYTES_LOW) {
      this.#wantsDrain = false;
      this.#handler?.onDrain();
    }
  };
}

const MAPPED = "::ffff:";

/** Unknown ends (a socket that was closed before it could be asked) are all zeros. */
function addressOf(ip: string | undefined, port: number | undefined): SocketAddress {
  return { ip: ipOf(ip ?? "0.0.0.0"), port: port ?? 0 };
}

/** Node writes IPv4 as we do, and mapped into IPv6 with that at the end. */
function ipOf(text: string): IpAddress {
  if (!text.includes(":")) return text as IpAddress;
  if (text.startsWith(MAPPED) && text.includes(".")) return text.slice(MAPPED.length) as IpAddress;
  return parseIp(text) ?? ("0.0.0.0" as IpAddress);
}

/** What Node's error means for a stream that had begun. */
export function connError(error: NodeJS.ErrnoException): ConnError {
  const code = error.code ?? "";
  return new ConnError(streamCode(code), `the connection broke (${code === "" ? error.message : code})`, {
    cause: error,
  });
}

function streamCode(code: string): ConnErrorCode {
  if (code.startsWith("ERR_SSL") || code.startsWith("ERR_TLS")) return "TLS_FAILED";
  return code === "ETIMEDOUT" ? "IDLE_TIMEOUT" : "RESET";
}
