/** What an interceptor is told about a pod, what it tells about it, and what it can do: the same for eBPF and nftables. */
import type { IpAddress, SocketAddress } from "#/base/address.ts";

export interface PodInterception {
  /** Name of the mesh instance on this machine; scopes every pin and rule. */
  readonly instance: string;
  /** Unique inside the instance, e.g. `shop/web-0`. */
  readonly pod: string;
  /** A file that denotes the pod's network namespace: `/run/netns/x` or `/proc/PID/ns/net`. */
  readonly netnsPath: string;
  /** cgroup v2 directories. Processes must enter theirs before they make sockets; children of either are included. */
  readonly appCgroup: string;
  /** Empty for a service-only pod that never gets a sidecar. */
  readonly sidecarCgroup: string;
  /** The pod's own addresses, each family's preferred one first. Connections between them are never touched. */
  readonly podIps: readonly IpAddress[];
  /** "service-only": virtual IPs are translated, nothing is steered to a sidecar. */
  readonly mode: "meshed" | "service-only";
  /** How nftables tells the sidecar's connections from the application's. eBPF goes by cgroup and ignores it. */
  readonly sidecarUid: number;
  /** Ports reached without the sidecar. The admin port is always among the inbound ones. */
  readonly skipInboundPorts: readonly number[];
  readonly skipOutboundPorts: readonly number[];
  /** Outbound destinations that bypass the sidecar: `10.0.0.0/8`, `fd00::/8`, or with one port `10.0.0.0/8:443`. */
  readonly letThroughCidrs: readonly string[];
  /** Inbound sources that bypass the sidecar. Default none. */
  readonly skipInboundCidrs?: readonly string[];
  /** Inbound sources that policy refuses at one port of the pod, whoever they are: `10.0.0.0/8:443`. Answered with a reset. Default none. */
  readonly refusedInbound?: readonly string[];
  /** Sidecar ports. Default 4143, 4140, 4191. */
  readonly ports?: SidecarPorts;
  /** nftables only: recognise the sidecar by its source address instead of its uid (one uid in a user namespace). */
  readonly exempt?: { readonly uid: number } | { readonly sourceAddress: IpAddress };
}

export interface SidecarPorts {
  readonly inbound: number;
  readonly outbound: number;
  readonly admin: number;
}

export const DEFAULT_SIDECAR_PORTS: SidecarPorts = { inbound: 4143, outbound: 4140, admin: 4191 };

/** A virtual IP and port, and who is ready behind it. No backend: connections are refused. */
export interface ServiceVip {
  readonly ip: IpAddress;
  readonly port: number;
  readonly protocol: "tcp" | "udp";
  /** At most 1024 are used. Of the same family as `ip`. */
  readonly backends: readonly SocketAddress[];
}

/** What the kernel counted for one target of one pod since the pod was installed. Monotonic while the entry lives. */
export interface PodTraffic {
  readonly instance: string;
  readonly pod: string;
  readonly direction: "inbound" | "outbound";
  /**
   * "proxied": the sidecar's own sockets on the wire. "let-through": the application's, with no sidecar between. "refused": by policy, in
   * the kernel; `connections` counts attempts, and nothing else is counted.
   */
  readonly path: "proxied" | "let-through" | "refused";
  /** Outbound: the remote address. Inbound: the pod's address and port. */
  readonly target: SocketAddress;
  readonly connections: number;
  /** Connection attempts that never became established (outbound only). */
  readonly failures: number;
  /** Payload. Like all below it is added when a connection closes; of one of 64 segments or more also while it sends. */
  readonly bytesIn: number;
  readonly bytesOut: number;
  /** Retransmitted segments. */
  readonly retransmits: number;
  /** Smoothed round trip of the latest sample; null before the first. */
  readonly rttUs: number | null;
}

export interface Interceptor {
  readonly kind: "ebpf" | "nftables";
  /** Puts a pod under interception, or brings what is already installed up to date, without a gap. */
  install(pod: PodInterception): void;
  /** Applies changed addresses, ports, CIDRs or mode to an installed pod. */
  update(pod: PodInterception): void;
  /** Takes over what an earlier process installed for this pod. False: there is nothing whole to take over. */
  adopt(pod: PodInterception): boolean;
  /** Removes everything of a pod. Removing what is not there is no error. */
  remove(instance: string, pod: string): void;
  /** Replaces the machine's virtual IPs. Pods see each Service change at once; open connections stay where they are. */
  setServices(services: readonly ServiceVip[]): void;
  /** Empty for nftables: there nothing is counted. */
  readTelemetry(): PodTraffic[];
  /** Lets go of file descriptors and nothing else: interception stays. */
  close(): void;
}

export interface Support {
  readonly ok: boolean;
  /** When not ok: what is missing and what to check. */
  readonly reason: string;
}
