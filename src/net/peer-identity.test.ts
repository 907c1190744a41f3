import assert from "node:assert/strict";
import { X509Certificate } from "node:crypto";
import { mock, test } from "node:test";
import { proveChain, ProvenLeaves, subjectNames, type TrustBundles } from "./peer-identity.ts";
import { testCertificate, testLeaf, testRoot, type TestCertificate, type TestIssued } from "./testing.ts";

const NOW_MS = Date.now();
const root = testRoot("cluster.local");
const other = testRoot("other.example");
const issuer = testCertificate(
  { commonName: "issuer", isAuthority: true, pathLength: 0, keyUsage: [5, 6] },
  root,
);
const OURS: TrustBundles = new Map([["cluster.local", [root.certificate]]]);
const BOTH: TrustBundles = new Map([
  ["cluster.local", [root.certificate]],
  ["other.example", [other.certificate]],
]);

function judge(chain: readonly TestIssued[], trust = OURS, wallMs = NOW_MS): string {
  const proof = proveChain(
    chain.map(({ certificate }) => certificate),
    trust,
    wallMs,
  );
  return proof.kind === "proven" ? proof.peer.name : `${proof.refusal}: ${proof.detail}`;
}

test("proves a leaf below an issuer, and when the first of the chain ends", () => {
  const leaf = testLeaf(issuer, {}, { nowMs: NOW_MS, endsInMs: 600_000 });
  const proof = proveChain([leaf.certificate, issuer.certificate], OURS, NOW_MS);
  assert.equal(proof.kind, "proven");
  assert(proof.kind === "proven");
  assert.equal(proof.endsAtMs, Math.floor((NOW_MS + 600_000) / 1000) * 1000);
  assert.equal(proof.root, root.certificate.fingerprint256);
  assert.equal(proof.peer.identity.serviceAccount, "web");
  const brief = testCertificate(
    { isAuthority: true, keyUsage: [5], nowMs: NOW_MS, endsInMs: 1000, commonName: "b" },
    root,
  );
  const below = proveChain([testLeaf(brief).certificate, brief.certificate], OURS, NOW_MS);
  assert(below.kind === "proven");
  assert.equal(below.endsAtMs, Math.floor((NOW_MS + 1000) / 1000) * 1000);
});

test("a chain of one trust domain's root that names another is refused: there is no merged pool (SPIFFE Federation §4.2)", () => {
  const forged = testLeaf(other);
  assert.match(
    judge([forged], BOTH),
    /^foreign_trust_domain: the chain does not end in a root of cluster.local/,
  );
  const honest = testLeaf(other, { trustDomain: "other.example" });
  assert.match(judge([honest], BOTH), /other.example$/);
  assert.match(judge([honest], OURS), /^foreign_trust_domain: trust domain other.example is not ours/);
});

test("intermediates without cA, without keyCertSign, or longer than allowed are refused (RFC 5280 §6.1.4)", () => {
  const below = (says: TestCertificate): string => {
    const signer = testCertificate({ commonName: "signer", ...says }, root);
    return judge([testLeaf(signer), signer]);
  };
  assert.match(below({ isAuthority: true, keyUsage: [5] }), /^web\./);
  assert.match(below({ isAuthority: false, keyUsage: [5] }), /^bad_certificate: .*cA/);
  assert.match(below({ isAuthority: true, keyUsage: [0] }), /^bad_certificate: .*keyCertSign/);
  assert.match(below({ isAuthority: true, keyUsage: null }), /^bad_certificate: .*keyCertSign/);
  const second = testCertificate({ commonName: "second", isAuthority: true, keyUsage: [5] }, issuer);
  assert.match(judge([testLeaf(second), second, issuer]), /^bad_certificate: .*pathLen/);
});

test("what is shown may be in any order, twice, or not needed (RFC 8446 §4.4.2)", () => {
  const leaf = testLeaf(issuer);
  const stranger = testCertificate({ commonName: "issuer", isAuthority: true, keyUsage: [5] }, other);
  for (const shown of [
    [leaf, leaf, issuer],
    [leaf, root, issuer],
    [leaf, stranger, other, issuer],
  ])
    assert.match(judge(shown), /^web\./);
});

test("an issuer with two certificates proves by the one that leads to a root, as in a rotation", () => {
  const next = testRoot("cluster.local", { commonName: "next root" });
  const says = { commonName: "issuer", isAuthority: true, keyUsage: [5], sameKeyAs: issuer };
  const crossed = testCertificate(says, next);
  const trust = new Map([["cluster.local", [next.certificate]]]);
  assert.match(judge([testLeaf(issuer), issuer, crossed], trust), /^web\./);
  assert.match(judge([testLeaf(issuer), issuer], trust), /^foreign_trust_domain/);
});

test("issuers that issue each other without end cost so much and no more", () => {
  const first = testCertificate({ commonName: "ring", isAuthority: true, keyUsage: [5] });
  const ring = Array.from({ length: 7 }, () =>
    testCertificate({ commonName: "ring", isAuthority: true, keyUsage: [5], sameKeyAs: first }, first),
  );
  const verify = mock.method(X509Certificate.prototype, "verify");
  assert.match(judge([testLeaf(first), ...ring]), /^foreign_trust_domain/);
  assert.ok(verify.mock.callCount() <= 24, String(verify.mock.callCount()));
  verify.mock.restore();
});

