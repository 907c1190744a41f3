import assert from "node:assert/strict";
import { test } from "node:test";
import type { Fields } from "#/base/fields.ts";
import { Event, Http2Connection } from "./connection.ts";
import { ErrorCode, Flag, FRAME_BYTES_DEFAULT } from "./frame.ts";
import { Found, FrameReader } from "./frame-reader.ts";
import type { Http2Settings } from "./settings.ts";

const GET = [":method", "GET", ":scheme", "http", ":authority", "a", ":path", "/"];
const POST = [":method", "POST", ":scheme", "http", ":authority", "a", ":path", "/"];
const OK = [":status", "200"];

interface Heard {
  readonly event: number;
  readonly streamId: number;
  readonly fields: Fields;
  readonly bytes: number;
  readonly endStream: boolean;
  readonly errorCode: number;
}

/** A client and a server whose output is carried over on `move()`. */
class Pair {
  readonly client: Http2Connection;
  readonly server: Http2Connection;
  constructor(client: Partial<Http2Settings> = {}, server: Partial<Http2Settings> = {}) {
    this.client = new Http2Connection({ ...client, role: "client" });
    this.server = new Http2Connection({ ...server, role: "server" });
    this.toServer();
    this.toClient();
    this.toServer();
  }
  toServer(): Heard[] {
    return carry(this.client, this.server);
  }
  toClient(): Heard[] {
    return carry(this.server, this.client);
  }
}

function carry(from: Http2Connection, to: Http2Connection): Heard[] {
  const out = from.takeOutput();
  if (out !== null) to.feed(out);
  return drain(to);
}

function rstStream(id: number): Buffer {
  const frame = Buffer.from("00000403000000000000000008", "hex");
  frame.writeUInt32BE(id, 5);
  return frame;
}

function idText(streamId: number): string {
  return streamId.toString(16).padStart(8, "0");
}

function drain(machine: Http2Connection): Heard[] {
  const heard: Heard[] = [];
  for (let event = machine.next(); event !== Event.NOTHING; event = machine.next()) {
    heard.push({
      event,
      streamId: machine.streamId,
      fields: machine.fields,
      bytes: machine.stop - machine.start,
      endStream: machine.endStream,
      errorCode: machine.errorCode,
    });
  }
  return heard;
}

test("a header section larger than a frame goes out in CONTINUATION and comes back whole (RFC 9113 §4.3)", () => {
  const { client, server } = new Pair();
  const fields = GET.slice();
  for (let i = 0; i < 30; i++) fields.push(`x-${i}`, String.fromCharCode(97 + (i % 26)).repeat(1500));
  client.request(fields, true);
  const [heard] = carry(client, server);
  assert.deepEqual(heard?.fields, fields);
});

test("sendData stops at the output bound and goes on when output was taken", () => {
  const { client, server } = new Pair({ outputBytesMax: 10_000 });
  const id = client.request(POST, false);
  const body = new Uint8Array(25_000);
  let at = client.sendData(id, body, 0, body.length, true);
  assert.ok(at > 0 && at <= 10_000);
  assert.ok(client.outputBytes <= 10_000 + 100);
  assert.equal(client.sendData(id, body, at, body.length, true), 0);
  assert.deepEqual(drain(client), []);
  let received = 0;
  for (let turn = 0; turn < 5; turn++) {
    for (const each of carry(client, server)) if (each.event === Event.DATA) received += each.bytes;
    for (const each of drain(client)) {
      assert.equal(each.event, Event.WRITABLE);
      at += client.sendData(id, body, at, body.length, true);
    }
  }
  assert.equal(at, 25_000);
  assert.equal(received, 25_000);
});

