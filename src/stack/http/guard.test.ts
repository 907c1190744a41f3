import assert from "node:assert/strict";
import { test } from "node:test";
import type { ConnHandler } from "#/base/conn.ts";
import { LIMITS, type LimitReached, type Limits } from "#/model/limits.ts";
import { latin1, latin1Bytes } from "#/wire/latin1.ts";
import { Event, Http2Connection } from "#/wire/http2/connection.ts";
import { CLIENT_PREFACE, Flag, Frame } from "#/wire/http2/frame.ts";
import { Registry } from "../metrics/registry.ts";
import type { ResponseHead } from "./exchange.ts";
import { Guard } from "./guard.ts";
import { HTTP1_SERVER_DEFAULTS, Http1Server } from "./http1-server.ts";
import { Http2Server } from "./http2-server.ts";
import { ManualClock, memoryPair, ScriptedService, type MemoryConn } from "./testing.ts";

const NOBODY: ConnHandler = { onData() {}, onEnd() {}, onDrain() {}, onClose() {} };
const SECOND = 1_000;
/** In which a client that was told of the end has to go. */
const LINGER_MS = 60 * SECOND;
/** A limit is kept at the round of the patrol after it. */
const ROUND = SECOND;

abstract class Scene {
  readonly clock = new ManualClock();
  readonly registry = new Registry();
  readonly service = new ScriptedService();
  readonly guard: Guard;
  readonly client: MemoryConn;
  protected readonly server: MemoryConn;
  isClosed = false;

  constructor(limits: Partial<Limits> = {}) {
    this.guard = new Guard({ ...LIMITS, ...limits }, "inbound", this.clock, this.registry);
    [this.client, this.server] = memoryPair(this.clock);
  }

  reached(limit: LimitReached): number {
    const line = `pillion_limit_reached_total{limit="${limit}",direction="inbound"} `;
    const text = this.registry.render();
    const at = text.indexOf(line);
    return at < 0 ? 0 : Number.parseInt(text.slice(at + line.length), 10);
  }
}

class Http1Scene extends Scene {
  answer = "";

  constructor(limits: Partial<Limits> = {}) {
    super(limits);
    const handler = {
      ...NOBODY,
      onData: (bytes: Uint8Array) => (this.answer += latin1(bytes, 0, bytes.length)),
    };
    this.client.setHandler({ ...handler, onClose: () => (this.isClosed = true) });
    const settings = { ...HTTP1_SERVER_DEFAULTS, guard: this.guard };
    new Http1Server(this.server, this.service, this.clock, () => {}, settings);
  }

  say(text: string): void {
    this.client.write(latin1Bytes(text));
    this.clock.settle();
  }

  /** `text`, one byte each `everyMs`. */
  trickle(text: string, everyMs: number): void {
    for (const byte of text) {
      this.say(byte);
      this.clock.advance(everyMs);
    }
  }
}

const POST = "POST / HTTP/1.1\r\nHost: x\r\n";

test("a head that trickles is answered with 408, however steadily it comes (CVE-2020-8251)", () => {
  const scene = new Http1Scene();
  scene.trickle("GET / HTTP/1.1\r\nHost: abcde", SECOND);
  assert.equal(scene.answer, "");
  scene.trickle("fghi", SECOND);
  assert.match(scene.answer, /^HTTP\/1\.1 408 Request Timeout\r\n[^]*pillion-rule="slow_head"/);
  assert.match(scene.answer, /\r\nConnection: close\r\n/);
  assert.equal(scene.reached("slow_head"), 1);
  assert.equal(scene.service.calls.length, 0);
});

test("each head has the time anew, and none runs while a request is answered", () => {
  const scene = new Http1Scene();
  for (let i = 0; i < 3; i++) {
    scene.trickle("GET / HTTP/1.1\r\nHost: a", SECOND);
    scene.say("\r\n\r\n");
    scene.clock.advance(2 * LIMITS.headMs);
    scene.service.calls[i]!.answer(200, ["Content-Length", "0"], "");
  }
  assert.equal(scene.service.calls.length, 3);
  assert.equal(scene.reached("slow_head"), 0);
});

