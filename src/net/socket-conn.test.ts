import assert from "node:assert/strict";
import { once } from "node:events";
import { connect, createServer, type AddressInfo, type Socket } from "node:net";
import { test, type TestContext } from "node:test";
import type { ConnError } from "#/base/errors.ts";
import { SystemClock } from "./clock.ts";
import { SocketConn } from "./socket-conn.ts";

const clock = new SystemClock();

async function pair(): Promise<{ conn: SocketConn; remote: Socket; close: () => void }> {
  const server = createServer({ allowHalfOpen: true });
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  const accepted = once(server, "connection") as Promise<[Socket]>;
  const { port } = server.address() as AddressInfo;
  const socket = connect({ port, host: "127.0.0.1", allowHalfOpen: true });
  await once(socket, "connect");
  const [remote] = await accepted;
  remote.on("error", () => {});
  return {
    conn: new SocketConn(clock, socket),
    remote,
    close: () => {
      remote.destroy();
      server.close();
    },
  };
}

const turn = (): Promise<void> => new Promise((resolve) => clock.soon(resolve));

/** Asks for an end, waits so many turns of the event loop, resets, and gives what `onClose` was told. */
async function endThenReset(t: TestContext, turns: number): Promise<ConnError | null> {
  const { conn, remote, close } = await pair();
  t.after(close);
  const closed = new Promise<ConnError | null>((resolve) => {
    conn.setHandler({ onData: () => {}, onEnd: () => {}, onDrain: () => {}, onClose: resolve });
  });
  remote.resume();
  conn.write(Buffer.from("last words"));
  conn.end();
  for (let i = 0; i < turns; i++) await turn();
  conn.reset();
  return await closed;
}

for (const turns of [0, 1, 2, 3, 4]) {
  test(`a reset ${turns} turns after an end closes the connection`, { timeout: 2000 }, async (t) => {
    assert.equal((await endThenReset(t, turns))?.code, "ABORTED");
  });
}
