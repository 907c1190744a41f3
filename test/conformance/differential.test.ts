import assert from "node:assert/strict";
import { after, before, describe, test } from "node:test";
import { drawConversations } from "../differential/draw.ts";
import { CONTROL, FAULTS } from "../differential/faults.ts";
import { describeDifference, judge } from "../differential/judge.ts";
import { Lab, type Seen } from "../differential/lab.ts";
import { findFault } from "../differential/seeded.ts";
import { cannotRun } from "../e2e/sidecar/rig/mesh.ts";
import { goTool } from "../tools/go-tool.ts";

const SEED = 1;
/** The short form of `npm run differential`: enough for each axis of the grid, not for each cell. */
const CASES = 1_500;
/** One fault in so many is put into the sidecars here; a start of two sidecars is most of what it takes. */
const FAULT_STEP = 5;
/** All have just been held by sidecars from the sources themselves. */
const CONTROL_CONVERSATIONS = 200;

describe(
  "the same requests beside real servers and through two sidecars",
  { skip: cannotRun() ?? false },
  () => {
    const conversations = drawConversations(SEED, CASES);
    let lab: Lab;
    let direct: Seen;
    before(async () => {
      lab = await Lab.start(await goTool("http-origin"));
      direct = await lab.hold("direct", conversations);
    });
    after(() => lab.close());

    test("client and server see what they would without the mesh, but for a list", async () => {
      const { cases, unexplained } = judge(conversations, direct, await lab.hold("meshed", conversations));
      assert.ok(cases >= CASES);
      assert.deepEqual(unexplained.map(describeDifference), []);
    });

    test("a faulty sidecar is found out, and one from an unchanged copy is not", async () => {
      assert.equal(
        await findFault(lab, CONTROL, conversations.slice(0, CONTROL_CONVERSATIONS), direct),
        null,
      );
      for (const fault of FAULTS.filter((_, index) => index % FAULT_STEP === 0))
        assert.notEqual(await findFault(lab, fault, conversations, direct), null, fault.name);
    });
  },
);