test("a body of known length that trickles is answered with 408, and the application is told (CVE-2020-8251)", () => {
  const scene = new Http1Scene();
  scene.say(`${POST}Content-Length: 8192\r\n\r\n`);
  scene.trickle("a".repeat(7), 10 * SECOND);
  assert.match(scene.answer, /^HTTP\/1\.1 408 [^]*pillion-rule="slow_body"/);
  assert.equal(scene.reached("slow_body"), 1);
  assert.equal(scene.service.calls[0]!.aborted?.status, 408);
});

test("a slow upload that comes on is let be, and so is one that the application holds up", () => {
  const scene = new Http1Scene();
  scene.say(`${POST}Content-Length: 1000000\r\n\r\n`);
  for (let i = 0; i < 20; i++) {
    scene.say("a".repeat(1_024));
    scene.clock.advance(LIMITS.bodyMs - SECOND);
  }
  scene.service.calls[0]!.holdCredit = true;
  scene.say("a".repeat(200_000));
  scene.clock.advance(10 * LIMITS.bodyMs);
  assert.equal(scene.answer, "");
  assert.equal(scene.reached("slow_body"), 0);
});

test("a body of unknown length may pause five times as long, and say as little as it likes", () => {
  const scene = new Http1Scene();
  scene.say(`${POST}Transfer-Encoding: chunked\r\n\r\n`);
  for (let i = 0; i < 5; i++) {
    scene.say("1\r\na\r\n");
    scene.clock.advance(5 * LIMITS.bodyMs - ROUND);
  }
  assert.equal(scene.answer, "");
  // What frames a body is no body.
  scene.trickle("1;" + "a".repeat(310), SECOND);
  assert.match(scene.answer, /^HTTP\/1\.1 408 /);
});

test("a client owes no body that it was not asked for, nor while the answer is under way", () => {
  const scene = new Http1Scene();
  scene.say(`${POST}Content-Length: 5\r\nExpect: 100-continue\r\n\r\n`);
  scene.clock.advance(10 * LIMITS.bodyMs);
  assert.equal(scene.answer, "");
  const { reply } = scene.service.calls[0]!;
  reply.informational({ status: 100, version: "1.1", reason: null, fields: [] });
  reply.head({ status: 200, version: "1.1", reason: null, fields: ["Content-Length", "2"] }, false);
  scene.clock.advance(10 * LIMITS.bodyMs);
  assert.equal(scene.reached("slow_body"), 0);

  // When all of the answer has been said, there is nothing to talk about.
  const answered = new Http1Scene();
  answered.say(`${POST}Content-Length: 5\r\n\r\n`);
  answered.service.calls[0]!.answer(200, ["Content-Length", "2"], "ok");
  answered.clock.advance(LIMITS.bodyMs + 2 * ROUND);
  assert.match(answered.answer, /^HTTP\/1\.1 200 OK\r\n[^]*\r\n\r\nok$/);
  assert.equal(answered.reached("slow_body"), 1);
  answered.clock.advance(LINGER_MS);
  assert.equal(answered.isClosed, true);

  const asked = new Http1Scene();
  asked.say(`${POST}Content-Length: 5\r\nExpect: 100-continue\r\n\r\n`);
  asked.service.calls[0]!.reply.informational({ status: 100, version: "1.1", reason: null, fields: [] });
  asked.clock.advance(LIMITS.bodyMs + 2 * ROUND);
  assert.match(asked.answer, /HTTP\/1\.1 408 /);
});

test("a client that does not take its answer is cut off (CVE-2020-8251)", () => {
  const scene = new Http1Scene();
  scene.say("GET / HTTP/1.1\r\nHost: x\r\n\r\n");
  scene.client.pause();
  const { reply } = scene.service.calls[0]!;
  reply.head({ status: 200, version: "1.1", reason: null, fields: ["Content-Length", "300000"] }, false);
  for (let i = 0; i < 3; i++) reply.body(new Uint8Array(100_000), 0, 100_000);
  scene.clock.advance(LIMITS.readerMs - ROUND);
  assert.equal(scene.isClosed, false);
  scene.clock.advance(3 * ROUND);
  assert.equal(scene.isClosed, true);
  assert.equal(scene.reached("slow_reader"), 1);
});

