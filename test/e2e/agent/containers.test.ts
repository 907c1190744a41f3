import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import type { ProbePlan } from "#/model/pod-plan.ts";
import { Machine, container, pod, sh } from "./machine.ts";

const machine = new Machine("ctr");
before(() => machine.start());
after(() => machine.close());

const probe = (action: ProbePlan["action"], changes: Partial<ProbePlan> = {}): ProbePlan => ({
  action,
  initialDelaySeconds: 0,
  periodSeconds: 0.1,
  timeoutSeconds: 20,
  successThreshold: 1,
  failureThreshold: 1,
  terminationGracePeriodSeconds: null,
  ...changes,
});
const state = async (name: string): Promise<string> => {
  const status = await machine.pod(name);
  return `${status?.phase} ${status?.containers.map((each) => `${each.state}:${each.reason}:${each.exitCode}:${each.restartCount}`).join(" ")}`;
};

test("limits of processor time, memory and processes hold", async () => {
  await machine.apply(pod("limits", [container({ cpuLimitMillis: 100, memoryLimitBytes: 64 << 20 })]));
  await machine.until("ready", async () => (await machine.pod("limits"))?.ready);
  const busy = await machine.exec(
    "limits",
    "main",
    "timeout",
    "0.9",
    "sh",
    "-c",
    "while :; do :; done; true",
  );
  assert.equal(busy.code, 124);
  const stat = machine.run(
    "sh",
    "-c",
    `cat $(find /sys/fs/cgroup -path '*pillion/${machine.name}/uid-limits/app/main/cpu.stat')`,
  ).stdout;
  const usedUs = Number(/^usage_usec (\d+)$/m.exec(stat)?.[1]);
  assert.ok(usedUs > 10_000 && usedUs < 400_000, `0.9 s of computing at a tenth of a processor: ${stat}`);
});

test("a container that the kernel kills for want of memory says OOMKilled", async () => {
  await machine.apply(
    pod(
      "oom",
      [sh("head -c 300000000 /dev/zero | tail -c 299999999 > /dev/null", { memoryLimitBytes: 32 << 20 })],
      { restartPolicy: "Never" },
    ),
  );
  await machine.until("OOMKilled", async () =>
    (await state("oom")).startsWith("Failed terminated:OOMKilled"),
  );
  assert.match((await machine.pod("oom"))?.message ?? "", /want of memory: raise resources.limits.memory/);
});

test("a pod that runs to its end succeeds or fails, and its log stays", async () => {
  await machine.apply(
    pod("good", [sh("echo done")], { restartPolicy: "Never" }),
    pod("bad", [sh("echo oh no >&2; exit 3")], { restartPolicy: "Never" }),
  );
  await machine.until(
    "Succeeded",
    async () => (await state("good")) === "Succeeded terminated:Completed:0:0",
  );
  await machine.until("Failed", async () => (await state("bad")) === "Failed terminated:Error:3:0");
  assert.equal(await machine.log("good", "main"), "done\n");
  assert.match(
    (await machine.pod("bad"))?.message ?? "",
    /container main ended with exit code 3; its last words: oh no/,
  );
});

test("a program that is not there is ContainerCannotRun and says so", async () => {
  await machine.apply(
    pod("missing", [container({ argv: ["/no/such/program"] })], { restartPolicy: "Never" }),
    pod("badmount", [
      container({ mounts: [{ volume: "x", mountPath: "/x", subPath: null, readOnly: false }] }),
    ]),
  );
  await machine.until("ContainerCannotRun", async () =>
    (await state("missing")).startsWith("Failed terminated:ContainerCannotRun:127"),
  );
  assert.match(
    (await machine.pod("missing"))?.message ?? "",
    /cannot run; its last words: setpriv: failed to execute \/no\/such\/program/,
  );
  await machine.until("the mount is refused", async () =>
    (await machine.pod("badmount"))?.message.includes('volume "x" is not in the pod'),
  );
});

