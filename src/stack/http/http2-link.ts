import type { Clock, Timer } from "#/base/clock.ts";
import type { Conn, ConnHandler } from "#/base/conn.ts";
import { LONG_READ_BYTES_MIN } from "#/base/conn.ts";
import { copyOf } from "#/base/copy-of.ts";
import type { ConnError } from "#/base/errors.ts";
import type { Fields } from "#/base/fields.ts";
import { KeptBytes } from "#/base/kept-bytes.ts";
import type { Http2Settings } from "#/wire/http2/settings.ts";
import { Event, Http2Connection } from "#/wire/http2/connection.ts";
import { PASSED_BYTES_MIN } from "#/wire/http2/frame-writer.ts";
import { StreamTable } from "#/wire/http2/stream-table.ts";
import type { Patrolled } from "../patrol.ts";
import { Lag } from "../patrol.ts";
import type { Guard } from "./guard.ts";
import { READER_BYTES_LEAST, Wait } from "./guard.ts";
import { linger } from "./linger.ts";
import { ReadTurns } from "./read-turns.ts";

/** What a link tells the side that owns it. */
export interface Http2LinkOwner {
  /** Its streams keep no view of the bytes that they are given (`ConnHandler.borrows`). */
  readonly borrows?: boolean;
  /** … of those that come in long reads (`ConnHandler.borrowsLong`): while `Http2Link.isLent`. */
  readonly borrowsLong?: boolean;
  /** The remote side opened a stream (server role only). The owner makes the stream, or resets it. */
  opened(streamId: number, fields: Fields, last: boolean): void;
  /** No new streams can be opened; those that will not be served are told after this call. */
  goingAway(): void;
  /** More streams may be possible: SETTINGS came, a stream ended, or output left. */
  roomier(): void;
  /** The connection is over; streams left have been told. Once, last. */
  closed(error: ConnError | null): void;
}

/**
 * Settings of both ends where both are ours. What one read of a socket gives makes one frame, so that it arrives in as few pieces as TLS
 * allows, and is not copied on its way there. A peer that says nothing gets, and is let send, frames of 16 KiB.
 */
export const BETWEEN_OURS: Partial<Http2Settings> = {
  maxFrameBytes: 131_072,
  sendFrameBytesMost: 131_072,
  passesData: true,
};

/** Output kept while the socket asks us to wait: past it no stream's data is taken, so memory follows the slow reader. */
const OUTPUT_BYTES_MAX = 262_144;
/**
 * Heads and frames of control that wait for a remote side which does not read. Past it a server reads no more requests, and a
 * client sends none (it always reads, so two links cannot wait for each other); what the remote provokes the machine bounds.
 */
const UNREAD_BYTES_MAX = 524_288;
/** A remote side that does not answer PING within this has had its time to hear that we drain. */
const DRAIN_PATIENCE_MS = 1_000;
const EMPTY = new Uint8Array(0);

/**
 * Drives one HTTP/2 connection, whichever role: bytes to the machine, events to streams, output to the connection once a
 * turn, and the machine's timers. Streams queue here, at most a window each, while flow control or the socket holds them.
 */
export class Http2Link implements ConnHandler, Patrolled {
  readonly borrows: boolean;
  readonly borrowsLong: boolean;
  /** What streams receive now is lent for the call. */
  isLent = false;
  readonly machine: Http2Connection;
  readonly #conn: Conn;
  readonly #clock: Clock;
  readonly #owner: Http2LinkOwner;
  #streams = new StreamTable<Http2Stream>();
  /** How often output was written: what was begun since the last time has not left. */
  #writes = 0;
  /** Streams that the socket, not their window, holds back. */
  readonly #stalled = new Set<Http2Stream>();
  readonly turns: ReadTurns;
  #flowing = true;
  #flushSoon = false;
  /** One for all turns. */
  readonly #flushLater = (): void => this.#flush();
  #over = false;
  #ending = false;
  #draining = false;
  /** Drains, and the remote side may not have heard of it: what it begins is still served. */
  #isUntold = false;
  #isPaused = false;
  #isClosed = false;
  readonly #isServer: boolean;
  #linger: Timer | null = null;
  #patience: Timer | null = null;
  #timer: Timer | null = null;
  #timerAtMs = Infinity;
  readonly #guard: Guard | null;
  #added = 0;
  /** For how long the remote side has left unfinished what it began, has been idle, and has taken too little. */
  readonly #finishing = new Lag();
  readonly #idling = new Lag();
  readonly #taking = new Lag();
  #streamsRefused = 0;
  #headersRefused = 0;
  #trailersRefused = 0;

