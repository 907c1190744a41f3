import assert from "node:assert/strict";
import { spawn, spawnSync, type ChildProcess } from "node:child_process";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, test } from "node:test";
import type { ZoneSnapshot } from "#/agent/dns/zone.ts";

// A network of its own with two addresses: our name server's, and a stand-in for the machine's resolver.
const OURS = "127.0.0.10";
const THEIRS = "127.0.0.20";
const dir = mkdtempSync(join(tmpdir(), "pillion-dns-"));
const netns = join(dir, "machine-netns");
const children: ChildProcess[] = [];

const SERVER = `
import { runDns } from "#/agent/dns-main.ts";
await runDns({ ip: "${OURS}", port: 53, zoneFile: "${dir}/zone.json", resolvConf: "${dir}/resolv.conf" });
process.stdout.write("up\\n");`;
// Answers every A query with 192.0.2.77, over UDP with the truncation mark for names that begin with "big".
const RESOLVER = `
import dgram from "node:dgram"; import net from "node:net";
const answer = (q, cut) => { const head = Buffer.from(q.subarray(0, q.indexOf(0, 12) + 5)); head.writeUInt16BE(cut ? 0x8380 : 0x8180, 2); head.writeUInt16BE(cut ? 0 : 1, 6); head.writeUInt16BE(0, 10);
  return cut ? head : Buffer.concat([head, Buffer.from([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4, 192, 0, 2, 77])]); };
const udp = dgram.createSocket("udp4").on("message", (q, from) => { if (!q.includes("mute")) udp.send(answer(q, q.includes("big")), from.port, from.address); });
net.createServer((s) => s.on("data", (d) => { const a = answer(d.subarray(2), false); const n = Buffer.alloc(2); n.writeUInt16BE(a.length); s.write(Buffer.concat([n, a])); })).listen(53, "${THEIRS}");
udp.bind(53, "${THEIRS}", () => process.stdout.write("up\\n"));`;

const zone = (services: ZoneSnapshot["services"]): string =>
  JSON.stringify({
    clusterDomain: "cluster.local",
    podCidr: "10.201.0.0/16",
    serviceCidr: "10.202.0.0/16",
    services,
    pods: [],
    explicitPods: [{ ip: "127.0.0.30", ownPorts: [] }],
  } satisfies ZoneSnapshot);
const service = (name: string, clusterIp: string): ZoneSnapshot["services"][number] => ({
  name,
  namespace: "test",
  clusterIp,
  externalName: null,
  publishNotReady: false,
  sessionAffinityClientIp: false,
  ports: [{ name: "http", port: 80, protocol: "TCP" }],
  endpoints: [],
});

async function start(source: string): Promise<void> {
  const child = spawn(
    "nsenter",
    [`--net=${netns}`, process.execPath, "--input-type=module-typescript", "--eval", source],
    { stdio: ["ignore", "pipe", "inherit"], cwd: join(import.meta.dirname, "../../..") },
  );
  children.push(child);
  await new Promise<void>((resolve, reject) => {
    child.stdout?.once("data", () => resolve());
    child.once("exit", (code) => reject(new Error(`ended with ${code}`)));
  });
}

function dig(...args: string[]): string {
  const result = spawnSync(
    "nsenter",
    [`--net=${netns}`, "dig", `@${OURS}`, "+time=10", "+tries=1", ...args],
    { encoding: "utf8" },
  );
  return result.stdout;
}

before(async () => {
  writeFileSync(netns, "");
  assert.equal(spawnSync("unshare", [`--net=${netns}`, "ip", "link", "set", "lo", "up"]).status, 0);
  writeFileSync(join(dir, "resolv.conf"), `nameserver ${OURS}\nnameserver ${THEIRS}\n`);
  writeFileSync(join(dir, "zone.json"), zone([service("web", "10.202.0.7")]));
  await Promise.all([start(RESOLVER), start(SERVER)]);
});
after(() => {
  for (const child of children) child.kill("SIGKILL");
  spawnSync("umount", [netns]);
  rmSync(dir, { recursive: true, force: true });
});

test("other names go to the machine's resolvers, by the transport on which they came", () => {
  assert.equal(dig("+short", "example.com").trim(), "192.0.2.77");
  assert.equal(dig("+short", "+tcp", "example.com").trim(), "192.0.2.77");
  assert.match(dig("+ignore", "big.example.com"), /flags: qr tc rd ra/);
  assert.equal(dig("+short", "big.example.com").trim(), "192.0.2.77", "after truncation over TCP");
});

test("a resolver that does not answer gives SERVFAIL in bounded time, and the server goes on", () => {
  assert.match(dig("mute.example.com"), /status: SERVFAIL/);
  assert.equal(dig("+short", "web.test.svc.cluster.local").trim(), "10.202.0.7");
});

test("a change of the zone file is seen, a broken one is not", async () => {
  writeFileSync(join(dir, "zone.json"), "{");
  writeFileSync(join(dir, "zone.json"), zone([service("web", "10.202.0.8")]));
  const end = Date.now() + 10_000;
  while (dig("+short", "web.test.svc.cluster.local").trim() !== "10.202.0.8") {
    assert.ok(Date.now() < end, "the zone was not read again");
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
});

test("a pod without interception sees Services in its loopback network", () => {
  assert.equal(dig("+short", "-b", "127.0.0.30", "web.test.svc.cluster.local").trim(), "127.202.0.8");
  assert.equal(dig("+short", "+tcp", "-b", "127.0.0.30", "web.test.svc.cluster.local").trim(), "127.202.0.8");
});
