import { toBinary } from "@bufbuild/protobuf";
import { OutboundPolicySchema } from "#/gen/linkerd/outbound_pb.ts";
import type { Capabilities } from "#/model/capabilities.ts";
import type { CompiledPolicy } from "../policy/compile.ts";
import { audienceOf } from "../policy/policy.ts";
import type { PolicyClient } from "../policy/policy.ts";
import type { MeshView } from "../services/mesh-view.ts";
import { outboundPolicyOf } from "./outbound-policy.ts";
import type { StandardLosses } from "./standard-losses.ts";
import type { Loss } from "./standard-refusal.ts";
import type { Target } from "./target.ts";

interface Encoded {
  readonly bytes: Uint8Array;
  readonly losses: readonly Loss[];
}

/** They go with the policy: at most one for each port of a Service and audience. */
const ENCODED = new WeakMap<CompiledPolicy, Map<string, Encoded>>();

/**
 * `OutboundPolicies.Watch`, encoded. What is said of a Service follows from the folder and not from who is ready, and most clients are
 * told the same: it is encoded once for each state of the folder, or each endpoint that comes or goes would cost as much as
 * there are routes and clients.
 */
export function encodedPolicyOf(
  view: MeshView,
  target: Target,
  client: PolicyClient | null,
  capabilities: Capabilities,
  losses: StandardLosses,
): Uint8Array {
  if (target.kind !== "service")
    return toBinary(OutboundPolicySchema, outboundPolicyOf(view, target, client, capabilities, losses));
  let known = ENCODED.get(view.policy);
  if (known === undefined) ENCODED.set(view.policy, (known = new Map()));
  const { service, port } = target;
  const key = JSON.stringify([
    capabilities.isExtended,
    view.node.clusterDomain,
    service.namespace,
    service.name,
    port.port,
    port.name,
    port.protocol,
    audienceOf(view, service, client),
  ]);
  let encoded = known.get(key);
  if (encoded === undefined) {
    const lost: Loss[] = [];
    const noted = { note: (_: MeshView, some: readonly Loss[]): void => void lost.push(...some) };
    const message = outboundPolicyOf(view, target, client, capabilities, noted);
    known.set(key, (encoded = { bytes: toBinary(OutboundPolicySchema, message), losses: lost }));
  }
  if (!capabilities.isExtended) losses.note(view, encoded.losses);
  return encoded.bytes;
}
