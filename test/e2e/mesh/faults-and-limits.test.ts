import assert from "node:assert/strict";
import { test } from "node:test";
import { Mesh, NAMESPACE, workload, type Run } from "./mesh.ts";

const FIXTURES = "/.pillion/mesh/test/e2e/mesh/fixtures";

function faults(list: string): string {
  return `apiVersion: pillion.dev/v1alpha1
kind: FaultPolicy
metadata: { name: drill, namespace: test }
spec:
  targetRefs: [{ group: "", kind: Service, name: web }]
  from: [{ namespace: test, serviceAccount: client }]
  faults: ${list}
`;
}

function limits(spec: string): string {
  return `apiVersion: pillion.dev/v1alpha1
kind: RateLimitPolicy
metadata: { name: web, namespace: test }
spec:
  targetRefs: [{ group: "", kind: Service, name: web }]
  ${spec}
`;
}

test("faults and limits of the folder's policies reach real sidecars as they are written, and go when they are removed", async (t) => {
  const mesh = new Mesh("faults");
  try {
    mesh.write("namespace.yaml", NAMESPACE);
    mesh.write(
      "web.yaml",
      workload({
        name: "web",
        command: ["node", `${FIXTURES}/server.ts`],
        ports: { http: [80, 8080] },
        readyPort: 8080,
      }),
    );
    for (const name of ["client", "other"])
      mesh.write(`${name}.yaml`, workload({ name, command: ["sleep", "infinity"] }));
    await mesh.up();
    const client = (await mesh.pod("client")).name;
    const other = (await mesh.pod("other")).name;
    /** "STATUS SECONDS BODY", with the exit code of curl. */
    const ask = async (from: string, path = "/", ...args: string[]): Promise<Run> =>
      await mesh.exec(
        from,
        "curl",
        "-s",
        "--max-time",
        "20",
        "-w",
        "\n%{http_code} %{time_total}",
        ...args,
        `http://web${path}`,
      );
    const until = async (
      what: string,
      holds: (run: Run) => boolean,
      from = client,
      path = "/",
    ): Promise<Run> =>
      await mesh.until(what, async () => {
        const run = await ask(from, path);
        return holds(run) && run;
      });
    const isPlain = ({ code, stdout }: Run): boolean => code === 0 && /\n200 0\./.test(stdout);
    await until("the service", isPlain);
    await until("the service", isPlain, other);

    mesh.write("faults.yaml", faults('[{ abort: { httpStatus: 418, message: "a drill" } }]'));
    const aborted = await until("the abort", ({ stdout }) => /\n418 /.test(stdout));
    assert.match(
      aborted.stdout,
      /client's sidecar \(client-.*a drill \[FaultPolicy\/test\/drill\].*\(FAULT_INJECTED\)/,
    );
    assert.match((await ask(other)).stdout, /\n200 /, "a client that the policy does not name is spared");

    mesh.write(
      "faults.yaml",
      faults('[{ headers: [{ name: x-test, value: "yes" }], reset: {} }, { delay: { duration: 1500ms } }]'),
    );
    const delayed = await until("the delay", ({ stdout }) => /\n200 1\.[5-9]|\n200 [2-9]/.test(stdout));
    t.diagnostic(`delayed: ${delayed.stdout.split("\n").at(-1)}`);
    const cut = await ask(client, "/", "-H", "x-test: yes");
    // 52: the server gave no answer; 56: the connection was reset.
    assert.ok([52, 56].includes(cut.code), `${cut.code} ${cut.stdout}`);

    mesh.write("faults.yaml", faults("[{ bandwidth: { bytesPerSecond: 20000 } }]"));
    const paced = await until(
      "the pace",
      ({ code, stdout }) => code === 0 && Number(stdout.split(" ").at(-1)) >= 1.9,
      client,
      "/?bytes=40000",
    );
    t.diagnostic(`40,000 bytes at 20,000/s: ${paced.stdout.split("\n").at(-1)}`);
    assert.equal(paced.stdout.indexOf("\n"), 40_000);

    mesh.write("faults.yaml", faults("[{ slowClose: { duration: 1s } }]"));
    await until("the late end", ({ stdout }) => /\n200 [1-9]/.test(stdout));
    mesh.remove("faults.yaml");
    await until("no fault", isPlain);

    // So long a window that no other request comes due before all have been asked.
    mesh.write("limits.yaml", limits("rates: [{ requests: 3, window: 600s, per: { identity: true } }]"));
    const limited = await until("the limit", ({ stdout }) => /\n429 /.test(stdout));
    assert.match(
      limited.stdout,
      /server's sidecar \(web-.*more than 3 requests in 600 s of this client \[RateLimitPolicy\/test\/web\].*\(RATE_LIMITED\)/,
    );
    assert.match((await ask(other)).stdout, /\n200 /, "each client has its own count");
    const retryAfter = await mesh.exec(client, "curl", "-s", "-D-", "-o/dev/null", "http://web/");
    assert.match(retryAfter.stdout, /\r\nretry-after: (?:1?\d?\d|200)\r\n/i);
    const web = await mesh.pod("web");
    const counted = await mesh.metric(web, "inbound_http_local_ratelimit_total", {
      ratelimit_kind: "RateLimitPolicy",
      ratelimit_name: "web",
      ratelimit_scope: "identity",
    });
    assert.ok(counted >= 2, String(counted));
    assert.equal((await mesh.status()).pods.find(({ uid }) => uid === web.uid)?.phase, web.phase);

    mesh.write("limits.yaml", limits("concurrency: { min: 1, max: 1, priorityHeader: x-priority }"));
    await until("no rate limit", isPlain);
    // Whoever comes first is served: it asks again until that is this one.
    const slow = ask(client, "/?ms=6000", "--retry", "20", "--retry-delay", "1");
    const shed = await until("the shedding", ({ stdout }) => /\n503 /.test(stdout), other);
    assert.match(shed.stdout, /1 requests are under way.*\[RateLimitPolicy\/test\/web\].*\(SHED\)/);
    assert.match((await slow).stdout, /\n200 /);
    mesh.remove("limits.yaml");
    await until("no limit", isPlain);
  } finally {
    await mesh.close();
  }
});
