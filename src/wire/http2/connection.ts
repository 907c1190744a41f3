import { assert } from "#/base/assert.ts";
import { ProtocolError } from "#/base/errors.ts";
import type { Fields } from "#/base/fields.ts";
import { Decoded, HpackDecoder, NO_BLOCKS } from "../hpack/decoder.ts";
import { HpackEncoder } from "../hpack/encoder.ts";
import { ClosedStreams, Ended } from "./closed-streams.ts";
import { Flood, FLOOD_NAMES, FloodBudget, type FloodName } from "./flood-budget.ts";
import {
  CLIENT_PREFACE,
  ErrorCode,
  errorCodeName,
  Flag,
  Frame,
  FRAME_BYTES_DEFAULT,
  FRAME_BYTES_MOST,
  Setting,
  STREAM_ID_MOST,
  WINDOW_BYTES_DEFAULT,
  WINDOW_BYTES_MOST,
} from "./frame.ts";
import { Found, FrameReader } from "./frame-reader.ts";
import { FrameWriter } from "./frame-writer.ts";
import { MessageRules, Section } from "./message-rules.ts";
import { RecvWindow, WindowTuner } from "./recv-window.ts";
import { HTTP2_DEFAULTS, type Http2Settings } from "./settings.ts";
import { ILLEGAL, Input, nextState, State } from "./stream-state.ts";
import { StreamTable } from "./stream-table.ts";
import { Stream, Waits } from "./stream.ts";

/** What `Http2Connection.next()` found. */
export const Event = {
  NOTHING: 0,
  /** A request (server) or a final response (client): `streamId`, `fields`, `endStream`. */
  HEADERS: 1,
  /** `bytes[start, stop)` of `streamId`, `endStream`. Give it back with `consumed`. */
  DATA: 2,
  /** `fields`; the stream's remote half is over. */
  TRAILERS: 3,
  /** The stream is over before its time: `errorCode`, `byUs`, `reason`. Resets by `reset()` are not reported. */
  RESET: 4,
  /** `sendData` on `streamId` accepts bytes again. */
  WRITABLE: 5,
  /** The remote takes no new streams: `errorCode`, `lastStreamId`. */
  GOAWAY: 6,
  /** The remote's SETTINGS were applied. */
  SETTINGS: 7,
  PING_ACK: 8,
  /** The connection is over: `error`. Comes once; GOAWAY is in the output already. */
  ERROR: 9,
  /** A 1xx response: `fields`, `status`. */
  INFORMATIONAL: 10,
} as const;

/** RESET `byUs`: the reason that a section over `headerBytesMax` has. */
export const HEADERS_TOO_LARGE = "header list too large";

/** The bounds that end a connection with ENHANCE_YOUR_CALM. */
export type Limit = FloodName | "continuations" | "header_bytes" | "unread_answers";

/**
 * One HTTP/2 connection (RFC 9113), either role, without socket, timer or clock.
 *
 * Inputs `feed`, `end`, `tick`, `wake`; commands `request` … `ping`; outputs `next`, `takeOutput`, `wakeAtMs`. After every
 * input, and after `takeOutput` made room, drain `next()` until NOTHING, then write what `takeOutput` gives. The
 * public fields describe an event until the following call of `next`.
 *
 * Commands for a stream that is already over do nothing: its RESET may be waiting in `next()`.
 *
 * Holds: streams ≤ `maxConcurrentStreams` (server) or the remote's limit (client); one header block ≤
 * `headerBlockBytesMax`; one frame other than DATA; queued output ≤ `outputBytesMax` of DATA, plus the header sections
 * that the owner wrote, plus `REFLEX_BYTES_MAX` of answers that the remote provoked.
 */
export class Http2Connection {
  streamId = 0;
  /** Of the decoder's, and never changed: see `place`. */
  fields: Fields = [];
  /** Where the block of `fields` is remembered, 0 to `REMEMBERED_BLOCKS` - 1, or -1. A block that repeats gives the same list there. */
  place = -1;
  endStream = false;
  /** `:status` of HEADERS (client) and INFORMATIONAL, else 0. */
  status = 0;
  /** `content-length` of HEADERS, -1 when there is none. */
  contentLength = -1;
  bytes: Uint8Array = EMPTY;
  start = 0;
  stop = 0;
  errorCode = 0;
  lastStreamId = 0;
  /** RESET: the remote broke a rule on this stream and the machine reset it. */
  byUs = false;
  /** RESET with `byUs`: which rule. */
  reason = "";
  error: ProtocolError | null = null;
  /** ERROR: which of our bounds the remote reached; null when it broke a rule instead. */
  limit: Limit | null = null;
  /** How many requests were turned away because too many were open, and because their header list was too large. */
  streamsRefused = 0;
  headersRefused = 0;
  /** … and trailer sections. */
  trailersRefused = 0;

  /** Streams that count against the limit: open or half-closed. */
  activeStreams = 0;
  remoteGoAway = false;
  /** The remote's SETTINGS were seen. */
  settled = false;
  /** The remote's SETTINGS_ENABLE_CONNECT_PROTOCOL (RFC 8441). */
  remoteConnectProtocol = false;

  /** Our own setting: what is taken are `takeOutputs`. */
  readonly passesData: boolean;
  readonly #settings: Http2Settings;
  readonly #isServer: boolean;
  readonly #reader: FrameReader;
  readonly #decoder: HpackDecoder;
  /** Findings about the section last checked: one of its own for each block that the decoder remembers. */
  #rules = new MessageRules();
  readonly #rulesOfOthers = this.#rules;
  /** Made for a place when the first block is remembered there: many connections see none twice. */
  readonly #rulesByPlace: (MessageRules | null)[] = NO_BLOCKS.slice();
  readonly #writer: FrameWriter;
  readonly #flood: FloodBudget;

  readonly #streams = new StreamTable();
  readonly #closed = new ClosedStreams();
  /** Client: the id of the next request. */
  #nextStreamId = 1;
  /** Server: the highest stream that the client opened and we accepted. */
  #highestRemoteId = 0;
  /** Server: the highest stream ignored after our last GOAWAY. */
  #highestIgnoredId = 0;
  /** Streams that the application was not told of yet, but must be: RESET after GOAWAY. */
  #refused: number[] = [];

  /** Streams in turn to get WRITABLE, from `#queueHead` on. */
  #queue: Stream[] = [];
  #queueHead = 0;

  // What the remote allows.
  #remoteWindowBytes = WINDOW_BYTES_DEFAULT;
  #remoteStreamsMax = STREAMS_BEFORE_SETTINGS;
  #sendWindowBytes = WINDOW_BYTES_DEFAULT;

  // What we allow.
  readonly #recvWindow: RecvWindow;
  readonly #tuner = new WindowTuner();
  /** The stream window that the remote acknowledged; ours takes effect with its ACK (RFC 9113 §6.5.3). */
  #streamWindowBytes = WINDOW_BYTES_DEFAULT;
  #isSettingsAcked = false;

  /** Bytes of the client preface matched so far; past its end when done, and for a client. */
  #prefaceBytes: number;
  /** Stream whose header block goes on in CONTINUATION; 0 = none. */
  #blockStreamId = 0;
  #blockEndStream = false;
  #blockFrames = 0;
  #block: Buffer = EMPTY;
  #blockBytes = 0;
  /** Header blocks that went on in CONTINUATION, and frames, so far. */
  #blocks = 0;
  #frames = 0;
  /** Stream of the DATA frame being received; null when its bytes are dropped. */
  #dataStream: Stream | null = null;
  /** Of that frame: bytes not passed on yet, padding included. */
  #dataRestBytes = 0;

  #isOver = false;
  #isErrorDue = false;
  /** -1: not sent. Streams above it are ignored. */
  #goAwayLastId = -1;

  #nowMs = -1;
  /** When our SETTINGS went out, or soon after. */
  #openedAtMs = 0;
  #heardAtMs = 0;
  #pingDeadlineMs = Infinity;
  /** That deadline is the second for one PING. */
  #isPingExtended = false;
  #pingCount = 0;
  #pingsUnderWay = 0;

