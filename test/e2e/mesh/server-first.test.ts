/**
 * Protocols in which the server speaks first, on ports that say nothing: through the mesh its first bytes come at most
 * 50 ms later than directly, at p99 of 100 connections. Cold: each goes to a port that no sidecar has seen before. Warm:
 * all go to the same one. Before each connection through the mesh the same client opens one past it, so that both
 * meet the same machine. The figures are printed.
 */
import assert from "node:assert/strict";
import { existsSync, readFileSync } from "node:fs";
import { after, before, describe, test, type TestContext } from "node:test";
import { Mesh, NAMESPACE, workload } from "./mesh.ts";

const FIXTURES = "/.pillion/mesh/test/e2e/mesh/fixtures";
const EXTRA_MS = 50;
const CONNECTIONS = 100;
/**
 * A run that goes over is done again; cold with new pods. The p99 of so few is the second slowest, which any two pauses of the machine below
 * this one make, and no pressure tells of those. Whoever goes over in every run, and in one on a quiet machine, has failed.
 */
const RUNS_MAX = 3;
/**
 * A p99 of wall time says more of the machine than of the mesh where others keep its processors busy: so much of the time
 * something may have waited for one (/proc/pressure/cpu); about a fifth comes from the test itself.
 */
const WAITING_SHARE_MAX = 0.4;

/** All runs together; on a machine that is so busy that this does not suffice, the rest is skipped. */
const MEASURING_MS = 150_000;

const OUTSIDE = { "linkerd.io/inject": "disabled" };
/** Of the servers out of the mesh; the client's sidecar is told to leave them alone. */
const DIRECT_PORTS = { mysql: 13_999, smtp: 12_999, postgres: 15_432 } as const;
const FIRST_PORTS = { mysql: 13_000, smtp: 12_000, postgres: 15_000 } as const;
type Kind = keyof typeof FIRST_PORTS;
const KINDS = Object.keys(FIRST_PORTS) as Kind[];

const WAYS = [
  { name: "meshed → meshed", client: "client", server: "in" },
  { name: "meshed → unmeshed", client: "client", server: "out" },
  { name: "unmeshed → meshed", client: "stranger", server: "in" },
] as const;

interface Samples {
  readonly directMs: readonly number[];
  readonly meshMs: readonly number[];
}

