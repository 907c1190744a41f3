import assert from "node:assert/strict";
import { test } from "node:test";
import { Flood, FLOOD_NAMES, FloodBudget } from "./flood-budget.ts";

test("time gives back to every budget until all are full, however unevenly they were spent", () => {
  const budget = new FloodBudget(
    FLOOD_NAMES.map(() => 10),
    1,
  );
  budget.refill(60_000);
  for (let i = 0; i < 10; i++) assert.ok(budget.spend(Flood.PING));
  for (let i = 0; i < 2; i++) assert.ok(budget.spend(Flood.UNKNOWN));
  assert.ok(!budget.spend(Flood.PING));
  assert.ok(budget.isLow);
  // One spent in vain is owed, too.
  for (let second = 0; second < 11; second++) budget.refill(1_000);
  assert.ok(!budget.isLow);
  for (let i = 0; i < 10; i++) assert.ok(budget.spend(Flood.PING));
  assert.ok(!budget.spend(Flood.PING));
  assert.ok(budget.isLow);
});