test("a client that breaks the rest of a request that was answered loses its connection", () => {
  const scene = new Http1Scene();
  scene.say(`${POST}Transfer-Encoding: chunked\r\n\r\n1\r\na\r\n`);
  scene.service.calls[0]!.answer(200, ["Content-Length", "2"], "ok");
  scene.clock.settle();
  scene.say("zz\r\n");
  assert.match(scene.service.calls[0]!.aborted!.message, /request refused/);
  scene.clock.advance(LINGER_MS);
  assert.equal(scene.isClosed, true);
  assert.match(scene.answer, /\r\n\r\nok$/);
});

/** Asks for the connection's end after an answer of which it then takes so much in so long, and says how much it got. */
function takeSlowly(scene: Http1Scene, bytes: number, everyMs: number): number {
  scene.say("GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
  const { reply } = scene.service.calls[0]!;
  reply.head({ status: 200, version: "1.1", reason: null, fields: ["Content-Length", "524288"] }, false);
  scene.clock.settle();
  let takenBytes = 0;
  scene.client.pause();
  scene.client.setHandler({
    ...NOBODY,
    onData: (piece) => {
      takenBytes += piece.length;
      scene.client.pause();
    },
    onClose: () => (scene.isClosed = true),
  });
  for (let i = 0; i < 524_288 / bytes; i++) reply.body(new Uint8Array(bytes), 0, bytes);
  reply.finish(null);
  scene.clock.settle();
  for (let ms = 0; ms < 10 * LIMITS.readerMs && !scene.isClosed; ms += everyMs) {
    scene.clock.advance(everyMs);
    scene.client.resume();
    scene.clock.settle();
  }
  return takenBytes;
}

test("an answer that its connection ends with may be taken as slowly as any other, and no slower (CVE-2020-8251)", () => {
  const slow = new Http1Scene();
  assert.ok(takeSlowly(slow, 1_024, 60 * SECOND) < 20_000);
  assert.equal(slow.isClosed, true);
  assert.equal(slow.reached("slow_reader"), 1);

  const patient = new Http1Scene();
  // What has left is beyond our sight: for that it has as long as any client that was told of the end.
  assert.ok(takeSlowly(patient, 65_536, LIMITS.readerMs - 2 * SECOND) >= 524_288 - 2 * 65_536);
  assert.equal(patient.reached("slow_reader"), 0);
});

test("an answer that takes hours to come is waited for: long polling, events", () => {
  const scene = new Http1Scene();
  scene.say("GET / HTTP/1.1\r\nHost: x\r\n\r\n");
  scene.clock.advance(10 * LIMITS.idleMs);
  const { reply } = scene.service.calls[0]!;
  reply.head({ status: 200, version: "1.1", reason: null, fields: [] }, false);
  scene.clock.advance(10 * LIMITS.idleMs);
  reply.body(latin1Bytes("data: 1\n\n"), 0, 9);
  scene.clock.settle();
  assert.match(scene.answer, /data: 1/);
});

test("a connection without requests ends after an hour; a tunnel never does", () => {
  const scene = new Http1Scene();
  scene.clock.advance(LIMITS.idleMs - ROUND);
  scene.say("GET / HTTP/1.1\r\nHost: x\r\n\r\n");
  scene.service.calls[0]!.answer(204, [], "");
  scene.clock.advance(LIMITS.idleMs - ROUND);
  assert.equal(scene.reached("idle"), 0);
  scene.clock.advance(3 * ROUND);
  assert.equal(scene.reached("idle"), 1);

  const tunnel = new Http1Scene();
  tunnel.say("GET / HTTP/1.1\r\nHost: x\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n");
  const { reply } = tunnel.service.calls[0]!;
  reply.head({ status: 101, version: "1.1", reason: null, fields: ["Upgrade", "websocket"] }, false);
  tunnel.client.pause();
  for (let i = 0; i < 3; i++) reply.body(new Uint8Array(100_000), 0, 100_000);
  tunnel.clock.advance(10 * LIMITS.idleMs);
  assert.equal(tunnel.isClosed, false);
  assert.equal(tunnel.reached("slow_reader") + tunnel.reached("idle") + tunnel.reached("slow_body"), 0);
});

test("a time limit of 0 is none", () => {
  const scene = new Http1Scene({ headMs: 0, idleMs: 0 });
  scene.clock.advance(10 * LIMITS.idleMs);
  scene.say("GET");
  scene.clock.advance(10 * LIMITS.idleMs);
  assert.equal(scene.answer, "");
});

// --- HTTP/2 ---

class Http2Scene extends Scene {
  readonly machine = new Http2Connection({ role: "client" });
  readonly events: string[] = [];
  #isOpen = false;

  constructor(limits: Partial<Limits> = {}) {
    super(limits);
    this.client.setHandler({
      ...NOBODY,
      onData: (bytes) => {
        this.machine.feed(bytes);
        this.#hear();
      },
      onClose: () => (this.isClosed = true),
    });
    const options = { meshed: false, clientId: null, guard: this.guard };
    new Http2Server(this.server, this.service, this.clock, () => {}, options);
  }

  /** What the machine has to say, preface first. */
  open(): this {
    this.#isOpen = true;
    this.#hear();
    this.clock.settle();
    return this;
  }

  /** From now on the machine hears, but what it has to say stays unsaid. */
  hold(): this {
    this.#isOpen = false;
    return this;
  }

  request(fields: readonly string[], isWhole = false): number {
    const head = [":method", "POST", ":scheme", "http", ":path", "/", ":authority", "x", ...fields];
    const id = this.machine.request(head, isWhole);
    this.open();
    return id;
  }

  raw(bytes: Uint8Array): void {
    this.client.write(bytes);
    this.clock.settle();
  }

  #hear(): void {
    const { machine } = this;
    for (let event = machine.next(); event !== Event.NOTHING; event = machine.next()) {
      if (event === Event.HEADERS) this.events.push(`head ${machine.streamId} ${machine.status}`);
      else if (event === Event.RESET) this.events.push(`reset ${machine.streamId} ${machine.errorCode}`);
      else if (event === Event.GOAWAY) this.events.push(`goaway ${machine.errorCode}`);
    }
    const out = this.#isOpen ? machine.takeOutput() : null;
    if (out !== null) this.client.write(out);
  }
}

