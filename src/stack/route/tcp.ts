import type { Random } from "#/base/random.ts";
import { ruleOf } from "#/model/policy.ts";
import type { Backend, TcpRoute } from "#/model/route.ts";
import { hostHolds } from "./host.ts";
import { drawBackend } from "./split.ts";

/** Where one connection goes that is not looked into, and by which route. */
export type TcpChoice =
  | { readonly kind: "backend"; readonly route: TcpRoute; readonly backend: Backend }
  /** `reason` for metrics, `message` for people. */
  | {
      readonly kind: "refused";
      readonly reason: "no_route" | "no_backend" | "forbidden";
      readonly message: string;
    };

/**
 * The route of a connection by the server name that its TLS asks for, null without one: exact > longest suffix > a route without
 * names; then the order of routes. Null: none takes it. (TLSRoute and TCPRoute of Gateway API.)
 */
export function findTcpRoute(routes: readonly TcpRoute[], serverName: string | null): TcpRoute | null {
  const asked = serverName?.toLowerCase() ?? "";
  let best: TcpRoute | null = null;
  let bestRank = -1;
  for (const route of routes) {
    const rank = route.serverNames.length === 0 ? 0 : rankOf(route, asked);
    if (rank > bestRank) {
      best = route;
      bestRank = rank;
    }
  }
  return best;
}

/** Draws one of the route's backends as for requests (`drawBackend`). `authority` names the target in messages. */
export function chooseTcp(
  routes: readonly TcpRoute[],
  serverName: string | null,
  authority: string,
  isReady: (backend: Backend) => boolean,
  random: Random,
): TcpChoice {
  const route = findTcpRoute(routes, serverName);
  if (route === null) {
    const asked = serverName === null ? "a connection without a server name" : `server name "${serverName}"`;
    const message = routes.length === 0 ? "has no route" : `has no route for ${asked}`;
    return { kind: "refused", reason: "no_route", message: `${authority} ${message}` };
  }
  if (route.refusal !== null)
    return {
      kind: "refused",
      reason: "forbidden",
      message: `${route.refusal} (policy ${ruleOf(route.source)})`,
    };
  const { backends, choice } = route;
  const index = drawBackend(
    choice,
    backends,
    {
      isReady: (at) => isReady(backends[at]!.backend),
      isInvalid: (at) => backends[at]!.backend.kind === "forbidden",
    },
    random,
  );
  const backend = backends[index]?.backend;
  if (backend === undefined)
    return {
      kind: "refused",
      reason: "no_backend",
      message: `${authority} has no backend (policy ${ruleOf(route.source)})`,
    };
  if (backend.kind === "forbidden")
    return {
      kind: "refused",
      reason: "forbidden",
      message: `${backend.reason} (policy ${ruleOf(route.source)})`,
    };
  return { kind: "backend", route, backend };
}

/** -1: does not take it. An exact name goes before any suffix. */
function rankOf({ serverNames }: TcpRoute, asked: string): number {
  let rank = -1;
  for (const name of serverNames) {
    if (!hostHolds(name, asked)) continue;
    rank = Math.max(rank, name.kind === "exact" ? Infinity : name.host.length);
  }
  return rank;
}
