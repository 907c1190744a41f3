import assert from "node:assert/strict";
import { test } from "node:test";
import { setImmediate } from "node:timers/promises";
import { collectGarbage } from "./collect-garbage.ts";

for (const what of ["garbage", "everything"] as const)
  test(`collects ${what} without a flag of the process`, async () => {
    assert.equal(globalThis.gc, undefined);
    const dropped = garbage();
    // What a turn has looked at by way of a WeakRef stays until its end.
    await setImmediate();
    collectGarbage(what);
    assert.equal(dropped.deref(), undefined);
  });

function garbage(): WeakRef<object> {
  return new WeakRef({});
}
