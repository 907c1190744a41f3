import assert from "node:assert/strict";
import { createHmac } from "node:crypto";
import test from "node:test";
import { exportJWK, exportSPKI, generateKeyPair, SignJWT } from "jose";
import type { JWK, JWTHeaderParameters } from "jose";
import type { JwtIssuer, JwtPolicy } from "#/model/access.ts";
import type { TokenRefusal, TokenVerdict } from "#/stack/jwt/token-verifier.ts";
import { tokenCheck } from "./jwt-verifier.ts";

const NOW_MS = Date.UTC(2026, 5, 1);
const NOW = NOW_MS / 1000;
const ISSUER = "https://login.test";

const rsa = await generateKeyPair("RS256", { extractable: true });
const ec = await generateKeyPair("ES256", { extractable: true });
const stranger = await generateKeyPair("ES256", { extractable: true });
const rsaJwk: JWK = { ...(await exportJWK(rsa.publicKey)), kid: "rsa-1", use: "sig" };
const ecJwk: JWK = { ...(await exportJWK(ec.publicKey)), kid: "ec-1", alg: "ES256" };

function issuerOf(some: Partial<JwtIssuer> = {}, keys: readonly JWK[] = [rsaJwk, ecJwk]): JwtIssuer {
  return {
    issuer: ISSUER,
    audiences: ["shop"],
    jwks: JSON.stringify({ keys }),
    leewayMs: 60_000,
    headers: ["authorization"],
    forwards: false,
    claimHeaders: [],
    ...some,
  };
}

function policyOf(...issuers: readonly JwtIssuer[]): JwtPolicy {
  const source = {
    group: "pillion.dev",
    kind: "JwtPolicy",
    namespace: "shop",
    name: "users",
    section: "",
    port: 0,
  };
  return { source, issuers, required: [] };
}

async function sign(
  claims: Record<string, unknown> = {},
  header: Record<string, unknown> = {},
  key = ec.privateKey,
): Promise<string> {
  return await new SignJWT({ iss: ISSUER, aud: "shop", sub: "ada", exp: NOW + 300, ...claims })
    .setProtectedHeader({ alg: "ES256", kid: "ec-1", ...header } as JWTHeaderParameters)
    .sign(key);
}

/** Three parts as anybody may write them. */
function forge(head: unknown, body: unknown, signature = "c2ln"): string {
  return `${encoded(head)}.${encoded(body)}.${signature}`;
}

function encoded(part: unknown): string {
  return Buffer.from(typeof part === "string" ? part : JSON.stringify(part)).toString("base64url");
}

const GOOD = { iss: ISSUER, aud: "shop", sub: "ada", exp: NOW + 300 };
const check = tokenCheck(policyOf(issuerOf()), () => NOW_MS);

async function refusal(token: string, by = check): Promise<TokenRefusal | "verified" | "busy"> {
  const verdict = await by(token);
  return verdict.kind === "refused" ? verdict.reason : verdict.kind;
}

function claimsOf(verdict: TokenVerdict): unknown {
  return verdict.kind === "verified" ? verdict.token.claims : verdict;
}

test("takes a good token of each family of algorithms, until it expires and the leeway is over", async () => {
  const verdict = await check(await sign());
  assert.equal((claimsOf(verdict) as { sub: string }).sub, "ada");
  assert.equal(verdict.kind === "verified" && verdict.token.untilMs, NOW_MS + 360_000);
  for (const alg of ["RS256", "RS512", "PS256"]) {
    const pair = await generateKeyPair(alg, { extractable: true });
    const jwk = { ...(await exportJWK(pair.publicKey)), kid: "k" };
    const token = await sign({}, { alg, kid: "k" }, pair.privateKey);
    assert.equal(
      await refusal(
        token,
        tokenCheck(policyOf(issuerOf({}, [jwk])), () => NOW_MS),
      ),
      "verified",
      alg,
    );
  }
  const pair = await generateKeyPair("EdDSA", { extractable: true });
  const jwk = await exportJWK(pair.publicKey);
  const token = await sign({}, { alg: "EdDSA" }, pair.privateKey);
  const nameless = tokenCheck(policyOf(issuerOf({}, [jwk])), () => NOW_MS);
  assert.equal(await refusal(token, nameless), "key", "a token that names a key has to be of that one");
  assert.equal(
    await refusal(await sign({}, { alg: "EdDSA", kid: undefined }, pair.privateKey), nameless),
    "verified",
  );
});

