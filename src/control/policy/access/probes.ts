import type { AccessRule, RequestCondition } from "#/model/access.ts";
import type { MeshView, ViewPod } from "../../services/mesh-view.ts";
import { sourceOf } from "../backends.ts";
import { hostNetwork } from "./defaults.ts";
import { ANY_REQUEST } from "./requests.ts";

/**
 * The machine's own probes are let through whatever the policy, or a policy could make a pod look dead. They come from where the
 * machine is in the pods' network, without an identity.
 */
export function probeRules({ node }: MeshView, pod: ViewPod, port: number): readonly AccessRule[] {
  const requests: RequestCondition[] = [];
  const paths = new Set(pod.probes.filter((probe) => probe.port === port).map(({ path }) => path));
  if (paths.size > 0)
    requests.push({
      ...ANY_REQUEST,
      methods: ["GET"],
      paths: [...paths].map((value) => ({ kind: "exact", value })),
    });
  if (pod.grpcProbePorts.includes(port))
    requests.push({
      ...ANY_REQUEST,
      methods: ["POST"],
      paths: [{ kind: "rpc", service: "grpc.health.v1.Health", method: "Check" }],
    });
  const rule: Omit<AccessRule, "requests" | "layer"> = {
    action: "exempt",
    stage: "both",
    source: sourceOf("", "default", "", "probe"),
    sources: [
      { peer: { kind: "unauthenticated" }, networks: [{ net: hostNetwork(node.gatewayIp), except: [] }] },
    ],
    route: null,
  };
  return [
    ...(requests.length === 0 ? [] : [{ ...rule, requests, layer: "requests" as const }]),
    // It says nothing, so that nothing tells it from other connections of the machine.
    ...(pod.tcpProbePorts.includes(port) ? [{ ...rule, requests: null, layer: "connections" as const }] : []),
  ];
}
