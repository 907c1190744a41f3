import { createHash } from "node:crypto";
import { connect, type Socket } from "node:net";
import { ECHOES, leavesByReset, type Case, type Conversation, type Exchange, type Run } from "./case.ts";
import { hasToken, MessageReader, valueOf, type Framing, type Head } from "./message-reader.ts";
import { inPieces, requestBytes } from "./request-bytes.ts";

/** For one step of a case. Nothing here takes long, so only what hangs reaches it. */
const STEP_MS = 10_000;
/** An answer that tells of its request. A longer one is a file, and is not kept. */
const ECHO_BYTES_MAX = 64 * 1024;

export interface Place {
  readonly host: string;
  readonly port: number;
}

/** Holds one conversation with an origin, byte by byte, and says what came back. */
export async function converse(conversation: Conversation, run: Run, place: Place): Promise<Exchange[]> {
  if (conversation.isPipelined) return pipeline(conversation.cases, run, place);
  const seen: Exchange[] = [];
  let line: Line | null = null;
  for (const one of conversation.cases) {
    if (line === null || !line.isUsable) line = await Line.open(place);
    await line.exchange(one, run);
    seen.push(...line.take());
  }
  line?.close();
  return seen;
}

/** All requests at once; what a closing answer leaves unanswered is asked again on another connection. */
async function pipeline(cases: readonly Case[], run: Run, place: Place): Promise<Exchange[]> {
  const seen: Exchange[] = [];
  for (let left = cases; left.length > 0; left = cases.slice(seen.length)) {
    const line = await Line.open(place);
    await line.pipeline(left, run);
    // The first has its answer, or the want of one; so has one whose answer is to break off.
    const isOver = ({ head }: Exchange, index: number): boolean =>
      index === 0 || head !== null || left[index]?.close === "cut";
    seen.push(...line.take().filter(isOver));
    line.close();
  }
  return seen;
}

/** One connection and what was asked on it. */
class Line {
  readonly #socket: Socket;
  readonly #reader: MessageReader;
  #open: Pending[] = [];
  #done: Exchange[] = [];
  #closed: Exchange["closed"] = null;
  readonly #ended = Promise.withResolvers<null>();
  isUsable = true;

  static async open({ host, port }: Place): Promise<Line> {
    const socket = connect({ host, port, noDelay: true, allowHalfOpen: true });
    await new Promise<void>((resolve, reject) => {
      socket.once("connect", resolve).once("error", reject);
    });
    return new Line(socket);
  }

