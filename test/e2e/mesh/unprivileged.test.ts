import assert from "node:assert/strict";
import { spawn, spawnSync } from "node:child_process";
import {
  chmodSync,
  chownSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, describe, test } from "node:test";
import { fileURLToPath } from "node:url";
import { NAMESPACE, workload, type MeshStatus, type Run } from "./mesh.ts";

/** Nobody's on any machine, we hope; of its own for each run, so that what it left behind can be told. */
const UID = 1_000_000 + (process.pid % 100_000);
const ROOT = fileURLToPath(new URL("../../..", import.meta.url));
const asUser = ["setpriv", "--reuid", String(UID), "--regid", String(UID), "--clear-groups"];

/** A mesh that an ordinary user starts, as they would. */
class UsersMesh {
  readonly #dir = mkdtempSync(join(tmpdir(), "pln-user-"));
  readonly #root = join(this.#dir, "checkout");
  readonly folder: string = join(this.#dir, "folder");

  constructor() {
    // A checkout may lie where no other user gets through; mounted here it can be read.
    mkdirSync(this.#root);
    assert.equal(spawnSync("mount", ["--bind", ROOT, this.#root]).status, 0);
    chmodSync(this.#dir, 0o755);
    for (const name of ["folder", "home", "run"]) {
      mkdirSync(join(this.#dir, name), { mode: 0o700 });
      chownSync(join(this.#dir, name), UID, UID);
    }
  }

  write(file: string, yaml: string): void {
    writeFileSync(join(this.folder, file), yaml);
    chmodSync(join(this.folder, file), 0o644);
    chownSync(join(this.folder, file), UID, UID);
  }

  async pillion(...args: string[]): Promise<Run> {
    const node = process.execPath.startsWith(ROOT)
      ? join(this.#root, process.execPath.slice(ROOT.length))
      : process.execPath;
    const command = [
      ...asUser,
      node,
      "--disable-warning=ExperimentalWarning",
      join(this.#root, "src/main.ts"),
      ...args,
    ];
    const env = {
      PATH: "/usr/bin:/bin:/usr/sbin:/sbin",
      HOME: join(this.#dir, "home"),
      XDG_RUNTIME_DIR: join(this.#dir, "run"),
    };
    return await new Promise((resolve, reject) => {
      const child = spawn(command[0] as string, command.slice(1), {
        env,
        cwd: "/",
        stdio: ["ignore", "pipe", "pipe"],
      });
      let stdout = "";
      let stderr = "";
      child.stdout.setEncoding("utf8").on("data", (text: string) => (stdout += text));
      child.stderr.setEncoding("utf8").on("data", (text: string) => (stderr += text));
      child.on("error", reject);
      child.on("close", (code) => resolve({ code: code ?? -1, stdout, stderr }));
    });
  }

  async status(): Promise<MeshStatus & { readonly notKept: readonly string[] }> {
    const { stdout, stderr } = await this.pillion("status", "-o", "json");
    assert.notEqual(stdout, "", stderr);
    return JSON.parse(stdout) as MeshStatus & { readonly notKept: readonly string[] };
  }

  /** What is left in the run folder. */
  leftFiles(): string[] {
    return readdirSync(join(this.#dir, "run", "pillion"));
  }

  mode(path: string): number {
    return statSync(join(this.#dir, "run", "pillion", path)).mode & 0o777;
  }

  async close(): Promise<void> {
    await this.pillion("down");
    spawnSync("umount", [this.#root]);
    rmSync(this.#dir, { recursive: true, force: true });
  }
}

/** The user's processes, by /proc/PID/status; dead ones that nobody has collected do not count. */
function processesOfUser(): string[] {
  return readdirSync("/proc").flatMap((name) => {
    if (!/^\d+$/.test(name)) return [];
    try {
      const status = readFileSync(`/proc/${name}/status`, "latin1");
      const isTheirs = new RegExp(`^Uid:\\s+${UID}\\s`, "m").test(status) && !/^State:\s+[ZX]/m.test(status);
      return isTheirs ? [readFileSync(`/proc/${name}/cmdline`, "latin1").replaceAll("\0", " ")] : [];
    } catch {
      return [];
    }
  });
}

const probe =
  process.getuid?.() === 0
    ? spawnSync(
        asUser[0] as string,
        [...asUser.slice(1), "unshare", "--user", "--map-root-user", "--net", "nft", "list", "tables"],
        { encoding: "utf8", env: { PATH: "/usr/bin:/bin:/usr/sbin:/sbin" } },
      )
    : null;
const skip =
  probe === null
    ? "needs root, to become an ordinary user"
    : probe.status === 0
      ? false
      : `no user namespaces with nftables here: ${probe.stderr}`;

describe("a mesh of an ordinary user", { skip }, () => {
  let mesh: UsersMesh;
  let told = "";

  before(async () => {
    mesh = new UsersMesh();
    mesh.write("namespace.yaml", NAMESPACE);
    mesh.write(
      "web.yaml",
      workload({
        name: "web",
        command: [
          "node",
          "-e",
          "require('http').createServer((q,s)=>s.end(`${process.getuid()} ${q.headers.host}\\n`)).listen(8080)",
        ],
        ports: { http: [80, 8080] },
        readyPort: 8080,
        podExtra: "      securityContext: { runAsUser: 4321, runAsGroup: 4321 }",
        annotations: { "pillion.dev/workload-api": "enabled" },
      }),
    );
    mesh.write("client.yaml", workload({ name: "client", command: ["sleep", "100000"] }));
    const { code, stderr } = await mesh.pillion("up", "-f", mesh.folder, "--detach", "--timeout", "60");
    assert.equal(code, 0, stderr);
    told = stderr;
  });
  after(async () => await mesh.close());

  test("it says at the start and in status what it does not give", async () => {
    const { notKept, node } = await mesh.status();
    assert.equal(node.intercept, "nftables");
    assert.ok(notKept.length > 0);
    for (const line of notKept) assert.ok(told.includes(line), line);
    const { stdout, code } = await mesh.pillion("status");
    assert.equal(code, 0);
    for (const line of notKept) assert.ok(stdout.includes(line), line);
  });

  test("two pods talk by mTLS, and stat reads it from outside", async () => {
    const asked = await mesh.pillion(
      "exec",
      "client",
      "--",
      "sh",
      "-c",
      "for i in 1 2 3; do curl -sS http://web/; done",
    );
    assert.equal(asked.stdout, "4321 web\n".repeat(3), asked.stderr);
    const metrics = await mesh.pillion("exec", "web", "--", "curl", "-sS", "http://127.0.0.1:4191/metrics");
    const series = metrics.stdout
      .split("\n")
      .filter(
        (line) =>
          line.startsWith("request_total{") &&
          line.includes('direction="inbound"') &&
          line.includes('client_id="client.test.'),
      );
    assert.match(series.join("\n"), /tls="true"/, metrics.stdout.slice(0, 500));
    const table = await mesh.pillion("stat", "--once", "--interval", "0.2");
    assert.match(table.stdout, /test\/web .*client\.test/, table.stderr);
  });

  test("exec gives the user that was asked for, and exit codes; logs are there", async () => {
    const { stdout, code } = await mesh.pillion("exec", "web", "--", "sh", "-c", "id -u; exit 7");
    assert.deepEqual([stdout, code], ["4321\n", 7]);
    assert.match((await mesh.pillion("logs", "web", "-c", "pillion-sidecar")).stdout, /"ready"/);
  });

  test("programs of a pod that asks get its identity, as whatever user; those of others do not", async () => {
    const show = ["--", "node", "/.pillion/mesh/examples/programs/svid.js", "show"];
    const { stdout, stderr } = await mesh.pillion("exec", "web", ...show);
    assert.match(stdout, /^spiffe:\/\/cluster\.local\/ns\/test\/sa\/web, /, stderr);
    assert.equal((await mesh.pillion("exec", "client", ...show)).stdout, "this pod has no Workload API\n");
  });

  test("nothing leaves but through the sidecar, and nobody outside may command it", async () => {
    const past = await mesh.pillion(
      "exec",
      "client",
      "--",
      "curl",
      "-sS",
      "-o",
      "/dev/null",
      "-w",
      "%{http_code}",
      "--max-time",
      "3",
      "http://192.0.2.7/",
    );
    assert.match(past.stdout, /^5\d\d$/, "the sidecar answers for what cannot be reached");
    assert.equal(mesh.mode("default/agent.sock"), 0o600);
    assert.equal(mesh.mode("default"), 0o700);
  });

  test("an edit of the folder rolls, and rollout restart replaces", async () => {
    const old = (await mesh.status()).pods.find((pod) => pod.owner.endsWith("/web"))?.name;
    const { code, stderr } = await mesh.pillion("rollout", "restart", "deployment/web", "-n", "test");
    assert.equal(code, 0, stderr);
    const pods = (await mesh.status()).pods.filter((pod) => pod.owner.endsWith("/web") && !pod.terminating);
    assert.equal(pods.length, 1);
    assert.notEqual(pods[0]?.name, old);
    assert.equal(
      (await mesh.pillion("exec", "client", "--", "curl", "-sS", "http://web/")).stdout,
      "4321 web\n",
    );
  });

  test("down leaves no process and no file of the run", async () => {
    assert.ok(processesOfUser().length > 5);
    const { code, stderr } = await mesh.pillion("down");
    assert.equal(code, 0, stderr);
    assert.deepEqual(processesOfUser(), []);
    assert.deepEqual(mesh.leftFiles(), []);
  });
});
