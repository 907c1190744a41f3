/**
 * Runs as root in a pod and tries what the first argument names, by the calls that an attacker would make. Says "possible …" or why not;
 * the same attempt on what is its own shows that the probe works.
 */
import ffi from "node:ffi";
import { readdirSync, readFileSync } from "node:fs";
import { spawn } from "node:child_process";
import net from "node:net";

const [attempt = "", ...args] = process.argv.slice(2);
const { functions: libc } = ffi.dlopen(null, {
  syscall: {
    arguments: ["uint64", "uint64", "uint64", "uint64", "uint64", "uint64", "uint64"],
    return: "int64",
  },
  __errno_location: { arguments: [], return: "pointer" },
});
const ARM = process.arch === "arm64";
const kept: Buffer[] = [];

function call(x64: number, arm64: number, ...more: (number | bigint)[]): bigint {
  const all = [ARM ? arm64 : x64, ...more, 0, 0, 0, 0, 0, 0].slice(0, 7);
  const words = all.map((each) => BigInt.asUintN(64, BigInt(each)));
  const result = libc.syscall(...(words as [bigint, bigint, bigint, bigint, bigint, bigint, bigint]));
  if (result < 0n) throw new Error(`errno ${ffi.getInt32(libc.__errno_location())}`);
  return result;
}

function pointer(bytes: Uint8Array): bigint {
  const buffer = Buffer.from(bytes);
  kept.push(buffer);
  return ffi.getRawPointer(buffer);
}

function iovec(at: bigint, length: number): bigint {
  const bytes = Buffer.alloc(16);
  bytes.writeBigUInt64LE(at, 0);
  bytes.writeBigUInt64LE(BigInt(length), 8);
  return pointer(bytes);
}

/** Whom the second argument means: ourselves, a child of ours, or a process by its number. */
function target(): number {
  if (args[0] === "self") return process.pid;
  return args[0] === "child" ? (spawn("sleep", ["5"]).pid ?? 0) : Number(args[0]);
}

/** Of every process that can be seen, what its files in /proc hold of `pattern`; memory where it may be read. */
function search(pattern: string): string {
  const found: string[] = [];
  for (const pid of readdirSync("/proc").filter((name) => /^\d+$/.test(name) && Number(name) !== process.pid))
    for (const file of ["environ", "cmdline", "status"]) {
      try {
        const text = readFileSync(`/proc/${pid}/${file}`, "latin1");
        if (text.includes(pattern)) found.push(`${pid}/${file}`);
      } catch {
        // Not ours to read: that is no find.
      }
    }
  return found.length === 0 ? "nothing" : `possible ${found.join(" ")}`;
}

const AF_PACKET = 17;
const SOCK_RAW = 3;
const ETH_P_ALL = 0x0300;

function packetSocket(): number {
  return Number(call(41, 198, AF_PACKET, SOCK_RAW, ETH_P_ALL));
}

/** Sends a frame out of eth0 as it is given: struct sockaddr_ll names the interface. */
function sendFrame(frame: Buffer): void {
  const index = Number(readFileSync("/proc/net/igmp", "latin1").match(/^(\d+)\s+eth0/m)?.[1]);
  const to = Buffer.alloc(20);
  to.writeUInt16LE(AF_PACKET, 0);
  to.writeInt32LE(index, 4);
  const at = pointer(frame);
  call(44, 206, packetSocket(), at, frame.length, 0, pointer(to), to.length);
}

const macOf = (ip: string): Buffer => Buffer.from([0x0a, 0x58, ...ip.split(".").map(Number)]);
const ipOf = (ip: string): Buffer => Buffer.from(ip.split(".").map(Number));

/** RFC 826: `ip` is at `mac`, said to everybody. */
function arpFrame(fromMac: Buffer, ip: string, mac: Buffer): Buffer {
  const head = Buffer.concat([Buffer.alloc(6, 0xff), fromMac, Buffer.from([0x08, 0x06])]);
  const body = Buffer.from([0, 1, 8, 0, 6, 4, 0, 2]);
  return Buffer.concat([head, body, mac, ipOf(ip), Buffer.alloc(6, 0xff), ipOf(ip)]);
}

