import assert from "node:assert/strict";
import { test } from "node:test";
import { cannotRun } from "../../e2e/sidecar/rig/mesh.ts";
import { CASES, EXPECTED_DIFFERENCES, LEGS, runH2spec, summarize } from "./h2spec.ts";

test(
  "h2spec finds no fault in plaintext inbound, plaintext outbound and mutual TLS (RFC 9113, RFC 7541)",
  { skip: cannotRun() ?? false },
  async () => {
    const { passed, problems } = summarize(await runH2spec());
    assert.deepEqual(problems, []);
    assert.equal(passed, (CASES - Object.keys(EXPECTED_DIFFERENCES).length) * LEGS.length);
  },
);
