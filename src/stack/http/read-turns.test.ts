import assert from "node:assert/strict";
import { test } from "node:test";
import type { HttpService, RequestHead, RequestSink, ResponseSink } from "./exchange.ts";
import { SPENT } from "./exchange.ts";
import { Http2Client } from "./http2-client.ts";
import { Http2Server } from "./http2-server.ts";
import { ReadTurns, type TurnTaker } from "./read-turns.ts";
import { ManualClock, memoryPair, RecordingReply } from "./testing.ts";

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

test("of several bodies on one connection one source is read at a time while that is busy, and none is forgotten", () => {
  const clock = new ManualClock();
  const [near, far] = memoryPair(clock);
  const PIECE = new Uint8Array(100_000).fill(7);
  const PIECES = 20;
  /** Sources that may bring more and have not. */
  let ready = 0;
  let readyMost = 0;
  const replies: ResponseSink[] = [];
  const left: number[] = [];
  const bring = (i: number): void => {
    left[i] = (left[i] as number) - 1;
    const reply = replies[i] as ResponseSink;
    reply.bodyLent?.(PIECE, 0, PIECE.length);
    if (left[i] === 0) reply.finish(null);
  };
  const inbound: HttpService = {
    call(_head: RequestHead, _last: boolean, reply: ResponseSink): RequestSink {
      const i = replies.push(reply) - 1;
      left[i] = PIECES;
      let unconsumed = PIECE.length;
      return {
        ...SPENT,
        responseConsumed(bytes: number): void {
          unconsumed -= bytes;
          if (unconsumed > 0 || left[i] === 0) return;
          unconsumed = PIECE.length;
          readyMost = Math.max(readyMost, ++ready);
          clock.soon(() => {
            ready--;
            bring(i);
          });
        },
      };
    },
  };
  const options = { meshed: true, spells: true };
  new Http2Server(far, inbound, clock, () => {}, { ...options, clientId: null });
  const client = new Http2Client(near, clock, () => {}, options);
  clock.settle();
  const seen: number[] = [];
  const got: { finished: boolean }[] = [];
  for (let i = 0; i < 5; i++) {
    seen.push(0);
    const sinks: RequestSink[] = [];
    const reply = new RecordingReply();
    reply.body = (_bytes, start, stop): void => {
      seen[i] = (seen[i] as number) + stop - start;
      sinks[0]?.responseConsumed(stop - start);
    };
    got.push(reply);
    sinks.push(client.call(HEAD, true, reply));
  }
  clock.settle();
  assert.equal(replies.length, 5);
  for (const reply of replies) reply.head({ status: 200, version: "2", reason: null, fields: [] }, false);
  clock.settle();
  for (let i = 0; i < 5; i++) bring(i);
  // Without time passing: nobody is helped on by the timer.
  clock.settle();
  assert.deepEqual(
    seen,
    [0, 1, 2, 3, 4].map(() => PIECES * PIECE.length),
  );
  assert.ok(got.every(({ finished }) => finished));
  assert.equal(readyMost, 1);
});

const HEAD: RequestHead = {
  method: "GET",
  scheme: "http",
  authority: "a",
  path: "/",
  version: "2",
  absoluteForm: false,
  upgrade: null,
  fields: [],
};
