import assert from "node:assert/strict";
import test from "node:test";
import { usefulLines, VerifierError } from "./errors.ts";

const LOG = `
; settings = settings_get();
12: (85) call bpf_map_lookup_elem#1   ; R0_w=map_value_or_null(id=1)
13: (61) r1 = *(u32 *)(r0 +4)
R0 invalid mem access 'map_value_or_null'
processed 13 insns (limit 1000000) max_states_per_insn 0 total_states 0 peak_states 0 mark_read 0
`;

test("a verifier's log is told by its last useful lines, and kept whole", () => {
  const error = new VerifierError("mesh_connect4", "5.4.0", LOG);
  assert.equal(
    error.message,
    "the kernel refused program mesh_connect4: 12: (85) call bpf_map_lookup_elem#1   ; R0_w=map_value_or_null(id=1) | 13: (61) r1 = *(u32 *)(r0 +4) | R0 invalid mem access 'map_value_or_null'; check that the kernel (5.4.0) is 5.10 or newer, and report this if it is",
  );
  assert.equal(error.log, LOG);
});

test("statistics are not useful lines", () => {
  assert.deepEqual(
    usefulLines("oops\nprocessed 1 insns (limit 1)\nverification time 5 usec\nstack depth 8\n"),
    ["oops"],
  );
});