test("restarts: at once the first time, then with back-off", async () => {
  await machine.apply(pod("crash", [sh("date +%s.%N >> /dev/null; exit 1")]));
  await machine.until(
    "back-off",
    async () => (await state("crash")) === "Running waiting:CrashLoopBackOff:1:2",
  );
});

test("stdin stays open when it is asked for; a read-only root leaves only volumes to write", async () => {
  const data = { volume: "data", mountPath: "/tmp/data", subPath: null, readOnly: false };
  await machine.apply(
    pod(
      "asked",
      [
        sh("cat; echo ended", { stdin: true }),
        sh("touch /tmp/x /run/x /var/log/x; touch /tmp/data/x && echo data; sleep 1000", {
          name: "sealed",
          readOnlyRootFilesystem: true,
          mounts: [data],
        }),
      ],
      {
        volumes: [{ name: "data", kind: "emptyDir", medium: "", sizeLimitBytes: null }],
      },
    ),
    pod("shared", [container()], { shareProcessNamespace: true }),
  );
  await machine.until("its log", async () =>
    (await machine.log("asked", "sealed").catch(() => "")).includes("data"),
  );
  assert.equal((await machine.log("asked", "sealed")).match(/Read-only file system/g)?.length, 3);
  const reading = await machine.until("cat reads", async () => {
    const status = await machine.pod("asked");
    return status?.containers[0]?.state === "running" && status;
  });
  assert.equal(reading.containers[0]?.restartCount, 0);
  assert.equal(await machine.log("asked", "main"), "");
  await machine.until("the refusal", async () =>
    (await machine.pod("shared"))?.message.includes("shareProcessNamespace is not supported"),
  );
});

test("a main process that ends takes what it left running with it", async () => {
  await machine.apply(pod("orphans", [sh("setsid sleep 999 & sleep 0.2")], { restartPolicy: "Never" }));
  await machine.until("Succeeded", async () => (await machine.pod("orphans"))?.phase === "Succeeded");
  assert.equal(
    machine
      .run(
        "sh",
        "-c",
        `cat /sys/fs/cgroup/unified/pillion/${machine.name}/uid-orphans/app/main/cgroup.procs 2>/dev/null | wc -l`,
      )
      .stdout.trim(),
    "0",
  );
});

test("init containers run in order, a native sidecar stays, and a failing one holds the pod up", async () => {
  const shared = { volume: "shared", mountPath: "/shared", subPath: null, readOnly: false };
  const volumes = [{ name: "shared", kind: "emptyDir", medium: "", sizeLimitBytes: null }] as const;
  await machine.apply(
    pod("init", [sh("cat /shared/order; sleep 1000", { mounts: [shared] })], {
      initContainers: [
        sh("echo one >> /shared/order", { name: "one", mounts: [shared] }),
        sh("echo helper >> /shared/order; sleep 1000", {
          name: "helper",
          restartAlways: true,
          mounts: [shared],
          startupProbe: probe(
            { kind: "exec", argv: ["grep", "helper", "/shared/order"] },
            { failureThreshold: 50 },
          ),
        }),
        sh("echo two >> /shared/order", { name: "two", mounts: [shared] }),
      ],
      volumes,
    }),
    pod("stuck", [container()], { restartPolicy: "Never", initContainers: [sh("exit 9", { name: "no" })] }),
  );
  await machine.until("ready", async () => (await machine.pod("init"))?.ready);
  await machine.until("log", async () => (await machine.log("init", "main")) === "one\nhelper\ntwo\n");
  assert.match(
    await state("init"),
    /^Running running::null:0 running::null:0 terminated:Completed:0:0 terminated:Completed:0:0$/,
  );
  await machine.until("Failed", async () => (await state("stuck")).startsWith("Failed terminated:Error:9"));
});

