import assert from "node:assert/strict";
import { test } from "node:test";
import type { Conn, ConnHandler } from "#/base/conn.ts";
import { Frame, FRAME_BYTES_DEFAULT, Setting } from "#/wire/http2/frame.ts";
import { Found, FrameReader } from "#/wire/http2/frame-reader.ts";
import type { HttpService } from "./exchange.ts";
import { SPENT } from "./exchange.ts";
import { Http1Client } from "./http1-client.ts";
import { Http1Server } from "./http1-server.ts";
import { Http2Client } from "./http2-client.ts";
import { Http2Server } from "./http2-server.ts";
import type { MemoryConn } from "./testing.ts";
import { ManualClock, memoryPair } from "./testing.ts";

const PREFACE_BYTES = 24;
const PIECE_BYTES = 50_000;

/** A program's end: what it has read. */
class Program implements ConnHandler {
  readonly #read: Uint8Array[] = [];
  readonly #conn: Conn;
  /** Told with everything that was read so far. */
  atData: (text: Buffer) => void = () => {};

  constructor(conn: Conn) {
    this.#conn = conn;
    conn.setHandler(this);
  }

  get text(): Buffer {
    return Buffer.concat(this.#read);
  }

  send(head: string, body: Buffer): void {
    const all = Buffer.concat([Buffer.from(`${head}Content-Length: ${body.length}\r\n\r\n`), body]);
    // In pieces as sockets give them, the first with the head; the copy is the connection's.
    for (let at = 0; at < all.length; at += PIECE_BYTES)
      this.#conn.write(new Uint8Array(all.subarray(at, at + PIECE_BYTES)));
  }

  onData(bytes: Uint8Array): void {
    this.#read.push(new Uint8Array(bytes));
    this.atData(this.text);
  }
  onEnd(): void {}
  onDrain(): void {}
  onClose(): void {}
}

/** Bytes none of which lies where another of the same value does nearby, and none is `SPOILT`. */
function patterned(size: number, first: number): Buffer {
  const bytes = Buffer.alloc(size);
  for (let i = 0; i < size; i++) bytes[i] = (first + i + (i >>> 8)) % 200;
  return bytes;
}

function bodyOf(text: Buffer): Buffer {
  const headEnd = text.indexOf("\r\n\r\n");
  return headEnd < 0 ? Buffer.alloc(0) : text.subarray(headEnd + 4);
}

interface Path {
  readonly client: Program;
  readonly server: Program;
}

/** A program, two sidecars, and a program: for each of `count` requests at once, all on one connection between the sidecars. */
function paths(
  count: number,
  spells: boolean,
  window: number,
  bodyBytes: number,
): { clock: ManualClock; all: Path[]; between: MemoryConn[] } {
  const clock = new ManualClock();
  const [near, far] = memoryPair(clock, 70_000);
  const servers: Program[] = [];
  const inbound: HttpService = {
    call: (head, last, reply) => {
      const [proxy, program] = memoryPair(clock, PIECE_BYTES);
      servers.push(new Program(program));
      return new Http1Client(proxy, clock, { idle() {}, gone() {} }).call(head, last, reply);
    },
  };
  const machine = { streamWindowBytes: window, streamWindowBytesMost: window };
  const options = { meshed: true, spells, machine };
  const h2server = new Http2Server(far, inbound, clock, () => {}, { ...options, clientId: null });
  const h2client = new Http2Client(near, clock, () => {}, options);
  clock.settle();
  assert.equal(h2server.activeRequests, 0);
  const all: Path[] = [];
  const clients: Program[] = [];
  for (let i = 0; i < count; i++) {
    const [program, proxy] = memoryPair(clock, PIECE_BYTES);
    new Http1Server(proxy, h2client, clock, () => {});
    clients.push(new Program(program));
    (clients[i] as Program).send(`POST /${i} HTTP/1.1\r\nHost: a\r\n`, patterned(bodyBytes + i, i));
  }
  clock.settle();
  for (let i = 0; i < count; i++) all.push({ client: clients[i] as Program, server: servers[i] as Program });
  return { clock, all, between: [near, far] };
}

/** The longest DATA that was sent. `mayBeLong`: SETTINGS allow for longer frames than usual. */
function longestData(conn: MemoryConn, skippedBytes: number, mayBeLong: boolean): number {
  const reader = new FrameReader(2 ** 24 - 1);
  reader.feed(Buffer.from(conn.written, "latin1").subarray(skippedBytes));
  let longest = 0;
  for (let found = reader.next(); found !== Found.NOTHING; found = reader.next()) {
    assert.notEqual(found, Found.ERROR);
    if (found === Found.FRAME && reader.type === Frame.SETTINGS && reader.length > 0) {
      let isLong = false;
      for (let at = reader.start; at < reader.stop; at += 6)
        if (reader.bytes.readUInt16BE(at) === Setting.SETTINGS_MAX_FRAME_SIZE) isLong = true;
      assert.equal(isLong, mayBeLong, "SETTINGS_MAX_FRAME_SIZE is for our own only");
    }
    if (found === Found.DATA_HEAD && reader.type === Frame.DATA) longest = Math.max(longest, reader.length);
  }
  return longest;
}

for (const spells of [true, false]) {
  for (const window of [262_144, 30_000]) {
    test(`bodies are whole both ways where reads are lent, ${spells ? "between ours" : "to another's"}, window of ${window}`, () => {
      const { clock, all, between } = paths(3, spells, window, 300_000);
      for (const [i, { server }] of all.entries()) {
        assert.ok(/^POST \/\d HTTP\/1\.1\r\nhost: a\r\n/i.test(server.text.toString("latin1", 0, 200)));
        assert.ok(bodyOf(server.text).equals(patterned(300_000 + i, i)), `request ${i} is not what was sent`);
        server.send(`HTTP/1.1 200 OK\r\nX-Number: ${i}\r\n`, patterned(500_000 + i, 100 + i));
      }
      clock.settle();
      for (const [i, { client }] of all.entries()) {
        assert.ok(client.text.toString("latin1", 0, 200).toLowerCase().includes(`x-number: ${i}\r\n`));
        assert.ok(
          bodyOf(client.text).equals(patterned(500_000 + i, 100 + i)),
          `answer ${i} is not what was sent`,
        );
      }
      const [near, far] = between as [MemoryConn, MemoryConn];
      const up = longestData(near, PREFACE_BYTES, spells);
      const down = longestData(far, 0, spells);
      if (!spells) assert.ok(up <= FRAME_BYTES_DEFAULT && down <= FRAME_BYTES_DEFAULT, `${up}, ${down}`);
      else if (window > PIECE_BYTES)
        assert.ok(up > FRAME_BYTES_DEFAULT && down > FRAME_BYTES_DEFAULT, `${up}, ${down}`);
    });
  }
}

test("bodies of many small frames in one long read are whole", () => {
  const count = 300;
  const { clock, all, between } = paths(count, true, 262_144, 100);
  for (const { server } of all) server.send("HTTP/1.1 200 OK\r\n", Buffer.alloc(0));
  const [, far] = between as [MemoryConn, MemoryConn];
  assert.ok(far.longestReadBytes > 8_192, `${far.longestReadBytes}`);
  for (const [i, { server }] of all.entries())
    assert.ok(bodyOf(server.text).equals(patterned(100 + i, i)), `request ${i} is not what was sent`);
  clock.settle();
  for (const { client } of all) assert.match(client.text.toString("latin1"), /^HTTP\/1\.1 200 OK/);
});

test("of bodies whose readers are slow a sidecar keeps a window and a read each, whether windows or the socket hold them", () => {
  const COUNT = 8;
  const READ_BYTES = 100_000;
  const BODY_BYTES = 2_000_000;
  for (const holds of ["windows", "the socket"] as const) {
    const clock = new ManualClock();
    const [near, far] = memoryPair(clock, 70_000);
    const came = Array.from({ length: COUNT }, () => 0);
    const owed: (() => void)[] = [];
    const inbound: HttpService = {
      call(head, _last, reply) {
        const i = Number(head.path.slice(1));
        const take = (_bytes: Uint8Array, start: number, stop: number): void => {
          came[i] = (came[i] as number) + stop - start;
          owed.push(() => reply.requestConsumed(stop - start));
        };
        return { ...SPENT, data: take, dataLent: take };
      },
    };
    const machine = { streamWindowBytes: 200_000, streamWindowBytesMost: 200_000 };
    const options = { meshed: true, spells: true, machine };
    new Http2Server(far, inbound, clock, () => {}, { ...options, clientId: null });
    const client = new Http2Client(near, clock, () => {}, options);
    clock.settle();
    if (holds === "the socket") far.pause();
    const read = Array.from({ length: COUNT }, () => 0);
    for (let i = 0; i < COUNT; i++) {
      const [program, proxy] = memoryPair(clock, READ_BYTES);
      const setHandler = proxy.setHandler.bind(proxy);
      proxy.setHandler = (handler) => {
        const onData = handler.onData.bind(handler);
        handler.onData = (bytes): void => {
          read[i] = (read[i] as number) + bytes.length;
          onData(bytes);
        };
        setHandler(handler);
      };
      new Http1Server(proxy, client, clock, () => {});
      program.setHandler({ onData() {}, onEnd() {}, onDrain() {}, onClose() {} });
      program.write(Buffer.from(`POST /${i} HTTP/1.1\r\nHost: a\r\nContent-Length: ${BODY_BYTES}\r\n\r\n`));
      for (let at = 0; at < BODY_BYTES; at += READ_BYTES) program.write(new Uint8Array(READ_BYTES));
    }
    clock.advance(100);
    const sent = dataBytes(near, PREFACE_BYTES);
    for (let i = 0; i < COUNT; i++) {
      const kept = (read[i] as number) - (sent.get(2 * i + 1) ?? 0);
      assert.ok(kept > 0 && kept <= 96 * 1024 + READ_BYTES, `${kept} bytes of one kept by ${holds}`);
    }
    assert.ok(near.bufferedBytes <= 400_000, `${near.bufferedBytes} bytes given to the socket`);
    if (holds === "windows") assert.ok(came.every((bytes) => bytes === 200_000));
    far.resume();
    for (clock.advance(10); owed.length > 0; clock.advance(10)) for (const pay of owed.splice(0)) pay();
    assert.deepEqual(
      came,
      came.map(() => BODY_BYTES),
    );
  }
});

/** How many bytes of DATA were sent on each stream. */
function dataBytes(conn: MemoryConn, skippedBytes: number): Map<number, number> {
  const reader = new FrameReader(2 ** 24 - 1);
  reader.feed(Buffer.from(conn.written, "latin1").subarray(skippedBytes));
  const sent = new Map<number, number>();
  for (let found = reader.next(); found !== Found.NOTHING; found = reader.next())
    if (found === Found.DATA_HEAD)
      sent.set(reader.streamId, (sent.get(reader.streamId) ?? 0) + reader.length);
  return sent;
}
