/** What leaves the mesh is held to allow-lists by address, host and server name, audited or denied with the policy's name. */
import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { fileURLToPath } from "node:url";
import type { PodStatus } from "#/model/pod-plan.ts";
import { Mesh, NAMESPACE, workload } from "./mesh.ts";

const SERVER = fileURLToPath(new URL("fixtures/outside-server.js", import.meta.url));
const NEAR = "192.0.2.10";
const FAR = "198.51.100.10";

const KEYS = ["-keyout", "out.key", "-out", "out.pem"];

const mesh = new Mesh("egress");
let client: PodStatus;

function policy(spec: string): string {
  return `apiVersion: pillion.dev/v1alpha1
kind: EgressPolicy
metadata: { name: out, namespace: test }
spec: ${spec}
`;
}

before(async () => {
  const openssl = (...args: string[]): void =>
    void execFileSync("openssl", args, { cwd: mesh.dir, stdio: ["ignore", "ignore", "pipe"] });
  const subject = ["-subj", "/CN=outside", "-addext", "subjectAltName=DNS:api.example"];
  openssl(
    "req",
    "-x509",
    "-newkey",
    "ec",
    "-pkeyopt",
    "ec_paramgen_curve:prime256v1",
    "-nodes",
    ...KEYS,
    ...subject,
  );
  for (const ip of [NEAR, FAR]) await mesh.run("ip", "address", "add", `${ip}/32`, "dev", "lo");
  const server = mesh.spawn(
    process.execPath,
    SERVER,
    ...["out.key", "out.pem"].map((name) => join(mesh.dir, name)),
  );
  let said = "";
  server.stdout?.setEncoding("utf8").on("data", (text: string) => (said += text));
  mesh.write("a.yaml", NAMESPACE);
  mesh.write("client.yaml", workload({ name: "client", command: ["sleep", "1000"] }));
  mesh.write("other.yaml", workload({ name: "other", command: ["sleep", "1000"] }));
  await mesh.up();
  client = await mesh.pod("client");
  await mesh.until("the server outside is up", async () => await Promise.resolve(said.includes("ready")));
});
after(() => mesh.close());

/** An answer's status and body; "failed" for a connection that was cut. */
async function http(host: string, ip: string, pod = "client"): Promise<string> {
  const at = ["--resolve", `${host}:8000:${ip}`, `http://${host}:8000/`];
  const { code, stdout } = await mesh.exec(
    pod,
    "curl",
    "-s",
    "--max-time",
    "20",
    "-w",
    "%{http_code}",
    ...at,
  );
  return code === 0 ? stdout.trim() : "failed";
}

async function tls(host: string, ip: string): Promise<string> {
  const at = ["--resolve", `${host}:8443:${ip}`, `https://${host}:8443/`];
  const { code, stdout } = await mesh.exec(
    "client",
    "curl",
    "-sk",
    "--max-time",
    "20",
    "-w",
    "%{http_code}",
    ...at,
  );
  return code === 0 ? stdout.trim() : "failed";
}

/** Waits until what is written counts for the client. */
async function apply(spec: string, isThere: () => Promise<boolean>): Promise<void> {
  mesh.write("egress.yaml", policy(spec));
  await mesh.until(`the sidecar goes by ${spec}`, isThere);
}

test("without a policy everything passes, and is counted by host and by server name", async () => {
  assert.equal(await http("api.example", NEAR), "http api.example:8000\n200");
  assert.equal(await tls("api.example", NEAR), "tls api.example api.example:8443\n200");
  const named = { host: "api.example", target_port: "8000" };
  assert.equal(await mesh.metric(client, "pillion_egress_requests_total", named), 1);
  assert.equal(
    await mesh.metric(client, "pillion_passed_tls_connections_total", { server_name: "api.example" }),
    1,
  );
});

