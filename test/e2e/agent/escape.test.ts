import assert from "node:assert/strict";
import { closeSync, globSync, openSync, readFileSync, readSync } from "node:fs";
import { createPrivateKey } from "node:crypto";
import { after, before, test } from "node:test";
import { SHOWN_PACKAGE } from "#/agent/runtime/pod-host.ts";
import { Mesh, NAMESPACE, type Run } from "../mesh/mesh.ts";

/** Root in one pod tries to get at its sidecar, at other pods and at the mesh; each attempt beside one on its own, which succeeds. */
const mesh = new Mesh("escape");
const PROBE = `${SHOWN_PACKAGE}/test/e2e/agent/escape-probe.ts`;
const CANARY = "canary-0f1e2d3c4b5a";

const VICTIM = `
import http from "node:http";
import dgram from "node:dgram";
let last = "";
http.createServer((q, s) => { q.on("data", (d) => (last += d)); q.on("end", () => s.end("taken " + last.length)); }).listen(8080);
dgram.createSocket("udp4").on("message", (m, from) => console.log("from " + from.address + ": " + m)).bind(9999);
`;

function pod(name: string, command: readonly string[], more = ""): string {
  return `apiVersion: v1
kind: Pod
metadata: { name: ${name}, namespace: test, labels: { app: ${name} } }
spec:
  terminationGracePeriodSeconds: 1
  containers:
    - name: main
      command: ${JSON.stringify(command)}
      env: [{ name: OWN_SECRET, value: "${CANARY}-of-${name}" }]
${more}---
apiVersion: v1
kind: Service
metadata: { name: ${name}, namespace: test }
spec: { selector: { app: ${name} }, ports: [{ port: 80, targetPort: 8080 }] }
`;
}

let ips: Record<"attacker" | "victim" | "client", string>;
let pids: { own: number; other: number };

before(async () => {
  mesh.write("a.yaml", NAMESPACE);
  mesh.write("attacker.yaml", pod("attacker", ["sleep", "1000"]));
  mesh.write("client.yaml", pod("client", ["sleep", "1000"]));
  mesh.write("victim.yaml", pod("victim", ["node", "--input-type=module", "-e", VICTIM]));
  await mesh.up();
  const [attacker, victim, client] = [
    await mesh.pod("attacker"),
    await mesh.pod("victim"),
    await mesh.pod("client"),
  ];
  ips = { attacker: attacker.ip, victim: victim.ip, client: client.ip };
  pids = { own: attacker.sidecar?.pid ?? 0, other: victim.sidecar?.pid ?? 0 };
  assert.ok(pids.own > 0 && pids.other > 0);
});
after(() => mesh.close());

const attempt = async (what: string, ...args: string[]): Promise<string> => {
  const { stdout, stderr } = await probe("attacker", what, ...args);
  return stdout.trim() || stderr;
};
const probe = async (from: string, ...args: string[]): Promise<Run> =>
  await mesh.exec(from, "node", "--disable-warning=ExperimentalWarning", PROBE, ...args);

async function until(what: string, holds: () => Promise<boolean>): Promise<void> {
  for (const endMs = Date.now() + 30_000; !(await holds());)
    assert.ok(Date.now() < endMs, `in vain: ${what}`);
}

test("sees the processes and variables of its own container, and no other's", async () => {
  assert.match(await attempt("search", `${CANARY}-of-attacker`), /^possible \d+\/environ/);
  assert.equal(await attempt("search", `${CANARY}-of-victim`), "nothing");
  assert.equal(await attempt("search", "PILLION_TOKEN_FD"), "nothing");
  assert.equal(await attempt("search", "LINKERD2_PROXY"), "nothing");
});

test("can trace, read, compare, signal and take descriptors of no process beside its own", async () => {
  for (const what of ["ptrace", "signal"]) assert.equal(await attempt(what, "child"), "0", what);
  assert.equal(await attempt("read memory", "self"), "8");
  assert.match(await attempt("kcmp", "self"), /^[0-3]$/);
  assert.match(await attempt("take a descriptor", "self"), /^\d+$/);
  // By the numbers that the machine knows them by, which an attacker would have to guess.
  for (const pid of [pids.own, pids.other])
    for (const what of ["ptrace", "read memory", "kcmp", "take a descriptor", "signal", "enter a namespace"])
      assert.match(await attempt(what, String(pid)), /^errno (1|2|3)$/, `${what} ${pid}`);
});

test("abstract Unix sockets are its pod's own", async () => {
  const listening = probe("attacker", "listen abstractly", "meeting");
  await until(
    "its own socket answers",
    async () => (await attempt("dial abstractly", "meeting")) === "possible",
  );
  assert.equal((await probe("victim", "dial abstractly", "meeting")).stdout.trim(), "ECONNREFUSED");
  await mesh.exec("attacker", "sh", "-c", "kill $(pgrep -f 'listen abstractly' | head -1)");
  await listening;
});

test("cannot take another pod's address, nor send from it", async () => {
  assert.equal(await attempt("add an address", ips.client), "errno 1");
  for (const mac of [ips.attacker, ips.client]) {
    assert.equal(await attempt("send as", ips.client, ips.victim, `forged by ${mac}`, mac), "sent");
    assert.equal(await attempt("send as", "8.8.8.8", ips.victim, `forged by ${mac}`, mac), "sent");
  }
  assert.equal(await attempt("send as", ips.attacker, ips.victim, "as itself", ips.attacker), "sent");
  await until("its own arrives", async () =>
    (await mesh.log("victim")).includes(`from ${ips.attacker}: as itself`),
  );
  assert.doesNotMatch(await mesh.log("victim"), /forged/);
});

