import assert from "node:assert/strict";
import { test } from "node:test";
import type { Random } from "#/base/random.ts";
import { SeededRandom } from "#/base/random.ts";
import type { Fields } from "#/base/fields.ts";
import type { HttpService, RequestHead, RequestSink, ResponseHead, ResponseSink } from "./exchange.ts";
import { fault } from "./fault.ts";
import { Http2Client } from "./http2-client.ts";
import { Http2Server } from "./http2-server.ts";
import { ManualClock, memoryPair, RecordingReply, requestHead, ScriptedService } from "./testing.ts";
import { Request } from "./translate.ts";

/**
 * One HTTP/2 connection under thousands of exchanges that end in every way at every moment. What must hold afterwards:
 * each exchange was told of its end exactly once, no stream is left, and both directions' windows are whole.
 */

const WINDOW_BYTES = 65_535;
const CHUNK = new Uint8Array(20_000);

/** Either side of an exchange: sends, takes and gives up at random. */
class Half {
  readonly random: Random;
  readonly clock: ManualClock;
  over = false;
  /** Taken and not reported as consumed. */
  heldBytes = 0;
  steps: number;
  constructor(random: Random, clock: ManualClock) {
    this.random = random;
    this.clock = clock;
    this.steps = 1 + Math.floor(random.next() * 5);
  }
  chance(one: number): boolean {
    return this.random.next() * one < 1;
  }
  chunk(): number {
    return 1 + Math.floor(this.random.next() ** 3 * (CHUNK.length - 1));
  }
  /** Acts a few turns later, any number of them. */
  later(act: () => void): void {
    if (this.chance(2)) this.clock.soon(act);
    else this.clock.soon(() => this.later(act));
  }
}

class ClientHalf extends Half implements ResponseSink {
  sink: RequestSink | null = null;
  ends = 0;
  requestOver: boolean;
  answerOver = false;
  constructor(random: Random, clock: ManualClock) {
    super(random, clock);
    this.requestOver = this.chance(3);
  }
  start(client: Http2Client, upgraded: boolean): void {
    const head = new Request({
      method: this.requestOver ? "GET" : "POST",
      scheme: "http",
      authority: "a",
      path: "/",
      version: upgraded ? "1.1" : "2",
      absoluteForm: false,
      upgrade: null,
      fields: [],
    });
    this.sink = client.call(head, this.requestOver, this);
    this.later(() => this.act());
  }
  act(): void {
    if (this.over || this.sink === null) return;
    if (this.chance(12)) {
      this.over = true;
      if (!this.answerOver) this.ends++;
      this.sink.abort(fault("CANCELLED", "enough"));
      return;
    }
    if (!this.requestOver) {
      if (this.steps-- > 0) this.sink.data(CHUNK, 0, this.chunk());
      else {
        this.requestOver = true;
        this.sink.end(this.chance(4) ? ["x-t", "1"] : null);
      }
    }
    this.giveBack();
    this.later(() => this.act());
  }
  giveBack(): void {
    const bytes = this.heldBytes;
    this.heldBytes = 0;
    if (bytes > 0) this.sink?.responseConsumed(bytes);
  }
  informational(): void {}
  head(_head: ResponseHead, last: boolean): void {
    assert.ok(!this.over && !this.answerOver);
    if (last) this.finish();
  }
  body(_bytes: Uint8Array, start: number, stop: number): void {
    assert.ok(!this.over && !this.answerOver);
    this.heldBytes += stop - start;
  }
  finish(): void {
    assert.ok(!this.over && !this.answerOver);
    this.answerOver = true;
    this.ends++;
    this.giveBack();
    if (this.requestOver) this.over = true;
  }
  fail(): void {
    // After a whole answer: what is left of the request, which may wait for its window, is not wanted.
    assert.ok(!this.over || this.answerOver);
    this.over = true;
    if (!this.answerOver) this.ends++;
  }
  requestConsumed(): void {}
}

