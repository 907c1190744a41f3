/**
 * A wire that delays and loses, for kernels without netem: two TUN devices and what carries packets between them. Started in the network
 * namespace of one end; the other end's device is moved to NAMESPACE.
 *
 *   wire.ts NAMESPACE DELAY-MS LOSS-PER-MILLE      prints "ready"; addresses are 10.97.0.1 here and 10.97.0.2 there
 */
import { execFileSync } from "node:child_process";
import { openTun, pollTwo, readFrom, writeTo } from "./tun.ts";

const [namespace = "", delay, loss] = process.argv.slice(2);
const delayMs = Number(delay);
const lossShare = Number(loss) / 1000;
/** At the bound a packet is lost, as in any queue. */
const PACKETS_MAX = 4096;
const MTU_BYTES = 1500;

interface Packet {
  dueMs: number;
  bytes: Buffer;
}

const near = openTun("near0");
const far = openTun("far0");
ip("link", "set", "far0", "netns", namespace);
ip("address", "add", "10.97.0.1", "peer", "10.97.0.2", "dev", "near0");
ip("link", "set", "near0", "up", "mtu", String(MTU_BYTES));
ip("-n", namespace, "address", "add", "10.97.0.2", "peer", "10.97.0.1", "dev", "far0");
ip("-n", namespace, "link", "set", "far0", "up", "mtu", String(MTU_BYTES));
const directions = [
  { from: near, to: far, queue: [] as Packet[] },
  { from: far, to: near, queue: [] as Packet[] },
];
process.stdout.write("ready\n", carry);

/** Packets of one direction all wait as long, so they stay in order. Blocks this process, which has nothing else to do. */
function carry(): void {
  const into = Buffer.alloc(65_536);
  for (;;) {
    const nextMs = Math.min(...directions.map(({ queue }) => queue[0]?.dueMs ?? Infinity));
    const waitMs = nextMs === Infinity ? 1000 : Math.max(0, Math.ceil(nextMs - performance.now()));
    pollTwo(near, far, waitMs);
    for (const { from, to, queue } of directions) {
      for (let bytes = readFrom(from, into); bytes > 0; bytes = readFrom(from, into)) {
        if (queue.length >= PACKETS_MAX || Math.random() < lossShare) continue;
        queue.push({ dueMs: performance.now() + delayMs, bytes: Buffer.from(into.subarray(0, bytes)) });
      }
      const nowMs = performance.now();
      while (queue[0] !== undefined && queue[0].dueMs <= nowMs) writeTo(to, queue.shift()!.bytes);
    }
  }
}

function ip(...args: string[]): void {
  execFileSync("ip", args);
}
