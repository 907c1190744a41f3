/** First bytes that are looked at before they are read: by libc's call and Node's sockets together. */
import assert from "node:assert/strict";
import { connect, createServer, type AddressInfo, type Server, type Socket } from "node:net";
import { test } from "node:test";
import type { IpAddress, SocketAddress } from "#/base/address.ts";
import type { Conn, ConnHandler } from "#/base/conn.ts";
import { peek } from "#/kernel/libc.ts";
import { SystemClock } from "#/net/clock.ts";
import { descriptorOf } from "#/net/node-socket.ts";
import { NodeTransport } from "#/net/node-transport.ts";
import { SocketConn } from "#/net/socket-conn.ts";
import { listenTcp } from "#/net/tcp.ts";
import { testLeaf, testRoot } from "#/net/testing.ts";
import { Tls } from "#/net/tls.ts";
import { detect } from "#/stack/detection.ts";
import { inspectClientHello } from "#/wire/tls-hello.ts";

const clock = new SystemClock();

/** An accepted connection whose first bytes are looked at, and its client. */
async function accepted(): Promise<{ conn: SocketConn; client: Socket; peeks: (number | null)[] }> {
  const arrived = Promise.withResolvers<Conn>();
  const peeks: (number | null)[] = [];
  const listener = await listenTcp(
    clock,
    { ip: "127.0.0.1" as IpAddress, port: 0 },
    {
      backlog: 16,
      connectionsMax: 16,
      keepAliveMs: 0,
      originalDestination: () => null,
      peek: (fd, into) => {
        peeks.push(peek(fd, into));
        return peeks.at(-1) as number | null;
      },
    },
    ({ conn }) => arrived.resolve(conn),
  );
  const client = connect({ port: listener.address.port, host: "127.0.0.1", noDelay: true });
  client.on("error", () => undefined);
  const conn = await arrived.promise;
  assert.ok(conn instanceof SocketConn);
  listener.close();
  return { conn, client, peeks };
}

/** Collects what comes until the end or the close. */
function reading(first: (bytes: Uint8Array, said: (text: string) => void) => void): {
  handler: ConnHandler;
  over: Promise<string>;
} {
  let text = "";
  let count = 0;
  const over = Promise.withResolvers<string>();
  const say = (what: string): void => void (text += what);
  return {
    handler: {
      onData: (bytes) => {
        if (count++ === 0) first(bytes, say);
        else say(Buffer.from(bytes).toString("latin1"));
      },
      onEnd: () => over.resolve(`${text}.`),
      onDrain: () => undefined,
      onClose: (error) => over.resolve(`${text} ${error?.code}`),
    },
    over: over.promise,
  };
}

const LONG = "0123456789".repeat(3_000);

test("first bytes that are looked at before they are read come once and in order, whether they are taken or put back", async () => {
  for (const more of ["", "more", LONG])
    for (const isPutBack of [false, true]) {
      const { conn, client, peeks } = await accepted();
      const { handler, over } = reading((bytes, say) => {
        if (!isPutBack) {
          say(Buffer.from(bytes).toString("latin1"));
          client.end(more);
          return;
        }
        conn.pause();
        conn.unread(bytes);
        client.end(more);
        clock.after(5, () => conn.resume());
      });
      conn.setHandler(handler);
      client.write("first ");
      assert.equal(await over, `first ${more}.`, `${more.length} more, ${isPutBack ? "put back" : "taken"}`);
      assert.deepEqual(peeks, [6], "once");
      assert.equal(conn.bytesRead, 6 + more.length);
      conn.reset();
    }
});

test("more than what is looked at follows it, and an end or a reset without a byte is what it is", async () => {
  const long = await accepted();
  const all = reading((bytes, say) => say(Buffer.from(bytes).toString("latin1")));
  long.client.end(LONG);
  long.conn.setHandler(all.handler);
  assert.equal(await all.over, `${LONG}.`);
  assert.ok(long.peeks[0]! < LONG.length);

  const ended = await accepted();
  const nothing = reading(() => assert.fail("no byte came"));
  ended.conn.setHandler(nothing.handler);
  ended.client.end();
  assert.equal(await nothing.over, ".");

  const reset = await accepted();
  const broken = reading(() => assert.fail("no byte came"));
  reset.conn.setHandler(broken.handler);
  reset.client.resetAndDestroy();
  assert.equal(await broken.over, " RESET");
  for (const { conn } of [long, ended]) conn.reset();
});

