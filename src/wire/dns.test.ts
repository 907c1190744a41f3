import assert from "node:assert/strict";
import test from "node:test";
import fc from "fast-check";
import { formatIp } from "#/base/address.ts";
import { DNS_UDP_BYTES_MAX, DnsCode, DnsType, decodeDns, encodeDns, isWritableName } from "./dns.ts";
import type { DnsData, DnsMessage, DnsRecord } from "./dns.ts";

const hex = (text: string): Uint8Array => new Uint8Array(Buffer.from(text.replaceAll(/\s/g, ""), "hex"));
const ip = (text: string): ReturnType<typeof formatIp> => text as ReturnType<typeof formatIp>;

const QUERY: DnsMessage = {
  id: 0x1234,
  isResponse: false,
  opcode: 0,
  isAuthoritative: false,
  isTruncated: false,
  recursionDesired: true,
  recursionAvailable: false,
  code: 0,
  questions: [{ name: "Web.shop", type: DnsType.A, class: 1 }],
  answers: [],
  authorities: [],
  additionals: [],
  edns: null,
};

function decoded(bytes: Uint8Array): DnsMessage {
  const result = decodeDns(bytes);
  if (result.kind === "error") throw result.error;
  return result.message;
}

function whyNot(bytes: Uint8Array): string {
  const result = decodeDns(bytes);
  return result.kind === "error" ? result.error.message : "a message";
}

const record = (name: string, data: DnsData): DnsRecord => ({ name, class: 1, ttlS: 5, data });

test("reads and writes what dig sends (RFC 1035 §4.1, RFC 6891 §6.1)", () => {
  const bytes = hex(
    "1234 0100 0001 0000 0000 0001  03 576562 04 73686f70 00 0001 0001  00 0029 1000 00008000 0000",
  );
  const message = { ...QUERY, edns: { payloadBytes: 4096, version: 0, dnssecOk: true } };
  assert.deepEqual(decoded(bytes), message);
  assert.deepEqual(encodeDns(message, 512), bytes);
});

test("writes a compressed answer, and keeps the question's case (RFC 1035 §4.1.4)", () => {
  const answer: DnsMessage = {
    ...QUERY,
    isResponse: true,
    isAuthoritative: true,
    answers: [record("Web.shop", { kind: "A", address: ip("10.0.0.7") })],
  };
  const bytes = hex(
    "1234 8500 0001 0001 0000 0000  03 576562 04 73686f70 00 0001 0001  c00c 0001 0001 00000005 0004 0a000007",
  );
  assert.deepEqual(encodeDns(answer, 512), bytes);
  assert.deepEqual(decoded(bytes), answer);
});

test("the target of SRV is not compressed (RFC 2782)", () => {
  const data: DnsData = { kind: "SRV", priority: 0, weight: 10, port: 80, target: "a.shop" };
  const bytes = encodeDns({ ...QUERY, answers: [record("Web.shop", data)] }, 512);
  assert.deepEqual(bytes.subarray(-14), hex("0000 000a 0050 01 61 04 73686f70 00"));
  assert.deepEqual(decoded(bytes).answers[0]?.data, data);
});

const label = fc.uint8Array({ minLength: 1, maxLength: 63 });
const plainLabel = fc.stringMatching(/^[a-z0-9-]{1,12}$/);
const name = fc.oneof(
  fc.array(plainLabel, { maxLength: 6 }).map((labels) => labels.join(".")),
  label.map((bytes) => [...bytes].map((b) => `\\${String(b).padStart(3, "0")}`).join("")),
);
const uint16 = fc.nat(0xffff);
const uint32 = fc.nat(0x7fff_ffff);
const address = (size: number): fc.Arbitrary<ReturnType<typeof formatIp>> =>
  fc.uint8Array({ minLength: size, maxLength: size }).map((bytes) => formatIp(bytes));
