import assert from "node:assert/strict";
import { webcrypto, X509Certificate as NodeCertificate } from "node:crypto";
import { mkdtempSync, readFileSync, rmSync, unlinkSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, test } from "node:test";
import {
  Pkcs10CertificateRequestGenerator,
  SubjectAlternativeNameExtension,
  X509Certificate,
} from "./x509.ts";
import type { JsonGeneralName } from "./x509.ts";
import { dnsName } from "#/model/identity.ts";
import type { Identity } from "#/model/identity.ts";
import { ManualClock } from "#/stack/http/testing.ts";
import { StateFolder } from "../state-folder.ts";
import { Authority } from "./authority.ts";
import { ISSUER_LIFE_MS, LEAF_LIFE_MS, SKEW_MS } from "./certificates.ts";
import { certify } from "./certify.ts";
import type { CertifyAnswer, CertifyInput } from "./certify.ts";
import { TOKEN_LIFE_MS, Tokens } from "./tokens.ts";

const WEB: Identity = { trustDomain: "cluster.local", namespace: "shop", serviceAccount: "web" };
const DB: Identity = { trustDomain: "cluster.local", namespace: "shop", serviceAccount: "db" };
const EC = { name: "ECDSA", namedCurve: "P-256", hash: "SHA-256" };

let dir = "";
let authority: Authority;
let clock: ManualClock;
let tokens: Tokens;

before(async () => {
  dir = mkdtempSync(join(tmpdir(), "pillion-identity-"));
  clock = new ManualClock();
  tokens = new Tokens(() => clock.nowMs());
  authority = await Authority.open(new StateFolder(dir), "cluster.local", () => clock.wallMs());
});

after(() => rmSync(dir, { recursive: true }));

const give = (identity: Identity = WEB, form: "dns" | "dns+spiffe" = "dns+spiffe"): string =>
  tokens.give({ podUid: "uid-1", identity, form });

async function csr(
  options: {
    names?: JsonGeneralName[];
    keys?: webcrypto.CryptoKeyPair;
    algorithm?: object;
    subject?: string;
  } = {},
): Promise<Uint8Array> {
  const keys = options.keys ?? (await webcrypto.subtle.generateKey(EC, false, ["sign", "verify"]));
  const request = await Pkcs10CertificateRequestGenerator.create({
    name: options.subject ?? "",
    keys,
    signingAlgorithm: (options.algorithm ?? EC) as typeof EC,
    extensions: [
      new SubjectAlternativeNameExtension(options.names ?? [{ type: "dns", value: dnsName(WEB) }]),
    ],
  });
  return new Uint8Array(request.rawData);
}

async function ask(input: Partial<CertifyInput> & { text?: string }): Promise<CertifyAnswer> {
  return await certify(authority, tokens, {
    identity: dnsName(WEB),
    token: Buffer.from(input.text ?? ""),
    csr: input.csr ?? (await csr()),
    caller: null,
    inUse: () => true,
    ...input,
  });
}

async function refusal(input: Partial<CertifyInput> & { text?: string }): Promise<string> {
  const answer = await ask(input);
  assert.equal(answer.kind, "refused");
  return answer.kind === "refused" ? `${answer.code}: ${answer.reason}` : "";
}

test("issues a leaf for a token: P-256, a day, DNS name first and one SPIFFE URI second (X.509-SVID §2, §4)", async () => {
  const answer = await ask({ text: give() });
  assert.equal(answer.kind, "issued");
  if (answer.kind !== "issued") return;
  const leaf = new X509Certificate(Buffer.from(answer.leaf.der));
  const san = leaf.getExtension(SubjectAlternativeNameExtension)!;
  assert.deepEqual(
    san.names.items.map((name) => [name.type, name.value]),
    [
      ["dns", dnsName(WEB)],
      ["url", "spiffe://cluster.local/ns/shop/sa/web"],
    ],
  );
  assert.equal(leaf.notAfter.getTime() - leaf.notBefore.getTime(), LEAF_LIFE_MS + SKEW_MS);
  assert.equal(answer.leaf.notAfterMs, leaf.notAfter.getTime());
  const node = new NodeCertificate(Buffer.from(answer.leaf.der));
  assert.equal(node.ca, false);
  assert.deepEqual(node.keyUsage, ["1.3.6.1.5.5.7.3.1", "1.3.6.1.5.5.7.3.2"]);
  const [issuer] = answer.leaf.intermediates.map((der) => new NodeCertificate(Buffer.from(der)));
  assert.equal(node.verify(issuer!.publicKey), true);
  assert.equal(issuer!.verify(new NodeCertificate(authority.trustAnchorsPem).publicKey), true);
});