class ServerHalf extends Half implements RequestSink {
  readonly reply: ResponseSink;
  ended: boolean;
  headSent = false;
  answered = false;
  constructor(random: Random, clock: ManualClock, last: boolean, reply: ResponseSink) {
    super(random, clock);
    this.ended = last;
    this.reply = reply;
    if (this.chance(20)) this.refuse();
    else this.later(() => this.act());
  }
  refuse(): void {
    this.over = true;
    const codes = ["REFUSED", "RESET", "UNEXPECTED", "NOT_AUTHORIZED"] as const;
    const code = codes[Math.floor(this.random.next() * codes.length)] as (typeof codes)[number];
    this.reply.fail(fault(code, "no", { safe: code === "REFUSED" }));
  }
  act(): void {
    if (this.over) return;
    if (this.chance(12)) {
      this.refuse();
      return;
    }
    if (!this.headSent) {
      this.headSent = true;
      const last = this.chance(4);
      this.answered = last;
      this.reply.head({ status: 200, version: "2", reason: null, fields: [] }, last);
    } else if (this.steps-- > 0) {
      if (!this.answered) this.reply.body(CHUNK, 0, this.chunk());
    } else if (!this.answered) {
      this.answered = true;
      this.reply.finish(this.chance(4) ? ["x-t", "1"] : null);
    }
    this.giveBack();
    if (!this.answered || !this.ended) this.later(() => this.act());
  }
  giveBack(): void {
    const bytes = this.heldBytes;
    this.heldBytes = 0;
    if (bytes > 0) this.reply.requestConsumed(bytes);
  }
  data(_bytes: Uint8Array, start: number, stop: number): void {
    assert.ok(!this.ended);
    this.heldBytes += stop - start;
  }
  end(_trailers: Fields | null): void {
    assert.ok(!this.ended);
    this.ended = true;
    this.giveBack();
  }
  abort(): void {
    assert.ok(!this.over);
    this.over = true;
  }
  responseConsumed(): void {}
}

for (const meshed of [true, false]) {
  test(`nothing leaks on one HTTP/2 connection, however its exchanges end (${meshed ? "upgraded" : "native"})`, () => {
    const clock = new ManualClock();
    const random = new SeededRandom(meshed ? 7 : 8);
    const ends = memoryPair(clock, 3_000);
    const machine = {
      streamWindowBytes: WINDOW_BYTES,
      connectionWindowBytes: WINDOW_BYTES,
      resetBurst: 1e9,
      unknownFrameBurst: 1e9,
      windowUpdateBurst: 1e9,
    };
    const halves: ServerHalf[] = [];
    let last: HttpService | null = null;
    const service: HttpService = {
      call(head: RequestHead, isLast: boolean, reply: ResponseSink): RequestSink {
        if (last !== null) return last.call(head, isLast, reply);
        const half = new ServerHalf(random, clock, isLast, reply);
        halves.push(half);
        return half;
      },
    };
    const server = new Http2Server(ends[1], service, clock, () => {}, { meshed, clientId: null, machine });
    const client = new Http2Client(ends[0], clock, () => {}, { meshed, machine, resetsMax: Infinity });
    clock.settle();
    for (let round = 0; round < 100; round++) {
      const clients: ClientHalf[] = [];
      for (let i = 0; i < 20; i++) {
        const half = new ClientHalf(random, clock);
        clients.push(half);
        half.start(client, meshed);
      }
      clock.settle();
      assert.ok(client.usable, `round ${round}: the connection broke`);
      assert.equal(client.activeRequests, 0, `round ${round}: streams left at the client`);
      assert.equal(server.activeRequests, 0, `round ${round}: streams left at the server`);
      for (const half of clients) assert.equal(half.ends, 1);
    }

    // Two streams that nobody consumes fill the connection's window. Less than half of it may wait to be reported.
    const probe = new ScriptedService();
    last = probe;
    for (let i = 0; i < 2; i++) {
      const head = new Request(requestHead("POST"));
      const reply = new RecordingReply();
      const sink = client.call(head, false, reply);
      clock.settle();
      const call = probe.calls[i]!;
      call.holdCredit = true;
      call.reply.head({ status: 200, version: "2", reason: null, fields: [] }, false);
      for (let sent = 0; sent < 2 * WINDOW_BYTES; sent += CHUNK.length) {
        sink.data(CHUNK, 0, CHUNK.length);
        call.reply.body(CHUNK, 0, CHUNK.length);
      }
      clock.settle();
      if (i > 0) continue;
      assert.ok(call.bytes >= WINDOW_BYTES / 2, `requests: a window of ${call.bytes} bytes is left`);
      assert.ok(
        reply.body_.length >= WINDOW_BYTES / 2,
        `answers: a window of ${reply.body_.length} bytes is left`,
      );
    }
  });
}
