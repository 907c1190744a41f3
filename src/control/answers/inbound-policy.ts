import type { MessageInitShape } from "@bufbuild/protobuf";
import { create } from "@bufbuild/protobuf";
import type { Authz, Server } from "#/gen/linkerd/inbound_pb.ts";
import type { HttpRoute_RuleSchema, HttpRouteSchema, ProxyProtocolSchema } from "#/gen/linkerd/inbound_pb.ts";
import { AuthzSchema, ServerSchema } from "#/gen/linkerd/inbound_pb.ts";
import type { RateLimit } from "#/model/traffic.ts";
import { ruleOf } from "#/model/policy.ts";
import { inboundAccessFor } from "../policy/access/access-index.ts";
import { inboundLimitsFor } from "../policy/policy.ts";
import { wireAccess } from "./encode-access.ts";
import type { StandardLimit } from "./encode-limits.ts";
import { standardLimits, wireLimits } from "./encode-limits.ts";
import type { StandardLosses } from "./standard-losses.ts";
import { HttpMethod_Registered } from "#/gen/linkerd/http_types_pb.ts";
import type { Capabilities } from "#/model/capabilities.ts";
import type { MeshView, ViewPod } from "../services/mesh-view.ts";
import { isOpaquePort } from "./endpoints.ts";
import { byDefault, millis, wireIp, wireNetwork } from "./wire.ts";

const DETECT_MS = 10_000;

/** `InboundServerPolicies.WatchPort` of one port of a pod: what it speaks, and who may. */
export function inboundServerOf(
  view: MeshView,
  pod: ViewPod,
  port: number,
  capabilities: Capabilities,
  losses: StandardLosses,
): Server {
  const everybody = allow("all-unauthenticated");
  const limits = inboundLimitsFor(view, pod, port);
  const isStandard = limits !== null && !capabilities.isExtended;
  const standard: StandardLimit = isStandard
    ? standardLimits(limits, podsLike(view, pod), (source, what) => losses.note(view, [{ source, what }]))
    : { kind: "none" };
  return create(ServerSchema, {
    protocol: { kind: protocolOf(pod, port, everybody, standard) },
    serverIps: pod.ip === "" ? [] : [wireIp(pod.ip)],
    authorizations: [everybody],
    labels: { group: "", kind: "default", name: "all-unauthenticated" },
    ...(limits === null || isStandard ? {} : { limits: wireLimits(limits) }),
    ...(capabilities.isExtended ? { access: wireAccess(inboundAccessFor(view, pod, port)) } : {}),
  });
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
  authz: Authz,
  limit: StandardLimit,
): NonNullable<MessageInitShape<typeof ProxyProtocolSchema>["kind"]> {
  const protocol = isOpaquePort(pod, port) ? "opaque" : (pod.protocols.get(port) ?? "detect");
  const routes = [...probeRoutes(pod, port), defaultRoute(authz, limit)];
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

function defaultRoute(authz: Authz, limit: StandardLimit): MessageInitShape<typeof HttpRouteSchema> {
  return {
    metadata: byDefault("default"),
    authorizations: [authz],
    rules: [
      {
        matches: [{ path: { kind: { case: "prefix", value: "/" } } }],
        filters: limit.kind === "refused" ? [tooMany(limit.rate)] : [],
      },
    ],
  };
}

function tooMany({
  source,
}: RateLimit): NonNullable<MessageInitShape<typeof HttpRoute_RuleSchema>["filters"]>[number] {
  const message = `${ruleOf(source)} counts requests as this workload's proxy cannot`;
  return { kind: { case: "failureInjector", value: { status: 429, message } } };
}

/** The machine's own probes are let through whatever the policy, or a policy could make a pod look dead. */
function probeRoutes(pod: ViewPod, port: number): MessageInitShape<typeof HttpRouteSchema>[] {
  const paths = [...new Set(pod.probes.filter((probe) => probe.port === port).map((probe) => probe.path))];
  if (paths.length === 0) return [];
  return [
    {
      metadata: byDefault("probe"),
      authorizations: [allow("probe")],
      rules: [
        {
          matches: paths.map((path) => ({
            path: { kind: { case: "exact" as const, value: path } },
            method: { type: { case: "registered" as const, value: HttpMethod_Registered.GET } },
          })),
        },
      ],
    },
  ];
}

function allow(name: string): Authz {
  return create(AuthzSchema, {
    networks: [{ net: wireNetwork("0.0.0.0", 0) }, { net: wireNetwork("::", 0) }],
    authentication: { permit: { case: "unauthenticated", value: {} } },
    labels: { group: "", kind: "default", name },
    metadata: byDefault(name),
  });
}