const data: fc.Arbitrary<DnsData> = fc.oneof(
  fc.record({ kind: fc.constant("A" as const), address: address(4) }),
  fc.record({ kind: fc.constant("AAAA" as const), address: address(16) }),
  fc.record({ kind: fc.constantFrom("NS" as const, "CNAME" as const, "PTR" as const), target: name }),
  fc.record({
    kind: fc.constant("SRV" as const),
    priority: uint16,
    weight: uint16,
    port: uint16,
    target: name,
  }),
  fc.record({
    kind: fc.constant("SOA" as const),
    primary: name,
    mailbox: name,
    serial: uint32,
    refreshS: uint32,
    retryS: uint32,
    expireS: uint32,
    minimumS: uint32,
  }),
  fc.record({
    kind: fc.constant("TXT" as const),
    texts: fc.array(fc.uint8Array({ maxLength: 255 }), { maxLength: 3 }),
  }),
  fc.record({
    kind: fc.constant("other" as const),
    type: fc.integer({ min: 256, max: 65000 }),
    bytes: fc.uint8Array(),
  }),
);
const section = fc.array(fc.record({ name, class: uint16, ttlS: uint32, data }), { maxLength: 4 });
const message: fc.Arbitrary<DnsMessage> = fc
  .record({
    id: uint16,
    isResponse: fc.boolean(),
    opcode: fc.nat(15),
    isAuthoritative: fc.boolean(),
    isTruncated: fc.boolean(),
    recursionDesired: fc.boolean(),
    recursionAvailable: fc.boolean(),
    code: fc.nat(15),
    questions: fc.array(fc.record({ name, type: uint16, class: uint16 }), { maxLength: 1 }),
    answers: section,
    authorities: section,
    additionals: section,
    edns: fc.option(
      fc.record({
        payloadBytes: fc.integer({ min: 512, max: 65535 }),
        version: fc.nat(255),
        dnssecOk: fc.boolean(),
      }),
    ),
  })
  // The bits above the fourth travel in OPT only.
  .map((m) => ({ ...m, code: m.edns === null ? m.code : m.code * 16 + m.code }));

test("encode then decode is identity, and then stable", () => {
  fc.assert(
    fc.property(message, (sent) => {
      const bytes = encodeDns(sent, 65535);
      const got = decoded(bytes);
      assert.deepEqual(encodeDns(got, 65535), bytes);
      assert.equal(plain(got), plain(sent));
    }),
  );
});

/** Comparable text with names in one spelling: what is printable may be written with an escape or without. */
function plain(value: unknown): string {
  // "\\\\" first: digits behind an escaped backslash are no escape.
  return JSON.stringify(value).replaceAll(/\\\\\\\\|\\\\([0-9]{3})/g, (escape, digits?: string) => {
    if (digits === undefined) return escape;
    const code = Number(digits);
    if (code === 0x2e || code === 0x5c)
      return `\\\\${JSON.stringify(String.fromCharCode(code)).slice(1, -1)}`;
    return code > 0x20 && code < 0x7f ? JSON.stringify(String.fromCharCode(code)).slice(1, -1) : escape;
  });
}

test("what does not fit is left out and marked (RFC 2181 §9)", () => {
  const answers = Array.from({ length: 60 }, (_, i) =>
    record("web.shop", { kind: "A" as const, address: ip(`10.0.0.${i}`) }),
  );
  const edns = { payloadBytes: 512, version: 0, dnssecOk: false };
  const bytes = encodeDns({ ...QUERY, answers, edns }, DNS_UDP_BYTES_MAX);
  assert.ok(bytes.length <= DNS_UDP_BYTES_MAX && bytes.length > DNS_UDP_BYTES_MAX - 16);
  const cut = decoded(bytes);
  assert.equal(cut.isTruncated, true);
  assert.deepEqual(cut.edns, edns);
  assert.deepEqual(cut.answers, answers.slice(0, cut.answers.length));

  const extra = decoded(encodeDns({ ...QUERY, additionals: answers }, DNS_UDP_BYTES_MAX));
  assert.equal(extra.isTruncated, false);
  assert.ok(extra.additionals.length < answers.length);
});

