import { CASES } from "../machines/sidecar.ts";
import { spread, type Spread } from "./report.ts";

const PLAYING = "none: GET, 1 KiB answer";
/** Every connection to every endpoint is made, and the compilers have seen enough. */
const WARM_REQUESTS = 30_000;
const REQUESTS = 10_000;

/**
 * The processor's time of a request in each of the cases in memory called `names`, against `plain`, less what playing the programs and
 * the network costs. One ratio a round: in each, all are measured in turn, so that what else the machine does hits all alike.
 */
export function ratiosOf(rounds: number, plain: string, names: readonly string[]): readonly Spread[] {
  const runs = [PLAYING, plain, ...names].map((name) => {
    const found = CASES.find((each) => each.name === name);
    if (found === undefined) throw new Error(`no case is called ${name}`);
    const run = found.make();
    cpuUs(run, WARM_REQUESTS);
    return run;
  });
  const ratios = Array.from({ length: rounds }, () => {
    const [playingUs = 0, plainUs = 0, ...others] = runs.map((run) => cpuUs(run, REQUESTS));
    return others.map((each) => (each - playingUs) / (plainUs - playingUs));
  });
  return names.map((_, at) => spread(ratios.map((each) => each[at]!)));
}

function cpuUs(run: () => number, requests: number): number {
  const before = process.cpuUsage();
  let done = 0;
  while (done < requests) done += run();
  const { user, system } = process.cpuUsage(before);
  return (user + system) / done;
}
