/**
 * In a sidecar's place, in the sandbox of one: locks itself in as a sidecar does (or not, to show that the attempt works), does
 * one thing, and says how it went. What ends the process is for who started it to see.
 */
import { spawnSync } from "node:child_process";
import { scrypt } from "node:crypto";
import { lookup } from "node:dns/promises";
import ffi from "node:ffi";
import { readFileSync, writeFileSync } from "node:fs";
import net from "node:net";
import { getHeapStatistics } from "node:v8";
import { Worker } from "node:worker_threads";
import { confine } from "#/kernel/confinement.ts";
import { collectGarbage } from "#/proxy/collect-garbage.ts";

const [isLocked = "", attempt = ""] = process.argv.slice(2);
const { functions: libc } = ffi.dlopen(null, {
  syscall: {
    arguments: ["uint64", "uint64", "uint64", "uint64", "uint64", "uint64", "uint64"],
    return: "int64",
  },
  __errno_location: { arguments: [], return: "pointer" },
});
const isX64 = process.arch === "x64";
const word = Buffer.alloc(16);
const address = ffi.getRawPointer(word);
const call = (x64: number, arm64: number, ...args: (number | bigint)[]): string => {
  const all = [isX64 ? x64 : arm64, ...args, 0, 0, 0, 0, 0, 0]
    .slice(0, 7)
    .map((each) => BigInt.asUintN(64, BigInt(each))) as [
    bigint,
    bigint,
    bigint,
    bigint,
    bigint,
    bigint,
    bigint,
  ];
  const result = libc.syscall(...all);
  return result >= 0n ? "possible" : `errno ${ffi.getInt32(libc.__errno_location())}`;
};
/** One struct iovec: a word of our own. */
const iovec = (): bigint => {
  const bytes = Buffer.alloc(16);
  bytes.writeBigUInt64LE(address, 0);
  bytes.writeBigUInt64LE(8n, 8);
  return ffi.getRawPointer(bytes);
};

const ATTEMPTS: Readonly<Record<string, () => string | Promise<string>>> = {
  exec: () => spawnSync(process.execPath, ["--version"]).error?.message ?? "possible",
  fork: () => call(56, 220, 17),
  ptrace: () => call(101, 117, 0),
  "read another's memory": () => call(310, 270, process.pid, iovec(), 1, iovec(), 1),
  kcmp: () => call(312, 272, process.pid, process.pid, 0, 0, 1),
  mount: () => call(165, 40, address, address, address),
  "load a module": () => call(313, 273, 0, address),
  "load a program into the kernel": () => call(321, 280, 0, address, 16),
  "a key ring": () => call(250, 219, 0, -3, 0),
  userfaultfd: () => call(323, 282, 0),
  "a ring's calls": () => call(426, 426, 0, 0, 0),
  "a namespace": () => call(272, 97, 0x1000_0000),
  "another user": () => call(105, 146, 0),
  "a ring": () => call(425, 425, 1, address),
  "a raw socket": () => call(41, 198, 2, 3, 1),
  "a packet socket": () => call(41, 198, 17, 3, 0x300),
  "be dumpable": () => call(157, 167, 4, 1),
  "a signal to all": () => call(62, 129, -1, 0),
  "write a file": () => wrote("/tmp/file"),
  "write over the program": () => wrote(process.execPath),
  "write to itself": () => wrote("/proc/self/mem"),
  "see the machine": () =>
    ["/etc/passwd", "/etc/shadow", "/root", "/home", "/var", "/tmp", "/run", "/sys", "/usr/bin/env"]
      .filter((path) => {
        try {
          return process.getBuiltinModule("fs").existsSync(path);
        } catch {
          return false;
        }
      })
      .join(" "),
  "what a sidecar needs": needed,
  "a bug": () => process.abort(),
  "memory without end": () => {
    const all: unknown[] = [];
    for (;;) all.push(Array.from({ length: 1000 }, () => ({ used: getHeapStatistics().used_heap_size })));
  },
};

function wrote(path: string): string {
  try {
    writeFileSync(path, "", { flag: "r+" });
    return "possible";
  } catch (error) {
    return String((error as NodeJS.ErrnoException).code);
  }
}

/** Names, threads of libuv and of Node, a listener and its client, the collector, files. */
async function needed(): Promise<string> {
  const [loopback] = await lookup("localhost", { all: true, family: 4 });
  await new Promise<void>((done, failed) =>
    scrypt("a", "b", 32, (error) => (error === null ? done() : failed(error))),
  );
  await new Promise<void>((done, failed) => {
    const worker = new Worker("0", { eval: true });
    worker.on("error", failed).on("exit", () => done());
  });
  const server = net.createServer((socket) => socket.end("hello"));
  await new Promise<void>((done) => server.listen(0, loopback?.address, done));
  const text = await new Promise<string>((done, failed) => {
    const { port } = server.address() as net.AddressInfo;
    net
      .connect(port, "127.0.0.1")
      .on("data", (bytes) => done(String(bytes)))
      .on("error", failed);
  });
  server.close();
  collectGarbage("everything");
  return `${text} ${/^Seccomp:\s*(\d)/m.exec(readFileSync("/proc/self/status", "latin1"))?.[1]}`;
}

if (isLocked === "locked") confine({ writes: "nothing" });
process.stdout.write(`${await (ATTEMPTS[attempt] ?? (() => "no such attempt"))()}\n`);