test("issues the DNS name alone for a linkerd2-proxy", async () => {
  const answer = await ask({ text: give(WEB, "dns") });
  assert.equal(
    answer.kind === "issued" && new NodeCertificate(Buffer.from(answer.leaf.der)).subjectAltName,
    `DNS:${dnsName(WEB)}`,
  );
});

test("refuses a token that was used before for another key", async () => {
  const text = give();
  assert.equal((await ask({ text })).kind, "issued");
  assert.match(await refusal({ text }), /^unauthenticated: .*used before/);
});

test("takes a token again for the same key while it lives: the first answer may have been lost", async () => {
  const text = give();
  const keys = await webcrypto.subtle.generateKey(EC, false, ["sign", "verify"]);
  assert.equal((await ask({ text, csr: await csr({ keys }) })).kind, "issued");
  assert.equal((await ask({ text, csr: await csr({ keys }) })).kind, "issued");
  clock.advance(TOKEN_LIFE_MS);
  assert.match(await refusal({ text, csr: await csr({ keys }) }), /^unauthenticated: .*expired/);
});

test("refuses a token that expired", async () => {
  const text = give();
  clock.advance(TOKEN_LIFE_MS);
  assert.match(await refusal({ text }), /^unauthenticated: .*expired/);
});

test("refuses a token of another pod's identity, and burns it", async () => {
  const text = give(DB);
  assert.match(await refusal({ text }), /^unauthenticated: .*another identity/);
  assert.match(
    await refusal({
      text,
      identity: dnsName(DB),
      csr: await csr({ names: [{ type: "dns", value: dnsName(DB) }] }),
    }),
    /used before/,
  );
});

test("refuses a token that nobody gave", async () => {
  assert.match(await refusal({ text: "x".repeat(43) }), /^unauthenticated: .*not known/);
});

test("refuses a request that names somebody else, and leaves the token good", async () => {
  const text = give();
  assert.match(
    await refusal({ text, csr: await csr({ names: [{ type: "dns", value: dnsName(DB) }] }) }),
    /^invalid-argument: .*exactly the identity/,
  );
  assert.equal((await ask({ text })).kind, "issued");
});

for (const [what, names] of [
  [
    "a second DNS name",
    [
      { type: "dns", value: dnsName(WEB) },
      { type: "dns", value: dnsName(DB) },
    ],
  ],
  [
    "an IP address",
    [
      { type: "dns", value: dnsName(WEB) },
      { type: "ip", value: "10.0.0.1" },
    ],
  ],
  [
    "an e-mail address",
    [
      { type: "dns", value: dnsName(WEB) },
      { type: "email", value: "a@b.c" },
    ],
  ],
  [
    "another workload's SPIFFE ID",
    [
      { type: "dns", value: dnsName(WEB) },
      { type: "url", value: "spiffe://cluster.local/ns/shop/sa/db" },
    ],
  ],
  ["no DNS name", [{ type: "url", value: "spiffe://cluster.local/ns/shop/sa/web" }]],
] as [string, JsonGeneralName[]][]) {
  test(`refuses a request with ${what}`, async () => {
    assert.match(await refusal({ text: give(), csr: await csr({ names }) }), /^invalid-argument: /);
  });
}

test("accepts a request that names its own SPIFFE ID too", async () => {
  const names: JsonGeneralName[] = [
    { type: "dns", value: dnsName(WEB) },
    { type: "url", value: "spiffe://cluster.local/ns/shop/sa/web" },
  ];
  assert.equal((await ask({ text: give(), csr: await csr({ names }) })).kind, "issued");
});

test("refuses a request whose common name is somebody else's", async () => {
  assert.match(
    await refusal({ text: give(), csr: await csr({ subject: `CN=${dnsName(DB)}` }) }),
    /common name/,
  );
});

