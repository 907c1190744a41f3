import assert from "node:assert/strict";
import { test } from "node:test";
import { Event, Http2Connection } from "./connection.ts";
import { Frame } from "./frame.ts";
import { RecvWindow, WindowTuner } from "./recv-window.ts";
import type { Http2Settings } from "./settings.ts";

const MIB = 1024 * 1024;
const REQUEST = [":method", "GET", ":scheme", "http", ":authority", "a", ":path", "/"];

/** A download over a link with a bandwidth and a delay, in steps of a millisecond of virtual time. */
class Download {
  readonly client: Http2Connection;
  readonly server = new Http2Connection({ role: "server", outputBytesMax: 64 * MIB });
  receivedBytes = 0;
  unreadBytes = 0;
  pings = 0;
  nowMs = 0;
  readonly #bytesPerMs: number;
  readonly #delayMs: number;
  readonly #toClient: { atMs: number; bytes: Uint8Array }[] = [];
  readonly #toServer: { atMs: number; bytes: Uint8Array }[] = [];
  readonly #streamId: number;
  /** When the link has carried everything that was given to it. */
  #freeAtMs = 0;

  constructor(bytesPerMs: number, delayMs: number, settings: Partial<Http2Settings> = {}) {
    this.client = new Http2Connection({ ...settings, role: "client" });
    this.#bytesPerMs = bytesPerMs;
    this.#delayMs = delayMs;
    this.#streamId = this.client.request(REQUEST, true);
  }

  /** Lets time pass; the reader takes `readBytesPerMs` at most. */
  run(forMs: number, readBytesPerMs: number): void {
    const body = new Uint8Array(MIB);
    for (const untilMs = this.nowMs + forMs; this.nowMs < untilMs; this.nowMs++) {
      this.server.wake(this.nowMs);
      this.client.wake(this.nowMs);
      deliver(this.#toServer, this.nowMs, this.server);
      for (let event = this.server.next(); event !== Event.NOTHING; event = this.server.next())
        if (event === Event.HEADERS) this.server.respond(this.#streamId, [":status", "200"], false);
      if (this.server.activeStreams > 0)
        while (this.server.sendData(this.#streamId, body, 0, body.length, false) === body.length);
      this.#send();
      deliver(this.#toClient, this.nowMs, this.client);
      for (let event = this.client.next(); event !== Event.NOTHING; event = this.client.next()) {
        if (event !== Event.DATA) continue;
        this.receivedBytes += this.client.stop - this.client.start;
        this.unreadBytes += this.client.stop - this.client.start;
      }
      const readBytes = Math.min(this.unreadBytes, readBytesPerMs);
      this.unreadBytes -= readBytes;
      this.client.consumed(this.#streamId, readBytes);
      const out = this.client.takeOutput();
      if (out === null) continue;
      this.pings += countPings(out);
      this.#toServer.push({ atMs: this.nowMs + this.#delayMs, bytes: out });
    }
  }

  #send(): void {
    const out = this.server.takeOutput();
    if (out === null) return;
    for (let at = 0; at < out.length; at += this.#bytesPerMs) {
      this.#freeAtMs = Math.max(this.#freeAtMs, this.nowMs) + 1;
      const bytes = out.slice(at, at + this.#bytesPerMs);
      this.#toClient.push({ atMs: this.#freeAtMs + this.#delayMs, bytes });
    }
  }
}

function deliver(queue: { atMs: number; bytes: Uint8Array }[], nowMs: number, to: Http2Connection): void {
  while (queue.length > 0 && queue[0]!.atMs <= nowMs) to.feed(queue.shift()!.bytes);
}

function countPings(out: Uint8Array): number {
  let count = 0;
  const bytes = Buffer.from(out.buffer, out.byteOffset, out.length);
  let at = bytes.subarray(0, 3).toString("latin1") === "PRI" ? 24 : 0;
  for (; at < bytes.length; at += 9 + bytes.readUIntBE(at, 3))
    if (bytes[at + 3] === Frame.PING && bytes[at + 4] === 0) count++;
  return count;
}

test("a window grows until a long link is full", () => {
  // 40 MB/s over a round trip of 50 ms: 2 MB are under way, eight times what the window begins with.
  const download = new Download(40_000, 25);
  download.run(2000, Infinity);
  const before = download.receivedBytes;
  download.run(1000, Infinity);
  assert.ok(
    download.receivedBytes - before > 0.95 * 40_000_000,
    `${download.receivedBytes - before} bytes a second`,
  );
});

test("frames that fill the window make it grow where they are read, and only there", () => {
  const tuner = new WindowTuner();
  tuner.measured(50);
  const bytes = 64 * 1024;
  const came = (window: RecvWindow, size: number, nowMs: number): number => {
    window.leftBytes -= size;
    return tuner.received(window, size, MIB, nowMs);
  };
  const read = new RecvWindow(bytes);
  assert.equal(came(read, bytes, 0), 0);
  read.leftBytes += bytes;
  assert.equal(came(read, bytes, 50), bytes);
  const unread = new RecvWindow(bytes);
  assert.equal(came(unread, 1024, 0), 0);
  assert.equal(came(unread, bytes - 1024, 0), 0);
  unread.leftBytes += bytes / 2;
  assert.equal(came(unread, bytes / 2, 50), 0);
});

test("it stops at its bound: bound ÷ round trip is all that flows", () => {
  const download = new Download(40_000, 25, { streamWindowBytesMost: MIB });
  download.run(2000, Infinity);
  const before = download.receivedBytes;
  download.run(1000, Infinity);
  const bytes = download.receivedBytes - before;
  assert.ok(bytes > 0.7 * 20 * MIB && bytes <= 20 * MIB, `${bytes} bytes a second`);
});

test("a slow reader's window stays where it began", () => {
  const download = new Download(40_000, 25);
  download.run(3000, 100);
  assert.ok(download.unreadBytes <= 256 * 1024, `${download.unreadBytes} bytes unread`);
});

test("a reader that stops finds half the connection's window at most: the rest is for the others", () => {
  const download = new Download(40_000, 25, {
    streamWindowBytesMost: 8 * MIB,
    connectionWindowBytes: 2 * MIB,
  });
  download.run(2000, Infinity);
  download.run(1000, 0);
  assert.ok(
    download.unreadBytes > MIB / 2 && download.unreadBytes <= MIB,
    `${download.unreadBytes} bytes unread`,
  );
});

test("all windows together grow no further than they may", () => {
  const download = new Download(40_000, 25, { windowGrowthBytesMost: MIB / 2 });
  download.run(2000, Infinity);
  download.run(1000, 0);
  assert.ok(
    download.unreadBytes > MIB / 4 && download.unreadBytes <= (3 * MIB) / 4,
    `${download.unreadBytes} bytes unread`,
  );
});

test("a link that needs no more gets no more", () => {
  // 1 MB/s over 2 ms: 2 kB are under way.
  const download = new Download(1000, 1);
  download.run(3000, Infinity);
  download.run(2000, 0);
  assert.ok(download.unreadBytes <= 256 * 1024, `${download.unreadBytes} bytes unread`);
});

test("measures at most once a second, since peers count PINGs", () => {
  const download = new Download(40_000, 1, { streamWindowBytesMost: 512 * MIB });
  download.run(5000, Infinity);
  assert.ok(download.pings >= 1 && download.pings <= 5, `${download.pings} PINGs in 5 seconds`);
});
