import assert from "node:assert/strict";
import { after, before, describe, test } from "node:test";
import { memoryUsed } from "../../../bench/lib/process-cost.ts";
import { call, offer, VIRTUAL_IP } from "../../soak/soak-case.ts";
import { cannotRun, Mesh, until, type Pod } from "./rig/mesh.ts";

const skip = cannotRun() ?? false;
const OPAQUE_PORT = 8151;
const HTTP1_PORT = 8152;
const HTTP2_PORT = 8153;
const ECHO_PORT = 8154;

/** On each of three connections: far more than all buffers on the way, the kernel's among them. */
const OFFERED_BYTES = 256 * 1024 ** 2;
/** What three connections may have on the way: three kernel buffers and two sidecars' each. */
const ON_THE_WAY_BYTES_MAX = 96 * 1024 ** 2;
/** … of which a sidecar's own memory grows by windows and buffers, not by what the writers would like to send. */
const GROWN_KIB_MAX = 64 * 1024;
/** Looks in a row that find nothing taken. */
const STILL_LOOKS = 20;
const LOOK_EVERY_MS = 100;

const IDLE = 400;
/** An idle opaque connection costs 75 KiB: two sockets and OpenSSL's state for one. */
const IDLE_KIB_MAX = 200;

describe("memory of two sidecars", { skip }, () => {
  let mesh: Mesh;
  let client: Pod;
  let server: Pod;
  before(async () => {
    mesh = await Mesh.start();
    server = await mesh.pod("server", { isMeshed: true });
    client = await mesh.pod("client", { isMeshed: true });
    await call(server, "stopped.ts", "serve", OPAQUE_PORT, HTTP1_PORT, HTTP2_PORT);
    await call(server, "connections.ts", "serveEcho", ECHO_PORT);
    await offer(
      { mesh, client, server, stranger: client, seconds: 0, rest: () => Promise.resolve() },
      { [OPAQUE_PORT]: "opaque", [HTTP1_PORT]: "detect", [HTTP2_PORT]: "detect", [ECHO_PORT]: "opaque" },
    );
  });
  after(() => mesh.close());

  const rssKib = (pod: Pod): number => memoryUsed(pod.sidecar?.pid ?? 0).rssKib;

  test("a reader that stops holds its writer back, whatever is spoken, and loses nothing", async () => {
    const before_ = [client, server].map(rssKib);
    await call(client, "stopped.ts", "write", VIRTUAL_IP, OPAQUE_PORT, HTTP1_PORT, HTTP2_PORT, OFFERED_BYTES);
    let lastBytes = -1;
    let stillLooks = 0;
    await until(
      async () => {
        const bytes = await call<number>(client, "stopped.ts", "taken");
        assert.ok(bytes <= ON_THE_WAY_BYTES_MAX, `${bytes} bytes were taken for readers that read nothing`);
        stillLooks = bytes > 0 && bytes === lastBytes ? stillLooks + 1 : 0;
        lastBytes = bytes;
        await new Promise((resolve) => setTimeout(resolve, LOOK_EVERY_MS));
        return stillLooks === STILL_LOOKS;
      },
      "the writers stand still",
      60_000,
    );
    for (const [i, pod] of [client, server].entries()) {
      const grownKib = rssKib(pod) - (before_[i] ?? 0);
      assert.ok(grownKib < GROWN_KIB_MAX, `${pod.name} grew by ${grownKib} KiB`);
    }
    assert.deepEqual(await call<number[]>(server, "stopped.ts", "readOn"), [
      OFFERED_BYTES,
      OFFERED_BYTES,
      OFFERED_BYTES,
    ]);
  });

  test("idle connections cost what they need, and leave nothing behind for the next", async () => {
    const hold = async (): Promise<void> => {
      await call(client, "connections.ts", "hold", VIRTUAL_IP, ECHO_PORT, IDLE, "bytes");
    };
    const letGo = async (): Promise<void> => {
      assert.equal(await call(client, "connections.ts", "proveHeld", "bytes"), IDLE);
      await until(
        async () =>
          (await server.metric(/^tcp_open_connections.*target_addr="[^"]*:8154"/)) === 0 &&
          (await client.metric(/^tcp_open_connections.*target_addr="[^"]*:8154"/)) === 0,
        "both sidecars have let go of them",
        20_000,
      );
    };
    await hold();
    await letGo();
    const emptyKib = [client, server].map(rssKib);
    for (let round = 0; round < 3; round++) {
      await hold();
      for (const [i, pod] of [client, server].entries()) {
        const eachKib = (rssKib(pod) - (emptyKib[i] ?? 0)) / IDLE;
        assert.ok(eachKib < IDLE_KIB_MAX, `round ${round}: ${eachKib.toFixed(0)} KiB each in ${pod.name}`);
      }
      await letGo();
    }
  });
});
