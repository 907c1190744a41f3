import { addressKey } from "#/base/address.ts";
import type { Endpoint } from "#/model/endpoint.ts";
import type {
  ExplainedBackend,
  ExplainedEndpoints,
  ExplainedFilter,
  ExplainedInbound,
  Origin,
} from "#/model/explanation.ts";
import { dnsName } from "#/model/identity.ts";
import { ruleOf } from "#/model/policy.ts";
import type { Backend, RouteBackend } from "#/model/route.ts";
import type { BackendTraffic } from "#/model/traffic.ts";
import { BACKEND_TRAFFIC_DEFAULTS } from "#/model/traffic.ts";
import { decideAccess } from "#/stack/access/decide.ts";
import { ruleText } from "#/stack/access/flows.ts";
import { Balancer } from "#/stack/balance/balancer.ts";
import type { RequestHead } from "#/stack/http/exchange.ts";
import { anyHolds, RequestMatch } from "#/stack/limits/request-match.ts";
import { sharesOf } from "#/stack/route/split.ts";
import { isReachedThroughSidecar } from "../answers/endpoints.ts";
import { endpointOf } from "../policy/endpoint.ts";
import { inboundPolicyFor } from "../policy/policy.ts";
import type { ViewEndpoint, ViewPod } from "../services/mesh-view.ts";
import { serviceFqdn } from "../services/mesh-view.ts";
import { zoneOf } from "../zone.ts";
import { accessOf, originOfRule } from "./explain-access.ts";
import type { ExplainContext } from "./explain-request.ts";
import { DEFAULT, originIn, originOf } from "./origin.ts";
import { clientName } from "./resolve.ts";

/** What is known of a rule's request at its backends. */
export interface RuleRequest {
  /** As the rule's filters leave it. */
  readonly head: RequestHead;
  filtersOf(backend: RouteBackend, index: number): readonly ExplainedFilter[];
  /** As that backend's filters leave it. */
  headFor(backend: RouteBackend): RequestHead;
  originOf(index: number): Origin;
}

/** The backends of a rule with their shares, in its order. */
export function explainBackends(
  context: ExplainContext,
  choice: "first" | "random",
  backends: readonly RouteBackend[],
  request: RuleRequest,
): ExplainedBackend[] {
  const endpoints = backends.map(({ backend }) => endpointsOf(context, backend));
  const shares = sharesOf(choice, backends, {
    isReady: (i) => endpoints[i]!.length > 0,
    isInvalid: (i) => backends[i]!.backend.kind === "forbidden",
  });
  return backends.map((each, i) => {
    const { backend, weight, attemptTimeoutMs } = each;
    const traffic = (backend.kind === "forbidden" ? null : backend.traffic) ?? BACKEND_TRAFFIC_DEFAULTS;
    const head = request.headFor(each);
    return {
      name:
        backend.kind === "balancer"
          ? backend.path
          : backend.kind === "forward"
            ? addressKey(backend.endpoint.address)
            : ruleOf(backend.source),
      kind: backend.kind,
      share: shares[i]!,
      weight,
      refusal: backend.kind === "forbidden" ? backend.reason : "",
      from: request.originOf(i),
      filters: request.filtersOf(each, i),
      attemptTimeoutMs,
      traffic,
      trafficFrom: trafficFrom(context, backend),
      endpoints: explainEndpoints(context, traffic, endpoints[i]!.map(endpointOf), head),
      inbound: explainInbound(context, endpoints[i]!, head),
    };
  });
}

/** Ready ones of a Service, and the addresses of a name outside. */
function endpointsOf({ view }: ExplainContext, backend: Backend): readonly ViewEndpoint[] {
  if (backend.kind !== "balancer") return [];
  for (const service of view.servicesByName.values()) {
    const fqdn = serviceFqdn(view, service);
    const port = service.ports.find((each) => `${fqdn}:${each.port}` === backend.path);
    if (port !== undefined) return port.endpoints;
  }
  const { kind, namespace, name } = backend.source;
  const external = kind === "XBackend" ? view.policy.externals.get(`${namespace}/${name}`) : undefined;
  if (external?.kind === "backend") {
    const { hostname, port } = external.backend;
    const ips = view.outsideAddresses?.get(hostname) ?? [];
    return ips.map((ip) => ({ ip, port, hostname: null, pod: null }));
  }
  return [];
}