test("refuses a token without a signature, however `none` is spelled (RFC 8725 §3.2)", async () => {
  for (const alg of ["none", "None", "NONE", "nOnE", "", null, undefined, 0, ["none"]])
    for (const signature of ["", "c2ln"])
      assert.equal(await refusal(forge({ alg, kid: "ec-1" }, GOOD, signature)), "algorithm", String(alg));
});

test("refuses HMAC with the public key as its secret (RFC 8725 §2.1)", async () => {
  for (const secret of [
    await exportSPKI(rsa.publicKey),
    (await exportSPKI(rsa.publicKey)).trim(),
    JSON.stringify(rsaJwk),
    rsaJwk.n ?? "",
  ]) {
    const signed = `${encoded({ alg: "HS256", kid: "rsa-1", typ: "JWT" })}.${encoded(GOOD)}`;
    const mac = createHmac("sha256", secret).update(signed).digest("base64url");
    assert.equal(await refusal(`${signed}.${mac}`), "algorithm");
  }
  // Not even where the set holds such a key.
  const secret = { kty: "oct", k: encoded("secret"), kid: "mac", alg: "HS256" };
  const signed = `${encoded({ alg: "HS256", kid: "mac" })}.${encoded(GOOD)}`;
  const mac = createHmac("sha256", "secret").update(signed).digest("base64url");
  const lax = tokenCheck(policyOf(issuerOf({}, [secret, ecJwk])), () => NOW_MS);
  assert.equal(await refusal(`${signed}.${mac}`, lax), "algorithm");
});

test("refuses a key of another kind than the algorithm's, and one that the key is not for", async () => {
  // The RSA key under ES256, the EC key under RS256: whatever the signature is.
  assert.equal(await refusal(await sign({}, { kid: "rsa-1" })), "key");
  assert.equal(await refusal(await sign({}, { alg: "RS256", kid: "ec-1" }, rsa.privateKey)), "key");
  assert.equal(await refusal(await sign({}, { alg: "RS256", kid: "rsa-1" }, rsa.privateKey)), "verified");
  for (const some of [{ use: "enc" }, { key_ops: ["encrypt"] }, { alg: "ES384" }]) {
    const strict = tokenCheck(policyOf(issuerOf({}, [{ ...ecJwk, ...some }])), () => NOW_MS);
    assert.equal(await refusal(await sign(), strict), "key", JSON.stringify(some));
  }
});

test("refuses an ES256 signature of zeros, and others that are none (CVE-2022-21449)", async () => {
  const [head, body] = (await sign()).split(".");
  for (const bytes of [
    Buffer.alloc(64),
    Buffer.alloc(63),
    Buffer.alloc(65),
    Buffer.alloc(1),
    Buffer.alloc(64, 0xff),
  ])
    assert.equal(await refusal(`${head}.${body}.${bytes.toString("base64url")}`), "signature");
  // The group's order, as r and s.
  const order = Buffer.from(
    "ffffffff00000000ffffffffffffffffbce6faada7179e84f3b9cac2fc632551".repeat(2),
    "hex",
  );
  assert.equal(await refusal(`${head}.${body}.${order.toString("base64url")}`), "signature");
});

test("refuses a token whose parts were changed after it was signed", async () => {
  const [head = "", body = "", signature = ""] = (await sign()).split(".");
  assert.equal(await refusal(`${head}.${encoded({ ...GOOD, sub: "root" })}.${signature}`), "signature");
  assert.equal(
    await refusal(`${encoded({ alg: "ES256", kid: "ec-1", x: 1 })}.${body}.${signature}`),
    "signature",
  );
});

