/**
 * How connections end through the mesh: as they would without it. What is run through it in three combinations is first
 * run past it, and each must see the same. A dead target, where connect() has succeeded already, must end in RST: a
 * FIN would say that this was all.
 */
import assert from "node:assert/strict";
import { after, before, describe, test } from "node:test";
import { Mesh, NAMESPACE, workload } from "./mesh.ts";

const FIXTURES = "/.pillion/mesh/test/e2e/mesh/fixtures";
const OUTSIDE = { "linkerd.io/inject": "disabled" };
const PORTS = [8001, 8002, 8003, 8004, 8005, 8006, 8007, 8008, 8009];
/** In the Service, but nobody listens there. */
const CLOSED_PORT = 8099;
const SOCAT_PORT = 8020;

interface Errand {
  readonly host: string;
  readonly port: number;
  readonly acts: readonly string[];
}
interface Outcome {
  readonly seen: readonly string[];
  readonly text: string;
}

/** First bytes that are no HTTP, so that the sidecars join bytes. */
const ENDINGS: Readonly<
  Record<
    string,
    {
      readonly port: number;
      readonly acts: readonly string[];
      readonly sees: Outcome;
      readonly serverSees: string | null;
    }
  >
> = {
  "an echo, ended by the client": {
    port: 8001,
    acts: ["say:\x00hello", "until:hello", "end"],
    sees: { seen: ["connected", "FIN"], text: "\x00hello" },
    serverSees: "6 bytes, end",
  },
  "a megabyte and an end without a pause": {
    port: 8006,
    acts: ["say-bytes:1000000", "end"],
    sees: { seen: ["connected", "FIN"], text: "you said 1000000 bytes" },
    serverSees: "1000000 bytes, end",
  },
  "an end without a word": {
    port: 8006,
    acts: ["end"],
    sees: { seen: ["connected", "FIN"], text: "you said 0 bytes" },
    serverSees: "0 bytes, end",
  },
  "the server ends its half and goes on listening": {
    port: 8005,
    acts: ["until-fin", "say-bytes:100000", "end"],
    sees: { seen: ["connected", "FIN"], text: "that was all" },
    serverSees: "100000 bytes, end",
  },
  "a reset by the server after its last words": {
    port: 8002,
    acts: ["say:\x00"],
    sees: { seen: ["connected", "ECONNRESET"], text: "last words" },
    serverSees: "1 bytes, ",
  },
  "a reset by the server without a word": {
    port: 8003,
    acts: ["say:\x00"],
    sees: { seen: ["ECONNRESET"], text: "" },
    serverSees: "1 bytes, ",
  },
  "a reset by the server at once": {
    port: 8004,
    acts: [],
    sees: { seen: ["ECONNRESET"], text: "" },
    serverSees: "0 bytes, ",
  },
  "a reset by the server after the client has ended": {
    port: 8007,
    acts: ["say:\x00", "end"],
    sees: { seen: ["ECONNRESET"], text: "" },
    serverSees: "1 bytes, end",
  },
  "a reset by the server after it has ended": {
    port: 8008,
    acts: ["say:\x00", "until-fin", "say-until-broken"],
    sees: { seen: ["connected", "FIN", "EPIPE"], text: "good bye" },
    // How much of what is said meanwhile still arrives is a matter of haste.
    serverSees: null,
  },
  "a reset by the client": {
    port: 8001,
    acts: ["say:\x00hello", "until:hello", "reset"],
    sees: { seen: ["connected"], text: "\x00hello" },
    serverSees: "6 bytes, ECONNRESET",
  },
  "a reset by a client that only listened": {
    port: 8009,
    acts: ["until:hello", "reset"],
    sees: { seen: ["connected"], text: "hello" },
    serverSees: "0 bytes, ECONNRESET",
  },
  "a reset by a client whose server had ended": {
    port: 8005,
    acts: ["until-fin", "reset"],
    sees: { seen: ["connected", "FIN"], text: "that was all" },
    serverSees: "0 bytes, ECONNRESET",
  },
};

