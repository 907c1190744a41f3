import type { MessageInitShape } from "@bufbuild/protobuf";
import { create } from "@bufbuild/protobuf";
import type { ProxyProtocolSchema, Server } from "#/gen/linkerd/inbound_pb.ts";
import { HttpRoute_RuleSchema, ServerSchema } from "#/gen/linkerd/inbound_pb.ts";
import type { AccessPolicy as WireAccessPolicy } from "#/gen/pillion/access_pb.ts";
import type { AccessPolicy } from "#/model/access.ts";
import type { Capabilities } from "#/model/capabilities.ts";
import { ruleOf } from "#/model/policy.ts";
import type { RateLimit } from "#/model/traffic.ts";
import { inboundAccessFor, inboundLabelsFor } from "../policy/access/access-index.ts";
import { inboundLimitsFor } from "../policy/policy.ts";
import { inboundJwtFor } from "../policy/access/jwt.ts";
import { wireJwt } from "./encode-jwt.ts";
import type { MeshView, ViewPod } from "../services/mesh-view.ts";
import { wireAccess } from "./encode-access.ts";
import type { StandardLimit } from "./encode-limits.ts";
import { standardLimits, wireLimits } from "./encode-limits.ts";
import { isOpaquePort } from "./endpoints.ts";
import type { StandardAccess, WireRoute } from "./standard-access.ts";
import { standardAccess } from "./standard-access.ts";
import type { StandardLosses } from "./standard-losses.ts";
import type { Lose } from "./standard-refusal.ts";
import { millis, wireIp } from "./wire.ts";

const DETECT_MS = 10_000;

/** `InboundServerPolicies.WatchPort` of one port of a pod: what it speaks, and who may. */
export function inboundServerOf(
  view: MeshView,
  pod: ViewPod,
  port: number,
  capabilities: Capabilities,
  losses: StandardLosses,
): Server {
  const { isExtended } = capabilities;
  const lose: Lose = (source, what) => {
    if (!isExtended) losses.note(view, [{ source, what }]);
  };
  const access = inboundAccessFor(view, pod, port);
  const jwt = inboundJwtFor(view, pod, port);
  if (jwt !== null) lose(jwt.source, "refuse these requests: they verify no tokens");
  const own = isExtended ? ownAccess(access) : null;
  const standard =
    jwt !== null ? standardAccess(probesOf(access), lose) : (own?.standard ?? standardAccess(access, lose));
  const limits = inboundLimitsFor(view, pod, port);
  const isStandard = limits !== null && !isExtended;
  const limit: StandardLimit = isStandard
    ? standardLimits(limits, podsLike(view, pod), lose)
    : { kind: "none" };
  return create(ServerSchema, {
    protocol: { kind: protocolOf(pod, port, standard.routes, limit) },
    serverIps: pod.ip === "" ? [] : [wireIp(pod.ip)],
    authorizations: [...standard.connections],
    labels: inboundLabelsFor(view, pod, port),
    ...(limits === null || isStandard ? {} : { limits: wireLimits(limits) }),
    ...(isExtended && jwt !== null ? { jwt: wireJwt(jwt) } : {}),
    ...(own === null ? {} : { access: own.access }),
  });
}

/** Of a port that takes tokens, where they cannot be verified: nobody, for a client could say what only the mesh may. */
function probesOf({ rules }: AccessPolicy): AccessPolicy {
  return { routes: [], rules: rules.filter(({ action }) => action === "exempt") };
}

/** Pods of one workload share a policy, and what it is on the wire. */
const OWN = new WeakMap<AccessPolicy, OwnAccess>();

interface OwnAccess {
  readonly access: WireAccessPolicy;
  /** For a sidecar of another version, which might not know the whole. */
  readonly standard: StandardAccess;
}

function ownAccess(policy: AccessPolicy): OwnAccess {
  const known = OWN.get(policy);
  if (known !== undefined) return known;
  const made = { access: wireAccess(policy), standard: standardAccess(policy, () => undefined) };
  OWN.set(policy, made);
  return made;
}

/** Pods of the same workload, this one included. */
function podsLike(view: MeshView, { namespace, workload }: ViewPod): number {
  if (workload === null) return 1;
  let count = 0;
  for (const pod of view.podsByName.values())
    if (
      pod.namespace === namespace &&
      pod.workload?.kind === workload.kind &&
      pod.workload.name === workload.name
    )
      count++;
  return count;
}

function protocolOf(
  pod: ViewPod,
  port: number,
  allowed: readonly WireRoute[],
  limit: StandardLimit,
): NonNullable<MessageInitShape<typeof ProxyProtocolSchema>["kind"]> {
  const protocol = isOpaquePort(pod, port) ? "opaque" : (pod.protocols.get(port) ?? "detect");
  const routes =
    limit.kind === "refused" ? allowed.map((route) => refusing(route, limit.rate)) : [...allowed];
  const rate = limit.kind === "limit" ? limit.limit : undefined;
  switch (protocol) {
    case "opaque":
    case "tls":
      return { case: "opaque", value: {} };
    case "http1":
      return { case: "http1", value: { routes, ...(rate === undefined ? {} : { localRateLimit: rate }) } };
    case "http2":
    case "grpc":
      return { case: "http2", value: { routes, ...(rate === undefined ? {} : { localRateLimit: rate }) } };
    case "detect":
      return {
        case: "detect",
        value: {
          timeout: millis(DETECT_MS),
          httpRoutes: routes,
          ...(rate === undefined ? {} : { httpLocalRateLimit: rate }),
        },
      };
  }
}

/** Probes go on: they are let through whatever else is said. */
function refusing(route: WireRoute, { source }: RateLimit): WireRoute {
  if (route.metadata?.kind?.case === "default" && route.metadata.kind.value === "probe") return route;
  const message = `${ruleOf(source)} counts requests as this workload's proxy cannot`;
  const filters = [{ kind: { case: "failureInjector" as const, value: { status: 429, message } } }];
  const rules = (route.rules ?? []).map(({ matches = [] }) =>
    create(HttpRoute_RuleSchema, { matches: [...matches], filters }),
  );
  return { ...route, rules };
}
