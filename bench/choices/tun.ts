/** TUN devices through `node:ffi`: each read gives one IP packet, each write sends one. Nothing blocks but `pollTwo`. */
import ffi from "node:ffi";
import { openSync } from "node:fs";

const O_RDWR_NONBLOCK = 0o4002;
const TUNSETIFF = 0x4004_54can;
const IFF_TUN_NO_PI = 0x1001;
const NAME_BYTES = 16;
const POLLIN = 1;

const { functions: libc } = ffi.dlopen(null, {
  ioctl: { arguments: ["int32", "uint64", "buffer"], return: "int32" },
  read: { arguments: ["int32", "buffer", "uint64"], return: "int64" },
  write: { arguments: ["int32", "buffer", "uint64"], return: "int64" },
  poll: { arguments: ["buffer", "uint64", "int32"], return: "int32" },
});

/** Makes a device in the network namespace that we are in; it goes with the descriptor. */
export function openTun(name: string): number {
  const fd = openSync("/dev/net/tun", O_RDWR_NONBLOCK);
  const request = Buffer.alloc(40);
  request.write(name, 0, NAME_BYTES - 1, "latin1");
  request.writeUInt16LE(IFF_TUN_NO_PI, NAME_BYTES);
  if (libc.ioctl(fd, TUNSETIFF, request) !== 0)
    throw new Error(`cannot make the TUN device ${name}; check /dev/net/tun`);
  return fd;
}

/** A packet's length, or negative when there is none. */
export function readFrom(fd: number, into: Uint8Array): number {
  return Number(libc.read(fd, into, BigInt(into.length)));
}

/** A packet that the device does not take is lost. */
export function writeTo(fd: number, packet: Uint8Array): void {
  libc.write(fd, packet, BigInt(packet.length));
}

const polled = Buffer.alloc(16);

/** Waits until one of two can be read, at most `timeoutMs`. */
export function pollTwo(one: number, other: number, timeoutMs: number): void {
  for (const [index, fd] of [one, other].entries()) {
    polled.writeInt32LE(fd, index * 8);
    polled.writeUInt16LE(POLLIN, index * 8 + 4);
  }
  libc.poll(polled, 2n, timeoutMs);
}