function frame(type: number, flags: number, streamId: number, payload: Uint8Array): Buffer {
  const head = Buffer.alloc(9);
  head.writeUIntBE(payload.length, 0, 3);
  head[3] = type;
  head[4] = flags;
  head.writeUInt32BE(streamId, 5);
  return Buffer.concat([head, payload]);
}
const frames = (times: number, one: (index: number) => Uint8Array): Buffer =>
  Buffer.concat(Array.from({ length: times }, (_, index) => one(index)));
/** GET http / with an empty authority, by static table. */
const BLOCK = Buffer.from("828684", "hex");

test("a preface, a header block or a frame that trickles ends an HTTP/2 connection (CVE-2020-8251)", () => {
  const unfinished: readonly [string, Buffer][] = [
    ["a preface", CLIENT_PREFACE.subarray(0, 20)],
    ["SETTINGS", Buffer.concat([CLIENT_PREFACE, Buffer.from("0000", "hex")])],
    ["a block", frame(Frame.HEADERS, 0, 1, BLOCK)],
    ["a frame", frame(Frame.HEADERS, Flag.END_HEADERS, 1, BLOCK).subarray(0, 10)],
  ];
  for (const [what, bytes] of unfinished) {
    const scene = new Http2Scene();
    if (what === "a block" || what === "a frame") scene.open();
    scene.raw(bytes);
    scene.clock.advance(LIMITS.headMs - ROUND);
    // CONTINUATION after CONTINUATION is the same head still.
    if (what === "a block") scene.raw(frame(Frame.CONTINUATION, 0, 1, BLOCK.subarray(0, 0)));
    assert.equal(scene.reached("slow_head"), 0, what);
    scene.clock.advance(3 * ROUND);
    assert.equal(scene.reached("slow_head"), 1, what);
    assert.deepEqual(scene.events, ["goaway 11"], what);
  }
});

test("a body that trickles over HTTP/2 is answered with 408, and the other streams go on (CVE-2020-8251)", () => {
  const scene = new Http2Scene().open();
  const slow = scene.request(["content-length", "8192"]);
  const other = scene.request([]);
  for (let i = 0; i < 7; i++) {
    scene.machine.sendData(slow, Buffer.from("a"), 0, 1, false);
    scene.open().clock.advance(10 * SECOND);
  }
  assert.deepEqual(scene.events, [`head ${slow} 408`, `reset ${slow} 0`]);
  assert.equal(scene.reached("slow_body"), 1);
  assert.equal(scene.service.calls[0]!.aborted?.status, 408);
  assert.equal(scene.service.calls[1]!.aborted, null);
  assert.ok(other > slow);
});