test("an end shares the frame of the data right before it, as long as nobody has taken that", () => {
  for (const passesData of [false, true]) {
    const { client, server } = new Pair({ passesData });
    const heads: [streamId: number, length: number, isEnd: boolean][] = [];
    const dataHeads = (outputs: readonly Uint8Array[]): typeof heads => {
      const reader = new FrameReader(2 ** 24 - 1);
      const bytes = Buffer.concat(outputs);
      reader.feed(bytes);
      const found: typeof heads = [];
      for (let kind = reader.next(); kind !== Found.NOTHING; kind = reader.next())
        if (kind === Found.DATA_HEAD)
          found.push([reader.streamId, reader.length, (reader.flags & Flag.END_STREAM) !== 0]);
      server.feed(bytes);
      drain(server);
      return found;
    };
    const [one, two, three, four] = [1, 2, 3, 4].map(() => client.request(POST, false)) as [
      number,
      number,
      number,
      number,
    ];
    const end = (id: number): void => void client.sendData(id, new Uint8Array(0), 0, 0, true);
    const send = (id: number, size: number): void =>
      void client.sendData(id, new Uint8Array(size), 0, size, false);
    send(one, 40_000);
    // Of another stream, or no DATA: the frame is still here.
    client.sendTrailers(three, []);
    client.consumed(two, 0);
    end(one);
    send(two, 100);
    send(four, 9_000);
    end(two);
    send(four, 50);
    const taken = client.takeOutputs();
    const before = Buffer.concat(taken);
    end(four);
    assert.ok(before.equals(Buffer.concat(taken)), "what was taken stays as it is");
    assert.deepEqual(dataHeads([...taken, ...client.takeOutputs()]), [
      [one, FRAME_BYTES_DEFAULT, false],
      [one, FRAME_BYTES_DEFAULT, false],
      [one, 40_000 - 2 * FRAME_BYTES_DEFAULT, true],
      [two, 100, false],
      [four, 9_000, false],
      [two, 0, true],
      [four, 50, false],
      [four, 0, true],
    ]);
    assert.equal(client.activeStreams, 4, "until the server ends its halves");
  }
});

test("an end stands behind data that the owner sends itself", () => {
  const { client } = new Pair({ passesData: true });
  const id = client.request(POST, false);
  client.sendData(id, new Uint8Array(100), 0, 100, false);
  assert.equal(client.announceData(id, 10), 10);
  client.sendData(id, new Uint8Array(0), 0, 0, true);
  const out = Buffer.concat(client.takeOutputs());
  // HEADERS, DATA of 100 bytes, the head of 10 bytes that are not here, and a frame of its own.
  assert.equal(out.subarray(-18).toString("hex"), `00000a0000${idText(id)}0000000001${idText(id)}`);
});

test("streams that wait for the connection's window take turns (RFC 9113 §5.2.1)", () => {
  const { client, server } = new Pair({ streamWindowBytes: 1 << 20, connectionWindowBytes: 4 << 20 });
  const ids = [client.request(GET, true), client.request(GET, true)];
  carry(client, server);
  const body = new Uint8Array(1_000_000);
  // The client's connection window is 4 MiB: fill it with a third stream that is never consumed.
  for (let i = 0; i < 5; i++) ids.push(client.request(GET, true));
  carry(client, server);
  const waiting = ids.map((id) => {
    server.respond(id, OK, false);
    return { id, at: 0 };
  });
  const order: number[] = [];
  for (const each of waiting) each.at = server.sendData(each.id, body, 0, body.length, true);
  for (let turn = 0; turn < 40; turn++) {
    carry(server, client);
    for (const heard of drain(server)) {
      const each = waiting.find(({ id }) => id === heard.streamId)!;
      each.at += server.sendData(each.id, body, each.at, body.length, true);
      order.push(each.id);
    }
  }
  assert.ok(new Set(order).size >= 6, "all but the first had their turn");
  // Nothing was consumed: the sum is exactly the connection's window.
  assert.equal(
    waiting.reduce((sum, { at }) => sum + at, 0),
    4 * 1024 * 1024,
  );
});

test("DATA held by the application keeps the window shut after the stream ended", () => {
  const pair = new Pair({ connectionWindowBytes: 65535, streamWindowBytes: 65535 });
  const { client, server } = pair;
  const body = new Uint8Array(65535);
  const first = client.request(GET, true);
  pair.toServer();
  server.respond(first, OK, false);
  assert.equal(server.sendData(first, body, 0, body.length, true), body.length);
  pair.toClient();
  assert.equal(client.activeStreams, 0);
  const second = client.request(GET, true);
  pair.toServer();
  server.respond(second, OK, false);
  assert.equal(server.sendData(second, body, 0, body.length, true), 0);
  client.consumed(first, 65535);
  assert.deepEqual(
    pair.toServer().map(({ event, streamId }) => [event, streamId]),
    [[Event.WRITABLE, second]],
  );
  // The stream is forgotten now.
  client.consumed(first, 1);
});

