/**
 * Interception: how a pod's connections reach its sidecar, and how Services get their virtual IPs, told once for the
 * two ways we have (eBPF, nftables). The agent calls this; nobody else does.
 *
 * An interceptor holds no key and sees no payload. What it installs lives in the kernel: it outlives this process, fails
 * closed when the sidecar is away, and goes only by `remove` or `sweepLeftovers`.
 */
import { createEbpfInterceptor, ebpfSupport, sweepPins } from "./ebpf/interceptor.ts";
import { createNftInterceptor, nftSupport } from "./nft/interceptor.ts";
import type { Interceptor, Support } from "./pod.ts";

export { DEFAULT_SIDECAR_PORTS } from "./pod.ts";
export type { Interceptor, PodInterception, PodTraffic, ServiceVip, SidecarPorts, Support } from "./pod.ts";

/** What this kernel and this process's privileges allow. Tries for real; leaves nothing behind. */
export function detectSupport(): { ebpf: Support; nftables: Support } {
  return { ebpf: ebpfSupport(), nftables: nftSupport() };
}

export function openInterceptor(kind: Interceptor["kind"], instance: string): Interceptor {
  return kind === "ebpf" ? createEbpfInterceptor(instance) : createNftInterceptor(instance);
}

/**
 * Removes every pin of an instance whose agent is gone, and says what it removed. Rules of nftables live inside the
 * pods' network namespaces and die with them.
 */
export function sweepLeftovers(instance: string): string[] {
  return sweepPins(instance);
}
