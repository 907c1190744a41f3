import type { MessageInitShape } from "@bufbuild/protobuf";
import { create } from "@bufbuild/protobuf";
import type { Authz, Server } from "#/gen/linkerd/inbound_pb.ts";
import type { HttpRouteSchema, ProxyProtocolSchema } from "#/gen/linkerd/inbound_pb.ts";
import { AuthzSchema, ServerSchema } from "#/gen/linkerd/inbound_pb.ts";
import { HttpMethod_Registered } from "#/gen/linkerd/http_types_pb.ts";
import type { ViewPod } from "../services/mesh-view.ts";
import { isOpaquePort } from "./endpoints.ts";
import { byDefault, millis, wireIp, wireNetwork } from "./wire.ts";

const DETECT_MS = 10_000;

/** `InboundServerPolicies.WatchPort` of one port of a pod: what it speaks, and who may. */
export function inboundServerOf(pod: ViewPod, port: number): Server {
  const everybody = allow("all-unauthenticated");
  return create(ServerSchema, {
    protocol: { kind: protocolOf(pod, port, everybody) },
    serverIps: pod.ip === "" ? [] : [wireIp(pod.ip)],
    authorizations: [everybody],
    labels: { group: "", kind: "default", name: "all-unauthenticated" },
  });
}

function protocolOf(
  pod: ViewPod,
  port: number,
  authz: Authz,
): NonNullable<MessageInitShape<typeof ProxyProtocolSchema>["kind"]> {
  const protocol = isOpaquePort(pod, port) ? "opaque" : (pod.protocols.get(port) ?? "detect");
  const routes = [...probeRoutes(pod, port), defaultRoute(authz)];
  switch (protocol) {
    case "opaque":
    case "tls":
      return { case: "opaque", value: {} };
    case "http1":
      return { case: "http1", value: { routes } };
    case "http2":
    case "grpc":
      return { case: "http2", value: { routes } };
    case "detect":
      return { case: "detect", value: { timeout: millis(DETECT_MS), httpRoutes: routes } };
  }
}

function defaultRoute(authz: Authz): MessageInitShape<typeof HttpRouteSchema> {
  return {
    metadata: byDefault("default"),
    authorizations: [authz],
    rules: [{ matches: [{ path: { kind: { case: "prefix", value: "/" } } }] }],
  };
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