  /** Writes the preface (client) and SETTINGS at once. */
  constructor(settings: Partial<Http2Settings> & { role: "client" | "server" }) {
    const all: Http2Settings = { ...HTTP2_DEFAULTS, ...settings };
    this.#settings = all;
    this.#isServer = all.role === "server";
    this.#reader = new FrameReader(all.maxFrameBytes);
    this.#decoder = new HpackDecoder({
      tableBytesMax: HPACK_TABLE_DEFAULT,
      listBytesMax: all.headerBytesMax,
    });
    this.#writer = new FrameWriter(
      new HpackEncoder({ tableBytesMax: all.hpackTableBytes, huffman: all.hpackHuffman }),
    );
    this.#writer.passesData = all.passesData;
    this.passesData = all.passesData;
    this.#flood = new FloodBudget(
      [
        all.pingBurst,
        all.settingsBurst,
        all.emptyDataBurst,
        all.priorityBurst,
        all.resetBurst,
        all.windowUpdateBurst,
        all.unknownFrameBurst,
      ],
      all.floodRefillPerSecond,
    );
    this.#prefaceBytes = this.#isServer ? 0 : CLIENT_PREFACE.length;
    this.#recvWindow = new RecvWindow(Math.max(WINDOW_BYTES_DEFAULT, all.connectionWindowBytes));
    this.#writeOpening();
  }

  // === Inputs

  /** Bytes from the remote. DATA events point into them; nothing of them is looked at once `next` has given NOTHING, so that they may be lent. */
  feed(bytes: Uint8Array): void {
    if (this.#isOver || bytes.length === 0) return;
    // The owner has just told the time; a clock that is behind only makes us ask early.
    this.#heardAtMs = this.#nowMs;
    this.#pingDeadlineMs = Infinity;
    if (this.#prefaceBytes < CLIENT_PREFACE.length) this.#feedPreface(bytes);
    else this.#reader.feed(bytes);
  }

  /** The transport has ended. An error when something was still under way. */
  end(): void {
    if (this.#isOver) return;
    this.#isOver = true;
    const isCut = !this.#reader.isBetweenFrames || this.#blockStreamId !== 0;
    if (this.activeStreams === 0 && !isCut) return;
    this.error = new ProtocolError(
      "H2_UNEXPECTED_END",
      `connection ended with ${this.activeStreams} streams open${isCut ? ", within a frame" : ""}`,
    );
    this.#isErrorDue = true;
  }

  /** Time passes, and budgets refill. For before `feed`: nobody is silent whose bytes are in hand. */
  tick(nowMs: number): void {
    if (this.#nowMs < 0) this.#openedAtMs = this.#heardAtMs = nowMs;
    else if (nowMs > this.#nowMs) this.#flood.refill(nowMs - this.#nowMs);
    this.#nowMs = nowMs;
  }

  /** `tick`, and keep-alive PINGs go out or time out. */
  wake(nowMs: number): void {
    this.tick(nowMs);
    if (this.#isOver) return;
    const { pingTimeoutMs } = this.#settings;
    if (nowMs - this.#pingDeadlineMs > OVERSLEPT_MS && !this.#isPingExtended) {
      // It was we who were away: the answer may have come meanwhile, and will be read before we are woken again.
      this.#isPingExtended = true;
      this.#pingDeadlineMs = nowMs + pingTimeoutMs;
    } else if (nowMs >= this.#pingDeadlineMs) {
      this.#fail(ErrorCode.NO_ERROR, `no answer to a PING within ${pingTimeoutMs} ms`, "H2_PING_TIMEOUT");
    } else if (this.#pingDeadlineMs === Infinity && nowMs - this.#heardAtMs >= this.#pingAfterMs) {
      this.ping(nowMs);
      this.#pingDeadlineMs = nowMs + pingTimeoutMs;
      this.#isPingExtended = false;
    }
  }

  /** When `wake` is due; Infinity when it is not. Ask after every input. */
  wakeAtMs(): number {
    if (this.#isOver) return Infinity;
    const refillAtMs = this.#flood.isLow ? this.#nowMs + REFILL_EVERY_MS : Infinity;
    if (this.#nowMs < 0) return this.#pingAfterMs < Infinity ? 0 : refillAtMs;
    const pingAtMs =
      this.#pingDeadlineMs < Infinity ? this.#pingDeadlineMs : this.#heardAtMs + this.#pingAfterMs;
    return pingAtMs < refillAtMs ? pingAtMs : refillAtMs;
  }

  /**
   * What the remote has begun and owes the rest of: the preface with its SETTINGS, a header block, or a frame. A number that
   * stays the same while it is the same one; 0 when nothing is owed. DATA is not meant: it is handed on as it comes.
   */
  get unfinished(): number {
    if (!this.settled) return 1;
    if (this.#blockStreamId !== 0) return 2 * this.#blocks;
    return this.#reader.heldBytes > 0 ? 2 * this.#frames + 3 : 0;
  }

  /** How long a silence is let pass: after it, a stream that opens is accompanied by a PING. */
  get #pingAfterMs(): number {
    const { pingIntervalMs, pingIdleIntervalMs } = this.#settings;
    const afterMs = this.activeStreams > 0 ? pingIntervalMs : pingIdleIntervalMs;
    return afterMs === 0 ? Infinity : afterMs;
  }

  // === Outputs

  /** The next event. After ERROR only NOTHING follows. */
  next(): number {
    if (this.#isOver) {
      if (!this.#isErrorDue) return Event.NOTHING;
      this.#isErrorDue = false;
      return Event.ERROR;
    }
    if (this.#refused.length > 0) return this.#nextRefused();
    const reader = this.#reader;
    for (;;) {
      if (this.#queueHead < this.#queue.length && this.#dequeue()) return Event.WRITABLE;
      const found = reader.next();
      let event: number;
      if (found === Found.NOTHING) {
        reader.release();
        this.bytes = EMPTY;
        return Event.NOTHING;
      }
      if (found === Found.DATA) event = this.#onData();
      else if (found === Found.FRAME) event = this.#onFrame();
      else if (found === Found.DATA_HEAD) event = this.#onDataHead();
      else event = this.#failWith(reader.error!);
      if (event === Event.NOTHING) continue;
      if (event === Event.ERROR) this.#isErrorDue = false;
      return event;
    }
  }

  /** Everything to write now as one buffer, which the taker owns; null when there is nothing. */
  takeOutput(): Uint8Array | null {
    return this.#writer.take();
  }

  /** The same as a list for a gathering write, without copying. */
  takeOutputs(): Uint8Array[] {
    return this.#writer.takeAll();
  }

  /** Streams that nobody reads hold half of the connection's window or more: the others may soon be unable to send. */
  get isCrowded(): boolean {
    return 2 * this.#recvWindow.unreadBytes >= this.#recvWindow.windowBytes;
  }

  /** The shortest round trip seen so far; 0: none was. */
  get rttMs(): number {
    return this.#tuner.rttMs;
  }

  /** Queued and not taken. */
  get outputBytes(): number {
    return this.#writer.pendingBytes;
  }

  // === Commands

  /** False when GOAWAY was seen or sent, ids are used up, or the remote's limit of streams is reached. */
  canRequest(): boolean {
    return (
      !this.#isOver &&
      !this.#isServer &&
      !this.remoteGoAway &&
      this.#goAwayLastId < 0 &&
      this.#nextStreamId <= STREAM_ID_MOST &&
      this.activeStreams < this.#remoteStreamsMax
    );
  }

  /** Opens a stream with a request; gives its id, or 0 when `canRequest()` is false. Client only. */
  request(fields: Fields, endStream: boolean): number {
    if (!this.canRequest()) return 0;
    const id = this.#nextStreamId;
    this.#nextStreamId = id + 2;
    const stream = new Stream(id, this.#remoteWindowBytes, this.#streamWindowBytes);
    for (let i = 0; i < fields.length && fields[i]!.charCodeAt(0) === COLON; i += 2) {
      if (fields[i] !== ":method") continue;
      stream.isHead = fields[i + 1] === "HEAD";
      stream.isConnect = fields[i + 1] === "CONNECT";
      break;
    }
    this.#streams.add(stream);
    this.#closed.opened(id);
    this.activeStreams++;
    stream.isHeadSent = true;
    this.#sendSection(stream, fields, endStream);
    return id;
  }

  /** Sends a final response, or an informational one (status 1xx, `endStream` false). Server only. */
  respond(streamId: number, fields: Fields, endStream: boolean): void {
    const stream = this.#openStream(streamId);
    if (stream === null) return;
    if (!this.#isServer) bug("only a server responds");
    if (stream.isHeadSent) bug(`stream ${streamId} was answered already`);
    if (fields[0] !== ":status") bug("a response begins with :status");
    const isInformational = fields[1]!.charCodeAt(0) === DIGIT_1;
    // RFC 9113 §8.1: an informational response never ends a stream.
    if (isInformational && endStream) bug("an informational response cannot end a stream");
    stream.isHeadSent = !isInformational;
    this.#sendSection(stream, fields, endStream);
  }

  /**
   * Sends as much of `bytes[start, stop)` as windows and the output bound allow, and gives how much that was; the
   * bytes are copied. When it is less than all, WRITABLE will come for this stream. `endStream` takes effect only when
   * all was accepted. For a stream that is over, everything counts as accepted.
   */
  sendData(streamId: number, bytes: Uint8Array, start: number, stop: number, endStream: boolean): number {
    const stream = this.#openStream(streamId);
    const wanted = stop - start;
    if (stream === null) return wanted;
    if (nextState(stream.state, Input.SEND_DATA) === ILLEGAL) bug(`stream ${streamId} was ended already`);
    if (!stream.isHeadSent) bug(`DATA before the header section of stream ${streamId}`);
    let room = this.#settings.outputBytesMax - this.#writer.pendingBytes;
    if (room > this.#sendWindowBytes) room = this.#sendWindowBytes;
    if (room > stream.sendWindowBytes) room = stream.sendWindowBytes;
    const accepted = wanted <= room || wanted === 0 ? wanted : room > 0 ? room : 0;
    const isEnd = endStream && accepted === wanted;
    if (accepted > 0) this.#writer.data(streamId, bytes, start, start + accepted, isEnd);
    else if (isEnd) this.#writer.end(streamId);
    this.#sendWindowBytes -= accepted;
    stream.sendWindowBytes -= accepted;
    if (accepted > 0) this.#flood.earn(Flood.WINDOW_UPDATE, WINDOW_UPDATES_PER_DATA);
    if (isEnd) this.#sendEnd(stream);
    else if (accepted < wanted) this.#wait(stream);
    return accepted;
  }

  /**
   * Writes the head of one DATA frame for as many of `wantedBytes` as windows and its size allow, and gives how many that is. The owner
   * sends that payload itself, right behind what `takeOutput` gives then. When it is less than all, WRITABLE will come; 0 also for a
   * stream that is over.
   */
  announceData(streamId: number, wantedBytes: number): number {
    const stream = this.#openStream(streamId);
    if (stream === null) return 0;
    if (nextState(stream.state, Input.SEND_DATA) === ILLEGAL) bug(`stream ${streamId} was ended already`);
    if (!stream.isHeadSent) bug(`DATA before the header section of stream ${streamId}`);
    const windowBytes = Math.min(this.#sendWindowBytes, stream.sendWindowBytes);
    const accepted = Math.max(0, Math.min(wantedBytes, windowBytes, this.#writer.frameBytesMax));
    if (accepted > 0) {
      this.#writer.dataHead(streamId, accepted);
      this.#sendWindowBytes -= accepted;
      stream.sendWindowBytes -= accepted;
      this.#flood.earn(Flood.WINDOW_UPDATE, WINDOW_UPDATES_PER_DATA);
    }
    if (accepted < wantedBytes) this.#wait(stream);
    return accepted;
  }

  /** Sends the trailer section, which ends our half. */
  sendTrailers(streamId: number, fields: Fields): void {
    const stream = this.#openStream(streamId);
    if (stream === null) return;
    if (!stream.isHeadSent) bug(`trailers before the header section of stream ${streamId}`);
    this.#sendSection(stream, fields, true);
  }

  /** Ends a stream at once. What was received and not consumed counts as consumed. Idempotent. */
  reset(streamId: number, errorCode: number): void {
    const stream = this.#streams.get(streamId);
    if (stream === null) return;
    if (stream.state === State.CLOSED) {
      this.#release(stream);
      return;
    }
    this.#writer.reset(streamId, errorCode);
    this.#close(stream, Ended.RESET_BY_US);
  }

  /** The application is done with `bytes` of DATA received on this stream: the remote may send as much again. */
  consumed(streamId: number, bytes: number): void {
    const stream = this.#streams.get(streamId);
    if (stream === null) return;
    if (bytes > stream.heldBytes) bug(`stream ${streamId}: ${bytes} bytes consumed of ${stream.heldBytes}`);
    stream.heldBytes -= bytes;
    this.#credit(bytes);
    if (stream.state === State.OPEN || stream.state === State.HALF_CLOSED_LOCAL)
      this.#creditStream(stream, bytes);
    else if (stream.state === State.CLOSED && stream.heldBytes === 0) this.#streams.delete(streamId);
  }

  /**
   * Announces the end. With NO_ERROR from a server this is the graceful first step (RFC 9113 §6.8): streams are still
   * accepted until `goAwayFinal()`. Anything else is final at once.
   */
  goAway(errorCode: number, debug = ""): void {
    if (this.#isOver) return;
    const isGraceful = errorCode === ErrorCode.NO_ERROR && this.#isServer && this.#goAwayLastId < 0;
    const lastId = isGraceful ? STREAM_ID_MOST : this.#highestRemoteId;
    this.#goAwayLastId = lastId;
    this.#writer.goAway(lastId, errorCode, debug);
  }

  /** The second step of a graceful end: streams above the last one accepted are ignored from here on. */
  goAwayFinal(): void {
    if (this.#isOver || this.#goAwayLastId === this.#highestRemoteId) return;
    this.#goAwayLastId = this.#highestRemoteId;
    this.#writer.goAway(this.#highestRemoteId, ErrorCode.NO_ERROR, "");
  }

  /** Ends the connection because the remote is too slow: ERROR follows. */
  giveUp(message: string): void {
    if (!this.#isOver) this.#fail(ErrorCode.ENHANCE_YOUR_CALM, message);
  }

  /** Answers to `ping` that have not come yet. */
  get pingsUnderWay(): number {
    return this.#pingsUnderWay;
  }

  /** Sends a PING; PING_ACK follows. */
  ping(nowMs: number): void {
    if (this.#isOver) return;
    this.#nowMs = Math.max(this.#nowMs, nowMs);
    this.#pingCount = (this.#pingCount + 1) >>> 0;
    this.#pingsUnderWay++;
    this.#writer.ping(PING_MARK, this.#pingCount);
  }

  // === Frames

  #onFrame(): number {
    this.#frames++;
    const reader = this.#reader;
    const type = reader.type;
    // RFC 9113 §6.10: nothing may stand between the frames of a header block.
    if (this.#blockStreamId !== 0 && type !== Frame.CONTINUATION) {
      return this.#fail(ErrorCode.PROTOCOL_ERROR, "header block interrupted by another frame");
    }
    // RFC 9113 §3.4: the preface is followed by SETTINGS.
    if (!this.settled && (type !== Frame.SETTINGS || (reader.flags & Flag.ACK) !== 0)) {
      return this.#fail(ErrorCode.PROTOCOL_ERROR, "first frame is not SETTINGS");
    }
    switch (type) {
      case Frame.HEADERS:
        return this.#onHeaders();
      case Frame.CONTINUATION:
        return this.#onContinuation();
      case Frame.WINDOW_UPDATE:
        return this.#onWindowUpdate();
      case Frame.RST_STREAM:
        return this.#onReset();
      case Frame.SETTINGS:
        return this.#onSettings();
      case Frame.PING:
        return this.#onPing();
      case Frame.GOAWAY:
        return this.#onGoAway();
      case Frame.PRIORITY:
        return this.#onPriority();
      case Frame.PRIORITY_UPDATE:
        return this.#onPriorityUpdate();
      case Frame.PUSH_PROMISE:
        // RFC 9113 §8.4: a client cannot push, and to a client we said SETTINGS_ENABLE_PUSH = 0.
        return this.#fail(ErrorCode.PROTOCOL_ERROR, "PUSH_PROMISE, which we do not allow");
      default:
        // RFC 9113 §4.1: unknown types are ignored.
        return this.#spend(Flood.UNKNOWN, "frames of unknown types");
    }
  }

  #onDataHead(): number {
    const reader = this.#reader;
    const { streamId, length } = reader;
    if (this.#blockStreamId !== 0) {
      return this.#fail(ErrorCode.PROTOCOL_ERROR, "header block interrupted by another frame");
    }
    if (!this.settled) return this.#fail(ErrorCode.PROTOCOL_ERROR, "first frame is not SETTINGS");
    // RFC 9113 §6.1.
    if (streamId === 0) return this.#fail(ErrorCode.PROTOCOL_ERROR, "DATA on stream 0");
    // RFC 9113 §6.9: padding counts too, and so does DATA for streams that are over.
    this.#recvWindow.leftBytes -= length;
    if (this.#recvWindow.leftBytes < 0) {
      return this.#fail(ErrorCode.FLOW_CONTROL_ERROR, "DATA beyond the connection's window");
    }
    this.#dataRestBytes = length;
    this.#dataStream = null;
    const stream = this.#openStream(streamId);
    if (stream === null) {
      const how = this.#howEnded(streamId);
      if (how === Ended.NEVER) return this.#fail(ErrorCode.PROTOCOL_ERROR, `DATA on idle stream ${streamId}`);
      if (how === Ended.RESET_BY_US) return Event.NOTHING;
      // RFC 9113 §5.1: the remote ended this stream itself.
      return this.#resetUnknown(streamId, ErrorCode.STREAM_CLOSED, "DATA on closed streams");
    }
    if (nextState(stream.state, Input.RECV_DATA) === ILLEGAL) {
      return this.#streamError(stream, ErrorCode.STREAM_CLOSED, "DATA after END_STREAM");
    }
    // RFC 9113 §8.1: DATA follows a header section.
    if (!stream.isHeadReceived) {
      return this.#streamError(stream, ErrorCode.PROTOCOL_ERROR, "DATA before a header section");
    }
    stream.leftBytes -= length;
    if (stream.leftBytes < 0) {
      return this.#streamError(stream, ErrorCode.FLOW_CONTROL_ERROR, "DATA beyond the stream's window");
    }
    this.#tune(stream, length);
    this.#dataStream = stream;
    return Event.NOTHING;
  }

  #onData(): number {
    const reader = this.#reader;
    const length = reader.stop - reader.start;
    const stream = this.#dataStream;
    this.#dataRestBytes -= length;
    const isEnd = reader.isLast && (reader.flags & Flag.END_STREAM) !== 0;
    if (stream === null || stream.state === State.CLOSED) {
      this.#credit(reader.isLast ? length + this.#dataRestBytes : length);
      return Event.NOTHING;
    }
    // Padding is consumed by us.
    if (reader.isLast && this.#dataRestBytes > 0) {
      this.#credit(this.#dataRestBytes);
      if (!isEnd) this.#creditStream(stream, this.#dataRestBytes);
    }
    if (stream.promisedBytes >= 0) {
      // RFC 9113 §8.1.1: DATA adds up to content-length, no more and no less. Judged by the whole frame, so that the
      // outcome does not depend on how its bytes arrive.
      const after = stream.promisedBytes - length - reader.restBytes;
      if (after < 0 || (after > 0 && (reader.flags & Flag.END_STREAM) !== 0)) {
        this.#credit(length);
        return this.#streamError(stream, ErrorCode.PROTOCOL_ERROR, "body does not match content-length");
      }
      stream.promisedBytes -= length;
    }
    if (length === 0 && !isEnd) {
      return reader.isLast ? this.#spend(Flood.EMPTY_DATA, "empty DATA frames") : Event.NOTHING;
    }
    if (length > 0) {
      this.#flood.earn(Flood.PING, 1);
      this.#flood.earn(Flood.EMPTY_DATA, 1);
    }
    stream.heldBytes += length;
    this.streamId = stream.id;
    this.bytes = reader.bytes;
    this.start = reader.start;
    this.stop = reader.stop;
    this.endStream = isEnd;
    if (isEnd) this.#recvEnd(stream);
    return Event.DATA;
  }

  #onHeaders(): number {
    const reader = this.#reader;
    const { streamId, flags, bytes } = reader;
    let start = reader.start;
    let stop = reader.stop;
    // RFC 9113 §6.2.
    if (streamId === 0) return this.#fail(ErrorCode.PROTOCOL_ERROR, "HEADERS on stream 0");
    if ((flags & Flag.PADDED) !== 0) {
      if (start === stop) return this.#fail(ErrorCode.FRAME_SIZE_ERROR, "padded HEADERS of 0 bytes");
      stop -= bytes[start++]!;
    }
    // RFC 9113 §5.3.2: priority is deprecated; skip it.
    if ((flags & Flag.PRIORITY) !== 0) start += 5;
    if (start > stop)
      return this.#fail(ErrorCode.PROTOCOL_ERROR, "HEADERS shorter than its padding and priority");
    const endStream = (flags & Flag.END_STREAM) !== 0;
    if ((flags & Flag.END_HEADERS) !== 0) return this.#onBlock(streamId, bytes, start, stop, endStream);
    this.#blockStreamId = streamId;
    this.#blockEndStream = endStream;
    this.#blockFrames = 0;
    this.#blockBytes = 0;
    this.#blocks++;
    return this.#collect(bytes, start, stop);
  }

  #onContinuation(): number {
    const reader = this.#reader;
    // RFC 9113 §6.10: only after HEADERS without END_HEADERS, on the same stream.
    if (this.#blockStreamId === 0 || reader.streamId !== this.#blockStreamId) {
      return this.#fail(ErrorCode.PROTOCOL_ERROR, "CONTINUATION without its HEADERS");
    }
    if (++this.#blockFrames > this.#settings.continuationFramesMax) {
      return this.#calm("continuations", "too many CONTINUATION frames");
    }
    const event = this.#collect(reader.bytes, reader.start, reader.stop);
    if (event !== Event.NOTHING || (reader.flags & Flag.END_HEADERS) === 0) return event;
    const streamId = this.#blockStreamId;
    this.#blockStreamId = 0;
    const block = this.#block;
    this.#block = EMPTY;
    return this.#onBlock(streamId, block, 0, this.#blockBytes, this.#blockEndStream);
  }

  #collect(bytes: Buffer, start: number, stop: number): number {
    const sum = this.#blockBytes + stop - start;
    if (sum > this.#settings.headerBlockBytesMax) {
      return this.#calm("header_bytes", "header block too large");
    }
    if (this.#block.length < sum) {
      const block = Buffer.allocUnsafeSlow(2 * sum);
      this.#block.copy(block, 0, 0, this.#blockBytes);
      this.#block = block;
    }
    bytes.copy(this.#block, this.#blockBytes, start, stop);
    this.#blockBytes = sum;
    return Event.NOTHING;
  }

  /** A whole header block. Decoded whatever becomes of it, because the table must stay in step (RFC 9113 §4.3). */
  #onBlock(streamId: number, bytes: Buffer, start: number, stop: number, endStream: boolean): number {
    const result = this.#decoder.decode(bytes, start, stop);
    if (result === Decoded.BROKEN)
      return this.#fail(ErrorCode.COMPRESSION_ERROR, "header block cannot be decoded");
    const stream = this.#openStream(streamId);
    if (stream === null) {
      if (this.#isServer && (streamId & 1) === 1 && streamId > this.#highestRemoteId) {
        return this.#onRequest(streamId, result, endStream);
      }
      return this.#onBlockWithoutStream(streamId);
    }
    if (nextState(stream.state, Input.RECV_HEADERS) === ILLEGAL) {
      return this.#streamError(stream, ErrorCode.STREAM_CLOSED, "HEADERS after END_STREAM");
    }
    if (result === Decoded.TOO_LARGE) {
      if (stream.isHeadReceived) this.trailersRefused++;
      return this.#streamError(stream, ErrorCode.ENHANCE_YOUR_CALM, HEADERS_TOO_LARGE);
    }
    return stream.isHeadReceived ? this.#onTrailers(stream, endStream) : this.#onResponse(stream, endStream);
  }

  #onBlockWithoutStream(streamId: number): number {
    const how = this.#howEnded(streamId);
    // RFC 9113 §5.1.1: an id that was skipped, never opened or is not the remote's to open.
    if (how === Ended.NEVER)
      return this.#fail(ErrorCode.PROTOCOL_ERROR, `HEADERS on idle stream ${streamId}`);
    // RFC 9113 §5.1: frames may be under way when we reset a stream.
    if (how === Ended.RESET_BY_US) return Event.NOTHING;
    return this.#fail(ErrorCode.STREAM_CLOSED, `HEADERS on closed stream ${streamId}`);
  }

  #onRequest(streamId: number, result: number, endStream: boolean): number {
    this.#highestRemoteId = streamId;
    this.#closed.opened(streamId);
    // RFC 9113 §6.8: after our last GOAWAY, new streams are ignored.
    if (this.#goAwayLastId >= 0 && streamId > this.#goAwayLastId) {
      this.#highestRemoteId = this.#goAwayLastId;
      this.#highestIgnoredId = Math.max(this.#highestIgnoredId, streamId);
      this.#closed.ended(streamId, Ended.RESET_BY_US);
      return this.#spend(Flood.UNKNOWN, "streams after GOAWAY");
    }
    // RFC 9113 §5.1.2: over the limit, the stream is refused, which is safe to retry.
    if (this.activeStreams >= this.#settings.maxConcurrentStreams) {
      this.#closed.ended(streamId, Ended.RESET_BY_US);
      this.streamsRefused++;
      return this.#resetUnknown(streamId, ErrorCode.REFUSED_STREAM, "streams over the limit");
    }
    if (result === Decoded.TOO_LARGE) {
      this.#closed.ended(streamId, Ended.RESET_BY_US);
      this.headersRefused++;
      return this.#answerTooLarge(streamId, endStream);
    }
    const wrong = this.#check(Section.REQUEST);
    const rules = this.#rules;
    // RFC 9113 §8.1.1: a malformed request is a stream error PROTOCOL_ERROR.
    if (wrong !== null || (endStream && rules.contentLength > 0)) {
      this.#closed.ended(streamId, Ended.RESET_BY_US);
      return this.#resetUnknown(streamId, ErrorCode.PROTOCOL_ERROR, "malformed requests");
    }
    const stream = new Stream(streamId, this.#remoteWindowBytes, this.#streamWindowBytes);
    stream.state = State.OPEN;
    stream.isHeadReceived = true;
    stream.isHead = rules.isHead;
    stream.isConnect = rules.isConnect;
    stream.promisedBytes = rules.contentLength;
    this.#streams.add(stream);
    this.activeStreams++;
    if (endStream) this.#recvEnd(stream);
    return this.#section(Event.HEADERS, streamId, endStream);
  }

  #onResponse(stream: Stream, endStream: boolean): number {
    const wrong = this.#check(Section.RESPONSE);
    const rules = this.#rules;
    if (wrong !== null) return this.#streamError(stream, ErrorCode.PROTOCOL_ERROR, wrong);
    const status = rules.status;
    if (status < 200) {
      // RFC 9113 §8.1, §8.6: 1xx does not end a stream, and 101 does not exist.
      if (endStream || status === 101) {
        return this.#streamError(
          stream,
          ErrorCode.PROTOCOL_ERROR,
          "informational response with END_STREAM, or 101",
        );
      }
      return this.#section(Event.INFORMATIONAL, stream.id, false);
    }
    stream.isHeadReceived = true;
    // RFC 9110 §6.4.1: answers to HEAD, 204 and 304 have no content, whatever content-length says.
    if (stream.isHead || status === 204 || status === 304) stream.promisedBytes = 0;
    else if (!stream.isConnect) stream.promisedBytes = rules.contentLength;
    if (endStream && stream.promisedBytes > 0) {
      return this.#streamError(stream, ErrorCode.PROTOCOL_ERROR, "body does not match content-length");
    }
    const id = stream.id;
    if (endStream) this.#recvEnd(stream);
    return this.#section(Event.HEADERS, id, endStream);
  }

  #onTrailers(stream: Stream, endStream: boolean): number {
    // RFC 9113 §8.1: a second header section is the trailers, and ends the stream.
    if (!endStream) return this.#streamError(stream, ErrorCode.PROTOCOL_ERROR, "trailers without END_STREAM");
    const wrong = this.#check(Section.TRAILERS);
    if (wrong !== null) return this.#streamError(stream, ErrorCode.PROTOCOL_ERROR, wrong);
    if (stream.promisedBytes > 0) {
      return this.#streamError(stream, ErrorCode.PROTOCOL_ERROR, "body does not match content-length");
    }
    const id = stream.id;
    this.#recvEnd(stream);
    return this.#section(Event.TRAILERS, id, true);
  }

  /** Checks the section just decoded, unless that was done when the same block came before. */
  #check(section: number): string | null {
    const { place, isRepeat, fields, kinds } = this.#decoder;
    const rules = place < 0 ? this.#rulesOfOthers : (this.#rulesByPlace[place] ??= new MessageRules());
    this.#rules = rules;
    return isRepeat && rules.section === section ? rules.wrong : rules.check(section, fields, kinds);
  }

  #section(event: number, streamId: number, endStream: boolean): number {
    this.streamId = streamId;
    this.fields = this.#decoder.fields;
    this.place = this.#decoder.place;
    this.endStream = endStream;
    this.status = this.#rules.status;
    this.contentLength = this.#rules.contentLength;
    return event;
  }

  #onWindowUpdate(): number {
    const reader = this.#reader;
    // RFC 9113 §6.9.
    if (reader.length !== 4) return this.#fail(ErrorCode.FRAME_SIZE_ERROR, "WINDOW_UPDATE is not 4 bytes");
    const increment = readUint31(reader.bytes, reader.start);
    const { streamId } = reader;
    if (streamId === 0) {
      if (increment === 0) return this.#fail(ErrorCode.PROTOCOL_ERROR, "WINDOW_UPDATE of 0");
      this.#sendWindowBytes += increment;
      // RFC 9113 §6.9.1.
      if (this.#sendWindowBytes > WINDOW_BYTES_MOST) {
        return this.#fail(ErrorCode.FLOW_CONTROL_ERROR, "connection's window above 2^31 - 1");
      }
      return this.#spend(Flood.WINDOW_UPDATE, "WINDOW_UPDATE frames");
    }
    const stream = this.#openStream(streamId);
    if (stream === null) {
      const how = this.#howEnded(streamId);
      if (how === Ended.NEVER) {
        return this.#fail(ErrorCode.PROTOCOL_ERROR, `WINDOW_UPDATE on idle stream ${streamId}`);
      }
      if (how === Ended.RESET_BY_US) return Event.NOTHING;
      return this.#spend(Flood.WINDOW_UPDATE, "WINDOW_UPDATE frames");
    }
    if (increment === 0) return this.#streamError(stream, ErrorCode.PROTOCOL_ERROR, "WINDOW_UPDATE of 0");
    stream.sendWindowBytes += increment;
    if (stream.sendWindowBytes > WINDOW_BYTES_MOST) {
      return this.#streamError(stream, ErrorCode.FLOW_CONTROL_ERROR, "stream's window above 2^31 - 1");
    }
    if (stream.waits === Waits.FOR_WINDOW && stream.sendWindowBytes > 0) this.#enqueue(stream);
    return this.#spend(Flood.WINDOW_UPDATE, "WINDOW_UPDATE frames");
  }

  #onReset(): number {
    const reader = this.#reader;
    const { streamId } = reader;
    // RFC 9113 §6.4.
    if (reader.length !== 4) return this.#fail(ErrorCode.FRAME_SIZE_ERROR, "RST_STREAM is not 4 bytes");
    if (streamId === 0) return this.#fail(ErrorCode.PROTOCOL_ERROR, "RST_STREAM on stream 0");
    const stream = this.#openStream(streamId);
    if (stream === null) {
      const how = this.#howEnded(streamId);
      if (how === Ended.NEVER) {
        return this.#fail(ErrorCode.PROTOCOL_ERROR, `RST_STREAM on idle stream ${streamId}`);
      }
      // An answer to our own reset, or crossing it, is as it should be.
      if (how === Ended.RESET_BY_US) return Event.NOTHING;
      return this.#spend(Flood.UNKNOWN, "frames for streams that are over");
    }
    // A client may drop the rest of its request once it has the whole response: that wastes no work of ours.
    const isWaste = this.#isServer && stream.state !== State.HALF_CLOSED_LOCAL;
    const flooded = isWaste ? this.#spend(Flood.RESET, "resets") : Event.NOTHING;
    if (flooded !== Event.NOTHING) return flooded;
    this.errorCode = readUint32(reader.bytes, reader.start);
    this.streamId = streamId;
    this.byUs = false;
    this.reason = "";
    this.#close(stream, Ended.RESET_BY_REMOTE);
    return Event.RESET;
  }

  #onSettings(): number {
    const reader = this.#reader;
    const { length, bytes } = reader;
    // RFC 9113 §6.5.
    if (reader.streamId !== 0) return this.#fail(ErrorCode.PROTOCOL_ERROR, "SETTINGS on a stream");
    if ((reader.flags & Flag.ACK) !== 0) {
      if (length !== 0) return this.#fail(ErrorCode.FRAME_SIZE_ERROR, "SETTINGS ACK with a payload");
      return this.#onSettingsAck();
    }
    if (length % 6 !== 0)
      return this.#fail(ErrorCode.FRAME_SIZE_ERROR, "SETTINGS is not a multiple of 6 bytes");
    if (length / 6 > this.#settings.settingsEntriesMax) {
      return this.#calm("settings", "too many entries in SETTINGS");
    }
    const flooded = this.#spend(Flood.SETTINGS, "SETTINGS frames");
    if (flooded !== Event.NOTHING) return flooded;
    for (let at = reader.start; at < reader.stop; at += 6) {
      const event = this.#onSetting((bytes[at]! << 8) | bytes[at + 1]!, readUint32(bytes, at + 2));
      if (event !== Event.NOTHING) return event;
    }
    this.settled = true;
    this.#remoteStreamsMax = this.#announcedStreamsMax;
    const full = this.#refuseUnread();
    if (full !== Event.NOTHING) return full;
    this.#writer.settingsAck();
    return Event.SETTINGS;
  }

  /** RFC 9113 §6.5.2: unlimited until the remote says otherwise. */
  #announcedStreamsMax = Infinity;

  #onSetting(id: number, value: number): number {
    switch (id) {
      case Setting.SETTINGS_HEADER_TABLE_SIZE:
        this.#writer.encoder.setLimit(value);
        return Event.NOTHING;
      case Setting.SETTINGS_ENABLE_PUSH:
        // RFC 9113 §6.5.2: 0 or 1, and 0 only from a server.
        if (value > 1 || (value === 1 && !this.#isServer)) {
          return this.#fail(ErrorCode.PROTOCOL_ERROR, `SETTINGS_ENABLE_PUSH = ${value}`);
        }
        return Event.NOTHING;
      case Setting.SETTINGS_MAX_CONCURRENT_STREAMS:
        this.#announcedStreamsMax = value;
        return Event.NOTHING;
      case Setting.SETTINGS_INITIAL_WINDOW_SIZE: {
        if (value > WINDOW_BYTES_MOST) {
          return this.#fail(ErrorCode.FLOW_CONTROL_ERROR, `SETTINGS_INITIAL_WINDOW_SIZE = ${value}`);
        }
        const change = value - this.#remoteWindowBytes;
        this.#remoteWindowBytes = value;
        return this.#changeSendWindows(change);
      }
      case Setting.SETTINGS_MAX_FRAME_SIZE:
        if (value < FRAME_BYTES_DEFAULT || value > FRAME_BYTES_MOST) {
          return this.#fail(ErrorCode.PROTOCOL_ERROR, `SETTINGS_MAX_FRAME_SIZE = ${value}`);
        }
        this.#writer.frameBytesMax = Math.min(value, this.#settings.sendFrameBytesMost);
        return Event.NOTHING;
      case Setting.SETTINGS_ENABLE_CONNECT_PROTOCOL:
        // RFC 8441 §3: 0 or 1.
        if (value > 1)
          return this.#fail(ErrorCode.PROTOCOL_ERROR, `SETTINGS_ENABLE_CONNECT_PROTOCOL = ${value}`);
        this.remoteConnectProtocol = value === 1;
        return Event.NOTHING;
      default:
        // RFC 9113 §6.5.2: unknown settings are ignored. SETTINGS_MAX_HEADER_LIST_SIZE is advice.
        return Event.NOTHING;
    }
  }

  /** RFC 9113 §6.9.2: a new initial window changes every stream's window by the difference. */
  #changeSendWindows(change: number): number {
    for (const stream of this.#streams.all()) {
      stream.sendWindowBytes += change;
      if (stream.sendWindowBytes > WINDOW_BYTES_MOST) {
        return this.#fail(ErrorCode.FLOW_CONTROL_ERROR, "stream's window above 2^31 - 1");
      }
      if (stream.waits === Waits.FOR_WINDOW && stream.sendWindowBytes > 0) this.#enqueue(stream);
    }
    return Event.NOTHING;
  }

  #onSettingsAck(): number {
    if (this.#isSettingsAcked) return this.#spend(Flood.SETTINGS, "SETTINGS frames");
    this.#isSettingsAcked = true;
    if (this.#nowMs >= 0) this.#tuner.measured(this.#nowMs - this.#openedAtMs);
    const change = this.#settings.streamWindowBytes - this.#streamWindowBytes;
    this.#streamWindowBytes = this.#settings.streamWindowBytes;
    for (const stream of this.#streams.all()) {
      stream.windowBytes += change;
      stream.leftBytes += change;
    }
    this.#decoder.setLimit(this.#settings.hpackTableBytes);
    return Event.NOTHING;
  }

  #onPing(): number {
    const reader = this.#reader;
    // RFC 9113 §6.7.
    if (reader.streamId !== 0) return this.#fail(ErrorCode.PROTOCOL_ERROR, "PING on a stream");
    if (reader.length !== 8) return this.#fail(ErrorCode.FRAME_SIZE_ERROR, "PING is not 8 bytes");
    if ((reader.flags & Flag.ACK) !== 0) {
      if (this.#tuner.isAsking && readUint32(reader.bytes, reader.start) === RTT_MARK) {
        this.#tuner.answered(this.#nowMs);
        return Event.NOTHING;
      }
      if (this.#pingsUnderWay === 0 || readUint32(reader.bytes, reader.start) !== PING_MARK) {
        return this.#spend(Flood.PING, "PING frames");
      }
      this.#pingsUnderWay--;
      return Event.PING_ACK;
    }
    const flooded = this.#spend(Flood.PING, "PING frames");
    if (flooded !== Event.NOTHING) return flooded;
    const full = this.#refuseUnread();
    if (full !== Event.NOTHING) return full;
    this.#writer.pingAck(reader.bytes, reader.start);
    return Event.NOTHING;
  }

  #onGoAway(): number {
    const reader = this.#reader;
    // RFC 9113 §6.8.
    if (reader.streamId !== 0) return this.#fail(ErrorCode.PROTOCOL_ERROR, "GOAWAY on a stream");
    if (reader.length < 8) return this.#fail(ErrorCode.FRAME_SIZE_ERROR, "GOAWAY is shorter than 8 bytes");
    const flooded = this.remoteGoAway ? this.#spend(Flood.SETTINGS, "GOAWAY frames") : Event.NOTHING;
    if (flooded !== Event.NOTHING) return flooded;
    this.remoteGoAway = true;
    this.lastStreamId = readUint31(reader.bytes, reader.start);
    this.errorCode = readUint32(reader.bytes, reader.start + 4);
    if (!this.#isServer) {
      // RFC 9113 §6.8: streams above the last one were not and will not be processed: safe to retry.
      for (const stream of this.#streams.all()) {
        if (stream.id > this.lastStreamId && stream.state !== State.CLOSED) this.#refused.push(stream.id);
      }
    }
    return Event.GOAWAY;
  }

  #nextRefused(): number {
    for (let id = this.#refused.shift(); id !== undefined; id = this.#refused.shift()) {
      const stream = this.#openStream(id);
      if (stream === null) continue;
      this.#close(stream, Ended.RESET_BY_US);
      this.streamId = id;
      this.errorCode = ErrorCode.REFUSED_STREAM;
      this.byUs = false;
      this.reason = "";
      return Event.RESET;
    }
    return this.next();
  }

  #onPriority(): number {
    const reader = this.#reader;
    // RFC 9113 §6.3: the signal is ignored, its form is not.
    if (reader.streamId === 0) return this.#fail(ErrorCode.PROTOCOL_ERROR, "PRIORITY on stream 0");
    if (reader.length !== 5) {
      const stream = this.#openStream(reader.streamId);
      if (stream !== null)
        return this.#streamError(stream, ErrorCode.FRAME_SIZE_ERROR, "PRIORITY is not 5 bytes");
      return this.#fail(ErrorCode.FRAME_SIZE_ERROR, "PRIORITY is not 5 bytes");
    }
    return this.#spend(Flood.PRIORITY, "PRIORITY frames");
  }

  #onPriorityUpdate(): number {
    const reader = this.#reader;
    // RFC 9218 §7.1: what it says is a wish that we leave to the field "priority", which is passed on; its form is checked.
    if (!this.#isServer) return this.#fail(ErrorCode.PROTOCOL_ERROR, "PRIORITY_UPDATE from a server");
    if (reader.streamId !== 0) return this.#fail(ErrorCode.PROTOCOL_ERROR, "PRIORITY_UPDATE on a stream");
    if (reader.length < 4)
      return this.#fail(ErrorCode.FRAME_SIZE_ERROR, "PRIORITY_UPDATE is shorter than 4 bytes");
    if (readUint31(reader.bytes, reader.start) === 0)
      return this.#fail(ErrorCode.PROTOCOL_ERROR, "PRIORITY_UPDATE of stream 0");
    return this.#spend(Flood.PRIORITY, "PRIORITY frames");
  }

  // === Streams

  /** The stream when it is open or half-closed and the connection is not over, else null. */
  #openStream(streamId: number): Stream | null {
    const stream = this.#streams.get(streamId);
    return stream === null || stream.state === State.CLOSED || this.#isOver ? null : stream;
  }

  /** How a stream that is not open ended; NEVER for idle, skipped and server-initiated ones. */
  #howEnded(streamId: number): number {
    const highest = this.#isServer ? this.#highestRemoteId : this.#nextStreamId - 2;
    if ((streamId & 1) === 0) return Ended.NEVER;
    if (streamId > highest && streamId > this.#highestIgnoredId) return Ended.NEVER;
    return this.#closed.how(streamId);
  }

  #recvEnd(stream: Stream): void {
    stream.state = nextState(stream.state, Input.RECV_END);
    if (stream.state === State.CLOSED) this.#close(stream, Ended.NORMALLY);
  }

  #sendEnd(stream: Stream): void {
    stream.state = nextState(stream.state, Input.SEND_END);
    if (stream.state === State.CLOSED) this.#close(stream, Ended.NORMALLY);
  }

  /** The stream counts no longer. It is kept while the application holds DATA of it, so that back-pressure stays. */
  #close(stream: Stream, how: number): void {
    stream.state = State.CLOSED;
    stream.waits = Waits.NOT;
    this.activeStreams--;
    this.#closed.ended(stream.id, how);
    if (how !== Ended.NORMALLY) {
      this.#release(stream);
      return;
    }
    if (stream.heldBytes === 0) this.#streams.delete(stream.id);
    this.#flood.earn(Flood.RESET, 1);
    this.#flood.earn(Flood.UNKNOWN, 1);
    this.#flood.earn(Flood.WINDOW_UPDATE, WINDOW_UPDATES_PER_DATA);
  }

  #release(stream: Stream): void {
    this.#credit(stream.heldBytes);
    stream.heldBytes = 0;
    this.#streams.delete(stream.id);
  }

  /** The remote broke a rule on one stream (RFC 9113 §5.4.2). */
  #streamError(stream: Stream, errorCode: number, reason: string): number {
    const flooded = this.#isServer ? this.#spend(Flood.RESET, "stream errors") : Event.NOTHING;
    if (flooded !== Event.NOTHING) return flooded;
    this.#writer.reset(stream.id, errorCode);
    this.#close(stream, Ended.RESET_BY_US);
    this.streamId = stream.id;
    this.errorCode = errorCode;
    this.byUs = true;
    this.reason = reason;
    return Event.RESET;
  }

  /** The same for a stream that the application does not know. */
  #resetUnknown(streamId: number, errorCode: number, what: string): number {
    const flooded = this.#spend(this.#isServer ? Flood.RESET : Flood.UNKNOWN, what);
    if (flooded !== Event.NOTHING) return flooded;
    const full = this.#refuseUnread();
    if (full === Event.NOTHING) this.#writer.reset(streamId, errorCode);
    return full;
  }

  /** RFC 6585 §5: a request whose header list is too large gets an answer, then the end (RFC 9113 §8.1). */
  #answerTooLarge(streamId: number, endStream: boolean): number {
    const flooded = this.#spend(Flood.RESET, "header lists too large");
    if (flooded !== Event.NOTHING) return flooded;
    const full = this.#refuseUnread();
    if (full !== Event.NOTHING) return full;
    const fields = [":status", "431", "content-length", "0", ...this.#settings.tooLargeFields()];
    this.#writer.section(streamId, fields, true);
    if (!endStream) this.#writer.reset(streamId, ErrorCode.NO_ERROR);
    return Event.NOTHING;
  }

  // === Flow control

  /** DATA came: the stream's window grows where it holds the sender up. */
  #tune(stream: Stream, bytes: number): void {
    // Without a clock, as in transcripts that never wake us, nothing can be measured.
    if (bytes === 0 || !this.#isSettingsAcked || this.#nowMs < 0) return;
    if ((this.#reader.flags & Flag.END_STREAM) !== 0) return;
    const tuner = this.#tuner;
    const nowMs = this.#nowMs;
    // One stream whose reader stops must leave the others room in the connection's window.
    const mostBytes = Math.min(this.#settings.streamWindowBytesMost, this.#recvWindow.windowBytes >> 1);
    const moreBytes = tuner.received(stream, bytes, mostBytes, nowMs);
    if (moreBytes > 0 && this.#mayGrow(moreBytes)) {
      stream.windowBytes += moreBytes;
      this.#update(stream, stream.id, moreBytes);
    }
    if (tuner.hasEpochEnded && stream.windowBytes < mostBytes && tuner.wantsPing(nowMs)) {
      tuner.asked(nowMs);
      this.#writer.ping(RTT_MARK, 0);
    }
  }

  /** Whether windows may grow by so much more, all together. */
  #mayGrow(moreBytes: number): boolean {
    const { windowGrowthBytesMost } = this.#settings;
    if (windowGrowthBytesMost === Infinity) return true;
    let grownBytes = moreBytes;
    for (const { windowBytes } of this.#streams.all()) grownBytes += windowBytes - this.#streamWindowBytes;
    return grownBytes <= windowGrowthBytesMost;
  }

  /**
   * Received bytes that are consumed, for the connection; given back when they are as many as are left: half the window, or of
   * what streams that nobody reads leave of it.
   */
  #credit(bytes: number): void {
    const window = this.#recvWindow;
    window.creditBytes += bytes;
    if (window.creditBytes < window.leftBytes || window.creditBytes === 0) return;
    this.#update(window, 0, 0);
  }

  #creditStream(stream: Stream, bytes: number): void {
    stream.creditBytes += bytes;
    // The remote may apply our smaller window before we hear that it did: credit by the smaller of both.
    const windowBytes = this.#isSettingsAcked
      ? stream.windowBytes
      : Math.min(stream.windowBytes, this.#settings.streamWindowBytes);
    if (stream.creditBytes * 2 < windowBytes || stream.creditBytes === 0) return;
    this.#update(stream, stream.id, 0);
  }

  /** Gives back what was consumed, and `moreBytes` beyond it. */
  #update(window: RecvWindow, streamId: number, moreBytes: number): void {
    const bytes = window.creditBytes + moreBytes;
    this.#writer.windowUpdate(streamId, bytes);
    window.leftBytes += bytes;
    window.creditBytes = 0;
  }

  /** Some DATA of `stream` was not accepted: WRITABLE must come. */
  #wait(stream: Stream): void {
    if (stream.waits === Waits.QUEUED) return;
    if (stream.sendWindowBytes > 0) this.#enqueue(stream);
    else stream.waits = Waits.FOR_WINDOW;
  }

  #enqueue(stream: Stream): void {
    stream.waits = Waits.QUEUED;
    if (this.#queueHead > 64 && this.#queueHead * 2 > this.#queue.length) {
      this.#queue = this.#queue.slice(this.#queueHead);
      this.#queueHead = 0;
    }
    this.#queue.push(stream);
  }

  /** Finds whose turn it is to write; in the order in which they began to wait. */
  #dequeue(): boolean {
    while (this.#queueHead < this.#queue.length) {
      if (this.#sendWindowBytes <= 0 || this.#writer.pendingBytes >= this.#settings.outputBytesMax)
        return false;
      const stream = this.#queue[this.#queueHead++]!;
      if (stream.waits !== Waits.QUEUED) continue;
      if (stream.sendWindowBytes <= 0) {
        stream.waits = Waits.FOR_WINDOW;
        continue;
      }
      stream.waits = Waits.NOT;
      this.streamId = stream.id;
      return true;
    }
    this.#queue.length = 0;
    this.#queueHead = 0;
    return false;
  }

  // === Errors and limits

  /** The connection is over (RFC 9113 §5.4.1). */
  #fail(errorCode: number, message: string, code = `H2_${errorCodeName(errorCode)}`): number {
    this.#writer.goAway(this.#highestRemoteId, errorCode, message);
    this.error = new ProtocolError(code, message);
    this.#isOver = true;
    this.#isErrorDue = true;
    return Event.ERROR;
  }

  #failWith(error: ProtocolError): number {
    const isSize = error.code === "H2_FRAME_SIZE_ERROR";
    return this.#fail(isSize ? ErrorCode.FRAME_SIZE_ERROR : ErrorCode.PROTOCOL_ERROR, error.message);
  }

  #spend(kind: number, what: string): number {
    return this.#flood.spend(kind) ? Event.NOTHING : this.#calm(FLOOD_NAMES[kind]!, `too many ${what}`);
  }

  #calm(limit: Limit, message: string): number {
    this.limit = limit;
    return this.#fail(ErrorCode.ENHANCE_YOUR_CALM, message);
  }

  /** Answers that the remote provokes are bounded, for it may never read them (CVE-2019-9512, CVE-2019-9515). */
  #refuseUnread(): number {
    if (this.#writer.pendingBytes <= this.#settings.outputBytesMax + REFLEX_BYTES_MAX) return Event.NOTHING;
    return this.#calm(
      "unread_answers",
      "too many frames that want an answer, while the answers are not read",
    );
  }

  // === Opening and sections

  #writeOpening(): void {
    const settings = this.#settings;
    const entries: [number, number][] = [];
    if (settings.hpackTableBytes !== HPACK_TABLE_DEFAULT) {
      entries.push([Setting.SETTINGS_HEADER_TABLE_SIZE, settings.hpackTableBytes]);
    }
    if (!this.#isServer) entries.push([Setting.SETTINGS_ENABLE_PUSH, 0]);
    else entries.push([Setting.SETTINGS_MAX_CONCURRENT_STREAMS, settings.maxConcurrentStreams]);
    entries.push([Setting.SETTINGS_INITIAL_WINDOW_SIZE, settings.streamWindowBytes]);
    if (settings.maxFrameBytes !== FRAME_BYTES_DEFAULT) {
      entries.push([Setting.SETTINGS_MAX_FRAME_SIZE, settings.maxFrameBytes]);
    }
    entries.push([Setting.SETTINGS_MAX_HEADER_LIST_SIZE, settings.headerBytesMax]);
    if (this.#isServer && settings.connectProtocol)
      entries.push([Setting.SETTINGS_ENABLE_CONNECT_PROTOCOL, 1]);
    if (!this.#isServer) this.#writer.preface();
    this.#writer.settings(entries);
    const more = this.#recvWindow.windowBytes - WINDOW_BYTES_DEFAULT;
    if (more > 0) this.#writer.windowUpdate(0, more);
  }

  #sendSection(stream: Stream, fields: Fields, endStream: boolean): void {
    const state = nextState(stream.state, Input.SEND_HEADERS);
    if (state === ILLEGAL) bug(`stream ${stream.id} was ended already`);
    stream.state = state;
    this.#writer.section(stream.id, fields, endStream);
    if (endStream) this.#sendEnd(stream);
  }

  /** RFC 9113 §3.4: 24 fixed bytes, in any pieces. */
  #feedPreface(bytes: Uint8Array): void {
    let at = 0;
    while (at < bytes.length && this.#prefaceBytes < CLIENT_PREFACE.length) {
      if (bytes[at++] !== CLIENT_PREFACE[this.#prefaceBytes++]) {
        this.#fail(ErrorCode.PROTOCOL_ERROR, "not an HTTP/2 client preface");
        return;
      }
    }
    if (at < bytes.length) this.#reader.feed(bytes.subarray(at));
  }
}