test("what was looked at and put back is left to be read by whoever is given the socket", async () => {
  const { conn, client } = await accepted();
  const detached = Promise.withResolvers<Socket>();
  const { handler } = reading((bytes) => {
    conn.pause();
    conn.unread(bytes);
    conn.resume();
    detached.resolve(conn.detach());
  });
  conn.setHandler(handler);
  client.write("hello");
  const socket = await detached.promise;
  const left = Buffer.alloc(16);
  assert.equal(socket.readableLength, 0);
  assert.equal(left.toString("latin1", 0, peek(descriptorOf(socket), left) ?? 0), "hello");
  client.destroy();
  socket.destroy();
});

/** What goes through it arrives in pieces: the first so long each, with a pause behind it, all that follows as it comes. */
async function cutting(to: SocketAddress, sizes: readonly number[]): Promise<Server> {
  const server = createServer({ allowHalfOpen: true }, (near) => {
    const far = connect({ port: to.port, host: to.ip, noDelay: true, allowHalfOpen: true });
    for (const socket of [near, far]) socket.on("error", () => undefined);
    far.pipe(near);
    let held = Buffer.alloc(0);
    const cut = (i: number): void => {
      const size = sizes[i];
      if (size === undefined) {
        if (held.length > 0) far.write(held);
        near.off("data", hold);
        near.pipe(far);
        return;
      }
      far.write(held.subarray(0, size));
      held = held.subarray(size);
      clock.after(1, () => cut(i + 1));
    };
    const hold = (bytes: Buffer): void => {
      if (held.length === 0) clock.after(1, () => cut(0));
      held = Buffer.concat([held, bytes]);
    };
    near.on("data", hold);
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  return server;
}

for (const [how, sizes] of [
  ["at once", []],
  ["byte by byte", Array.from({ length: 120 }, () => 1)],
  ["its record's head first", [5]],
  ["all but little", [400, 300]],
] as const)
  test(
    `a TLS connection reads a hello that was looked at, and goes on: ${how}`,
    { timeout: 30_000 },
    async (t) => {
      const name = "web.shop.serviceaccount.identity.pillion.cluster.local";
      const root = testRoot("cluster.local");
      const leaf = testLeaf(root);
      const tls = new Tls(clock);
      tls.setAnchors(new Map([["cluster.local", root.pem]]));
      tls.setLeaf({ keyPem: leaf.keyPem, chainPem: leaf.pem });
      const looks: (number | null)[] = [];
      const transport = new NodeTransport(clock, tls, {
        backlog: 16,
        connectionsMax: 64,
        acceptKeepAliveMs: 0,
        localIp: null,
        originalDestination: () => null,
        peek: (fd, into) => {
          looks.push(peek(fd, into));
          return looks.at(-1) as number | null;
        },
      });
      const bytes = Buffer.from(LONG.repeat(20));
      const arrived = Promise.withResolvers<Buffer>();
      const pieces: Uint8Array[] = [];
      const quiet = { onEnd: () => undefined, onDrain: () => undefined, onClose: () => undefined };
      const secured = (conn: Conn): void => {
        conn.setHandler({
          ...quiet,
          onData: (piece) => void pieces.push(piece),
          onEnd: () => {
            arrived.resolve(Buffer.concat(pieces));
            conn.end();
          },
        });
        conn.resume();
      };
      const listener = await transport.listen(
        { ip: "127.0.0.1" as IpAddress, port: 0 },
        ({ conn }) => {
          detect(
            {
              clock,
              client: conn,
              patienceMs: 30_000,
              timeoutMs: 30_000,
              inspect: (seen) => (inspectClientHello(seen).kind === "hello" ? "tls" : "more"),
              dial: null,
            },
            ({ kind }) => {
              assert.equal(kind, "tls");
              conn.resume();
              transport.secureServer(conn, { alpn: [], timeoutMs: 30_000 }, (_, result) =>
                secured(result!.conn),
              );
            },
          );
        },
        { takesTls: true },
      );
      const cutter = await cutting(listener.address, sizes);
      t.after(() => {
        cutter.close();
        listener.close();
      });
      const options = { serverName: name, expected: name, alpn: [], timeoutMs: 30_000, isAnonymous: false };
      const { port } = cutter.address() as AddressInfo;
      const at = { ip: "127.0.0.1" as IpAddress, port };
      transport.connect(at, { timeoutMs: 30_000, keepAliveMs: 0 }, (_error, conn) =>
        transport.secureClient(conn!, options, (_failed, result) => {
          result!.conn.setHandler({ ...quiet, onData: () => undefined });
          result!.conn.write(bytes);
          result!.conn.end();
        }),
      );
      assert.deepEqual(await arrived.promise, bytes);
      assert.equal(looks.length, 1, "once");
      if (sizes.length === 0) assert.ok((looks[0] ?? 0) > 200, "the whole hello");
      else assert.ok(looks[0] === sizes[0], "its first part");
    },
  );

test(
  "a client that begins and stalls, ends or resets is looked at once, and costs no time",
  { timeout: 30_000 },
  async () => {
    for (const then of ["stalls", "ends", "resets"] as const) {
      const { conn, client, peeks } = await accepted();
      const seen = Promise.withResolvers<undefined>();
      const { handler, over } = reading((bytes, say) => {
        say(Buffer.from(bytes).toString("latin1"));
        seen.resolve(undefined);
      });
      conn.setHandler(handler);
      client.write("hel");
      await seen.promise;
      if (then === "stalls") {
        const before = process.cpuUsage();
        await new Promise<void>((resolve) => void clock.after(300, resolve));
        const { user, system } = process.cpuUsage(before);
        assert.ok(user + system < 150_000, `${user + system} us of processor time in 300 ms`);
        client.end();
      } else if (then === "ends") client.end();
      else client.resetAndDestroy();
      assert.equal(await over, then === "resets" ? "hel RESET" : "hel.");
      assert.deepEqual(peeks, [3]);
      conn.reset();
    }
  },
);

for (const [what, name] of [
  ["cannot read where it is told", "useUserBuffer"],
  ["does not say what it calls", "onread"],
] as const)
  test(`a socket that ${what} is read at once, and nothing is looked at`, { timeout: 30_000 }, async (t) => {
    const arrived = Promise.withResolvers<Socket>();
    const server = createServer({ allowHalfOpen: true, pauseOnConnect: true }, arrived.resolve);
    await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
    const client = connect({ port: (server.address() as AddressInfo).port, host: "127.0.0.1" });
    const socket = await arrived.promise;
    t.after(() => {
      client.destroy();
      server.close();
    });
    // Of ours alone: what Node itself has under that name goes on.
    Object.defineProperty((socket as unknown as { _handle: object })._handle, name, { value: undefined });
    const conn = new SocketConn(clock, socket);
    conn.peek = () => assert.fail("nothing tells when");
    const all = reading((bytes, say) => say(Buffer.from(bytes).toString("latin1")));
    conn.setHandler(all.handler);
    client.end(LONG);
    assert.equal(await all.over, `${LONG}.`);
    conn.reset();
  });

test(
  "a connection that brings less than was looked at is reset: what was judged is not what came",
  { timeout: 30_000 },
  async () => {
    const { conn, client } = await accepted();
    const look = conn.peek;
    // As the kernel does for a peer that puts TCP's urgent mark into what it has sent.
    conn.peek = (into) => (look?.(into) ?? 0) + 2;
    const { handler, over } = reading((_, say) => say("looked at"));
    conn.setHandler(handler);
    client.write("hel");
    assert.equal(await over, "looked at RESET");
    client.destroy();
  },
);

test("a hello in two parts is handed over as bytes", async () => {
  const { conn, client } = await accepted();
  const detached = Promise.withResolvers<Socket>();
  let text = "";
  conn.setHandler({
    onData: (bytes) => {
      text += Buffer.from(bytes).toString("latin1");
      if (text === "hel") client.write("lo");
      if (text !== "hello") return;
      conn.pause();
      conn.unread(Buffer.from(text));
      conn.resume();
      detached.resolve(conn.detach());
    },
    onEnd: () => undefined,
    onDrain: () => undefined,
    onClose: () => undefined,
  });
  client.write("hel");
  const socket = await detached.promise;
  socket.on("error", () => undefined);
  assert.equal((socket.read() as Buffer).toString("latin1"), "hello");
  client.destroy();
  socket.destroy();
});
