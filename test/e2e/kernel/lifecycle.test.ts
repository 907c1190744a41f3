/** What stays and what goes when processes, cgroups and namespaces come and go. eBPF only: pins are its own. */
import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, describe, test } from "node:test";
import type { IpAddress } from "#/base/address.ts";
import { encodeIndex, SIZE } from "#/kernel/ebpf/layout.ts";
import { Libbpf } from "#/kernel/ebpf/libbpf.ts";
import { Pins } from "#/kernel/ebpf/pins.ts";
import { VerifierError } from "#/kernel/errors.ts";
import { detectSupport, openInterceptor, sweepLeftovers } from "#/kernel/interception.ts";
import { cannotRun, POD4, Rig, WORLD4 } from "./rig.ts";

const skip = cannotRun();
const support = skip === null ? detectSupport().ebpf : null;
const OUTSIDE = { ip: "192.0.2.7" as IpAddress, port: 443 };

describe(
  "what eBPF leaves behind",
  { skip: skip ?? (support?.ok === true ? false : `no eBPF here: ${support?.reason}`) },
  () => {
    let rig: Rig;
    before(() => {
      rig = new Rig();
    });
    after(async () => {
      sweepLeftovers(rig.instance);
      await rig[Symbol.asyncDispose]();
    });

    test("a process that is killed leaves interception whole, and the next one adopts it", async () => {
      const file = join(import.meta.dirname, "fixtures/loader.ts");
      const args = [
        "--disable-warning=ExperimentalWarning",
        file,
        rig.instance,
        JSON.stringify(rig.interception()),
      ];
      const loader = spawn(process.execPath, args, { stdio: ["ignore", "pipe", "inherit"] });
      await new Promise((resolve) => loader.stdout.once("data", resolve));
      const sidecar = await rig.startSidecar();
      await rig.stop(loader);
      await rig.run("app", { to: OUTSIDE, receive: true });
      assert.deepEqual((await sidecar.accepted()).original, OUTSIDE);

      const next = openInterceptor("ebpf", rig.instance);
      assert.equal(next.adopt(rig.interception()), true);
      await rig.run("world", { to: { ip: POD4, port: 5432 }, receive: true });
      assert.deepEqual((await sidecar.accepted()).original, { ip: POD4, port: 5432 });

      // Again over a running pod: as an upgrade does, with the same listeners.
      next.install(rig.interception());
      await rig.run("app", { to: OUTSIDE, receive: true });
      assert.deepEqual((await sidecar.accepted()).original, OUTSIDE);
      await rig.stop(sidecar.child);
      next.close();
    });

    test("programs are swapped under load without one connection going astray", async () => {
      const interceptor = openInterceptor("ebpf", rig.instance);
      interceptor.install(rig.interception());
      const sidecar = await rig.startSidecar();
      const times = 300;
      const load = rig.runMany("app", { to: OUTSIDE, receive: true, times });
      let done = false;
      const finished = load.then(() => (done = true));
      let swaps = 0;
      for (; !done && swaps < 50; swaps++) {
        interceptor.install(rig.interception());
        await new Promise((resolve) => setImmediate(resolve));
      }
      await finished;
      const answers = new Set((await load).map((seen) => seen.received ?? seen.error));
      assert.deepEqual(answers, new Set([`sidecar outbound ${OUTSIDE.ip} ${OUTSIDE.port}`]));
      assert.ok(swaps > 1);
      await rig.stop(sidecar.child);
      interceptor.close();
    });

    test("virtual IPs written by one process are kept, changed and removed by the next", async () => {
      const vip = "10.96.0.1" as IpAddress;
      const to = { ip: vip, port: 80 };
      const only = { mode: "service-only", sidecarCgroup: "" } as const;
      await rig.startServer("world", "one", `tcp:${WORLD4}:80`);
      await rig.startServer("world", "two", `tcp:${WORLD4}:81`);
      const first = openInterceptor("ebpf", rig.instance);
      first.setServices([{ ip: vip, port: 80, protocol: "tcp", backends: [{ ip: WORLD4, port: 80 }] }]);
      first.install(rig.interception(only));
      first.close();
      const second = openInterceptor("ebpf", rig.instance);
      assert.equal(second.adopt(rig.interception(only)), true);
      assert.match((await rig.run("app", { to, receive: true })).received ?? "", /^one /);
      second.setServices([{ ip: vip, port: 80, protocol: "tcp", backends: [{ ip: WORLD4, port: 81 }] }]);
      assert.match((await rig.run("app", { to, receive: true })).received ?? "", /^two /);
      second.close();
    });

    test("a pod whose network namespace was made anew is not adopted, and can be installed over", async () => {
      const other = new Rig();
      const moved = rig.interception({ netnsPath: other.netnsPath });
      const interceptor = openInterceptor("ebpf", rig.instance);
      assert.equal(interceptor.adopt(moved), false);
      interceptor.install(moved);
      assert.equal(interceptor.adopt(moved), true);
      interceptor.close();
      await other[Symbol.asyncDispose]();
    });

    test("an install that fails leaves nothing", () => {
      const interceptor = openInterceptor("ebpf", rig.instance);
      const nowhere = rig.interception({ pod: "half", appCgroup: "/sys/fs/cgroup/not-there" });
      assert.throws(() => interceptor.install(nowhere), { code: "ATTACH_FAILED" });
      assert.throws(
        () => interceptor.install(rig.interception({ pod: "half", letThroughCidrs: ["10.0.0.0/99"] })),
        { code: "BAD_INPUT" },
      );
      assert.ok(!rig.leftovers().includes("half"));
      interceptor.close();
    });

    test("a pod of another version's layout is left as it is, and says so", () => {
      const interceptor = openInterceptor("ebpf", rig.instance);
      interceptor.install(rig.interception());
      const lib = new Libbpf();
      const fd = lib.open(new Pins(rig.instance).mapOf(rig.pod)("mesh_settings"));
      assert.ok(fd !== null);
      const settings = Buffer.alloc(SIZE.mesh_settings);
      assert.ok(lib.lookup(fd, encodeIndex(0), settings));
      settings.writeUInt32LE(99, 0);
      lib.put(fd, encodeIndex(0), settings);
      lib.close(fd);
      assert.throws(
        () => interceptor.adopt(rig.interception()),
        /another version \(layout 99, ours is \d+\): restart the pod/,
      );
      assert.ok(rig.leftovers().length > 14);
      interceptor.remove(rig.instance, rig.pod);
      interceptor.close();
    });

    test("a sweep takes all of one instance and nothing of another", () => {
      const interceptor = openInterceptor("ebpf", rig.instance);
      interceptor.install(rig.interception());
      interceptor.install(rig.interception({ pod: "second" }));
      interceptor.close();
      assert.deepEqual(sweepLeftovers(`${rig.instance}x`), []);
      assert.notDeepEqual(rig.leftovers(), []);
      const removed = sweepLeftovers(rig.instance);
      assert.ok(removed.some((path) => path.endsWith("/shop~2fweb-0~2ev1/link_connect4")));
      assert.deepEqual(rig.leftovers(), []);
      assert.deepEqual(sweepLeftovers(rig.instance), []);
    });

    test("a program that the verifier refuses is told by its last words", () => {
      const folder = mkdtempSync(join(tmpdir(), "pillion-verifier-"));
      try {
        const object = readFileSync(new URL("../../../bpf/out/recvmsg4.bpf.o", import.meta.url));
        // The first instruction of the program, right behind the ELF header, reads a register that nobody has written.
        Buffer.from([0xbf, 0x50, 0, 0, 0, 0, 0, 0]).copy(object, 64);
        const file = join(folder, "recvmsg4.bpf.o");
        writeFileSync(file, object);
        const load = (): void =>
          new Libbpf().load(file, (map) => `/sys/fs/bpf/${rig.instance}_${map}`).close();
        assert.throws(load, (error: unknown) => {
          assert.ok(error instanceof VerifierError, String(error));
          assert.match(error.message, /refused program mesh_recvmsg4: .*R5 !read_ok; check that the kernel/);
          assert.match(error.log, /0: \(bf\) r0 = r5/);
          return true;
        });
      } finally {
        rmSync(folder, { recursive: true });
        for (const map of [
          "mesh_settings",
          "mesh_own",
          "mesh_ports",
          "mesh_cidrs",
          "mesh_targets",
          "mesh_origins",
          "mesh_listeners",
          "mesh_udp",
          "mesh_traffic",
          "mesh_flows",
          "mesh_fin_wait2",
          "mesh_services",
          "mesh_backends",
        ])
          rmSync(`/sys/fs/bpf/${rig.instance}_${map}`, { force: true });
      }
    });
  },
);