test("cannot say by ARP that another pod's address is its own", async () => {
  const ping = async (): Promise<number> =>
    (await mesh.exec("victim", "ping", "-c", "1", "-W", "5", ips.client)).code;
  const neighbour = async (): Promise<string> => {
    const table = (await mesh.exec("victim", "cat", "/proc/net/arp")).stdout;
    return table.split("\n").find((line) => line.startsWith(`${ips.client} `)) ?? "";
  };
  assert.equal(await ping(), 0);
  const before = await neighbour();
  assert.match(before, /0a:58:/);
  // Several, for what was just learnt is kept for a second whatever comes.
  for (let i = 0; i < 3; i++) {
    assert.equal(await attempt("claim by ARP", ips.client, ips.attacker), "sent");
    await attempt("send as", ips.attacker, ips.victim, `after ARP ${i}`, ips.attacker);
    await until("what came later arrives", async () => (await mesh.log("victim")).includes(`after ARP ${i}`));
    assert.equal(await neighbour(), before);
  }
  assert.equal(await ping(), 0);
});

test("hears nothing on its network of what others say to each other", async () => {
  const sniffing = attempt("sniff");
  let isOver = false;
  void sniffing.finally(() => (isOver = true));
  await until("it has heard the end", async () => {
    await probe("client", "send as", ips.client, ips.victim, "others-secret", ips.client);
    await probe("client", "send as", ips.client, ips.attacker, "sniff-end", ips.client);
    return isOver;
  });
  assert.match(await sniffing, /its own only$/);
  assert.match(await mesh.log("victim"), /others-secret/);
});

test("reads of another pod's sidecar what everybody may, and changes nothing there", async () => {
  const ask = async (...args: string[]): Promise<string> =>
    (await mesh.exec("attacker", "curl", "-s", "-o", "/dev/null", "-w", "%{http_code}", "-m", "10", ...args))
      .stdout;
  assert.equal(await ask(`http://${ips.victim}:4191/ready`), "200");
  assert.equal(await ask(`http://${ips.victim}:4191/flows`), "403");
  assert.equal(await ask("-X", "POST", `http://${ips.victim}:4191/shutdown`), "403");
  assert.equal(await ask("-X", "PUT", "-d", "debug", `http://${ips.victim}:4191/proxy-log-level`), "403");
  // Its own sidecar it may command: docs/security/threat-model.md.
  assert.equal(await ask("-X", "PUT", "-d", "info", "http://localhost:4191/proxy-log-level"), "204");
});

test("the agent's memory holds no payload and no key of the mesh; the processes that should have them do", async () => {
  const secret = `payload-${CANARY}`;
  // Put together in the pod: what a command is told goes by the agent.
  const told = `printf 'payload-%s%s' ${CANARY.slice(0, 9)} ${CANARY.slice(9)} | curl -s -m 20 -d @- http://victim/`;
  const sent = await mesh.exec("client", "sh", "-c", told);
  assert.equal(sent.stdout, `taken ${secret.length}`);
  const { agentPid, controlPid } = await mesh.status();
  assert.ok(holds(await appPid(), Buffer.from(secret)), "the program that was sent it has it");
  assert.equal(holds(agentPid, Buffer.from(secret)), false);
  const keys = globSync(`${mesh.dir}/state/${mesh.name}/control/**/*`)
    .filter((file) => /key|\.pem$/.test(file))
    .flatMap((file) => {
      try {
        const { d } = createPrivateKey(readFileSync(file)).export({ format: "jwk" });
        return d === undefined ? [] : [Buffer.from(d, "base64url")];
      } catch {
        return [];
      }
    });
  assert.ok(keys.length > 0, "keys of the control plane's folder");
  assert.ok(keys.some((key) => holds(controlPid, key) || holds(controlPid, Buffer.from(key).reverse())));
  for (const key of keys)
    for (const form of [key, Buffer.from(key).reverse(), Buffer.from(key.toString("base64url"))])
      assert.equal(holds(agentPid, form), false);
});

/** The victim's program, by what it alone has in its variables. */
async function appPid(): Promise<number> {
  const pod = await mesh.pod("victim");
  const found = globSync("/proc/[0-9]*/environ").find((file) => {
    try {
      return (
        readFileSync(file, "latin1").includes(`${CANARY}-of-victim`) &&
        readFileSync(file.replace("environ", "cmdline"), "latin1").startsWith("node")
      );
    } catch {
      return false;
    }
  });
  return Number(found?.split("/")[2] ?? assert.fail(`no program of ${pod.name}`));
}

/** Whether the memory of a process holds these bytes, as root on the machine reads it. */
function holds(pid: number, bytes: Buffer): boolean {
  const CHUNK = 1 << 22;
  const fd = openSync(`/proc/${pid}/mem`, "r");
  const chunk = Buffer.alloc(CHUNK);
  try {
    for (const line of readFileSync(`/proc/${pid}/maps`, "latin1").split("\n")) {
      const range = /^([0-9a-f]+)-([0-9a-f]+) rw/.exec(line);
      if (range === null) continue;
      const end = BigInt(`0x${range[2]}`);
      // Steps overlap, so that nothing is missed where they meet.
      for (let at = BigInt(`0x${range[1]}`); at < end; at += BigInt(CHUNK - bytes.length)) {
        const length = Number(end - at < CHUNK ? end - at : CHUNK);
        try {
          const read = readSync(fd, chunk, 0, length, at as unknown as number);
          if (chunk.subarray(0, read).includes(bytes)) return true;
        } catch {
          // A page that is not there.
        }
      }
    }
    return false;
  } finally {
    closeSync(fd);
  }
}
