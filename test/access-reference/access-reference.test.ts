import assert from "node:assert/strict";
import { test } from "node:test";
import { decideAccess } from "#/stack/access/decide.ts";
import { describeDisagreement, disagreement, firstDisagreement } from "./compare.ts";
import { drawCase } from "./draw.ts";
import { ACCESS_FAULTS, NO_FAULT } from "./faults.ts";
import { referenceDecision } from "./reference.ts";
import { withFault } from "./seeded.ts";
import { Shares } from "./shares.ts";

const CASES = 100_000;
/** What was met is counted in every so many of them, for counting takes longer than deciding. */
const COUNTED_EACH = 4;
const SHARE_MIN = 0.05;
/** Cases in which a fault has to show itself. */
const FAULT_CASES = 20_000;

/** `SEED=123` in the environment begins elsewhere; the same seed draws the same cases. */
const SEED = Number(process.env["SEED"] ?? 1);

test(`${CASES} drawn policies and requests are decided as by the reference, from SEED=${SEED}`, (context) => {
  const shares = new Shares();
  for (let seed = SEED; seed < SEED + CASES; seed++) {
    const one = drawCase(seed);
    const found = disagreement(decideAccess, one);
    if (found !== null) assert.fail(describeDisagreement(found));
    if (seed % COUNTED_EACH === 0) shares.add(one, referenceDecision(one.policy, one.subject));
  }
  context.diagnostic(`of ${CASES / COUNTED_EACH} cases:\n${shares.table()}`);
  assert.deepEqual(shares.below(SHARE_MIN), [], `met in less than ${SHARE_MIN * 100} % of cases`);
});

test("an unchanged copy of the evaluator is found to have no fault", async () => {
  const found = await withFault(NO_FAULT, (decide) => firstDisagreement(decide, SEED, 2_000));
  assert.equal(found && describeDisagreement(found), null);
});

for (const fault of ACCESS_FAULTS)
  test(`the comparison finds an evaluator that ${fault.name}`, async () => {
    const found = await withFault(fault, (decide) => firstDisagreement(decide, SEED, FAULT_CASES));
    assert.notEqual(found, null, `not found in ${FAULT_CASES} cases`);
  });
