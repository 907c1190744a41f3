/**
 * The one place that knows what Node has no public word for. Whatever is used is looked for first: with a Node that has
 * changed, everything goes on by public ways.
 */
import { Socket, type Server } from "node:net";
import { join } from "./blocks.ts";
import { READ_BLOCK_BYTES } from "./read-block.ts";

/** What one read may bring: with the head of an HTTP/2 frame in front, whole records to the byte. */
const READ_BYTES_MAX = READ_BLOCK_BYTES - 9;
/** Room in front of what was read, for what is to be sent before it. */
const HEADROOM_BYTES = 64;

interface Handle {
  readonly fd?: number;
  readonly writeQueueSize?: number;
  getpeername?(out: object): number;
  useUserBuffer?(buffer: Uint8Array): void;
  /** What Node calls with what was read, or an error; gives the memory for the next read. */
  onread?: () => Uint8Array | undefined;
  /** Kept by Node's JavaScript. */
  reading?: boolean;
  /** 0 = done. */
  readStart?(): number;
  readStop?(): number;
  /** 0 = done. */
  setNoDelay?(isOn: boolean): number;
  /** Units: seconds. */
  setKeepAlive?(isOn: boolean, idle: number, interval: number, probes: number): number;
}

function handleOf(socket: Socket | Server): Handle | null {
  return (socket as unknown as { _handle?: Handle | null })._handle ?? null;
}

/** The file descriptor of an accepted socket, or -1. */
export function descriptorOf(socket: Socket): number {
  return handleOf(socket)?.fd ?? -1;
}

/**
 * Sets on a listening socket what Linux gives to each connection from then on, instead of in five system calls for each: small writes leave at
 * once, and TCP keep-alive as `Socket.setKeepAlive` has it (0: none). False: not done, or in part.
 */
export function setForAccepted(server: Server, keepAliveMs: number): boolean {
  const handle = handleOf(server);
  if (process.platform !== "linux" || handle?.setNoDelay === undefined || handle.setKeepAlive === undefined)
    return false;
  if (handle.setNoDelay(true) !== 0) return false;
  return keepAliveMs === 0 || handle.setKeepAlive(true, Math.trunc(keepAliveMs / 1000), 1, 10) === 0;
}

/** Bytes of a write that the kernel has not taken. Node itself looks there for its timeouts. */
export function queuedBytesOf(socket: Socket): number {
  return handleOf(socket)?.writeQueueSize ?? 0;
}

/** Whether the kernel still has a connection there. `remoteAddress` will not do: it says what it said before. */
export function isConnected(socket: Socket): boolean {
  return handleOf(socket)?.getpeername?.({}) === 0;
}

/**
 * All sockets of this thread read into this one buffer. Node's own way allocates 64 KiB for each read, which costs more than
 * the read of a small message, and idle connections hold nothing so. What was read is lent for one call, and nothing else
 * can be read before that returns. Never replaced, for sockets know its address.
 */
const readMemory = Buffer.allocUnsafeSlow(HEADROOM_BYTES + READ_BYTES_MAX);
export const readBuffer: Buffer = readMemory.subarray(HEADROOM_BYTES);

/**
 * Puts what is to be sent before `lent` in front of it, where it lies, and gives both as one piece. Null: there is no room, or it does
 * not begin where reads do, so that somebody may still look at what is before it.
 */
export function putInFront(pieces: readonly Uint8Array[], bytes: number, lent: Uint8Array): Buffer | null {
  if (
    bytes > HEADROOM_BYTES ||
    lent.buffer !== readMemory.buffer ||
    lent.byteOffset !== readBuffer.byteOffset
  )
    return null;
  const start = HEADROOM_BYTES - bytes;
  const whole = readMemory.subarray(start, HEADROOM_BYTES + lent.length);
  join(pieces, whole);
  return whole;
}

const NO_ROOM = readBuffer.subarray(0, 0);

/** Node's names for what its public option `onread` sets. Null: not this Node. */
const keys = ((): { buffer: keyof Socket; next: keyof Socket; callback: keyof Socket } | null => {
  const next = (): Buffer => readBuffer;
  const callback = (): boolean => true;
  const fixed = new Socket({ onread: { buffer: readBuffer, callback } });
  const varying = new Socket({ onread: { buffer: next, callback } });
  const find = (probe: Socket, value: unknown): symbol[] =>
    Object.getOwnPropertySymbols(probe).filter(
      (symbol) => (probe as unknown as Record<symbol, unknown>)[symbol] === value,
    );
  const found = [...find(fixed, readBuffer), ...find(varying, next), ...find(fixed, callback)];
  fixed.destroy();
  varying.destroy();
  if (found.length !== 3) return null;
  return { buffer: found[0] as never, next: found[1] as never, callback: found[2] as never };
})();

