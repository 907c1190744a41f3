import assert from "node:assert/strict";
import test from "node:test";
import fc from "fast-check";
import {
  GrpcFound,
  GrpcMessageReader,
  GrpcStatus,
  decodeGrpcText,
  encodeGrpcMessage,
  encodeGrpcText,
} from "./grpc.ts";
import { encodeGrpcTimeout, grpcStatusOfHttp, parseGrpcStatus, parseGrpcTimeout } from "./grpc.ts";

function readAll(reader: GrpcMessageReader): string[] {
  const found: string[] = [];
  for (let kind = reader.next(); kind !== GrpcFound.NOTHING; kind = reader.next()) {
    if (kind === GrpcFound.ERROR) return [...found, reader.error?.code ?? ""];
    found.push(`${reader.compressed ? "z" : ""}${Buffer.from(reader.message).toString("hex")}`);
  }
  return found;
}

test("encode then decode is identity, at any split", () => {
  const message = fc.tuple(fc.uint8Array({ maxLength: 40 }), fc.boolean());
  fc.assert(
    fc.property(
      fc.array(message, { maxLength: 6 }),
      fc.array(fc.integer({ min: 1, max: 20 }), { minLength: 1 }),
      (sent, sizes) => {
        const bytes = new Uint8Array(Buffer.concat(sent.map(([m, z]) => encodeGrpcMessage(m, z))));
        const reader = new GrpcMessageReader();
        const found: string[] = [];
        for (let at = 0, i = 0; at < bytes.length; i++) {
          const stop = Math.min(bytes.length, at + (sizes[i % sizes.length] ?? 1));
          reader.feed(bytes, at, stop);
          found.push(...readAll(reader));
          at = stop;
        }
        assert.deepEqual(
          found,
          sent.map(([m, z]) => `${z ? "z" : ""}${Buffer.from(m).toString("hex")}`),
        );
        assert.equal(reader.isBetweenMessages, true);
      },
    ),
  );
});

test("a message that comes in single bytes is put together", () => {
  const message = Uint8Array.from({ length: 5000 }, (_, i) => i);
  const bytes = encodeGrpcMessage(message);
  const reader = new GrpcMessageReader();
  for (let i = 0; i < bytes.length; i++) reader.feed(bytes, i, i + 1);
  assert.equal(reader.next(), GrpcFound.MESSAGE);
  assert.deepEqual(reader.message, message);
  assert.equal(reader.isBetweenMessages, true);
});

test("a message over the limit is refused from its head", () => {
  const reader = new GrpcMessageReader(10);
  reader.feed(Uint8Array.of(0, 0, 0, 0, 11));
  assert.deepEqual(readAll(reader), ["GRPC_MESSAGE_TOO_LARGE"]);
  assert.equal(reader.next(), GrpcFound.ERROR);
  const huge = new GrpcMessageReader();
  huge.feed(Uint8Array.of(0, 255, 255, 255, 255));
  assert.deepEqual(readAll(huge), ["GRPC_MESSAGE_TOO_LARGE"]);
});

test("an unknown flag is refused, an unfinished message is seen", () => {
  const reader = new GrpcMessageReader();
  reader.feed(Uint8Array.of(2, 0, 0, 0, 0));
  assert.deepEqual(readAll(reader), ["GRPC_FLAG_INVALID"]);
  const unfinished = new GrpcMessageReader();
  unfinished.feed(Uint8Array.of(0, 0, 0, 0, 2, 7));
  assert.deepEqual(readAll(unfinished), []);
  assert.equal(unfinished.isBetweenMessages, false);
});

test("timeouts", () => {
  const good: readonly [text: string, ms: number][] = [
    ["1S", 1000],
    ["250m", 250],
    ["1n", 1],
    ["1500u", 2],
    ["2M", 120_000],
    ["1H", 3_600_000],
    ["99999999m", 99_999_999],
  ];
  for (const [text, ms] of good) assert.equal(parseGrpcTimeout(text), ms, text);
  for (const text of ["", "S", "1", "1s", "-1S", "1.5S", "123456789m", " 1S", "1S "])
    assert.equal(parseGrpcTimeout(text), null, text);
  assert.equal(encodeGrpcTimeout(250), "250m");
  assert.equal(encodeGrpcTimeout(0.2), "1m");
  assert.equal(encodeGrpcTimeout(-5), "0m");
  assert.equal(encodeGrpcTimeout(100_000_000), "100000S");
  assert.equal(encodeGrpcTimeout(Infinity), "99999999H");
  fc.assert(
    fc.property(fc.nat(1e12), (ms) => assert.ok((parseGrpcTimeout(encodeGrpcTimeout(ms)) ?? -1) >= ms)),
  );
});

test("status texts are percent-coded", () => {
  assert.equal(encodeGrpcText("50% of é\n"), "50%25 of %C3%A9%0A");
  assert.equal(decodeGrpcText("50%25 of %C3%a9%0A"), "50% of é\n");
  assert.equal(decodeGrpcText("100% %zz %4"), "100% %zz %4");
  assert.equal(decodeGrpcText("%ff"), "\ufffd");
  fc.assert(
    fc.property(fc.string({ unit: "grapheme" }), (text) =>
      assert.equal(decodeGrpcText(encodeGrpcText(text)), text),
    ),
  );
});

test("statuses", () => {
  assert.equal(parseGrpcStatus("14"), 14);
  assert.equal(parseGrpcStatus("17"), 17);
  for (const text of ["", "-1", "x", "1.0", " 1", "1234"]) assert.equal(parseGrpcStatus(text), null, text);
  assert.equal(grpcStatusOfHttp(503), GrpcStatus.UNAVAILABLE);
  assert.equal(grpcStatusOfHttp(404), GrpcStatus.UNIMPLEMENTED);
  assert.equal(grpcStatusOfHttp(418), GrpcStatus.UNKNOWN);
});
