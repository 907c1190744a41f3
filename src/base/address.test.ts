import assert from "node:assert/strict";
import { isIP } from "node:net";
import { test } from "node:test";
import fc from "fast-check";
import { addressKey, formatIp, parseIp, parseIpBytes, parseSocketAddress } from "./address.ts";

test("writes IPv6 as RFC 5952 §4 says", () => {
  for (const [text, canonical] of [
    ["2001:0DB8:0:0:0:0:0:1", "2001:db8::1"],
    ["::", "::"],
    ["1::", "1::"],
    ["::1", "::1"],
    ["2001:db8:0:1:1:1:1:1", "2001:db8:0:1:1:1:1:1"],
    ["1:0:0:2:0:0:0:3", "1:0:0:2::3"],
    ["::ffff:10.0.0.1", "10.0.0.1"],
    ["64:ff9b::192.0.2.33", "64:ff9b::c000:221"],
  ] as const) {
    assert.equal(parseIp(text), canonical, text);
  }
});

test("agrees with the system about what an address is", () => {
  const piece = fc.constantFrom(
    "0",
    "1",
    "ffff",
    "10",
    "256",
    "00001",
    "",
    ":",
    "::",
    ".",
    "1.2.3.4",
    "01.2.3.4",
    "g",
    "%eth0",
  );
  fc.assert(
    fc.property(fc.array(piece, { maxLength: 9 }), fc.constantFrom(":", ".", ""), (pieces, separator) => {
      const text = pieces.join(separator);
      // The system also takes zone ids, which we refuse.
      if (text.includes("%")) return;
      assert.equal(parseIp(text) !== null, isIP(text) !== 0, text);
    }),
    { numRuns: 2_000 },
  );
});

test("bytes to text and back is identity", () => {
  fc.assert(
    fc.property(
      fc.oneof(
        fc.uint8Array({ minLength: 4, maxLength: 4 }),
        fc.uint8Array({ minLength: 16, maxLength: 16 }),
      ),
      (bytes) => {
        const back = parseIpBytes(formatIp(bytes));
        const isMapped =
          bytes.length === 16 &&
          bytes.subarray(0, 10).every((b) => b === 0) &&
          bytes[10] === 255 &&
          bytes[11] === 255;
        assert.deepEqual(back, isMapped ? bytes.slice(12) : bytes);
      },
    ),
  );
});

test("socket addresses keep their brackets and refuse nonsense", () => {
  assert.equal(addressKey(parseSocketAddress("[::1]:80")!), "[::1]:80");
  assert.equal(addressKey(parseSocketAddress("10.0.0.1:65535")!), "10.0.0.1:65535");
  for (const text of ["10.0.0.1", "10.0.0.1:65536", "::1:80", "[10.0.0.1:80", ":80", ""])
    assert.equal(parseSocketAddress(text), null, text);
});
