import assert from "node:assert/strict";
import { after, before, describe, test } from "node:test";
import type { Observation, Places } from "./fixtures/transparency-client.ts";
import { Mesh, NAMESPACE, workload } from "./mesh.ts";

const FIXTURES = "/.pillion/mesh/test/e2e/mesh/fixtures";
const NODE = "/.pillion/bin/node";
const OUTSIDE = { "linkerd.io/inject": "disabled" };

export interface Expectations {
  /** What differs from a pod without a sidecar, by parts of the names of what is tried, with the reason. */
  readonly differs?: Readonly<Record<string, string>>;
  /** What a pod without a sidecar cannot do in this mode, so that there is nothing to compare with: it has to work. */
  readonly meshedOnly?: Readonly<Record<string, string>>;
  /** What is left out of this mode, because it needs interception. */
  readonly leftOut?: Readonly<Record<string, string>>;
}

/**
 * One program does the same things with sockets in a meshed pod and in an unmeshed one beside it, and has to see the same:
 * addresses, errors, answers. What does not is on a list (docs/transparency.md), which the run prints.
 */
export function transparency(
  intercept: "ebpf" | "nftables" | "explicit",
  { differs = {}, meshedOnly = {}, leftOut = {} }: Expectations = {},
): void {
  describe(`what a program can notice, interception by ${intercept}`, () => {
    const mesh = new Mesh(`seen-${intercept}`);
    before(async () => {
      mesh.write("namespace.yaml", NAMESPACE);
      for (const [name, annotations] of [
        ["meshed", {}],
        ["unmeshed", OUTSIDE],
        ["inside", {}],
        ["outside", OUTSIDE],
      ] as const) {
        mesh.write(
          `${name}.yaml`,
          workload({
            name,
            command: ["node", `${FIXTURES}/transparency-server.js`],
            // Another port than the program's: without interception the sidecar listens there itself.
            ports: { main: [9006, 8006] },
            readyPort: 8006,
            annotations,
          }),
        );
      }
      mesh.write("udp.yaml", UDP_SERVICE);
      const status = await mesh.up(`--intercept=${intercept}`, "--timeout", "90");
      assert.equal(status.node.intercept, intercept);
    });
    after(async () => await mesh.close());

    /** What the program saw, with its own pod's addresses and Service replaced by words. */
    async function observe(pod: string): Promise<Record<string, Observation>> {
      const own = (await mesh.pod(pod)).ip;
      const [, nameserver = ""] =
        /^nameserver (\S+)/m.exec((await mesh.exec(pod, "cat", "/etc/resolv.conf")).stdout) ?? [];
      const places: Places = {
        meshedService: "meshed",
        unmeshedService: "unmeshed",
        ownService: pod,
        meshedIp: (await mesh.pod("meshed")).ip,
        unmeshedIp: (await mesh.pod("unmeshed")).ip,
        ownIp: own,
        nameserver,
        leftOut: [...Object.keys(leftOut), ...(pod === "outside" ? Object.keys(meshedOnly) : [])],
      };
      const { stdout, stderr } = await mesh.exec(
        pod,
        NODE,
        "--disable-warning=ExperimentalWarning",
        `${FIXTURES}/transparency-client.ts`,
        JSON.stringify(places),
      );
      assert.notEqual(stdout, "", stderr);
      const virtual = (await mesh.status()).services.find(({ name }) => name === pod)?.clusterIp ?? "";
      const plain = JSON.stringify(JSON.parse(stdout))
        .replaceAll(`"${own}"`, `"own address"`)
        .replaceAll(`"::ffff:${own}"`, `"own address, mapped"`);
      const named = plain
        .replaceAll(`"${virtual}"`, `"own Service"`)
        .replaceAll(`"::ffff:${virtual}"`, `"own Service, mapped"`);
      const seen = JSON.parse(named) as Record<string, Observation>;
      return Object.fromEntries(
        Object.entries(seen).map(([what, one]) => [what, { ...one, local: withoutEphemeral(one.local) }]),
      );
    }

    test("the same as without a sidecar", async () => {
      const [inside, outside] = [await observe("inside"), await observe("outside")];
      for (const list of [differs, meshedOnly, leftOut])
        for (const [what, reason] of Object.entries(list)) console.log(`${intercept}: ${what}: ${reason}`);
      const isOn = (list: Readonly<Record<string, string>>, what: string): boolean =>
        Object.keys(list).some((part) => what.includes(part));
      for (const [what, seen] of Object.entries(inside)) {
        const without = outside[what];
        // What a pod without a sidecar sees is what a program sees without a mesh.
        for (const one of [seen, ...(without === undefined ? [] : [without])]) {
          assert.equal(one.error, what.includes("closed") ? "ECONNREFUSED" : null, what);
          if (what.includes("TCP") && one.error === null)
            assert.equal(one.received, "you said 6 bytes", what);
        }
        if (isOn(differs, what))
          assert.notDeepEqual(seen, without, `${what} differs no more: take it off the list`);
        else if (isOn(meshedOnly, what)) assert.equal(without, undefined);
        else assert.deepEqual(seen, without, what);
      }
      assert.ok(Object.keys(inside).length >= 30);
    });

    test("names, as programs ask for them", async () => {
      const ask = async (pod: string): Promise<string> =>
        (
          await mesh.exec(
            pod,
            "sh",
            "-c",
            "dig +short unmeshed.test.svc.cluster.local; dig +short +tcp unmeshed.test.svc.cluster.local; dig +short nothing.test.svc.cluster.local; getent ahostsv4 unmeshed | head -1",
          )
        ).stdout;
      const [inside, outside] = [await ask("inside"), await ask("outside")];
      assert.match(outside, /^(\S+)\n\1\n\1 +STREAM unmeshed\S*\n$/);
      if (intercept === "explicit") assert.match(inside, /^(127\.\S+)\n\1\n\1 +STREAM unmeshed\S*\n$/);
      else assert.equal(inside, outside);
    });
  });
}

const UDP_SERVICE = `apiVersion: v1
kind: Service
metadata: { name: unmeshed-udp, namespace: test }
spec:
  selector: { app: unmeshed }
  ports: [{ name: udp, port: 8053, targetPort: 8053, protocol: UDP }]
`;

/** Ports that the program chose itself stay: they are below all that the kernel chooses from (`ip_local_port_range`). */
function withoutEphemeral(end: Observation["local"]): Observation["local"] {
  return end === null || end.port < FIRST_EPHEMERAL_PORT ? end : { ...end, port: 0 };
}

const FIRST_EPHEMERAL_PORT = 32_768;
