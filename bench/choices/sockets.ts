/**
 * Sockets by their system calls, through `node:ffi`: for experiments that ask what the kernel does, or what an event loop of our own
 * would cost. IPv4 only. Functions give what the call gave, or the error number, negative.
 */
import ffi from "node:ffi";

const { functions: libc } = ffi.dlopen(null, {
  socket: { arguments: ["int32", "int32", "int32"], return: "int32" },
  bind: { arguments: ["int32", "buffer", "uint32"], return: "int32" },
  listen: { arguments: ["int32", "int32"], return: "int32" },
  accept4: { arguments: ["int32", "pointer", "pointer", "int32"], return: "int32" },
  connect: { arguments: ["int32", "buffer", "uint32"], return: "int32" },
  send: { arguments: ["int32", "buffer", "uint64", "int32"], return: "int64" },
  recv: { arguments: ["int32", "buffer", "uint64", "int32"], return: "int64" },
  shutdown: { arguments: ["int32", "int32"], return: "int32" },
  close: { arguments: ["int32"], return: "int32" },
  setsockopt: { arguments: ["int32", "int32", "int32", "buffer", "uint32"], return: "int32" },
  getsockopt: { arguments: ["int32", "int32", "int32", "buffer", "buffer"], return: "int32" },
  ioctl: { arguments: ["int32", "uint64", "buffer"], return: "int32" },
  poll: { arguments: ["buffer", "uint64", "int32"], return: "int32" },
  sendfile: { arguments: ["int32", "int32", "pointer", "uint64"], return: "int64" },
  splice: { arguments: ["int32", "pointer", "int32", "pointer", "uint64", "uint32"], return: "int64" },
  epoll_create1: { arguments: ["int32"], return: "int32" },
  epoll_ctl: { arguments: ["int32", "int32", "int32", "buffer"], return: "int32" },
  epoll_wait: { arguments: ["int32", "buffer", "int32", "int32"], return: "int32" },
  __errno_location: { arguments: [], return: "pointer" },
});

export const EAGAIN = 11;
const EINPROGRESS = 115;
const AF_INET = 2;
const SOCK_STREAM = 1;
const SOCK_NONBLOCK = 0o4000;
const SOCK_CLOEXEC = 0o2000000;
const SOL_SOCKET = 1;
const SO_REUSEADDR = 2;
const SO_LINGER = 13;
const IPPROTO_TCP = 6;
const TCP_NODELAY = 1;
const TCP_INFO = 11;
const MSG_NOSIGNAL = 0x4000;
export const MSG_OOB = 1;
export const MSG_PEEK = 2;
const FIONREAD = 0x541bn;
export const POLLIN = 1;
export const POLLPRI = 2;
export const POLLOUT = 4;
export const POLLHUP = 16;
export const POLLRDHUP = 0x2000;
const SPLICE_F_MOVE_NONBLOCK = 3;
export const EPOLLIN = 1;
export const EPOLLOUT = 4;
export const EPOLL_CTL_ADD = 1;
export const EPOLL_CTL_MOD = 3;
/** `struct epoll_event` of x86-64, which is packed; that of other architectures is 16 bytes, its data at 8. */
export const EPOLL_EVENT_BYTES = process.arch === "x64" ? 12 : 16;
export const EPOLL_DATA_AT = process.arch === "x64" ? 4 : 8;

const ONE = Buffer.from([1, 0, 0, 0]);
const scratch = Buffer.alloc(256);
const length = Buffer.alloc(4);

function or(result: number): number {
  return result >= 0 ? result : -ffi.getInt32(libc.__errno_location());
}

function address(port: number, host = "127.0.0.1"): Buffer {
  const bytes = Buffer.alloc(16);
  bytes.writeUInt16LE(AF_INET, 0);
  bytes.writeUInt16BE(port, 2);
  bytes.set(host.split(".").map(Number), 4);
  return bytes;
}

function open(): number {
  const fd = or(libc.socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0));
  if (fd < 0) throw new Error(`no socket: error ${-fd}`);
  return fd;
}

