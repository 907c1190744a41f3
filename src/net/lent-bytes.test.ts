import assert from "node:assert/strict";
import { once } from "node:events";
import { readFileSync } from "node:fs";
import { connect, createServer, type AddressInfo, type Socket } from "node:net";
import { test, type TestContext } from "node:test";
import type { IpAddress } from "#/base/address.ts";
import type { Conn, ConnHandler } from "#/base/conn.ts";
import { LONG_READ_BYTES_MIN } from "#/base/conn.ts";
import { pipe } from "#/stack/pipe.ts";
import { SystemClock } from "./clock.ts";
import { NodeTransport } from "./node-transport.ts";
import { SocketConn } from "./socket-conn.ts";
import { testLeaf, testRoot } from "./testing.ts";
import { Tls } from "./tls.ts";

const NAME = "web.shop.serviceaccount.identity.pillion.cluster.local";
const clock = new SystemClock();
const root = testRoot("cluster.local");
const leaf = testLeaf(root);
const tls = new Tls(clock);
tls.setAnchors(new Map([["cluster.local", root.pem]]));
tls.setLeaf({ keyPem: leaf.keyPem, chainPem: leaf.pem });
const transport = new NodeTransport(clock, tls, {
  backlog: 16,
  connectionsMax: 64,
  acceptKeepAliveMs: 0,
  localIp: null,
  originalDestination: (_fd, { local }) => local,
});

const quiet: ConnHandler = {
  onData: () => undefined,
  onEnd: () => undefined,
  onDrain: () => undefined,
  onClose: () => undefined,
};

/** Two connected sockets: ours is paused. */
async function sockets(t: TestContext): Promise<{ own: Socket; remote: Socket }> {
  const server = createServer({ allowHalfOpen: true });
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  const accepted = once(server, "connection") as Promise<[Socket]>;
  const { port } = server.address() as AddressInfo;
  const own = connect({ port, host: "127.0.0.1", allowHalfOpen: true });
  own.pause();
  const [remote] = await accepted;
  if (own.connecting) await once(own, "connect");
  remote.on("error", () => undefined);
  server.close();
  t.after(() => {
    own.destroy();
    remote.destroy();
  });
  return { own, remote };
}

async function tlsConns(): Promise<{ client: Conn; server: Conn }> {
  const client = Promise.withResolvers<Conn>();
  const server = Promise.withResolvers<Conn>();
  const at = { ip: "127.0.0.1" as IpAddress, port: 0 };
  const listener = await transport.listen(at, ({ conn }) =>
    transport.secureServer(conn, { alpn: [], timeoutMs: 30_000 }, (_error, result) =>
      server.resolve(result!.conn),
    ),
  );
  const options = { serverName: NAME, expected: NAME, alpn: [], timeoutMs: 30_000, isAnonymous: false };
  transport.connect(listener.address, { timeoutMs: 30_000, keepAliveMs: 0 }, (_error, conn) =>
    transport.secureClient(conn!, options, (_failed, result) => client.resolve(result!.conn)),
  );
  const both = { client: await client.promise, server: await server.promise };
  listener.close();
  return both;
}

/** Bytes that tell where in whose stream they belong. */
function streamOf(who: number, size: number): Buffer {
  const bytes = Buffer.alloc(size);
  for (let at = 0; at < size; at++) bytes[at] = (who * 37 + at + (at >> 8) * 11 + (at >> 16) * 3) & 0xff;
  return bytes;
}

async function received(socket: Socket, size: number): Promise<Buffer> {
  const pieces: Buffer[] = [];
  let missing = size;
  for await (const piece of socket.iterator({ destroyOnReturn: false }) as AsyncIterable<Buffer>) {
    pieces.push(piece);
    missing -= piece.length;
    if (missing <= 0) break;
  }
  return Buffer.concat(pieces);
}

/** The kernel has all that comes to this end: CLOSE_WAIT, the FIN has come (proc_pid_net(5)). */
function hasAll({ local, remote }: Conn): boolean {
  const [here, there] = [local, remote].map(({ port }) => port.toString(16).toUpperCase().padStart(4, "0"));
  return new RegExp(`:${here} \\w+:${there} 08 `).test(readFileSync("/proc/self/net/tcp", "latin1"));
}

const untilEqual = async (what: () => number, expected: number): Promise<void> => {
  while (what() !== expected) await new Promise((resolve) => setImmediate(resolve));
};