test("a leaf may not stand for an issuer: whoever has one cannot issue others", () => {
  const leaf = testLeaf(issuer, {}, { commonName: "leaf" });
  const forged = testLeaf(leaf, { account: "db" });
  assert.match(judge([forged, leaf, issuer]), /^bad_certificate: an issuer in the chain is no CA/);
});

test("a signature that is not the issuer's ends the chain", () => {
  const twin = testCertificate({ commonName: "issuer", isAuthority: true, keyUsage: [5] });
  assert.match(judge([testLeaf(twin), issuer]), /^foreign_trust_domain/);
});

test("an issuer in the chain that has ended, or a leaf that has or has not begun, is refused by our clock", () => {
  const old = testCertificate(
    {
      commonName: "old",
      isAuthority: true,
      keyUsage: [5],
      nowMs: NOW_MS,
      beginsInMs: -2000,
      endsInMs: -1000,
    },
    root,
  );
  assert.match(judge([testLeaf(old), old]), /^expired: an issuer in the chain ended at /);
  assert.match(judge([testLeaf(issuer), issuer], OURS, NOW_MS + 7_200_000), /^expired: it ended at /);
  assert.match(judge([testLeaf(issuer), issuer], OURS, NOW_MS - 7_200_000), /^not_yet_valid: it begins at /);
});

const named = (...names: { kind: "dns" | "uri"; value: string }[]): string =>
  judge([testLeaf(issuer, {}, { names }), issuer]);
const DNS = "web.shop.serviceaccount.identity.pillion.cluster.local";
const ADMIN = "admin.shop.serviceaccount.identity.pillion.cluster.local";

test("a name inside another name names nobody (CVE-2021-44532)", () => {
  // As text these would read "DNS:x, DNS:admin…": two names, the second one of somebody else.
  const inside = `x, DNS:${ADMIN}`;
  for (const kind of ["dns", "uri"] as const) {
    const { certificate } = testLeaf(issuer, {}, { names: [{ kind, value: inside }] });
    assert.deepEqual(subjectNames(certificate), [kind === "dns" ? inside.toLowerCase() : inside]);
    assert.match(named({ kind, value: inside }), /^unnamed_peer/);
  }
  assert.match(
    named({ kind: "uri", value: `spiffe://cluster.local/ns/a/sa/b", DNS:"${ADMIN}` }),
    /^unnamed_peer/,
  );
  assert.match(named({ kind: "dns", value: `${ADMIN}\0.example.org` }), /^unnamed_peer/);
  assert.match(named({ kind: "dns", value: `${ADMIN}, ${DNS}` }), /^unnamed_peer/);
});

test("the subject's text names nobody, whatever is in it (CVE-2021-44533)", () => {
  const leaf = testLeaf(issuer, {}, { commonName: `${DNS}\nCN=x`, names: [] });
  assert.match(judge([leaf, issuer]), /^unnamed_peer/);
});

test("two URIs, two DNS names, and a DNS name and URI that disagree are refused", () => {
  const uri = "spiffe://cluster.local/ns/shop/sa/web";
  assert.match(named({ kind: "dns", value: DNS }, { kind: "uri", value: uri }), /^web\./);
  assert.match(named({ kind: "uri", value: uri }, { kind: "uri", value: `${uri}2` }), /^ambiguous_name/);
  assert.match(named({ kind: "dns", value: DNS }, { kind: "dns", value: ADMIN }), /^ambiguous_name/);
  assert.match(named({ kind: "dns", value: ADMIN }, { kind: "uri", value: uri }), /^ambiguous_name/);
});

test("a leaf that was proven is known again by its bytes, from then until the first of its chain ends", () => {
  const { certificate } = testLeaf(root, {}, { nowMs: NOW_MS, endsInMs: 60_000 });
  const proof = proveChain([certificate], OURS, NOW_MS);
  assert(proof.kind === "proven");
  const proven = new ProvenLeaves();
  proven.add(certificate, proof, NOW_MS);
  const again = new X509Certificate(certificate.raw);
  assert.equal(proven.find(again, NOW_MS), proof);
  assert.equal(proven.find(again, proof.endsAtMs), proof);
  assert.equal(proven.find(again, proof.endsAtMs + 1), null);
  assert.equal(proven.find(again, NOW_MS - 1), null, "the clock went back");
  assert.equal(proven.find(testLeaf(root).certificate, NOW_MS), null);
});

test("proven leaves that are kept are bounded", () => {
  const proven = new ProvenLeaves();
  const of = (at: number): X509Certificate => ({ raw: Buffer.from([at]) }) as X509Certificate;
  const proof = proveChain([testLeaf(root).certificate], OURS, NOW_MS);
  assert(proof.kind === "proven");
  for (let at = 0; at < 200; at++) proven.add(of(at), proof, NOW_MS);
  let kept = 0;
  for (let at = 0; at < 200; at++) if (proven.find(of(at), NOW_MS) !== null) kept++;
  assert(kept > 0 && kept <= 128, String(kept));
});
