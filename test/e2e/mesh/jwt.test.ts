/** Requests by tokens: keys from a real key set server in a pod, real clients, tokens that are good and tokens that try to pass for it. */
import assert from "node:assert/strict";
import { createHmac } from "node:crypto";
import { after, before, test } from "node:test";
import { exportJWK, exportSPKI, generateKeyPair, SignJWT } from "jose";
import type { GenerateKeyPairResult, JWK } from "jose";
import { Mesh, NAMESPACE, workload, type Run } from "./mesh.ts";

const ISSUER = "https://login.test";
const FIXTURES = "/.pillion/mesh/test/e2e/mesh/fixtures";
const ECHO = ["node", "/.pillion/mesh/examples/programs/server.js"];

const mesh = new Mesh("jwt");
let client = "";
let first: GenerateKeyPairResult;

function policy(required: string): string {
  return `apiVersion: pillion.dev/v1alpha1
kind: JwtPolicy
metadata: { name: users, namespace: test }
spec:
  targetRefs: [{ group: "", kind: Service, name: web }]
  issuers:
    - issuer: ${ISSUER}
      audiences: [web]
      jwks: { url: "http://keys.test.svc.cluster.local/jwks" }
      claimHeaders: [{ claim: sub, header: x-user }, { claim: roles, header: x-roles }]
  ${required}
`;
}

const ADMINS = `apiVersion: pillion.dev/v1alpha1
kind: AuthorizationPolicy
metadata: { name: admins, namespace: test }
spec:
  targetRefs: [{ group: "", kind: Service, name: web }]
  action: ALLOW
  rules:
    - name: readers
      requests: [{ paths: [{ type: PathPrefix, value: /headers }] }]
    - name: admins
      requests: [{ paths: [{ type: PathPrefix, value: /admin }], claims: [{ claim: roles, values: [admin] }] }]
`;

before(async () => {
  first = await generateKeyPair("ES256", { extractable: true });
  mesh.write("namespace.yaml", NAMESPACE);
  mesh.write("client.yaml", workload({ name: "client", command: ["sleep", "infinity"] }));
  mesh.write(
    "web.yaml",
    workload({
      name: "web",
      command: ECHO,
      ports: { http: [80, 8080] },
      containerExtra: "          readinessProbe: { httpGet: { path: /ready, port: 8080 }, periodSeconds: 1 }",
    }),
  );
  mesh.write(
    "keys.yaml",
    workload({
      name: "keys",
      command: ["node", `${FIXTURES}/key-server.js`],
      ports: { http: [80, 8080] },
      readyPort: 8080,
    }),
  );
  await mesh.up();
  client = (await mesh.pod("client")).name;
  await publish({ ...(await exportJWK(first.publicKey)), kid: "first" });
});
after(() => mesh.close());

/** What the key set server says from now on. */
async function publish(...keys: readonly JWK[]): Promise<void> {
  await mesh.until("the key set server", async () => {
    const put = ["-sf", "-X", "PUT", "--data", JSON.stringify({ keys }), "http://keys/jwks"];
    return (await mesh.exec(client, "curl", ...put)).code === 0;
  });
}

async function sign(
  claims: Record<string, unknown> = {},
  header: Record<string, unknown> = {},
  { privateKey } = first,
): Promise<string> {
  return await new SignJWT({ iss: ISSUER, aud: "web", sub: "ada", exp: seconds(300), ...claims })
    .setProtectedHeader({ alg: "ES256", kid: "first", ...header })
    .sign(privateKey);
}

function seconds(fromNow: number): number {
  return Math.floor(Date.now() / 1000) + fromNow;
}

/** Status, fields and body of an answer. */
async function ask(path: string, token: string | null, ...more: string[]): Promise<string> {
  const auth = token === null ? [] : ["-H", `Authorization: Bearer ${token}`];
  const args = ["-sSi", "--path-as-is", "--max-time", "20", ...auth, ...more, `http://web${path}`];
  const { code, stdout, stderr } = await mesh.exec(client, "curl", ...args);
  return stdout === "" ? `no answer: ${code} ${stderr}` : stdout;
}

async function until(
  what: string,
  asks: () => Promise<string>,
  pattern: RegExp,
  timeoutMs = 20_000,
): Promise<string> {
  const asked = async (): Promise<string | false> => {
    const answer = await asks();
    return pattern.test(answer) && answer;
  };
  return await mesh.until(what, asked, timeoutMs);
}

test("a token lets in, its claims reach the application, and nothing that a client says in their place", async () => {
  const token = await sign({ roles: ["reader", "user"] });
  mesh.write("jwt.yaml", policy("required: { all: true }"));
  const missing = await until("the policy", async () => await ask("/headers", null), /^HTTP\/1\.1 401 /);
  assert.match(missing, /^www-authenticate: Bearer realm="mesh"\r$/im);
  assert.match(
    missing,
    /server's sidecar \(web-.*needs one of https:\/\/login\.test \[JwtPolicy\/test\/users\].*\(TOKEN_MISSING\)/,
  );
  const spoofs = ["-H", "X-User: root", "-H", "x_user: root", "-H", "X-Roles: admin"];
  const passed = await until(
    "the keys",
    async () => await ask("/headers", token, ...spoofs),
    /^HTTP\/1\.1 200 /,
  );
  assert.match(passed, /^x-user: ada\r?$/im);
  assert.match(passed, /^x-roles: reader,user\r?$/im);
  assert.doesNotMatch(passed, /root|: admin|authorization/i);
});