test(
  "what a receiver keeps stays as it was, whatever other connections read",
  { timeout: 20_000 },
  async (t) => {
    const sizes = [1, 100, 3000, 20_000, 150_000];
    const all = await Promise.all(
      Array.from({ length: 8 }, async (_, who) => {
        const { own, remote } = await sockets(t);
        const kept: Uint8Array[] = [];
        let keptBytes = 0;
        new SocketConn(clock, own).setHandler({
          ...quiet,
          onData: (bytes) => {
            kept.push(bytes);
            keptBytes += bytes.length;
          },
        });
        const wholeBytes = sizes.reduce((sum, size) => sum + size, 0);
        const whole = streamOf(who, wholeBytes);
        let at = 0;
        for (const size of sizes) {
          remote.write(whole.subarray(at, at + size));
          at += size;
          await untilEqual(() => keptBytes, at);
        }
        return { whole, kept };
      }),
    );
    for (const { whole, kept } of all) assert.ok(whole.equals(Buffer.concat(kept)));
  },
);

test("whoever borrows what is long owns what is short", { timeout: 30_000 }, async (t) => {
  const long = new Set<ArrayBufferLike>();
  const kept: { bytes: Uint8Array; copy: Buffer }[] = [];
  let bytesSeen = 0;
  for (let i = 0; i < 3; i++) {
    const { own, remote } = await sockets(t);
    new SocketConn(clock, own).setHandler({
      ...quiet,
      borrowsLong: true,
      onData: (bytes) => {
        if (bytes.length >= LONG_READ_BYTES_MIN) long.add(bytes.buffer);
        else kept.push({ bytes, copy: Buffer.from(bytes) });
        bytesSeen += bytes.length;
      },
    });
    const before = bytesSeen;
    remote.write(streamOf(i, 100));
    await untilEqual(() => bytesSeen - before, 100);
    remote.write(streamOf(i + 1, 3 * LONG_READ_BYTES_MIN));
    await untilEqual(() => bytesSeen - before, 100 + 3 * LONG_READ_BYTES_MIN);
  }
  assert.equal(long.size, 1);
  for (const { bytes, copy } of kept) {
    assert.equal(long.has(bytes.buffer), false);
    assert.ok(copy.equals(bytes));
  }
});

test("whoever borrows is shown one memory by all connections", { timeout: 30_000 }, async (t) => {
  const seen = new Set<ArrayBufferLike>();
  let bytesSeen = 0;
  for (let i = 0; i < 3; i++) {
    const { own, remote } = await sockets(t);
    new SocketConn(clock, own).setHandler({
      ...quiet,
      borrows: true,
      onData: (bytes) => {
        seen.add(bytes.buffer);
        bytesSeen += bytes.length;
      },
    });
    remote.write("shown");
    await untilEqual(() => bytesSeen, 5 * (i + 1));
  }
  assert.equal(seen.size, 1, "this Node no longer reads where it is told: see node-socket.ts");
});

test(
  "streams through pipes over TLS arrive whole beside each other, before slow readers",
  { timeout: 60_000 },
  async (t) => {
    const wholeBytes = 12_000_000;
    await Promise.all(
      Array.from({ length: 4 }, async (_, who) => {
        const one = await sockets(t);
        const two = await sockets(t);
        const { client, server } = await tlsConns();
        pipe(new SocketConn(clock, one.own), client, () => undefined);
        pipe(server, new SocketConn(clock, two.own), () => undefined);
        const there = streamOf(who, wholeBytes);
        const back = streamOf(who + 100, wholeBytes);
        one.remote.write(there);
        two.remote.write(back);
        // Nobody reads until nothing moves any more: everything between is full, and writes are under way.
        let before = -1;
        while (before !== one.own.bytesRead + two.own.bytesRead) {
          before = one.own.bytesRead + two.own.bytesRead;
          for (let turns = 0; turns < 50; turns++) await new Promise((resolve) => setImmediate(resolve));
        }
        assert.ok(before < 2 * wholeBytes, "back-pressure reaches who writes");
        const [gotThere, gotBack] = await Promise.all([
          received(two.remote, wholeBytes),
          received(one.remote, wholeBytes),
        ]);
        assert.ok(there.equals(gotThere));
        assert.ok(back.equals(gotBack));
      }),
    );
  },
);

