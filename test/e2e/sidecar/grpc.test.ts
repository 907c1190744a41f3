/** gRPC between grpc-js programs, through two sidecars: what the programs see is what they would see without. */
import assert from "node:assert/strict";
import { spawn, type ChildProcess } from "node:child_process";
import { once } from "node:events";
import type { Http2Server, ServerHttp2Stream } from "node:http2";
import { join } from "node:path";
import { after, before, describe, test } from "node:test";
import type * as Peer from "./rig/grpc-peer.ts";
import { cannotRun, Mesh, until, type Pod } from "./rig/mesh.ts";

const skip = cannotRun() ?? false;
const VIP = "10.214.0.2:80";
const DOOMED = "10.214.0.3:80";
const PEER = new URL("./rig/grpc-peer.ts", import.meta.url).href;
const BINARY = ["", "00", "ff00fe2c0d0a", Buffer.from("ünlucky, with commas").toString("hex")];

/** grpc's own numbers. */
const Status = { OK: 0, CANCELLED: 1, DEADLINE_EXCEEDED: 4, RESOURCE_EXHAUSTED: 8, UNAVAILABLE: 14 } as const;

type Module = typeof Peer;
/** Calls a function of the peer inside a pod. */
function inside<K extends keyof Module>(
  pod: Pod,
  name: K,
  ...args: Module[K] extends (...all: infer A) => unknown ? A : []
): Promise<Module[K] extends (...all: never[]) => infer R ? Awaited<R> : Module[K]> {
  return pod.run(
    async ({ load }, url, key, all) => {
      const found = ((await load(url)) as Record<string, unknown>)[key];
      return typeof found === "function" ? (found as (...some: unknown[]) => unknown)(...all) : found;
    },
    PEER,
    name as string,
    args as unknown[],
  ) as never;
}

