import assert from "node:assert/strict";
import { X509Certificate } from "node:crypto";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { flawOfLeaf, flawOfSigner } from "#/model/svid.ts";
import { proveChain } from "#/net/peer-identity.ts";
import { splitPem } from "#/net/tls.ts";
import { KeyUsage, readCertificate, type CertificateFacts } from "#/wire/certificate.ts";
import { StateFolder } from "../state-folder.ts";
import { Authority, makeLeafKey } from "./authority.ts";

const WEB = { trustDomain: "cluster.local", namespace: "shop", serviceAccount: "web" };
/** Over 64 characters: it does not fit into a common name, so the subject is empty. */
const LONG = { ...WEB, serviceAccount: "a".repeat(60) };

let dir = "";
let leaf: X509Certificate;
let long: X509Certificate;
let issuer: X509Certificate;
let root: X509Certificate;

before(async () => {
  dir = mkdtempSync(join(tmpdir(), "pillion-issuer-"));
  const authority = await Authority.open(new StateFolder(join(dir, "state")), "cluster.local", Date.now);
  const { publicKey } = await makeLeafKey();
  const issued = await authority.issue(WEB, publicKey, "dns+spiffe");
  leaf = new X509Certificate(issued.der);
  long = new X509Certificate((await authority.issue(LONG, publicKey, "dns+spiffe")).der);
  issuer = new X509Certificate(issued.intermediates[0] as Uint8Array);
  root = new X509Certificate(splitPem(authority.trustAnchorsPem)[0] as string);
});
after(() => rmSync(dir, { recursive: true }));

function facts(certificate: X509Certificate): CertificateFacts {
  const read = readCertificate(certificate.raw);
  assert(read !== null);
  return read;
}

test("a leaf has one URI with a path, cA=false, critical digitalSignature alone, serverAuth and clientAuth (X.509-SVID §2, §4)", () => {
  for (const certificate of [leaf, long]) {
    const { names, isAuthority, keyUsage, isKeyUsageCritical, extendedKeyUsage } = facts(certificate);
    assert.deepEqual(
      names.map(({ kind }) => kind),
      ["dns", "uri"],
    );
    assert.match(names[1]?.value ?? "", /^spiffe:\/\/cluster\.local\/ns\/shop\/sa\/[a-z]+$/);
    assert.equal(isAuthority, false);
    assert.equal(keyUsage, KeyUsage.DIGITAL_SIGNATURE);
    assert.equal(isKeyUsageCritical, true);
    assert.deepEqual(extendedKeyUsage, ["1.3.6.1.5.5.7.3.1", "1.3.6.1.5.5.7.3.2"]);
    assert.equal(flawOfLeaf(facts(certificate)), null);
  }
});

test("signing certificates have cA and a critical keyCertSign, and an ID without a path (X.509-SVID §3, §4)", () => {
  for (const [certificate, below] of [
    [issuer, 0],
    [root, 1],
  ] as const) {
    const { isAuthority, keyUsage, isKeyUsageCritical, names } = facts(certificate);
    assert.equal(isAuthority, true);
    assert.notEqual((keyUsage ?? 0) & KeyUsage.KEY_CERT_SIGN, 0);
    assert.equal((keyUsage ?? 0) & KeyUsage.DIGITAL_SIGNATURE, 0);
    assert.equal(isKeyUsageCritical, true);
    assert.deepEqual(names, [{ kind: "uri", value: "spiffe://cluster.local" }]);
    assert.equal(flawOfSigner(facts(certificate), below), null);
    assert.equal(flawOfLeaf(facts(certificate))?.kind, "signing_certificate");
  }
});

test("our verifier takes what our issuer makes", () => {
  const trust = new Map([["cluster.local", [root]]]);
  for (const certificate of [leaf, long])
    assert.equal(proveChain([certificate, issuer], trust, Date.now()).kind, "proven");
});
