import assert from "node:assert/strict";
import test from "node:test";
import fc from "fast-check";
import type { Fields } from "#/base/fields.ts";
import { latin1Bytes } from "../latin1.ts";
import { Event, Http1Reader } from "./reader.ts";
import { readAll } from "./testing.ts";
import { encodeChunk, encodeLastChunk, encodeRequestHead, encodeResponseHead } from "./writer.ts";

type Role = "request" | "response";

const token = fc.stringMatching(/^[!#$%&'*+.^_`|~0-9A-Za-z-]{1,12}$/);
const value = fc.stringMatching(
  /^([\x21-\x7e\xa1-\xff]([\t \x21-\x7e\x80-\xff]{0,20}[\x21-\x7e\x80-\xff])?)?$/,
);
const KNOWN = new Set(["host", "expect", "upgrade", "connection", "content-length", "transfer-encoding"]);
const plainName = token.filter((name) => !KNOWN.has(name.toLowerCase()));
const fields: fc.Arbitrary<Fields> = fc
  .array(fc.tuple(plainName, value), { maxLength: 6 })
  .map((pairs) => pairs.flat());
const target = fc.stringMatching(/^\/[\x21\x22\x24-\x7e\x80-\xff]{0,30}$/);
const body = fc.array(fc.uint8Array({ minLength: 1, maxLength: 40 }), { maxLength: 4 });

interface Sent {
  readonly bytes: Uint8Array;
  readonly events: readonly string[];
}

const described = (list: Fields): string => {
  let text = "";
  for (let i = 0; i < list.length; i += 2) text += ` [${list[i]}: ${list[i + 1]}]`;
  return text;
};

const join = (parts: readonly Uint8Array[]): Uint8Array => new Uint8Array(Buffer.concat(parts));

/** A well-formed message and what a reader must find in it. */
const message = (role: Role): fc.Arbitrary<Sent> =>
  fc
    .record({
      method: token.filter((m) => m !== "CONNECT"),
      target,
      fields,
      body,
      trailers: fields,
      chunked: fc.boolean(),
    })
    .map((m) => {
      const parts = m.body;
      const bodyBytes = join(parts);
      const framing = m.chunked
        ? ["Transfer-Encoding", "chunked"]
        : ["Content-Length", String(bodyBytes.length)];
      const all = [...m.fields, "Host", "a", ...framing];
      const head =
        role === "request"
          ? encodeRequestHead({ method: m.method, target: m.target, version: "1.1", fields: all })
          : encodeResponseHead({ version: "1.1", status: 200, reason: m.method, fields: all });
      const content = m.chunked
        ? [...parts.map((p) => encodeChunk(p, 0, p.length)), encodeLastChunk(m.trailers)]
        : [bodyBytes];
      const start = role === "request" ? `${m.method} ${m.target}` : `200 "${m.method}"`;
      const kind = m.chunked ? "chunked -1" : `length ${bodyBytes.length}`;
      const events = [`head ${start} 1.1 ${kind} keep-alive${described(all)}`];
      if (bodyBytes.length > 0) events.push(`body ${Buffer.from(bodyBytes).toString("latin1")}`);
      events.push(`end${m.chunked ? described(m.trailers) : ""}`);
      return { bytes: join([head, ...content]), events };
    });

function read(role: Role, chunks: readonly Uint8Array[], ended = false, settings = {}): string[] {
  const reader = new Http1Reader({ role, ...settings });
  if (role === "response") for (let i = 0; i < 8; i++) reader.responseTo("GET");
  return readAll(reader, chunks, role, ended);
}

function split(bytes: Uint8Array, sizes: readonly number[]): Uint8Array[] {
  const chunks: Uint8Array[] = [];
  for (let at = 0, i = 0; at < bytes.length; i++) {
    const size = sizes[i % sizes.length] ?? 1;
    chunks.push(bytes.slice(at, at + size));
    at += size;
  }
  return chunks;
}

const sizes = fc.array(fc.integer({ min: 1, max: 30 }), { minLength: 1, maxLength: 8 });

for (const role of ["request", "response"] as const) {
  test(`encode then decode is identity, at any split: ${role}s`, () => {
    fc.assert(
      fc.property(fc.array(message(role), { minLength: 1, maxLength: 4 }), sizes, (sent, cuts) => {
        const bytes = join(sent.map((m) => m.bytes));
        const wanted = sent.flatMap((m) => m.events);
        assert.deepEqual(read(role, [bytes], true).slice(0, wanted.length), wanted);
        assert.deepEqual(read(role, split(bytes, cuts)), wanted);
        assert.deepEqual(read(role, split(bytes, [1])), wanted);
      }),
    );
  });

  test(`damaged ${role}s give the same at any split, and never throw`, () => {
    const damage = fc.array(
      fc.tuple(fc.nat(), fc.oneof(fc.nat(255), fc.constantFrom(13, 10, 32, 58, 0, 9, 48))),
      {
        minLength: 1,
        maxLength: 4,
      },
    );
    const limits = { headBytesMax: 120, fieldsMax: 6, trailerBytesMax: 60, chunkExtensionBytesMax: 8 };
    fc.assert(
      fc.property(message(role), message(role), damage, sizes, fc.boolean(), (a, b, changes, cuts, small) => {
        const bytes = join([a.bytes, b.bytes]);
        for (const [at, byte] of changes) bytes[at % bytes.length] = byte;
        const settings = small ? limits : {};
        const whole = read(role, [bytes], true, settings);
        assert.deepEqual(read(role, split(bytes, cuts), true, settings), whole);
        assert.deepEqual(read(role, split(bytes, [1]), true, settings), whole);
      }),
      { numRuns: 400 },
    );
  });
}

test("pieces of HTTP in any order give the same at any split, and never throw", () => {
  const piece = fc.constantFrom(
    "GET / HTTP/1.1\r\n",
    "POST /a HTTP/1.0\r\n",
    "HTTP/1.1 200 OK\r\n",
    "HTTP/1.1 100 \r\n",
    "Host: a\r\n",
    "Content-Length: 3\r\n",
    "Transfer-Encoding: chunked\r\n",
    "Connection: close\r\n",
    "Connection: upgrade\r\nUpgrade: x\r\n",
    "\r\n",
    "\n",
    "\r",
    " ",
    "\t",
    "abc",
    "3\r\n",
    "0\r\n",
    "5;a=b\r\n",
    ";",
    ":",
    "\0",
    "\xff",
    "X: y\r\n",
  );
  fc.assert(
    fc.property(
      fc.array(piece, { maxLength: 14 }),
      sizes,
      fc.constantFrom("request" as const, "response" as const),
      (pieces, cuts, role) => {
        const bytes = latin1Bytes(pieces.join(""));
        const whole = read(role, [bytes], true);
        assert.deepEqual(read(role, split(bytes, cuts), true), whole);
        assert.deepEqual(read(role, split(bytes, [1]), true), whole);
      },
    ),
    { numRuns: 1000 },
  );
});

test("random bytes never throw and never hold more than the bounds", () => {
  const chunk = fc.oneof(
    fc.uint8Array({ maxLength: 60 }),
    fc.constantFrom("GET / HTTP/1.1\r\nA: ", "a: b\r\n", "\r\n").map(latin1Bytes),
  );
  fc.assert(
    fc.property(fc.array(chunk, { maxLength: 30 }), fc.boolean(), (chunks, isRequest) => {
      const reader = new Http1Reader({
        role: isRequest ? "request" : "response",
        headBytesMax: 100,
        trailerBytesMax: 100,
      });
      if (!isRequest) reader.responseTo("GET");
      for (const bytes of chunks) {
        reader.feed(bytes);
        let kind = reader.next();
        while (kind !== Event.NOTHING && kind !== Event.ERROR) kind = reader.next();
        assert.ok(reader.bufferedBytes < 100);
      }
    }),
  );
});

test("single bytes of a large head cost no more than its lines", () => {
  const bytes = latin1Bytes(`GET / HTTP/1.1\r\nHost: a\r\nX: ${"a".repeat(60_000)}\r\n\r\n`);
  const events = read("request", split(bytes, [1]));
  assert.equal(events.length, 2);
});
