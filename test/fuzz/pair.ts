import assert from "node:assert/strict";
import type { Conn, ConnHandler } from "#/base/conn.ts";
import { LIMITS } from "#/model/limits.ts";
import type { HttpService } from "#/stack/http/exchange.ts";
import { Guard } from "#/stack/http/guard.ts";
import { HTTP1_SERVER_DEFAULTS, Http1Server } from "#/stack/http/http1-server.ts";
import { Http1Pool } from "#/stack/http/http1-pool.ts";
import { Http2Client } from "#/stack/http/http2-client.ts";
import { Http2Server } from "#/stack/http/http2-server.ts";
import { ManualClock, memoryPair, ScriptedService, type ScriptedCall } from "#/stack/http/testing.ts";
import { Registry } from "#/stack/metrics/registry.ts";
import { latin1Bytes } from "#/wire/latin1.ts";

const NOBODY: ConnHandler = { onData() {}, onEnd() {}, onDrain() {}, onClose() {} };
const SHORT = { ...LIMITS, headMs: 2_000, bodyMs: 1_000, readerMs: 3_000, idleMs: 4_000 };
/** Past every limit of `SHORT`. */
const AFTERMATH_MS = 10_000;
const PIECES_MAX = 40;

/**
 * The stacks of two sidecars, joined by HTTP/2 as between sidecars, with an application of HTTP/1 behind them: what one machine
 * takes, the next ones have to be able to say.
 */
class Pair {
  readonly clock = new ManualClock();
  readonly #guard = new Guard(SHORT, "inbound", this.clock, new Registry());
  readonly #leg: Http2Client;
  readonly #pool: Http1Pool;

  /** `accept`: an application's side of a connection. */
  constructor(accept: (conn: Conn) => void) {
    const { clock } = this;
    this.#pool = new Http1Pool((done) => {
      const [near, far] = memoryPair(clock);
      clock.soon(() => {
        accept(far);
        done(null, near);
      });
      return { cancel: () => {} };
    }, clock);
    const [near, far] = memoryPair(clock);
    this.#leg = new Http2Client(near, clock, () => {}, { meshed: true, spells: true });
    const options = { meshed: true, spells: true, clientId: "a.b", guard: this.#guard };
    new Http2Server(far, this.#pool, clock, () => {}, options);
  }

  serve(version: "http1" | "http2", conn: Conn, isSidecar: boolean): void {
    const service: HttpService = this.#leg;
    if (version === "http1")
      new Http1Server(conn, service, this.clock, () => {}, { ...HTTP1_SERVER_DEFAULTS, guard: this.#guard });
    else {
      const options = { meshed: isSidecar, spells: isSidecar, clientId: null, guard: this.#guard };
      new Http2Server(conn, service, this.clock, () => {}, options);
    }
  }
}

/** What an application may do with a request. */
const ANSWERS: readonly ((call: ScriptedCall) => void)[] = [
  (call) => call.answer(200, ["Content-Length", "2"], "ok"),
  (call) => call.answer(204, [], ""),
  () => {},
  (call) => {
    call.reply.informational({ status: 103, version: "1.1", reason: null, fields: ["Link", "</a>"] });
    call.reply.head({ status: 200, version: "1.1", reason: null, fields: [] }, false);
    call.reply.body(latin1Bytes("a".repeat(70_000)), 0, 70_000);
  },
  (call) => {
    call.holdCredit = true;
    call.reply.head({ status: 101, version: "1.1", reason: null, fields: ["Upgrade", "websocket"] }, false);
  },
];

/** A client of the first sidecar, or one that is a sidecar itself, says this. Gives what the application was asked. */
export function hostileClient(version: "http1" | "http2", cut: readonly Uint8Array[]): string[] {
  const pieces = fewer(cut);
  const asked: string[] = [];
  const service = new ScriptedService((call) => {
    asked.push(
      `${call.head.method.length > 7 ? "long" : call.head.method} ${call.head.version} ${call.ended}`,
    );
    ANSWERS[asked.length % ANSWERS.length]?.(call);
  });
  const pair = new Pair((conn) => void new Http1Server(conn, service, pair.clock, () => {}));
  const [client, edge] = memoryPair(pair.clock);
  client.setHandler(NOBODY);
  pair.serve(version, edge, pieces.length % 2 === 0);
  for (const piece of pieces) {
    client.write(piece);
    if (piece.length % 3 !== 0) pair.clock.settle();
  }
  pair.clock.settle();
  pair.clock.advance(AFTERMATH_MS);
  client.end();
  pair.clock.settle();
  assert.ok(asked.length < 10_000, "requests out of nothing");
  return asked;
}

const REQUESTS =
  "GET / HTTP/1.1\r\nHost: a\r\n\r\n" +
  "HEAD / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n" +
  "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n0\r\n\r\n" +
  "GET / HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n";

/** An application answers every connection so. Gives what its client was told. */
export function hostileApplication(cut: readonly Uint8Array[]): string[] {
  const pieces = fewer(cut);
  const pair = new Pair((conn) => {
    conn.setHandler({
      ...NOBODY,
      onData: () => {
        for (const piece of pieces) conn.write(piece.slice());
      },
    });
  });
  const [client, edge] = memoryPair(pair.clock);
  let answer = "";
  client.setHandler({ ...NOBODY, onData: (bytes) => (answer += Buffer.from(bytes).toString("latin1")) });
  pair.serve("http1", edge, false);
  client.write(latin1Bytes(REQUESTS));
  pair.clock.settle();
  pair.clock.advance(AFTERMATH_MS);
  client.end();
  pair.clock.settle();
  return answer.match(/HTTP\/1\.[01] \d{3}|pillion-code=\w+/g) ?? [];
}

/** A turn of the whole pair for each of thousands of bytes would show nothing that dozens do not. */
function fewer(cut: readonly Uint8Array[]): Uint8Array[] {
  const pieces: Uint8Array[] = [];
  const together = Math.ceil(cut.length / PIECES_MAX);
  for (let at = 0; at < cut.length; at += together) pieces.push(Buffer.concat(cut.slice(at, at + together)));
  return pieces;
}