test(
  "streams over more connections than may gather their reads arrive whole",
  { timeout: 60_000 },
  async (t) => {
    const wholeBytes = 6_000_000;
    await Promise.all(
      Array.from({ length: 24 }, async (_, who) => {
        const { own, remote } = await sockets(t);
        const { client, server } = await tlsConns();
        client.setHandler(quiet);
        pipe(server, new SocketConn(clock, own), () => undefined);
        const whole = streamOf(who, wholeBytes);
        // Longer and shorter than a block of reads, some with a short record behind.
        for (let at = 0, size = 16_384; at < wholeBytes; at += size, size = (size * 3) % 400_000)
          client.write(whole.subarray(at, at + size));
        // Of half of them nobody reads until others have come and gone.
        if (who % 2 === 1)
          for (let turns = 0; turns < 300; turns++) await new Promise((resolve) => setImmediate(resolve));
        assert.ok(whole.equals(await received(remote, wholeBytes)));
        client.reset();
      }),
    );
  },
);

for (const borrowing of [{ borrows: true }, { borrowsLong: true }])
  test(
    `full records that follow each other are handed over together, and a message at once (${Object.keys(borrowing).join()})`,
    { timeout: 20_000 },
    async (t) => {
      const { client, server } = await tlsConns();
      t.after(() => client.reset());
      client.setHandler(quiet);
      const sizes: number[] = [];
      const got: Buffer[] = [];
      let gotBytes = 0;
      server.setHandler({
        ...quiet,
        ...borrowing,
        onData: (bytes) => {
          sizes.push(bytes.length);
          got.push(Buffer.from(bytes));
          gotBytes += bytes.length;
        },
      });
      // The last record is full, too: nothing behind it says that it was the last.
      const whole = streamOf(5, 60 * 16_384);
      client.write(whole);
      await untilEqual(() => gotBytes, whole.length);
      assert.ok(sizes.length <= 30, `${sizes.length} pieces of 60 records`);
      assert.ok(sizes.includes(8 * 16_384), sizes.join());
      client.write(Buffer.from("short"));
      await untilEqual(() => gotBytes, whole.length + 5);
      assert.ok(Buffer.concat([whole, Buffer.from("short")]).equals(Buffer.concat(got)));
    },
  );

test(
  "who lends patiently waits while lent bytes are under way, and is told when they are not",
  { timeout: 20_000 },
  async (t) => {
    const { client, server } = await tlsConns();
    t.after(() => client.reset());
    let drains = 0;
    client.setHandler({ ...quiet, onDrain: () => drains++ });
    let gotBytes = 0;
    server.setHandler({ ...quiet, onData: (bytes) => (gotBytes += bytes.length) });
    const lent = Buffer.alloc(100_000);
    assert.equal(client.writeLent(lent), true);
    await untilEqual(() => gotBytes, 100_000);
    assert.equal(drains, 0);
    assert.equal(client.writeLent(lent, true), false);
    await untilEqual(() => drains, 1);
    await untilEqual(() => gotBytes, 200_000);
  },
);

test("what came before an end is told before it, though it was gathered", { timeout: 20_000 }, async () => {
  const { client, server } = await tlsConns();
  client.setHandler(quiet);
  let gotBytes = 0;
  const atEnd = Promise.withResolvers<number>();
  server.setHandler({
    ...quiet,
    borrows: true,
    onData: (bytes) => (gotBytes += bytes.length),
    onEnd: () => atEnd.resolve(gotBytes),
  });
  client.write(streamOf(6, 3 * 16_384));
  client.end();
  assert.equal(await atEnd.promise, 3 * 16_384);
  server.end();
});

test(
  "what is gathered is told before an end that came with it, though something was written before",
  { timeout: 20_000 },
  async () => {
    const { client, server } = await tlsConns();
    client.setHandler(quiet);
    const told: string[] = [];
    const closed = Promise.withResolvers<void>();
    server.setHandler({
      ...quiet,
      borrows: true,
      onData: (bytes) => {
        told.push(`${bytes.length}`);
        // The first thing to be done in the turn's end.
        server.write(Buffer.from("answer"));
      },
      onEnd: () => {
        told.push("end");
        server.end();
      },
      onClose: () => closed.resolve(),
    });
    const turns = async (): Promise<void> => {
      for (let i = 0; i < 50; i++) await new Promise((resolve) => setImmediate(resolve));
    };
    await turns();
    server.pause();
    await turns();
    client.write(streamOf(8, 3 * 16_384));
    client.end();
    while (!hasAll(server)) await turns();
    server.resume();
    await closed.promise;
    assert.deepEqual(told, ["16384", "32768", "end"]);
  },
);

