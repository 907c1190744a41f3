import { addressKey } from "#/base/address.ts";
import type { IpAddress } from "#/base/address.ts";
import type { InboundDefault } from "#/kube/inbound-default.ts";
import type { PortRange } from "#/kube/mesh-annotations.ts";
import type { NodeInfo } from "#/model/node-protocol.ts";
import type { Identity } from "#/model/identity.ts";
import type { Protocol } from "#/model/policy.ts";
import type { KeySet } from "../jwt/key-sets.ts";
import type { CompiledPolicy } from "../policy/compile.ts";

/**
 * One state of the mesh as discovery and policy read it: immutable, made anew after each change. Everything that the RPCs
 * answer is a function of one `MeshView` and the request.
 */
export interface MeshView {
  readonly node: NodeInfo;
  readonly podsByIp: ReadonlyMap<string, ViewPod>;
  /** By `namespace/name`. A pod that is leaving gives way to its successor of the same name. */
  readonly podsByName: ReadonlyMap<string, ViewPod>;
  readonly servicesByIp: ReadonlyMap<string, ViewService>;
  /** By `namespace/name`. */
  readonly servicesByName: ReadonlyMap<string, ViewService>;
  readonly policy: CompiledPolicy;
  /** Identities that were taken back before their certificates end; absent: none. */
  readonly revoked?: readonly Identity[];
  /** By URL, of issuers of tokens; absent where nobody fetches them. */
  readonly keySets?: ReadonlyMap<string, KeySet>;
  /** Of names outside that XBackends stand for; absent where nobody resolves them. */
  readonly outsideAddresses?: ReadonlyMap<string, readonly IpAddress[]>;
}

export interface ViewPod {
  readonly uid: string;
  readonly name: string;
  readonly namespace: string;
  readonly labels: Readonly<Record<string, string>>;
  /** "" until its network is up. */
  readonly ip: IpAddress | "";
  readonly identity: Identity;
  /** Kind in lower case and name of the workload that made it; null for a pod of its own. */
  readonly workload: { readonly kind: string; readonly name: string } | null;
  readonly templateHash: string;
  readonly isMeshed: boolean;
  readonly isReady: boolean;
  /** Let go: it gets no new traffic through Services and still answers what it has. */
  readonly isLeaving: boolean;
  readonly hostname: string;
  readonly subdomain: string | null;
  readonly opaquePorts: readonly PortRange[];
  readonly skipInboundPorts: readonly number[];
  /** The pod's own word on who may use what nothing else is said about; null: none. */
  readonly inboundDefault: InboundDefault | null;
  readonly ports: readonly { readonly name: string; readonly port: number }[];
  /** HTTP probes that the machine makes: path and port. */
  readonly probes: readonly { readonly path: string; readonly port: number }[];
  /** Ports at which the machine asks for health by gRPC. */
  readonly grpcProbePorts: readonly number[];
  /** Ports that the machine connects to, to see whether anybody listens. */
  readonly tcpProbePorts: readonly number[];
  /** By port: what the Services in front of it declare, where they agree. */
  readonly protocols: ReadonlyMap<number, Protocol>;
}

export interface ViewService {
  readonly name: string;
  readonly namespace: string;
  readonly clusterIp: IpAddress | null;
  readonly isHeadless: boolean;
  readonly externalName: string | null;
  /** TCP ports. */
  readonly ports: readonly ViewServicePort[];
}

export interface ViewServicePort {
  readonly name: string;
  readonly port: number;
  /** Annotations included. */
  readonly protocol: Protocol;
  /** Ready ones, sorted by address. */
  readonly endpoints: readonly ViewEndpoint[];
}

export interface ViewEndpoint {
  readonly ip: IpAddress;
  readonly port: number;
  /** For names of single pods behind a headless Service. */
  readonly hostname: string | null;
  /** Null for an address outside the mesh. */
  readonly pod: ViewPod | null;
}

export function endpointKey(endpoint: ViewEndpoint): string {
  return addressKey(endpoint);
}

export function serviceFqdn(view: MeshView, service: { name: string; namespace: string }): string {
  return `${service.name}.${service.namespace}.svc.${view.node.clusterDomain}`;
}
