/**
 * go-spiffe's own test vectors, which nobody here has written, against what we take for an X.509-SVID and for a bundle.
 * Their certificates have ended long ago and come without roots, so times and roots are not looked at here.
 */
import assert from "node:assert/strict";
import { createPrivateKey, X509Certificate } from "node:crypto";
import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { describe, test } from "node:test";
import { readSpiffeBundle } from "#/model/spiffe-bundle.ts";
import { flawOfLeaf, flawOfSigner } from "#/model/svid.ts";
import { splitPem } from "#/net/tls.ts";
import { readCertificate } from "#/wire/certificate.ts";
import { corpusFolder, isMissing } from "../corpora.ts";

const skip = isMissing("spiffe");

/** "taken", or why not. `keyFile`: another file's key belongs to the certificate. */
function judge(name: string): string {
  const text = readFileSync(join(corpusFolder("spiffe/x509svid"), name), "latin1");
  const pems = splitPem(text);
  let chain: X509Certificate[];
  try {
    chain = pems.map((pem) => new X509Certificate(pem));
    if (text.includes("PRIVATE KEY")) {
      const key = createPrivateKey(text);
      if (chain[0] !== undefined && !chain[0].checkPrivateKey(key)) return "the key is another's";
    }
  } catch (error) {
    return (error as NodeJS.ErrnoException).code ?? "unreadable";
  }
  if (text.includes("CERTIFICATE") && chain.length === 0) return "unreadable";
  if (chain.length === 0) return text.includes("PRIVATE KEY") ? "key" : "unreadable";
  for (const [depth, certificate] of chain.entries()) {
    const facts = readCertificate(certificate.raw);
    if (facts === null) return "unreadable";
    const flaw = depth === 0 ? flawOfLeaf(facts) : flawOfSigner(facts, depth - 1);
    if (flaw !== null) return flaw.detail;
    if (depth === 0 && !facts.names.some(({ kind }) => kind === "uri")) return "it has no SPIFFE ID";
  }
  return "taken";
}

describe("X.509-SVIDs of go-spiffe", { skip }, () => {
  const expected: Readonly<Record<string, RegExp>> = {
    "good-cert-and-key.pem": /^taken$/,
    "good-key-and-cert.pem": /^taken$/,
    "good-leaf-and-intermediate.pem": /^taken$/,
    "good-leaf-only.pem": /^taken$/,
    "key-pkcs8-ecdsa.pem": /^key$/,
    "key-pkcs8-rsa.pem": /^key$/,
    "corrupt-cert.pem": /^ERR_OSSL/,
    "corrupt-key.pem": /^ERR_OSSL/,
    "not-pem": /^unreadable$/,
    "wrong-intermediate-no-ca.pem": /is no CA/,
    "wrong-intermediate-no-key-cert-sign.pem": /may not sign certificates/,
    "wrong-leaf-ca-true.pem": /is a CA's/,
    "wrong-leaf-cert-sign.pem": /may sign certificates/,
    "wrong-leaf-crl-sign.pem": /may sign revocations/,
    "wrong-leaf-empty-id.pem": /no SPIFFE ID/,
    "wrong-leaf-no-digital-signature.pem": /sign/,
  };
  test("none of them is left out", () =>
    assert.deepEqual(
      readdirSync(corpusFolder("spiffe/x509svid")).toSorted(),
      Object.keys(expected).toSorted(),
    ));
  for (const [name, verdict] of Object.entries(expected))
    test(`${name}: ${verdict.source}`, () => assert.match(judge(name), verdict));
});

describe("bundles of go-spiffe", { skip }, () => {
  const read = (name: string): ReturnType<typeof readSpiffeBundle> =>
    readSpiffeBundle(readFileSync(join(corpusFolder("spiffe/bundle"), `spiffebundle_${name}.json`), "utf8"));
  const refusals: Readonly<Record<string, RegExp>> = {
    missing_kid: /no kid/,
    multiple_x509: /not exactly one certificate/,
    no_keys: /no list `keys`/,
  };
  for (const [name, reason] of Object.entries(refusals))
    test(`${name} is refused`, () => {
      const answer = read(name);
      assert(answer.kind === "refused");
      assert.match(answer.reason, reason);
    });
  const valid: Readonly<Record<string, readonly [roots: number, keys: number]>> = {
    valid_1: [1, 1],
    valid_2: [1, 6],
    valid_with_wit: [1, 2],
  };
  for (const [name, [roots, keys]] of Object.entries(valid))
    test(`${name} is read: ${roots} root, ${keys} keys`, () => {
      const answer = read(name);
      assert(answer.kind === "bundle", answer.kind === "refused" ? answer.reason : "");
      assert.equal(answer.bundle.x509Authorities.length, roots);
      assert.equal(answer.bundle.jwtAuthorities.size, keys);
    });
  test("none of them is left out", () =>
    assert.equal(
      readdirSync(corpusFolder("spiffe/bundle")).length,
      Object.keys(refusals).length + Object.keys(valid).length,
    ));
});
