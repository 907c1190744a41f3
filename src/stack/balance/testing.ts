import { parseSocketAddress } from "#/base/address.ts";
import { SeededRandom } from "#/base/random.ts";
import type { Endpoint } from "#/model/endpoint.ts";
import { plainEndpoint } from "#/model/endpoint.ts";
import type { BackendTraffic, BalancingAlgorithm, FailureAccrual, HashKey } from "#/model/traffic.ts";
import { BACKEND_TRAFFIC_DEFAULTS } from "#/model/traffic.ts";
import type { BalancedClient, Member } from "./balancer.ts";
import { Balancer, UNKNOWN_CLIENT } from "./balancer.ts";

/** What tests of the balancer share. */

export function endpoint(ip: string, over: Partial<Endpoint> = {}): Endpoint {
  return { ...plainEndpoint(parseSocketAddress(`${ip}:80`)!), ...over };
}

/** `count` endpoints, 10.1.0.0 on. */
export function endpoints(count: number, over: (i: number) => Partial<Endpoint> = () => ({})): Endpoint[] {
  return Array.from({ length: count }, (_, i) => endpoint(`10.1.${i >> 8}.${i & 255}`, over(i)));
}

export function traffic(over: Partial<BackendTraffic> = {}): BackendTraffic {
  return { ...BACKEND_TRAFFIC_DEFAULTS, ...over };
}

export function balancing(
  algorithm: BalancingAlgorithm,
  hashOn: readonly HashKey[] = [],
  boundedLoad: number = 0,
): Partial<BackendTraffic> {
  return { balancing: { algorithm, hashOn, boundedLoad } };
}

export const BY_USER: readonly HashKey[] = [{ kind: "header", name: "x-user" }];

export const ACCRUAL: FailureAccrual = {
  consecutiveFailures: 3,
  successRateMin: 0,
  windowMs: 10_000,
  requestsMin: 5,
  backoff: { minMs: 1_000, maxMs: 60_000, jitterRatio: 0 },
  respectsRetryAfter: true,
};

/** A balancer whose members are named by their address. */
export function balancerOf(
  set: readonly Endpoint[],
  over: Partial<BackendTraffic> = {},
  options: { readonly seed?: number; readonly client?: BalancedClient; readonly wallMs?: () => number } = {},
): Balancer<string> {
  const made = new Balancer<string>({
    random: new SeededRandom(options.seed ?? 3),
    traffic: traffic(over),
    client: options.client ?? UNKNOWN_CLIENT,
    wallMs: options.wallMs ?? (() => 0),
    make: ({ address }) => address.ip,
    drop: () => {},
  });
  made.update(set, 0);
  return made;
}

/** How many of `picks` each member got, by address; nothing is under way meanwhile. */
export function counts(over: Balancer<string>, picks: number, nowMs: number = 0): Map<string, number> {
  const result = new Map<string, number>();
  for (let i = 0; i < picks; i++) {
    const { extra } = over.pick(nowMs, [], ["x-user", String(i)]) as Member<string>;
    result.set(extra, (result.get(extra) ?? 0) + 1);
  }
  return result;
}