function trafficFrom({ view }: ExplainContext, { source }: Backend): Origin[] {
  const found = view.policy.trafficFrom(`${source.namespace}/${source.name}`, source.port);
  return found.length === 0 ? [DEFAULT] : found.map((loaded) => originIn(loaded, ["spec"]));
}

/** By a balancer of the sidecar's own kind that has served nobody yet. */
function explainEndpoints(
  { client, seenBy }: ExplainContext,
  traffic: BackendTraffic,
  endpoints: readonly Endpoint[],
  { fields }: RequestHead,
): ExplainedEndpoints {
  const balancer = new Balancer<null>({
    traffic,
    client: { id: `${client.name}.${client.namespace}`, zone: zoneOf(client.labels) },
    random: { next: () => 0 },
    make: () => null,
    drop: () => {},
  });
  balancer.update(endpoints, 0);
  const { endpoint, reason, candidates, omitted } = balancer.explainPick(
    0,
    [],
    fields,
    undefined,
    traffic.persistence,
  );
  const members = candidates.map(({ address, pod, state, why }) => ({
    address,
    pod,
    state,
    why,
    pending: -1,
    latencyMs: -1,
  }));
  return { seenBy, endpoint, reason, members, omitted };
}

/** Once for each workload and port behind a backend: its pods are alike. */
function explainInbound(
  context: ExplainContext,
  endpoints: readonly ViewEndpoint[],
  head: RequestHead,
): ExplainedInbound[] {
  const { view } = context;
  const seen = new Map<string, { pod: ViewPod; port: number }>();
  for (const { pod, port } of endpoints)
    if (pod !== null) {
      const key = `${pod.namespace} ${clientName(pod)} ${port}`;
      if (!seen.has(key)) seen.set(key, { pod, port });
    }
  return [...seen.values()].map(({ pod, port }): ExplainedInbound => {
    const isMeshed = isReachedThroughSidecar(pod, port);
    const workload = `${clientName(pod)} (${pod.namespace})`;
    if (!isMeshed)
      return {
        workload,
        port,
        isMeshed,
        authorization: { allowed: true, by: "no sidecar asks", from: DEFAULT, would: null },
        rates: [],
        concurrency: null,
      };
    const { limits } = inboundPolicyFor(view, pod, port);
    return {
      workload,
      port,
      isMeshed,
      authorization: explainAuthorization(context, pod, port, head),
      rates: (limits?.rates ?? []).map((limit) => ({
        limit,
        applies: anyHolds(
          limit.matches.map((match) => new RequestMatch(match)),
          head,
        ),
        from: originOf(view.policy, limit.source, ["spec", "rates", Number(limit.source.section)]),
      })),
      concurrency:
        limits === null || limits.concurrency === null
          ? null
          : {
              limit: limits.concurrency,
              from: originOf(view.policy, limits.concurrency.source, ["spec", "concurrency"]),
            },
    };
  });
}

/** A token that the request may carry is not looked at: that it has none is what can be said. */
function explainAuthorization(
  { view, client }: ExplainContext,
  pod: ViewPod,
  port: number,
  { method, path, authority, fields }: RequestHead,
): ExplainedInbound["authorization"] {
  if (client.ip === "")
    return { allowed: false, by: "the client has no address yet", from: DEFAULT, would: null };
  const { access, isOpaque } = accessOf(view, pod, port);
  const { identity, ip } = client;
  const { verdict, by, reason, would } = decideAccess(access, {
    ip,
    peer: { identity, name: dnsName(identity) },
    request: isOpaque ? null : { method, path, authority, fields, claims: null },
  });
  const allowed = verdict === "allowed";
  return {
    allowed,
    by: allowed ? ruleText(by) : reason,
    from: originOfRule(view, by),
    would:
      would === null
        ? null
        : { verdict: would.verdict, rule: ruleText(would.by), from: originOfRule(view, would.by) },
  };
}
