import assert from "node:assert/strict";
import { Duplex } from "node:stream";
import test from "node:test";
import tls from "node:tls";
import fc from "fast-check";
import { latin1Bytes } from "./latin1.ts";
import { CLIENT_HELLO_BYTES_MAX, inspectClientHello } from "./tls-hello.ts";

/** The first bytes that Node's own TLS client sends, without a socket. */
function nodeHello(options: tls.ConnectionOptions): Uint8Array {
  const sent: Uint8Array[] = [];
  const transport = new Duplex({
    read() {},
    write(chunk: Uint8Array, _encoding, done) {
      sent.push(new Uint8Array(chunk));
      done();
    },
  });
  const socket = tls.connect({ ...options, socket: transport });
  socket.on("error", () => {});
  socket.destroy();
  return sent[0] as Uint8Array;
}

const vector = (sizeBytes: number, content: readonly number[]): number[] => {
  const size: number[] = [];
  for (let i = sizeBytes - 1; i >= 0; i--) size.push((content.length >>> (8 * i)) & 0xff);
  return [...size, ...content];
};
const text = (value: string): number[] => Array.from(latin1Bytes(value));
const extension = (type: number, content: readonly number[]): number[] => [
  type >> 8,
  type & 0xff,
  ...vector(2, content),
];
const sniOf = (name: string): number[] => extension(0, vector(2, [0, ...vector(2, text(name))]));
const alpnOf = (...names: string[]): number[] =>
  extension(
    16,
    vector(
      2,
      names.flatMap((n) => vector(1, text(n))),
    ),
  );

function handshake(extensions: readonly number[] | null): number[] {
  const body = [
    3,
    3,
    ...Array<number>(32).fill(7),
    ...vector(1, [1, 2]),
    ...vector(2, [0x13, 1]),
    ...vector(1, [0]),
  ];
  return [1, ...vector(3, extensions === null ? body : [...body, ...vector(2, extensions)])];
}
const record = (content: readonly number[]): number[] => [22, 3, 1, ...vector(2, content)];
const hello = (extensions: readonly number[] | null): Uint8Array =>
  Uint8Array.from(record(handshake(extensions)));

test("reads what Node's TLS client sends, at any length of it", () => {
  const bytes = nodeHello({
    servername: "web.shop.serviceaccount.identity.pillion.cluster.local",
    ALPNProtocols: ["pillion/2", "h2"],
  });
  assert.deepEqual(inspectClientHello(bytes, 0, bytes.length), {
    kind: "hello",
    sni: "web.shop.serviceaccount.identity.pillion.cluster.local",
    alpn: ["pillion/2", "h2"],
    resumes: false,
  });
  for (let stop = 0; stop < bytes.length; stop++)
    assert.equal(inspectClientHello(bytes, 0, stop).kind, "incomplete");
  const plain = nodeHello({});
  assert.deepEqual(inspectClientHello(plain, 0, plain.length), {
    kind: "hello",
    sni: null,
    alpn: [],
    resumes: false,
  });
});

test("reads a hello inside a larger buffer, and one without extensions (RFC 5246 §7.4.1.2)", () => {
  const bytes = hello([...extension(43, [1]), ...sniOf("Web.Example"), ...alpnOf("h2")]);
  const padded = new Uint8Array([9, 9, ...bytes, 20, 3, 3]);
  assert.deepEqual(inspectClientHello(padded, 2, padded.length), {
    kind: "hello",
    sni: "web.example",
    alpn: ["h2"],
    resumes: false,
  });
  const psk = hello([...sniOf("web"), ...extension(41, [0, 0])]);
  assert.deepEqual(inspectClientHello(psk), { kind: "hello", sni: "web", alpn: [], resumes: true });
  assert.deepEqual(inspectClientHello(hello(null)), { kind: "hello", sni: null, alpn: [], resumes: false });
});

test("puts a hello together from several records (RFC 8446 §5.1)", () => {
  const whole = handshake([...sniOf("web"), ...alpnOf("a", "b")]);
  for (const size of [1, 2, 3, 5, 40, whole.length - 1]) {
    const records: number[] = [];
    for (let at = 0; at < whole.length; at += size) records.push(...record(whole.slice(at, at + size)));
    const bytes = Uint8Array.from(records);
    assert.deepEqual(
      inspectClientHello(bytes),
      { kind: "hello", sni: "web", alpn: ["a", "b"], resumes: false },
      `${size}`,
    );
    for (let stop = 0; stop < bytes.length; stop++) {
      assert.equal(inspectClientHello(bytes, 0, stop).kind, "incomplete", `${size} ${stop}`);
    }
  }
});

test("says not-tls at the first byte that cannot be", () => {
  const firsts = [
    [23],
    [22, 2],
    [22, 3, 4],
    [22, 3, 1, 0, 0],
    [22, 3, 1, 0x40, 1],
    [22, 3, 1, 0, 9, 2],
    [0x80],
    [71],
  ];
  for (const bytes of firsts) {
    assert.equal(inspectClientHello(Uint8Array.from(bytes)).kind, "not-tls", String(bytes));
    assert.equal(inspectClientHello(Uint8Array.from(bytes.slice(0, -1))).kind, "incomplete", String(bytes));
  }
});

test("malformed hellos are not-tls", () => {
  const wrong: readonly (readonly number[])[] = [
    [...sniOf("a"), ...sniOf("b")], // RFC 8446 §4.2
    [...alpnOf("a"), ...alpnOf("b")],
    sniOf(""),
    sniOf("a\nb"),
    sniOf("a".repeat(254)),
    extension(0, vector(2, [1, ...vector(2, text("a"))])),
    extension(0, []),
    extension(16, vector(2, vector(1, []))),
    extension(16, [0, 9]),
    [0, 0, 0, 9, 1],
    [0],
  ];
  for (const extensions of wrong)
    assert.equal(inspectClientHello(hello(extensions)).kind, "not-tls", String(extensions));
  const cut = handshake([]);
  cut[3] = 3; // says three bytes, which is not even the version and the random
  assert.equal(inspectClientHello(Uint8Array.from(record(cut))).kind, "not-tls");
});

test("a hello over the bound is not-tls, and never held for", () => {
  const declared = Uint8Array.from([22, 3, 1, 0x40, 0, 1, 0, 0x40, 0]);
  assert.equal(inspectClientHello(declared).kind, "not-tls");
  const oneByOne = Uint8Array.from(
    Array.from({ length: 3000 }, (_, i) => record([[1, 0, 0x30, 0][i] ?? 0])).flat(),
  );
  assert.ok(oneByOne.length > CLIENT_HELLO_BYTES_MAX);
  assert.equal(inspectClientHello(oneByOne).kind, "not-tls");
});

test("damaged hellos never throw", () => {
  const bytes = hello([
    ...sniOf("web.example"),
    ...alpnOf("h2", "http/1.1"),
    ...extension(51, Array<number>(40).fill(1)),
  ]);
  const change = fc.tuple(fc.nat(bytes.length - 1), fc.integer({ min: 0, max: 255 }));
  fc.assert(
    fc.property(fc.array(change, { minLength: 1, maxLength: 4 }), fc.nat(bytes.length), (changes, stop) => {
      const damaged = bytes.slice();
      for (const [at, value] of changes) damaged[at] = value;
      const result = inspectClientHello(damaged, 0, stop);
      assert.ok(["incomplete", "not-tls", "hello"].includes(result.kind));
    }),
  );
});
