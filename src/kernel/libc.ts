/**
 * The few C library calls that Node has no word for, through `node:ffi`. Imports nothing of ours but address formatting
 * and loads no library beyond the process's own libc, so that a sidecar may import it and stay light.
 */
import ffi from "node:ffi";
import { formatIp, type SocketAddress } from "#/base/address.ts";

const SOL_SOCKET = 1;
const SO_PEERCRED = 17;
const SOL_IP = 0;
const SOL_IPV6 = 41;
// SO_ORIGINAL_DST and IP6T_SO_ORIGINAL_DST share this number.
const SO_ORIGINAL_DST = 80;
// Up to 32 bytes, a kernel program that answers getsockopt needs no memory allocated for it.
const SOCKADDR_IN6_BYTES = 28;
const AF_INET = 2;
const AF_INET6 = 10;
const PR_SET_DUMPABLE = 4;
const F_SETLEASE = 1024;
const F_RDLCK = 0;
const F_UNLCK = 2;
const EAGAIN = 11;
const MSG_PEEK = 2;
const MSG_DONTWAIT = 64;
const M_TRIM_THRESHOLD = -1;
const M_MMAP_THRESHOLD = -3;
const M_ARENA_MAX = -8;

const { functions: libc } = ffi.dlopen(null, {
  getsockopt: { arguments: ["int32", "int32", "int32", "buffer", "buffer"], return: "int32" },
  recv: { arguments: ["int32", "buffer", "uint64", "int32"], return: "int32" },
  prctl: { arguments: ["int32", "uint64", "uint64", "uint64", "uint64"], return: "int32" },
  mount: { arguments: ["string", "string", "string", "uint64", "pointer"], return: "int32" },
  fcntl: { arguments: ["int32", "int32", "int32"], return: "int32" },
  __errno_location: { arguments: [], return: "pointer" },
});

// One scratch space for all calls: every function here is synchronous and copies out before it returns.
const value = Buffer.alloc(64);
const length = Buffer.alloc(4);

/**
 * Calls getsockopt(2) and gives the option's bytes (a view that the next call overwrites), or null when the kernel
 * refuses. `bytesMax` is at most 64.
 */
export function getsockopt(fd: number, level: number, name: number, bytesMax = 64): Uint8Array | null {
  length.writeUInt32LE(bytesMax, 0);
  if (libc.getsockopt(fd, level, name, value, length) !== 0) return null;
  return value.subarray(0, length.readUInt32LE(0));
}

/**
 * What an intercepted connection was meant for: the contract between interception and sidecar, the same under eBPF
 * and nftables. Null when the connection was not intercepted; a sidecar refuses it then.
 *
 * `fd` is the accepted socket's (`socket._handle.fd`). A v4-mapped peer is answered in IPv4.
 */
export function originalDestination(fd: number): SocketAddress | null {
  return (
    readSockaddr(getsockopt(fd, SOL_IP, SO_ORIGINAL_DST, SOCKADDR_IN6_BYTES)) ??
    readSockaddr(getsockopt(fd, SOL_IPV6, SO_ORIGINAL_DST, SOCKADDR_IN6_BYTES))
  );
}

/**
 * How many bytes a socket has to read, at most as many as fit `into`, where they are copied to: they stay to be read. 0: its end, or nothing yet.
 * Null: the connection is broken, which the kernel says once.
 */
export function peek(fd: number, into: Uint8Array): number | null {
  const size = libc.recv(fd, into, BigInt(into.length), MSG_PEEK | MSG_DONTWAIT);
  if (size >= 0) return size;
  return errno() === EAGAIN ? 0 : null;
}

/** Who is at the other end of a Unix socket, as the kernel saw them when they connected. Null when it is none. */
export function peerCredentials(fd: number): { pid: number; uid: number; gid: number } | null {
  const bytes = getsockopt(fd, SOL_SOCKET, SO_PEERCRED);
  if (bytes === null || bytes.length !== 12) return null;
  return { pid: value.readInt32LE(0), uid: value.readUInt32LE(4), gid: value.readUInt32LE(8) };
}

/** Forbids core dumps and ptrace by the same uid: a sidecar's memory holds its key. Throws when the kernel refuses. */
export function forbidDumping(): void {
  if (libc.prctl(PR_SET_DUMPABLE, 0n, 0n, 0n, 0n) !== 0) throw new Error("prctl(PR_SET_DUMPABLE, 0) failed");
}

