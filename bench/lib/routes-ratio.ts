/**
 * What routing costs: the processor's time of a request through two sidecars in memory, each request unlike the one before, against
 * the same requests without a route. What playing the programs and the network costs is taken off all. Without sockets a request
 * costs a fraction of what it does with them, so these ratios are the worst that there are.
 */
import { CASES } from "../machines/sidecar.ts";
import { spread, type Spread } from "./report.ts";

const PLAYING = "none: GET, 1 KiB answer";
const PLAIN = "pair: GET, 200 targets";
/** 200 routes to one endpoint: what it costs to find the rule. */
const ROUTED = "pair: GET, 200 targets, 200 routes";
/** … with 1,000 endpoints to choose from. */
const MANY = "pair: GET, 200 targets, 200 routes, one service of 1,000 endpoints";
/** … and each to a service of its own, used in turn: also that hundreds of connections share the processor's caches. */
const SPREAD = "pair: GET, 200 targets, 200 routes, 200 services of 5 endpoints";
/** Every connection to every endpoint is made, and the compilers have seen enough. */
const WARM_REQUESTS = 30_000;
const REQUESTS = 10_000;

export interface RoutesRatios {
  readonly routes: Spread;
  readonly endpoints: Spread;
  readonly services: Spread;
}

/** One ratio a round: in each, all are measured in turn, so that what else the machine does hits all alike. */
export function routesRatios(rounds: number): RoutesRatios {
  const runs = [PLAYING, PLAIN, ROUTED, MANY, SPREAD].map((name) => {
    const found = CASES.find((each) => each.name === name);
    if (found === undefined) throw new Error(`no case is called ${name}`);
    const run = found.make();
    cpuUs(run, WARM_REQUESTS);
    return run;
  });
  const ratios = Array.from({ length: rounds }, () => {
    const [playing = 0, plain = 0, ...others] = runs.map((run) => cpuUs(run, REQUESTS));
    return others.map((each) => (each - playing) / (plain - playing));
  });
  const of = (at: number): Spread => spread(ratios.map((each) => each[at]!));
  return { routes: of(0), endpoints: of(1), services: of(2) };
}

function cpuUs(run: () => number, requests: number): number {
  const before = process.cpuUsage();
  let done = 0;
  while (done < requests) done += run();
  const { user, system } = process.cpuUsage(before);
  return (user + system) / done;
}
