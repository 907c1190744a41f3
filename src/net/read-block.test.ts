import assert from "node:assert/strict";
import { test } from "node:test";
import { VirtualClock } from "#/base/virtual-clock.ts";
import {
  GatheredReads,
  giveReadBlock,
  isKeepable,
  keepLent,
  READ_BLOCK_BYTES,
  RECORD_BYTES,
} from "./read-block.ts";

class Reader {
  readonly clock = new VirtualClock();
  readonly sizes: number[] = [];
  readonly keepable: boolean[] = [];
  keep = false;
  readonly gathered = new GatheredReads(this.clock, (bytes) => {
    this.sizes.push(bytes.length);
    this.keepable.push(isKeepable(bytes));
    if (this.keep) this.kept = keepLent();
  });
  kept: ReturnType<typeof keepLent> | null = null;
}

test("a full block may be kept, and the next record goes to another", () => {
  const reader = new Reader();
  let place = reader.gathered.begin();
  const first = place?.buffer;
  reader.keep = true;
  for (let i = 1; i < READ_BLOCK_BYTES / RECORD_BYTES; i++) place = reader.gathered.came(RECORD_BYTES);
  assert.deepEqual(reader.sizes, [READ_BLOCK_BYTES - RECORD_BYTES]);
  assert.equal(reader.kept?.bytes.buffer, first);
  assert.notEqual(place?.buffer, first);
  giveReadBlock(reader.kept!);
  reader.gathered.close();
});

test("what a turn's end hands over may not be kept: the handle reads into the same block next", () => {
  const reader = new Reader();
  const place = reader.gathered.begin();
  const next = reader.gathered.came(RECORD_BYTES);
  assert.equal(next?.buffer, place?.buffer);
  assert.deepEqual(reader.sizes, []);
  reader.clock.run(0);
  assert.deepEqual(reader.sizes, [RECORD_BYTES]);
  assert.deepEqual(reader.keepable, [false]);
  reader.gathered.close();
});

test("a short record ends it, and gives the block to the next who begins", () => {
  const reader = new Reader();
  const place = reader.gathered.begin();
  assert.equal(reader.gathered.came(5), null);
  assert.deepEqual(reader.sizes, [5]);
  assert.equal(reader.gathered.isGathering, false);
  const other = new Reader();
  assert.equal(other.gathered.begin()?.buffer, place?.buffer);
  other.gathered.close();
});

test("sixteen connections gather, and one more when one of them ends", () => {
  const readers = Array.from({ length: 17 }, () => new Reader());
  const begun = readers.map((reader) => reader.gathered.begin() !== null);
  assert.deepEqual(
    begun,
    readers.map((_, i) => i < 16),
  );
  readers[3]!.gathered.close();
  assert.notEqual(readers[16]!.gathered.begin(), null);
  for (const reader of readers) reader.gathered.close();
});
