import type { PodPlan } from "#/model/pod-plan.ts";
import type { MeshView } from "../../services/mesh-view.ts";
import { inboundPolicyFor } from "../policy.ts";
import { inboundAccessFor, type AccessIndex } from "./access-index.ts";
import { kernelDenialsOf } from "./kernel-denials.ts";

/** Networks of all ports of a pod; ports that come after it are left to the sidecar. */
const NETWORKS_PER_POD_MAX = 1024;

/** Whether any policy refuses by address alone: most meshes have none, and then no pod is looked at. */
const hasDenials = new WeakMap<AccessIndex, boolean>();

/** The pod's plan with what the kernel is to refuse at its declared, opaque ports; the plan itself where that is nothing. */
export function withRefusedInbound(view: MeshView, plan: PodPlan): PodPlan {
  if (plan.sidecar === null || !anyDenial(view)) return plan;
  const pod = view.podsByName.get(`${plan.namespace}/${plan.name}`);
  if (pod === undefined) return plan;
  const refusedInbound: string[] = [];
  for (const port of new Set(pod.ports.map((each) => each.port))) {
    // Where requests are seen, who is refused is answered 403 with the rule; only an opaque connection is reset.
    const { protocol } = inboundPolicyFor(view, pod, port);
    if ((protocol !== "opaque" && protocol !== "tls") || pod.skipInboundPorts.includes(port)) continue;
    const networks = kernelDenialsOf(inboundAccessFor(view, pod, port), view.node.gatewayIp);
    if (refusedInbound.length + networks.length > NETWORKS_PER_POD_MAX) break;
    refusedInbound.push(...networks.map((net) => `${net}:${port}`));
  }
  return refusedInbound.length === 0 ? plan : { ...plan, sidecar: { ...plan.sidecar, refusedInbound } };
}

function anyDenial({ policy, node }: MeshView): boolean {
  const index = policy.access;
  let found = hasDenials.get(index);
  if (found === undefined) {
    const rules = [...index.entries.values()].flatMap((entries) =>
      entries.flatMap((entry) => entry.rules.map(({ rule }) => rule)),
    );
    found = rules.some((rule) => kernelDenialsOf({ routes: [], rules: [rule] }, node.gatewayIp).length > 0);
    hasDenials.set(index, found);
  }
  return found;
}
