import assert from "node:assert/strict";
import { connect } from "node:net";
import { test } from "node:test";
import type { IpAddress } from "#/base/address.ts";
import type { Conn } from "#/base/conn.ts";
import { getsockopt } from "#/kernel/libc.ts";
import { SystemClock } from "#/net/clock.ts";
import { listenTcp } from "#/net/tcp.ts";

const SOL_SOCKET = 1;
const SO_KEEPALIVE = 9;
const IPPROTO_TCP = 6;
const TCP_NODELAY = 1;
const TCP_KEEPIDLE = 4;

test("what is accepted sends small writes at once and notices who vanishes, soon after the listener began and long after", async () => {
  const clock = new SystemClock();
  const startMs = clock.nowMs();
  let pastMs = 0;
  clock.nowMs = () => startMs + pastMs;
  const found: number[][] = [];
  const conns: Conn[] = [];
  let accepted = Promise.withResolvers<void>();
  const listener = await listenTcp(
    clock,
    { ip: "127.0.0.1" as IpAddress, port: 0 },
    {
      backlog: 16,
      connectionsMax: 16,
      keepAliveMs: 7000,
      peek: null,
      originalDestination: (fd, { local }) => {
        // Asked once what is set after the accept is set, too.
        setImmediate(() => {
          const value = (level: number, name: number): number =>
            Buffer.from(getsockopt(fd, level, name) ?? [255, 0, 0, 0]).readUInt32LE(0);
          found.push([
            value(SOL_SOCKET, SO_KEEPALIVE),
            value(IPPROTO_TCP, TCP_KEEPIDLE),
            value(IPPROTO_TCP, TCP_NODELAY),
          ]);
          accepted.resolve();
        });
        return local;
      },
    },
    ({ conn, originalDestination }) => {
      assert.deepEqual(originalDestination, listener.address);
      conns.push(conn);
    },
  );
  for (pastMs of [0, 60_000]) {
    accepted = Promise.withResolvers();
    const socket = connect(listener.address.port, "127.0.0.1");
    await accepted.promise;
    socket.destroy();
  }
  assert.deepEqual(found, [
    [1, 7, 1],
    [1, 7, 1],
  ]);
  for (const conn of conns) conn.reset();
  listener.close();
});
