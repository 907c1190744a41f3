/**
 * What routing costs: the processor's time of a request through two sidecars in memory, each request unlike the one before, against
 * the same requests without a route. What playing the programs and the network costs is taken off all. Without sockets a request
 * costs a fraction of what it does with them, so these ratios are the worst that there are.
 */
import { ratiosOf } from "./case-ratios.ts";
import type { Spread } from "./report.ts";

const PLAIN = "pair: GET, 200 targets";
/** 200 routes to one endpoint: what it costs to find the rule. */
const ROUTED = "pair: GET, 200 targets, 200 routes";
/** … with 1,000 endpoints to choose from. */
const MANY = "pair: GET, 200 targets, 200 routes, one service of 1,000 endpoints";
/** … and each to a service of its own, used in turn: also that hundreds of connections share the processor's caches. */
const SPREAD = "pair: GET, 200 targets, 200 routes, 200 services of 5 endpoints";
export interface RoutesRatios {
  readonly routes: Spread;
  readonly endpoints: Spread;
  readonly services: Spread;
}

export function routesRatios(rounds: number): RoutesRatios {
  const [routes, endpoints, services] = ratiosOf(rounds, PLAIN, [ROUTED, MANY, SPREAD]);
  return { routes: routes!, endpoints: endpoints!, services: services! };
}
