import assert from "node:assert/strict";
import { after, before, describe, test } from "node:test";
import { Mesh, NAMESPACE, workload } from "./mesh.ts";

const FIXTURES = "/.pillion/mesh/test/e2e/mesh/fixtures";

const NGINX = `
daemon off; user root; pid /tmp/nginx.pid; error_log stderr; worker_processes 1;
events { worker_connections 512; }
http {
  access_log /dev/stdout; client_max_body_size 100m;
  client_body_temp_path /tmp/body; proxy_temp_path /tmp/proxy; fastcgi_temp_path /tmp/f; uwsgi_temp_path /tmp/u; scgi_temp_path /tmp/s;
  server { listen 8080; location / { return 200 "hello from nginx, $request_method $server_protocol\\n"; } location /files/ { alias /tmp/files/; } }
  server { listen 8082 http2; location / { return 200 "hello over $server_protocol\\n"; } }
}
`;

/** Names of tests that a mode cannot pass, with the reason; printed by the run. */
export type Exclusions = Readonly<Record<string, string>>;

/**
 * Real programs that nobody here wrote, unmodified, as workloads and as clients, through the mesh in one mode of
 * interception. What the sidecars say of it is checked too: that it went by mTLS, and as which protocol.
 */
export function realPrograms(intercept: "ebpf" | "nftables" | "explicit", exclusions: Exclusions = {}): void {
  describe(`real programs, interception by ${intercept}`, () => {
    const mesh = new Mesh(`real-${intercept}`);
    const it = (name: string, body: () => Promise<void>): void => {
      const reason = exclusions[name];
      // Left out, not skipped: the list is part of what this mode promises (docs/transparency.md).
      if (reason !== undefined) console.log(`left out under ${intercept}: ${name}: ${reason}`);
      else test(name, body);
    };

    before(async () => {
      mesh.write("namespace.yaml", NAMESPACE);
      mesh.write(
        "nginx.yaml",
        `apiVersion: v1
kind: ConfigMap
metadata: { name: nginx, namespace: test }
data:
  nginx.conf: ${JSON.stringify(NGINX)}
---
${workload({
  name: "nginx",
  command: [
    "sh",
    "-c",
    "mkdir -p /tmp/files && head -c 10000000 /dev/urandom >/tmp/files/big && exec nginx -c /run/conf/nginx.conf",
  ],
  replicas: 2,
  ports: { web: [80, 8080], h2: [8082, 8082] },
  readyPort: 8080,
  podExtra: `      volumes: [{ name: conf, configMap: { name: nginx } }]`,
  containerExtra: `          volumeMounts: [{ name: conf, mountPath: /run/conf }]`,
})}`,
      );
      mesh.write(
        "redis.yaml",
        workload({
          name: "redis",
          command: [
            "redis-server",
            "--port",
            "6379",
            "--protected-mode",
            "no",
            "--save",
            "",
            "--dir",
            "/tmp",
          ],
          ports: { redis: [6379, 6379] },
          readyPort: 6379,
        }),
      );
      mesh.write(
        "postgres.yaml",
        workload({
          name: "postgres",
          command: [
            "sh",
            "-c",
            "B=$(ls -d /usr/lib/postgresql/*/bin) && $B/initdb -D /tmp/d -U postgres -A trust >/dev/null && exec $B/postgres -D /tmp/d -c listen_addresses='*' -c unix_socket_directories=/tmp -c hba_file=/tmp/hba.conf",
          ],
          ports: { postgres: [5432, 5432] },
          readyPort: 5432,
          podExtra: `      securityContext: { runAsUser: 65534, runAsGroup: 65534 }\n      initContainers: []`,
        })
          .replace("initdb -D /tmp/d", "initdb -D /tmp/d")
          .replace(
            "exec $B/postgres",
            "printf 'host all all 0.0.0.0/0 trust\\\\n' >/tmp/hba.conf && exec $B/postgres",
          ),
      );
      mesh.write(
        "grpc.yaml",
        workload({
          name: "grpc",
          command: ["node", `${FIXTURES}/grpc-server.js`, "7000"],
          ports: { main: [7000, 7000] },
          readyPort: 7000,
          replicas: 2,
        }),
      );
      mesh.write("client.yaml", workload({ name: "client", command: ["sleep", "100000"] }));
      const status = await mesh.up(`--intercept=${intercept}`, "--timeout", "90");
      assert.equal(status.node.intercept, intercept);
      assert.ok(status.pods.every((pod) => pod.sidecar?.ready));
    });
    after(async () => await mesh.close());

    /** How many requests or connections of `client` a workload's sidecars have seen by mTLS. */
    const seenByMtls = async (
      workloadName: string,
      name: string,
      labels: Record<string, string> = {},
    ): Promise<number> => {
      const { pods } = await mesh.status();
      let sum = 0;
      for (const pod of pods.filter((each) => each.owner.endsWith(`/${workloadName}`))) {
        sum += await mesh.metric(pod, name, {
          direction: "inbound",
          tls: "true",
          client_id: "client.test.serviceaccount.identity.pillion.cluster.local",
          ...labels,
        });
      }
      return sum;
    };

    it("curl speaks HTTP/1.0 and HTTP/1.1 to nginx", async () => {
      for (const [option, version] of [
        ["--http1.0", "HTTP/1.0"],
        ["--http1.1", "HTTP/1.1"],
      ] as const) {
        const { stdout, stderr } = await mesh.exec("client", "curl", "-sS", option, "http://nginx/");
        assert.equal(stdout, `hello from nginx, GET ${version}\n`, stderr);
      }
      const before_ = await seenByMtls("nginx", "request_total");
      const names = await mesh.exec(
        "client",
        "sh",
        "-c",
        "for h in nginx nginx.test nginx.test.svc nginx.test.svc.cluster.local; do curl -sS -o /dev/null -w '%{http_code} ' http://$h/; done",
      );
      assert.equal(names.stdout, "200 200 200 200 ");
      assert.equal((await seenByMtls("nginx", "request_total")) - before_, 4);
    });

    it("curl speaks HTTP/2 with prior knowledge to nginx", async () => {
      const { stdout, stderr } = await mesh.exec(
        "client",
        "curl",
        "-sS",
        "--http2-prior-knowledge",
        "http://nginx:8082/",
      );
      assert.equal(stdout, "hello over HTTP/2.0\n", stderr);
    });

    it("HEAD, POST and 10 MB both ways arrive whole", async () => {
      const script = `set -e
curl -sS -I http://nginx/ | head -1
head -c 10000000 /dev/urandom >/tmp/up
curl -sS -o /dev/null -w '%{http_code}\\n' --data-binary @/tmp/up http://nginx/
curl -sS http://nginx/files/big >/tmp/down; curl -sS http://nginx/files/big | wc -c; wc -c </tmp/down`;
      const { stdout, stderr } = await mesh.exec("client", "sh", "-c", script);
      assert.equal(stdout.replaceAll("\r", ""), "HTTP/1.1 200 OK\n200\n10000000\n10000000\n", stderr);
    });

    it("redis-cli and redis-benchmark", async () => {
      const set = await mesh.exec(
        "client",
        "sh",
        "-c",
        "redis-cli -h redis set k v && redis-cli -h redis get k && redis-cli -h redis --pipe <<E\nSET a 1\nSET b 2\nE",
      );
      assert.match(set.stdout, /^OK\nv\n[^]*errors: 0, replies: 2/, set.stderr);
      const load = await mesh.exec(
        "client",
        "redis-benchmark",
        "-h",
        "redis",
        "-n",
        "4000",
        "-c",
        "20",
        "-t",
        "set,get,lpush",
        "--csv",
      );
      assert.equal(
        load.stdout.split("\n").filter((line) => /^"(SET|GET|LPUSH)","\d/.test(line)).length,
        3,
        load.stdout + load.stderr,
      );
      assert.ok((await seenByMtls("redis", "tcp_open_total", { peer: "src" })) >= 20);
    });

    it("psql and pgbench", async () => {
      const select = await mesh.exec(
        "client",
        "psql",
        "-h",
        "postgres",
        "-U",
        "postgres",
        "-Atc",
        "select 6*7",
      );
      assert.equal(select.stdout, "42\n", select.stderr);
      const bench = await mesh.exec(
        "client",
        "sh",
        "-c",
        "B=$(ls -d /usr/lib/postgresql/*/bin); $B/pgbench -h postgres -U postgres -i -s 1 -q postgres && $B/pgbench -h postgres -U postgres -n -c 4 -T 2 postgres",
      );
      assert.equal(bench.code, 0, bench.stderr);
      assert.match(bench.stdout, /number of failed transactions: 0 /);
    });

    it("a gRPC library's client and server, on a port that says nothing", async () => {
      const { stdout, stderr } = await mesh.exec("client", "node", `${FIXTURES}/grpc-client.js`, "grpc:7000");
      assert.deepEqual(
        JSON.parse(stdout || "null"),
        { unary: "hello", large: true, concurrent: true, stream: 20, failure: [9, "as asked, with ümlaut"] },
        stderr,
      );
      const { pods } = await mesh.status();
      for (const pod of pods.filter((each) => each.owner.endsWith("/grpc"))) {
        const requests = await mesh.metric(pod, "request_total", { direction: "inbound", tls: "true" });
        // How many is the balancer's to say, which prefers the quicker of two.
        assert.notEqual(requests, 0, `${pod.name} got none of the calls of one connection`);
      }
    });
  });
}
