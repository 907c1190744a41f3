/**
 * The interception contract, proved with real sockets, the same for eBPF and nftables. Where nftables cannot do what eBPF
 * does, the test says so in its expectation, and docs/transparency.md lists it.
 */
import assert from "node:assert/strict";
import { after, before, beforeEach, describe, test } from "node:test";
import type { IpAddress } from "#/base/address.ts";
import {
  detectSupport,
  openInterceptor,
  sweepLeftovers,
  type Interceptor,
  type PodInterception,
} from "#/kernel/interception.ts";
import { cannotRun, POD4, POD6, Rig, SIDECAR_UID, WORLD4, WORLD6, type Sidecar } from "./rig.ts";

const skipAll = cannotRun();
const support = skipAll === null ? detectSupport() : null;
const IPPROTO_MPTCP = 262;
const OUTSIDE4 = "192.0.2.7" as IpAddress;
const OUTSIDE6 = "2001:db8::7" as IpAddress;

for (const kind of ["ebpf", "nftables"] as const) {
  const unsupported =
    support === null || support[kind].ok ? null : `no ${kind} here: ${support[kind].reason}`;
  describe(`interception by ${kind}`, { skip: skipAll ?? unsupported ?? false }, () => {
    let rig: Rig;
    let interceptor: Interceptor;
    let sidecar: Sidecar;

    before(async () => {
      rig = new Rig();
      interceptor = openInterceptor(kind, rig.instance);
      interceptor.install(rig.interception());
      sidecar = await rig.startSidecar();
      await rig.startServer(
        "app",
        "app",
        "tcp:0.0.0.0:80",
        `tcp:${POD6}:80`,
        "tcp:0.0.0.0:81",
        `tcp:${POD6}:81`,
      );
      await rig.startServer("world", "world", `tcp:${WORLD4}:80`, `tcp:${WORLD6}:80`, `tcp:${WORLD4}:81`);
    });
    after(async () => {
      interceptor?.remove(rig.instance, rig.pod);
      interceptor?.close();
      sweepLeftovers(rig.instance);
      await rig?.[Symbol.asyncDispose]();
    });
    beforeEach(() => interceptor.update(rig.interception()));

    describe("inbound, refused by policy for its address", () => {
      const DIALS = [
        { to: { ip: POD4, port: 80 }, from: `${WORLD4}/32:80` },
        { to: { ip: POD6, port: 80 }, from: `${WORLD6}/128:80` },
      ];
      test("never reaches the sidecar, is answered with a reset, and goes through again when the rule has gone", async () => {
        for (const { to } of DIALS) {
          assert.equal((await rig.run("world", { to, receive: true })).error, null, "before");
          await sidecar.accepted();
        }
        interceptor.update(rig.interception({ refusedInbound: DIALS.map(({ from }) => from) }));
        for (const { to } of DIALS) {
          assert.equal((await rig.run("world", { to, receive: true })).error, "ECONNREFUSED", to.ip);
          // Another port, and the pod itself, are not meant.
          assert.equal((await rig.run("world", { to: { ...to, port: 81 }, receive: true })).error, null);
          assert.equal(
            (await sidecar.accepted()).original?.port,
            81,
            "the next that it accepts is the other port's",
          );
          assert.equal((await rig.run("app", { to, receive: true })).error, null, "from inside");
        }
        if (kind === "ebpf") {
          const refused = interceptor.readTelemetry().filter(({ path }) => path === "refused");
          assert.deepEqual(
            refused
              .map(
                ({ target, connections, direction }) =>
                  `${direction} ${target.ip} ${target.port}: ${connections}`,
              )
              .toSorted(),
            DIALS.map(({ to }) => `inbound ${to.ip} ${to.port}: 1`).toSorted(),
          );
        } else
          assert.match(
            rig.nsenter("app", "nft", "list", "chain", "inet", "pillion", "pillion_refusals"),
            /counter packets 1 /,
          );
        interceptor.update(rig.interception());
        for (const { to } of DIALS) {
          assert.equal((await rig.run("world", { to, receive: true })).error, null, "after");
          await sidecar.accepted();
        }
      });

      test("is no way to close what is not steered: the admin port, skipped ports and networks", async () => {
        const refusedInbound = [`${WORLD4}/32:81`, "0.0.0.0/0:81"];
        interceptor.update(rig.interception({ refusedInbound, skipInboundPorts: [81] }));
        const seen = await rig.run("world", { to: { ip: POD4, port: 81 }, receive: true });
        assert.equal(seen.error, null);
      });
    });

    describe("outbound", () => {
      const cases = [
        { what: "IPv4", to: { ip: OUTSIDE4, port: 8080 }, pod: POD4, listener: "outbound" },
        { what: "IPv6", to: { ip: OUTSIDE6, port: 8080 }, pod: POD6, listener: "outbound6" },
        {
          what: "IPv4 from an IPv6 socket",
          to: { ip: OUTSIDE4, port: 8081 },
          family: "mapped",
          pod: POD4,
          listener: "outbound",
        },
        {
          what: "MPTCP",
          to: { ip: OUTSIDE4, port: 8082 },
          protocol: IPPROTO_MPTCP,
          pod: POD4,
          listener: "outbound",
        },
        {
          what: "MPTCP over IPv6",
          to: { ip: OUTSIDE6, port: 8082 },
          protocol: IPPROTO_MPTCP,
          pod: POD6,
          listener: "outbound6",
        },
        {
          what: "a non-blocking connect",
          to: { ip: OUTSIDE4, port: 8083 },
          nonBlocking: true,
          pod: POD4,
          listener: "outbound",
        },
        {
          what: "a socket bound to the pod's address",
          to: { ip: OUTSIDE4, port: 8084 },
          bind: { ip: POD4, port: 0 },
          pod: POD4,
          listener: "outbound",
        },
        {
          what: "a socket bound to a port only",
          to: { ip: OUTSIDE4, port: 8085 },
          bind: { ip: "0.0.0.0", port: 27110 },
          pod: POD4,
          listener: "outbound",
        },
        {
          what: "TCP Fast Open",
          to: { ip: OUTSIDE4, port: 8088 },
          fastOpen: true,
          send: "early",
          pod: POD4,
          listener: "outbound",
        },
        {
          what: "the sidecar's own port elsewhere",
          to: { ip: OUTSIDE4, port: 4140 },
          pod: POD4,
          listener: "outbound",
        },
      ] as const;
      for (const { what, pod, listener, ...errand } of cases) {
        test(`${what}: the sidecar learns the original destination, the application sees what it asked for`, async () => {
          const seen = await rig.run("app", { ...errand, receive: true });
          assert.equal(seen.error, null);
          const accepted = await sidecar.accepted();
          assert.equal(accepted.listener, listener);
          assert.deepEqual(accepted.original, errand.to);
          assert.equal(accepted.peer.port, seen.local?.port);
          assert.equal(seen.received, `sidecar ${listener} ${errand.to.ip} ${errand.to.port}`);
          assert.deepEqual(seen.remote, errand.to);
          assert.equal(seen.local?.ip, pod);
        });
      }

      test("a socket bound to a device reaches the sidecar", async () => {
        const to = { ip: OUTSIDE4, port: 8086 };
        const hurry = { nonBlocking: true, waitMs: 500 };
        const seen = await rig.run("app", { to, device: rig.podDevice, ...hurry, receive: true });
        // The kernel routes it out of that device all the same, where nftables has sent it nowhere.
        assert.equal(seen.error, kind === "ebpf" ? null : "ETIMEDOUT");
        if (kind === "ebpf") assert.deepEqual((await sidecar.accepted()).original, to);
      });

      test("the sidecar sees the pod's address as its client's", async () => {
        await rig.run("app", { to: { ip: OUTSIDE4, port: 8080 }, receive: true });
        assert.equal((await sidecar.accepted()).peer.ip, POD4);
      });

      test("a client that sends and closes at once is served", async () => {
        const times = 50;
        const outcomes = await rig.runMany("app", { to: { ip: OUTSIDE4, port: 8087 }, send: "bye", times });
        assert.deepEqual(
          outcomes.map((outcome) => outcome.error),
          Array.from({ length: times }, () => null),
        );
        for (let i = 0; i < times; i++)
          assert.deepEqual((await sidecar.accepted()).original, { ip: OUTSIDE4, port: 8087 });
      });

      test("a connection that nobody intercepted has no original destination, and the sidecar refuses it", async () => {
        await rig.run("app", { to: { ip: "127.0.0.1", port: 4140 }, receive: true });
        // Conntrack answers with the sidecar's own address, which a sidecar refuses as a loop.
        const expected = kind === "ebpf" ? null : { ip: "127.0.0.1", port: 4140 };
        assert.deepEqual((await sidecar.accepted()).original, expected);
      });

      test("connections inside the pod are left alone: loopback and its own addresses", async () => {
        for (const ip of ["127.0.0.1", POD4, POD6]) {
          const seen = await rig.run("app", { to: { ip, port: 80 }, receive: true });
          assert.match(seen.received ?? seen.error ?? "", /^app /, ip);
        }
      });

      test("a listed port or network is let through, with or without a port", async () => {
        const direct = async (changes: Partial<PodInterception>, port: number): Promise<string> => {
          interceptor.update(rig.interception(changes));
          const seen = await rig.run("app", { to: { ip: WORLD4, port }, receive: true });
          if (seen.received?.startsWith("sidecar") === true) await sidecar.accepted();
          return seen.received?.split(" ")[0] ?? `${seen.error}`;
        };
        assert.equal(await direct({}, 80), "sidecar");
        assert.equal(await direct({ skipOutboundPorts: [80] }, 80), "world");
        assert.equal(await direct({ skipOutboundPorts: [80] }, 81), "sidecar");
        assert.equal(await direct({ letThroughCidrs: ["10.77.0.0/24"] }, 80), "world");
        assert.equal(await direct({ letThroughCidrs: ["10.77.0.0/24:80"] }, 80), "world");
        assert.equal(await direct({ letThroughCidrs: ["10.77.0.0/24:80"] }, 81), "sidecar");
        assert.equal(await direct({ letThroughCidrs: ["10.78.0.0/16", "fd00::/8"] }, 80), "sidecar");
        assert.equal(await direct({}, 80), "sidecar");
      });

      test("IPv6 in a pod without an IPv6 address fails at once, so that programs fall back to IPv4", async () => {
        interceptor.update(rig.interception({ podIps: [POD4] }));
        const seen = await rig.run("app", { to: { ip: OUTSIDE6, port: 80 } });
        assert.equal(seen.error, kind === "ebpf" ? "ENETUNREACH" : "ECONNREFUSED");
      });
    });

    describe("inbound", () => {
      for (const [ip, listener] of [
        [POD4, "inbound"],
        [POD6, "inbound6"],
      ] as const) {
        test(`any port of ${ip} reaches the sidecar, which learns the address and port that were dialled`, async () => {
          for (const port of [80, 12345, 65535]) {
            const seen = await rig.run("world", { to: { ip, port }, receive: true });
            assert.equal(seen.received, `sidecar ${listener} ${ip} ${port}`);
            const accepted = await sidecar.accepted();
            assert.deepEqual(accepted.original, { ip, port });
            assert.equal(accepted.peer.ip, ip === POD4 ? WORLD4 : WORLD6);
          }
        });
      }

      test("the sidecar's own inbound port is its own original destination", async () => {
        await rig.run("world", { to: { ip: POD4, port: 4143 }, receive: true });
        assert.deepEqual((await sidecar.accepted()).original, { ip: POD4, port: 4143 });
      });

      test("the admin port and listed ports and sources bypass the inbound listener", async () => {
        assert.match(
          (await rig.run("world", { to: { ip: POD4, port: 4191 }, receive: true })).received ?? "",
          /^sidecar admin/,
        );
        await sidecar.accepted();
        interceptor.update(rig.interception({ skipInboundPorts: [80] }));
        assert.match(
          (await rig.run("world", { to: { ip: POD4, port: 80 }, receive: true })).received ?? "",
          /^app /,
        );
        assert.match(
          (await rig.run("world", { to: { ip: POD4, port: 81 }, receive: true })).received ?? "",
          /^sidecar inbound/,
        );
        await sidecar.accepted();
        interceptor.update(rig.interception({ skipInboundCidrs: ["10.77.0.0/24"] }));
        assert.match(
          (await rig.run("world", { to: { ip: POD4, port: 81 }, receive: true })).received ?? "",
          /^app /,
        );
      });

      test("the sidecar reaches the application at the pod's address and at loopback", async () => {
        for (const ip of [POD4, POD6, "127.0.0.1"]) {
          const seen = await rig.run("sidecar", { to: { ip, port: 80 }, receive: true, uid: SIDECAR_UID });
          assert.match(seen.received ?? seen.error ?? "", /^app /, ip);
        }
      });

      test("the sidecar reaches the world", async () => {
        for (const ip of [WORLD4, WORLD6]) {
          const seen = await rig.run("sidecar", { to: { ip, port: 80 }, receive: true, uid: SIDECAR_UID });
          assert.match(seen.received ?? seen.error ?? "", /^world /, ip);
        }
      });
    });

    describe("virtual IPs", () => {
      const vip = "10.96.0.10" as IpAddress;
      const vip6 = "fd96::10" as IpAddress;
      before(async () => {
        await rig.startServer("world", "dns", `udp:${WORLD4}:5353`, `udp:${WORLD6}:5353`);
        await rig.startServer("world", "other", `tcp:${WORLD4}:82`, `udp:${WORLD4}:5354`);
        interceptor.setServices([
          { ip: vip, port: 53, protocol: "udp", backends: [{ ip: WORLD4, port: 5353 }] },
          { ip: vip6, port: 53, protocol: "udp", backends: [{ ip: WORLD6, port: 5353 }] },
          { ip: vip, port: 80, protocol: "tcp", backends: [{ ip: WORLD4, port: 80 }] },
          { ip: vip, port: 81, protocol: "tcp", backends: [] },
          { ip: vip, port: 81, protocol: "udp", backends: [] },
          {
            ip: vip,
            port: 82,
            protocol: "tcp",
            backends: [
              { ip: WORLD4, port: 80 },
              { ip: WORLD4, port: 82 },
            ],
          },
        ]);
      });
      after(() => interceptor.setServices([]));

      for (const connected of [false, true]) {
        for (const [ip, family] of [
          [vip, "inet"],
          [vip6, "inet6"],
          [vip, "mapped"],
        ] as const) {
          test(`UDP to ${ip} (${family}, ${connected ? "connected" : "unconnected"}) is answered from the virtual IP`, async () => {
            const to = { ip, port: 53 };
            const seen = await rig.run("app", {
              to,
              family,
              datagram: true,
              connected,
              send: "q",
              receive: true,
            });
            assert.equal(seen.received, "dns q");
            assert.deepEqual(seen.from, to);
            if (connected) assert.deepEqual(seen.remote, to);
          });
        }
      }

      test("UDP to other addresses is not touched", async () => {
        const to = { ip: WORLD4, port: 5354 };
        const seen = await rig.run("app", { to, datagram: true, send: "q", receive: true });
        assert.equal(seen.received, "other q");
        assert.deepEqual(seen.from, to);
      });

      test("meshed: TCP to a virtual IP goes to the sidecar under its own name", async () => {
        await rig.run("app", { to: { ip: vip, port: 80 }, receive: true });
        assert.deepEqual((await sidecar.accepted()).original, { ip: vip, port: 80 });
      });

      test("let through: TCP to a virtual IP reaches a ready backend, and the application sees the virtual IP", async () => {
        interceptor.update(rig.interception({ letThroughCidrs: ["10.96.0.0/16"] }));
        const seen = await rig.run("app", { to: { ip: vip, port: 80 }, receive: true });
        assert.match(seen.received ?? "", /^world /);
        assert.deepEqual(seen.remote, { ip: vip, port: 80 });
      });

      test("service-only: every backend is used, and nothing is steered", async () => {
        interceptor.update(rig.interception({ mode: "service-only" }));
        const outcomes = await rig.runMany("app", { to: { ip: vip, port: 82 }, receive: true, times: 40 });
        assert.deepEqual(
          new Set(outcomes.map((outcome) => outcome.received?.split(" ")[0])),
          new Set(["other", "world"]),
        );
        assert.match(
          (await rig.run("app", { to: { ip: WORLD4, port: 80 }, receive: true })).received ?? "",
          /^world /,
        );
        assert.match(
          (await rig.run("world", { to: { ip: POD4, port: 80 }, receive: true })).received ?? "",
          /^app /,
        );
      });

      for (const changes of [{ mode: "service-only" }, { letThroughCidrs: ["10.96.0.0/16"] }] as const) {
        test(`nobody ready: the connection is refused at once (${Object.keys(changes).join()})`, async () => {
          interceptor.update(rig.interception(changes));
          assert.equal((await rig.run("app", { to: { ip: vip, port: 81 } })).error, "ECONNREFUSED");
          assert.equal(
            (await rig.run("app", { to: { ip: vip, port: 81 }, datagram: true, send: "q" })).error,
            "EPERM",
          );
        });
      }

      test("changed backends count from the next connection", async () => {
        interceptor.update(rig.interception({ mode: "service-only" }));
        const to = { ip: vip, port: 83 };
        interceptor.setServices([
          { ip: vip, port: 83, protocol: "tcp", backends: [{ ip: WORLD4, port: 80 }] },
        ]);
        assert.match((await rig.run("app", { to, receive: true })).received ?? "", /^world /);
        interceptor.setServices([
          { ip: vip, port: 83, protocol: "tcp", backends: [{ ip: WORLD4, port: 82 }] },
        ]);
        assert.match((await rig.run("app", { to, receive: true })).received ?? "", /^other /);
        interceptor.setServices([]);
        assert.doesNotMatch(
          (await rig.run("app", { to: { ip: vip, port: 53 }, datagram: true, send: "q" })).received ?? "",
          /dns/,
        );
      });
    });

    describe("with no sidecar", () => {
      test("both directions are refused, and come back when it listens again", async () => {
        await rig.stop(sidecar.child);
        for (const [place, ip, port] of [
          ["app", OUTSIDE4, 80],
          ["app", OUTSIDE6, 80],
          ["app", WORLD4, 80],
          ["world", POD4, 80],
          ["world", POD6, 80],
          ["world", POD4, 12345],
        ] as const) {
          const seen = await rig.run(place, { to: { ip, port }, receive: true });
          assert.equal(seen.error, "ECONNREFUSED", `${place} to ${ip}:${port}`);
        }
        assert.match(
          (await rig.run("app", { to: { ip: "127.0.0.1", port: 80 }, receive: true })).received ?? "",
          /^app /,
        );

        sidecar = await rig.startSidecar();
        assert.match(
          (await rig.run("app", { to: { ip: OUTSIDE4, port: 80 }, receive: true })).received ?? "",
          /^sidecar outbound /,
        );
        await sidecar.accepted();
        assert.match(
          (await rig.run("world", { to: { ip: POD4, port: 80 }, receive: true })).received ?? "",
          /^sidecar inbound /,
        );
        await sidecar.accepted();
      });

      test("another process on the sidecar's ports gets nothing", async () => {
        await rig.stop(sidecar.child);
        const thief = await rig.startServer("app", "thief", "tcp:0.0.0.0:4143", "tcp:127.0.0.1:4140");
        const hurry = { nonBlocking: true, waitMs: 500, receive: true };
        const out = await rig.run("app", { to: { ip: OUTSIDE4, port: 80 }, ...hurry });
        const inward = await rig.run("world", { to: { ip: POD4, port: 80 }, ...hurry });
        await rig.stop(thief);
        sidecar = await rig.startSidecar();
        // nftables sees the thief only when it answers, and then can but drop the answer.
        const expected = kind === "ebpf" ? "ECONNREFUSED" : "ETIMEDOUT";
        assert.equal(out.error, expected);
        assert.equal(inward.error, expected);
      });

      test("one dual-stack listener serves both families", async () => {
        await rig.stop(sidecar.child);
        sidecar = await rig.startSidecar("dual-stack");
        for (const ip of [POD4, POD6]) {
          const seen = await rig.run("world", { to: { ip, port: 80 }, receive: true });
          assert.equal(seen.received, `sidecar inbound ${ip} 80`);
          await sidecar.accepted();
        }
        await rig.stop(sidecar.child);
        sidecar = await rig.startSidecar();
      });
    });

    describe("across processes", () => {
      test("interception outlives the process that installed it, and another adopts it", async () => {
        interceptor.close();
        await rig.run("app", { to: { ip: OUTSIDE4, port: 80 }, receive: true });
        assert.deepEqual((await sidecar.accepted()).original, { ip: OUTSIDE4, port: 80 });
        interceptor = openInterceptor(kind, rig.instance);
        assert.equal(interceptor.adopt(rig.interception()), true);
        // The same listeners serve: the sidecar was not restarted.
        await rig.run("world", { to: { ip: POD4, port: 80 }, receive: true });
        assert.deepEqual((await sidecar.accepted()).original, { ip: POD4, port: 80 });
        interceptor.update(rig.interception({ skipOutboundPorts: [80] }));
        assert.match(
          (await rig.run("app", { to: { ip: WORLD4, port: 80 }, receive: true })).received ?? "",
          /^world /,
        );
      });

      test("a pod that nobody installed cannot be adopted", () => {
        assert.equal(
          interceptor.adopt(rig.interception({ pod: "nobody", netnsPath: rig.worldNetnsPath })),
          false,
        );
      });

      test("removed, nothing is left, and traffic is as if there were no mesh", async () => {
        interceptor.remove(rig.instance, rig.pod);
        assert.deepEqual(rig.leftovers(), []);
        assert.match(
          (await rig.run("app", { to: { ip: WORLD4, port: 80 }, receive: true })).received ?? "",
          /^world /,
        );
        assert.match(
          (await rig.run("world", { to: { ip: POD4, port: 80 }, receive: true })).received ?? "",
          /^app /,
        );
        interceptor.remove(rig.instance, rig.pod);
        assert.equal(interceptor.adopt(rig.interception()), false);
        interceptor.install(rig.interception());
        await rig.stop(sidecar.child);
        sidecar = await rig.startSidecar();
        await rig.run("app", { to: { ip: OUTSIDE4, port: 80 }, receive: true });
        assert.deepEqual((await sidecar.accepted()).original, { ip: OUTSIDE4, port: 80 });
      });
    });
  });
}
