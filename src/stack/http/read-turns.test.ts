import assert from "node:assert/strict";
import { test } from "node:test";
import type { HttpService, RequestHead, RequestSink, ResponseSink } from "./exchange.ts";
import { SPENT } from "./exchange.ts";
import { fault } from "./fault.ts";
import { Http2Client } from "./http2-client.ts";
import { Http2Server } from "./http2-server.ts";
import { ReadTurns, type TurnTaker } from "./read-turns.ts";
import { ManualClock, memoryPair, RecordingReply, requestHead } from "./testing.ts";

/** Turns, and who went on so far. */
function scene(): {
  clock: ManualClock;
  turns: ReadTurns;
  went: string[];
  taker: (name: string) => TurnTaker;
} {
  const clock = new ManualClock();
  const went: string[] = [];
  return { clock, turns: new ReadTurns(clock), went, taker: (name) => ({ goOn: () => went.push(name) }) };
}

test("sources go on one after the other, each when the one before it has brought something", () => {
  const { turns, went, taker } = scene();
  const [a, b, c] = [taker("a"), taker("b"), taker("c")];
  assert.equal(turns.took(a, true), true, "nobody waits");
  for (const one of [a, b, c]) assert.equal(turns.took(one, false), false);
  turns.next();
  turns.next();
  assert.deepEqual(went, ["a"]);
  assert.equal(turns.brought(b), false, "it is not its turn");
  assert.equal(turns.brought(a), true);
  assert.equal(turns.took(a, true), false, "others wait");
  turns.next();
  turns.brought(b);
  turns.next();
  turns.brought(c);
  turns.next();
  assert.deepEqual(went, ["a", "b", "c", "a"]);
  assert.equal(turns.took(a, true), true);
});

test("a source that brings nothing holds the others up for a millisecond, and then all go on", () => {
  const { clock, turns, went, taker } = scene();
  for (const name of ["a", "b", "c", "d"]) turns.took(taker(name), false);
  turns.next();
  clock.advance(0.9);
  turns.next();
  assert.deepEqual(went, ["a"]);
  clock.advance(0.2);
  assert.deepEqual(went, ["a", "b", "c", "d"]);
  clock.advance(10);
  assert.equal(clock.timersLeft, 0);
});

test("turns that are used are never given to all", () => {
  const { clock, turns, went, taker } = scene();
  const takers = ["a", "b", "c"].map(taker);
  for (const one of takers) turns.took(one, false);
  for (let i = 0; i < 30; i++) {
    turns.next();
    assert.equal(went.length, i + 1);
    clock.advance(0.5);
    const one = takers[i % 3] as TurnTaker;
    turns.brought(one);
    turns.took(one, true);
  }
});

test("who leaves gives its turn to the next, and a connection that is over keeps no timer", () => {
  const { clock, turns, went, taker } = scene();
  const [a, b, c] = [taker("a"), taker("b"), taker("c")];
  for (const one of [a, b, c]) turns.took(one, false);
  turns.next();
  assert.equal(turns.leave(b), false);
  assert.equal(turns.leave(a), true);
  turns.next();
  assert.deepEqual(went, ["a", "c"]);
  turns.took(a, false);
  turns.took(b, false);
  turns.next();
  turns.close();
  assert.equal(clock.timersLeft, 0);
});

const PIECE = new Uint8Array(100_000).fill(7);

/** Bodies on one connection, the sidecar that reads their sources at its far end, and the client. */
class Bodies {
  readonly clock = new ManualClock();
  readonly replies: ResponseSink[] = [];
  readonly sinks: RequestSink[] = [];
  readonly got: { finished: boolean }[] = [];
  /** Bytes that the client has of each. */
  readonly seen: number[] = [];
  /** Sources that may bring more and have not, at most at a time. */
  readyMost = 0;
  #ready = 0;
  readonly #left: number[] = [];
  /** Told when a source may bring another piece: false to have it bring none. */
  mayBring: (i: number, left: number) => boolean = () => true;
  /** Told right after a source has brought a piece. */
  brought: (i: number, left: number) => void = () => {};

  /** Bytes of each that its source has heard to be on their way. */
  readonly consumed: number[] = [];
  /** Whether a piece is lent. */
  lends: (left: number) => boolean = () => true;

