import assert from "node:assert/strict";
import { test } from "node:test";
import { ClosedStreams, Ended } from "./closed-streams.ts";

test("remembers how streams ended, and which ids were skipped (RFC 9113 §5.1.1)", () => {
  const closed = new ClosedStreams();
  closed.opened(1);
  closed.opened(7);
  closed.ended(1, Ended.NORMALLY);
  closed.ended(7, Ended.RESET_BY_US);
  assert.equal(closed.how(1), Ended.NORMALLY);
  assert.equal(closed.how(3), Ended.NEVER);
  assert.equal(closed.how(7), Ended.RESET_BY_US);
});

test("old ids are answered forgivingly, new ones start clean", () => {
  const closed = new ClosedStreams();
  for (let id = 1; id < 20_001; id += 2) {
    closed.opened(id);
    assert.equal(closed.how(id), Ended.NEVER);
    closed.ended(id, Ended.RESET_BY_REMOTE);
  }
  assert.equal(closed.how(1), Ended.RESET_BY_US);
  assert.equal(closed.how(19_999), Ended.RESET_BY_REMOTE);
  closed.opened(1_000_001);
  assert.equal(closed.how(999_999), Ended.NEVER);
});