test("compression cannot loop, and points back only (RFC 1035 §4.1.4)", () => {
  const head = "1234 0100 0001 0000 0000 0000";
  assert.match(whyNot(hex(`${head} c00c 0001 0001`)), /point back/);
  assert.match(whyNot(hex(`${head} 01 61 c00c 0001 0001`)), /point back/);
  assert.match(whyNot(hex(`${head} c0ff 0001 0001`)), /point back/);
  assert.match(whyNot(hex(`${head} 80 0001 0001`)), /label of an unknown kind/);
  // A pointer into the head is odd, but leads to bytes that end.
  assert.equal(whyNot(hex(`${head} c006 0001 0001`)), "a message");
  // A chain of pointers, each to the one before, builds a name of more than 255 bytes.
  const labels = Array.from({ length: 5 }, () => `3f ${"61".repeat(63)}`).join("");
  assert.match(whyNot(hex(`${head} ${labels} 00 0001 0001`)), /too long/);
});

test("a message cut short anywhere is an error with its id", () => {
  const whole = encodeDns(
    { ...QUERY, answers: [record("Web.shop", { kind: "A", address: ip("10.0.0.7") })] },
    512,
  );
  for (let stop = 0; stop < whole.length; stop++) {
    const result = decodeDns(whole, 0, stop);
    assert.equal(result.kind, "error");
    if (result.kind === "error") assert.equal(result.id, stop < 2 ? null : 0x1234);
  }
});

test("a record's length must fit its content", () => {
  const answer = "1234 8100 0000 0001 0000 0000 00 0001 0001 00000005";
  assert.match(whyNot(hex(`${answer} 0005 0a00000700`)), /does not fit/);
  assert.match(whyNot(hex(`${answer} 0003 0a0000`)), /cut short/);
  assert.match(whyNot(hex(`${answer} ffff 0a000007`)), /cut short/);
  assert.match(whyNot(hex("1234 8100 0000 0001 0000 0000 00 0029 1000 00000000 0000")), /misplaced OPT/);
});

test("names and their limits (RFC 1035 §2.3.4)", () => {
  const long = `${"a".repeat(63)}.${"b".repeat(63)}.${"c".repeat(63)}.${"d".repeat(61)}`;
  for (const good of ["", "a", "a.b", "_http._tcp.web", "a\\.b", "a\\\\", "\\000", long])
    assert.ok(isWritableName(good), good);
  for (const bad of [".", "a.", ".a", "a..b", "a".repeat(64), `${long}d`, "a\\", "\u0100", "\\256"])
    assert.ok(!isWritableName(bad), bad);
});

test("a v4-mapped AAAA record can be sent on, a code above 15 needs EDNS (RFC 6891 §6.1.3)", () => {
  const edns = { payloadBytes: 1232, version: 0, dnssecOk: false };
  const answers = [
    record("a", { kind: "AAAA", address: formatIp(hex("00000000 00000000 0000ffff 01020304")) }),
  ];
  const got = decoded(encodeDns({ ...QUERY, code: DnsCode.BADVERS, edns, answers }, 512));
  assert.equal(got.code, DnsCode.BADVERS);
  assert.deepEqual(got.answers, answers);
});

test("random and damaged bytes never throw", () => {
  fc.assert(fc.property(fc.uint8Array({ maxLength: 80 }), (bytes) => void decodeDns(bytes)));
  fc.assert(
    fc.property(message, fc.array(fc.tuple(fc.nat(), fc.nat(255)), { maxLength: 5 }), (sent, changes) => {
      const bytes = encodeDns(sent, 65535);
      for (const [at, value] of changes) bytes[at % bytes.length] = value;
      const result = decodeDns(bytes);
      if (result.kind === "message" && result.message.questions.length < 4) encodeDns(result.message, 65535);
    }),
  );
});
