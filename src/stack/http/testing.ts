import type { SocketAddress } from "#/base/address.ts";
import { parseSocketAddress } from "#/base/address.ts";
import { assert } from "#/base/assert.ts";
import type { Clock, Timer } from "#/base/clock.ts";
import type { Conn, ConnHandler } from "#/base/conn.ts";
import { LONG_READ_BYTES_MIN } from "#/base/conn.ts";
import { ConnError } from "#/base/errors.ts";
import type { Fields } from "#/base/fields.ts";
import type { HttpService, RequestHead, RequestSink, ResponseHead, ResponseSink } from "./exchange.ts";
import type { Fault } from "./fault.ts";

/** Time that moves only when told, and a queue of turns: `settle` runs everything that is due now. */
export class ManualClock implements Clock {
  #nowMs = 1_000;
  #turns: (() => void)[] = [];
  #timers: { atMs: number; fire: () => void }[] = [];

  nowMs(): number {
    return this.#nowMs;
  }
  wallMs(): number {
    return 1_700_000_000_000 + this.#nowMs;
  }
  after(afterMs: number, fire: () => void): Timer {
    const entry = { atMs: this.#nowMs + afterMs, fire };
    this.#timers.push(entry);
    return { cancel: () => (this.#timers = this.#timers.filter((other) => other !== entry)) };
  }
  /** Timers that neither fired nor were cancelled. */
  get timersLeft(): number {
    return this.#timers.length;
  }
  soon(task: () => void): void {
    this.#turns.push(task);
  }
  settle(): void {
    for (let turns = 0; this.#turns.length > 0; turns++) {
      assert(turns < 100_000, "no end of turns: something wakes itself for ever");
      const batch = this.#turns;
      this.#turns = [];
      for (const task of batch) task();
    }
  }
  /** Time passes in which nothing runs: what was due is late. */
  stall(ms: number): void {
    this.#nowMs += ms;
  }
  advance(ms: number): void {
    const untilMs = this.#nowMs + ms;
    this.settle();
    for (;;) {
      const due = this.#timers
        .filter((timer) => timer.atMs <= untilMs)
        .toSorted((a, b) => a.atMs - b.atMs)[0];
      if (due === undefined) break;
      this.#nowMs = Math.max(this.#nowMs, due.atMs);
      this.#timers = this.#timers.filter((other) => other !== due);
      due.fire();
      this.settle();
    }
    this.#nowMs = untilMs;
  }
}

const A = parseSocketAddress("10.0.0.1:40000") as SocketAddress;
const B = parseSocketAddress("10.0.0.2:80") as SocketAddress;

/** Two ends of one connection in memory. Each turn carries what was written, cut into pieces of `pieceBytes`. */
export function memoryPair(clock: Clock, pieceBytes: number = 65_536): [MemoryConn, MemoryConn] {
  const a = new MemoryConn(clock, pieceBytes, A, B);
  const b = new MemoryConn(clock, pieceBytes, B, A);
  a.peer = b;
  b.peer = a;
  return [a, b];
}

const HIGH_WATER_BYTES = 65_536;

/** Lends what a socket would, and spoils it afterwards as one would. */
function deliver(handler: ConnHandler, bytes: Uint8Array): void {
  const isLent =
    handler.borrows === true || (handler.borrowsLong === true && bytes.length >= LONG_READ_BYTES_MIN);
  const lent = isLent ? new Uint8Array(bytes) : bytes;
  handler.onData(lent);
  if (isLent) lent.fill(SPOILT);
}

/** What lent memory holds after the call that lent it. */
export const SPOILT = 0xee;

export class MemoryConn implements Conn {
  readonly local: SocketAddress;
  readonly remote: SocketAddress;
  peer: MemoryConn | null = null;
  /** Everything that was ever written, for assertions. */
  written = "";
  /** Of all that its handler was given at once, for assertions. */
  longestReadBytes = 0;
  readonly #clock: Clock;
  readonly #pieceBytes: number;
  #handler: ConnHandler | null = null;
  #out: Uint8Array[] = [];
  #outBytes = 0;
  #inbox: Uint8Array[] = [];
  #endQueued = false;
  #endSent = false;
  #endReceived = false;
  #endTold = false;
  #closed = false;
  #needDrain = false;
  paused = false;
  #scheduled = false;

  constructor(clock: Clock, pieceBytes: number, local: SocketAddress, remote: SocketAddress) {
    this.#clock = clock;
    this.#pieceBytes = pieceBytes;
    this.local = local;
    this.remote = remote;
  }

  setHandler(handler: ConnHandler): void {
    this.#handler = handler;
    this.#schedule();
  }
  write(bytes: Uint8Array): boolean {
    if (this.#closed || this.#endQueued) return true;
    this.written += Buffer.from(bytes).toString("latin1");
    this.#out.push(bytes);
    this.#outBytes += bytes.length;
    this.#schedule();
    if (this.#outBytes <= HIGH_WATER_BYTES) return true;
    this.#needDrain = true;
    return false;
  }
  get bufferedBytes(): number {
    return this.#outBytes;
  }
  get sentBytes(): number {
    return this.written.length - this.#outBytes;
  }
  get isClosed(): boolean {
    return this.#closed;
  }
  writeLent(bytes: Uint8Array, isPatient = false): boolean {
    const isFlowing = this.write(new Uint8Array(bytes));
    if (!isPatient || this.#closed || this.#endQueued) return isFlowing;
    this.#needDrain = true;
    return false;
  }

  unsend(bytes: number): boolean {
    if (this.#outBytes !== bytes) return false;
    this.#out = [];
    this.#outBytes = 0;
    this.written = this.written.slice(0, this.written.length - bytes);
    return true;
  }
  end(): void {
    this.#endQueued = true;
    this.#schedule();
  }
  reset(): void {
    if (this.#closed) return;
    this.#clock.soon(() => {
      this.peer?.close(new ConnError("RESET", "the remote side reset the connection"));
      this.close(new ConnError("ABORTED", "reset here"));
    });
  }
  pause(): void {
    this.paused = true;
  }
  resume(): void {
    this.paused = false;
    this.#schedule();
  }
  unread(bytes: Uint8Array): void {
    this.#inbox.unshift(bytes);
    this.#schedule();
  }
  /** The remote side's end comes now, before anything that is queued here leaves. */
  hearEnd(): void {
    this.#endTold = true;
    this.#handler?.onEnd();
  }
  close(error: ConnError | null): void {
    if (this.#closed) return;
    this.#closed = true;
    this.#handler?.onClose(error);
  }

  #schedule(): void {
    if (this.#scheduled) return;
    this.#scheduled = true;
    this.#clock.soon(() => {
      this.#scheduled = false;
      this.#turn();
    });
  }

  #turn(): void {
    if (this.#closed) return;
    this.#send();
    const had = this.#inbox.length;
    while (this.#inbox.length > 0 && !this.paused && this.#handler !== null && !this.#closed) {
      const bytes = this.#inbox.shift() as Uint8Array;
      this.longestReadBytes = Math.max(this.longestReadBytes, bytes.length);
      deliver(this.#handler, bytes);
    }
    if (this.#closed) return;
    // Room in our inbox is room in the far side's pipe.
    if (this.#inbox.length < had) (this.peer as MemoryConn).#schedule();
    if (this.#inbox.length === 0 && this.#endReceived && !this.#endTold && this.#handler !== null) {
      this.#endTold = true;
      this.#handler.onEnd();
    }
    if (this.#endTold && this.#endSent) this.close(null);
  }

  /** What the far side did not read yet fills the pipe, as TCP's window does. */
  #send(): void {
    const peer = this.peer as MemoryConn;
    while (this.#out.length > 0 && peer.#inboxBytes() < HIGH_WATER_BYTES) {
      const bytes = this.#out.shift() as Uint8Array;
      this.#outBytes -= bytes.length;
      for (let at = 0; at < bytes.length; at += this.#pieceBytes)
        peer.#inbox.push(bytes.slice(at, at + this.#pieceBytes));
      peer.#schedule();
    }
    if (this.#outBytes === 0 && this.#endQueued && !this.#endSent) {
      this.#endSent = true;
      peer.#endReceived = true;
      peer.#schedule();
    }
    if (this.#needDrain && this.#outBytes === 0) {
      this.#needDrain = false;
      this.#handler?.onDrain();
    }
  }

  #inboxBytes(): number {
    let sum = 0;
    for (const bytes of this.#inbox) sum += bytes.length;
    return sum;
  }
}

/** Of a request to `/` by HTTP/2, without fields. */
export function requestHead(method = "GET"): RequestHead {
  return {
    method,
    scheme: "http",
    authority: "a",
    path: "/",
    version: "2",
    absoluteForm: false,
    upgrade: null,
    fields: [],
  };
}

/** What a `RecordingReply` or `ScriptedService` saw, as one line an event. */
export class RecordingReply implements ResponseSink {
  readonly events: string[] = [];
  body_ = "";
  status = 0;
  fields: Fields = [];
  finished = false;
  fault: Fault | null = null;
  requestConsumedBytes = 0;
  informational(head: ResponseHead): void {
    this.events.push(`informational ${head.status}`);
  }
  head(head: ResponseHead, last: boolean): void {
    this.status = head.status;
    this.fields = head.fields;
    this.events.push(`head ${head.status}${last ? " last" : ""}`);
    if (last) this.finished = true;
  }
  body(bytes: Uint8Array, start: number, stop: number): void {
    this.body_ += Buffer.from(bytes.subarray(start, stop)).toString("latin1");
  }
  finish(trailers: Fields | null): void {
    this.finished = true;
    this.events.push(`finish${trailers === null ? "" : ` ${trailers.join(" ")}`}`);
  }
  fail(fault: Fault): void {
    this.fault = fault;
    this.events.push(`fail ${fault.code}${fault.safe ? " safe" : ""}`);
  }
  requestConsumed(bytes: number): void {
    this.requestConsumedBytes += bytes;
  }
}

/** One call of a `ScriptedService`. */
export class ScriptedCall implements RequestSink {
  readonly head: RequestHead;
  readonly reply: ResponseSink;
  ended: boolean;
  trailers: Fields | null = null;
  aborted: Fault | null = null;
  body = "";
  bytes = 0;
  /** Credit is given at once unless a test holds it back. */
  holdCredit = false;

  constructor(head: RequestHead, last: boolean, reply: ResponseSink) {
    this.head = head;
    this.reply = reply;
    this.ended = last;
  }
  data(bytes: Uint8Array, start: number, stop: number): void {
    this.body += Buffer.from(bytes.subarray(start, stop)).toString("latin1");
    this.bytes += stop - start;
    if (!this.holdCredit) this.reply.requestConsumed(stop - start);
  }
  end(trailers: Fields | null): void {
    this.ended = true;
    this.trailers = trailers;
  }
  abort(fault: Fault): void {
    this.aborted = fault;
  }
  responseConsumed(): void {}

  answer(status: number, fields: Fields, body: string): void {
    this.reply.head({ status, version: "1.1", reason: null, fields }, body === "");
    if (body === "") return;
    const bytes = Buffer.from(body, "latin1");
    this.reply.body(bytes, 0, bytes.length);
    this.reply.finish(null);
  }
}

/** A service that keeps its calls for the test, and may answer each by itself. */
export class ScriptedService implements HttpService {
  readonly calls: ScriptedCall[] = [];
  readonly #respond: ((call: ScriptedCall) => void) | null;
  constructor(respond: ((call: ScriptedCall) => void) | null = null) {
    this.#respond = respond;
  }
  call(head: RequestHead, last: boolean, reply: ResponseSink): RequestSink {
    const call = new ScriptedCall(head, last, reply);
    this.calls.push(call);
    this.#respond?.(call);
    return call;
  }
  close(): void {}
}
