import assert from "node:assert/strict";
import { test } from "node:test";
import { fromBinary } from "@bufbuild/protobuf";
import { StructSchema } from "@bufbuild/protobuf/wkt";
import { toJson } from "@bufbuild/protobuf";
import { ProtoReader } from "#/wire/proto.ts";
import { decodeJwtSvidRequest, decodeValidateRequest, encodeValidated } from "./messages.ts";

/** The Struct in field 2, as protobuf's own library reads it. */
function claimsOf(bytes: Uint8Array): unknown {
  const reader = new ProtoReader(bytes);
  while (reader.next())
    if (reader.field === 2) return toJson(StructSchema, fromBinary(StructSchema, reader.bytes()));
  return assert.fail("no claims");
}

test("claims arrive as they were: every kind of JSON, defaults among them", () => {
  const claims = {
    sub: "spiffe://a/b",
    aud: ["x", ""],
    exp: 1_700_000_300,
    zero: 0,
    fraction: -0.5,
    yes: true,
    no: false,
    nothing: null,
    empty: "",
    list: [],
    object: {},
    deep: { a: [{ b: [null, 1, "ü"] }] },
  };
  assert.deepEqual(claimsOf(encodeValidated("spiffe://a/b", claims)), claims);
});

test("claims that nest without end are cut, not followed", () => {
  let nested: unknown = "bottom";
  for (let i = 0; i < 10_000; i++) nested = [nested];
  const text = JSON.stringify(claimsOf(encodeValidated("spiffe://a/b", { nested })));
  assert.ok(text.length < 100, text);
});

test("bytes that are no request are none, and unknown fields are passed over", () => {
  const cut = Uint8Array.of(0x0a, 0x05, 0x61);
  assert.equal(decodeJwtSvidRequest(cut), null);
  assert.equal(decodeValidateRequest(cut), null);
  assert.deepEqual(decodeJwtSvidRequest(Uint8Array.of(0x0a, 1, 0x61, 0x0a, 1, 0x62, 0x1a, 0)), {
    audience: ["a", "b"],
    spiffeId: "",
  });
});