describe("servers that speak first", () => {
  const mesh = new Mesh("server-first");
  const outsideIps = new Map<Kind, string>();
  let endMs = 0;

  before(async () => {
    mesh.write("namespace.yaml", NAMESPACE);
    for (const [place, annotations] of [
      ["in", {}],
      ["out", OUTSIDE],
    ] as const) {
      for (const kind of KINDS) {
        const first = FIRST_PORTS[kind];
        const isPostgres = kind === "postgres";
        mesh.write(
          `${kind}-${place}.yaml`,
          workload({
            name: `${kind}-${place}`,
            command: isPostgres
              ? ["sh", "-c", POSTGRES]
              : [
                  "node",
                  `${FIXTURES}/server-first-server.js`,
                  kind,
                  String(DIRECT_PORTS[kind]),
                  String(first),
                  String(CONNECTIONS + 1),
                ],
            ports: servicePorts(first, (port) => (isPostgres ? DIRECT_PORTS.postgres : port)),
            readyPort: DIRECT_PORTS[kind],
            annotations,
            ...(isPostgres
              ? { podExtra: "      securityContext: { runAsUser: 65534, runAsGroup: 65534 }" }
              : {}),
          }),
        );
      }
    }
    const direct = { "config.linkerd.io/skip-outbound-ports": Object.values(DIRECT_PORTS).join(",") };
    mesh.write(
      "client.yaml",
      workload({ name: "client", command: ["sleep", "100000"], annotations: direct }),
    );
    mesh.write(
      "stranger.yaml",
      workload({ name: "stranger", command: ["sleep", "100000"], annotations: OUTSIDE }),
    );
    await mesh.up("--timeout", "90");
    endMs = performance.now() + MEASURING_MS;
    for (const kind of KINDS) outsideIps.set(kind, (await mesh.pod(`${kind}-out`)).ip);
  });
  after(async () => await mesh.close());

  async function measure(
    client: string,
    kind: Kind,
    host: string,
    port: number,
    count: number,
    step: 0 | 1,
    quietMs: number,
  ): Promise<Samples> {
    const args = [outsideIps.get(kind), DIRECT_PORTS[kind], host, port, count, step, quietMs].map(String);
    const { stdout, stderr } = await mesh.exec(
      client,
      "node",
      `${FIXTURES}/server-first-client.js`,
      kind,
      ...args,
    );
    const samples = JSON.parse(stdout || `{"directMs":[],"meshMs":[]}`) as Samples;
    assert.equal(samples.meshMs.length, count, stderr);
    return samples;
  }

  /** Passes when a run stays below the bound. A machine that was too busy for a figure in every run, or for one more, skips the test. */
  async function holds(
    t: TestContext,
    run: () => Promise<Samples>,
    renew: () => Promise<void>,
  ): Promise<void> {
    const extras: string[] = [];
    const quietExtras: string[] = [];
    for (let runs = 0; runs < RUNS_MAX && performance.now() < endMs; runs++) {
      if (runs > 0) await renew();
      const waitedBefore = waitedForCpuMs();
      const startedMs = performance.now();
      const { directMs, meshMs } = await run();
      const waitingShare = (waitedForCpuMs() - waitedBefore) / (performance.now() - startedMs);
      const extraMs = quantile(meshMs, 0.99) - quantile(directMs, 0.99);
      const figures = [0.5, 0.99]
        .map(
          (at) =>
            `p${at * 100} ${quantile(meshMs, at).toFixed(1)} ms (direct ${quantile(directMs, at).toFixed(1)})`,
        )
        .join(", ");
      console.log(
        `${t.name}: ${figures}; extra at p99 ${extraMs.toFixed(1)} ms; processors waited for ${(waitingShare * 100).toFixed(0)} % of the time`,
      );
      if (extraMs < EXTRA_MS) return;
      extras.push(extraMs.toFixed(1));
      if (waitingShare < WAITING_SHARE_MAX) quietExtras.push(extraMs.toFixed(1));
    }
    assert.deepEqual(quietExtras, [], `of ${extras.join(", ")} ms extra at p99 these on a quiet machine`);
    t.skip(
      `optional: other work kept the processors busy, which says nothing of the mesh (ms extra: ${extras.join(", ") || "no time was left to measure"})`,
    );
  }

  /** Sidecars that remember nothing. */
  async function renewPods(...names: string[]): Promise<void> {
    for (const name of names) {
      const { code, stderr } = await mesh.pillion("rollout", "restart", `deployment/${name}`, "-n", "test");
      assert.equal(code, 0, stderr);
    }
  }

  for (const kind of KINDS) {
    for (const { name, client, server } of WAYS) {
      const host = `${kind}-${server}`;
      const first = FIRST_PORTS[kind];
      test(`${kind}, ${name}, cold: below ${EXTRA_MS} ms extra at p99`, async (t) => {
        const meshed = [...(client === "client" ? ["client"] : []), ...(server === "in" ? [host] : [])];
        await holds(
          t,
          async () => await measure(client, kind, host, first + 1, CONNECTIONS, 1, 0),
          async () => await renewPods(...meshed),
        );
      });
      test(`${kind}, ${name}, warm: below ${EXTRA_MS} ms extra at p99`, async (t) => {
        await holds(
          t,
          async () => await measure(client, kind, host, first, CONNECTIONS, 0, 0),
          async () => undefined,
        );
      });
    }
  }

  test("a client that is quiet for a while and then starts a PostgreSQL session loses nothing by it", async (t) => {
    const after300Ms = async (client: string, server: string): Promise<Samples> =>
      await measure(client, "postgres", `postgres-${server}`, FIRST_PORTS.postgres, 5, 0, 300);
    for (const { client, server } of WAYS)
      await holds(
        t,
        async () => await after300Ms(client, server),
        async () => undefined,
      );
  });

  test("a client that is quiet for longer than detection takes is served all the same", async () => {
    await Promise.all(
      WAYS.map(
        async ({ client, server }) =>
          await measure(client, "postgres", `postgres-${server}`, FIRST_PORTS.postgres, 1, 0, 10_500),
      ),
    );
  });

  test("nothing of it was taken for HTTP", async () => {
    for (const name of ["client", "mysql-in", "smtp-in", "postgres-in"]) {
      assert.equal(await mesh.metric(await mesh.pod(name), "request_total"), 0, name);
    }
  });
});

const POSTGRES = `B=$(ls -d /usr/lib/postgresql/*/bin)
$B/initdb -D /tmp/d -U postgres -A trust >/dev/null
echo "host all all 0.0.0.0/0 trust" >/tmp/hba.conf
exec $B/postgres -D /tmp/d -p ${DIRECT_PORTS.postgres} -c listen_addresses='*' -c unix_socket_directories=/tmp -c hba_file=/tmp/hba.conf`;

/** How long, since boot, some process was ready to run and had no processor. 0 where the kernel does not say. */
function waitedForCpuMs(): number {
  const file = "/proc/pressure/cpu";
  const total = existsSync(file) ? /^some .*total=(\d+)/.exec(readFileSync(file, "utf8"))?.[1] : undefined;
  return Number(total ?? 0) / 1000;
}

/** Service ports whose names say nothing: the warm one, then the cold ones. */
function servicePorts(
  first: number,
  target: (port: number) => number,
): Record<string, readonly [number, number]> {
  return Object.fromEntries(
    Array.from({ length: CONNECTIONS + 1 }, (_, i) => [`p${i}`, [first + i, target(first + i)] as const]),
  );
}

/** Nearest rank. */
function quantile(samples: readonly number[], at: number): number {
  return samples.toSorted((a, b) => a - b)[Math.ceil(samples.length * at) - 1] as number;
}
