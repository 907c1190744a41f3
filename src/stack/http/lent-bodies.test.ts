import assert from "node:assert/strict";
import { test } from "node:test";
import type { Conn, ConnHandler } from "#/base/conn.ts";
import { Frame, FRAME_BYTES_DEFAULT, Setting } from "#/wire/http2/frame.ts";
import { Found, FrameReader } from "#/wire/http2/frame-reader.ts";
import type { HttpService } from "./exchange.ts";
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