test("a frame that is always left unfinished excuses neither a body that does not come nor idleness", () => {
  const ping = frame(Frame.PING, 0, 0, Buffer.alloc(8));
  const half = Buffer.concat([ping.subarray(12), ping.subarray(0, 12)]);
  const pretend = (scene: Http2Scene, forMs: number): void => {
    for (let passedMs = 0; passedMs < forMs; passedMs += SECOND) {
      scene.raw(half);
      scene.clock.advance(SECOND);
    }
  };
  const scene = new Http2Scene().open();
  const id = scene.request(["content-length", "8192"]);
  // What the machine would say now would end up within the frame.
  scene.hold().raw(ping.subarray(0, 12));
  pretend(scene, LIMITS.bodyMs + 2 * ROUND);
  assert.equal(scene.reached("slow_body"), 1);
  assert.equal(scene.reached("slow_head"), 0);
  assert.deepEqual(scene.events.slice(0, 2), [`head ${id} 408`, `reset ${id} 0`]);

  const idle = new Http2Scene({ idleMs: 60 * SECOND }).open().hold();
  idle.raw(ping.subarray(0, 12));
  pretend(idle, 60 * SECOND + 2 * ROUND);
  assert.equal(idle.reached("idle"), 1);
});

const GRPC = ["content-type", "application/grpc"];
const answerHead = (status: number, fields: string[]): ResponseHead => ({
  status,
  version: "2",
  reason: null,
  fields,
});

test("a gRPC stream may be silent for as long as it likes once answered as one, and its reader slow; so may later calls", () => {
  const scene = new Http2Scene().open();
  scene.request([...GRPC, "te", "trailers"]);
  scene.clock.advance(5 * LIMITS.bodyMs - ROUND);
  const { reply } = scene.service.calls[0]!;
  reply.head(answerHead(200, GRPC), false);
  reply.body(new Uint8Array(2_000_000), 0, 2_000_000);
  scene.clock.settle();
  scene.request([...GRPC, "te", "trailers"]);
  scene.clock.advance(10 * LIMITS.idleMs);
  assert.deepEqual(scene.events, ["head 1 200"]);
  assert.equal(scene.service.calls[1]!.aborted, null);
});

test("a call that streams to a server which answers at the end is let be while any byte comes on", () => {
  const scene = new Http2Scene().open();
  const id = scene.request([...GRPC, "te", "trailers"]);
  for (let i = 0; i < 10; i++) {
    scene.clock.advance(5 * LIMITS.bodyMs - ROUND);
    scene.machine.sendData(id, Buffer.from("a"), 0, 1, false);
    scene.open();
  }
  assert.deepEqual(scene.events, []);
  assert.equal(scene.service.calls[0]!.bytes, 10);
});

test("a tunnel is waited for before it is granted, and never timed after", () => {
  const scene = new Http2Scene().open();
  scene.machine.request([":method", "CONNECT", ":authority", "x:1"], false);
  scene.open().clock.advance(10 * LIMITS.idleMs);
  const { reply } = scene.service.calls[0]!;
  reply.head(answerHead(200, []), false);
  reply.body(new Uint8Array(2_000_000), 0, 2_000_000);
  scene.clock.advance(10 * LIMITS.idleMs);
  assert.deepEqual(scene.events, ["head 1 200"]);
});

test("who only says that it is gRPC, or asks in vain for a tunnel, is timed as others are (CVE-2020-8251)", () => {
  const silent = new Http2Scene().open();
  silent.request([...GRPC, "te", "trailers"]);
  silent.clock.advance(5 * LIMITS.bodyMs + 2 * ROUND);
  assert.equal(silent.reached("slow_body"), 1);
  assert.deepEqual(silent.events, ["head 1 200", "reset 1 0"]);

  const reader = new Http2Scene().open();
  reader.request(GRPC, true);
  reader.service.calls[0]!.answer(200, ["content-type", "text/html"], "a".repeat(2_000_000));
  reader.clock.advance(LIMITS.readerMs + 2 * ROUND);
  assert.equal(reader.reached("slow_reader"), 1);

  const refused = new Http2Scene().open();
  refused.machine.request([":method", "CONNECT", ":authority", "x:1"], false);
  refused.open();
  refused.service.calls[0]!.answer(403, [], "a".repeat(2_000_000));
  refused.clock.advance(LIMITS.readerMs + 2 * ROUND);
  assert.equal(refused.reached("slow_reader"), 1);
});

