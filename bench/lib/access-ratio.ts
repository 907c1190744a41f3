/**
 * What authorization costs: the processor's time of a request through two sidecars in memory, each request unlike the one before, at a
 * port with 100 policies of 10 rules, against the same requests at a port for everybody. What playing the programs and the network costs
 * is taken off both, so this ratio is the worst that there is, as with routes.
 */
import { ratiosOf } from "./case-ratios.ts";
import type { Spread } from "./report.ts";

const PLAIN = "pair: GET, 200 targets";
const RULED = "pair: GET, 200 targets, 100 policies of 10 rules";

export function accessRatio(rounds: number): Spread {
  return ratiosOf(rounds, PLAIN, [RULED])[0]!;
}
