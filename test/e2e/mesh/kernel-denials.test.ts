import assert from "node:assert/strict";
import { after, before, describe, test } from "node:test";
import { Mesh, NAMESPACE, workload } from "./mesh.ts";

const ECHO =
  "import net from 'node:net'; net.createServer((s) => { s.on('error', () => {}); s.write('hello\\n'); s.pipe(s); }).listen(8080)";

for (const intercept of ["ebpf", "nftables"] as const)
  describe(`DENY by address at an opaque port, by ${intercept}`, () => {
    const mesh = new Mesh("deny");
    let server: string;

    before(async () => {
      mesh.write("a.yaml", NAMESPACE);
      const opaque = { "config.linkerd.io/opaque-ports": "8080" };
      mesh.write(
        "server.yaml",
        workload({
          name: "server",
          command: ["node", "--input-type=module", "-e", ECHO],
          ports: { tcp: [80, 8080] },
          annotations: opaque,
          containerExtra: "          ports: [{ containerPort: 8080 }]",
          readyPort: 8080,
        }),
      );
      for (const name of ["stranger", "other"])
        mesh.write(
          `${name}.yaml`,
          workload({ name, command: ["sleep", "1000"], annotations: { "linkerd.io/inject": "disabled" } }),
        );
      mesh.write("client.yaml", workload({ name: "client", command: ["sleep", "1000"] }));
      await mesh.up(`--intercept=${intercept}`);
      server = (await mesh.pod("server")).ip;
    });
    after(() => mesh.close());

    /** What a program in the pod gets: the greeting, or bash's word for why not. */
    const dial = async (from: string, host: string, port: number): Promise<string> => {
      const script = `exec 3<>/dev/tcp/${host}/${port} && IFS= read -r -t 10 line <&3 && echo "$line"`;
      const { stdout, stderr } = await mesh.exec(from, "bash", "-c", script);
      return stdout.trim() || (/(refused|reset|timed out)/i.exec(stderr)?.[1] ?? stderr);
    };
    /** What the sidecar has decided so far, but for the machine's probes, which come all the time. */
    const seenBySidecar = async (): Promise<string> =>
      (await mesh.run("curl", "-s", `http://${server}:4191/metrics`)).stdout
        .split("\n")
        .filter((line) => line.startsWith("inbound_tcp_authz") && !line.includes('authz_name="probe"'))
        .toSorted()
        .join("\n");
    const until = async (what: string, holds: () => Promise<boolean>): Promise<void> => {
      for (const endMs = Date.now() + 30_000; !(await holds());)
        assert.ok(Date.now() < endMs, `in vain: ${what}`);
    };

    test("is refused by the kernel, not known to the sidecar, counted, and undone with the policy", async () => {
      assert.equal(await dial("stranger", server, 8080), "hello");
      const address = (await mesh.pod("stranger")).ip;
      mesh.write(
        "deny.yaml",
        `apiVersion: pillion.dev/v1alpha1
kind: AuthorizationPolicy
metadata: { name: no-strangers, namespace: test }
spec:
  targetRefs: [{ group: "", kind: Pod, selector: { matchLabels: { app: server } } }]
  action: DENY
  rules: [{ sources: [{ type: CIDR, cidr: ${address}/32 }] }]
`,
      );
      await until("it is refused", async () => (await dial("stranger", server, 8080)) === "refused");
      const before = await seenBySidecar();
      for (let i = 0; i < 3; i++) assert.equal(await dial("stranger", server, 8080), "refused");
      assert.equal(await seenBySidecar(), before, "the sidecar has not heard of them");
      assert.equal(await dial("other", server, 8080), "hello", "another address");
      assert.equal(await dial("client", "server", 80), "hello", "a meshed client");
      assert.notEqual(await seenBySidecar(), before, "the control: what it serves it counts");
      assert.equal((await mesh.pod("server")).ready, true, "the machine's probe goes through");
      if (intercept === "ebpf") {
        const rows = JSON.parse((await mesh.pillion("stat", "--once", "-o", "json")).stdout) as {
          workload: string;
          kernelRefused: number;
        }[];
        assert.ok((rows.find((row) => row.workload === "server")?.kernelRefused ?? 0) >= 4);
      }
      mesh.remove("deny.yaml");
      await until("it is let in again", async () => (await dial("stranger", server, 8080)) === "hello");
    });
  });
