import assert from "node:assert/strict";
import { mkdtempSync, readFileSync, rmSync, statSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, test } from "node:test";
import { decodeJwt, decodeProtectedHeader } from "jose";
import { SILENT } from "#/net/log.ts";
import { verifyJwtSvid } from "#/net/jwt-svid.ts";
import { ManualClock } from "#/stack/http/testing.ts";
import { StateFolder } from "../state-folder.ts";
import { JwtAuthority, KEY_AHEAD_MS, KEY_KEPT_MS, KEY_SIGNS_MS, TOKEN_LIFE_MS } from "./jwt-authority.ts";

const WEB = { trustDomain: "cluster.local", namespace: "shop", serviceAccount: "web" };
const WEB_ID = "spiffe://cluster.local/ns/shop/sa/web";

let dir = "";
let clock: ManualClock;
const opened: JwtAuthority[] = [];
beforeEach(() => {
  dir = mkdtempSync(join(tmpdir(), "pillion-jwt-"));
  clock = new ManualClock();
});
afterEach(() => {
  for (const authority of opened.splice(0)) authority.close();
  rmSync(dir, { recursive: true });
});

async function open(): Promise<JwtAuthority> {
  const authority = await JwtAuthority.open(new StateFolder(dir), "cluster.local", clock, SILENT);
  opened.push(authority);
  return authority;
}

const kids = (authority: JwtAuthority): string[] =>
  (JSON.parse(authority.keySet) as { keys: { kid: string }[] }).keys.map(({ kid }) => kid);
const kidOf = async (authority: JwtAuthority): Promise<string> =>
  decodeProtectedHeader((await authority.sign(WEB, ["db"])).token).kid ?? "";

test("a token names its subject, its audience and an end five minutes on, and verifies (JWT-SVID §3)", async () => {
  const authority = await open();
  const { token, expiresAtMs } = await authority.sign(WEB, ["db", "cache"]);
  const issuedAt = Math.floor(clock.wallMs() / 1000);
  assert.deepEqual(decodeJwt(token), {
    sub: WEB_ID,
    aud: ["db", "cache"],
    iat: issuedAt,
    exp: issuedAt + TOKEN_LIFE_MS / 1000,
  });
  assert.equal(expiresAtMs, (issuedAt + 300) * 1000);
  assert.deepEqual(decodeProtectedHeader(token), { alg: "ES256", typ: "JWT", kid: kids(authority)[0] });
  const keySets = new Map([["cluster.local", authority.keySet]]);
  assert.equal((await verifyJwtSvid(token, "cache", keySets, clock.wallMs())).kind, "valid");
});

test("the key set says what each key is for, and nothing of the private keys (JWT-SVID §6.1)", async () => {
  const { keys } = JSON.parse((await open()).keySet) as { keys: Record<string, string>[] };
  assert.deepEqual(Object.keys(keys[0]!).toSorted(), ["crv", "kid", "kty", "use", "x", "y"]);
  assert.equal(keys[0]!["use"], "jwt-svid");
});

test("keys lie in the state folder, readable by the control plane alone, and outlive it", async () => {
  const before = kids(await open());
  assert.equal(statSync(join(dir, "jwt-keys.json")).mode & 0o777, 0o600);
  assert.deepEqual(kids(await open()), before);
});

test("a new key is published an hour before it signs, and the old one until its last token has ended", async () => {
  const authority = await open();
  let told = 0;
  authority.watch(() => told++);
  const first = await kidOf(authority);
  clock.advance(KEY_SIGNS_MS - KEY_AHEAD_MS - 1);
  await authority.rotate();
  assert.deepEqual([kids(authority).length, told], [1, 0]);
  clock.advance(1);
  await authority.rotate();
  assert.deepEqual([kids(authority).length, told], [2, 1]);
  assert.equal(await kidOf(authority), first, "signed by a key that nobody may know yet");
  const last = (await authority.sign(WEB, ["db"])).token;
  clock.advance(KEY_AHEAD_MS);
  await authority.rotate();
  const second = await kidOf(authority);
  assert.notEqual(second, first);
  assert.deepEqual(kids(authority), [first, second]);
  clock.advance(KEY_KEPT_MS - 1);
  await authority.rotate();
  assert.deepEqual(kids(authority), [first, second], "gone while tokens of it may live");
  clock.advance(1);
  await authority.rotate();
  assert.deepEqual(kids(authority), [second]);
  const keySets = new Map([["cluster.local", authority.keySet]]);
  assert.equal((await verifyJwtSvid(last, "db", keySets, clock.wallMs())).kind, "refused");
});

test("after a long time away the old key signs until the new one has been known for an hour", async () => {
  const first = await kidOf(await open());
  clock.advance(10 * KEY_SIGNS_MS);
  const authority = await open();
  assert.equal(kids(authority).length, 2);
  assert.equal(await kidOf(authority), first);
  clock.advance(KEY_AHEAD_MS);
  assert.notEqual(await kidOf(authority), first);
});

test("a clock that was far ahead does not leave it without a key that may sign", async () => {
  clock.advance(100 * KEY_SIGNS_MS);
  await open();
  clock = new ManualClock();
  const authority = await open();
  assert.equal(await kidOf(authority), kids(authority)[0]);
});

test("a clock that was far ahead for a moment does not end the change of keys", async () => {
  const first = await kidOf(await open());
  clock.advance(100 * KEY_SIGNS_MS);
  await open();
  clock = new ManualClock();
  const authority = await open();
  assert.deepEqual(kids(authority), [first]);
  clock.advance(KEY_SIGNS_MS);
  await authority.rotate();
  clock.advance(KEY_AHEAD_MS);
  assert.notEqual(await kidOf(authority), first);
});

test("a file that cannot be read is replaced, and the log says what that costs", async () => {
  await open();
  for (const text of ["{", "[]x", '[{"signsFromMs":1,"jwk":{"kty":"oct","k":"AAAA"}}]', '[{"jwk":{}}]']) {
    writeFileSync(join(dir, "jwt-keys.json"), text);
    const authority = await open();
    assert.equal(kids(authority).length, 1, text);
    assert.match(readFileSync(join(dir, "jwt-keys.json"), "utf8"), /"kty":"EC"/);
  }
});
