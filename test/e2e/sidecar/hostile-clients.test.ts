import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { after, before, describe, test } from "node:test";
import { memoryUsed } from "../../../bench/lib/process-cost.ts";
import { call, VIRTUAL_IP } from "../../soak/soak-case.ts";
import { cannotRun, Mesh, until, type Pod } from "./rig/mesh.ts";

const skip = cannotRun() ?? false;
const HTTP1_PORT = 8141;
const HTTP2_PORT = 8142;
const IDLE_PORT = 8143;
const CROWD = 5_000;
/** Time enough for every short limit below, at the pace of the patrol. */
const PATIENCE_MS = 15_000;
/** How long who reads nothing keeps its connection, if it is let. */
const STALL_MS = 6_000;
/** An idle sidecar, what 5,000 connections may cost it, and what no flood may go beyond. */
const RSS_MIB_MAX = 400;

/** Limits short enough to be met in a test; all others as they are. */
const LIMITS = {
  PILLION_HEAD_TIMEOUT: "2s",
  // Longer than the client's: what comes through both sidecars is the first one's to refuse.
  PILLION_BODY_TIMEOUT: "3s",
  PILLION_READER_TIMEOUT: "1s",
  PILLION_CONNECTIONS_PER_CLIENT_MAX: String(CROWD),
  PILLION_LOG: "info",
};

describe("clients that mean no good, beside one that does", { skip }, () => {
  let mesh: Mesh;
  let client: Pod;
  let server: Pod;
  let stranger: Pod;
  let isOver = false;
  let good: Promise<{ answered: number; failed: number }>;

  before(async () => {
    mesh = await Mesh.start();
    server = await mesh.pod("server", {
      isMeshed: true,
      inboundPorts: [HTTP1_PORT, HTTP2_PORT, IDLE_PORT],
      env: LIMITS,
    });
    client = await mesh.pod("client", { isMeshed: true, env: { ...LIMITS, PILLION_BODY_TIMEOUT: "1s" } });
    stranger = await mesh.pod("stranger", { isMeshed: false });
    stranger.sysctl("net.ipv4.ip_local_port_range", "1024 65535");
    await mesh.set({
      services: { [`${VIRTUAL_IP}:80`]: { protocol: "detect", path: "web:80" } },
      endpoints: { "web:80": [server.endpoint(HTTP1_PORT)] },
    });
    await call(server, "victims.ts", "serve", HTTP1_PORT, HTTP2_PORT, IDLE_PORT + 1);
    await call(server, "connections.ts", "serveHttp", IDLE_PORT);
    good = goodClient();
  });
  after(() => mesh.close());

  /** Asks the server through both sidecars, a second at a time, until everything is over. */
  async function goodClient(): Promise<{ answered: number; failed: number }> {
    const all = { answered: 0, failed: 0 };
    while (!isOver) {
      const { answered, failed } = await call<typeof all>(client, "victims.ts", "askGood", VIRTUAL_IP, 80, 1);
      all.answered += answered;
      all.failed += failed;
    }
    return all;
  }

  const attackOnce = (pod: Pod, name: string, host: string, port: number): Promise<string> =>
    call(pod, "hostile.ts", "attackOnce", name, { host, port }, STALL_MS);
  const reached = (pod: Pod, limit: string, direction: string): Promise<number> =>
    pod.metric(new RegExp(`^pillion_limit_reached_total\\{limit="${limit}",direction="${direction}"`));

  /** Connections of the stranger that the server's sidecar, by the kernel's word, has not closed. */
  const strangersConnections = (): number => {
    const args = ["netns", "exec", server.ns, "ss", "-Htn", "dst", stranger.ip];
    return execFileSync("ip", args, { encoding: "utf8" }).split("\n").filter(Boolean).length;
  };

  const SLOW = {
    "slow head": ["slow_head", /^HTTP\/1\.1 408 /],
    "slow body": ["slow_body", /^HTTP\/1\.1 408 /],
  } as const;
  for (const [name, [limit, answer]] of Object.entries(SLOW)) {
    test(`a ${name} is answered with 408 by the sidecar that it comes to, inbound and outbound (CVE-2020-8251)`, async () => {
      const [inbound, outbound] = await Promise.all([
        attackOnce(stranger, name, server.ip, HTTP1_PORT),
        attackOnce(client, name, VIRTUAL_IP, 80),
      ]);
      assert.match(inbound, answer);
      assert.match(outbound, answer);
      assert.equal(await reached(server, limit, "inbound"), 1);
      assert.equal(await reached(client, limit, "outbound"), 1);
    });
  }

  test("an answer that is not read ends the connection (CVE-2020-8251)", async () => {
    const attack = attackOnce(stranger, "pipelined requests unread", server.ip, HTTP1_PORT);
    await until(
      async () => (await reached(server, "slow_reader", "inbound")) === 1,
      "it is cut off",
      PATIENCE_MS,
    );
    await attack;
  });

  const FLOODS = {
    "rapid reset": "resets",
    "made you reset": "resets",
    "ping flood": "pings",
    "settings flood": "settings",
    "empty data flood": "empty_data",
    "continuation flood": "continuations",
    "priority flood": "priority",
    "HPACK bomb": "header_bytes",
  };
  for (const [name, limit] of Object.entries(FLOODS)) {
    test(`${name}: the connection ends, and the metric says why`, async () => {
      const before = await reached(server, limit, "inbound");
      await attackOnce(stranger, name, server.ip, HTTP2_PORT);
      await until(
        async () => (await reached(server, limit, "inbound")) > before,
        `${limit} is counted`,
        PATIENCE_MS,
      );
    });
  }

  test(`${CROWD} idle connections stay, one more from the same address is refused, and others are served`, async () => {
    await until(() => strangersConnections() === 0, "all attackers are gone", PATIENCE_MS);
    await call(stranger, "connections.ts", "hold", server.ip, IDLE_PORT, CROWD, "http");
    assert.equal(await attackOnce(stranger, "smuggling, both lengths", server.ip, HTTP1_PORT), "");
    assert.equal(await reached(server, "connections_per_client", "inbound"), 1);
    assert.equal(await server.metric(/^inbound_tcp_errors_total\{error="too_many_connections"/), 1);
    assert.equal(await call(stranger, "connections.ts", "proveHeld", "http"), CROWD);
  });

  test("meanwhile every good request was answered, and memory stayed within its bound", async () => {
    isOver = true;
    const { answered, failed } = await good;
    assert.ok(answered > 20, `${answered} answered`);
    assert.equal(failed, 0);
    const { rssKib } = memoryUsed(server.sidecar?.pid ?? 0);
    assert.ok(rssKib < RSS_MIB_MAX * 1024, `${Math.round(rssKib / 1024)} MiB`);
  });
});