  /** `guard` keeps a client to its limits; null where none has any. */
  constructor(
    conn: Conn,
    clock: Clock,
    owner: Http2LinkOwner,
    settings: Partial<Http2Settings> & Pick<Http2Settings, "role">,
    guard: Guard | null,
  ) {
    this.#conn = conn;
    this.#clock = clock;
    this.#owner = owner;
    this.turns = new ReadTurns(clock);
    this.#isServer = settings.role === "server";
    this.borrows = owner.borrows === true;
    this.borrowsLong = owner.borrowsLong === true;
    this.machine = new Http2Connection(settings);
    this.machine.wake(clock.nowMs());
    this.#guard = guard;
    conn.setHandler(this);
    guard?.patrol.add(this);
    this.touch();
  }

  get over(): boolean {
    return this.#over;
  }

  get streamCount(): number {
    return this.#streams.size;
  }

  add(stream: Http2Stream): void {
    this.#added++;
    this.#streams.add(stream);
    stream.begunAt = this.#writes;
  }

  /** A client's: whether a request can be sent now. If not, `roomier` tells when to ask again. */
  get hasRoom(): boolean {
    return this.machine.outputBytes < UNREAD_BYTES_MAX && this.machine.canRequest();
  }

  /** Something was written to the machine: its output leaves at the end of this turn, joined with all else of the turn. */
  touch(): void {
    if (this.#flushSoon || this.#over) return;
    this.#flushSoon = true;
    this.#clock.soon(this.#flushLater, true);
  }

  get flowing(): boolean {
    return this.#flowing && this.machine.outputBytes < OUTPUT_BYTES_MAX;
  }

  /**
   * Sends bytes that stay the caller's, at once. Gives how many were sent; the stream keeps the rest, and is offered when it may go on.
   * `isPatient`: the connection is not `flowing` while they are under way.
   */
  sendLent(stream: Http2Stream, bytes: Uint8Array, isPatient: boolean): number {
    let sent = 0;
    while (sent < bytes.length && !this.#over && this.flowing) {
      const taken = this.machine.announceData(stream.id, bytes.length - sent);
      if (taken === 0) break;
      this.#writeOut();
      const frame = taken === bytes.length ? bytes : bytes.subarray(sent, sent + taken);
      this.#flowing = this.#conn.writeLent(frame, isPatient);
      sent += taken;
    }
    return sent;
  }

  /** The source of `stream`, whose turn it is, has brought something. */
  brought(stream: Http2Stream): void {
    if (this.turns.brought(stream)) this.touch();
  }

  /** The source of `stream` brings no more. */
  leaveTurns(stream: Http2Stream): void {
    if (this.turns.leave(stream)) this.touch();
  }

  /** Bytes of `stream` are on their way: whether its source may bring more. If not, `goOn` tells when it may. */
  mayGoOn(stream: Http2Stream): boolean {
    if (this.turns.took(stream, this.flowing)) return true;
    this.touch();
    return false;
  }

  stalled(stream: Http2Stream): void {
    this.#stalled.add(stream);
  }

  forget(stream: Http2Stream): void {
    if (!this.#streams.delete(stream.id)) return;
    this.#stalled.delete(stream);
    this.touch();
    this.#owner.roomier();
    this.#endIfIdle();
  }

  /**
   * Tells the remote side to begin no more streams; the connection ends when the last one has. A server serves what crosses
   * that word: the answer to a PING behind it tells that it was heard (RFC 9113 §6.8).
   */
  drain(): void {
    if (this.#over || this.#ending) return;
    this.#ending = true;
    this.#draining = true;
    this.machine.goAway(0);
    if (this.#isServer) {
      this.#isUntold = true;
      this.machine.ping(this.#clock.nowMs());
      this.#patience = this.#clock.after(DRAIN_PATIENCE_MS, () => this.#told());
    }
    this.touch();
    this.#endIfIdle();
  }

  /** From here on further streams are ignored, and the remote side knows which. */
  #told(): void {
    if (!this.#isUntold || this.#over) return;
    this.#isUntold = false;
    this.#patience?.cancel();
    this.machine.goAwayFinal();
    this.touch();
    this.#endIfIdle();
  }

  #endIfIdle(): void {
    if (!this.#ending || this.#isUntold || this.#over || this.#streams.size > 0) return;
    this.#clock.soon(() => {
      if (this.#over || this.#streams.size > 0) return;
      // RFC 9113 §6.8: requests that are on their way to us must learn that nobody looked at them.
      if (this.#draining) this.machine.goAwayFinal();
      this.#flush();
      this.#leave();
    });
  }

  /** Sends what is left, and our end. */
  #leave(): void {
    this.#patience?.cancel();
    this.#writeOut();
    this.#conn.end();
    if (this.#isPaused) this.#conn.resume();
    this.#linger ??= linger(this.#conn, this.#clock, this.#guard);
  }

  look(nowMs: number): void {
    const guard = this.#guard;
    if (guard === null || this.#over) return;
    this.#tellRefused(guard);
    const { headMs, readerMs, idleMs } = guard.limits;
    if (this.#conn.bufferedBytes === 0 || readerMs === 0) this.#taking.clear();
    else if (this.#taking.look(nowMs, Wait.READER, this.#conn.sentBytes, READER_BYTES_LEAST) >= readerMs) {
      guard.reached("slow_reader");
      this.#taking.clear();
      this.#conn.reset();
      return;
    }
    const { unfinished } = this.machine;
    if (unfinished === 0 || headMs === 0) this.#finishing.clear();
    else if (this.#finishing.look(nowMs, unfinished, 0, 1) >= headMs) {
      guard.reached("slow_head");
      this.machine.giveUp(`what was begun was not complete after ${headMs} ms`);
      this.#pump();
      return;
    }
    if (this.#streams.size > 0) {
      this.#idling.clear();
      this.#lookAtStreams(nowMs, guard);
    } else if (idleMs === 0 || this.#ending) this.#idling.clear();
    else if (this.#idling.look(nowMs, Wait.IDLE, this.#added, 1) >= idleMs) {
      guard.reached("idle");
      this.drain();
    }
  }

  /** All streams that are open, in no order: for rare events that concern each. */
  streams(): readonly Http2Stream[] {
    return this.#streams.all();
  }

  #lookAtStreams(nowMs: number, guard: Guard): void {
    // What others hold may have used up the connection's window: then nobody can send, and nobody owes anything.
    const maySend = !this.machine.isCrowded;
    for (const stream of this.#streams.all()) stream.look(nowMs, guard, maySend);
  }

  #tellRefused(guard: Guard): void {
    const { streamsRefused, headersRefused, trailersRefused } = this.machine;
    if (streamsRefused > this.#streamsRefused)
      guard.reached("streams", streamsRefused - this.#streamsRefused);
    if (headersRefused > this.#headersRefused)
      guard.heads.refused("http/2", "request", headersRefused - this.#headersRefused);
    if (trailersRefused > this.#trailersRefused)
      guard.heads.refused("http/2", "trailers", trailersRefused - this.#trailersRefused);
    this.#streamsRefused = streamsRefused;
    this.#headersRefused = headersRefused;
    this.#trailersRefused = trailersRefused;
  }

  onData(bytes: Uint8Array): void {
    this.machine.tick(this.#clock.nowMs());
    const isLong = this.borrowsLong && bytes.length >= LONG_READ_BYTES_MIN;
    this.isLent = this.borrows || isLong;
    this.machine.feed(bytes);
    this.#pump();
    this.isLent = false;
  }

  onEnd(): void {
    this.machine.end();
    this.#pump();
    // HTTP/2 knows no half-closed connection: streams that are still open can never be answered.
    if (this.#streams.size === 0) this.#leave();
    else this.#finish(null, "the connection ended with streams open");
  }

  onDrain(): void {
    if (this.#over) return;
    this.#flowing = true;
    this.#offerStalled();
    // The machine has had room since its output was taken, and tells streams that waited for it only when it is asked.
    this.#pump();
  }

  onClose(error: ConnError | null): void {
    this.#linger?.cancel();
    this.#isClosed = true;
    this.#finish(error, error?.message ?? "the connection closed");
  }

  #pump(): void {
    this.#events();
    this.touch();
  }

  #events(): void {
    const machine = this.machine;
    for (let kind = machine.next(); kind !== Event.NOTHING; kind = machine.next()) {
      switch (kind) {
        case Event.HEADERS: {
          const stream = this.#streams.get(machine.streamId);
          if (stream === null) this.#owner.opened(machine.streamId, machine.fields, machine.endStream);
          else stream.receiveHead(machine.fields, machine.endStream);
          break;
        }
        case Event.INFORMATIONAL:
          this.#streams.get(machine.streamId)?.receiveInformational(machine.fields);
          break;
        case Event.DATA: {
          const stream = this.#streams.get(machine.streamId);
          const bytes = machine.stop - machine.start;
          if (stream === null) {
            if (bytes > 0) machine.consumed(machine.streamId, bytes);
            break;
          }
          const last = machine.endStream;
          if (bytes > 0) {
            stream.heldBytes += bytes;
            stream.receivedBytes += bytes;
            stream.receiveData(machine.bytes, machine.start, machine.stop);
          }
          if (last) stream.receiveEnd(null);
          break;
        }
        case Event.TRAILERS:
          this.#streams.get(machine.streamId)?.receiveEnd(machine.fields);
          break;
        case Event.RESET: {
          const stream = this.#streams.get(machine.streamId);
          if (stream === null) break;
          this.#streams.delete(stream.id);
          this.#stalled.delete(stream);
          this.leaveTurns(stream);
          stream.receiveReset(machine.errorCode, machine.byUs ? machine.reason : "");
          this.#owner.roomier();
          this.#endIfIdle();
          break;
        }
        case Event.WRITABLE:
          if (machine.streamId === 0) for (const stream of this.#streams.all()) stream.offer();
          else this.#streams.get(machine.streamId)?.offer();
          break;
        case Event.GOAWAY: {
          // Streams above the last id are reset by the machine with REFUSED_STREAM, in the events that follow.
          this.#ending = true;
          this.#owner.goingAway();
          this.#endIfIdle();
          break;
        }
        case Event.SETTINGS:
          this.#owner.roomier();
          break;
        case Event.PING_ACK:
          // Answers come in order: the last one is that to the PING behind our GOAWAY, or to a later one.
          if (machine.pingsUnderWay === 0) this.#told();
          break;
        case Event.ERROR: {
          const reason = machine.error?.message ?? "protocol error";
          if (machine.limit === "header_bytes") this.#guard?.heads.refused("http/2", "request");
          else if (machine.limit !== null) this.#guard?.reached(machine.limit);
          this.#finish(null, `the connection broke HTTP/2: ${reason}`);
          return;
        }
        default:
          break;
      }
    }
  }

  #flush(): void {
    // Still set while flushing: what is touched meanwhile leaves in this loop and needs no further turn.
    while (!this.#over) {
      // What the socket has no room for stays in the machine, which then bounds what a remote that does not read can provoke.
      if (!this.#flowing) break;
      if (this.machine.outputBytes === 0) break;
      const isFlowing = this.#writeOut();
      this.#owner.roomier();
      if (!isFlowing) {
        this.#flowing = false;
        break;
      }
      // The machine has room again: streams that waited for it get their turn.
      this.#offerStalled();
      this.#events();
    }
    this.#flushSoon = false;
    if (this.#over) return;
    if (this.flowing) this.turns.next();
    this.#setTimer();
    this.#steer();
  }

  #steer(): void {
    const hold = this.#isServer && this.machine.outputBytes > UNREAD_BYTES_MAX;
    if (hold === this.#isPaused) return;
    this.#isPaused = hold;
    if (hold) this.#conn.pause();
    else this.#conn.resume();
  }

  /** False when the socket asks us to wait. */
  #writeOut(): boolean {
    const { machine } = this;
    if (machine.outputBytes === 0) return true;
    this.#writes++;
    if (!machine.passesData) return this.#conn.write(machine.takeOutput() as Uint8Array);
    let isFlowing = true;
    for (const out of machine.takeOutputs()) isFlowing = this.#conn.write(out);
    return isFlowing;
  }

  #offerStalled(): void {
    if (this.#stalled.size === 0) return;
    const waiting = [...this.#stalled];
    this.#stalled.clear();
    for (const stream of waiting) stream.offer();
    this.touch();
  }

  /** Armed for the earliest wish only; a timer that fires early asks the machine again. */
  #setTimer(): void {
    const atMs = this.machine.wakeAtMs();
    if (atMs >= this.#timerAtMs) return;
    this.#timer?.cancel();
    this.#timerAtMs = atMs;
    this.#timer = this.#clock.after(Math.max(1, atMs - this.#clock.nowMs()), () => {
      this.#timerAtMs = Infinity;
      this.#timer = null;
      if (this.#over) return;
      this.machine.wake(this.#clock.nowMs());
      this.#pump();
    });
  }

  #finish(error: ConnError | null, reason: string): void {
    if (this.#over) return;
    this.#over = true;
    this.#timer?.cancel();
    this.#patience?.cancel();
    if (this.#guard !== null) {
      this.#guard.patrol.remove(this);
      this.#tellRefused(this.#guard);
    }
    const left = this.#streams.all();
    this.#streams = new StreamTable();
    this.#stalled.clear();
    this.turns.close();
    // Nobody has heard of it for long: what it was asked is better asked elsewhere.
    const isDead = this.machine.error?.code === "H2_PING_TIMEOUT";
    // First, for what is given back is sent again from within, and must not come back to this connection.
    this.#owner.goingAway();
    for (const stream of left) stream.receiveLost(reason, stream.begunAt === this.#writes, isDead);
    this.#owner.closed(error);
    if (!this.#isClosed) this.#leave();
  }
}

/** Of all streams that nothing holds back, as nearly all are. */
const NOTHING_QUEUED = new KeptBytes();

/** One stream's sending half: body bytes wait here for their window. What arrives goes to the `receive…` methods. */
export abstract class Http2Stream {
  readonly id: number;
  readonly link: Http2Link;
  /** What the link had written when it began, as the link counts. */
  begunAt = 0;
  /** Everything of ours has been taken by the machine. */
  sent = false;
  /** The remote side has ended its half. */
  received = false;
  gone = false;
  /** Body bytes that arrived and were not yet reported as consumed. */
  heldBytes = 0;
  /** Body bytes that arrived so far. */
  receivedBytes = 0;
  /** Chunks that the window or the socket did not take. Bounded by the source's window (see exchange.ts). */
  #queue = NOTHING_QUEUED;
  #ended = false;
  #trailers: Fields | null = null;
  /** On their way, and not `credited` before the stream's turn: more than 0 while it waits for that. */
  #owedBytes = 0;

  constructor(link: Http2Link, id: number) {
    this.link = link;
    this.id = id;
  }

  /** Once a second, where the remote side is kept to limits. `maySend`: the connection's window is open to it. */
  abstract look(nowMs: number, guard: Guard, maySend: boolean): void;
  abstract receiveHead(fields: Fields, last: boolean): void;
  abstract receiveInformational(fields: Fields): void;
  abstract receiveData(bytes: Uint8Array, start: number, stop: number): void;
  abstract receiveEnd(trailers: Fields | null): void;
  /** `ownReason`: the rule that the remote broke, where our machine reset the stream for it; else "". */
  abstract receiveReset(errorCode: number, ownReason: string): void;
  /** The connection is gone; `isUnsent`: before a byte of this stream had left; `isDead`: the remote side answers no PING. */
  abstract receiveLost(reason: string, isUnsent: boolean, isDead: boolean): void;
  /** So many bytes of ours are on their way, and as many more may come. */
  protected abstract credited(bytes: number): void;

  /** Whether its source is read in turn with those of the connection's other streams, when the connection has room. */
  protected get takesTurns(): boolean {
    return true;
  }

  #credit(bytes: number): void {
    if (this.#owedBytes > 0) this.#owedBytes += bytes;
    // Who has brought all asks for no turn. Nor does a message: its source need not bring another, and those of bodies would wait for it.
    else if (bytes < PASSED_BYTES_MIN || this.#ended || !this.takesTurns || this.link.mayGoOn(this))
      this.credited(bytes);
    else this.#owedBytes = bytes;
  }

  /** Its turn has come. */
  goOn(): void {
    const bytes = this.#owedBytes;
    this.#owedBytes = 0;
    if (bytes > 0) this.credited(bytes);
  }

  /** Nothing more comes of a turn. */
  #leaveTurns(): void {
    if (this.#owedBytes > 0 || this.link.turns.holder === this) this.link.leaveTurns(this);
  }

  /** Body bytes wait here that the remote side's windows, and not the socket, hold back. */
  protected get isHeldBack(): boolean {
    return !this.#queue.isEmpty && this.link.flowing;
  }

  /** Copied into what the connection sends next, as far as nothing holds it back. An end that follows at once shares its frame. */
  protected sendData(bytes: Uint8Array, start: number, stop: number): void {
    if (this.gone || this.#ended || start === stop) return;
    if (this.link.turns.holder === this) this.link.brought(this);
    const sent = this.#queue.isEmpty ? this.#send(bytes, start, stop) : 0;
    if (start + sent < stop) this.#keep(bytes, start + sent, stop);
    if (sent > 0) this.#credit(sent);
  }

  /** The same for bytes that are lent: what the windows or the socket hold back is copied. */
  protected sendLentData(bytes: Uint8Array, start: number, stop: number): void {
    if (this.gone || this.#ended || start === stop) return;
    const { link } = this;
    if (link.turns.holder === this) link.brought(this);
    let sent = 0;
    if (this.#queue.isEmpty) {
      const isLong = stop - start >= PASSED_BYTES_MIN && link.machine.passesData;
      sent = isLong ? link.sendLent(this, bytes.subarray(start, stop), true) : this.#send(bytes, start, stop);
    }
    if (start + sent < stop) this.sendData(copyOf(bytes, start + sent, stop), 0, stop - start - sent);
    if (sent > 0) this.#credit(sent);
  }

  /** Gives how many bytes were sent. `offer` comes when it may go on. */
  #send(bytes: Uint8Array, start: number, stop: number): number {
    const { link } = this;
    const sent = link.flowing ? link.machine.sendData(this.id, bytes, start, stop, false) : 0;
    if (sent < stop - start && !link.flowing) link.stalled(this);
    link.touch();
    return sent;
  }

  #keep(bytes: Uint8Array, start: number, stop: number): void {
    if (this.#queue === NOTHING_QUEUED) this.#queue = new KeptBytes();
    this.#queue.push(bytes, start, stop);
  }

  protected sendEnd(trailers: Fields | null): void {
    if (this.gone || this.#ended) return;
    this.#ended = true;
    this.#trailers = trailers;
    this.#leaveTurns();
    this.goOn();
    if (this.#queue.isEmpty) this.#sendLast();
  }

  /** The window opened, or the socket did. */
  offer(): void {
    const { link } = this;
    const queue = this.#queue.chunks;
    while (!this.gone && queue.length > 0) {
      if (!link.flowing) {
        link.stalled(this);
        return;
      }
      const head = queue[0] as Uint8Array;
      const finish = this.#ended && this.#trailers === null && queue.length === 1;
      const taken = link.machine.sendData(this.id, head, 0, head.length, finish);
      link.touch();
      if (taken === head.length) {
        queue.shift();
        if (finish) {
          this.#credit(taken);
          this.#markSent();
          return;
        }
      } else {
        if (taken > 0) queue[0] = head.subarray(taken);
        if (taken > 0 && !link.flowing) link.stalled(this);
        if (taken > 0) this.#credit(taken);
        return;
      }
      this.#credit(taken);
    }
    if (!this.gone && this.#ended && !this.sent && queue.length === 0) this.#sendLast();
  }

  #sendLast(): void {
    if (this.#trailers !== null) this.link.machine.sendTrailers(this.id, this.#trailers);
    else this.link.machine.sendData(this.id, EMPTY, 0, 0, true);
    this.link.touch();
    this.#markSent();
  }

  #markSent(): void {
    this.sent = true;
    this.leaveIfDone();
  }

  protected leaveIfDone(): void {
    if (!this.sent || !this.received || this.gone) return;
    this.gone = true;
    this.link.forget(this);
  }

  /** Bytes that arrived here are on their way: the remote side may send as many again. */
  protected release(bytes: number): void {
    const released = Math.min(bytes, this.heldBytes);
    if (released === 0 || this.link.over) return;
    this.heldBytes -= released;
    this.link.machine.consumed(this.id, released);
    this.link.touch();
  }

  protected resetStream(errorCode: number): void {
    // Nobody will report what is still held; the connection's window must not shrink for it.
    this.release(this.heldBytes);
    if (this.gone) return;
    this.gone = true;
    this.#leaveTurns();
    this.#queue.take();
    if (!this.link.over) this.link.machine.reset(this.id, errorCode);
    this.link.forget(this);
  }
}
