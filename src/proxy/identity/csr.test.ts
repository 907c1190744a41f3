import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { generateKeyPairSync } from "node:crypto";
import { test } from "node:test";
import { makeCsr } from "./csr.ts";
import { Der } from "#/wire/der.ts";

test("OpenSSL reads the request, its name and its signature (RFC 2986 §4)", () => {
  const { privateKey, publicKey } = generateKeyPairSync("ec", { namedCurve: "P-256" });
  for (const name of [
    "web.shop.serviceaccount.identity.pillion.cluster.local",
    `${"a".repeat(60)}.${"b".repeat(60)}.${"c".repeat(60)}.${"d".repeat(60)}`,
  ]) {
    const csr = makeCsr(name, privateKey, publicKey);
    const text = execFileSync("openssl", ["req", "-inform", "DER", "-verify", "-noout", "-text"], {
      input: csr,
      stdio: ["pipe", "pipe", "pipe"],
    }).toString();
    assert.match(text, new RegExp(`DNS:${name}\\n`));
    assert.match(text, /ASN1 OID: prime256v1/);
  }
});

test("encodes object identifiers in base 128 (X.690 §8.19)", () => {
  assert.equal(Buffer.from(Der.oid("1.2.840.10045.4.3.2")).toString("hex"), "06082a8648ce3d040302");
  assert.equal(Buffer.from(Der.oid("2.5.29.17")).toString("hex"), "0603551d11");
});
