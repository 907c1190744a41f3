/** What the kernel counts, against what was really sent. eBPF only: nftables counts nothing for us. */
import assert from "node:assert/strict";
import { after, afterEach, before, beforeEach, describe, test } from "node:test";
import type { IpAddress } from "#/base/address.ts";
import {
  detectSupport,
  openInterceptor,
  sweepLeftovers,
  type Interceptor,
  type PodTraffic,
} from "#/kernel/interception.ts";
import { cannotRun, POD4, POD6, Rig, WORLD4, WORLD6 } from "./rig.ts";

const skip = cannotRun();
const support = skip === null ? detectSupport().ebpf : null;
const BYTES = 100_000;

describe(
  "kernel telemetry",
  { skip: skip ?? (support?.ok === true ? false : `no eBPF here: ${support?.reason}`) },
  () => {
    let rig: Rig;
    let interceptor: Interceptor;

    before(async () => {
      rig = new Rig();
      await rig.startServer("world", "world", `tcp:${WORLD4}:80`, `tcp:${WORLD6}:80`, `hold:${WORLD4}:81`);
      interceptor = openInterceptor("ebpf", rig.instance);
    });
    after(async () => {
      interceptor?.close();
      sweepLeftovers(rig.instance);
      await rig?.[Symbol.asyncDispose]();
    });
    beforeEach(() => interceptor.install(rig.interception()));
    // A pod that is removed takes its counters along, so every test begins at zero.
    afterEach(() => interceptor.remove(rig.instance, rig.pod));

    for (const [ip, path] of [
      [WORLD4, "let-through"],
      [WORLD6, "let-through"],
      [WORLD4, "proxied"],
      [WORLD6, "proxied"],
    ] as const) {
      test(`outbound to ${ip}, ${path}: connections and every byte, FINs left out (RFC 9293 §3.4)`, async () => {
        const sidecar = path === "proxied" ? await rig.startSidecar("forward") : null;
        if (path === "let-through") interceptor.update(rig.interception({ skipOutboundPorts: [80] }));
        const seen = await rig.run("app", { to: { ip, port: 80 }, send: "x".repeat(BYTES), receive: true });
        const counted = await settled(interceptor, (one) => one.direction === "outbound" && one.bytesIn > 0);
        assert.equal(counted.path, path);
        assert.deepEqual(counted.target, { ip, port: 80 });
        assert.equal(counted.instance, rig.instance);
        assert.equal(counted.pod, rig.pod);
        assert.equal(counted.connections, 1);
        assert.equal(counted.failures, 0);
        assert.equal(counted.bytesOut, BYTES);
        assert.equal(counted.bytesIn, seen.received?.length);
        assert.ok(counted.rttUs !== null && counted.rttUs > 0 && counted.rttUs < 1_000_000);
        // Nothing inside the pod is counted: not the application's way to the sidecar.
        assert.equal(interceptor.readTelemetry().length, 1);
        if (sidecar !== null) await rig.stop(sidecar.child);
      });
    }

    for (const path of ["let-through", "proxied"] as const) {
      test(`inbound, ${path}: by the pod's own address and port`, async () => {
        const app = await rig.startServer("app", "app", "tcp:0.0.0.0:8000", `tcp:${POD6}:8000`);
        const sidecar = path === "proxied" ? await rig.startSidecar("forward") : null;
        if (path === "let-through") interceptor.update(rig.interception({ skipInboundPorts: [8000] }));
        const sent = "y".repeat(BYTES);
        const outcomes = await rig.runMany("world", {
          to: { ip: POD4, port: 8000 },
          send: sent,
          receive: true,
          times: 3,
        });
        const received = outcomes.reduce((sum, seen) => sum + (seen.received?.length ?? 0), 0);
        const counted = await settled(interceptor, (one) => one.bytesIn === 3 * BYTES);
        assert.equal(counted.direction, "inbound");
        assert.equal(counted.path, path);
        assert.deepEqual(counted.target, { ip: POD4, port: 8000 });
        assert.equal(counted.connections, 3);
        assert.equal(counted.bytesOut, received);
        assert.equal(interceptor.readTelemetry().length, 1);
        await rig.stop(app);
        if (sidecar !== null) await rig.stop(sidecar.child);
      });
    }

    test("attempts that fail are counted under what was dialled: no sidecar, no server", async () => {
      const dead = { ip: "192.0.2.9" as IpAddress, port: 443 };
      await rig.runMany("app", { to: dead, times: 2 });
      const refused = await settled(interceptor, (one) => one.failures === 2);
      assert.deepEqual([refused.path, refused.target, refused.connections], ["proxied", dead, 0]);
      interceptor.update(rig.interception({ skipOutboundPorts: [9] }));
      await rig.run("app", { to: { ip: WORLD4, port: 9 } });
      const closed = await settled(interceptor, (one) => one.path === "let-through");
      assert.deepEqual([closed.target, closed.failures], [{ ip: WORLD4, port: 9 }, 1]);
    });

    for (const [what, errand] of [
      ["closes before the remote FIN has come", { port: 81, receiveSome: true }],
      ["resets", { port: 81, receiveSome: true, end: "reset" }],
      ["half-closes and reads to the end", { port: 80, receive: true }],
    ] as const) {
      test(`a short connection whose program ${what} is counted to the byte (RFC 9293 §3.4)`, async () => {
        const { port, ...rest } = errand;
        interceptor.update(rig.interception({ skipOutboundPorts: [port] }));
        // Too few segments to be added up before the end.
        const bytes = 10_000;
        const seen = await rig.run("app", { to: { ip: WORLD4, port }, send: "x".repeat(bytes), ...rest });
        const counted = await settled(interceptor, (one) => one.bytesOut > 0);
        assert.deepEqual(
          [counted.connections, counted.bytesIn, counted.bytesOut],
          [1, seen.received?.length, bytes],
        );
      });
    }

    test("a socket that connects anew is counted anew", async () => {
      interceptor.update(rig.interception({ skipOutboundPorts: [80] }));
      const send = "x".repeat(BYTES);
      await rig.run("app", { to: { ip: WORLD4, port: 80 }, send, again: true, receive: true });
      // Of the first, what was acknowledged before it was reset.
      const counted = await settled(interceptor, (one) => one.bytesIn > BYTES);
      assert.equal(counted.connections, 2);
      assert.ok(counted.bytesOut > BYTES, `${counted.bytesOut}`);
    });

    test("a long connection is added up while it is open", async () => {
      interceptor.update(rig.interception({ skipOutboundPorts: [81] }));
      await rig.run("app", { to: { ip: WORLD4, port: 81 }, send: "x".repeat(BYTES), end: "never" });
      const counted = await settled(interceptor, (one) => one.bytesOut > 0);
      assert.equal(counted.connections, 1);
      assert.ok(counted.bytesOut <= BYTES);
      assert.ok(counted.rttUs !== null);
    });

    test("lost segments show as retransmits", async () => {
      interceptor.update(rig.interception({ skipOutboundPorts: [80] }));
      const table = `table ip ${rig.instance} { chain in { type filter hook input priority 0; tcp dport 80 meta length > 200 numgen inc mod 2 == 1 drop; }; }`;
      rig.nsenter("world", "nft", table);
      await rig.run("app", { to: { ip: WORLD4, port: 80 }, send: "z".repeat(BYTES), receive: true });
      const counted = await settled(interceptor, (one) => one.bytesOut === BYTES);
      assert.ok(counted.retransmits > 0);
      rig.nsenter("world", "nft", "delete", "table", "ip", rig.instance);
    });
  },
);

/** Counters are added up when a connection closes, a moment after its program is gone. */
async function settled(interceptor: Interceptor, wanted: (one: PodTraffic) => boolean): Promise<PodTraffic> {
  const POLL_MS = 5;
  for (let tries = 0; tries < 1000; tries++) {
    const found = interceptor.readTelemetry().find(wanted);
    if (found !== undefined) return found;
    await new Promise((resolve) => setTimeout(resolve, POLL_MS));
  }
  assert.fail(`not counted: ${JSON.stringify(interceptor.readTelemetry())}`);
}
