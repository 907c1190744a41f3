import type { IpAddress } from "#/base/address.ts";
import { DNS_CLASS_IN, DnsType, type DnsData, type DnsRecord } from "#/wire/dns.ts";
import type { PodStatus, ServicePlan } from "#/model/pod-plan.ts";

/** All that the name server has to know; written by the agent, read by the DNS process. JSON-safe. */
export interface ZoneSnapshot {
  readonly clusterDomain: string;
  readonly podCidr: string;
  readonly serviceCidr: string;
  readonly services: readonly ServicePlan[];
  readonly pods: readonly { readonly namespace: string; readonly ip: string }[];
  /** Pods that reach Services by their loopback network (see `loopbackOf`). */
  readonly explicitPods: readonly { readonly ip: string; readonly ownPorts: readonly number[] }[];
}

export function zoneSnapshot(
  domain: { readonly clusterDomain: string; readonly podCidr: string; readonly serviceCidr: string },
  services: readonly ServicePlan[],
  pods: readonly PodStatus[],
  explicitPods: ZoneSnapshot["explicitPods"],
): ZoneSnapshot {
  const running = pods.filter((pod) => pod.ip !== "" && pod.phase !== "Succeeded" && pod.phase !== "Failed");
  return {
    clusterDomain: domain.clusterDomain,
    podCidr: domain.podCidr,
    serviceCidr: domain.serviceCidr,
    services,
    pods: running.map(({ namespace, ip }) => ({ namespace, ip })),
    explicitPods,
  };
}

export type ZoneAnswer =
  /** Not ours: ask the machine's resolvers. */
  | { readonly kind: "forward" }
  | { readonly kind: "records"; readonly records: readonly DnsRecord[] }
  /** The name is there, but nothing of this type. */
  | { readonly kind: "no-data" }
  | { readonly kind: "no-name" };

/** Short, because endpoints move; long enough that a burst of look-ups asks once. */
export const TTL_S = 5;

/**
 * The cluster's names as Kubernetes' DNS specification 1.1.0 has them: Services, headless Services with their pods'
 * host names, SRV records of named ports, pods by address, and the way back from addresses.
 */
export class Zone {
  readonly #domain: string;
  readonly #networks: readonly (readonly [base: number, mask: number])[];
  /** Lower-case name to its records. A name with children only has an empty list: it exists (RFC 8020). */
  readonly #records = new Map<string, DnsRecord[]>();

  constructor(snapshot: ZoneSnapshot) {
    this.#domain = snapshot.clusterDomain.toLowerCase();
    this.#networks = [snapshot.podCidr, snapshot.serviceCidr].map(network);
    this.#add(this.#domain, null);
    this.#add(`dns-version.${this.#domain}`, { kind: "TXT", texts: [new TextEncoder().encode("1.1.0")] });
    for (const service of snapshot.services) this.#addService(service);
    for (const { namespace, ip } of snapshot.pods) {
      this.#add(`${dashed(ip)}.${namespace}.pod.${this.#domain}`, address(ip));
    }
  }

  /** `name` without a dot at its end, in any case. */
  lookup(name: string, type: number): ZoneAnswer {
    const key = name.toLowerCase();
    const records = this.#records.get(key);
    if (records === undefined) return this.#isOurs(key) ? { kind: "no-name" } : { kind: "forward" };
    const wanted = records.filter(
      (record) => type === DnsType.ANY || typeOf(record.data) === type || record.data.kind === "CNAME",
    );
    return wanted.length === 0 ? { kind: "no-data" } : { kind: "records", records: wanted };
  }

