import assert from "node:assert/strict";
import { before, test } from "node:test";
import { exportJWK, generateKeyPair, SignJWT, UnsecuredJWT, type GenerateKeyPairResult } from "jose";
import { verifyJwtSvid } from "./jwt-svid.ts";

const NOW_S = 1_700_000_000;
const WEB_ID = "spiffe://cluster.local/ns/shop/sa/web";
let keys: GenerateKeyPairResult;
let others: GenerateKeyPairResult;
let keySets: Map<string, string>;

before(async () => {
  keys = await generateKeyPair("ES256");
  others = await generateKeyPair("ES256");
  const jwk = async (pair: GenerateKeyPairResult, kid: string, use: string): Promise<object> => ({
    ...(await exportJWK(pair.publicKey)),
    kid,
    use,
  });
  keySets = new Map([
    [
      "cluster.local",
      JSON.stringify({ keys: [await jwk(keys, "one", "jwt-svid"), await jwk(others, "x509", "x509-svid")] }),
    ],
    ["other.example", JSON.stringify({ keys: [await jwk(others, "one", "jwt-svid")] })],
  ]);
});

async function token(
  claims: Record<string, unknown> = {},
  header: Record<string, unknown> = {},
  key: CryptoKey | Uint8Array = keys.privateKey,
): Promise<string> {
  return await new SignJWT({ sub: WEB_ID, aud: ["db"], exp: NOW_S + 300, ...claims })
    .setProtectedHeader({ alg: "ES256", kid: "one", typ: "JWT", ...header })
    .sign(key);
}

async function refusal(of: string, audience = "db"): Promise<string> {
  const verdict = await verifyJwtSvid(of, audience, keySets, NOW_S * 1000);
  assert.equal(verdict.kind, "refused");
  return verdict.kind === "refused" ? verdict.reason : "";
}

test("a good token gives its subject and all of its claims", async () => {
  const verdict = await verifyJwtSvid(await token({ extra: { a: [1] } }), "db", keySets, NOW_S * 1000);
  assert.ok(verdict.kind === "valid");
  assert.equal(verdict.spiffeId, WEB_ID);
  assert.deepEqual(verdict.claims, { sub: WEB_ID, aud: ["db"], exp: NOW_S + 300, extra: { a: [1] } });
});

test("its type may be absent, JWT or JOSE, and nothing else (JWT-SVID §2.3)", async () => {
  for (const typ of [undefined, "JWT", "JOSE"]) {
    const made = await token({}, typ === undefined ? { typ: undefined } : { typ });
    assert.equal((await verifyJwtSvid(made, "db", keySets, NOW_S * 1000)).kind, "valid");
  }
  assert.match(await refusal(await token({}, { typ: "at+jwt" })), /type is neither/);
});

test("one that has ended, has no end, or is for others is refused (JWT-SVID §3.2, §3.3)", async () => {
  assert.match(await refusal(await token({ exp: NOW_S - 61 })), /expired/);
  assert.match(await refusal(await token({ exp: undefined })), /claim exp is missing/);
  assert.match(await refusal(await token({ aud: undefined })), /not for the audience "db"/);
  assert.match(await refusal(await token({ aud: [] })), /not for the audience "db"/);
  assert.match(await refusal(await token(), "cache"), /not for the audience "cache"/);
  assert.match(await refusal(await token({ nbf: NOW_S + 61 })), /claim nbf/);
});

test("attack: another trust domain's key proves no name of this one, whatever it is called", async () => {
  const forged = await token({}, {}, others.privateKey);
  assert.match(await refusal(forged), /signature does not verify/);
  const theirs = await token({ sub: "spiffe://other.example/a" }, {}, others.privateKey);
  assert.equal((await verifyJwtSvid(theirs, "db", keySets, NOW_S * 1000)).kind, "valid");
  assert.match(await refusal(await token({ sub: "spiffe://third.example/a" })), /no keys are known/);
});

test("attack: no algorithm, a shared secret, a key of another use, or none that is named", async () => {
  const none = new UnsecuredJWT({ sub: WEB_ID, aud: "db", exp: NOW_S + 300 }).encode();
  assert.match(await refusal(none), /no JWT|does not name its key/);
  const secret = new TextEncoder().encode("a".repeat(32));
  assert.match(await refusal(await token({}, { alg: "HS256" }, secret)), /algorithm/);
  assert.match(await refusal(await token({}, { kid: "x509" }, others.privateKey)), /no key/);
  assert.match(await refusal(await token({}, { kid: "two" })), /no key/);
  assert.match(await refusal(await token({}, { kid: undefined })), /does not name its key/);
});

test("a subject that is no SPIFFE ID of a workload is refused (SPIFFE-ID §2)", async () => {
  const subjects = [
    undefined,
    "",
    "web",
    "https://cluster.local/a",
    "spiffe://cluster.local",
    "spiffe://cluster.local/",
    "spiffe://cluster.local/a//b",
    "spiffe://cluster.local/a/../b",
    "spiffe://CLUSTER.local/a",
    "spiffe://cluster.local:80/a",
    "spiffe://user@cluster.local/a",
    "spiffe://cluster.local/a?b",
    "spiffe://cluster.local/%61",
    `spiffe://cluster.local/${"a".repeat(2048)}`,
  ];
  for (const sub of subjects) assert.match(await refusal(await token({ sub })), /no SPIFFE ID/, String(sub));
});

test("what is no token is refused and throws nothing", async () => {
  const good = await token();
  for (const text of ["", ".", "..", "a.b.c", good.slice(0, -10), `${good}.x`, `x${good}`, "{}"])
    assert.notEqual(await refusal(text), "");
});
