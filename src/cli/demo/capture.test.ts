import assert from "node:assert/strict";
import { test } from "node:test";
import { readCapture, tlsProblem } from "./capture.ts";

const SYN = 0x02;
const ACK = 0x10;

interface Packet {
  readonly sequence: number;
  readonly flags: number;
  readonly payload: string;
  readonly interfaceIndex?: number;
  readonly protocol?: number;
}

/** A packet as tcpdump writes it for "any": pcap record, SLL2 head, IPv4 head, TCP (or UDP) head, payload. */
function record(packet: Packet): Uint8Array {
  const payload = Buffer.from(packet.payload, "latin1");
  const isUdp = packet.protocol === 17;
  const transport = Buffer.alloc(isUdp ? 8 : 20);
  transport.writeUInt16BE(40_000, 0);
  transport.writeUInt16BE(4143, 2);
  if (!isUdp) {
    transport.writeUInt32BE(packet.sequence, 4);
    transport[12] = 5 << 4;
    transport[13] = packet.flags;
  }
  const ip = Buffer.alloc(20);
  ip[0] = 0x45;
  ip.writeUInt16BE(20 + transport.length + payload.length, 2);
  ip[9] = packet.protocol ?? 6;
  ip.set([10, 0, 0, 2], 12);
  ip.set([10, 0, 0, 3], 16);
  const link = Buffer.alloc(20);
  link.writeUInt16BE(0x0800, 0);
  link.writeUInt32BE(packet.interfaceIndex ?? 7, 4);
  const bytes = Buffer.concat([link, ip, transport, payload]);
  const head = Buffer.alloc(16);
  head.writeUInt32LE(bytes.length, 8);
  head.writeUInt32LE(bytes.length, 12);
  return Buffer.concat([head, bytes]);
}

function pcap(packets: readonly Packet[], linkType: number = 276): Uint8Array {
  const head = Buffer.alloc(24);
  head.writeUInt32LE(0xa1b2c3d4, 0);
  head.writeUInt32LE(linkType, 20);
  return Buffer.concat([head, ...packets.map(record)]);
}

function textOf(bytes: Uint8Array | undefined): string {
  return Buffer.from(bytes ?? []).toString("latin1");
}

test("segments are put in order, each byte once, also across the end of sequence numbers (RFC 9293 §3.4)", () => {
  const start = 0xffff_fffd;
  const { streams, packets } = readCapture(
    pcap([
      { sequence: start, flags: SYN, payload: "" },
      { sequence: 1, flags: ACK, payload: "defg" },
      { sequence: start + 1, flags: ACK, payload: "abc" },
      { sequence: start + 1, flags: ACK, payload: "abc" },
      { sequence: 2, flags: ACK, payload: "efghi" },
    ]),
  );
  assert.equal(packets, 5);
  assert.equal(streams.length, 1);
  assert.equal(textOf(streams[0]?.payload), "abcdefghi");
  assert.equal(streams[0]?.from, "10.0.0.2:40000");
  assert.equal(streams[0]?.to, "10.0.0.3:4143");
  assert.deepEqual([streams[0]?.fromStart, streams[0]?.missing], [true, false]);
});

test("a hole, an unseen beginning, two interfaces and reused ports are each told apart", () => {
  const { streams } = readCapture(
    pcap([
      { sequence: 10, flags: SYN, payload: "", interfaceIndex: 1 },
      { sequence: 11, flags: ACK, payload: "ab", interfaceIndex: 1 },
      { sequence: 15, flags: ACK, payload: "ef", interfaceIndex: 1 },
      { sequence: 50, flags: ACK, payload: "late", interfaceIndex: 2 },
      { sequence: 90, flags: SYN, payload: "", interfaceIndex: 1 },
      { sequence: 91, flags: ACK, payload: "again", interfaceIndex: 1 },
    ]),
  );
  assert.deepEqual(
    streams
      .map((stream) => [stream.interfaceIndex, textOf(stream.payload), stream.fromStart, stream.missing])
      .toSorted((a, b) => String(a[1]).localeCompare(String(b[1]))),
    [
      [1, "ab", true, true],
      [1, "again", true, false],
      [2, "late", false, false],
    ],
  );
});

test("words are looked for in UDP too, and a record that was cut off ends the reading", () => {
  const whole = pcap([{ sequence: 0, flags: 0, payload: "canary", protocol: 17 }]);
  assert.equal(textOf(readCapture(whole).payloads[0]), "canary");
  assert.deepEqual(readCapture(whole.subarray(0, -3)).payloads, []);
  assert.throws(() => readCapture(pcap([], 1)), /link type 1, expected 276/);
});

test("TLS records are nothing else: types, version and length are checked, the last may be cut (RFC 8446 §5.1)", () => {
  const bytes = (...values: number[]): Uint8Array => Uint8Array.from(values);
  assert.equal(tlsProblem(bytes(22, 3, 1, 0, 2, 9, 9, 23, 3, 3, 0, 1, 0)), null);
  assert.equal(tlsProblem(bytes(23, 3, 3, 0, 200, 1, 2)), null);
  assert.equal(tlsProblem(bytes(23, 3)), null);
  assert.match(tlsProblem(Buffer.from("GET / HTTP/1.1")) ?? "", /byte 0 begins no TLS record/);
  assert.match(tlsProblem(bytes(22, 3, 3, 0, 1, 0, 0x50)) ?? "", /byte 6 begins no TLS record/);
  assert.match(tlsProblem(bytes(23, 2, 0, 0, 1, 0)) ?? "", /no TLS version/);
  assert.match(tlsProblem(bytes(23, 3, 3, 0xff, 0xff, 0)) ?? "", /of 65535 bytes/);
  assert.match(tlsProblem(bytes(23, 3, 3, 0, 0)) ?? "", /of 0 bytes/);
});
