/** Opaque connections as streams of one: what each end sees of the other. */
import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import { addressKey } from "#/base/address.ts";
import type { Conn, ConnHandler } from "#/base/conn.ts";
import type { ConnError } from "#/base/errors.ts";
import { giveSpare, takeSpare } from "#/base/spare-memory.ts";
import { LIMITS } from "#/model/limits.ts";
import { Event, Http2Connection } from "#/wire/http2/connection.ts";
import { FrameWriter } from "#/wire/http2/frame-writer.ts";
import { HpackEncoder } from "#/wire/hpack/encoder.ts";
import { Guard } from "../http/guard.ts";
import { ManualClock, memoryPair, type MemoryConn } from "../http/testing.ts";
import { Registry } from "../metrics/registry.ts";
import { BULKY_BYTES, type CarrierConn } from "./carrier-conn.ts";
import { CARRIER_IDLE_MS, ClientCarrier } from "./client-carrier.ts";
import { ServerCarrier } from "./server-carrier.ts";
import { CARRIER_MACHINE } from "./settings.ts";

const TARGET = "10.0.0.2:5432";
const CONNECT = [":method", "CONNECT", ":authority", TARGET];
const { connectionWindowBytes, maxConcurrentStreams, streamWindowBytes, windowGrowthBytesMost } =
  CARRIER_MACHINE as Required<typeof CARRIER_MACHINE>;

function sum(numbers: readonly number[]): number {
  return numbers.reduce((all, one) => all + one, 0);
}

const SPOILT = 0xee;

/** Lends bytes, and uses their memory for something else. */
function lend(seen: Seen, size: number): void {
  const bytes = Buffer.alloc(size);
  seen.conn.writeLent(bytes);
  bytes.fill(SPOILT);
}

/** Reads as sockets do: into memory that is used again. */
function lendReads(conn: Conn): void {
  const setHandler = conn.setHandler.bind(conn);
  conn.setHandler = (handler) =>
    setHandler({
      onData: (bytes) => {
        const lent = Buffer.from(bytes);
        handler.onData(lent);
        if (handler.borrows === true) lent.fill(SPOILT);
      },
      onEnd: () => handler.onEnd(),
      onDrain: () => handler.onDrain(),
      onClose: (error) => handler.onClose(error),
    });
}

/** What one end of a stream was told. */
class Seen implements ConnHandler {
  borrows = false;
  readonly #kept: Uint8Array[] = [];
  readonly conn: Conn;
  text = "";
  bytes = 0;
  drains = 0;
  ended = false;
  /** "" while open, "clean", or the error's code. */
  closed = "";
  /** What to do at the remote side's end. */
  atEnd: () => void = () => undefined;

  constructor(conn: Conn) {
    this.conn = conn;
    conn.setHandler(this);
  }

  onData(bytes: Uint8Array): void {
    assert.equal(this.closed, "", "bytes after the close");
    assert.equal(this.ended, false, "bytes after the end");
    this.bytes += bytes.length;
    this.#kept.push(this.borrows ? new Uint8Array(bytes) : bytes);
    if (this.bytes < 4096) this.text += Buffer.from(bytes).toString("latin1");
  }
  /** Bytes that are not what they were: lent ones are overwritten after the call. */
  get spoilt(): number {
    return sum(this.#kept.map((bytes) => bytes.filter((byte) => byte === SPOILT).length));
  }
  onEnd(): void {
    assert.equal(this.ended, false, "told once");
    this.ended = true;
    this.atEnd();
  }
  onDrain(): void {
    this.drains++;
  }
  onClose(error: ConnError | null): void {
    assert.equal(this.closed, "", "told once");
    this.closed = error === null ? "clean" : error.code;
  }
}

/** Time that goes by with every turn, so that there is a round trip for windows to go by. */
class TurningClock extends ManualClock {
  override soon(task: () => void): void {
    super.soon(() => {
      this.stall(0.01);
      task();
    });
  }
}

/** A carrier, both ends. */
class Scene {
  readonly clock = new TurningClock();
  readonly near: MemoryConn;
  readonly far: MemoryConn;
  readonly client: ClientCarrier;
  readonly server: ServerCarrier;
  readonly targets: string[] = [];
  readonly accepted: Seen[] = [];
  readonly refused: string[] = [];
  isRetired = false;
  /** Whether streams that are accepted are read. */
  isReading = true;
  over = { client: false, server: false };