test(
  "a borrower that pauses between the records of one read finds the rest as it was",
  { timeout: 20_000 },
  async (t) => {
    const { client, server } = await tlsConns();
    t.after(() => client.reset());
    const whole = streamOf(7, 400_000);
    const got: Buffer[] = [];
    let gotBytes = 0;
    server.setHandler({
      ...quiet,
      borrows: true,
      onData: (bytes) => {
        got.push(Buffer.from(bytes));
        gotBytes += bytes.length;
        server.pause();
        setImmediate(() => server.resume());
      },
    });
    client.setHandler(quiet);
    client.write(whole);
    // Another connection overwrites the memory that is shared meanwhile.
    const { own, remote } = await sockets(t);
    new SocketConn(clock, own).setHandler({ ...quiet, borrows: true });
    const noise = setInterval(() => remote.write(Buffer.alloc(60_000, 0xee)), 1);
    t.after(() => clearInterval(noise));
    await untilEqual(() => gotBytes, whole.length);
    assert.ok(whole.equals(Buffer.concat(got)));
  },
);

/** Writes a stream by memory that is overwritten after each call, and only then lets the far side read. */
function lendAll(conn: Conn): Buffer {
  const sizes = [100, 3000, 70_000, 16_384, 2048, 70_000, 70_000, 1, 20_000, 65_536, 300_000, 500_000];
  const whole = streamOf(
    3,
    sizes.reduce((sum, size) => sum + size, 0),
  );
  const lent = Buffer.alloc(500_000);
  let at = 0;
  for (const size of sizes) {
    whole.copy(lent, 0, at, at + size);
    at += size;
    conn.writeLent(lent.subarray(0, size));
    lent.fill(0xee);
  }
  return whole;
}

test("bytes that are lent may be changed once the call has returned", { timeout: 20_000 }, async (t) => {
  const { own, remote } = await sockets(t);
  const conn = new SocketConn(clock, own);
  conn.setHandler(quiet);
  const wholes: Buffer[] = [];
  // Until the kernel takes no more: one write is under way, and what comes then waits behind it.
  for (let more = 3; more > 0;) {
    wholes.push(lendAll(conn));
    for (let turns = 0; turns < 5; turns++) await new Promise((resolve) => setImmediate(resolve));
    if (conn.bufferedBytes > 0) more--;
  }
  const whole = Buffer.concat(wholes);
  assert.ok(whole.equals(await received(remote, whole.length)));
});

test("… under TLS, too, also when the far side does not read", { timeout: 30_000 }, async (t) => {
  const { client, server } = await tlsConns();
  t.after(() => client.reset());
  client.setHandler(quiet);
  const wholes: Buffer[] = [];
  // A turn between, so that some are written at once and some wait.
  for (let i = 0; i < 12; i++) {
    wholes.push(lendAll(client));
    const big = streamOf(i, 200_000);
    const lent = Buffer.from(big);
    for (let turns = 0; turns < 3; turns++) await new Promise((resolve) => setImmediate(resolve));
    client.writeLent(lent);
    lent.fill(0xee);
    wholes.push(big);
  }
  const whole = Buffer.concat(wholes);
  const got: Buffer[] = [];
  let gotBytes = 0;
  server.setHandler({
    ...quiet,
    onData: (bytes) => {
      got.push(Buffer.from(bytes));
      gotBytes += bytes.length;
    },
  });
  await untilEqual(() => gotBytes, whole.length);
  assert.ok(whole.equals(Buffer.concat(got)));
});

test("what Node had read before the first handler comes first", { timeout: 30_000 }, async (t) => {
  const { own, remote } = await sockets(t);
  remote.write("early ");
  own.read(0);
  await untilEqual(() => own.readableLength, 6);
  let text = "";
  new SocketConn(clock, own).setHandler({
    ...quiet,
    onData: (bytes) => (text += Buffer.from(bytes).toString()),
  });
  remote.write("and late");
  await untilEqual(() => text.length, 14);
  assert.equal(text, "early and late");
});

for (const [what, name] of [
  ["cannot read where it is told", "useUserBuffer"],
  ["does not say whether it reads", "reading"],
] as const)
  test(`a socket that ${what} is read as any other`, { timeout: 30_000 }, async (t) => {
    const { own, remote } = await sockets(t);
    (own as unknown as { _handle: Record<string, unknown> })._handle[name] = undefined;
    let text = "";
    let isEnded = false;
    new SocketConn(clock, own).setHandler({
      ...quiet,
      onData: (bytes) => (text += Buffer.from(bytes).toString()),
      onEnd: () => (isEnded = true),
    });
    remote.end("as ever");
    await untilEqual(() => Number(isEnded), 1);
    assert.equal(text, "as ever");
  });
