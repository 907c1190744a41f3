import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { X509Certificate } from "node:crypto";
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { rootCertificates } from "node:tls";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, test } from "node:test";
import fc from "fast-check";
import { KeyUsage, readCertificate } from "./certificate.ts";

const folder = mkdtempSync(join(tmpdir(), "pillion-certificate-"));
after(() => rmSync(folder, { recursive: true }));

function selfSigned(...extensions: string[]): Uint8Array {
  const out = join(folder, "out.der");
  const key = [
    "-newkey",
    "ec",
    "-pkeyopt",
    "ec_paramgen_curve:P-256",
    "-nodes",
    "-keyout",
    join(folder, "key"),
  ];
  const added = extensions.flatMap((one) => ["-addext", one]);
  execFileSync(
    "openssl",
    ["req", "-x509", ...key, "-subj", "/CN=x", "-days", "3", "-outform", "DER", "-out", out, ...added],
    { stdio: ["ignore", "ignore", "pipe"] },
  );
  return Uint8Array.from(readFileSync(out));
}

test("reads names, constraints and usages as OpenSSL has written them (RFC 5280 §4.2.1)", () => {
  const facts = readCertificate(
    selfSigned(
      "basicConstraints=critical,CA:TRUE,pathlen:3",
      "keyUsage=critical,digitalSignature,keyCertSign,cRLSign",
      "extendedKeyUsage=serverAuth,clientAuth",
      "subjectAltName=DNS:a.example,URI:spiffe://x/y,IP:10.0.0.1,DNS:b.example,email:a@b.example",
    ),
  );
  assert.notEqual(facts, null);
  assert.deepEqual(facts?.names, [
    { kind: "dns", value: "a.example" },
    { kind: "uri", value: "spiffe://x/y" },
    { kind: "dns", value: "b.example" },
  ]);
  assert.equal(facts?.isAuthority, true);
  assert.equal(facts?.pathLength, 3);
  assert.equal(facts?.keyUsage, KeyUsage.DIGITAL_SIGNATURE | KeyUsage.KEY_CERT_SIGN | KeyUsage.CRL_SIGN);
  assert.equal(facts?.isKeyUsageCritical, true);
  assert.deepEqual(facts?.extendedKeyUsage, ["1.3.6.1.5.5.7.3.1", "1.3.6.1.5.5.7.3.2"]);
});

test("agrees with OpenSSL about the roots of the Web: times and cA", () => {
  assert.ok(rootCertificates.length > 50);
  for (const pem of rootCertificates) {
    const certificate = new X509Certificate(pem);
    const facts = readCertificate(Uint8Array.from(certificate.raw));
    assert.notEqual(facts, null, certificate.subject);
    assert.equal(facts?.notBeforeMs, certificate.validFromDate.getTime(), certificate.subject);
    assert.equal(facts?.notAfterMs, certificate.validToDate.getTime(), certificate.subject);
    assert.equal(facts?.isAuthority, certificate.ca, certificate.subject);
  }
});

test("random and damaged bytes never throw; what is cut off is none", () => {
  const good = selfSigned("subjectAltName=DNS:a.example");
  assert.notEqual(readCertificate(good), null);
  for (let length = 0; length < good.length; length++)
    assert.equal(readCertificate(good.subarray(0, length)), null);
  fc.assert(fc.property(fc.uint8Array({ maxLength: 300 }), (bytes) => void readCertificate(bytes)));
  fc.assert(
    fc.property(fc.nat(good.length - 1), fc.nat(255), (at, byte) => {
      const bytes = Uint8Array.from(good);
      bytes[at] = byte;
      readCertificate(bytes);
    }),
  );
});

test("refuses lengths that are not the shortest, or without end (X.690 §10.1)", () => {
  const good = selfSigned();
  assert.notEqual(readCertificate(good), null);
  assert.equal(readCertificate(Uint8Array.of(0x30, 0x83, 0, ...good.subarray(2))), null);
  assert.equal(readCertificate(Uint8Array.of(0x30, 0x80, ...good.subarray(4), 0, 0)), null);
  assert.equal(readCertificate(Uint8Array.of(...good, 0)), null);
  // The signature is last: its head is `03 LL`, here made `03 81 LL`.
  const at = signatureAt(good);
  const longer = Uint8Array.of(...good.subarray(0, at + 1), 0x81, ...good.subarray(at + 1));
  const length = longer.length - 4;
  longer[2] = length >> 8;
  longer[3] = length & 0xff;
  assert.equal(readCertificate(longer), null);
});

/** Where the last element of a certificate begins: a BIT STRING that reaches its end. */
function signatureAt(der: Uint8Array): number {
  for (let at = der.length - 64; at > 0; at--)
    if (der[at] === 0x03 && at + 2 + (der[at + 1] as number) === der.length) return at;
  throw new Error("no signature");
}
