/** A process of the mesh locks itself in, before it holds anything worth taking. */
import ffi from "node:ffi";
import { readdirSync, readlinkSync } from "node:fs";
import { errno, forbidDumping } from "./libc.ts";
import { meshFilter, type Writes } from "./seccomp/mesh-filter.ts";
import { ringlessFilter } from "./seccomp/ringless-filter.ts";

// linux/seccomp.h, linux/prctl.h
const SECCOMP_SET_MODE_FILTER = 1n;
const SECCOMP_FILTER_FLAG_TSYNC = 1n;
const F_SETFD = 2;
const PR_SET_NO_NEW_PRIVS = 38;
const SECCOMP_CALL: Readonly<Record<string, bigint>> = { x64: 317n, arm64: 277n };

export interface Confinement {
  readonly writes: Writes;
  /** Descriptors beside the standard three that we were handed, to be there still when the program begins again. */
  readonly handed?: readonly number[];
}

/**
 * From here on, for this process and all its threads: no core dumps and no ptrace by the same user, no privilege to be gained by
 * any program, and only the system calls of the mesh's own filter. There is no way back. Throws when the kernel refuses.
 *
 * libuv makes a ring for system calls (io_uring) where it can, and what goes through one is seen by no filter. Whoever starts us
 * should have refused that; if not, this program begins again without, and the call does not return.
 */
export function confine(options: Confinement): void {
  const filter = meshFilter(options.writes);
  if (filter === null)
    throw new Error(`there is no filter of system calls for ${process.arch}: run the mesh on x64 or arm64`);
  if (hasRing()) {
    refuseRings();
    beginAgain([0, 1, 2, ...(options.handed ?? [])]);
  }
  forbidDumping();
  install(filter);
}

/** What this process starts from here on makes no ring, and need not begin again. Throws when the kernel refuses. */
export function refuseRings(): void {
  install(ringlessFilter());
}

/** execv(3), because Node's own word for it closes what we were handed. Throws when the kernel refuses. */
function beginAgain(fds: readonly number[]): never {
  const { functions: libc } = ffi.dlopen(null, {
    execv: { arguments: ["string", "buffer"], return: "int32" },
    fcntl: { arguments: ["int32", "int32", "int32"], return: "int32" },
  });
  const words = [process.execPath, ...process.execArgv, ...process.argv.slice(1)].map((word) =>
    Buffer.from(`${word}\0`),
  );
  const list = Buffer.alloc((words.length + 1) * 8);
  for (const [index, word] of words.entries()) list.writeBigUInt64LE(ffi.getRawPointer(word), index * 8);
  // Node has marked them to be closed.
  for (const fd of fds) libc.fcntl(fd, F_SETFD, 0);
  libc.execv(process.execPath, list);
  throw new Error(`${process.execPath} cannot begin again: error ${errno()}`);
}

function install(filter: Uint8Array): void {
  const { functions: libc } = ffi.dlopen(null, {
    prctl: { arguments: ["int32", "uint64", "uint64", "uint64", "uint64"], return: "int32" },
    syscall: { arguments: ["uint64", "uint64", "uint64", "buffer"], return: "int64" },
  });
  if (libc.prctl(PR_SET_NO_NEW_PRIVS, 1n, 0n, 0n, 0n) !== 0)
    throw new Error(`prctl(PR_SET_NO_NEW_PRIVS) failed with error ${errno()}`);
  // struct sock_fprog: number of instructions, then where they are.
  const program = Buffer.alloc(16);
  program.writeUInt16LE(filter.length / 8, 0);
  program.writeBigUInt64LE(ffi.getRawPointer(filter), 8);
  const call = SECCOMP_CALL[process.arch] ?? 0n;
  const result = libc.syscall(call, SECCOMP_SET_MODE_FILTER, SECCOMP_FILTER_FLAG_TSYNC, program);
  if (result === 0n) return;
  throw new Error(
    result < 0n
      ? `the kernel refuses the filter of system calls with error ${errno()}: it needs CONFIG_SECCOMP_FILTER`
      : `thread ${result} has a filter of system calls of its own`,
  );
}

function hasRing(): boolean {
  return readdirSync("/proc/self/fd").some((fd) => {
    try {
      return readlinkSync(`/proc/self/fd/${fd}`) === "anon_inode:[io_uring]";
    } catch {
      // The descriptor that the folder itself was read by.
      return false;
    }
  });
}
