import { spawn } from "node:child_process";
import type { ChildProcess } from "node:child_process";
import { once } from "node:events";
import { readFileSync } from "node:fs";
import { CommandError } from "../exit.ts";

/** One direction of one TCP connection as it went over one network interface: its payload, put in order. */
export interface CapturedStream {
  readonly interfaceIndex: number;
  /** `ip:port` */
  readonly from: string;
  readonly to: string;
  readonly payload: Uint8Array;
  /** The connection's SYN was seen, so the payload begins at its first byte. */
  readonly fromStart: boolean;
  /** Bytes that the capture lacks in between; the payload is what came before them. */
  readonly missing: boolean;
}

/** Everything of a capture that the demo looks at. */
export interface Captured {
  readonly streams: readonly CapturedStream[];
  /** All payload bytes of TCP and UDP, to search for words in. */
  readonly payloads: readonly Uint8Array[];
  readonly packets: number;
}

/**
 * Captures what crosses any interface of this machine's network namespace within a network, with tcpdump: every pod's
 * end of its veth among them, also those that appear later.
 */
export class Capture {
  readonly #child: ChildProcess;
  readonly #file: string;
  #said = "";

  private constructor(child: ChildProcess, file: string) {
    this.#child = child;
    this.#file = file;
    child.stderr?.setEncoding("utf8").on("data", (text: string) => (this.#said += text));
  }

  static async start(network: string, file: string): Promise<Capture> {
    const child = spawn(
      "tcpdump",
      ["-i", "any", "-n", "-U", "-B", "65536", "-s", "0", "-w", file, "net", network],
      { stdio: ["ignore", "ignore", "pipe"] },
    );
    const capture = new Capture(child, file);
    const failed = once(child, "exit").then(
      () => "exit",
      (error: Error) => error.message,
    );
    const deadline = Date.now() + 10_000;
    while (!capture.#said.includes("listening on")) {
      const ended = await Promise.race([
        failed,
        new Promise<null>((resolve) => setTimeout(resolve, 20, null)),
      ]);
      if (ended !== null || Date.now() > deadline)
        throw new CommandError(`tcpdump does not capture: ${capture.#said.trim() || ended}`);
    }
    return capture;
  }

  /** Ends the capture and reads it. Packets that the kernel dropped would make it worthless, so they are an error. */
  async stop(): Promise<Captured> {
    const exited = once(this.#child, "exit");
    this.#child.kill("SIGINT");
    await exited;
    const dropped = Number(/(\d+) packets? dropped by kernel/.exec(this.#said)?.[1] ?? 0);
    if (dropped > 0)
      throw new CommandError(`the capture lost ${dropped} packets; run it on a quieter machine`);
    return readCapture(readFileSync(this.#file));
  }
}

const LINKTYPE_LINUX_SLL2 = 276;
const SLL2_HEAD_BYTES = 20;
const ETHERTYPE_IPV4 = 0x0800;

/** Reads a classic pcap file of link type LINUX_SLL2 (what tcpdump writes for "any"), IPv4 only. */
export function readCapture(bytes: Uint8Array): Captured {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const little = view.getUint32(0, true) === 0xa1b2c3d4 || view.getUint32(0, true) === 0xa1b23c4d;
  const linkType = view.getUint32(20, little) & 0xffff;
  if (linkType !== LINKTYPE_LINUX_SLL2)
    throw new CommandError(
      `tcpdump wrote link type ${linkType}, expected ${LINKTYPE_LINUX_SLL2}; update tcpdump`,
    );
  const flows = new Map<string, Flow>();
  const payloads: Uint8Array[] = [];
  let packets = 0;
  for (let at = 24; at + 16 <= bytes.length;) {
    const length = view.getUint32(at + 8, little);
    const start = at + 16;
    at = start + length;
    if (at > bytes.length) break;
    packets++;
    if (view.getUint16(start) !== ETHERTYPE_IPV4) continue;
    const interfaceIndex = view.getUint32(start + 4);
    const ip = start + SLL2_HEAD_BYTES;
    const headBytes = (view.getUint8(ip) & 0x0f) * 4;
    const ipEnd = Math.min(at, ip + (view.getUint16(ip + 2) || length));
    const protocol = view.getUint8(ip + 9);
    const transport = ip + headBytes;
    const address = (offset: number): string =>
      `${bytes[offset]}.${bytes[offset + 1]}.${bytes[offset + 2]}.${bytes[offset + 3]}`;
    const from = `${address(ip + 12)}:${view.getUint16(transport)}`;
    const to = `${address(ip + 16)}:${view.getUint16(transport + 2)}`;
    if (protocol === 17) payloads.push(bytes.subarray(transport + 8, ipEnd));
    if (protocol !== 6) continue;
    const dataStart = transport + (view.getUint8(transport + 12) >> 4) * 4;
    const flags = view.getUint8(transport + 13);
    const payload = bytes.subarray(dataStart, ipEnd);
    const key = `${interfaceIndex} ${from} ${to}`;
    let flow = flows.get(key);
    // A SYN on a key seen before is a new connection between the same ends.
    if (flow === undefined || ((flags & 0x02) !== 0 && flow.segments.length > 0)) {
      if (flow !== undefined) flows.set(`${key} #${flows.size}`, flow);
      flow = { interfaceIndex, from, to, syn: null, segments: [] };
      flows.set(key, flow);
    }
    const sequence = view.getUint32(transport + 4);
    if ((flags & 0x02) !== 0) flow.syn = sequence;
    if (payload.length > 0) {
      flow.segments.push({ sequence, payload });
      payloads.push(payload);
    }
  }
  return {
    streams: [...flows.values()].filter((flow) => flow.segments.length > 0).map(assemble),
    payloads,
    packets,
  };
}

interface Flow {
  readonly interfaceIndex: number;
  readonly from: string;
  readonly to: string;
  syn: number | null;
  readonly segments: { sequence: number; payload: Uint8Array }[];
}

/** Puts segments in order of their sequence numbers (RFC 9293 §3.4), each byte once. */
function assemble(flow: Flow): CapturedStream {
  const first =
    flow.syn === null ? (flow.segments[0] as { sequence: number }).sequence : (flow.syn + 1) >>> 0;
  const offset = (sequence: number): number => (sequence - first) | 0;
  const ordered = flow.segments.toSorted((a, b) => offset(a.sequence) - offset(b.sequence));
  const parts: Uint8Array[] = [];
  let next = 0;
  let missing = false;
  for (const { sequence, payload } of ordered) {
    const begin = offset(sequence);
    if (begin + payload.length <= next) continue;
    if (begin > next) {
      missing = true;
      break;
    }
    parts.push(payload.subarray(next - begin));
    next = begin + payload.length;
  }
  return {
    interfaceIndex: flow.interfaceIndex,
    from: flow.from,
    to: flow.to,
    payload: Buffer.concat(parts),
    fromStart: flow.syn !== null,
    missing,
  };
}

/** Whether bytes are a run of TLS records (RFC 8446 §5.1), the last of which may be cut. Null, or what is wrong. */
export function tlsProblem(bytes: Uint8Array): string | null {
  for (let at = 0; at < bytes.length;) {
    const type = bytes[at] as number;
    if (type < 20 || type > 23) return `byte ${at} begins no TLS record (content type ${type})`;
    if (at + 5 > bytes.length) return null;
    if (bytes[at + 1] !== 3 || (bytes[at + 2] as number) > 3) return `byte ${at + 1} is no TLS version`;
    const length = ((bytes[at + 3] as number) << 8) | (bytes[at + 4] as number);
    // RFC 8446 §5.2: at most 2^14 + 256.
    if (length === 0 || length > 16_640) return `a TLS record at byte ${at} of ${length} bytes`;
    at += 5 + length;
  }
  return null;
}
