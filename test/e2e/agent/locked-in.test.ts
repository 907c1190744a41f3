import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import {
  closeSync,
  existsSync,
  mkdtempSync,
  openSync,
  readdirSync,
  readFileSync,
  rmSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join, resolve } from "node:path";
import { after, before, describe, test } from "node:test";
import { SHOWN_NODE_DIR, SHOWN_PACKAGE, SIDECAR_NODE_FLAGS, programBinds } from "#/agent/runtime/pod-host.ts";
import { dropPrivileges, meshSandboxArguments } from "#/agent/runtime/sandbox.ts";
import { seccompFilter } from "#/agent/runtime/seccomp.ts";
import { Mesh, NAMESPACE, workload } from "../mesh/mesh.ts";

const ROOT = resolve(import.meta.dirname, "../../..");
const UID = 61_999;

describe("a program in a sidecar's place", () => {
  const dir = mkdtempSync(join(tmpdir(), "pillion-lock-"));
  const filter = join(dir, "filter");
  before(() => writeFileSync(filter, seccompFilter({ hasRings: false }) ?? assert.fail()));
  after(() => rmSync(dir, { recursive: true }));

  function attempt(what: string, isLocked: boolean, ...flags: string[]): string {
    const probe = "test/e2e/agent/lock-probe.ts";
    const fd = openSync(filter, "r");
    const ran = spawnSync(
      "sh",
      [
        "-c",
        'ulimit -c 0; exec "$@"',
        "sh",
        "bwrap",
        "--seccomp",
        "3",
        ...meshSandboxArguments({
          hostname: "probe",
          etcFiles: [],
          binds: [
            // The sources as they are, for the probe is one.
            ...programBinds({
              packageRoot: ROOT,
              nodeDir: dirname(process.execPath),
              sourceDir: join(ROOT, "src"),
            }),
            { source: join(ROOT, probe), target: `${SHOWN_PACKAGE}/${probe}`, readOnly: true },
          ],
          env: [["PATH", SHOWN_NODE_DIR]],
        }),
        "--",
        ...dropPrivileges({ uid: UID, gid: UID, groups: [], capabilities: [] }),
        `${SHOWN_NODE_DIR}/node`,
        ...SIDECAR_NODE_FLAGS,
        ...flags,
        `${SHOWN_PACKAGE}/${probe}`,
        isLocked ? "locked" : "free",
        what,
      ],
      { stdio: ["ignore", "pipe", "pipe", fd], encoding: "utf8", timeout: 60_000 },
    );
    closeSync(fd);
    if (ran.status === 0) return ran.stdout.trim();
    // bubblewrap tells a signal as a shell does.
    return ran.status !== null && ran.status > 128
      ? `signal ${ran.status - 128}`
      : `${ran.status}: ${ran.stderr}`;
  }

  test("does all that a sidecar needs: names, threads, listeners, clients, the collector", () => {
    assert.equal(attempt("what a sidecar needs", true), "hello 2");
  });

  test("ends at once when it tries what only somebody does who has taken it over", () => {
    for (const what of ["exec", "ptrace", "read another's memory", "kcmp"])
      assert.equal(attempt(what, false), "possible", `${what}, not locked in`);
    for (const what of [
      "exec",
      "fork",
      "ptrace",
      "read another's memory",
      "kcmp",
      "mount",
      "load a module",
      "load a program into the kernel",
      "a key ring",
      "userfaultfd",
      "a ring's calls",
      "a namespace",
      "another user",
    ])
      assert.equal(attempt(what, true), "signal 31", what);
  });

  test("is refused rings, raw sockets, signals, being dumpable, and every write", () => {
    assert.equal(attempt("be dumpable", false), "possible");
    assert.equal(attempt("write to itself", false), "EROFS", "not locked in, the view refuses it");
    assert.equal(attempt("a ring", true), "errno 38");
    for (const what of ["a raw socket", "a packet socket", "be dumpable", "a signal to all"])
      assert.equal(attempt(what, true), "errno 1", what);
    for (const what of ["write a file", "write over the program", "write to itself"])
      assert.equal(attempt(what, true), "EACCES", what);
  });

  test("sees nothing of the machine but what Node needs", () => {
    assert.equal(attempt("see the machine", true), "");
  });

  test("still ends as Node does when it has a bug or no memory", () => {
    assert.match(attempt("a bug", true), /^signal 6$/);
    assert.match(attempt("memory without end", true, "--max-old-space-size=16"), /^signal (5|6)$/);
  });
});