  /** Says that the domain has no such name or type, and how long that may be believed (RFC 2308 §3). */
  startOfAuthority(): DnsRecord {
    return record(this.#domain, {
      kind: "SOA",
      primary: `ns.dns.${this.#domain}`,
      mailbox: `hostmaster.${this.#domain}`,
      serial: 1,
      refreshS: 7200,
      retryS: 1800,
      expireS: 86_400,
      minimumS: TTL_S,
    });
  }

  #addService(service: ServicePlan): void {
    const name = `${service.name}.${service.namespace}.svc.${this.#domain}`.toLowerCase();
    this.#add(name, null);
    if (service.externalName !== null) {
      this.#add(name, { kind: "CNAME", target: service.externalName });
      return;
    }
    if (service.clusterIp !== null) {
      this.#add(name, address(service.clusterIp));
      this.#add(reverseName(service.clusterIp), { kind: "PTR", target: name });
      for (const port of service.ports) this.#addPort(name, port, port.port, name);
      return;
    }
    for (const endpoint of service.endpoints) {
      if (endpoint.ip === "" || !(endpoint.ready || service.publishNotReady)) continue;
      const host = `${(endpoint.hostname ?? dashed(endpoint.ip)).toLowerCase()}.${name}`;
      this.#add(name, address(endpoint.ip));
      this.#add(host, address(endpoint.ip));
      if (endpoint.hostname !== null) this.#add(reverseName(endpoint.ip), { kind: "PTR", target: host });
      for (const [index, port] of service.ports.entries()) {
        const target = endpoint.targetPorts[index] ?? 0;
        if (target > 0) this.#addPort(name, port, target, host);
      }
    }
  }

  #addPort(name: string, port: ServicePlan["ports"][number], number: number, target: string): void {
    if (port.name === "") return;
    const label = `_${port.name}._${port.protocol.toLowerCase()}.${name}`.toLowerCase();
    this.#add(label, { kind: "SRV", priority: 0, weight: 100, port: number, target });
  }

  #add(name: string, data: DnsData | null): void {
    const records = this.#records.get(name) ?? [];
    if (data !== null) records.push(record(name, data));
    this.#records.set(name, records);
    for (let at = name.indexOf("."); at !== -1; at = name.indexOf(".", at + 1)) {
      const parent = name.slice(at + 1);
      if (!parent.endsWith(this.#domain)) break;
      if (!this.#records.has(parent)) this.#records.set(parent, []);
    }
  }

  /**
   * Names that nobody else can know: the cluster's domain, the reverse of its addresses, and names of one label, which
   * mean something only beside a search list. Some resolvers (c-ares, for TXT) ask for those as they stand; sent on to
   * the machine's resolvers they would at best be refused, at worst wait for nobody.
   */
  #isOurs(name: string): boolean {
    if (!name.includes(".")) return true;
    if (name === this.#domain || name.endsWith(`.${this.#domain}`)) return true;
    const reverse = /^(\d+)\.(\d+)\.(\d+)\.(\d+)\.in-addr\.arpa$/.exec(name);
    if (reverse === null) return false;
    const ip = reverse.slice(1, 5).reduceRight((sum, part) => sum * 256 + Number(part), 0);
    return this.#networks.some(([base, mask]) => (ip & mask) >>> 0 === base);
  }
}

export function typeOf(data: DnsData): number {
  return data.kind === "other" ? data.type : DnsType[data.kind];
}

function record(name: string, data: DnsData): DnsRecord {
  return { name, class: DNS_CLASS_IN, ttlS: TTL_S, data };
}

function address(ip: string): DnsData {
  return { kind: ip.includes(":") ? "AAAA" : "A", address: ip as IpAddress };
}

function dashed(ip: string): string {
  return ip.replaceAll(/[.:]/g, "-");
}

function reverseName(ip: string): string {
  return `${ip.split(".").toReversed().join(".")}.in-addr.arpa`;
}

function network(cidr: string): [base: number, mask: number] {
  const [ip = "", bits = "32"] = cidr.split("/");
  const mask = (0xffff_ffff << (32 - Number(bits))) >>> 0;
  const value = ip.split(".").reduce((sum, part) => sum * 256 + Number(part), 0);
  return [(value & mask) >>> 0, mask];
}