test("what only tries to pass for a token is refused by name", async () => {
  const spki = await exportSPKI(first.publicKey);
  const encoded = (part: unknown): string => Buffer.from(JSON.stringify(part)).toString("base64url");
  const claims = { iss: ISSUER, aud: "web", sub: "root", exp: seconds(300) };
  const stranger = await generateKeyPair("ES256", { extractable: true });
  const hmac = `${encoded({ alg: "HS256", kid: "first" })}.${encoded(claims)}`;
  const [head, body] = (await sign()).split(".");
  for (const [name, token, reason] of [
    ["none", `${encoded({ alg: "none" })}.${encoded(claims)}.AA`, /alg must be one of/],
    ["hmac", `${hmac}.${createHmac("sha256", spki).update(hmac).digest("base64url")}`, /alg must be one of/],
    ["stranger", await sign({}, {}, stranger), /signature does not hold/],
    [
      "embedded",
      await sign({}, { jwk: await exportJWK(stranger.publicKey) }, stranger),
      /signature does not hold/,
    ],
    ["kid", await sign({}, { kid: "../../dev/null" }), /no key called .*dev\/null/],
    ["zeros", `${head}.${body}.${Buffer.alloc(64).toString("base64url")}`, /signature does not hold/],
    ["audience", await sign({ aud: "bank" }), /aud is none/],
    ["issuer", await sign({ iss: "https://evil.test" }), /none of https:\/\/login\.test/],
    ["expired", await sign({ exp: seconds(-120) }), /has expired/],
    ["early", await sign({ nbf: seconds(300) }), /nbf is in the future/],
    ["huge", `${"a".repeat(9_000)}.b.c`, /more than 8192 characters/],
  ] as const) {
    const answer = await ask("/headers", token);
    assert.match(answer, /^HTTP\/1\.1 401 /, name);
    assert.match(answer, /^www-authenticate: Bearer realm="mesh", error="invalid_token"/im, name);
    assert.match(answer, reason, name);
  }
  const twice = await ask("/headers", await sign(), "-H", `Authorization: Bearer ${await sign()}`);
  assert.match(twice, /more than one token/);
  const web = await mesh.pod("web");
  const counted = await mesh.metric(web, "pillion_inbound_token_refusals_total", { reason: "signature" });
  assert.equal(counted, 3);
  for (const text of [await mesh.log(web.name, "pillion-proxy").catch(() => ""), await ask("/headers", null)])
    assert.doesNotMatch(text, /eyJ/, "no token is told");
});

test("bytes that nobody looks into carry no token, and do not pass where one is needed", async () => {
  const run: Run = await mesh.exec(
    client,
    "node",
    "-e",
    `const s = require("net").connect(80, "web", () => s.write("\\0\\1raw GET /headers HTTP/1.1\\r\\nHost: web\\r\\n\\r\\n"));
     s.on("data", (d) => console.log("data " + d)).on("error", (e) => console.log("error " + e.code)).on("end", () => console.log("end"));
     s.setTimeout(30000, () => { console.log("timeout"); s.destroy(); });`,
  );
  assert.match(run.stdout, /^(?:error ECONNRESET|end)\n/, run.stderr);
  assert.doesNotMatch(run.stdout, /data/);
});

test("claims decide with the caller's path, in the form that is forwarded", async () => {
  mesh.write("jwt.yaml", policy(""));
  mesh.write("admins.yaml", ADMINS);
  const admin = await sign({ roles: ["admin"] });
  const reader = await sign({ roles: ["reader"] });
  await until("the policies", async () => await ask("/admin", null), /^HTTP\/1\.1 403 /);
  await until("the optional token", async () => await ask("/headers", null), /^HTTP\/1\.1 200 /);
  assert.match(await ask("/admin", admin), /^HTTP\/1\.1 200 /);
  for (const path of ["/admin", "/%61dmin", "/headers/../admin"])
    assert.match(await ask(path, reader), /^HTTP\/1\.1 403 [^]*NOT_AUTHORIZED/, path);
  assert.match(await ask("/headers%2f..%2fadmin", reader), /^HTTP\/1\.1 400 [^]*AMBIGUOUS_PATH/);
});

test("an issuer rotates its keys without a failed request, and its server may go away", async () => {
  mesh.remove("admins.yaml");
  mesh.write("jwt.yaml", policy("required: { all: true }"));
  await until("the policy", async () => await ask("/headers", null), /^HTTP\/1\.1 401 /);
  const second = await generateKeyPair("ES256", { extractable: true });
  const old = await sign();
  const statuses = new Map<string, number>();
  let isOver = false;
  const traffic = (async () => {
    while (!isOver) {
      const answer = await ask("/headers", old);
      const status = answer.startsWith("HTTP/1.1 200 ") ? "200" : answer;
      statuses.set(status, (statuses.get(status) ?? 0) + 1);
    }
  })();
  await publish(
    { ...(await exportJWK(first.publicKey)), kid: "first" },
    { ...(await exportJWK(second.publicKey)), kid: "second" },
  );
  const fresh = await sign({ sub: "bob" }, { kid: "second" }, second);
  await until(
    "the new key",
    async () => await ask("/headers", fresh),
    /^HTTP\/1\.1 200 [^]*x-user: bob/i,
    90_000,
  );
  mesh.remove("keys.yaml");
  await mesh.until("the key set server is gone", async () => {
    const { pods } = await mesh.status();
    return !pods.some(({ name }) => name.startsWith("keys"));
  });
  assert.match(
    await ask("/headers", await sign({ sub: "eve" }, { kid: "second" }, second)),
    /^HTTP\/1\.1 200 /,
  );
  isOver = true;
  await traffic;
  assert.deepEqual([...statuses.keys()], ["200"], JSON.stringify([...statuses]));
});
