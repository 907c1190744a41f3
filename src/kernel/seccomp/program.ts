/** The classic BPF of a filter of system calls: seccomp(2), linux/bpf_common.h. */

/** struct sock_filter: code, distance when true, distance when false, operand. Distances are at most 255. */
export type Instruction = readonly [code: number, ifTrue: number, ifFalse: number, value: number];

/** In struct seccomp_data (seccomp(2)): number, architecture, arguments of 8 bytes each, low half first. */
export const AT_NUMBER = 0;
export const AT_ARCH = 4;
export const AT_ARG0 = 16;
export const AT_ARG1 = 24;
export const AT_ARG2 = 32;

export const LOAD = 0x20;
export const MASK = 0x54;
export const JUMP_EQUAL = 0x15;
export const JUMP_GREATER_EQUAL = 0x35;
export const JUMP_ANY_BIT = 0x45;
export const RETURN = 0x06;

export const ALLOW = 0x7fff_0000;
/** The whole process ends with SIGSYS, and the kernel's log names the call. */
export const KILL_PROCESS = 0x8000_0000;
export const EPERM = 1;
export const EACCES = 13;
export const ENOSYS = 38;
export const errno = (code: number): number => 0x0005_0000 | code;

/** Numbers of the x32 interface start here; nothing needs it, and it would be a way around the numbers of x64. */
export const X32 = 0x4000_0000;

/** As the kernel and bubblewrap read it. */
export function programBytes(program: readonly Instruction[]): Uint8Array {
  const bytes = new DataView(new ArrayBuffer(program.length * 8));
  for (const [index, [code, ifTrue, ifFalse, value]] of program.entries()) {
    bytes.setUint16(index * 8, code, true);
    bytes.setUint8(index * 8 + 2, ifTrue);
    bytes.setUint8(index * 8 + 3, ifFalse);
    bytes.setUint32(index * 8 + 4, value >>> 0, true);
  }
  return new Uint8Array(bytes.buffer);
}
