import {
  ALLOW,
  AT_ARCH,
  AT_ARG0,
  AT_NUMBER,
  ENOSYS,
  EPERM,
  errno,
  JUMP_ANY_BIT,
  JUMP_EQUAL,
  JUMP_GREATER_EQUAL,
  LOAD,
  programBytes,
  RETURN,
  X32,
  type Instruction,
} from "#/kernel/seccomp/program.ts";
import { IO_URING_SETUP } from "#/kernel/seccomp/ringless-filter.ts";

/**
 * A filter of system calls for everything that runs in a pod: what reaches past namespaces and capabilities. It is short
 * on purpose; what needs a capability that no container has is refused by the kernel already.
 */

const CLONE_NEWUSER = 0x1000_0000;

interface Calls {
  readonly audit: number;
  readonly clone: number;
  readonly unshare: number;
  readonly clone3: number;
  /** Keyrings (not namespaced), bpf, perf_event_open, userfaultfd, open_by_handle_at, kexec. */
  readonly refused: readonly number[];
}

/** Of each machine that we run on, and of the 32-bit programs that it also runs. */
const CALLS: Readonly<Record<string, readonly Calls[]>> = {
  x64: [
    {
      audit: 0xc000_003e,
      clone: 56,
      unshare: 272,
      clone3: 435,
      refused: [248, 249, 250, 321, 298, 323, 304, 246, 320],
    },
    {
      audit: 0x4000_0003,
      clone: 120,
      unshare: 310,
      clone3: 435,
      refused: [286, 287, 288, 357, 336, 374, 342, 283],
    },
  ],
  arm64: [
    {
      audit: 0xc000_00b7,
      clone: 220,
      unshare: 97,
      clone3: 435,
      refused: [217, 218, 219, 280, 241, 282, 265, 104, 294],
    },
    {
      audit: 0x4000_0028,
      clone: 120,
      unshare: 337,
      clone3: 435,
      refused: [309, 310, 311, 386, 364, 388, 371, 347],
    },
  ],
};

/**
 * The filter as bubblewrap reads it, or null for a machine whose numbers we do not know. Without rings (io_uring), for what puts
 * itself under a filter of its own later: libuv would make one before that, and it goes past filters.
 */
export function seccompFilter(
  options: { readonly hasRings: boolean } = { hasRings: true },
  arch: string = process.arch,
): Uint8Array | null {
  const machines = CALLS[arch];
  if (machines === undefined) return null;
  const program: Instruction[] = [];
  for (const calls of machines) {
    const body = filterOf(calls, arch === "x64" && calls === machines[0], options.hasRings);
    // Jumps are relative and at most 255 far; each machine's part ends in a return of its own.
    program.push([LOAD, 0, 0, AT_ARCH], [JUMP_EQUAL, 0, body.length, calls.audit], ...body);
  }
  // A program of an architecture that is none of these cannot make a system call.
  program.push([RETURN, 0, 0, errno(ENOSYS)]);
  return programBytes(program);
}

function filterOf(calls: Calls, hasX32: boolean, hasRings: boolean): Instruction[] {
  const refuse: Instruction[] = calls.refused.flatMap((number) => [
    [JUMP_EQUAL, 0, 1, number],
    [RETURN, 0, 0, errno(EPERM)],
  ]);
  return [
    [LOAD, 0, 0, AT_NUMBER],
    ...(hasX32
      ? ([
          [JUMP_GREATER_EQUAL, 0, 1, X32],
          [RETURN, 0, 0, errno(ENOSYS)],
        ] as const)
      : []),
    // clone3 has its flags behind a pointer, where a filter cannot look: without it, the C library uses clone.
    [JUMP_EQUAL, 0, 1, calls.clone3],
    [RETURN, 0, 0, errno(ENOSYS)],
    ...(hasRings
      ? []
      : ([
          [JUMP_EQUAL, 0, 1, IO_URING_SETUP],
          [RETURN, 0, 0, errno(ENOSYS)],
        ] as const)),
    ...refuse,
    // A user namespace would hand out every capability inside itself, mounting among them.
    [JUMP_EQUAL, 1, 0, calls.clone],
    [JUMP_EQUAL, 0, 3, calls.unshare],
    [LOAD, 0, 0, AT_ARG0],
    [JUMP_ANY_BIT, 0, 1, CLONE_NEWUSER],
    [RETURN, 0, 0, errno(EPERM)],
    [RETURN, 0, 0, ALLOW],
  ];
}