test("a stream that nobody reads leaves what is left of the connection's window to the others (RFC 9113 §6.9.1)", () => {
  const pair = new Pair({ streamWindowBytes: 100_000, connectionWindowBytes: 160_000 });
  const { client, server } = pair;
  const [unread, read] = [client.request(GET, true), client.request(GET, true)];
  pair.toServer();
  for (const id of [unread, read]) server.respond(id, OK, false);
  server.sendData(unread, new Uint8Array(90_000), 0, 90_000, true);
  pair.toClient();
  const body = new Uint8Array(500_000);
  let at = 0;
  for (let turn = 0; turn < 200 && at < body.length; turn++) {
    at += server.sendData(read, body, at, body.length, true);
    for (const { event, bytes } of pair.toClient()) if (event === Event.DATA) client.consumed(read, bytes);
    pair.toServer();
  }
  assert.equal(at, body.length);
});

test("a reset gives back what was not consumed", () => {
  const pair = new Pair({ connectionWindowBytes: 65535 });
  const { client, server } = pair;
  const body = new Uint8Array(65535);
  const first = client.request(GET, true);
  pair.toServer();
  server.respond(first, OK, false);
  server.sendData(first, body, 0, body.length, false);
  pair.toClient();
  client.reset(first, ErrorCode.CANCEL);
  client.reset(first, ErrorCode.CANCEL);
  const heard = pair.toServer();
  assert.deepEqual(
    heard.map(({ event, streamId, errorCode }) => [event, streamId, errorCode]),
    [[Event.RESET, first, ErrorCode.CANCEL]],
  );
  const second = client.request(GET, true);
  pair.toServer();
  server.respond(second, OK, false);
  assert.equal(server.sendData(second, body, 0, body.length, true), body.length);
  // DATA for a stream that is gone counts as sent, so that nobody waits for ever.
  assert.equal(server.sendData(first, body, 0, 10, true), 10);
});

test("DATA under way for a stream that was reset is credited (RFC 9113 §6.9)", () => {
  const pair = new Pair({ connectionWindowBytes: 65535 });
  const { client, server } = pair;
  const body = new Uint8Array(30_000);
  for (let i = 0; i < 12; i++) {
    const id = client.request(GET, true);
    pair.toServer();
    server.respond(id, OK, false);
    assert.equal(server.sendData(id, body, 0, body.length, true), body.length, `round ${i}`);
    client.reset(id, ErrorCode.CANCEL);
    pair.toClient();
    pair.toServer();
  }
  assert.equal(client.error, null);
});

test("any number of resets by the application is fine", () => {
  const pair = new Pair();
  const { client, server } = pair;
  for (let i = 0; i < 5000; i++) {
    const id = client.request(POST, false);
    pair.toServer();
    server.respond(id, [":status", "413"], true);
    server.reset(id, ErrorCode.NO_ERROR);
    client.sendData(id, new Uint8Array(10), 0, 10, true);
    pair.toServer();
    pair.toClient();
    // Some clients answer a reset with one of their own.
    server.feed(rstStream(id));
    drain(server);
  }
  assert.equal(client.error, null);
  assert.equal(server.error, null);
  assert.equal(client.activeStreams, 0);
  assert.equal(server.activeStreams, 0);
});

test("dropping the rest of a request that was answered is no rapid reset (RFC 9113 §8.1)", () => {
  const pair = new Pair({}, { resetBurst: 10 });
  const { client, server } = pair;
  for (let i = 0; i < 100; i++) {
    const id = client.request(POST, false);
    pair.toServer();
    server.respond(id, OK, true);
    pair.toClient();
    client.reset(id, ErrorCode.CANCEL);
    pair.toServer();
  }
  assert.equal(server.error, null);
});

test("commands after the end of the connection do nothing", () => {
  const pair = new Pair();
  const { client, server } = pair;
  const id = client.request(POST, false);
  pair.toServer();
  server.feed(Buffer.from("00000001fffffffffffffffff", "latin1"));
  drain(server);
  assert.notEqual(server.error, null);
  server.takeOutput();
  server.respond(id, OK, false);
  assert.equal(server.sendData(id, new Uint8Array(10), 0, 10, true), 10);
  server.ping(0);
  server.goAway(ErrorCode.NO_ERROR);
  assert.equal(server.takeOutput(), null);
});

