import { ALLOW, AT_NUMBER, ENOSYS, errno, JUMP_EQUAL, LOAD, programBytes, RETURN } from "./program.ts";

/** Of all machines. */
export const IO_URING_SETUP = 425;

/** Everything but a ring for system calls. It needs no look at the architecture: it keeps libuv from a ring, not an attacker. */
export function ringlessFilter(): Uint8Array {
  return programBytes([
    [LOAD, 0, 0, AT_NUMBER],
    [JUMP_EQUAL, 0, 1, IO_URING_SETUP],
    [RETURN, 0, 0, errno(ENOSYS)],
    [RETURN, 0, 0, ALLOW],
  ]);
}