/** A listening socket that does not block. */
export function listenOn(port: number): number {
  const fd = open();
  libc.setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, ONE, 4);
  const error = or(libc.bind(fd, address(port), 16)) || or(libc.listen(fd, 4096));
  if (error !== 0) throw new Error(`cannot listen on port ${port}: error ${-error}`);
  return fd;
}

/** A socket that connects, or has connected, without blocking. */
export function connectTo(port: number, host?: string): number {
  const fd = open();
  libc.setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, ONE, 4);
  const error = or(libc.connect(fd, address(port, host), 16));
  if (error !== 0 && error !== -EINPROGRESS) throw new Error(`cannot connect: error ${-error}`);
  return fd;
}

export function acceptFrom(listener: number): number {
  const fd = or(libc.accept4(listener, 0n, 0n, SOCK_NONBLOCK | SOCK_CLOEXEC));
  if (fd >= 0) libc.setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, ONE, 4);
  return fd;
}

export function send(fd: number, bytes: Uint8Array, flags = 0): number {
  return or(Number(libc.send(fd, bytes, BigInt(bytes.length), flags | MSG_NOSIGNAL)));
}

export function receive(fd: number, into: Uint8Array, flags = 0): number {
  return or(Number(libc.recv(fd, into, BigInt(into.length), flags)));
}

/** Ends the writing side. */
export function endWriting(fd: number): number {
  return or(libc.shutdown(fd, 1));
}

export function close(fd: number): void {
  libc.close(fd);
}

/** Closes with RST. */
export function reset(fd: number): void {
  const linger = Buffer.alloc(8);
  linger.writeInt32LE(1, 0);
  libc.setsockopt(fd, SOL_SOCKET, SO_LINGER, linger, 8);
  libc.close(fd);
}

/** What is there to read, as FIONREAD says. */
export function unreadBytes(fd: number): number {
  const error = or(libc.ioctl(fd, FIONREAD, scratch));
  return error < 0 ? error : scratch.readInt32LE(0);
}

/** Waits at most `timeoutMs` for any of `events`; gives what happened, 0 for nothing. Blocks the thread. */
export function poll(fd: number, events: number, timeoutMs: number): number {
  scratch.writeInt32LE(fd, 0);
  scratch.writeUInt16LE(events, 4);
  scratch.writeUInt16LE(0, 6);
  return libc.poll(scratch, 1n, timeoutMs) > 0 ? scratch.readUInt16LE(6) : 0;
}

/** tcpi_bytes_acked and tcpi_bytes_received (linux/tcp.h). */
export function tcpBytes(fd: number): { acked: number; received: number } {
  const info = Buffer.alloc(232);
  length.writeUInt32LE(info.length, 0);
  libc.getsockopt(fd, IPPROTO_TCP, TCP_INFO, info, length);
  return { acked: Number(info.readBigUInt64LE(120)), received: Number(info.readBigUInt64LE(128)) };
}

export function sendFile(fd: number, file: number, bytes: number): number {
  return or(Number(libc.sendfile(fd, file, 0n, BigInt(bytes))));
}

export function spliceTo(from: number, to: number, bytes: number): number {
  return or(Number(libc.splice(from, 0n, to, 0n, BigInt(bytes), SPLICE_F_MOVE_NONBLOCK)));
}

export function epollCreate(): number {
  return or(libc.epoll_create1(SOCK_CLOEXEC));
}

/** `event`: `EPOLL_EVENT_BYTES` bytes. */
export function epollControl(epoll: number, what: number, fd: number, event: Uint8Array): number {
  return or(libc.epoll_ctl(epoll, what, fd, event));
}

/** Fills `events`; gives their number. Blocks for `timeoutMs`: 0 not at all, -1 until something happens. */
export function epollWait(epoll: number, events: Uint8Array, timeoutMs: number): number {
  return or(libc.epoll_wait(epoll, events, Math.floor(events.length / EPOLL_EVENT_BYTES), timeoutMs));
}