test("a client that opens no window for its answer loses the stream (CVE-2019-9517)", () => {
  const scene = new Http2Scene().open();
  scene.request([], true);
  // The machine gives no credit by itself: at the end of its first window the answer waits.
  scene.service.calls[0]!.answer(200, ["content-length", "2000000"], "a".repeat(2_000_000));
  scene.clock.advance(LIMITS.readerMs - ROUND);
  assert.deepEqual(scene.events, ["head 1 200"]);
  scene.clock.advance(3 * ROUND);
  assert.deepEqual(scene.events, ["head 1 200", "reset 1 8"]);
  assert.equal(scene.reached("slow_reader"), 1);
  assert.equal(scene.service.calls[0]!.aborted?.code, "CANCELLED");
});

test("an HTTP/2 connection whose bytes are not taken is cut off, and one without streams ends in order", () => {
  const scene = new Http2Scene().open();
  scene.client.pause();
  for (let i = 0; i < 3; i++) {
    scene.machine.request([":method", "GET", ":scheme", "http", ":path", "/", ":authority", "x"], true);
    scene.open();
    scene.service.calls[i]!.answer(200, [], "a".repeat(100_000));
    scene.clock.settle();
  }
  scene.clock.advance(LIMITS.readerMs + 2 * ROUND);
  assert.equal(scene.isClosed, true);
  assert.equal(scene.reached("slow_reader"), 1);

  const idle = new Http2Scene().open();
  idle.clock.advance(LIMITS.idleMs + 2 * ROUND);
  assert.deepEqual(idle.events, ["goaway 0", "goaway 0"]);
  assert.equal(idle.reached("idle"), 1);
});

test("each flood ends the connection with ENHANCE_YOUR_CALM, and says which it was (CVE-2019-9511 to -9518)", () => {
  const opened = frame(Frame.HEADERS, Flag.END_HEADERS, 1, BLOCK);
  const floods: readonly [LimitReached, Uint8Array][] = [
    ["pings", frames(1001, () => frame(Frame.PING, 0, 0, Buffer.alloc(8)))],
    ["settings", frames(101, () => frame(Frame.SETTINGS, 0, 0, Buffer.alloc(0)))],
    ["empty_data", Buffer.concat([opened, frames(1001, () => frame(Frame.DATA, 0, 1, Buffer.alloc(0)))])],
    ["priority", frames(2001, () => frame(Frame.PRIORITY, 0, 1, Buffer.alloc(5)))],
    ["window_updates", frames(10_001, () => frame(Frame.WINDOW_UPDATE, 0, 0, Buffer.from([0, 0, 0, 1])))],
    ["unknown_frames", frames(1001, () => frame(0xfa, 0, 0, Buffer.alloc(0)))],
    [
      "resets",
      frames(1001, (i) =>
        Buffer.concat([
          frame(Frame.HEADERS, Flag.END_HEADERS, 2 * i + 1, BLOCK),
          frame(Frame.RST_STREAM, 0, 2 * i + 1, Buffer.from([0, 0, 0, 8])),
        ]),
      ),
    ],
    [
      "continuations",
      Buffer.concat([
        frame(Frame.HEADERS, 0, 1, BLOCK),
        frames(33, () => frame(Frame.CONTINUATION, 0, 1, Buffer.alloc(0))),
      ]),
    ],
  ];
  for (const [limit, bytes] of floods) {
    const scene = new Http2Scene().open();
    scene.raw(bytes);
    assert.equal(scene.reached(limit), 1, limit);
    assert.deepEqual(scene.events, ["goaway 11"], limit);
  }
});

test("what is turned away without ending the connection is counted, too", () => {
  const scene = new Http2Scene({ streamsMax: 2 }).open();
  scene.raw(frames(5, (i) => frame(Frame.HEADERS, Flag.END_HEADERS, 2 * i + 1, BLOCK)));
  scene.clock.advance(2 * ROUND);
  assert.equal(scene.reached("streams"), 3);
  assert.equal(scene.service.calls.length, 2);
});
