import assert from "node:assert/strict";
import test from "node:test";
import fc from "fast-check";
import { formatIp, type IpAddress } from "#/base/address.ts";
import {
  decodeEndpoint,
  Direction,
  encodeAddress,
  encodeCidrKey,
  encodeEndpoint,
  encodePortSet,
  encodeSettings,
} from "./layout.ts";

const ip = fc
  .oneof(fc.uint8Array({ minLength: 4, maxLength: 4 }), fc.uint8Array({ minLength: 16, maxLength: 16 }))
  .map((bytes) => formatIp(bytes));

test("an endpoint read back is the one written", () => {
  fc.assert(
    fc.property(ip, fc.integer({ min: 1, max: 65535 }), (address, port) => {
      assert.deepEqual(decodeEndpoint(encodeEndpoint({ ip: address, port })), { ip: address, port });
    }),
  );
});

test("IPv4 is written v4-mapped (RFC 4291 §2.5.5.2)", () => {
  assert.equal(encodeAddress("10.1.2.3").toString("hex"), "00000000000000000000ffff0a010203");
});

test("a network's prefix counts direction, port and mapping before the address", () => {
  const key = (text: string): string => encodeCidrKey(Direction.OUTBOUND, text).toString("hex");
  const prefixBits = (text: string): number => encodeCidrKey(Direction.OUTBOUND, text).readUInt32LE(0);
  assert.equal(key("10.0.0.0/8:443"), `${"88000000"}${"0100"}${"01bb"}00000000000000000000ffff0a000000`);
  assert.equal(prefixBits("10.0.0.0/8"), 32 + 96 + 8);
  assert.equal(prefixBits("fd00::/8"), 32 + 8);
  assert.equal(prefixBits("192.0.2.1"), 160);
  assert.equal(prefixBits("::/0"), 32);
});

test("bits behind the prefix do not make another network", () => {
  assert.deepEqual(
    encodeCidrKey(Direction.INBOUND, "10.77.3.4/16"),
    encodeCidrKey(Direction.INBOUND, "10.77.0.0/16"),
  );
  assert.deepEqual(
    encodeCidrKey(Direction.INBOUND, "fd77::1/12"),
    encodeCidrKey(Direction.INBOUND, "fd70::/12"),
  );
});

test("a set of ports has one bit for each, in 64-bit words", () => {
  const set = encodePortSet([1, 80, 65535, 80]);
  const words = new BigUint64Array(set.buffer, set.byteOffset, 1024);
  const found = [...words].flatMap((word, i) =>
    Array.from({ length: 64 }, (_, bit) => bit)
      .filter((bit) => (word >> BigInt(bit)) & 1n)
      .map((bit) => 64 * i + bit),
  );
  assert.deepEqual(found, [1, 80, 65535]);
});

test("a pod without an address of a family says so with zeros", () => {
  const base = { mode: "meshed", inboundPort: 4143, outboundPort: 4140, adminPort: 4191 } as const;
  const out = encodeSettings({ ...base, source4: "10.0.0.1" as IpAddress, source6: null });
  assert.equal(out.subarray(12, 28).toString("hex"), "00000000000000000000ffff0a000001");
  assert.ok(out.subarray(28).every((byte) => byte === 0));
});

test("what is no address, port or network is refused by name", () => {
  assert.throws(() => encodeAddress("10.0.0"), /"10\.0\.0" is no IP address/);
  assert.throws(() => encodePortSet([80, 0]), /0 is no port/);
  assert.throws(() => encodePortSet([65536]), /65536 is no port/);
  for (const text of ["10.0.0.0/33", "fd00::/129", "10.0.0.0/8:0", "10.0.0.0/8:", "/8", "", "ten"])
    assert.throws(
      () => encodeCidrKey(Direction.OUTBOUND, text),
      { name: "InterceptionError", code: "BAD_INPUT" },
      text,
    );
});
