import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { Machine, container, pod, sh } from "./machine.ts";

const machine = new Machine("iso");

before(async () => {
  await machine.start();
  await machine.apply(
    pod("root", [container()]),
    pod(
      "user",
      [
        container({
          runAsUser: 1234,
          runAsGroup: 2345,
          workingDir: "/tmp",
          env: [
            { name: "GREETING", value: "it's $HOME" },
            { name: "IP", field: "status.podIP" },
            { name: "LD_LIBRARY_PATH", value: "/nowhere" },
          ],
        }),
        sh("sleep 1000", { name: "dropped", capabilitiesDrop: ["ALL"], capabilitiesAdd: ["NET_ADMIN"] }),
      ],
      { fsGroup: 3456, supplementalGroups: [4567] },
    ),
    pod("filtered", [
      sh(
        "unshare --user true && echo possible; unshare --user --map-root-user --mount mount -t tmpfs x /tmp && echo possible; keyctl show && echo possible; unshare --uts true; echo $?; sleep 1000",
      ),
    ]),
    pod("greedy", [container({ capabilitiesAdd: ["SYS_ADMIN"] })]),
  );
  await machine.until(
    "both pods ready",
    async () => (await machine.status()).filter((each) => each.ready).length === 3,
  );
});
after(() => machine.close());

const inRoot = async (script: string): Promise<{ code: number; stdout: string; stderr: string }> =>
  await machine.exec("root", "main", "sh", "-c", script);

test("root in a pod has the container runtimes' default capabilities and no new privileges", async () => {
  const { stdout } = await inRoot("grep -E 'CapEff|CapBnd|NoNewPrivs' /proc/self/status");
  assert.match(stdout, /CapEff:\t00000000a00425fb\nCapBnd:\t00000000a00425fb\nNoNewPrivs:\t1/);
});

test("capabilities can be dropped and added, but none that leads out of the pod", async () => {
  const { stdout } = await machine.exec("user", "dropped", "grep", "CapEff", "/proc/self/status");
  assert.match(stdout, /CapEff:\t0000000000001000/);
  const refused = await machine.until("greedy is refused", async () => {
    const status = await machine.pod("greedy");
    return status?.message.includes("SYS_ADMIN") === true && status;
  });
  assert.equal(refused.containers[0]?.state, "waiting");
});

test("the container's user, groups, folder and variables are those of its manifest", async () => {
  const { stdout } = await machine.exec(
    "user",
    "main",
    "sh",
    "-c",
    'id; pwd; echo "$GREETING|$IP|$LD_LIBRARY_PATH"; command -v node',
  );
  assert.match(stdout, /^uid=1234.*gid=2345.*groups=2345.*,3456.*,4567/m);
  assert.match(stdout, /^\/tmp$/m);
  assert.match(stdout, /^it's \$HOME\|10\.211\.0\.\d+\|\/nowhere$/m);
  assert.match(stdout, /^\/\.pillion\/bin\/node$/m);
});

test("a pod sees its own processes only", async () => {
  const { stdout } = await inRoot("ls -d /proc/[0-9]* | wc -l; cat /proc/[0-9]*/cmdline | tr '\\0' ' '");
  assert.ok(Number(stdout.split("\n")[0]) < 10, stdout);
  assert.doesNotMatch(stdout, /driver\.ts|1234/);
});

test("the state folder, run folder, bpffs, cgroup tree and other pods' links are out of sight", async () => {
  const { stdout } = await inRoot(
    `ls -A ${machine.dir}/state ${machine.dir}/run /run/netns /sys/fs/bpf /sys/fs/cgroup 2>/dev/null; ls /sys/class/net /var/lib/pillion /run/pillion 2>/dev/null | grep -v :; grep -cE 'cgroup|bpf|nsfs' /proc/mounts`,
  );
  assert.equal(
    stdout
      .trim()
      .replaceAll(/^\/.*$/gm, "")
      .trim(),
    "0",
  );
});

test("mounting, tracing, loading and writing to the machine are refused", async () => {
  const attempts = {
    mount: "mount -t tmpfs x /tmp",
    remount: "mount -o remount,rw /usr",
    "write to /usr": "touch /usr/pillion-was-here",
    "write to /": "touch /pillion-was-here",
    "write to /etc": "touch /etc/pillion-was-here",
    "write to a sysctl": "echo x > /proc/sys/kernel/core_pattern",
    sysrq: "echo h > /proc/sysrq-trigger",
    "write to /sys": "echo never > /sys/kernel/mm/transparent_hugepage/enabled",
    mknod: "mknod /tmp/disk b 254 0",
    bpf: "bpftool prog list",
    nsenter: "nsenter --target 1 --mount true && nsenter --net=/proc/1/ns/net ip link del eth0",
    "set the machine's name": "hostname other",
  };
  for (const [name, script] of Object.entries(attempts)) {
    const result = await inRoot(`(${script}) 2>&1`);
    assert.notEqual(result.code, 0, `${name} was possible: ${result.stdout}`);
  }
});

test("user namespaces are refused to a pod's programs", async () => {
  const log = await machine.until("its log", async () => {
    const text = await machine.log("filtered", "main");
    return /^\d+$/m.test(text) && text;
  });
  assert.doesNotMatch(log, /^possible$/m);
});

test("each container has a private /tmp, /run, /var/tmp and /var/log", async () => {
  await inRoot("for d in /tmp /run /var/tmp /var/log; do echo mine > $d/pillion-private || exit 1; done");
  const other = await machine.exec(
    "user",
    "main",
    "sh",
    "-c",
    "ls /tmp/pillion-private /run/pillion-private /var/tmp/pillion-private /var/log/pillion-private 2>/dev/null | wc -l",
  );
  assert.equal(other.stdout.trim(), "0");
});

test("the pod has its own name, addresses and resolver", async () => {
  const { stdout } = await inRoot(
    "hostname; cat /etc/hostname /etc/hosts /etc/resolv.conf; ip -o -4 addr show eth0; ip route",
  );
  assert.match(stdout, /^root\nroot\n/);
  assert.match(stdout, /10\.211\.0\.\d+ root/);
  assert.match(stdout, /nameserver 10\.211\.0\.1\nsearch test\.svc\.cluster\.local/);
  assert.match(stdout, /default via 10\.211\.0\.1 dev eth0/);
});

test("pods reach each other and the gateway, and nothing knows of the machine's other networks", async () => {
  const other = (await machine.pod("user"))?.ip ?? "";
  assert.equal((await inRoot(`ping -c 1 -W 2 ${other} && ping -c 1 -W 2 10.211.0.1`)).code, 0);
});