const WAYS = [
  { name: "unmeshed → unmeshed, without the mesh", client: "stranger", server: "out" },
  { name: "meshed → meshed", client: "client", server: "in" },
  { name: "meshed → unmeshed", client: "client", server: "out" },
  { name: "unmeshed → meshed", client: "stranger", server: "in" },
] as const;

describe("how connections end", () => {
  const mesh = new Mesh("dead-target");

  before(async () => {
    mesh.write("namespace.yaml", NAMESPACE);
    for (const [place, annotations] of [
      ["in", {}],
      ["out", OUTSIDE],
    ] as const) {
      mesh.write(
        `${place}.yaml`,
        workload({
          name: place,
          command: [
            "sh",
            "-c",
            `socat TCP-LISTEN:${SOCAT_PORT},fork,reuseaddr SYSTEM:'cat; echo and that was all' & exec node ${FIXTURES}/dead-target-server.js`,
          ],
          ports: Object.fromEntries(
            [...PORTS, CLOSED_PORT, SOCAT_PORT].map((port) => [`p${port}`, [port, port] as const]),
          ),
          readyPort: 8009,
          annotations,
        }),
      );
    }
    mesh.write("leaver.yaml", leaver(1));
    mesh.write("client.yaml", workload({ name: "client", command: ["sleep", "100000"] }));
    mesh.write(
      "stranger.yaml",
      workload({ name: "stranger", command: ["sleep", "100000"], annotations: OUTSIDE }),
    );
    await mesh.up("--timeout", "90");
  });
  after(async () => await mesh.close());

  async function run(client: string, errands: readonly Errand[]): Promise<Outcome[]> {
    const { stdout, stderr } = await mesh.exec(
      client,
      "node",
      `${FIXTURES}/dead-target-client.js`,
      JSON.stringify(errands),
    );
    const outcomes = JSON.parse(stdout || "[]") as Outcome[];
    assert.equal(outcomes.length, errands.length, stderr);
    return outcomes;
  }

  for (const { name, client, server } of WAYS) {
    test(`${name}: ends stay ends, resets stay resets, halves stay halves`, async () => {
      const earlier = (await mesh.log(server)).split("\n").length - 1;
      const outcomes = await run(
        client,
        Object.values(ENDINGS).map(({ port, acts }) => ({ host: server, port, acts })),
      );
      assert.deepEqual(
        Object.fromEntries(Object.keys(ENDINGS).map((what, i) => [what, withoutHaste(outcomes[i])])),
        Object.fromEntries(Object.entries(ENDINGS).map(([what, { sees }]) => [what, sees])),
      );
      // Readiness probes connect, too, and say nothing.
      const expected = Object.values(ENDINGS).flatMap(({ port, serverSees }) =>
        serverSees === null ? [] : [`port ${port}: ${serverSees}`],
      );
      await mesh.until("the server has seen all of it", async () => {
        const lines = (await mesh.log(server)).split("\n").slice(earlier);
        return expected.every((line) => lines.includes(line));
      });
    });

    test(`${name}: programs that pipe (socat)`, async () => {
      const { stdout, stderr } = await mesh.exec(
        client,
        "sh",
        "-c",
        `printf 'one\\ntwo\\n' | socat -t 10 - TCP:${server}:${SOCAT_PORT}`,
      );
      assert.equal(stdout, "one\ntwo\nand that was all\n", stderr);
    });
  }

  /** A client that is silent, one that speaks, and one that speaks and ends. */
  const CLIENTS: readonly (readonly string[])[] = [[], ["say:\x00"], ["say:\x00", "end"]];

  async function endsInReset(client: string, host: string, port: number): Promise<void> {
    const outcomes = await run(
      client,
      CLIENTS.map((acts) => ({ host, port, acts })),
    );
    // A reset may come before the program has looked at how its connect went, which then tells of it.
    const ends = outcomes.map(({ seen, text }) => ({
      seen: seen.filter((what) => what !== "connected"),
      text,
    }));
    assert.deepEqual(
      ends,
      CLIENTS.map(() => ({ seen: ["ECONNRESET"], text: "" })),
    );
  }

  test("a port that nobody listens on: refused without the mesh, reset through it", async () => {
    const direct = await run("stranger", [{ host: (await mesh.pod("out")).ip, port: CLOSED_PORT, acts: [] }]);
    assert.deepEqual(direct, [{ seen: ["ECONNREFUSED"], text: "" }]);
    // Behind a live sidecar, by name and by address; and of a pod out of the mesh.
    await endsInReset("client", "in", CLOSED_PORT);
    await endsInReset("client", (await mesh.pod("in")).ip, CLOSED_PORT);
    await endsInReset("stranger", "in", CLOSED_PORT);
    await endsInReset("client", "out", CLOSED_PORT);
    await endsInReset("client", (await mesh.pod("out")).ip, CLOSED_PORT);
  });

  test("addresses where nobody is: of the pod network, and out of reach", async () => {
    const gone = (await mesh.pod("in")).ip.replace(/\d+\.\d+$/, "250.250");
    await endsInReset("client", gone, 8001);
    await endsInReset("client", "192.0.2.200", 8001);
  });

  test("a pod that is gone: its address and its Service end in RST, and so do connections that it leaves behind", async () => {
    const { ip } = await mesh.pod("leaver");
    const open = run("client", [{ host: "leaver", port: 8009, acts: ["until:hello"] }]);
    await mesh.until(
      "the connection is open",
      async () =>
        (await mesh.metric(await mesh.pod("leaver"), "tcp_open_connections", {
          direction: "inbound",
          peer: "dst",
        })) > 0,
    );
    mesh.write("leaver.yaml", leaver(0));
    const [outcome] = await open;
    // Its program was killed while it served: without the mesh the kernel would have ended the connection as it ends here.
    assert.deepEqual(outcome, { seen: ["connected", "FIN"], text: "hello" });
    await mesh.until("the pod is gone", async () => !(await mesh.status()).pods.some((pod) => pod.ip === ip));
    await endsInReset("client", "leaver", 8009);
    await endsInReset("client", ip, 8009);
  });

  test("a tcpSocket probe sees through the sidecar whether the program listens", async () => {
    const listen = `until [ -e /tmp/go ]; do sleep 0.1; done; exec node ${FIXTURES}/dead-target-server.js`;
    mesh.write("late.yaml", workload({ name: "late", command: ["sh", "-c", listen], readyPort: 8009 }));
    const isReady = async (): Promise<boolean> => (await mesh.pod("late")).ready;
    await mesh.until("two probes found nobody", async () => {
      const late = (await mesh.status()).pods.find(({ name }) => name.startsWith("late-"));
      if (late === undefined || late.sidecar?.ready !== true) return false;
      return (await mesh.metric(late, "inbound_tcp_errors_total")) >= 2;
    });
    assert.equal(await isReady(), false);
    await mesh.exec("late", "touch", "/tmp/go");
    await mesh.until("the pod is ready", isReady);
  });
});

/** Whether a client learns that it was connected before it learns of a reset is a matter of haste. */
function withoutHaste(outcome: Outcome | undefined): Outcome | undefined {
  return outcome?.seen.join() === "connected,ECONNRESET" && outcome.text === ""
    ? { seen: ["ECONNRESET"], text: "" }
    : outcome;
}

function leaver(replicas: number): string {
  return workload({
    name: "leaver",
    command: ["node", `${FIXTURES}/dead-target-server.js`],
    ports: { main: [8009, 8009] },
    readyPort: 8009,
    replicas,
    graceSeconds: 2,
  });
}