  constructor(pieces: readonly number[]) {
    const { clock } = this;
    const [near, far] = memoryPair(clock);
    const inbound: HttpService = {
      call: (_head: RequestHead, _last: boolean, reply: ResponseSink): RequestSink => {
        const i = this.replies.push(reply) - 1;
        this.#left[i] = pieces[i] as number;
        this.consumed[i] = 0;
        let unconsumed = PIECE.length;
        return {
          ...SPENT,
          responseConsumed: (bytes: number): void => {
            unconsumed -= bytes;
            this.consumed[i] = (this.consumed[i] as number) + bytes;
            if (unconsumed > 0 || this.#left[i] === 0) return;
            unconsumed = PIECE.length;
            if (!this.mayBring(i, this.#left[i] as number)) return;
            this.readyMost = Math.max(this.readyMost, ++this.#ready);
            clock.soon(() => {
              this.#ready--;
              this.bring(i);
            });
          },
        };
      },
    };
    const options = { meshed: true, spells: true };
    new Http2Server(far, inbound, clock, () => {}, { ...options, clientId: null });
    const client = new Http2Client(near, clock, () => {}, options);
    clock.settle();
    for (let i = 0; i < pieces.length; i++) {
      this.seen.push(0);
      const reply = new RecordingReply();
      reply.body = (_bytes, start, stop): void => {
        this.seen[i] = (this.seen[i] as number) + stop - start;
        this.sinks[i]?.responseConsumed(stop - start);
      };
      this.got.push(reply);
      this.sinks.push(client.call(requestHead(), true, reply));
    }
    clock.settle();
    for (const reply of this.replies)
      reply.head({ status: 200, version: "2", reason: null, fields: [] }, false);
    clock.settle();
  }

  bring(i: number): void {
    const left = (this.#left[i] as number) - 1;
    this.#left[i] = left;
    const reply = this.replies[i] as ResponseSink;
    if (this.lends(left)) reply.bodyLent?.(PIECE, 0, PIECE.length);
    else reply.body(PIECE, 0, PIECE.length);
    if (left === 0) reply.finish(null);
    this.brought(i, left);
  }
}

test("of several bodies on one connection one source is read at a time while that is busy, and none is forgotten", () => {
  const pieces = [20, 7, 31, 12, 25];
  const sizes = pieces.map((count) => count * PIECE.length);
  for (const lends of [() => true, (left: number) => left % 3 !== 0]) {
    const bodies = new Bodies(pieces);
    bodies.lends = lends;
    for (let i = 0; i < 5; i++) bodies.bring(i);
    // Without time passing: nobody is helped on by the timer.
    bodies.clock.settle();
    assert.deepEqual(bodies.seen, sizes);
    assert.deepEqual(bodies.consumed, sizes);
    assert.ok(bodies.got.every(({ finished }) => finished));
    if (lends(0)) assert.equal(bodies.readyMost, 1);
  }
});

test("a message among bodies takes no turn, which its source need not use", () => {
  const bodies = new Bodies([20, 20, 20]);
  const message = new Uint8Array(100);
  let messages = 0;
  bodies.brought = () => {
    if (++messages < 10) bodies.replies[2]?.body(message, 0, message.length);
  };
  for (const i of [0, 1]) bodies.bring(i);
  bodies.clock.settle();
  assert.deepEqual(bodies.seen, [20 * PIECE.length, 20 * PIECE.length, 900]);
});

test("a body that is given up holds no turn, and gets none, by whichever end", () => {
  const cause = fault("CANCELLED", "given up", { http2Code: 8 });
  const giveUps: Record<string, (bodies: Bodies) => void> = {
    "by the client": ({ sinks }) => sinks[1]?.abort(cause),
    "by the server": ({ replies }) => replies[1]?.fail(cause),
  };
  for (const [name, giveUp] of Object.entries(giveUps)) {
    for (const when of ["it has the turn", "it waits"]) {
      const bodies = new Bodies([20, 20, 20, 20]);
      if (when === "it waits") bodies.brought = (i, left) => void (i === 1 && left === 10 && giveUp(bodies));
      else
        bodies.mayBring = (i, left) => {
          if (i === 1 && left === 10) giveUp(bodies);
          return i !== 1 || left > 10;
        };
      for (let i = 0; i < 4; i++) bodies.bring(i);
      bodies.clock.settle();
      const finished = bodies.got.map((reply) => reply.finished);
      assert.deepEqual(finished, [true, false, true, true], `${name} while ${when}`);
    }
  }
});
