import { create, type MessageInitShape } from "@bufbuild/protobuf";
import { parseIpBytes } from "#/base/address.ts";
import type { IPNetwork } from "#/gen/linkerd/net_pb.ts";
import type {
  AccessPolicy as WireAccessPolicy,
  AccessRouteSchema,
  AccessRuleSchema,
  RequestConditionSchema,
  RequestCondition_PathSchema,
  SourceSchema,
} from "#/gen/pillion/access_pb.ts";
import {
  AccessPolicySchema,
  AccessRule_Action,
  AccessRule_Layer,
  AccessRule_Stage,
} from "#/gen/pillion/access_pb.ts";
import type {
  AccessPolicy,
  AccessRoute,
  AccessRule,
  AccessSource,
  NetworkMatch,
  RequestCondition,
} from "#/model/access.ts";
import type { PathMatch } from "#/model/route.ts";
import { wireHeader, wireHost, wireMatch, wireQuery } from "./encode-match.ts";
import { wireNetwork, wireSource } from "./wire.ts";

/** Who may use a port, whole, for a sidecar of ours. */
export function wireAccess({ routes, rules }: AccessPolicy): WireAccessPolicy {
  return create(AccessPolicySchema, { routes: routes.map(wireRoute), rules: rules.map(wireRule) });
}

function wireRoute({ source, hosts, matches }: AccessRoute): MessageInitShape<typeof AccessRouteSchema> {
  return {
    metadata: wireSource(source),
    hosts: hosts.map(wireHost),
    matches: matches.map(wireMatch),
  };
}

const ACTIONS = {
  exempt: AccessRule_Action.EXEMPT,
  deny: AccessRule_Action.DENY,
  allow: AccessRule_Action.ALLOW,
  restrict: AccessRule_Action.RESTRICT,
  default: AccessRule_Action.DEFAULT,
  audit: AccessRule_Action.AUDIT,
} as const;

const STAGES = {
  both: AccessRule_Stage.BOTH_STAGES,
  enforced: AccessRule_Stage.ENFORCED,
  proposed: AccessRule_Stage.PROPOSED,
} as const;

const LAYERS = {
  both: AccessRule_Layer.BOTH_LAYERS,
  connections: AccessRule_Layer.CONNECTIONS,
  requests: AccessRule_Layer.REQUESTS,
} as const;

function wireRule(rule: AccessRule): MessageInitShape<typeof AccessRuleSchema> {
  const { action, stage, layer, source, sources, requests, route } = rule;
  return {
    metadata: wireSource(source),
    action: ACTIONS[action],
    stage: STAGES[stage],
    layer: LAYERS[layer],
    ...(sources === null ? {} : { sources: { sources: sources.map(wireAccessSource) } }),
    ...(requests === null ? {} : { requests: wireRequests(requests) }),
    ...(route === null ? {} : { route }),
  };
}

/** A list that is there and empty holds for nothing, so "everything" is a message that is not there. */
export function wireRequests(requests: readonly RequestCondition[]): {
  readonly conditions: MessageInitShape<typeof RequestConditionSchema>[];
} {
  return { conditions: requests.map(wireCondition) };
}

function wireAccessSource({ peer, networks }: AccessSource): MessageInitShape<typeof SourceSchema> {
  return {
    peer: wirePeer(peer),
    ...(networks === null ? {} : { networks: { networks: networks.map(wireNetworkMatch) } }),
  };
}

function wirePeer(peer: AccessSource["peer"]): NonNullable<MessageInitShape<typeof SourceSchema>["peer"]> {
  switch (peer.kind) {
    case "anyone":
    case "unauthenticated":
    case "authenticated":
      return { case: peer.kind, value: {} };
    case "trust-domain":
      return { case: "trustDomain", value: peer.trustDomain };
    case "namespace": {
      const { trustDomain, namespace } = peer;
      return { case: "namespace", value: { trustDomain, namespace } };
    }
    case "identity": {
      const { trustDomain, namespace, serviceAccount } = peer;
      return { case: "identity", value: { trustDomain, namespace, serviceAccount } };
    }
    case "name":
      return { case: "name", value: peer.name };
    case "suffix":
      return { case: "suffix", value: { labels: [...peer.labels] } };
  }
}

/** Of the contract's networks, which the standard fields have too. */
export function wireNetworkMatch({ net, except }: NetworkMatch): { net: IPNetwork; except: IPNetwork[] } {
  return { net: networkOf(net), except: except.map(networkOf) };
}

/** "192.0.2.0/24"; an address alone is itself. */
function networkOf(text: string): IPNetwork {
  const [ip = "", bits] = text.split("/");
  const bitsMax = (parseIpBytes(ip)?.length ?? 0) * 8;
  return wireNetwork(ip, bits === undefined ? bitsMax : Number(bits));
}

function wireCondition(condition: RequestCondition): MessageInitShape<typeof RequestConditionSchema> {
  const { methods, paths, hosts, headers, query, claims } = condition;
  return {
    ...(methods === null ? {} : { methods: { methods: [...methods] } }),
    ...(paths === null ? {} : { paths: { paths: paths.map(wireConditionPath) } }),
    ...(hosts === null ? {} : { hosts: { hosts: hosts.map(wireHost) } }),
    headers: headers.map(wireHeader),
    query: query.map(wireQuery),
    claims: claims.map(({ claim, values }) => ({ claim, values: [...values] })),
  };
}

function wireConditionPath(path: PathMatch): MessageInitShape<typeof RequestCondition_PathSchema> {
  return path.kind === "rpc"
    ? { kind: { case: "rpc", value: { service: path.service, method: path.method } } }
    : { kind: { case: "path", value: { kind: { case: path.kind, value: path.value } } } };
}