/**
 * Keeps others from opening a file to write while `read` runs: they wait (a read lease, fcntl(2)). Null, without calling
 * `read`, when somebody has it open for writing already. `fd` was opened to read; its file must be ours, or we root. Where a file
 * system has no leases, `read` runs without one.
 */
export function whileNotWritten<T>(fd: number, read: () => T): T | null {
  // Who wants to write is announced by this signal, which would end a process that does not listen.
  if (process.listenerCount("SIGIO") === 0) process.on("SIGIO", () => undefined);
  if (libc.fcntl(fd, F_SETLEASE, F_RDLCK) !== 0) return errno() === EAGAIN ? null : read();
  try {
    return read();
  } finally {
    libc.fcntl(fd, F_SETLEASE, F_UNLCK);
  }
}

/** Mounts a file system that has no device, such as `bpf`. Throws with the error number when the kernel refuses. */
export function mountVirtual(type: string, path: string): void {
  if (libc.mount(type, path, type, 0n, 0n) === 0) return;
  throw new Error(`mount of ${type} on ${path} failed with error ${errno()}`);
}

/** The error number of the call just made. Nothing may run between that call and this one. */
export function errno(): number {
  return ffi.getInt32(libc.__errno_location());
}

/**
 * Keeps the descriptors that this process was started with from its children. Node's own are not inherited; a shell's
 * pipes and terminals are, and a container that holds one keeps it open for as long as it lives.
 */
export function forbidInheritance(): void {
  // close_range(2) with CLOSE_RANGE_CLOEXEC, kernel 5.11 and glibc 2.34; where it is missing nothing is lost but this.
  try {
    const { functions } = ffi.dlopen(null, {
      close_range: { arguments: ["uint32", "uint32", "int32"], return: "int32" },
    });
    functions.close_range(3, 0xffff_ffff, 4);
  } catch {
    // See above.
  }
}

/**
 * Bounds what the C allocator keeps free (mallopt(3), of glibc alone): threads that begin from here on share one heap; pieces from `mmapFromBytes` on are mapped
 * each by itself and unmapped when freed, and of the heap's free end no more than `trimAboveBytes` stay. Left to itself glibc raises both
 * with each large piece that is freed, up to 32 and 64 MiB; such pieces then lie between small ones that live, and what is free
 * between those stays the process's.
 */
export function boundFreeMemory({
  mmapFromBytes,
  trimAboveBytes,
}: {
  readonly mmapFromBytes: number;
  readonly trimAboveBytes: number;
}): void {
  try {
    const { mallopt } = ffi.dlopen(null, {
      mallopt: { arguments: ["int32", "int32"], return: "int32" },
    }).functions;
    mallopt(M_ARENA_MAX, 1);
    mallopt(M_MMAP_THRESHOLD, mmapFromBytes);
    mallopt(M_TRIM_THRESHOLD, trimAboveBytes);
  } catch {
    // Another C library: musl's maps what is large, and has no word for it.
  }
}

/** Gives what the C allocator holds free back to the kernel (malloc_trim(3), of glibc alone): a few milliseconds. */
export function returnFreeMemory(): void {
  mallocTrim ??= findMallocTrim();
  mallocTrim(0n);
}

let mallocTrim: ((padBytes: bigint) => unknown) | null = null;

function findMallocTrim(): (padBytes: bigint) => unknown {
  try {
    return ffi.dlopen(null, { malloc_trim: { arguments: ["uint64"], return: "int32" } }).functions
      .malloc_trim;
  } catch {
    // Another C library, which has no word for it.
    return () => 0;
  }
}

/** struct sockaddr_in or sockaddr_in6. */
function readSockaddr(bytes: Uint8Array | null): SocketAddress | null {
  if (bytes === null || bytes.length < 8) return null;
  const family = value.readUInt16LE(0);
  const port = value.readUInt16BE(2);
  if (family === AF_INET) return { ip: formatIp(bytes.subarray(4, 8)), port };
  if (family === AF_INET6 && bytes.length >= 24) return { ip: formatIp(bytes.subarray(8, 24)), port };
  return null;
}
