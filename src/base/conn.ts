import type { ConnError } from "./errors.ts";
import type { SocketAddress } from "./address.ts";

/** Reads of fewer bytes are cheaper copied once, as they come, than in the parts that are kept of them. */
export const LONG_READ_BYTES_MIN = 8_192;

/**
 * What a connection tells its owner. Calls come one at a time and never from inside a method of the same `Conn`.
 * After `onClose` nothing follows; it comes exactly once.
 */
export interface ConnHandler {
  /**
   * True: `bytes` may be lent to `onData` for the call only, which costs least; the memory holds another connection's bytes
   * afterwards. Only for whoever keeps no view of them, as by `writeLent`. The same value for its whole life.
   */
  readonly borrows?: boolean;
  /**
   * The same for `bytes` from `LONG_READ_BYTES_MIN` on only: those may be lent, or not, and shorter ones are the receiver's as ever. For
   * whoever passes most of what is long on at once, and copies the rest.
   */
  readonly borrowsLong?: boolean;
  /**
   * Bytes from the remote side. The receiver owns `bytes` from here on, unless it `borrows`. Not called while paused.
   */
  onData(bytes: Uint8Array): void;
  /** The remote side ended its half cleanly (FIN; close_notify under TLS; END_STREAM on a carrier). */
  onEnd(): void;
  /** The write buffer fell below its mark after `write` had returned false. */
  onDrain(): void;
  /** Both halves are over. `error` is null after a clean end, else why: a reset is `code === "RESET"`. */
  onClose(error: ConnError | null): void;
}

/**
 * One byte stream: a TCP socket, a TLS connection, an opaque stream between sidecars, or a simulated link. The only
 * thing that protocol drivers know of the network. Half-close is kept in both directions.
 */
export interface Conn {
  readonly local: SocketAddress;
  readonly remote: SocketAddress;
  /** Set once by the owner, before data is delivered; may be handed over to another handler later. */
  setHandler(handler: ConnHandler): void;
  /**
   * Queues `bytes` (ownership passes to the connection). False when the owner should wait for `onDrain`; bytes given
   * meanwhile are still sent. Writes of one turn are joined into one system call. Ignored after `end`, `reset`, close.
   */
  write(bytes: Uint8Array): boolean;
  /**
   * As `write`, but `bytes` stay the caller's: whatever cannot be sent before it returns is copied. `isPatient`: false already while
   * TLS has them under way, for whoever would rather wait than have more copied.
   */
  writeLent(bytes: Uint8Array, isPatient?: boolean): boolean;
  /** Bytes accepted by `write` and not yet given to the kernel. */
  readonly bufferedBytes: number;
  /** Bytes that the kernel has taken so far, as near as can be told: grows while the remote side, or its buffer, takes them. */
  readonly sentBytes: number;
  /**
   * Takes back the last `bytes` written, all or none: false once the kernel was given any of them. Also from `onEnd` and
   * `onClose`, where it proves that the remote side cannot have seen them.
   */
  unsend(bytes: number): boolean;
  /** Half-close: everything written is sent, then FIN. Reading goes on. */
  end(): void;
  /** Ends both halves at once; TCP sends RST. For errors that the remote side must see as errors. */
  reset(): void;
  /** Stops and resumes `onData`. A paused connection pushes back on the remote side through TCP. */
  pause(): void;
  resume(): void;
  /** Puts bytes back in front of what will be read next (detection returns what it looked at). */
  unread(bytes: Uint8Array): void;
}
