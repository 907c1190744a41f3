import type {
  ExplainedBackend,
  ExplainedFilter,
  ExplainedInbound,
  ExplainedRetry,
  ExplainedTimeouts,
  Explanation,
  LosingMatch,
  Origin,
} from "#/model/explanation.ts";
import type { FaultAction, HttpFilter, Ratio } from "#/model/route.ts";
import type { BackendTraffic, RateLimit } from "#/model/traffic.ts";

/** An explanation for people, in the order in which a request meets things. */
export function explanationText(explanation: Explanation): string {
  const { client, target, route, others, filters, backends, timeouts, retry } = explanation;
  const lines = [
    `from      ${client.workload} (pod ${client.pod}), as ${client.isMeshed ? client.identity : "nobody: no sidecar"}`,
    `to        ${target.name}, protocol ${target.protocol}${at(target.from)}`,
    `route     ${routeText(route)}${at(route.from)}`,
    ...others.map((each) => `          not ${matchText(each)}: ${each.why}${at(each.from)}`),
    ...filters.map((each) => `filter    ${filterLine(each)}`),
    ...(timeouts === null ? [] : [`timeouts  ${timeoutsText(timeouts)}`]),
    ...(route.kind === "http" ? [`retries   ${retryText(retry)}`] : []),
    ...backends.flatMap(backendLines),
  ];
  return lines.join("\n");
}

function routeText(route: Explanation["route"]): string {
  switch (route.kind) {
    case "http":
      return `${matchText(route)}: ${route.why}`;
    case "connection":
      return `${route.route}: ${route.why}`;
    case "none":
      return `none: ${route.why}`;
  }
}

function matchText({ route, rule, ruleName, match }: Omit<LosingMatch, "why" | "from">): string {
  const name = ruleName === "" ? "" : ` (${ruleName})`;
  return `${route} rule ${rule}${name}${match === 0 ? "" : ` match ${match}`}`;
}

function filterLine({ filter, applies, note, from }: ExplainedFilter): string {
  const what = `${filterText(filter)}${note === "" ? "" : ` => ${note}`}`;
  return `${what}${applies ? "" : ", which does not hit this request"}${at(from)}`;
}

function filterText(filter: HttpFilter): string {
  switch (filter.kind) {
    case "request-headers":
    case "response-headers": {
      const { set, add, remove } = filter.change;
      const parts = [
        ...set.map(([name, value]) => `set ${name}: ${value}`),
        ...add.map(([name, value]) => `add ${name}: ${value}`),
        ...remove.map((name) => `remove ${name}`),
      ];
      return `${filter.kind === "request-headers" ? "request" : "answer"}: ${parts.join(", ")}`;
    }
    case "redirect":
      return `redirect with ${filter.status}`;
    case "rewrite":
      return "rewrite";
    case "mirror":
      return `mirror ${percent(filter.ratio)} to ${"path" in filter.backend ? filter.backend.path : filter.backend.source.name}`;
    case "cors":
      return `CORS for ${filter.cors.allowOrigins.join(", ")}`;
    case "fail":
      return `fail ${percent(filter.ratio)} with ${filter.status}`;
    case "fault":
      return `fault in ${percent(filter.ratio)}: ${faultText(filter.action)}`;
  }
}

function faultText(action: FaultAction): string {
  switch (action.kind) {
    case "delay":
      return `delay by ${action.delayMs} ms${action.jitterMs === 0 ? "" : ` and up to ${action.jitterMs} more`}`;
    case "abort":
      return `abort with ${action.status} (gRPC ${action.grpcStatus})`;
    case "reset":
      return "reset";
    case "bandwidth":
      return `${action.bytesPerSecond} bytes a second`;
    case "slow-close":
      return `the end ${action.delayMs} ms late`;
  }
}

function timeoutsText(timeouts: ExplainedTimeouts): string {
  const parts = [
    ["request", timeouts.requestMs],
    ["response", timeouts.responseMs],
    ["attempt", timeouts.attemptMs],
    ["idle", timeouts.idleMs],
    ["grpc-timeout", timeouts.callMs],
  ].flatMap(([name, ms]) => (ms === null ? [] : [`${name} ${ms} ms`]));
  const fields = timeouts.fields.length === 0 ? "" : `, by the request's own ${timeouts.fields.join(", ")}`;
  return parts.length === 0 ? "none" : `${parts.join(", ")}${fields}${at(timeouts.from)}`;
}

function retryText(retry: ExplainedRetry | null): string {
  if (retry === null || retry.policy.retriesMax === 0)
    return "none by policy (what reached nobody is sent on)";
  const { policy } = retry;
  const causes = [
    ...policy.statusRanges.map(([from, to]) => (from === to ? String(from) : `${from}-${to}`)),
    ...policy.grpcCodes.map((code) => `gRPC ${code}`),
    ...(policy.onConnectionError ? ["connection errors"] : []),
  ];
  const wait = `after ${policy.backoff.minMs} to ${policy.backoff.maxMs} ms`;
  const each = policy.attemptTimeoutMs === null ? "" : `, or no answer in ${policy.attemptTimeoutMs} ms`;
  return `up to ${policy.retriesMax} on ${causes.join(", ") || "nothing"}${each}, ${wait}${at(retry.from)}`;
}