const EMPTY: Buffer = Buffer.alloc(0);
const HPACK_TABLE_DEFAULT = 4096;
/** Before the remote's SETTINGS are known: what RFC 9113 §6.5.2 calls the least sensible limit. */
const STREAMS_BEFORE_SETTINGS = 100;
/** Honest receivers answer a DATA frame with at most a few WINDOW_UPDATE frames. */
const WINDOW_UPDATES_PER_DATA = 10;
/** Answers that the remote provoked and does not read. */
const REFLEX_BYTES_MAX = 65536;
const REFILL_EVERY_MS = 1000;
/** Who is woken so much later than asked was kept from running, and from reading. */
const OVERSLEPT_MS = 1000;
/** First half of our PING payloads. */
const PING_MARK = 0x70696c6c;
/** … of those that measure the round trip. */
const RTT_MARK = 0x70696c72;
const COLON = 0x3a;
const DIGIT_1 = 0x31;

function readUint32(bytes: Buffer, at: number): number {
  return readUint31(bytes, at) + (bytes[at]! >= 0x80 ? 0x8000_0000 : 0);
}

/** The reserved bit is ignored (RFC 9113 §4.1, §6.8, §6.9). */
function readUint31(bytes: Buffer, at: number): number {
  return ((bytes[at]! & 0x7f) << 24) | (bytes[at + 1]! << 16) | (bytes[at + 2]! << 8) | bytes[at + 3]!;
}

/** A broken promise of our own code. A function apart, so that no message is built while all is well. */
function bug(message: string): never {
  assert(false, message);
}
