import assert from "node:assert/strict";
import { before, describe, test } from "node:test";
import { cannotRun } from "../../e2e/sidecar/rig/mesh.ts";
import { CASES, FAILS_DIRECT, runInterop, type InteropRun } from "./interop.ts";

describe("gRPC's own client and server, through two sidecars", { skip: cannotRun() ?? false }, () => {
  let run: InteropRun;
  before(async () => {
    run = await runInterop();
  });

  for (const name of Object.keys(CASES)) {
    test(`${name} ${name in FAILS_DIRECT ? "fails" : "passes"} as without them`, () => {
      const { direct, meshed } = run.comparisons.find((one) => one.name === name)!;
      assert.equal(direct !== "", name in FAILS_DIRECT, direct);
      if (direct === "") assert.equal(meshed, "");
    });
  }

  test("every call went through both", () => {
    assert.ok(run.counted.outbound > Object.keys(CASES).length);
    assert.equal(run.counted.inbound, run.counted.outbound);
  });

  test("a mesh that refuses is noticed, and says who refused", () => {
    assert.match(run.refused, /PermissionDenied.*server's sidecar \(server\.test\).*was refused/);
  });
});
