import type { InboundPolicy, OutboundPolicy, PolicySource } from "#/model/policy.ts";
import { policyTo } from "#/model/policy.ts";
import type { Backend } from "#/model/route.ts";
import type { InboundLimits } from "#/model/traffic.ts";
import { isOpaquePort } from "../answers/endpoints.ts";
import type { Target } from "../answers/target.ts";
import type { MeshView, ViewEndpoint, ViewPod } from "../services/mesh-view.ts";
import { inboundAccessFor, inboundLabelsFor } from "./access/access-index.ts";
import { inboundJwtFor } from "./access/jwt.ts";
import { serviceKey } from "./attach.ts";
import { serviceBackend, sourceOf } from "./backends.ts";
import type { PolicyClient } from "./client.ts";
import type { PortRoutes, ServicePolicy } from "./compile.ts";
import { withEgress } from "./egress.ts";
import { endpointOf } from "./endpoint.ts";
import { namesClients, withFaults } from "./faults.ts";
import { limitsFor } from "./limits.ts";

export type { PolicyClient } from "./client.ts";

/**
 * How a client's sidecar treats a target: what `OutboundPolicies.Watch` says, in the model's terms. `client` null: nobody
 * knows who asks, and only what is for everybody counts. Cheap: everything was compiled when the folder changed.
 */
export function outboundPolicyFor(
  view: MeshView,
  target: Target,
  client: PolicyClient | null,
): OutboundPolicy {
  switch (target.kind) {
    case "service": {
      const { service, port } = target;
      const key = `${service.namespace}/${service.name}`;
      const backend = serviceBackend(view, service, port.port, view.policy.trafficOf(key, port.port));
      const plain = policyTo(backend, backend.source, port.protocol);
      const policy = view.policy.services.get(key);
      const routed = policy === undefined ? plain : withRoutes(plain, policy, port.port, client);
      const http = withFaults(view.policy.faults, routed.http, key, port.name, client);
      return http === routed.http ? routed : { ...routed, http };
    }
    case "pod": {
      const { pod, ip, port } = target;
      const source = sourceOf("core", "Pod", pod.namespace, pod.name, port);
      const protocol = isOpaquePort(pod, port) ? "opaque" : (pod.protocols.get(port) ?? "detect");
      return policyTo(forwardTo(source, { ip, port, hostname: null, pod }), source, protocol);
    }
    case "outside": {
      const source = defaultSource("egress-fallback");
      const { ip, port } = target;
      const plain = policyTo(forwardTo(source, { ip, port, hostname: null, pod: null }), source, "detect");
      // The mesh's own DNS: without it no name of a Service could be asked for.
      const isDns = ip === view.node.gatewayIp && port === DNS_PORT;
      return isDns ? plain : withEgress(view.policy.egress, plain, target, client);
    }
    case "undefined-port": {
      const { service, port } = target;
      const source = sourceOf("core", "Service", service.namespace, service.name, port);
      return policyTo({ kind: "forbidden", source, reason: "undefined-port" }, source, "opaque");
    }
    case "nobody": {
      const source = defaultSource("undefined-address");
      return policyTo({ kind: "forbidden", source, reason: "undefined-address" }, source, "opaque");
    }
  }
}

const DNS_PORT = 53;

/** What a pod's sidecar takes in on a port; null: whatever comes. */
export function inboundLimitsFor(view: MeshView, pod: ViewPod, port: number): InboundLimits | null {
  return limitsFor(view.policy.limits, pod, port);
}

/** How a pod's sidecar treats what comes to a port: what `InboundServerPolicies.WatchPort` says, in the model's terms. */
export function inboundPolicyFor(view: MeshView, pod: ViewPod, port: number): InboundPolicy {
  return {
    protocol: isOpaquePort(pod, port) ? "opaque" : (pod.protocols.get(port) ?? "detect"),
    labels: inboundLabelsFor(view, pod, port),
    limits: inboundLimitsFor(view, pod, port),
    access: inboundAccessFor(view, pod, port),
    jwt: inboundJwtFor(view, pod, port),
  };
}

function withRoutes(
  plain: OutboundPolicy,
  policy: ServicePolicy,
  port: number,
  client: PolicyClient | null,
): OutboundPolicy {
  const routes = routesFor(policy, port, client);
  if (routes === null) return policy.defaults === null ? plain : withDefaults(plain, policy.defaults);
  if (routes.kind === "http") return { ...plain, http: routes.http };
  return { ...plain, protocol: routes.kind === "tls" ? "tls" : "opaque", tcp: routes.tcp };
}

/** What of a client counts for what it is told of a Service: clients of one audience are told the same. */
export function audienceOf(
  { policy }: MeshView,
  service: { readonly namespace: string; readonly name: string },
  client: PolicyClient | null,
): string {
  if (client === null) return "";
  const { namespace, serviceAccount } = client;
  if (namesClients(policy.faults)) return `${namespace}/${serviceAccount}`;
  return policy.services.get(serviceKey(service))?.consumers.has(namespace) === true ? namespace : "";
}

/** GEP-1294: a namespace with routes of its own for a Service is routed by those alone. */
function routesFor(policy: ServicePolicy, port: number, client: PolicyClient | null): PortRoutes | null {
  const own = client === null ? undefined : policy.consumers.get(client.namespace)?.get(port);
  return own ?? policy.producer.get(port) ?? null;
}

function withDefaults(
  plain: OutboundPolicy,
  defaults: NonNullable<ServicePolicy["defaults"]>,
): OutboundPolicy {
  return {
    ...plain,
    http: plain.http.map((route) => ({
      ...route,
      rules: route.rules.map((rule) => ({ ...rule, ...defaults })),
    })),
  };
}

function forwardTo(source: PolicySource, endpoint: ViewEndpoint): Backend {
  return { kind: "forward", source, endpoint: endpointOf(endpoint), traffic: null };
}

function defaultSource(name: string): PolicySource {
  return sourceOf("", "default", "", name);
}
