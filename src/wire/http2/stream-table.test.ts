import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import { Stream } from "./stream.ts";
import { StreamTable } from "./stream-table.ts";

test("behaves as a Map, whatever comes and goes", () => {
  const step = fc.tuple(
    fc.boolean(),
    fc.nat(300).map((n) => 2 * n + 1),
  );
  fc.assert(
    fc.property(fc.array(step, { maxLength: 300 }), (steps) => {
      const table = new StreamTable();
      const map = new Map<number, Stream>();
      for (const [isAdd, id] of steps) {
        if (isAdd && !map.has(id)) {
          const stream = new Stream(id, 0, 0);
          table.add(stream);
          map.set(id, stream);
        } else if (!isAdd) {
          table.delete(id);
          map.delete(id);
        }
        assert.equal(table.size, map.size);
      }
      for (let id = 1; id < 602; id += 2) assert.equal(table.get(id), map.get(id) ?? null);
      assert.deepEqual(new Set(table.all()), new Set(map.values()));
    }),
  );
});

test("whoever leaves a crowd looks at few others", () => {
  let looks = 0;
  class Counted {
    readonly #id: number;
    constructor(id: number) {
      this.#id = id;
    }
    get id(): number {
      looks++;
      return this.#id;
    }
  }
  // So many that the table is as full as it gets.
  const crowd = 1_023;
  const table = new StreamTable<Counted>();
  for (let i = 0; i < crowd; i++) table.add(new Counted(2 * i + 1));
  looks = 0;
  for (let i = 0; i < crowd; i++) {
    table.delete(2 * i + 1);
    table.add(new Counted(2 * (crowd + i) + 1));
  }
  assert.ok(looks < 8 * crowd, `${looks / crowd} looks for one that leaves`);
});
