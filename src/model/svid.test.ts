import assert from "node:assert/strict";
import { test } from "node:test";
import { KeyUsage, type CertificateFacts } from "#/wire/certificate.ts";
import { parseIdentity, parseSpiffeId } from "./identity.ts";
import { flawOfLeaf, flawOfSigner } from "./svid.ts";

const URI = "spiffe://cluster.local/ns/shop/sa/web";
const DNS = "web.shop.serviceaccount.identity.pillion.cluster.local";
const LEAF: CertificateFacts = {
  isAuthority: false,
  pathLength: null,
  keyUsage: KeyUsage.DIGITAL_SIGNATURE,
  isKeyUsageCritical: true,
  extendedKeyUsage: null,
  names: [
    { kind: "dns", value: DNS },
    { kind: "uri", value: URI },
  ],
  notBeforeMs: 0,
  notAfterMs: 1,
};
const SIGNER: CertificateFacts = {
  ...LEAF,
  isAuthority: true,
  keyUsage: KeyUsage.KEY_CERT_SIGN,
  names: [{ kind: "uri", value: "spiffe://cluster.local" }],
};

const uris = (...values: string[]): Partial<CertificateFacts> => ({
  names: values.map((value) => ({ kind: "uri", value })),
});
const leaf = (change: Partial<CertificateFacts>): string | null =>
  flawOfLeaf({ ...LEAF, ...change })?.kind ?? null;

test("takes a leaf with a DNS name and a URI of the same workload, with either alone", () => {
  assert.equal(leaf({}), null);
  assert.equal(leaf(uris(URI)), null);
  assert.equal(leaf({ names: [{ kind: "dns", value: DNS }] }), null);
});

test("refuses a leaf with two URIs (X.509-SVID §2)", () =>
  assert.equal(leaf(uris(URI, URI)), "ambiguous_name"));
test("refuses a leaf with two DNS names", () =>
  assert.equal(
    leaf({
      names: [
        { kind: "dns", value: DNS },
        { kind: "dns", value: DNS },
      ],
    }),
    "ambiguous_name",
  ));
test("refuses a leaf whose DNS name and URI are not the same workload", () => {
  for (const value of ["db.shop.serviceaccount.identity.pillion.cluster.local", "example.org"])
    assert.equal(
      leaf({
        names: [
          { kind: "dns", value },
          { kind: "uri", value: URI },
        ],
      }),
      "ambiguous_name",
    );
});
test("refuses a leaf that names nobody, or a trust domain alone (X.509-SVID §2)", () => {
  assert.equal(leaf({ names: [] }), "unnamed_peer");
  assert.equal(leaf(uris("spiffe://cluster.local")), "unnamed_peer");
  assert.equal(leaf(uris("https://cluster.local/ns/shop/sa/web")), "unnamed_peer");
});
test("refuses a CA as a leaf: cA, keyCertSign or cRLSign (X.509-SVID §5.2)", () => {
  assert.equal(leaf({ isAuthority: true }), "signing_certificate");
  for (const bit of [KeyUsage.KEY_CERT_SIGN, KeyUsage.CRL_SIGN])
    assert.equal(leaf({ keyUsage: KeyUsage.DIGITAL_SIGNATURE | bit }), "signing_certificate");
});
test("refuses a leaf without digitalSignature, and an SVID without a critical keyUsage (X.509-SVID §4.3)", () => {
  assert.equal(leaf({ keyUsage: 1 << 2 }), "bad_certificate");
  assert.equal(leaf({ keyUsage: null }), "bad_certificate");
  assert.equal(leaf({ isKeyUsageCritical: false }), "bad_certificate");
  assert.equal(leaf({ keyUsage: null, names: [{ kind: "dns", value: DNS }] }), null);
});
test("refuses a leaf for clients or servers alone (X.509-SVID §4.4)", () => {
  assert.equal(leaf({ extendedKeyUsage: ["1.3.6.1.5.5.7.3.1"] }), "bad_certificate");
  assert.equal(leaf({ extendedKeyUsage: ["1.3.6.1.5.5.7.3.2"] }), "bad_certificate");
  assert.equal(leaf({ extendedKeyUsage: ["1.3.6.1.5.5.7.3.1", "1.3.6.1.5.5.7.3.2"] }), null);
});

test("refuses issuers without cA or keyCertSign, and chains longer than one allows (RFC 5280 §6.1.4)", () => {
  const signer = (change: Partial<CertificateFacts>, below = 0): string | null =>
    flawOfSigner({ ...SIGNER, ...change }, below)?.kind ?? null;
  assert.equal(signer({}), null);
  assert.equal(signer({ isAuthority: false }), "bad_certificate");
  assert.equal(signer({ keyUsage: null }), "bad_certificate");
  assert.equal(signer({ keyUsage: KeyUsage.DIGITAL_SIGNATURE }), "bad_certificate");
  assert.equal(signer({ pathLength: 0 }, 0), null);
  assert.equal(signer({ pathLength: 0 }, 1), "bad_certificate");
  assert.equal(signer(uris(URI)), "bad_certificate");
});

test("reads SPIFFE IDs and nothing that some would read as one (SPIFFE-ID §2)", () => {
  assert.deepEqual(parseSpiffeId("spiffe://a.b-c_d.1/ns/x/sa/Y.z_1"), {
    trustDomain: "a.b-c_d.1",
    path: "/ns/x/sa/Y.z_1",
  });
  assert.deepEqual(parseSpiffeId("spiffe://10.0.0.1"), { trustDomain: "10.0.0.1", path: "" });
  const longest = `spiffe://${"a".repeat(255)}/${"b".repeat(2048 - 265)}`;
  assert.equal(longest.length, 2048);
  assert.notEqual(parseSpiffeId(longest), null);
  for (const text of [
    `${longest}b`,
    `spiffe://${"a".repeat(256)}/x`,
    "spiffe://A.example/x",
    "SPIFFE://a.example/x",
    "https://a.example/x",
    "spiffe:///x",
    "spiffe://a.example/",
    "spiffe://a.example/x/",
    "spiffe://a.example//x",
    "spiffe://a.example/./x",
    "spiffe://a.example/x/..",
    "spiffe://a.example:80/x",
    "spiffe://u@a.example/x",
    "spiffe://a.example/x?y",
    "spiffe://a.example/x#y",
    "spiffe://a.example/%41",
    "spiffe://a%2eexample/x",
    "spiffe://[::1]/x",
    "spiffe://a.example/x\n",
    "spiffe://a.example/x\0",
    "spiffe://a.exämple/x",
    " spiffe://a.example/x",
  ])
    assert.equal(parseSpiffeId(text), null, text);
});

test("an identity is of the form /ns/NS/sa/SA; what passes for a longer one is none", () => {
  assert.notEqual(parseIdentity("spiffe://a.b/ns/shop/sa/web"), null);
  for (const path of ["/ns/shop/sa/..", "/ns/shop/sa/web/x", "/x/ns/shop/sa/web", "/ns/shop/sa/", ""])
    assert.equal(parseIdentity(`spiffe://a.b${path}`), null, path);
});