test("readiness follows its probe; liveness restarts; startup holds both back", async () => {
  const server =
    "import http from 'node:http'; import fs from 'node:fs'; http.createServer((q, s) => { s.statusCode = fs.existsSync('/tmp' + q.url) ? 200 : 503; s.end(); }).listen(8080)";
  const http = (path: string, changes: Partial<ProbePlan> = {}): ProbePlan =>
    probe({ kind: "http", path, port: 8080, scheme: "HTTP", host: null, headers: [] }, changes);
  await machine.apply(
    pod("probed", [
      container({
        argv: ["node", "--input-type=module", "-e", server],
        startupProbe: probe({ kind: "tcp", port: 8080, host: null }, { failureThreshold: 200 }),
        readinessProbe: http("/ready"),
        livenessProbe: probe({ kind: "exec", argv: ["test", "!", "-e", "/tmp/dead"] }),
      }),
    ]),
  );
  await machine.until("started", async () => (await machine.pod("probed"))?.containers[0]?.started);
  await machine.until("complaint", async () =>
    (await machine.pod("probed"))?.message.includes("status 503 from"),
  );
  assert.equal((await machine.pod("probed"))?.ready, false);
  await machine.exec("probed", "main", "touch", "/tmp/ready");
  await machine.until("ready", async () => (await machine.pod("probed"))?.ready);
  await machine.exec("probed", "main", "rm", "/tmp/ready");
  await machine.until("not ready", async () => (await machine.pod("probed"))?.ready === false);
  await machine.exec("probed", "main", "touch", "/tmp/dead");
  await machine.until(
    "restarted",
    async () => (await machine.pod("probed"))?.containers[0]?.restartCount === 1,
  );
});

test("hooks: postStart before readiness, preStop before SIGTERM, SIGTERM before SIGKILL", async () => {
  const out = { volume: "out", mountPath: "/out", subPath: null, readOnly: false };
  const volumes = [{ name: "out", kind: "claim", claim: "hooks", readOnly: false }] as const;
  const script =
    "trap 'echo term >> /out/log; exit 0' TERM; echo start >> /out/log; while :; do sleep 0.05; done";
  const reader = pod("reader", [container({ mounts: [out] })], { volumes });
  const hooked = pod(
    "hooked",
    [
      sh(script, {
        mounts: [out],
        postStart: { kind: "exec", argv: ["sh", "-c", "echo post >> /out/log"] },
        preStop: { kind: "exec", argv: ["sh", "-c", "echo pre >> /out/log"] },
      }),
      sh("trap '' TERM; echo deaf >> /out/deaf; while :; do sleep 0.05; done", {
        name: "deaf",
        mounts: [out],
      }),
    ],
    // The deaf one is killed after it; preStop and the trap have to be done before.
    { volumes, terminationGracePeriodSeconds: 4 },
  );
  await machine.apply(reader, hooked);
  await machine.until(
    "both ready",
    async () => (await machine.pod("hooked"))?.ready === true && (await machine.pod("reader"))?.ready,
  );
  await machine.until(
    "the deaf one is up",
    async () => (await machine.exec("reader", "main", "test", "-e", "/out/deaf")).code === 0,
  );
  await machine.apply(reader);
  await machine.until("terminating", async () => (await machine.pod("hooked"))?.terminating);
  await machine.until("gone", async () => (await machine.pod("hooked")) === undefined);
  // As in Kubernetes, the container's program and its postStart hook begin in no certain order.
  const log = (await machine.exec("reader", "main", "cat", "/out/log")).stdout;
  assert.match(log, /^(start\npost|post\nstart)\npre\nterm\n$/);
});