test("refuses a request whose signature is not its key's (Linkerd does not look)", async () => {
  const der = await csr();
  der[der.length - 3] = der[der.length - 3]! ^ 1;
  assert.match(
    await refusal({ text: give(), csr: der }),
    /^invalid-argument: .*(does not verify|cannot be read)/,
  );
});

test("refuses an RSA key", async () => {
  const algorithm = {
    name: "RSASSA-PKCS1-v1_5",
    hash: "SHA-256",
    publicExponent: new Uint8Array([1, 0, 1]),
    modulusLength: 2048,
  };
  const keys = await webcrypto.subtle.generateKey(algorithm, false, ["sign", "verify"]);
  assert.match(
    await refusal({ text: give(), csr: await csr({ keys, algorithm }) }),
    /^invalid-argument: .*P-256/,
  );
});

test("refuses a P-384 key", async () => {
  const algorithm = { name: "ECDSA", namedCurve: "P-384", hash: "SHA-384" };
  const keys = await webcrypto.subtle.generateKey(algorithm, false, ["sign", "verify"]);
  assert.match(
    await refusal({ text: give(), csr: await csr({ keys, algorithm }) }),
    /^invalid-argument: .*P-256/,
  );
});

test("refuses bytes that are no request, an empty and an endless one", async () => {
  for (const der of [new Uint8Array(), Uint8Array.of(0x30, 3, 2, 1, 0), new Uint8Array(100_000)]) {
    assert.match(await refusal({ text: give(), csr: der }), /^invalid-argument: /);
  }
});

test("refuses an identity of another trust domain or of no form at all", async () => {
  assert.match(
    await refusal({ identity: "web.shop.serviceaccount.identity.pillion.evil.example" }),
    /^invalid-argument: .*trust domain/,
  );
  assert.match(await refusal({ identity: "spiffe://cluster.local/ns/shop/sa/web" }), /^invalid-argument: /);
  assert.match(
    await refusal({ identity: "web.shop.serviceaccount.identity.linkerd.cluster.local" }),
    /^invalid-argument: /,
  );
});

test("refuses a caller without token and certificate", async () => {
  assert.match(await refusal({}), /^unauthenticated: /);
});

test("renews for the caller's own certificate and keeps its form", async () => {
  const answer = await ask({ caller: { identity: WEB, form: "dns" } });
  assert.equal(
    answer.kind === "issued" && new NodeCertificate(Buffer.from(answer.leaf.der)).subjectAltName,
    `DNS:${dnsName(WEB)}`,
  );
});

test("does not renew for another identity, nor for one that no pod has any more", async () => {
  assert.match(await refusal({ caller: { identity: DB, form: "dns" } }), /^permission-denied: /);
  assert.match(
    await refusal({ caller: { identity: WEB, form: "dns" }, inUse: () => false }),
    /^permission-denied: /,
  );
});

test("keeps root and issuer over restarts, and renews the issuer below the same root in time", async () => {
  const state = new StateFolder(dir);
  const again = await Authority.open(state, "cluster.local", () => clock.wallMs());
  assert.equal(again.trustAnchorsPem, authority.trustAnchorsPem);
  assert.equal(again.issuerPem, authority.issuerPem);
  const later = await Authority.open(state, "cluster.local", () => clock.wallMs() + ISSUER_LIFE_MS * 0.7);
  assert.equal(later.trustAnchorsPem, authority.trustAnchorsPem);
  assert.notEqual(later.issuerPem, authority.issuerPem);
});

test("refuses to begin with a root whose key is gone, rather than to cut off every running sidecar", async () => {
  const lost = mkdtempSync(join(tmpdir(), "pillion-identity-"));
  try {
    const state = new StateFolder(lost);
    await Authority.open(state, "cluster.local", () => clock.wallMs());
    assert.match(readFileSync(join(lost, "root.key"), "utf8"), /PRIVATE KEY/);
    unlinkSync(join(lost, "root.key"));
    await assert.rejects(
      Authority.open(state, "cluster.local", () => clock.wallMs()),
      /only one of root\.crt and root\.key/,
    );
  } finally {
    rmSync(lost, { recursive: true });
  }
});
