import assert from "node:assert/strict";
import { test } from "node:test";
import { instancePaths, isRootsInstead } from "./instance-paths.ts";

test("an instance's name becomes part of paths, so only harmless ones are taken", () => {
  for (const wrong of ["", "..", "a/b", "A", "-a", "a-", "a".repeat(33)])
    assert.throws(() => instancePaths(wrong, {}), /--instance/, wrong);
  const paths = instancePaths("two", { PILLION_STATE_DIR: "/s", PILLION_RUN_DIR: "/r" });
  assert.equal(paths.agentSocket, "/r/two/agent.sock");
  assert.equal(paths.agentLog, "/s/two/agent/agent.log");
  assert.equal(isRootsInstead(paths), false);
});
