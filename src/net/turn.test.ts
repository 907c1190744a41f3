import { strict as assert } from "node:assert";
import { once } from "node:events";
import { connect, createServer, type Socket } from "node:net";
import { test } from "node:test";
import { SystemClock } from "./clock.ts";
import { SocketConn } from "./socket-conn.ts";
import { Turn } from "./turn.ts";

const nextTurn = (): Promise<void> => new Promise((resolve) => setImmediate(resolve));

/** A turn with one input, which puts off a send. Gives what was done right behind it. */
async function lone(turn: Turn, bytes = 100): Promise<number> {
  let sent = 0;
  turn.inputBegins();
  turn.soon(() => sent++, true);
  turn.inputEnds(bytes);
  const atOnce = sent;
  await nextTurn();
  assert.equal(sent, 1);
  return atOnce;
}

async function learned(): Promise<Turn> {
  const turn = new Turn();
  for (let i = 0; i < 3; i++) assert.equal(await lone(turn), 0);
  return turn;
}

test("where inputs come one a turn, what they send goes right behind them", async () => {
  const turn = await learned();
  assert.equal(await lone(turn), 1);
  assert.equal(await lone(turn), 1);
  assert.equal(await lone(turn, 100_000), 0, "a long input waits: more of it may come");
});

test("what a send puts off is done behind the same input, too", async () => {
  const turn = await learned();
  const done: string[] = [];
  turn.inputBegins();
  turn.soon(() => {
    done.push("link");
    turn.soon(() => done.push("socket"), true);
  }, true);
  turn.inputEnds(100);
  assert.deepEqual(done, ["link", "socket"]);
});

test("what a send puts off that does more than send waits for the turn's end", async () => {
  const turn = await learned();
  const done: string[] = [];
  turn.inputBegins();
  turn.soon(() => {
    done.push("send");
    turn.soon(() => done.push("reset"), false);
  }, true);
  turn.soon(() => done.push("other send"), true);
  turn.inputEnds(100);
  assert.deepEqual(done, ["send", "other send"]);
  await nextTurn();
  assert.deepEqual(done, ["send", "other send", "reset"]);
});

test("further inputs of a turn whose first has written to TLS are joined, and so are those of the next turns", async () => {
  const turn = await learned();
  let sent = 0;
  for (let i = 0; i < 4; i++) {
    turn.inputBegins();
    turn.soon(() => {
      sent++;
      turn.writeBegins();
    }, true);
    turn.inputEnds(100);
    assert.equal(sent, 1, "the first alone");
  }
  turn.writeEnds();
  await nextTurn();
  assert.equal(sent, 4);
  for (let i = 0; i < 3; i++) assert.equal(await lone(turn), 0);
  assert.equal(await lone(turn), 1);
});

test("a turn ends where its TLS write is done", async () => {
  const turn = await learned();
  for (let i = 0; i < 3; i++) {
    let sent = 0;
    turn.inputBegins();
    turn.soon(() => {
      sent++;
      turn.writeBegins();
    }, true);
    turn.inputEnds(100);
    assert.equal(sent, 1);
    turn.writeEnds();
  }
});

test("what does more than send waits for the turn's end, and takes what was put off before along, in order", async () => {
  const turn = await learned();
  const done: string[] = [];
  turn.inputBegins();
  turn.soon(() => done.push("send"), true);
  turn.soon(() => done.push("reset"), false);
  turn.inputEnds(100);
  assert.deepEqual(done, []);
  await nextTurn();
  assert.deepEqual(done, ["send", "reset"]);
});

test("a connection sends right behind its input once that comes alone", async () => {
  const accepted: Socket[] = [];
  const server = createServer({ pauseOnConnect: true }, (socket) => void accepted.push(socket)).listen(0);
  await once(server, "listening");
  const client = connect((server.address() as { port: number }).port);
  await once(client, "connect");
  while (accepted.length === 0) await nextTurn();
  const conn = new SocketConn(new SystemClock(), accepted[0] as Socket);
  let isAtOnce = false;
  conn.setHandler({
    onData: (bytes) => {
      conn.write(bytes);
      process.nextTick(() => (isAtOnce = conn.bufferedBytes === 0));
    },
    onEnd: () => conn.end(),
    onDrain: () => undefined,
    onClose: () => undefined,
  });
  // Other tests of this process may have sockets of their own in the same turns, but not in all.
  for (let i = 0; i < 1_000 && !isAtOnce; i++) {
    client.write("ping");
    await once(client, "data");
  }
  client.end();
  server.close();
  await once(client, "close");
  assert.ok(isAtOnce);
});