test("an audit lets everything through, counts and logs what a deny would refuse", async () => {
  const wouldDeny = { policy_name: "out", verdict: "would_deny" };
  const count = async (protocol: string): Promise<number> =>
    await mesh.metric(client, "pillion_egress_policy_total", { ...wouldDeny, protocol });
  await apply("{ mode: Audit, allow: [{ hosts: [api.example] }] }", async () => {
    assert.equal(await http("bad.example", NEAR), "http bad.example:8000\n200");
    return (await count("http")) > 0;
  });
  const before = await count("http");
  assert.equal(await http("api.example", NEAR), "http api.example:8000\n200");
  assert.equal(await count("http"), before);
  assert.equal(await tls("bad.example", NEAR), "tls bad.example bad.example:8443\n200");
  assert.equal(await count("tcp"), 1);
  assert.equal(await tls("api.example", NEAR), "tls api.example api.example:8443\n200");
  assert.equal(await count("tcp"), 1);
  const log = await mesh.log("client", "pillion-sidecar");
  assert.match(log, /would be denied.*EgressPolicy\/test\/out.*192\.0\.2\.10:8000.*bad\.example/);
  assert.match(log, /would be denied.*EgressPolicy\/test\/out.*192\.0\.2\.10:8443.*bad\.example/);
});

test("a deny by address answers requests with 403 and the policy's name, and cuts other connections", async () => {
  await apply(
    "{ mode: Deny, selector: { matchLabels: { app: client } }, allow: [{ cidrs: [192.0.2.0/24] }] }",
    async () => (await http("api.example", FAR)).endsWith("403"),
  );
  const refused = await http("api.example", FAR);
  assert.match(refused, /egress to 198\.51\.100\.10:8000 is denied.*EgressPolicy\/test\/out/s);
  assert.match(refused, /FORBIDDEN_TARGET/);
  const passed = await mesh.metric(client, "pillion_passed_tls_connections_total");
  assert.equal(await tls("api.example", FAR), "failed");
  assert.equal(await mesh.metric(client, "pillion_passed_tls_connections_total"), passed);
  assert.equal(await http("any.example", NEAR), "http any.example:8000\n200");
  assert.equal(await tls("any.example", NEAR), "tls any.example any.example:8443\n200");
  const denied = { policy_name: "out", verdict: "deny", protocol: "tcp" };
  assert.equal(await mesh.metric(client, "pillion_egress_policy_total", denied), 1);
  assert.equal(
    await mesh.metric(client, "outbound_tcp_errors_total", {
      target_addr: `${FAR}:8443`,
      error: "forbidden",
    }),
    1,
  );
  assert.match(
    await mesh.log("client", "pillion-sidecar"),
    /outbound connection refused.*forbidden.*egress to 198\.51\.100\.10:8443.*EgressPolicy\/test\/out.*api\.example/,
  );
  assert.equal(await http("api.example", FAR, "other"), "http api.example:8000\n200", "another workload");
});

test("a deny by host holds for requests by Host and for TLS by server name, wildcards included", async () => {
  await apply("{ mode: Deny, allow: [{ hosts: [api.example, '*.good.example'] }] }", async () =>
    (await http("any.example", NEAR)).endsWith("403"),
  );
  for (const [host, passes] of [
    ["api.example", true],
    ["x.y.good.example", true],
    ["good.example", false],
    ["bad.example", false],
  ] as const) {
    const plain = await http(host, FAR);
    if (passes) assert.equal(plain, `http ${host}:8000\n200`);
    else assert.match(plain, /EgressPolicy\/test\/out.*403$/s);
    assert.equal(await tls(host, FAR), passes ? `tls ${host} ${host}:8443\n200` : "failed", host);
  }
  assert.match((await mesh.pillion("get", "egresspolicy")).stdout, /^test +out +.*yes/m);
});

test("without the policy everything passes again", async () => {
  mesh.remove("egress.yaml");
  await mesh.until("all passes", async () => (await http("bad.example", FAR)).endsWith("200"));
  assert.equal(await tls("bad.example", FAR), "tls bad.example bad.example:8443\n200");
});