/** One UDP datagram (RFC 768) to port 9999 of `to`, from whichever address. */
function datagram(fromMac: Buffer, from: string, to: string, text: string): Buffer {
  const payload = Buffer.from(text);
  const udp = Buffer.alloc(8);
  udp.writeUInt16BE(1111, 0);
  udp.writeUInt16BE(9999, 2);
  udp.writeUInt16BE(8 + payload.length, 4);
  const ip = Buffer.alloc(20);
  ip[0] = 0x45;
  ip.writeUInt16BE(28 + payload.length, 2);
  ip[8] = 64;
  ip[9] = 17;
  ipOf(from).copy(ip, 12);
  ipOf(to).copy(ip, 16);
  let sum = 0;
  for (let at = 0; at < 20; at += 2) sum += ip.readUInt16BE(at);
  while (sum > 0xffff) sum = (sum & 0xffff) + (sum >>> 16);
  ip.writeUInt16BE(~sum & 0xffff, 10);
  return Buffer.concat([macOf(to), fromMac, Buffer.from([0x08, 0x00]), ip, udp, payload]);
}

const ATTEMPTS: Readonly<Record<string, () => string | Promise<string>>> = {
  search: () => search(args[0] ?? ""),
  ptrace: () => String(call(101, 117, 16, target())),
  "read memory": () => {
    const bytes = Buffer.alloc(8);
    return String(
      call(
        310,
        270,
        target(),
        iovec(ffi.getRawPointer(bytes), 8),
        1,
        iovec(pointer(Buffer.from("canary!!")), 8),
        1,
      ),
    );
  },
  kcmp: () => String(call(312, 272, process.pid, target(), 0, 0, 1)),
  "take a descriptor": () => String(call(438, 438, call(434, 434, target(), 0), 0, 0)),
  signal: () => String(call(62, 129, target(), 0)),
  "enter a namespace": () =>
    String(call(308, 268, call(257, 56, -100, pointer(Buffer.from(`/proc/${args[0]}/ns/mnt\0`)), 0), 0)),
  "add an address": () => addAddress(args[0] ?? ""),
  sniff: () => {
    const socket = packetSocket();
    const bytes = Buffer.alloc(65_536);
    const at = ffi.getRawPointer(bytes);
    process.stdout.write("listening\n");
    for (let hasSecret = false; ;) {
      const length = Number(call(45, 207, socket, at, bytes.length, 0, 0, 0));
      const text = bytes.toString("latin1", 0, length);
      hasSecret ||= text.includes("others-secret");
      if (text.includes("sniff-end")) return hasSecret ? "possible" : "its own only";
    }
  },
  "listen abstractly": async () => {
    net.createServer().listen(`\0${args[0]}`);
    return await new Promise(() => undefined);
  },
  "dial abstractly": () =>
    new Promise((done) => {
      const socket = net.connect(`\0${args[0]}`, () => done("possible"));
      socket.on("error", (error: NodeJS.ErrnoException) => done(error.code ?? ""));
    }),
  "send as": () => {
    const [from = "", to = "", text = "", mac = ""] = args;
    sendFrame(datagram(macOf(mac), from, to, text));
    return "sent";
  },
  "claim by ARP": () => {
    const [ip = "", own = ""] = args;
    for (const from of [own, ip]) sendFrame(arpFrame(macOf(from), ip, macOf(own)));
    return "sent";
  },
};

/** RTM_NEWADDR over netlink; the kernel's answer holds the error number. */
function addAddress(ip: string): string {
  const fd = call(41, 198, 16, 3, 0);
  const index = Number(readFileSync("/proc/net/igmp", "latin1").match(/^(\d+)\s+eth0/m)?.[1]);
  const message = Buffer.alloc(32);
  message.writeUInt32LE(32, 0);
  message.writeUInt16LE(20, 4); // RTM_NEWADDR
  message.writeUInt16LE(0x605, 6); // REQUEST | ACK | EXCL | CREATE
  message[16] = 2;
  message[17] = 32;
  message.writeUInt32LE(index, 20);
  message.writeUInt16LE(8, 24);
  message.writeUInt16LE(2, 26); // IFA_LOCAL
  ipOf(ip).copy(message, 28);
  call(44, 206, fd, pointer(message), message.length, 0, 0, 0);
  const answer = Buffer.alloc(256);
  call(45, 207, fd, ffi.getRawPointer(answer), answer.length, 0, 0, 0);
  const error = answer.readInt32LE(16);
  return error === 0 ? "possible" : `errno ${-error}`;
}

try {
  process.stdout.write(`${await (ATTEMPTS[attempt] ?? (() => "no such attempt"))()}\n`);
} catch (error) {
  process.stdout.write(`${error instanceof Error ? error.message : String(error)}\n`);
}
process.exit();
