import type { InboundDefault } from "#/kube/inbound-default.ts";
import type { AccessRule, AccessSource, NetworkMatch, PeerMatch } from "#/model/access.ts";
import type { NodeInfo } from "#/model/node-protocol.ts";
import type { PolicySource } from "#/model/policy.ts";
import { sourceOf } from "../backends.ts";
import { ANYONE } from "./sources.ts";

/** What lets through, or refuses, what no policy is about. `server`: whose `accessPolicy` it is; null: of an annotation. */
export function defaultRules(
  value: InboundDefault,
  server: PolicySource | null,
  node: NodeInfo,
): readonly AccessRule[] {
  const rule = (
    stage: AccessRule["stage"],
    name: InboundDefault,
    sources: readonly AccessSource[] | null,
  ): AccessRule => ({
    action: "default",
    stage,
    source: server === null ? sourceOf("", "default", "", name) : { ...server, section: name },
    sources,
    requests: null,
    route: null,
    layer: "both",
  });
  const from = (peer: PeerMatch, networks: readonly NetworkMatch[] | null): AccessRule =>
    rule("both", value, [{ peer, networks }]);
  switch (value) {
    case "all-unauthenticated":
      return [rule("both", value, null)];
    case "all-authenticated":
      return [from({ kind: "authenticated" }, null)];
    case "cluster-unauthenticated":
      return [from(ANYONE, meshNetworks(node))];
    case "cluster-authenticated":
      return [from({ kind: "authenticated" }, meshNetworks(node))];
    // That nobody is let in is said, so that a refusal can name it.
    case "deny":
      return [rule("both", value, [])];
    case "audit":
      return [rule("enforced", value, null), rule("proposed", value, [])];
  }
}

/** Addresses of the mesh's pods, and this machine's. */
function meshNetworks({ podCidr, gatewayIp }: NodeInfo): readonly NetworkMatch[] {
  return [
    { net: podCidr, except: [] },
    { net: hostNetwork(gatewayIp), except: [] },
  ];
}

export function hostNetwork(ip: string): string {
  return `${ip}/${ip.includes(":") ? 128 : 32}`;
}