  private constructor(socket: Socket) {
    this.#socket = socket;
    this.#reader = new MessageReader({
      head: (head) => this.#head(head),
      body: (bytes) => {
        const pending = this.#open[0] as Pending;
        pending.body(bytes);
        pending.begun.resolve(null);
      },
      end: (trailers) => this.#answered(trailers),
    });
    socket.removeAllListeners("error");
    socket.on("data", (bytes: Buffer) => {
      try {
        this.#reader.feed(bytes);
        if (this.#open.length === 0 && this.#reader.bufferedBytes > 0)
          throw new Error("bytes that answer nothing");
      } catch (error) {
        this.#broken(`malformed: ${(error as Error).message}`);
      }
    });
    socket.on("end", () => this.#end("end"));
    socket.on("error", () => this.#end("reset"));
    socket.on("close", () => this.#end("reset"));
  }

  /** One case, to its end. */
  async exchange(one: Case, run: Run): Promise<void> {
    const { head, first, rest } = requestBytes(one, run);
    const pending = this.#expect(one);
    if (one.close === "gone") {
      await this.#write(Buffer.concat([head, first]), one.id);
      await inTime(pending.begun.promise);
      this.#leave(pending, leavesByReset(one));
    } else if (one.expects) {
      await this.#write(head, one.id);
      await inTime(pending.begun.promise);
      const isAsked = pending.exchange.interim.some(({ line }) => / 100( |$)/.test(line));
      if (isAsked) {
        await this.#write(Buffer.concat([first, rest]), one.id);
        await this.#finished(pending);
      } else {
        // Whether the body was still to come is open, so nothing may follow it (RFC 9110 §10.1.1), and the server may wait.
        await inTime(pending.done.promise);
        this.close();
      }
    } else if (one.close === "early") {
      await this.#write(Buffer.concat([head, first]), one.id);
      await this.#finished(pending);
      if (this.isUsable) await this.#write(rest, one.id);
    } else {
      await this.#write(Buffer.concat([head, first]), one.id);
      if (one.close === "half") this.#socket.end();
      await this.#finished(pending);
    }
  }

  async pipeline(cases: readonly Case[], run: Run): Promise<void> {
    const pending = cases.map((one) => this.#expect(one));
    const messages = cases.map((one) => requestBytes(one, run));
    await this.#write(Buffer.concat(messages.flatMap(({ head, first }) => [head, first])), cases[0]?.id ?? 0);
    if (cases.at(-1)?.close === "half") this.#socket.end();
    for (const each of pending) await this.#finished(each);
  }

  take(): Exchange[] {
    const done = this.#done;
    this.#done = [];
    return done;
  }

  close(): void {
    this.isUsable = false;
    this.#socket.destroy();
  }

  #expect(one: Case): Pending {
    const pending = new Pending(one);
    this.#open.push(pending);
    this.#done.push(pending.exchange);
    if (this.#closed !== null) this.#broken("cut");
    return pending;
  }

  async #write(bytes: Buffer, seed: number): Promise<void> {
    for (const piece of inPieces(bytes, seed)) {
      if (this.#closed !== null) return;
      await new Promise<void>((resolve) => this.#socket.write(piece, () => resolve()));
    }
  }

  /** Waits for the whole answer and, where the connection has to end with it, for that. */
  async #finished(pending: Pending): Promise<void> {
    const { exchange, request } = pending;
    await inTime(pending.done.promise);
    if (exchange.end === "no time") this.#broken("no time");
    const asksToClose =
      hasToken(request.fields, "connection", "close") ||
      (request.version === "1.0" && !hasToken(request.fields, "connection", "keep-alive"));
    if (request.close === "half") this.isUsable = false;
    if (exchange.end === "complete" && exchange.isPersistent && !asksToClose) return;
    this.isUsable = false;
    if (exchange.end === "complete") await inTime(this.#ended.promise);
    exchange.closed = this.#closed;
    this.#socket.destroy();
  }

  #head(head: Head): Framing {
    const pending = this.#open[0];
    if (pending === undefined) throw new Error("an answer to nothing");
    const [, version, code] = /^HTTP\/(1\.[01]) ([0-9]{3})(?: |$)/.exec(head.line) ?? [];
    if (version === undefined) throw new Error(`no status line: ${JSON.stringify(head.line.slice(0, 60))}`);
    const status = Number(code);
    const { exchange, request } = pending;
    if (status < 200 && status !== 101) {
      exchange.interim.push(head);
      pending.isInterim = true;
      return { kind: "none" };
    }
    pending.isInterim = false;
    exchange.head = head;
    exchange.isPersistent =
      !hasToken(head.fields, "connection", "close") &&
      (version === "1.1" || hasToken(head.fields, "connection", "keep-alive"));
    const framing = framingOf(head, status, request.method);
    exchange.framing = framing.kind;
    if (framing.kind === "close") exchange.isPersistent = false;
    return framing;
  }

  #answered(trailers: readonly [string, string][]): void {
    const pending = this.#open[0] as Pending;
    pending.begun.resolve(null);
    if (pending.isInterim) return;
    this.#open.shift();
    pending.exchange.trailers = trailers;
    pending.finish("complete");
  }

  #end(how: "end" | "reset"): void {
    if (this.#closed !== null) return;
    this.#closed = how;
    const isRegular = how === "end" && this.#reader.finish();
    for (const { exchange } of this.#open) exchange.closed = how;
    if (this.#open.length > 0 || !isRegular) this.#broken("cut");
    this.#ended.resolve(null);
    this.isUsable = false;
  }

  #leave(pending: Pending, byReset: boolean): void {
    this.isUsable = false;
    pending.finish("left");
    this.#open = [];
    if (byReset) this.#socket.resetAndDestroy();
    else this.#socket.destroy();
  }

  #broken(end: Exchange["end"]): void {
    this.isUsable = false;
    for (const each of this.#open) each.finish(end);
    this.#open = [];
    this.#socket.destroy();
  }
}

class Pending {
  readonly request: Case;
  readonly exchange: Exchange;
  readonly #hash = createHash("sha1");
  #bytes = 0;
  #echo: string | null;
  isInterim = false;
  isOver = false;
  /** Something of the answer has come, or nothing will. */
  readonly begun = Promise.withResolvers<null>();
  readonly done = Promise.withResolvers<null>();

  constructor(request: Case) {
    this.request = request;
    this.#echo = ECHOES.has(request.origin) ? "" : null;
    this.exchange = {
      id: request.id,
      interim: [],
      head: null,
      framing: "none",
      body: { bytes: 0, sha1: "" },
      echo: null,
      trailers: [],
      end: "no time",
      closed: null,
      isPersistent: false,
    };
  }

  body(bytes: Buffer): void {
    this.#hash.update(bytes);
    this.#bytes += bytes.length;
    if (this.#bytes > ECHO_BYTES_MAX) this.#echo = null;
    if (this.#echo !== null) this.#echo += bytes.toString("latin1");
  }

  /** The first end counts. */
  finish(end: Exchange["end"]): void {
    if (this.isOver) return;
    this.isOver = true;
    this.exchange.end = end;
    this.exchange.body = { bytes: this.#bytes, sha1: this.#hash.digest("hex") };
    this.exchange.echo = this.#echo;
    this.begun.resolve(null);
    this.done.resolve(null);
  }
}

/** RFC 9112 §6.3. */
function framingOf({ fields }: Head, status: number, method: string): Framing {
  if (method === "HEAD" || status === 204 || status === 304) return { kind: "none" };
  const length = valueOf(fields, "content-length");
  if (valueOf(fields, "transfer-encoding") !== null) {
    if (length !== null) throw new Error("a length and a coding");
    return { kind: "chunked" };
  }
  return length === null ? { kind: "close" } : { kind: "length", bytes: Number(length) };
}

async function inTime(promise: Promise<null>): Promise<void> {
  let timer: NodeJS.Timeout | undefined;
  const late = new Promise<void>((resolve) => {
    timer = setTimeout(resolve, STEP_MS);
  });
  await Promise.race([promise, late]);
  clearTimeout(timer);
}