/**
 * Makes an open socket lend what it reads to `receive`, as `memory[0, size)` for the call, instead of emitting `data`: `onread` for a
 * socket that is there already. `receive` says where the next read is to go, which is its own memory then, or null: no change. The socket
 * must be paused; what it had read before is returned. Null: this socket cannot, and is unchanged. From within `receive` the socket may be
 * paused, ended and destroyed.
 *
 * `readable`, if any, is called once before the first read, when there is something to read. Until then there is no room for a read,
 * which libuv says where it would have read.
 */
export function lendReads(
  socket: Socket,
  receive: (memory: Uint8Array, size: number) => Uint8Array | null,
  readable: (() => void) | null = null,
): Uint8Array[] | null {
  const handle = handleOf(socket);
  if (keys === null || handle === null || typeof handle.useUserBuffer !== "function") return null;
  const before: Uint8Array[] = [];
  for (let bytes = take(socket); bytes !== null; bytes = take(socket)) before.push(bytes);
  const fields = socket as unknown as Record<keyof Socket, unknown>;
  let next: Uint8Array | null = null;
  fields[keys.buffer] = readBuffer;
  const { next: nextKey } = keys;
  const giveNext = (): Uint8Array | null => next;
  fields[keys.callback] = (size: number, memory: Uint8Array): boolean => {
    const place = receive(memory, size);
    if (place !== next) {
      next = place;
      // Node asks after this call; it need not for a message.
      fields[nextKey] = place === null ? null : giveNext;
    }
    return true;
  };
  const { onread } = handle;
  if (readable === null || typeof onread !== "function") handle.useUserBuffer(readBuffer);
  else {
    handle.useUserBuffer(NO_ROOM);
    handle.onread = () => {
      handle.onread = onread;
      readable();
      return readBuffer;
    };
  }
  // Taking what was there may have begun to read.
  socket.pause();
  return before;
}

function take(socket: Socket): Uint8Array | null {
  return socket.readableLength === 0 ? null : (socket.read() as Uint8Array | null);
}

/**
 * Begins to read. A socket that lends its reads needs nothing else of its stream than the handle's own call: that it flows, and telling
 * of it a tick later, is for listeners that it has not.
 */
export function startReading(socket: Socket): void {
  const handle = lendingHandleOf(socket);
  if (handle?.reading === true) return;
  if (handle?.reading === false) {
    handle.reading = true;
    if (handle.readStart?.() === 0) return;
    // Node tries again, and tells of the error.
    handle.reading = false;
  }
  socket.resume();
}

/** Undoes `startReading`. */
export function stopReading(socket: Socket): void {
  const handle = lendingHandleOf(socket);
  if (handle?.reading === true && handle.readStop?.() === 0) handle.reading = false;
  else socket.pause();
}

function lendingHandleOf(socket: Socket): Handle | null {
  if (keys === null) return null;
  const isLending = typeof (socket as unknown as Record<keyof Socket, unknown>)[keys.callback] === "function";
  return isLending ? handleOf(socket) : null;
}

/** Undoes `lendReads`: the socket is an ordinary one again, paused. */
export function stopLending(socket: Socket): void {
  if (keys === null) return;
  socket.pause();
  const fields = socket as unknown as Record<keyof Socket, unknown>;
  fields[keys.buffer] = null;
  fields[keys.next] = null;
  fields[keys.callback] = null;
}

/** What streams call to have something written; the part below Node's queue. */
interface Sink {
  _write(bytes: Uint8Array, encoding: "buffer", done: (error?: Error | null) => void): void;
  _writev(
    pieces: { chunk: Uint8Array }[] & { allBuffers?: boolean },
    done: (error?: Error | null) => void,
  ): void;
}

/**
 * Writes past Node's own queue, which costs more than the system call of a small message. One write at a time: the caller waits for
 * `done`, which may come from within, before the next, and before `end`. The memory must stay as it is until then.
 */
export function writeDirectly(socket: Socket, bytes: Uint8Array, done: (error?: Error | null) => void): void {
  (socket as unknown as Sink)._write(bytes, "buffer", done);
}

/** As `writeDirectly`, in one system call. Uses up the list. */
export function writeAllDirectly(
  socket: Socket,
  pieces: readonly Uint8Array[],
  done: (error?: Error | null) => void,
): void {
  const list: { chunk: Uint8Array }[] & { allBuffers?: boolean } = pieces.map((chunk) => ({ chunk }));
  list.allBuffers = true;
  (socket as unknown as Sink)._writev(list, done);
}
