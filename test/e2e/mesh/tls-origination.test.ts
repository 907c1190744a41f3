/** Routes send to services outside by XBackends: resolved by the control plane, in TLS that the client's sidecar begins and verifies. */
import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { fileURLToPath } from "node:url";
import { Mesh, NAMESPACE, workload } from "./mesh.ts";

const FIXTURES = fileURLToPath(new URL("fixtures/", import.meta.url));
const OUTSIDE = "192.0.2.10";

const mesh = new Mesh("origination");

/** A Service whose requests a route sends to an XBackend of the same name. */
function outside(name: string, hostname: string, port: number, more = ""): string {
  return `apiVersion: v1
kind: Service
metadata: { name: ${name}, namespace: test }
spec: { ports: [{ name: http, port: 80 }] }
---
apiVersion: gateway.networking.x-k8s.io/v1alpha1
kind: XBackend
metadata: { name: ${name}, namespace: test }
spec:
  type: ExternalHostname
  externalHostname: { hostname: ${hostname} }
  port: { port: ${port} }
  ${more}
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: { name: ${name}, namespace: test }
spec:
  parentRefs: [{ group: "", kind: Service, name: ${name} }]
  rules: [{ backendRefs: [{ group: gateway.networking.x-k8s.io, kind: XBackend, name: ${name}, port: ${port} }] }]
`;
}

function tls(hostname: string, roots: string): string {
  return `tls: { mode: ServerOnly, validation: { hostname: ${hostname}, ${roots} } }`;
}

const ca = (name: string): string => `caCertificateRefs: [{ group: "", kind: ConfigMap, name: ${name} }]`;

function configMap(name: string): string {
  const pem = readFileSync(join(mesh.dir, `${name}.pem`), "utf8");
  return `apiVersion: v1
kind: ConfigMap
metadata: { name: ${name}, namespace: test }
data: { ca.crt: ${JSON.stringify(pem)} }
`;
}

before(async () => {
  for (const name of ["right", "other"]) {
    const key = [
      "-newkey",
      "ec",
      "-pkeyopt",
      "ec_paramgen_curve:prime256v1",
      "-nodes",
      "-keyout",
      `${name}.key`,
    ];
    const subject = ["-subj", `/CN=${name}`, "-addext", "subjectAltName=DNS:api.example"];
    execFileSync("openssl", ["req", "-x509", ...key, "-out", `${name}.pem`, ...subject], {
      cwd: mesh.dir,
      stdio: ["ignore", "ignore", "pipe"],
    });
  }
  const resolvConf = readFileSync("/etc/resolv.conf", "utf8");
  const resolver = /^nameserver\s+([0-9.]+)/m.exec(resolvConf)?.[1] ?? "127.0.0.1";
  for (const ip of [OUTSIDE, resolver]) await mesh.run("ip", "address", "add", `${ip}/32`, "dev", "lo");
  const ready = [
    ["outside-server.js", ...["right.key", "right.pem"].map((name) => join(mesh.dir, name))],
    ["names-server.js", resolver, `api.example=${OUTSIDE}`, `wrong.example=${OUTSIDE}`],
  ].map(async ([script, ...args]) => {
    const server = mesh.spawn(process.execPath, join(FIXTURES, script!), ...args);
    await new Promise((resolve) => server.stdout?.once("data", resolve));
  });
  await Promise.all(ready);
  mesh.write("a.yaml", NAMESPACE);
  mesh.write("client.yaml", workload({ name: "client", command: ["sleep", "1000"] }));
  mesh.write("ca.yaml", `${configMap("right")}---\n${configMap("other")}`);
  const objects = [
    outside("plain", "api.example", 8000),
    outside("secure", "api.example", 8443, tls("api.example", ca("right"))),
    outside("wrong-name", "wrong.example", 8443, tls("wrong.example", ca("right"))),
    outside("wrong-ca", "api.example", 8443, tls("api.example", ca("other"))),
    outside("system-ca", "api.example", 8443, tls("api.example", "wellKnownCACertificates: System")),
    outside("no-ca", "api.example", 8443, tls("api.example", ca("gone"))),
  ];
  mesh.write("outside.yaml", objects.join("---\n"));
  await mesh.up();
});
after(() => mesh.close());

async function curl(...args: string[]): Promise<string> {
  const { stdout } = await mesh.exec(
    "client",
    "curl",
    "-s",
    "--max-time",
    "20",
    "-w",
    "%{http_code}",
    ...args,
  );
  return stdout;
}

test("a route sends to a name outside, which the control plane resolves", async () => {
  await mesh.until("the name is resolved", async () => (await curl("http://plain/")).endsWith("200"));
  assert.equal(await curl("http://plain/"), "http plain\n200");
});

test("TLS to a server outside begins at the client's sidecar, in the version that the client speaks", async () => {
  assert.equal(await curl("http://secure/"), "tls api.example secure\n200");
  assert.equal(await curl("http://secure/version"), "1.1\n200");
  assert.equal(await curl("--http2-prior-knowledge", "http://secure/version"), "2.0\n200");
});

test("a server outside that cannot prove its name by the given roots is refused with the reason", async () => {
  for (const [name, reason, metric] of [
    ["wrong-name", /wrong\.example.*is not in the cert's altnames.*api\.example/s, "wrong_identity"],
    ["wrong-ca", /TLS with 192\.0\.2\.10:8443 failed: .*SELF_SIGNED/s, "self_signed"],
    ["system-ca", /TLS with 192\.0\.2\.10:8443 failed: .*SELF_SIGNED/s, "self_signed"],
  ] as const) {
    const client = await mesh.pod("client");
    const labels = { target_addr: `${OUTSIDE}:8443`, error: metric };
    const before = await mesh.metric(client, "outbound_tcp_errors_total", labels);
    const answer = await curl(`http://${name}/`);
    assert.match(answer, /50[234]$/, name);
    assert.match(answer, reason, name);
    assert.ok((await mesh.metric(client, "outbound_tcp_errors_total", labels)) > before, name);
  }
});

test("an XBackend that cannot be kept says so, and requests to it get an error", async () => {
  assert.match(await curl("http://no-ca/"), /500$/);
  const { stdout } = await mesh.pillion("get", "xbackend");
  assert.match(stdout, /^test +no-ca +.*no: InvalidCACertificateRef/m);
  assert.match(stdout, /^test +secure +.*yes/m);
});