function backendLines(backend: ExplainedBackend): string[] {
  const { name, share, refusal, from, filters, attemptTimeoutMs, traffic, trafficFrom, endpoints, inbound } =
    backend;
  const head = `backend   ${percentOf(share)} ${name}${at(from)}`;
  if (refusal !== "") return [`${head}`, `          answered with an error: ${refusal}`];
  const [first, ...more] = trafficLines(traffic);
  const origins = trafficFrom.map(at).join("");
  return [
    head,
    ...filters.map((each) => `  filter    ${filterLine(each)}`),
    ...(attemptTimeoutMs === null ? [] : [`  timeout   ${attemptTimeoutMs} ms an attempt`]),
    `  balance   ${first}${origins}`,
    ...more.map((each) => `            ${each}`),
    `  endpoint  ${endpoints.endpoint === null ? "" : `${endpoints.endpoint}: `}${endpoints.reason} (${SEEN_BY[endpoints.seenBy]})`,
    ...endpoints.members.map(({ address, pod, state, why, pending, latencyMs }) => {
      const doing = pending < 0 ? "" : `, ${pending} under way, ${latencyMs.toFixed(1)} ms`;
      return `            ${address}${pod === "" ? "" : ` ${pod}`}: ${state}${why === "" ? "" : `, ${why}`}${doing}`;
    }),
    ...(endpoints.omitted === 0 ? [] : [`            and ${endpoints.omitted} more`]),
    ...inbound.flatMap(inboundLines),
  ];
}

const SEEN_BY = {
  sidecar: "as the client's sidecar sees them now",
  mesh: "as the control plane has them; the client's sidecar has not used them of late",
  folder: "as the folder says, once all pods are ready",
} as const;

function trafficLines(traffic: BackendTraffic): string[] {
  const {
    balancing,
    persistence,
    zone,
    accrual,
    limits,
    retryBudget,
    slowStartMs,
    subsetSize,
    connectTimeoutMs,
  } = traffic;
  const hashOn = balancing.hashOn.map((key) =>
    key.kind === "source" ? "source" : `${key.kind} ${key.name}`,
  );
  const bounds = Object.entries(limits).flatMap(([name, value]) => (value === 0 ? [] : [`${name} ${value}`]));
  return [
    `${balancing.algorithm}${hashOn.length === 0 ? "" : ` on ${hashOn.join(", then ")}`}`,
    ...(persistence === null ? [] : [`sessions by ${persistence.kind} ${persistence.name}`]),
    ...(zone === null
      ? []
      : [`the client's zone first, until ${zone.spillAtPending} under way at each endpoint there`]),
    ...(slowStartMs === 0 ? [] : [`new endpoints grow to their share in ${slowStartMs} ms`]),
    ...(subsetSize === 0 ? [] : [`${subsetSize} endpoints of all`]),
    ...(accrual === null
      ? []
      : [
          `an endpoint is set aside ${[
            ...(accrual.consecutiveFailures === 0
              ? []
              : [`after ${accrual.consecutiveFailures} failures in a row`]),
            ...(accrual.successRateMin === 0
              ? []
              : [`below ${percentOf(accrual.successRateMin)} successes in ${accrual.windowMs} ms`]),
          ].join(" or ")}; never more than ${percentOf(1 - traffic.ejectionFloor)}`,
        ]),
    ...(bounds.length === 0 ? [] : [`bounds: ${bounds.join(", ")}`]),
    ...(connectTimeoutMs === null ? [] : [`connects within ${connectTimeoutMs} ms`]),
    `retry budget ${retryBudget.percent}% of requests in ${retryBudget.intervalMs} ms, and always ${retryBudget.floorCount} in ${retryBudget.floorIntervalMs} ms`,
  ];
}

function inboundLines({
  workload,
  port,
  isMeshed,
  authorization,
  rates,
  concurrency,
}: ExplainedInbound): string[] {
  const { allowed, by, from, would } = authorization;
  if (!isMeshed) return [`  inbound   ${workload} port ${port} has no sidecar: nothing is asked or limited`];
  return [
    `  inbound   ${workload} port ${port}: ${allowed ? `allowed by ${by}` : by}${at(from)}`,
    ...(would === null
      ? []
      : [
          `            were mode Audit enforced: ${would.verdict === "would_deny" ? "denied" : "allowed"} by ${would.rule}${at(would.from)}`,
        ]),
    ...rates.map(
      ({ limit, applies, from }) =>
        `            ${rateText(limit)}${applies ? "" : ", which does not count this request"}${at(from)}`,
    ),
    ...(concurrency === null
      ? []
      : [
          `            adaptive concurrency, ${concurrency.limit.limitMin} to ${concurrency.limit.limitMax} at a time${at(concurrency.from)}`,
        ]),
  ];
}

function rateText({ key, requests, windowMs, burst, scope }: RateLimit): string {
  const per =
    key.kind === "total" ? "" : key.kind === "header" ? ` for each ${key.name}` : " for each identity";
  return `at most ${requests} in ${windowMs} ms (${burst} at once)${per}, ${scope === "global" ? "all pods together" : "each pod"}`;
}

/** ` [HTTPRoute shop/web, routes.yaml:12]`; nothing for a default. */
function at({ object, file, line }: Origin): string {
  return file === "" ? "" : ` [${object}, ${file}:${line}]`;
}

function percent({ numerator, denominator }: Ratio): string {
  return percentOf(denominator === 0 ? 0 : Math.min(1, numerator / denominator));
}

function percentOf(share: number): string {
  return `${Number((100 * share).toFixed(2))}%`;
}
