import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import { readSpiffeBundle, type SpiffeBundle } from "./spiffe-bundle.ts";

/** A root of cluster.local. */
const ROOT =
  "MIIBejCCASCgAwIBAgICAQEwCgYIKoZIzj0EAwIwIDEeMBwGA1UEAwwVcm9vdCBvZiBjbHVzdGVyLmxvY2FsMCIYDzIwMjYxMTI3MTY1NjM5WhgPMjAzNjExMjQxNzU2MzlaMCAxHjAcBgNVBAMMFXJvb3Qgb2YgY2x1c3Rlci5sb2NhbDBZMBMGByqGSM49AgEGCCqGSM49AwEHA0IABBsEZVSmd87nnuxJiyIAhQwkDr0nvdU1BOfrzNlGap2tFH4bImIx9lJWgpkNGRvnGY1Hs6NvkMJXka04liUoq0+jRjBEMA8GA1UdEwEB/wQFMAMBAf8wDgYDVR0PAQH/BAQDAgAGMCEGA1UdEQQaMBiGFnNwaWZmZTovL2NsdXN0ZXIubG9jYWwwCgYIKoZIzj0EAwIDSAAwRQIhAIs7m9GfXXpiR841t388/ntPe6wB4vzf93Kzuwy/qFl3AiBRfUl2GK2uB+PKPAGciMNbV41Mgv1kidTkgg0yMUoo1A==";
const X509 = { kty: "EC", use: "x509-svid", x5c: [ROOT] };
const JWT = { kty: "EC", use: "jwt-svid", kid: "a", crv: "P-256", x: "AA", y: "AA" };

function read(json: unknown): SpiffeBundle | string {
  const answer = readSpiffeBundle(JSON.stringify(json));
  return answer.kind === "bundle" ? answer.bundle : answer.reason;
}

test("reads roots, keys, sequence and refresh hint (SPIFFE Trust Domain and Bundle §4)", () => {
  const bundle = read({ keys: [X509, JWT], spiffe_sequence: 7, spiffe_refresh_hint: 60 });
  assert(typeof bundle === "object");
  assert.equal(Buffer.from(bundle.x509Authorities[0] ?? []).toString("base64"), ROOT);
  assert.deepEqual([...bundle.jwtAuthorities.keys()], ["a"]);
  assert.equal(bundle.sequence, 7);
  assert.equal(bundle.refreshHintMs, 60_000);
});

test("empty keys revoke everything; unknown kinds and uses of keys are passed over (§4.2.2)", () => {
  const bundle = read({ keys: [] });
  assert(typeof bundle === "object");
  assert.deepEqual([bundle.x509Authorities, bundle.jwtAuthorities.size, bundle.sequence], [[], 0, null]);
  const known = read({
    keys: [
      { ...X509, kty: "NEW" },
      { ...X509, use: "new" },
      { kty: "EC" },
      { ...JWT, use: "wit-svid" },
      X509,
    ],
  });
  assert(typeof known === "object");
  assert.deepEqual([known.x509Authorities.length, known.jwtAuthorities.size], [1, 0]);
});

test("refuses the whole for anything that is there and wrong", () => {
  const cases: readonly [unknown, RegExp][] = [
    [[], /no JSON object/],
    [{}, /no list/],
    [{ keys: null }, /no list/],
    [{ keys: [1] }, /key 1 is no JSON object/],
    [{ keys: [], spiffe_sequence: -1 }, /spiffe_sequence/],
    [{ keys: [], spiffe_sequence: "1" }, /spiffe_sequence/],
    [{ keys: [], spiffe_refresh_hint: 1.5 }, /spiffe_refresh_hint/],
    [{ keys: [{ ...X509, x5c: [] }] }, /not exactly one certificate/],
    [{ keys: [{ ...X509, x5c: [ROOT, ROOT] }] }, /not exactly one certificate/],
    [{ keys: [{ ...X509, x5c: ["-_-_"] }] }, /no base64/],
    [{ keys: [{ ...X509, x5c: ["AAAA"] }] }, /no certificate/],
    [{ keys: [{ ...JWT, kid: "" }] }, /no kid/],
    [{ keys: [{ ...JWT, d: "AA" }] }, /private key/],
    [{ keys: [JWT, JWT] }, /two keys/],
    [{ keys: Array.from({ length: 257 }, () => X509) }, /more than 256/],
  ];
  for (const [json, reason] of cases) {
    const answer = read(json);
    assert(typeof answer === "string");
    assert.match(answer, reason);
  }
  assert.equal(readSpiffeBundle("{").kind, "refused");
});

test("no text throws", () => {
  fc.assert(fc.property(fc.string(), (text) => void readSpiffeBundle(text)));
  fc.assert(fc.property(fc.jsonValue(), (json) => void read({ keys: [json, { ...X509, x5c: json }] })));
});