describe("the processes of a mesh", () => {
  const mesh = new Mesh("lock");
  let pids: Record<string, number>;
  before(async () => {
    mesh.write("a.yaml", NAMESPACE);
    mesh.write("web.yaml", workload({ name: "web", command: ["sleep", "1000"] }));
    const { controlPid } = await mesh.up();
    const { sidecar } = await mesh.pod("web");
    pids = { control: controlPid, dns: nameServer(mesh), sidecar: sidecar?.pid ?? 0 };
  });
  after(() => mesh.close());

  test("run under a filter of system calls, without new privileges and core dumps", () => {
    for (const [name, pid] of Object.entries(pids)) {
      const status = readFileSync(`/proc/${pid}/status`, "latin1");
      assert.match(status, /^Seccomp:\t2$/m, name);
      // bubblewrap's, and their own, which every thread has.
      for (const thread of readdirSync(`/proc/${pid}/task`))
        assert.match(
          readFileSync(`/proc/${pid}/task/${thread}/status`, "latin1"),
          /^Seccomp_filters:\t2$/m,
          name,
        );
      assert.match(status, /^NoNewPrivs:\t1$/m, name);
      assert.match(readFileSync(`/proc/${pid}/limits`, "latin1"), /^Max core file size +0 +0 /m, name);
    }
  });

  test("can write nothing of the file system but the control plane its own two folders, and see no other's", () => {
    for (const [name, pid] of Object.entries(pids)) {
      const mounts = readFileSync(`/proc/${pid}/mountinfo`, "latin1").trim().split("\n");
      const writable = mounts
        .map((line) => line.split(" "))
        .filter((fields) => /^rw\b/.test(fields[5] ?? ""));
      assert.deepEqual(
        writable.map((fields) => fields[4]).toSorted(),
        name === "control"
          ? [`${mesh.dir}/run/${mesh.name}/control`, `${mesh.dir}/state/${mesh.name}/control`]
          : [],
        name,
      );
      const root = `/proc/${pid}/root`;
      assert.equal(existsSync(`${root}${mesh.dir}/state/${mesh.name}/agent`), false, name);
      for (const path of ["/root", "/home", "/var", "/etc/passwd", "/sys"])
        assert.equal(existsSync(`${root}${path}`), false, `${name} sees ${path}`);
    }
  });

  test("are read by nobody else, not even by each other or by their own user", () => {
    for (const [name, pid] of Object.entries(pids)) {
      const uid = Number(/^Uid:\t(\d+)/m.exec(readFileSync(`/proc/${pid}/status`, "latin1"))?.[1]);
      for (const reader of [uid, 61_000, 12_345])
        for (const file of ["mem", "environ", "maps", "fd/6", "root", "auxv"]) {
          const got = spawnSync("setpriv", [
            "--reuid",
            String(reader),
            "--clear-groups",
            "dd",
            `if=/proc/${pid}/${file}`,
            "count=1",
          ]);
          assert.notEqual(got.status, 0, `${reader} reads ${file} of ${name}`);
        }
      const own = spawnSync("setpriv", ["--reuid", "12345", "--clear-groups", "cat", "/proc/self/environ"]);
      assert.equal(own.status, 0, "the same on its own process");
      const secret =
        readFileSync(`/proc/${pid}/environ`, "latin1") + readFileSync(`/proc/${pid}/cmdline`, "latin1");
      assert.doesNotMatch(secret, /PRIVATE KEY|eyJ/);
    }
  });
});

function nameServer(mesh: Mesh): number {
  const find = `cat $(find /sys/fs/cgroup -path '*pillion/${mesh.name}/dns/cgroup.procs') 2>/dev/null | sort -un | tail -1`;
  return Number(spawnSync("sh", ["-c", find], { encoding: "utf8" }).stdout.trim());
}