test("volumes: files change in one step, emptyDirs are shared, claims outlive, modes and groups fit", async () => {
  const file = (text: string): { path: string; mode: number; base64: string }[] => [
    { path: "app.conf", mode: 0o644, base64: Buffer.from(text).toString("base64") },
  ];
  const plan = (text: string): ReturnType<typeof pod> =>
    pod(
      "volumes",
      [
        container({
          runAsUser: 1000,
          mounts: [
            { volume: "config", mountPath: "/etc/some-app/conf", subPath: null, readOnly: false },
            { volume: "config", mountPath: "/etc/one.conf", subPath: "app.conf", readOnly: true },
            { volume: "scratch", mountPath: "/data/deep/dir", subPath: null, readOnly: false },
            { volume: "memory", mountPath: "/var/lib/some-cache", subPath: null, readOnly: false },
            { volume: "host", mountPath: "/host-etc", subPath: null, readOnly: true },
          ],
        }),
      ],
      {
        fsGroup: 2000,
        volumes: [
          { name: "config", kind: "files", secret: false, files: file(text) },
          { name: "scratch", kind: "emptyDir", medium: "", sizeLimitBytes: null },
          { name: "memory", kind: "emptyDir", medium: "Memory", sizeLimitBytes: 1 << 20 },
          { name: "host", kind: "hostPath", path: "/etc", type: "Directory" },
        ],
      },
    );
  await machine.apply(plan("first"));
  await machine.until("ready", async () => (await machine.pod("volumes"))?.ready);
  const run = async (script: string): Promise<string> =>
    (await machine.exec("volumes", "main", "sh", "-c", script)).stdout.trim();
  assert.equal(await run("cat /etc/some-app/conf/app.conf /etc/one.conf"), "firstfirst");
  assert.equal(await run("cat /etc/hostname /host-etc/passwd | head -1"), "volumes");
  assert.equal(await run("echo x > /data/deep/dir/f && stat -c %g /data/deep/dir/f"), "2000");
  assert.equal(
    await run(
      "head -c 3000000 /dev/zero > /var/lib/some-cache/f 2>/dev/null; stat -c %s /var/lib/some-cache/f",
    ),
    String(1 << 20),
  );
  assert.equal(await run("touch /etc/some-app/conf/x /host-etc/x 2>&1 | grep -c 'Read-only'"), "2");
  await machine.apply(plan("second"));
  await machine.until(
    "the file has changed",
    async () => (await run("cat /etc/some-app/conf/app.conf")) === "second",
  );
  assert.equal(
    await run("ls -A /etc/some-app/conf | sort | head -1; readlink /etc/some-app/conf/app.conf"),
    "..data\n..data/app.conf",
  );
});

test("a hostPath into the mesh's own folders is refused, and they are masked inside a wider one", async () => {
  const host = (name: string, path: string): ReturnType<typeof pod> =>
    pod(name, [container({ mounts: [{ volume: "v", mountPath: "/v", subPath: null, readOnly: false }] })], {
      volumes: [{ name: "v", kind: "hostPath", path, type: "" }],
    });
  await machine.apply(host("inside", `${machine.dir}/state/${machine.name}`), host("around", machine.dir));
  await machine.until("refused", async () =>
    (await machine.pod("inside"))?.message.includes("belongs to the mesh"),
  );
  await machine.until("ready", async () => (await machine.pod("around"))?.ready);
  assert.equal(
    (await machine.exec("around", "main", "sh", "-c", "ls -A /v/state /v/run | grep -v :")).stdout.trim(),
    "",
  );
});

test("a port of the machine leads into the pod", async () => {
  const server = "import http from 'node:http'; http.createServer((q, s) => s.end('hello')).listen(8080)";
  await machine.apply(
    pod("published", [
      container({
        argv: ["node", "--input-type=module", "-e", server],
        ports: [{ name: "http", containerPort: 8080, protocol: "TCP", hostPort: 18080, hostIp: null }],
        readinessProbe: probe({ kind: "tcp", port: 8080, host: null }),
      }),
    ]),
  );
  await machine.until("ready", async () => (await machine.pod("published"))?.ready);
  for (const host of ["127.0.0.1", "10.211.0.1"]) {
    assert.equal(
      machine.run("curl", "-s", "--max-time", "5", `http://${host}:18080/`).stdout,
      "hello",
      `through ${host}`,
    );
  }
});
