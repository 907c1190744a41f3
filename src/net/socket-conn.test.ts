import assert from "node:assert/strict";
import { once } from "node:events";
import { connect, createServer, type AddressInfo, type Socket } from "node:net";
import { test, type TestContext } from "node:test";
import type { Clock } from "#/base/clock.ts";
import type { ConnError } from "#/base/errors.ts";
import { SystemClock } from "./clock.ts";
import { SocketConn } from "./socket-conn.ts";

const clock = new SystemClock();

interface Pair {
  conn: SocketConn;
  /** Below `conn`. */
  socket: Socket;
  remote: Socket;
  close: () => void;
}

async function pair(by: Clock = clock): Promise<Pair> {
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
    conn: new SocketConn(by, socket),
    socket,
    remote,
    close: () => {
      remote.destroy();
      server.close();
    },
  };
}

/** A clock whose turns come when `run` is called. */
function turnsByHand(): { byHand: Clock; tasks: (() => void)[]; run: () => void } {
  const tasks: (() => void)[] = [];
  const byHand: Clock = {
    nowMs: () => clock.nowMs(),
    wallMs: () => clock.wallMs(),
    after: (ms, fire) => clock.after(ms, fire),
    soon: (task) => void tasks.push(task),
  };
  const run = (): void => {
    for (const task of tasks.splice(0)) task();
  };
  return { byHand, tasks, run };
}

const turn = (): Promise<void> => new Promise((resolve) => clock.soon(resolve));

test("an end that came first is told before written bytes leave, which can then be taken back", async (t) => {
  const { byHand, tasks, run } = turnsByHand();
  const { conn, remote, close } = await pair(byHand);
  t.after(close);
  const events: string[] = [];
  conn.setHandler({
    onData: () => {},
    onEnd: () => events.push(`end ${conn.unsend(5)} ${conn.unsend(5)}`),
    onDrain: () => {},
    onClose: () => {},
  });
  run();
  conn.write(Buffer.from("sent"));
  run();
  const [bytes] = (await once(remote, "data")) as [Buffer];
  assert.equal(bytes.toString(), "sent");
  assert.equal(conn.unsend(4), false);
  conn.write(Buffer.from("never"));
  remote.end();
  while (tasks.length < 2) await new Promise((done) => setImmediate(done));
  run();
  assert.deepEqual(events, ["end true false"]);
  conn.end();
  run();
  let rest = "";
  remote.on("data", (more: Buffer) => (rest += more.toString()));
  await once(remote, "end");
  assert.equal(rest, "");
});

test("what is written to a connection whose close is not told yet was never sent", async (t) => {
  const { byHand, run } = turnsByHand();
  const { conn, remote, close } = await pair(byHand);
  t.after(close);
  const told: boolean[] = [];
  conn.setHandler({
    onData: () => {},
    onEnd: () => {},
    onDrain: () => {},
    onClose: () => told.push(conn.unsend(5), conn.unsend(6)),
  });
  run();
  remote.resetAndDestroy();
  while (!conn.isClosed) await new Promise((done) => setImmediate(done));
  conn.write(Buffer.from("never"));
  run();
  assert.deepEqual(told, [true, false]);
});

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
  test(`a reset ${turns} turns after an end closes the connection`, { timeout: 30_000 }, async (t) => {
    assert.equal((await endThenReset(t, turns))?.code, "ABORTED");
  });
}

test(
  "a remote side that ended its half and is then gone altogether is found out",
  { timeout: 30_000 },
  async (t) => {
    let look: (() => void) | null = null;
    const patient: Clock = {
      nowMs: () => clock.nowMs(),
      wallMs: () => clock.wallMs(),
      soon: (task) => clock.soon(task),
      after: (_ms, fire) => {
        look = fire;
        return { cancel: () => (look = null) };
      },
    };
    const lookNow = (): void => (look as (() => void) | null)?.();
    const { conn, remote, close } = await pair(patient);
    t.after(close);
    const closed = Promise.withResolvers<ConnError | null>();
    const ended = new Promise<void>((resolve) => {
      conn.setHandler({ onData: () => {}, onEnd: resolve, onDrain: () => {}, onClose: closed.resolve });
    });
    remote.end();
    await ended;
    lookNow();
    await turn();
    assert.equal(conn.isClosed, false, "half-closed and waiting is no fault");
    assert.notEqual(look, null, "it is looked for again");
    remote.resetAndDestroy();
    await once(remote, "close");
    lookNow();
    assert.equal((await closed.promise)?.code, "RESET");
    assert.equal(look, null);
  },
);

/** How often the kernel's socket below was told to stop reading from now on. */
function countStops(socket: Socket): () => number {
  const handle = (socket as unknown as { _handle: { readStop: () => number } })._handle;
  const readStop = handle.readStop.bind(handle);
  let stops = 0;
  handle.readStop = () => {
    stops++;
    return readStop();
  };
  return () => stops;
}

test(
  "whoever looks at the first bytes and hands the connection on within the turn does not stop it",
  { timeout: 30_000 },
  async (t) => {
    const { conn, socket, remote, close } = await pair();
    t.after(() => {
      conn.reset();
      close();
    });
    let text = "";
    const seen = Promise.withResolvers<void>();
    const second = {
      onData: (bytes: Uint8Array) => {
        text += Buffer.from(bytes).toString();
        if (text.endsWith("more")) seen.resolve();
        else remote.write(" and more");
      },
      onEnd: () => {},
      onDrain: () => {},
      onClose: () => {},
    };
    conn.setHandler({
      ...second,
      onData: (bytes) => {
        conn.pause();
        conn.unread(bytes);
        conn.setHandler(second);
        conn.resume();
      },
    });
    const stops = countStops(socket);
    remote.write("first");
    await seen.promise;
    assert.equal(text, "first and more");
    assert.equal(stops(), 0);
  },
);

test(
  "who pauses from within a read, and stays so, is told nothing more until it resumes",
  { timeout: 30_000 },
  async (t) => {
    const { conn, socket, remote, close } = await pair();
    t.after(() => {
      conn.reset();
      close();
    });
    const got: string[] = [];
    const paused = Promise.withResolvers<void>();
    const ended = Promise.withResolvers<void>();
    conn.setHandler({
      onData: (bytes) => {
        got.push(Buffer.from(bytes).toString());
        conn.pause();
        paused.resolve();
      },
      onEnd: () => ended.resolve(),
      onDrain: () => {},
      onClose: () => {},
    });
    const stops = countStops(socket);
    remote.write("one");
    await paused.promise;
    await turn();
    assert.equal(stops(), 1);
    remote.end("two");
    await once(remote, "finish");
    for (let i = 0; i < 5; i++) await turn();
    assert.deepEqual([got, conn.bytesRead], [["one"], 3]);
    conn.resume();
    while (got.length < 2) await turn();
    conn.resume();
    await ended.promise;
    assert.deepEqual(got, ["one", "two"]);
  },
);
