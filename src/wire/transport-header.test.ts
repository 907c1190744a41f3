import assert from "node:assert/strict";
import test from "node:test";
import fc from "fast-check";
import { latin1Bytes } from "./latin1.ts";
import { TransportHeaderReader, encodeTransportHeader, isDnsName } from "./transport-header.ts";
import type { TransportHeader, TransportHeaderResult } from "./transport-header.ts";

const PREFACE = Buffer.from("transport.l5d.io/v1\r\n\r\n").toString("hex");
const hex = (text: string): Uint8Array => new Uint8Array(Buffer.from(text.replaceAll(" ", ""), "hex"));
const read = (text: string): TransportHeaderResult => new TransportHeaderReader().feed(hex(PREFACE + text));
const errorOf = (result: TransportHeaderResult): string =>
  result.kind === "error" ? result.error.message : result.kind;

const EXAMPLES: readonly [header: TransportHeader, afterPreface: string][] = [
  [{ port: 8080, name: null, protocol: "http2" }, "00000007 08 90 3f 1a 02 12 00"],
  [{ port: 8080, name: null, protocol: "http1" }, "00000007 08 90 3f 1a 02 0a 00"],
  [{ port: 3306, name: null, protocol: null }, "00000003 08 ea 19"],
  [{ port: 80, name: "web", protocol: null }, "00000007 08 50 12 03 776562"],
];

test("writes and reads the bytes that a linkerd2-proxy does", () => {
  for (const [header, bytes] of EXAMPLES) {
    assert.deepEqual(encodeTransportHeader(header), hex(PREFACE + bytes));
    const result = read(`${bytes} 6869`);
    assert.deepEqual(result, { kind: "header", header, rest: hex("6869") });
  }
});

test("encode then decode is identity, at any split", () => {
  const label = fc.stringMatching(/^[a-z0-9_]([a-z0-9_-]{0,20}[a-z0-9])?$/);
  const header = fc.record(
    {
      port: fc.integer({ min: 1, max: 65535 }),
      name: fc.option(fc.array(label, { minLength: 1, maxLength: 8 }).map((labels) => labels.join("."))),
      protocol: fc.constantFrom("http1" as const, "http2" as const, null),
    },
    { noNullPrototype: true },
  );
  fc.assert(
    fc.property(header, fc.nat(), (sent, seed) => {
      const head = encodeTransportHeader(sent);
      const bytes = new Uint8Array([...head, ...latin1Bytes("rest")]);
      const cut = seed % (bytes.length + 1);
      const reader = new TransportHeaderReader();
      const first = reader.feed(bytes.subarray(0, cut));
      assert.equal(first.kind, cut < head.length ? "incomplete" : "header");
      const result = first.kind === "incomplete" ? reader.feed(bytes.subarray(cut)) : first;
      const rest = bytes.slice(head.length, first.kind === "header" ? cut : bytes.length);
      assert.deepEqual(result, { kind: "header", header: sent, rest });
    }),
  );
});

test("passes over unknown fields and takes the last of a repeated one", () => {
  const result = read("00000014 f80201 fa0201ff fd0200000000 0801 08ea19 1a00");
  assert.deepEqual(result, {
    kind: "header",
    header: { port: 3306, name: null, protocol: null },
    rest: hex(""),
  });
});

test("refuses a wrong preface at its first wrong byte", () => {
  assert.match(errorOf(new TransportHeaderReader().feed(latin1Bytes("G"))), /preface/);
  assert.match(errorOf(new TransportHeaderReader().feed(latin1Bytes("transport.l5d.io/v2"))), /preface/);
  assert.equal(new TransportHeaderReader().feed(latin1Bytes("transport.l5d.io/v1\r")).kind, "incomplete");
});

test("refuses what cannot be a header", () => {
  assert.match(errorOf(read("0000ffff")), /over the limit/);
  assert.match(errorOf(read("ffffffff")), /over the limit/);
  assert.match(errorOf(read("00000000")), /port 0/);
  assert.match(errorOf(read("00000004 08 808004")), /port 65536/);
  assert.match(errorOf(read("0000000b 08 ffffffffffffffffff01")), /port/);
  assert.match(errorOf(read("00000001 08")), /protobuf/);
  assert.match(errorOf(read("00000004 0850 120a")), /protobuf/);
  assert.match(errorOf(read("00000005 0850 120120")), /DNS name/);
  assert.match(errorOf(read("00000005 0850 1a01ff")), /session protocol/);
  assert.match(errorOf(read("00000003 0850 03")), /protobuf/);
});

test("random bytes after the preface never throw", () => {
  fc.assert(
    fc.property(fc.uint8Array({ maxLength: 40 }), (message) => {
      const bytes = new Uint8Array([...hex(PREFACE), 0, 0, 0, message.length, ...message]);
      const result = new TransportHeaderReader().feed(bytes);
      assert.notEqual(result.kind, "incomplete");
      if (result.kind === "header") assert.ok(result.header.port >= 1 && result.header.port <= 65535);
    }),
  );
});

test("knows a DNS name (RFC 1035 §2.3.4)", () => {
  for (const name of ["web", "web.shop.svc.cluster.local", "_grpc._tcp.web", "a-b.c.", "A1"])
    assert.ok(isDnsName(name), name);
  for (const name of ["", ".", "-a", "a-", "a..b", "a b", "a\r\n", `${"a".repeat(64)}.b`, "a.".repeat(127)]) {
    assert.ok(!isDnsName(name), name);
  }
});