test("looks at no key that a token brings or names: jwk, jku, x5c, x5u (RFC 8725 §3.5)", async () => {
  const own = await exportJWK(stranger.publicKey);
  for (const some of [
    { jwk: own },
    { jku: "http://127.0.0.1:1/keys" },
    { x5u: "file:///etc/passwd" },
    { x5c: ["MIIB"] },
    { x5t: "AAAA" },
  ])
    assert.equal(
      await refusal(await sign({}, { ...some }, stranger.privateKey)),
      "signature",
      JSON.stringify(some),
    );
});

test("compares a kid and looks nothing up by it", async () => {
  for (const kid of [
    "../../../../dev/null",
    "/etc/passwd",
    "ec-1' UNION SELECT 'x",
    "ec-1\0",
    "EC-1",
    " ec-1",
    "ec-1;rm -rf /",
    "__proto__",
    "constructor",
    "",
    "http://127.0.0.1/key",
  ])
    assert.equal(await refusal(await sign({}, { kid })), "key", kid);
  for (const kid of [["ec-1"], { ec: 1 }, 1, null])
    assert.equal(await refusal(forge({ alg: "ES256", kid }, GOOD)), "malformed", JSON.stringify(kid));
});

test("tries each key of the algorithm where a token names none, and keys of one name", async () => {
  const other = { ...(await exportJWK(stranger.publicKey)), kid: "ec-2" };
  const both = tokenCheck(policyOf(issuerOf({}, [other, ecJwk])), () => NOW_MS);
  assert.equal(await refusal(await sign({}, { kid: undefined }), both), "verified");
  assert.equal(await refusal(await sign({ exp: NOW - 300 }, { kid: undefined }), both), "expired");
  const third = await generateKeyPair("ES256");
  assert.equal(await refusal(await sign({}, { kid: undefined }, third.privateKey), both), "signature");
  const twins = tokenCheck(policyOf(issuerOf({}, [{ ...other, kid: "ec-1" }, ecJwk])), () => NOW_MS);
  assert.equal(await refusal(await sign(), twins), "verified");
});

test("refuses another issuer, one that only looks alike, and one whose keys are another's", async () => {
  for (const iss of [
    "https://login.test/",
    "https://LOGIN.test",
    "https://login.test.evil",
    "",
    1,
    [ISSUER],
    null,
  ])
    assert.equal(
      await refusal(forge({ alg: "ES256", kid: "ec-1" }, { ...GOOD, iss })),
      "issuer",
      String(iss),
    );
  assert.equal(await refusal(forge({ alg: "ES256", kid: "ec-1" }, { aud: "shop", exp: NOW + 60 })), "issuer");
  // Two issuers: a key of one signs nothing for the other.
  const other = { ...(await exportJWK(stranger.publicKey)), kid: "ec-1" };
  const two = tokenCheck(
    policyOf(issuerOf(), issuerOf({ issuer: "https://other.test" }, [other])),
    () => NOW_MS,
  );
  assert.equal(await refusal(await sign(), two), "verified");
  assert.equal(await refusal(await sign({}, {}, stranger.privateKey), two), "signature");
  assert.equal(
    await refusal(await sign({ iss: "https://other.test" }, {}, stranger.privateKey), two),
    "verified",
  );
});

test("asks for the audience where the policy names any", async () => {
  assert.equal(await refusal(await sign({ aud: undefined })), "audience");
  for (const aud of ["bank", ["bank", "Shop"], [], "shop "])
    assert.equal(await refusal(await sign({ aud })), "audience");
  assert.equal(await refusal(await sign({ aud: ["bank", "shop"] })), "verified");
  const any = tokenCheck(policyOf(issuerOf({ audiences: [] })), () => NOW_MS);
  assert.equal(await refusal(await sign({ aud: undefined }), any), "verified");
});

test("holds exp and nbf against the clock with the leeway, to the second, and asks for exp", async () => {
  assert.equal(await refusal(await sign({ exp: NOW - 59 })), "verified");
  assert.equal(await refusal(await sign({ exp: NOW - 60 })), "expired");
  assert.equal(await refusal(await sign({ nbf: NOW + 60 })), "verified");
  assert.equal(await refusal(await sign({ nbf: NOW + 61 })), "not_yet");
  assert.equal(await refusal(await sign({ exp: undefined })), "claims");
  for (const exp of ["soon", "99999999999", null, {}, -1e300])
    assert.notEqual(await refusal(await sign({ exp })), "verified", JSON.stringify(exp));
});

