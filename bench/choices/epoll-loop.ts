/**
 * Plain TCP over an epoll loop of our own, through `node:ffi`. As little as a hop needs: enough to say what it would cost, not to carry
 * a mesh. What is read lies in one buffer for all, valid until the callback returns.
 */
import ffi from "node:ffi";
import {
  acceptFrom,
  close,
  connectTo,
  EAGAIN,
  EPOLL_CTL_ADD,
  EPOLL_CTL_MOD,
  EPOLL_DATA_AT,
  EPOLL_EVENT_BYTES,
  EPOLLIN,
  EPOLLOUT,
  epollControl,
  epollCreate,
  epollWait,
  listenOn,
} from "./sockets.ts";

const EVENTS_MAX = 256;
const READ_BYTES = 64 * 1024;
const MSG_NOSIGNAL = 0x4000;
const UV_READABLE = 1;
const UV_POLL = 8;

/** Lengths as 32 bits: they are small, and the calling conventions of both our processors allow it. A BigInt would cost more than the call. */
const { functions: libc } = ffi.dlopen(null, {
  send: { arguments: ["int32", "buffer", "uint32", "int32"], return: "int32" },
  recv: { arguments: ["int32", "buffer", "uint32", "int32"], return: "int32" },
  __errno_location: { arguments: [], return: "pointer" },
});

export class EpollConn {
  /** Called with what came, `bytes[0, length)`, and once with length 0 or less at the end. */
  received: (bytes: Buffer, length: number) => void = () => undefined;
  readonly fd: number;
  readonly #loop: EpollLoop;
  #waiting: Buffer[] = [];
  #isOpen = true;

  constructor(loop: EpollLoop, fd: number, isConnecting: boolean) {
    this.#loop = loop;
    this.fd = fd;
    // What is written before the connection is there waits as if the kernel were full.
    if (isConnecting) this.#waiting.push(Buffer.alloc(0));
  }

  write(bytes: Uint8Array, length: number): void {
    if (!this.#isOpen) return;
    const done = this.#waiting.length > 0 ? 0 : libc.send(this.fd, bytes, length, MSG_NOSIGNAL);
    if (done === length) return;
    if (done < 0 && ffi.getInt32(libc.__errno_location()) !== EAGAIN) return this.close();
    if (this.#waiting.length === 0) this.#loop.watch(EPOLL_CTL_MOD, this.fd, EPOLLIN | EPOLLOUT);
    this.#waiting.push(Buffer.from(bytes.subarray(Math.max(done, 0), length)));
  }

  close(): void {
    if (!this.#isOpen) return;
    this.#isOpen = false;
    this.#loop.forget(this.fd);
    close(this.fd);
    this.received(READ, 0);
  }

  happened(events: number): void {
    if ((events & EPOLLOUT) !== 0) this.#flush();
    if ((events & ~EPOLLOUT) === 0 || !this.#isOpen) return;
    const length = libc.recv(this.fd, READ, READ_BYTES, 0);
    if (length > 0) this.received(READ, length);
    else if (length === 0 || ffi.getInt32(libc.__errno_location()) !== EAGAIN) this.close();
  }

  #flush(): void {
    for (let first = this.#waiting[0]; first !== undefined; first = this.#waiting[0]) {
      const done = libc.send(this.fd, first, first.length, MSG_NOSIGNAL);
      if (done < 0) return;
      if (done < first.length) this.#waiting[0] = first.subarray(done);
      else this.#waiting.shift();
    }
    this.#loop.watch(EPOLL_CTL_MOD, this.fd, EPOLLIN);
  }
}

const READ = Buffer.alloc(READ_BYTES);

export class EpollLoop {
  readonly #epoll = epollCreate();
  readonly #events = Buffer.alloc(EVENTS_MAX * EPOLL_EVENT_BYTES);
  readonly #event = Buffer.alloc(EPOLL_EVENT_BYTES);
  readonly #conns: (EpollConn | undefined)[] = [];
  readonly #listeners = new Map<number, (conn: EpollConn) => void>();
  /** Kept for as long as libuv knows their addresses. */
  readonly held: unknown[] = [];

  listen(port: number, accept: (conn: EpollConn) => void): void {
    const fd = listenOn(port);
    this.#listeners.set(fd, accept);
    this.watch(EPOLL_CTL_ADD, fd, EPOLLIN);
  }

  connect(port: number, host: string): EpollConn {
    const conn = new EpollConn(this, connectTo(port, host), true);
    this.#add(conn, EPOLLIN | EPOLLOUT);
    return conn;
  }

  watch(what: number, fd: number, events: number): void {
    this.#event.writeUInt32LE(events, 0);
    this.#event.writeInt32LE(fd, EPOLL_DATA_AT);
    epollControl(this.#epoll, what, fd, this.#event);
  }

  forget(fd: number): void {
    this.#conns[fd] = undefined;
  }

  /** Everything that has happened; waits for it at most `timeoutMs`, -1 for ever. */
  turn(timeoutMs: number): void {
    const count = epollWait(this.#epoll, this.#events, timeoutMs);
    for (let i = 0; i < count; i++) {
      const at = i * EPOLL_EVENT_BYTES;
      const fd = this.#events.readInt32LE(at + EPOLL_DATA_AT);
      const conn = this.#conns[fd];
      if (conn !== undefined) conn.happened(this.#events.readUInt32LE(at));
      else this.#accept(fd);
    }
  }

  /** Alone: this thread does nothing else any more. */
  runAlone(): never {
    for (;;) this.turn(-1);
  }

  /** Beside Node's loop: libuv, whose functions Node exports, waits for our epoll as for a socket. */
  runInside(): void {
    const { functions: uv, lib } = ffi.dlopen(null, {
      uv_default_loop: { arguments: [], return: "pointer" },
      uv_handle_size: { arguments: ["int32"], return: "uint64" },
      uv_poll_init: { arguments: ["pointer", "buffer", "int32"], return: "int32" },
      uv_poll_start: { arguments: ["buffer", "int32", "pointer"], return: "int32" },
    });
    const handle = Buffer.alloc(Number(uv.uv_handle_size(UV_POLL)));
    const callback = lib.registerCallback({ arguments: ["pointer", "int32", "int32"], return: "void" }, () =>
      this.turn(0),
    );
    const error =
      uv.uv_poll_init(uv.uv_default_loop(), handle, this.#epoll) ||
      uv.uv_poll_start(handle, UV_READABLE, callback);
    if (error !== 0) throw new Error(`libuv does not wait for the epoll: error ${error}`);
    this.held.push(handle, callback, lib);
  }

  #accept(listener: number): void {
    const accept = this.#listeners.get(listener);
    if (accept === undefined) return;
    for (let fd = acceptFrom(listener); fd >= 0; fd = acceptFrom(listener)) {
      const conn = new EpollConn(this, fd, false);
      this.#add(conn, EPOLLIN);
      accept(conn);
    }
  }

  #add(conn: EpollConn, events: number): void {
    this.#conns[conn.fd] = conn;
    this.watch(EPOLL_CTL_ADD, conn.fd, events);
  }
}
