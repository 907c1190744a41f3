import assert from "node:assert/strict";
import { test } from "node:test";
import { service } from "./fixtures/scene.ts";
import { Mesh, workload, type Run } from "./mesh.ts";

/** Who is not let in by a policy is let in nowhere here. */
const NAMESPACE = `apiVersion: v1
kind: Namespace
metadata: { name: test, annotations: { config.linkerd.io/default-inbound-policy: deny } }
`;

function policy(name: string, action: string, rules: string, more = ""): string {
  return `apiVersion: pillion.dev/v1alpha1
kind: AuthorizationPolicy
metadata: { name: ${name}, namespace: test }
spec:
  targetRefs: [{ group: "", kind: Service, name: web }]
  action: ${action}
  ${more}
  rules: [${rules}]
`;
}

const CLIENT = "sources: [{ type: ServiceAccount, serviceAccount: { name: client } }]";
const READS = `{ name: reads, ${CLIENT}, requests: [{ methods: [GET], paths: [{ type: PathPrefix, value: /a }] }] }`;
const ECHO = `{ name: echo, ${CLIENT}, networkAttributes: { ports: [7000] } }`;
const SECRETS = "{ name: secrets, requests: [{ paths: [{ type: PathPrefix, value: /a/secret }] }] }";

/** Writes what comes back to the output, and asks again every so often, until the connection ends. */
const TALK = `
const socket = require("node:net").connect(7000, "web");
const timer = setInterval(() => socket.write("again\\n"), 100);
socket.on("data", (bytes) => process.stdout.write(bytes));
socket.on("error", (error) => process.stdout.write(error.code + "\\n"));
socket.on("close", () => { process.stdout.write("closed\\n"); clearInterval(timer); });
`;

test("policies say who may, and a change ends what is under way", async () => {
  const mesh = new Mesh("authorization");
  try {
    mesh.write("namespace.yaml", NAMESPACE);
    const probe = "          readinessProbe: { httpGet: { path: /ready, port: 8080 }, periodSeconds: 1 }";
    mesh.write("web.yaml", service("web", { containerExtra: probe }).replace(TCP_PROBE, ""));
    for (const name of ["client", "other"])
      mesh.write(`${name}.yaml`, workload({ name, command: ["sleep", "infinity"] }));
    // Nothing lets anybody in, and yet it becomes ready: by its probes, which are let in.
    await mesh.up();
    const client = (await mesh.pod("client")).name;
    const other = (await mesh.pod("other")).name;
    const ask = async (from: string, path: string, ...args: string[]): Promise<Run> =>
      await mesh.exec(
        from,
        "curl",
        "-s",
        "--max-time",
        "20",
        "-w",
        "\n%{http_code}",
        ...args,
        `http://web${path}`,
      );
    const status = async (from: string, path: string, ...args: string[]): Promise<string> =>
      (await ask(from, path, ...args)).stdout.split("\n").at(-1)!;
    const until = async (wanted: string, from: string, path: string): Promise<void> =>
      void (await mesh.until(`${wanted} for ${path}`, async () => (await status(from, path)) === wanted));
    await until("403", client, "/a");
    assert.match((await ask(client, "/a")).stdout, /default\/deny/);
    assert.equal(await status(client, "/ready"), "403", "the probe's path is the machine's alone");

    mesh.write("allow.yaml", policy("web", "ALLOW", `${READS}, ${ECHO}`));
    await until("200", client, "/a");
    assert.equal(await status(client, "/a", "-X", "POST"), "403");
    assert.equal(await status(client, "/b"), "403");
    assert.match((await ask(other, "/a")).stdout, /AuthorizationPolicy\/test\/web/);
    assert.equal(await status(other, "/a"), "403");

    mesh.write("deny.yaml", policy("secrets", "DENY", SECRETS));
    await until("403", client, "/a/secret");
    assert.match((await ask(client, "/a/secret")).stdout, /AuthorizationPolicy\/test\/secrets/);
    assert.equal(await status(client, "/a/./b/../secret", "--path-as-is"), "403", "however it is written");
    assert.equal(await status(client, "/a"), "200");

    mesh.write("deny.yaml", policy("secrets", "DENY", SECRETS, "mode: Audit"));
    await until("200", client, "/a/secret");
    const web = await mesh.pod("web");
    await mesh.until("the audit to be counted", async () => {
      await ask(client, "/a/secret");
      return (await mesh.metric(web, "pillion_inbound_authz_would_total", { verdict: "would_deny" })) > 0;
    });
    assert.match((await mesh.pillion("status")).stdout, /secrets .*audited, not enforced/);

    const talk = mesh.spawnIn(client, "node", "-e", TALK);
    let heard = "";
    talk.stdout!.setEncoding("utf8").on("data", (text: string) => (heard += text));
    await mesh.until("an echo", () => Promise.resolve(heard.includes("again")));
    const allowed = async (): Promise<number> => await mesh.metric(web, "inbound_http_authz_allow_total");
    const before = await allowed();
    const waiting = ask(client, "/a?ms=600000", "--max-time", "60");
    await mesh.until("the request to be let in", async () => (await allowed()) > before);
    mesh.remove("allow.yaml");
    await mesh.until("the connection to end", () => Promise.resolve(heard.includes("closed")));
    const ended = await waiting;
    assert.match(ended.stdout, /\n403$/, `${ended.code} ${ended.stdout}`);
    assert.equal((await mesh.pod("web")).ready, true);
  } finally {
    await mesh.close();
  }
});

/** `workload` writes one; this test has another. */
const TCP_PROBE = "\n          readinessProbe: { tcpSocket: { port: 8080 }, periodSeconds: 1 }";