test("refuses tokens for something else, critical fields that are not known, and unencoded bodies (RFC 8725 §3.11)", async () => {
  for (const typ of ["JWT", "jwt", "at+jwt", "application/at+JWT"])
    assert.equal(await refusal(await sign({}, { typ })), "verified", typ);
  for (const typ of ["dpop+jwt", "logout+jwt", "JOSE", "", "secevent+jwt"])
    assert.equal(await refusal(await sign({}, { typ })), "malformed", typ);
  assert.equal(await refusal(forge({ alg: "ES256", kid: "ec-1", crit: ["exp"], exp: 1 }, GOOD)), "malformed");
  assert.equal(
    await refusal(forge({ alg: "ES256", kid: "ec-1", crit: ["b64"], b64: false }, GOOD)),
    "malformed",
  );
});

test("takes any other text for no token, and says nothing of it but iss and kid", async () => {
  for (const token of [
    "a.b.c",
    "..",
    "",
    `${encoded("[]")}.${encoded(GOOD)}.c`,
    `${encoded("null")}.${encoded(GOOD)}.c`,
    `${encoded({ alg: "ES256" })}.${encoded("[1]")}.c`,
    `${encoded('{"alg":"ES256"')}.${encoded(GOOD)}.c`,
    `${Buffer.from([0xff, 0xfe]).toString("base64url")}.${encoded(GOOD)}.c`,
  ])
    assert.equal(await refusal(token), "malformed", token);
  const long = "x".repeat(500);
  const verdict = await check(forge({ alg: "ES256", kid: long }, { ...GOOD, sub: "secret-subject" }));
  assert.ok(verdict.kind === "refused");
  assert.ok(!verdict.detail.includes("secret-subject") && verdict.detail.length < 400);
});

test("refuses all tokens of an issuer whose keys could not be had, and by keys that are too weak", async () => {
  for (const jwks of ["", "{", "[]", '{"keys":1}'])
    assert.equal(
      await refusal(
        await sign(),
        tokenCheck(policyOf(issuerOf({ jwks })), () => NOW_MS),
      ),
      "issuer",
    );
  const weak: JWK = { kty: "RSA", kid: "weak", n: Buffer.alloc(128, 0xc1).toString("base64url"), e: "AQAB" };
  const by = tokenCheck(policyOf(issuerOf({}, [weak])), () => NOW_MS);
  assert.equal(await refusal(forge({ alg: "RS256", kid: "weak" }, GOOD), by), "key");
  const withPrivate = tokenCheck(
    policyOf(issuerOf({}, [{ ...(await exportJWK(ec.privateKey)), kid: "ec-1" }])),
    () => NOW_MS,
  );
  assert.equal(await refusal(await sign(), withPrivate), "key");
});

test("an unknown key has the issuer's set asked for again, and the token judged by it", async () => {
  const next: JWK = { ...(await exportJWK(stranger.publicKey)), kid: "next" };
  let asked = 0;
  let answer: string | null = null;
  const by = tokenCheck(
    policyOf(issuerOf()),
    () => NOW_MS,
    async () => {
      asked++;
      return await Promise.resolve(answer);
    },
  );
  const token = await sign({}, { kid: "next" }, stranger.privateKey);
  assert.equal(await refusal(token, by), "key");
  answer = JSON.stringify({ keys: [rsaJwk, ecJwk, next] });
  assert.equal(await refusal(token, by), "verified");
  assert.equal(await refusal(await sign({}, { kid: "next" }), by), "signature");
  assert.equal(asked, 2, "not for what another key would not mend");
  const empty = tokenCheck(
    policyOf(issuerOf({ jwks: "" })),
    () => NOW_MS,
    async () => await Promise.resolve(answer),
  );
  assert.equal(await refusal(token, empty), "verified");
});