test("cancelling in proportion to work done is no rapid reset (CVE-2023-44487)", () => {
  const pair = new Pair({}, { resetBurst: 10 });
  const { client, server } = pair;
  for (let i = 0; i < 2000; i++) {
    const id = client.request(GET, true);
    pair.toServer();
    if (i % 2 === 0) client.reset(id, ErrorCode.CANCEL);
    else server.respond(id, OK, true);
    pair.toServer();
    pair.toClient();
  }
  assert.equal(server.error, null);
});

test("a peer that provokes answers and does not read them is cut off (CVE-2019-9512)", () => {
  const { client, server } = new Pair({}, { pingBurst: 1e6 });
  let most = 0;
  for (let i = 0; i < 30_000 && server.error === null; i++) {
    client.ping(0);
    const out = client.takeOutput();
    if (out !== null) server.feed(out);
    drain(server);
    most = Math.max(most, server.outputBytes);
  }
  assert.equal(server.error?.code, "H2_ENHANCE_YOUR_CALM");
  assert.ok(most < 400_000);
});

test("canRequest follows the remote's limit, GOAWAY and our own (RFC 9113 §5.1.2, §6.8)", () => {
  const pair = new Pair({}, { maxConcurrentStreams: 2 });
  const { client, server } = pair;
  const first = client.request(GET, true);
  const second = client.request(GET, true);
  assert.equal(client.canRequest(), false);
  assert.equal(client.request(GET, true), 0);
  pair.toServer();
  server.respond(first, OK, true);
  pair.toClient();
  assert.equal(client.canRequest(), true);
  server.goAway(ErrorCode.NO_ERROR);
  pair.toClient();
  assert.equal(client.remoteGoAway, true);
  assert.equal(client.canRequest(), false);
  server.respond(second, OK, true);
  const [heard] = pair.toClient();
  assert.equal(heard?.streamId, second);
});

test("wakeAtMs is Infinity when nothing is due", () => {
  const { client, server } = new Pair();
  assert.equal(client.wakeAtMs(), Infinity);
  assert.equal(server.wakeAtMs(), Infinity);
  const pinging = new Http2Connection({ role: "client", pingIdleIntervalMs: 1000 });
  assert.equal(pinging.wakeAtMs(), 0);
  pinging.wake(5000);
  assert.equal(pinging.wakeAtMs(), 6000);
});

test("a PING whose deadline was overslept has one more, and no third", () => {
  const client = new Http2Connection({ role: "client", pingIdleIntervalMs: 1000, pingTimeoutMs: 500 });
  client.wake(0);
  client.wake(1000);
  client.wake(60_000);
  assert.equal(client.next(), Event.NOTHING);
  assert.equal(client.wakeAtMs(), 60_500);
  client.wake(120_000);
  assert.equal(client.next(), Event.ERROR);
  assert.equal(client.error?.code, "H2_PING_TIMEOUT");
});

test("a half-used budget asks to be woken, and a full one does not", () => {
  const { client, server } = new Pair({}, { pingBurst: 10, floodRefillPerSecond: 10 });
  server.wake(1000);
  for (let i = 0; i < 8; i++) client.ping(1000);
  carry(client, server);
  assert.equal(server.wakeAtMs(), 2000);
  server.wake(2000);
  assert.equal(server.wakeAtMs(), Infinity);
});

test("misuse by the owner is a bug, said at once", () => {
  const pair = new Pair();
  const { client, server } = pair;
  const id = client.request(GET, true);
  pair.toServer();
  assert.throws(() => server.sendData(id, new Uint8Array(1), 0, 1, true), /before the header section/);
  server.respond(id, [":status", "100"], false);
  server.respond(id, OK, false);
  assert.throws(() => server.respond(id, OK, false), /answered already/);
  assert.throws(() => server.consumed(id, 1), /consumed/);
  assert.throws(() => client.sendData(id, new Uint8Array(1), 0, 1, true), /ended already/);
});