  constructor(pieceBytes = 65_536) {
    [this.near, this.far] = memoryPair(this.clock, pieceBytes);
    for (const conn of [this.near, this.far]) lendReads(conn);
    const guard = new Guard(LIMITS, "inbound", this.clock, new Registry());
    this.server = new ServerCarrier(this.far, this.clock, guard, {
      opened: (stream, target) => {
        this.targets.push(addressKey(target));
        if (!this.isReading) stream.pause();
        this.accepted.push(new Seen(stream));
      },
      refused: (detail) => this.refused.push(detail),
      closed: () => (this.over.server = true),
    });
    this.client = new ClientCarrier(
      this.near,
      this.clock,
      {},
      {
        retired: () => (this.isRetired = true),
        roomier: () => undefined,
        closed: () => (this.over.client = true),
      },
    );
    this.clock.settle();
  }

  /** A stream, as both ends see it. The server's exists once the client's turn is over. */
  open(): { near: Seen; far: () => Seen } {
    const place = this.accepted.length;
    const near = new Seen(this.client.open(CONNECT));
    return { near, far: () => this.accepted[place] as Seen };
  }

  pair(): [near: Seen, far: Seen] {
    const { near, far } = this.open();
    this.clock.settle();
    return [near, far()];
  }
}

const say = (seen: Seen, text: string): boolean => seen.conn.write(Buffer.from(text, "latin1"));

test("bytes may follow the request at once, and the server is told where they are meant to go", () => {
  const scene = new Scene();
  const { near, far } = scene.open();
  say(near, "hello");
  scene.clock.settle();
  assert.deepEqual(scene.targets, [TARGET]);
  assert.equal(far().text, "hello");
  say(far(), "welcome");
  scene.clock.settle();
  assert.equal(near.text, "welcome");
  assert.equal(addressKey(far().conn.remote), addressKey(scene.far.remote));
});

test("what several streams say in one turn leaves in one write", () => {
  const scene = new Scene();
  const streams = Array.from({ length: 10 }, () => scene.pair()[0]);
  let writes = 0;
  const write = scene.near.write.bind(scene.near);
  scene.near.write = (bytes) => {
    writes++;
    return write(bytes);
  };
  for (const stream of streams) say(stream, "x");
  scene.clock.settle();
  assert.equal(writes, 1);
  assert.equal(
    scene.accepted.every(({ text }) => text === "x"),
    true,
  );
});

test("each half ends by itself, whichever goes first (RFC 9113 §8.5)", () => {
  for (const first of ["client", "server"]) {
    const scene = new Scene();
    const [near, far] = scene.pair();
    const [one, other] = first === "client" ? [near, far] : [far, near];
    say(one, "all of mine");
    one.conn.end();
    scene.clock.settle();
    assert.deepEqual([other.text, other.ended, other.closed], ["all of mine", true, ""]);
    say(other, "and mine");
    scene.clock.settle();
    assert.deepEqual([one.text, one.ended, one.closed], ["and mine", false, ""]);
    other.conn.end();
    scene.clock.settle();
    assert.deepEqual([one.ended, one.closed, other.closed], [true, "clean", "clean"]);
    assert.equal(scene.client.streamCount, 0);
  }
});

test("an end with the request and an end without a byte are ends, too", () => {
  const scene = new Scene();
  const { near, far } = scene.open();
  near.conn.end();
  scene.clock.settle();
  assert.deepEqual([far().ended, far().closed], [true, ""]);
  far().conn.end();
  scene.clock.settle();
  assert.deepEqual([near.ended, near.closed, far().closed], [true, "clean", "clean"]);
});

test("a reset is seen behind the bytes that were written before it, also where windows hold them back", () => {
  for (const size of [1, 10_000, 200_000]) {
    const scene = new Scene();
    const [near, far] = scene.pair();
    near.conn.write(Buffer.alloc(size, "y"));
    near.conn.reset();
    scene.clock.settle();
    assert.deepEqual([near.closed, far.closed, far.bytes, far.ended], ["ABORTED", "RESET", size, false]);
    assert.equal(scene.client.streamCount, 0);
  }
});

test("a reader that has paused reads what came before a reset, and then sees it", () => {
  const scene = new Scene();
  const [near, far] = scene.pair();
  far.conn.pause();
  say(near, "the last words");
  near.conn.reset();
  scene.clock.settle();
  assert.deepEqual([far.text, far.closed], ["", ""]);
  far.conn.resume();
  scene.clock.settle();
  assert.deepEqual([far.text, far.closed], ["the last words", "RESET"]);
});

test("a reset does not wait for ever for a reader that takes nothing", () => {
  const scene = new Scene();
  scene.isReading = false;
  const [near, far] = scene.pair();
  near.conn.write(Buffer.alloc(3 * streamWindowBytes));
  near.conn.reset();
  scene.clock.settle();
  assert.equal(near.closed, "ABORTED", "for us it is over at once");
  assert.equal(scene.client.streamCount, 1);
  scene.clock.advance(5_001);
  assert.equal(scene.client.streamCount, 0);
  far.conn.resume();
  scene.clock.settle();
  assert.equal(far.closed, "RESET");
  assert.equal(far.bytes, streamWindowBytes);
});

test("what streams leave behind that were reset and are not read is bounded, all together", () => {
  const scene = new Scene();
  scene.isReading = false;
  for (let i = 0; i < 200; i++) {
    const { near } = scene.open();
    near.conn.write(Buffer.alloc(streamWindowBytes));
    scene.clock.settle();
    near.conn.reset();
    scene.clock.settle();
  }
  const waiting = scene.accepted.filter(({ closed }) => closed === "");
  assert.equal(waiting.length, (4 * 1024 * 1024) / streamWindowBytes);
  // Those that are read make room for others.
  for (const { conn } of waiting) conn.resume();
  scene.clock.settle();
  assert.equal(
    scene.accepted.every(({ closed }) => closed === "RESET"),
    true,
  );
  const [near, far] = scene.pair();
  say(near, "x");
  near.conn.reset();
  scene.clock.settle();
  assert.equal(far.closed, "");
});

test("a slow reader holds up nobody else, and no more than a window waits for it", () => {
  const scene = new Scene();
  scene.isReading = false;
  const [slowNear, slowFar] = scene.pair();
  scene.isReading = true;
  const [fastNear, fastFar] = scene.pair();
  let written = 0;
  do written += 16_384;
  while (slowNear.conn.write(Buffer.alloc(16_384)) && written < 1_048_576);
  assert.ok(written < 400_000, "its writer is asked to wait");
  scene.clock.settle();
  assert.ok(slowNear.conn.bufferedBytes > 0);
  assert.equal(slowNear.drains, 0);
  const many = 3 * connectionWindowBytes;
  for (let sent = 0; sent < many; sent += 65_536) {
    fastNear.conn.write(Buffer.alloc(65_536));
    scene.clock.settle();
  }
  assert.equal(fastFar.bytes, many);
  assert.equal(slowFar.bytes, 0);
  slowFar.conn.resume();
  scene.clock.settle();
  assert.equal(slowFar.bytes, written);
  assert.equal(slowNear.drains, 1);
  assert.equal(slowNear.conn.bufferedBytes, 0);
});

test("streams that nobody reads, as many as there may be, leave their windows' room to one that is read", () => {
  const scene = new Scene();
  scene.isReading = false;
  for (let i = 0; i < maxConcurrentStreams - 1; i++) {
    const { near } = scene.open();
    near.conn.write(Buffer.alloc(2 * streamWindowBytes));
    scene.clock.settle();
  }
  scene.isReading = true;
  const [near, far] = scene.pair();
  assert.equal(scene.client.hasRoom, false, "a carrier takes so many and no more");
  for (let i = 0; i < 100; i++) {
    near.conn.write(Buffer.alloc(65_536));
    scene.clock.settle();
  }
  assert.equal(far.bytes, 100 * 65_536);
});

test("streams that have ended and are not read yet count for room, so that they leave it to one that is read", () => {
  const scene = new Scene();
  const unread: Seen[] = [];
  while (scene.client.hasRoom && unread.length < 3 * maxConcurrentStreams) {
    const [near, far] = scene.pair();
    near.conn.pause();
    near.conn.end();
    far.conn.write(Buffer.alloc(streamWindowBytes));
    far.conn.end();
    scene.clock.settle();
    unread.push(near);
  }
  assert.equal(scene.client.streamCount, 0, "all have ended");
  assert.equal(unread.length, maxConcurrentStreams);
  for (const { conn } of unread.splice(0, 2)) conn.resume();
  scene.clock.settle();
  assert.equal(scene.client.hasRoom, true, "those that are read make room");
  unread[0]?.conn.reset();
  scene.clock.settle();
  const streams = [scene.pair(), scene.pair(), scene.pair()];
  assert.equal(scene.client.hasRoom, false);
  for (const [near, far] of streams) {
    for (let i = 0; i < 100; i++) {
      far.conn.write(Buffer.alloc(65_536));
      scene.clock.settle();
    }
    assert.equal(near.bytes, 100 * 65_536);
  }
});

test("a server whose readers leave too much of streams that have ended sends new ones to another carrier", () => {
  const scene = new Scene();
  scene.isReading = false;
  let count = 0;
  for (; !scene.isRetired && count < 3 * maxConcurrentStreams; count++) {
    const [near, far] = scene.pair();
    far.conn.end();
    near.conn.write(Buffer.alloc(streamWindowBytes));
    near.conn.end();
    scene.clock.settle();
  }
  assert.equal(count, maxConcurrentStreams);
  for (const { conn } of scene.accepted) conn.resume();
  scene.clock.settle();
  assert.equal(
    scene.accepted.every(({ bytes, closed }) => bytes === streamWindowBytes && closed === "clean"),
    true,
  );
});

test("windows grow where readers keep up, together no further than their share of the connection's", () => {
  const scene = new Scene();
  const streams = Array.from({ length: 12 }, () => scene.pair());
  const feed = (): void => {
    for (const [near] of streams)
      while (near.conn.bufferedBytes < streamWindowBytes && near.conn.write(Buffer.alloc(32_768)));
  };
  for (let i = 0; i < 200; i++) {
    feed();
    scene.clock.settle();
  }
  for (const [, far] of streams) far.conn.pause();
  const readBytes = sum(streams.map(([, far]) => far.bytes));
  for (let i = 0; i < 2_000; i++) {
    feed();
    scene.clock.settle();
  }
  const heldBytes = sum(streams.map(([near]) => near.conn.sentBytes)) - readBytes;
  const beganBytes = 12 * streamWindowBytes;
  assert.ok(heldBytes > 2 * beganBytes, `${heldBytes} bytes: they grew`);
  assert.ok(heldBytes <= windowGrowthBytesMost + beganBytes, `${heldBytes} bytes wait for readers`);
});

test("lent bytes leave at once, as long as the socket takes them; then their reader is told to wait, and goes on", () => {
  const scene = new Scene();
  const [near, far] = scene.pair();
  const [other, otherFar] = scene.pair();
  assert.equal(near.conn.writeLent(Buffer.alloc(40_000)), true);
  assert.equal(near.conn.bufferedBytes, 0);
  assert.equal(scene.near.bufferedBytes > 40_000, true, "it is the socket's already");
  assert.equal(other.conn.writeLent(Buffer.alloc(40_000)), false, "the socket is full");
  scene.clock.settle();
  assert.deepEqual([far.bytes, near.drains], [40_000, 0]);
  assert.deepEqual([otherFar.bytes, other.drains], [40_000, 1]);
  lend(near, 200_000);
  lend(near, 5);
  near.conn.end();
  scene.clock.settle();
  assert.deepEqual([far.bytes, far.spoilt, far.ended], [240_005, 0, true]);
});

test("the rest of lent bytes that a window holds back waits in memory that is used again, and comes in its place", () => {
  const spare = takeSpare();
  giveSpare(spare);
  for (const follows of ["nothing", "bytes", "lent bytes", "the end"] as const) {
    const scene = new Scene();
    const [near, far] = scene.pair();
    const seen: Uint8Array[] = [];
    const onData = far.onData.bind(far);
    far.onData = (bytes) => {
      onData(bytes);
      seen.push(bytes);
    };
    const sent: Buffer[] = [];
    const numbered = (size: number): Buffer => {
      const bytes = Buffer.from(Uint8Array.from({ length: size }, (_, i) => (i * 7 + sent.length) % 200));
      sent.push(Buffer.from(bytes));
      return bytes;
    };
    const lendNumbered = (size: number): boolean => {
      const bytes = numbered(size);
      const mayGoOn = near.conn.writeLent(bytes);
      bytes.fill(SPOILT);
      return mayGoOn;
    };
    far.conn.pause();
    assert.equal(lendNumbered(20_000), true);
    scene.clock.settle();
    assert.equal(lendNumbered(100_000), false, "its lender is to wait as soon as anything does");
    assert.ok(near.conn.bufferedBytes >= 54_000, `${near.conn.bufferedBytes} wait`);
    assert.notEqual(takeSpare(), spare, "it holds the rest");
    if (follows === "bytes") near.conn.write(numbered(3));
    if (follows === "lent bytes") lendNumbered(9_000);
    if (follows === "the end") near.conn.end();
    scene.clock.settle();
    if (follows === "nothing") assert.equal(near.drains, 0);
    far.conn.resume();
    scene.clock.settle();
    assert.ok(near.drains >= 1);
    assert.deepEqual(Buffer.concat(seen), Buffer.concat(sent), follows);
    assert.deepEqual([near.conn.bufferedBytes, far.ended], [0, follows === "the end"]);
    // What followed it took the memory along.
    if (follows === "nothing") assert.equal(takeSpare(), spare);
    giveSpare(spare);
  }
});

test("lent bytes are cut into the frames that the remote side takes, and none waits for it to speak", () => {
  const clock = new ManualClock();
  const [near, far] = memoryPair(clock, 65_536);
  const server = new Http2Connection({ ...CARRIER_MACHINE, role: "server", maxFrameBytes: 16_384 });
  const frames: number[] = [];
  const write = (): void => {
    for (const out of server.takeOutputs()) far.write(out);
  };
  far.setHandler({
    onData: (bytes) => {
      server.feed(bytes);
      for (let kind = server.next(); kind !== Event.NOTHING; kind = server.next())
        if (kind === Event.DATA) frames.push(server.stop - server.start);
      write();
    },
    onEnd: () => undefined,
    onDrain: () => undefined,
    onClose: () => undefined,
  });
  write();
  const events = { retired: () => undefined, roomier: () => undefined, closed: () => undefined };
  const stream = new ClientCarrier(near, clock, {}, events).open(CONNECT);
  clock.settle();
  stream.writeLent(Buffer.alloc(60_000));
  clock.settle();
  assert.deepEqual([sum(frames), stream.bufferedBytes], [60_000, 0]);
});

test("a carrier that breaks resets its streams; one that was over stays clean", () => {
  const scene = new Scene();
  const [over, overFar] = scene.pair();
  over.conn.end();
  overFar.conn.end();
  const [near, far] = scene.pair();
  const [paused, pausedFar] = scene.pair();
  pausedFar.conn.pause();
  say(near, "cut off her");
  say(paused, "unread");
  scene.clock.settle();
  scene.near.reset();
  scene.clock.settle();
  assert.deepEqual([over.closed, overFar.closed], ["clean", "clean"]);
  assert.deepEqual([near.closed, far.closed, far.text], ["RESET", "RESET", "cut off her"]);
  assert.deepEqual([paused.closed, pausedFar.closed], ["RESET", "RESET"], "a paused reader learns of it");
  assert.deepEqual(scene.over, { client: true, server: true });
  assert.equal(scene.isRetired, true);
});

test("a server that drains takes no more streams, and those that are open go on", () => {
  const scene = new Scene();
  const [near, far] = scene.pair();
  scene.server.drain();
  // Under way while the word is: it is served.
  const { near: crossing, far: crossed } = scene.open();
  say(crossing, "just in time");
  scene.clock.settle();
  assert.equal(crossed().text, "just in time");
  assert.equal(scene.isRetired, true);
  assert.equal(scene.client.hasRoom, false);
  scene.clock.advance(24 * 3_600_000);
  say(near, "a day later");
  say(far, "still here");
  scene.clock.settle();
  assert.deepEqual([far.text, near.text], ["a day later", "still here"]);
  for (const { conn } of [near, far, crossing, crossed()]) conn.end();
  scene.clock.settle();
  assert.deepEqual([near.closed, crossing.closed], ["clean", "clean"]);
  scene.clock.advance(1_000);
  assert.deepEqual(scene.over, { client: true, server: true });
});

test("a carrier without streams leaves after a while, and not while there is one", () => {
  const scene = new Scene();
  const [near, far] = scene.pair();
  scene.clock.advance(10 * CARRIER_IDLE_MS);
  assert.equal(scene.client.hasRoom, true);
  near.conn.end();
  far.conn.end();
  scene.clock.advance(CARRIER_IDLE_MS - 1_000);
  assert.equal(scene.client.hasRoom, true);
  scene.pair()[0].conn.reset();
  scene.clock.settle();
  scene.clock.advance(CARRIER_IDLE_MS - 1_000);
  assert.equal(scene.client.hasRoom, true, "it was used meanwhile");
  scene.clock.advance(2_000);
  assert.deepEqual([scene.isRetired, scene.over], [true, { client: true, server: true }]);
});

test("a silent server is asked whether it is alive, and its streams end when it is not", () => {
  const clock = new ManualClock();
  const [near] = memoryPair(clock);
  let isOver = false;
  const machine = { pingIntervalMs: 10_000, pingIdleIntervalMs: 60_000, pingTimeoutMs: 10_000 };
  const events = { retired: () => undefined, roomier: () => undefined, closed: () => void (isOver = true) };
  const carrier = new ClientCarrier(near, clock, machine, events);
  const seen = new Seen(carrier.open(CONNECT));
  clock.advance(15_000);
  assert.equal(seen.closed, "");
  clock.advance(25_000);
  assert.deepEqual([seen.closed, isOver], ["RESET", true]);
});

test("a stream that has moved much makes its carrier one of many bytes, until it ends", () => {
  const scene = new Scene();
  const [near, far] = scene.pair();
  for (let moved = 0; moved < BULKY_BYTES; moved += 65_536) {
    assert.equal(scene.client.bulkyCount, 0);
    (moved % 131_072 === 0 ? near : far).conn.write(Buffer.alloc(65_536));
    scene.clock.settle();
  }
  assert.equal(scene.client.bulkyCount, 1);
  near.conn.reset();
  scene.clock.settle();
  assert.equal(scene.client.bulkyCount, 0);
});

test("what is read and put back comes first, and what is held comes after it", () => {
  const scene = new Scene();
  const [near, far] = scene.pair();
  far.conn.pause();
  for (const word of ["b", "c", "d", "e", "f", "g", "h"]) {
    say(near, word);
    scene.clock.settle();
  }
  far.conn.unread(Buffer.from("a"));
  near.conn.end();
  scene.clock.settle();
  assert.deepEqual([far.text, far.ended], ["", false]);
  far.conn.resume();
  scene.clock.settle();
  assert.deepEqual([far.text, far.ended], ["abcdefgh", true]);
});

test("another handler is told of the end again", () => {
  const scene = new Scene();
  const [near, far] = scene.pair();
  near.conn.end();
  scene.clock.settle();
  assert.equal(far.ended, true);
  const next = new Seen(far.conn);
  scene.clock.settle();
  assert.equal(next.ended, true);
});

test("a carrier takes CONNECT to an address and nothing else", () => {
  const cases: string[][] = [
    [":method", "GET", ":scheme", "http", ":path", "/", ":authority", TARGET],
    [":method", "CONNECT", ":authority", "web.shop:80"],
    [":method", "CONNECT", ":authority", "10.0.0.2"],
    [":method", "CONNECT", ":protocol", "websocket", ":scheme", "http", ":path", "/", ":authority", TARGET],
  ];
  for (const fields of cases) {
    const scene = new Scene();
    const stream = new Seen(scene.client.open(fields));
    scene.clock.settle();
    assert.equal(stream.closed, "RESET", fields.join(" "));
    assert.equal(scene.accepted.length, 0);
    assert.equal(scene.refused.length, 1, fields.join(" "));
  }
});

test("an answer other than 200 is a reset", () => {
  const clock = new ManualClock();
  const [near, far] = memoryPair(clock);
  const events = { retired: () => undefined, roomier: () => undefined, closed: () => undefined };
  const carrier = new ClientCarrier(near, clock, {}, events);
  const seen = new Seen(carrier.open(CONNECT));
  const writer = new FrameWriter(new HpackEncoder({ tableBytesMax: 4096 }));
  writer.settings([]);
  writer.section(1, [":status", "502"], false);
  far.setHandler({ onData() {}, onEnd() {}, onDrain() {}, onClose() {} });
  far.write(writer.take() as Uint8Array);
  clock.settle();
  assert.equal(seen.closed, "RESET");
});

test("any talk, in any pieces, comes out as it went in", () => {
  const word = fc.record({
    stream: fc.nat({ max: 3 }),
    side: fc.constantFrom(0, 1),
    what: fc.oneof(
      { weight: 5, arbitrary: fc.nat({ max: 90_000 }).map((size) => ({ kind: "write" as const, size })) },
      { weight: 5, arbitrary: fc.nat({ max: 90_000 }).map((size) => ({ kind: "lend" as const, size })) },
      { weight: 1, arbitrary: fc.constant({ kind: "end" as const }) },
      { weight: 1, arbitrary: fc.constant({ kind: "pause" as const }) },
      { weight: 2, arbitrary: fc.constant({ kind: "resume" as const }) },
      { weight: 1, arbitrary: fc.constant({ kind: "turn" as const }) },
    ),
  });
  fc.assert(
    fc.property(
      fc.array(word, { maxLength: 60 }),
      fc.integer({ min: 1_000, max: 70_000 }),
      (words, pieceBytes) => {
        const scene = new Scene(pieceBytes);
        const streams = Array.from({ length: 4 }, () => scene.pair());
        for (const [, far] of streams.slice(0, 2)) far.borrows = true;
        const written = streams.map(() => [0, 0]);
        for (const { stream, side, what } of words) {
          const seen = streams[stream]![side] as Seen;
          if (what.kind === "write" || what.kind === "lend") {
            const before = seen.conn.sentBytes + seen.conn.bufferedBytes;
            if (what.kind === "lend") lend(seen, what.size);
            else seen.conn.write(Buffer.alloc(what.size));
            written[stream]![side]! += seen.conn.sentBytes + seen.conn.bufferedBytes - before;
          } else if (what.kind === "end") seen.conn.end();
          else if (what.kind === "pause") seen.conn.pause();
          else if (what.kind === "resume") seen.conn.resume();
          else scene.clock.settle();
        }
        for (const pair of streams) for (const { conn } of pair) conn.resume();
        scene.clock.settle();
        for (const pair of streams) for (const { conn } of pair) conn.end();
        scene.clock.settle();
        for (const [i, [near, far]] of streams.entries()) {
          assert.deepEqual([far.bytes, near.bytes], written[i]);
          assert.deepEqual([far.spoilt, near.spoilt], [0, 0]);
          assert.deepEqual([near.ended, far.ended, near.closed, far.closed], [true, true, "clean", "clean"]);
        }
      },
    ),
    { numRuns: 60 },
  );
});

test("bytes are counted where they pass, and the close is told once", () => {
  const scene = new Scene();
  const [near, far] = scene.pair();
  const stream = near.conn as CarrierConn;
  let closes = 0;
  stream.closed = () => closes++;
  say(near, "12345");
  say(far, "123");
  scene.clock.settle();
  assert.deepEqual([stream.bytesWritten, stream.bytesRead, stream.sentBytes], [5, 3, 5]);
  const unheard = scene.client.open(CONNECT);
  unheard.closed = () => closes++;
  unheard.reset();
  near.conn.reset();
  scene.clock.settle();
  assert.equal(closes, 2, "also of one that nobody listens to");
});