describe("gRPC between two sidecars", { skip, timeout: 180_000 }, () => {
  let mesh: Mesh;
  let client: Pod;
  let a: Pod;
  let b: Pod;
  before(async () => {
    mesh = await Mesh.start();
    a = await mesh.pod("a", { isMeshed: true, inboundPorts: [7000] });
    b = await mesh.pod("b", { isMeshed: true, inboundPorts: [7000, 7001] });
    client = await mesh.pod("client", { isMeshed: true });
    await mesh.set({
      services: {
        [VIP]: { protocol: "detect", path: "echo:80" },
        [DOOMED]: { protocol: "detect", path: "doomed:80" },
      },
      endpoints: { "echo:80": [a.endpoint(7000), b.endpoint(7000)], "doomed:80": [b.endpoint(7001)] },
    });
    for (const pod of [a, b]) await inside(pod, "serve", 7000, pod.name);
  });
  after(() => mesh.close());

  /** A server in a process of its own, which a test may kill. */
  async function startDoomed(): Promise<ChildProcess> {
    const program = join(import.meta.dirname, "rig/grpc-peer.ts");
    const args = ["netns", "exec", b.ns, process.execPath, program, "7001", "doomed"];
    const server = spawn("ip", args, { stdio: ["ignore", "pipe", "inherit"] });
    await once(server.stdout!, "data");
    return server;
  }

  const sumOfSeen = async (key: "cancelled" | "waiting"): Promise<number> =>
    (await inside(a, "seen"))[key] + (await inside(b, "seen"))[key];

  test("unary: message, binary metadata in head and trailers, and the deadline arrive", async () => {
    const answer = await inside(client, "call", VIP, "Echo", [5], { binary: BINARY, deadlineMs: 300_000 });
    assert.equal(answer.code, Status.OK);
    assert.deepEqual(answer.messages, [5]);
    assert.equal(answer.initial["x-data-bin"], BINARY.join(","));
    assert.equal(answer.trailing["x-data-bin"], BINARY.join(","));
    const server = answer.initial["x-server"] === "a" ? a : b;
    const { leftMs } = await inside(server, "seen");
    assert.ok(leftMs > 200_000 && leftMs <= 300_000, `${leftMs} ms of the deadline were left`);
  });

  test("calls that one connection carries at a time go to several endpoints", async () => {
    const answers = await inside(client, "callMany", VIP, 100);
    // How many each gets depends on how quick it is just now.
    assert.deepEqual([...new Set(answers.map(({ initial }) => initial["x-server"]))].toSorted(), ["a", "b"]);
  });

  test("client, server and both-way streaming; a message of 17 MiB in each direction", async () => {
    const big = 17 * 1024 * 1024;
    assert.deepEqual((await inside(client, "call", VIP, "Echo", [big])).messages, [big]);
    const collected = await inside(client, "call", VIP, "Collect", [1, 70_000, 0, 3]);
    assert.deepEqual([collected.code, collected.messages], [Status.OK, [70_004]]);
    await inside(client, "beginCount", "count", VIP, 100);
    const counted = await inside(client, "finish", "count");
    assert.deepEqual([counted.code, counted.messages.length], [Status.OK, 100]);
    const talked = await inside(client, "call", VIP, "Talk", [7, 0, 70_000]);
    assert.deepEqual([talked.code, talked.messages], [Status.OK, [7, 0, 70_000]]);
  });

  test("an application's own error arrives as it is: code, text, trailers", async () => {
    const answer = await inside(client, "call", VIP, "Echo", [1], {
      metadata: { "x-code": "9" },
      binary: BINARY,
    });
    assert.deepEqual([answer.code, answer.details], [9, "the application's own: 100 % ünlucky"]);
    assert.equal(answer.trailing["x-data-bin"], BINARY.join(","));
  });

  test("a server that is not read stops writing, and goes on when it is", async () => {
    const many = 600;
    await inside(client, "beginCount", "paused", VIP, many);
    const writtenMost = async (): Promise<number> =>
      Math.max((await inside(a, "seen")).written, (await inside(b, "seen")).written);
    await until(async () => (await writtenMost()) > 0, "the server writes");
    // Other calls go on meanwhile: what the sidecars could pass on, they have by then.
    for (let i = 0; i < 100; i++) await inside(client, "call", VIP, "Echo", [1]);
    assert.ok((await writtenMost()) < many / 2, `${await writtenMost()} messages of 64 KiB were taken`);
    const { code, messages } = await inside(client, "finish", "paused");
    assert.deepEqual([code, messages.length], [Status.OK, many]);
  });

  test("a client whose server does not read stops writing, and goes on when it does", async () => {
    const many = 600;
    await inside(client, "beginTalk", "held", VIP, many);
    await until(async () => (await inside(client, "writtenOf", "held")) > 1, "the client writes");
    for (let i = 0; i < 100; i++) await inside(client, "call", VIP, "Echo", [1]);
    const written = await inside(client, "writtenOf", "held");
    assert.ok(written < many / 2, `${written} messages of 64 KiB were taken`);
    const finished = inside(client, "finish", "held");
    for (const pod of [a, b]) await inside(pod, "release");
    const { code, messages } = await finished;
    assert.deepEqual([code, messages.length], [Status.OK, many]);
  });

  test("a client's cancel reaches the server, and so does the end of its deadline", async () => {
    const cancelled = await sumOfSeen("cancelled");
    await inside(client, "beginWait", "cancelled", VIP);
    assert.equal(await sumOfSeen("waiting"), 1);
    await inside(client, "cancel", "cancelled");
    assert.equal((await inside(client, "finish", "cancelled")).code, Status.CANCELLED);
    await until(async () => (await sumOfSeen("cancelled")) === cancelled + 1, "the server was told");
    await inside(client, "beginWait", "late", VIP, { deadlineMs: 3_000 });
    assert.equal((await inside(client, "finish", "late")).code, Status.DEADLINE_EXCEEDED);
    await until(async () => (await sumOfSeen("cancelled")) === cancelled + 2, "the server was told again");
    assert.equal(await sumOfSeen("waiting"), 0);
  });

  test("a server that dies in mid-stream is UNAVAILABLE, and the server's sidecar says so", async () => {
    const server = await startDoomed();
    await inside(client, "beginWait", "dies", DOOMED);
    await inside(client, "beginTalk", "dies unanswered", DOOMED, 600);
    server.kill("SIGKILL");
    const { code, details, messages } = await inside(client, "finish", "dies");
    assert.deepEqual([code, messages], [Status.UNAVAILABLE, [5]]);
    assert.match(
      details,
      /^server's sidecar \(b\.test\): the connection to the application was lost: .*\(RESET\)$/,
    );
    const unanswered = await inside(client, "finish", "dies unanswered");
    assert.equal(unanswered.code, Status.UNAVAILABLE);
    assert.match(unanswered.details, /^server's sidecar \(b\.test\): /);
  });

  test("a server that does not listen is UNAVAILABLE, and the server's sidecar says so", async () => {
    const { code, details } = await inside(client, "call", DOOMED, "Echo", [1]);
    assert.equal(code, Status.UNAVAILABLE);
    assert.match(details, /^server's sidecar \(b\.test\): .*7001.*\(CONNECT_FAILED\)$/);
  });

  for (const [http2Code, status] of [
    [8, Status.CANCELLED],
    [11, Status.RESOURCE_EXHAUSTED],
  ] as const) {
    test(`a server's reset with code ${http2Code} in mid-stream is status ${status}, and the server's sidecar says who reset`, async () => {
      await b.run(
        ({ http2, state }, port, errorCode) => {
          const server = http2.createServer();
          server.on("stream", (stream: ServerHttp2Stream) => {
            stream.on("error", () => undefined);
            stream.respond({ ":status": 200, "content-type": "application/grpc" }, { waitForTrailers: true });
            stream.write(Buffer.from([0, 0, 0, 0, 1, 65]), () => stream.close(errorCode));
          });
          state["resetting"] = server;
          return new Promise<null>((done) => server.listen(port, "0.0.0.0", () => done(null)));
        },
        7001,
        http2Code,
      );
      await inside(client, "beginWait", "reset", DOOMED).catch(() => undefined);
      const { code, details } = await inside(client, "finish", "reset");
      assert.equal(code, status);
      assert.match(details, /^server's sidecar \(b\.test\): the application reset the stream with [A-Z_]+; /);
      await b.run(
        ({ state }) =>
          new Promise<null>((done) => {
            (state["resetting"] as Http2Server).close(() => done(null));
          }),
      );
    });
  }

  test("a sidecar that dies in mid-stream is UNAVAILABLE, and the client's sidecar says so", async () => {
    const server = await startDoomed();
    await inside(client, "beginWait", "cut", DOOMED);
    b.sidecar?.kill("SIGKILL");
    const { code, details } = await inside(client, "finish", "cut");
    assert.equal(code, Status.UNAVAILABLE);
    assert.match(details, /^client's sidecar \(client\.test\): the connection to the far sidecar was lost: /);
    server.kill("SIGKILL");
  });
});
