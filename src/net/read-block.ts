import type { Clock } from "#/base/clock.ts";

/** What TLS brings at a time where much follows: a full record. */
export const RECORD_BYTES: number = 16 * 1024;
const RECORDS = 8;
/** As long as the frames that our own sidecars send, with their heads. */
export const READ_BLOCK_BYTES: number = RECORDS * RECORD_BYTES;
/** So many connections may have one; others read as if nothing followed. */
const READERS_MAX = 16;
/** So many wait to be used again; more are left to the garbage collector. */
const FREE_BLOCKS_MAX = 4;

/** Memory that one connection reads into, record behind record. */
export class ReadBlock {
  readonly bytes: Buffer = Buffer.allocUnsafeSlow(READ_BLOCK_BYTES);
  /** From each record's place on. Made once: a view for each read would cost more than the read. */
  readonly places: readonly Buffer[] = Array.from({ length: RECORDS }, (_, i) =>
    this.bytes.subarray(i * RECORD_BYTES),
  );
}

const free: ReadBlock[] = [];
let readers = 0;
/** What is lent now and may be kept. */
let lent: ReadBlock | null = null;

function takeReadBlock(): ReadBlock {
  return free.pop() ?? new ReadBlock();
}

/** By whoever kept it, once, with no view of it left. */
export function giveReadBlock(block: ReadBlock): void {
  if (free.length < FREE_BLOCKS_MAX) free.push(block);
}

/** Whether `bytes` are lent in a block that may be kept. */
export function isKeepable(bytes: Uint8Array): boolean {
  return lent !== null && bytes.buffer === lent.bytes.buffer;
}

/** Makes the block that is lent the caller's, as long as it likes; its reader goes on with another. Only where `isKeepable`. */
export function keepLent(): ReadBlock {
  const block = lent as ReadBlock;
  lent = null;
  return block;
}

/**
 * Reads of one TLS connection that brings much: full records are put side by side, and handed over together when the block is full, a
 * shorter one comes or the turn ends. Whoever takes them has his work once for many, and may keep the block where he cannot pass it on.
 *
 * The connection's handle holds the address where the next record goes until that has come. So the block is this connection's alone
 * until a record that is not full says that no more follows. Bounds: `READERS_MAX` connections have one.
 */
export class GatheredReads {
  #block: ReadBlock | null = null;
  /** `#block.bytes[start, stop)` came and is not handed over. */
  #start = 0;
  #stop = 0;
  #isDue = false;
  readonly #clock: Clock;
  readonly #receive: (bytes: Uint8Array) => void;

  /** `receive` is lent the bytes for the call. */
  constructor(clock: Clock, receive: (bytes: Uint8Array) => void) {
    this.#clock = clock;
    this.#receive = receive;
  }

  get isGathering(): boolean {
    return this.#block !== null;
  }

  /**
   * A full record has come elsewhere. Says where the next is to go: behind the place of that one, which may have begun a frame as long
   * as a block. Null: not here, too many connections gather.
   */
  begin(): Uint8Array | null {
    if (readers === READERS_MAX) return null;
    readers++;
    this.#block = takeReadBlock();
    this.#start = this.#stop = RECORD_BYTES;
    return this.#block.places[1] as Buffer;
  }

  /** `size` bytes came to their place. Says where the next are to go; null: not here any more. */
  came(size: number): Uint8Array | null {
    this.#stop += size;
    if (size === RECORD_BYTES && this.#stop < READ_BLOCK_BYTES) {
      if (!this.#isDue) {
        this.#isDue = true;
        this.#clock.soon(this.#handOverLater);
      }
      return (this.#block as ReadBlock).places[this.#stop / RECORD_BYTES] as Buffer;
    }
    // Only here: the handle is told of another place before it reads again.
    lent = this.#block;
    this.handOver();
    const isKept = lent === null;
    lent = null;
    this.#start = this.#stop = 0;
    if (this.#block === null) return null;
    if (size === RECORD_BYTES) {
      if (isKept) this.#block = takeReadBlock();
      return this.#block.places[0] as Buffer;
    }
    if (!isKept) giveReadBlock(this.#block);
    this.close();
    return null;
  }

  /** What came is received before this returns. */
  handOver(): void {
    const block = this.#block;
    if (block === null || this.#start === this.#stop) return;
    const start = this.#start;
    this.#start = this.#stop;
    this.#receive(block.bytes.subarray(start, this.#stop));
  }

  /** Nothing more comes. The block is left to the garbage collector, for the handle may know of it still. */
  close(): void {
    if (this.#block === null) return;
    this.#block = null;
    readers--;
  }

  readonly #handOverLater = (): void => {
    this.#isDue = false;
    this.handOver();
  };
}
