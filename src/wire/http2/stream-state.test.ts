import assert from "node:assert/strict";
import { test } from "node:test";
import { ILLEGAL, Input, nextState, State, TRANSITIONS } from "./stream-state.ts";

test("the table says each thing once (RFC 9113 §5.1)", () => {
  const seen = new Set(TRANSITIONS.map(([from, input]) => `${from} ${input}`));
  assert.equal(seen.size, TRANSITIONS.length);
});

test("nothing leaves CLOSED, and END only closes its own half (RFC 9113 §5.1)", () => {
  for (const input of Object.values(Input)) assert.equal(nextState(State.CLOSED, input), ILLEGAL);
  assert.equal(nextState(State.OPEN, Input.SEND_END), State.HALF_CLOSED_LOCAL);
  assert.equal(nextState(State.HALF_CLOSED_LOCAL, Input.SEND_DATA), ILLEGAL);
  assert.equal(nextState(State.HALF_CLOSED_LOCAL, Input.RECV_END), State.CLOSED);
  assert.equal(nextState(State.HALF_CLOSED_REMOTE, Input.RECV_DATA), ILLEGAL);
  assert.equal(nextState(State.HALF_CLOSED_REMOTE, Input.RECV_HEADERS), ILLEGAL);
});
