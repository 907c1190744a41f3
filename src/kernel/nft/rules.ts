/**
 * The text of a pod's nftables rules: a pure function from what the pod is and which Services there are. The whole table is
 * replaced in one transaction, so that no packet meets half of a change; connections keep their translation, which conntrack holds.
 *
 *   application ─ output ─┬─ loopback, own addresses ───────────── untouched
 *                         ├─ let-through, UDP ─ pillion_services ─ a virtual IP becomes a backend
 *                         └─ every other TCP ───────────────────── redirect to the sidecar's outbound port
 *   world ─ prerouting ───┬─ admin port, skipped ───────────────── untouched
 *                         ├─ what policy refuses by address ────── reset
 *                         └─ every other TCP ───────────────────── redirect to the sidecar's inbound port
 *
 * Nobody home: a redirected connection meets a closed port and is refused. pillion_guard refuses what should have
 * been redirected and was not, and what another process than the sidecar answers on the sidecar's ports.
 */
import { formatIp, parseIp } from "#/base/address.ts";
import { checkedPort, parseCidr, type Cidr } from "../cidr.ts";
import { InterceptionError } from "../errors.ts";
import { DEFAULT_SIDECAR_PORTS, type PodInterception, type ServiceVip } from "../pod.ts";

export const TABLE = "pillion";

const BACKENDS_PER_SERVICE_MAX = 1024;

export function renderRules(pod: PodInterception, services: readonly ServiceVip[]): string {
  const family = (v6: boolean): string[] => pod.podIps.map(checkedIp).filter((ip) => ip.includes(":") === v6);
  const meshed = pod.mode === "meshed" ? pod : null;
  const lines = [
    // `delete` fails on a table that is not there; declaring it first makes it be.
    `table inet ${TABLE} {}`,
    `delete table inet ${TABLE}`,
    `table inet ${TABLE} {`,
    `set pillion_own4 { type ipv4_addr; flags interval; auto-merge; ${elements(["127.0.0.0/8", ...family(false)])} }`,
    `set pillion_own6 { type ipv6_addr; ${elements(["::1", ...family(true)])} }`,
    ...serviceChains(services),
    "chain pillion_output {",
    "type nat hook output priority -100; policy accept;",
    ...(meshed === null ? [] : [`${sidecarMatch(meshed)} return`]),
    "ip daddr @pillion_own4 return",
    "ip6 daddr @pillion_own6 return",
    "meta l4proto udp goto pillion_services",
    "meta l4proto != tcp return",
    ...(meshed === null ? ["goto pillion_services"] : outboundRules(meshed)),
    "}",
    ...(meshed === null ? [] : [...inboundChain(meshed), ...refusalChain(meshed)]),
    ...guardChain(pod, family(true).length > 0, family(false).length > 0),
    "}",
  ];
  return `${lines.join("\n")}\n`;
}

function outboundRules(pod: PodInterception): string[] {
  const { outbound } = portsOf(pod);
  return [
    ...portMatch("dport", pod.skipOutboundPorts).map((match) => `${match} goto pillion_services`),
    ...pod.letThroughCidrs.map((cidr) => `${cidrMatch("daddr", parseCidr(cidr))} goto pillion_services`),
    `meta l4proto tcp redirect to :${outbound}`,
  ];
}

function inboundChain(pod: PodInterception): string[] {
  const { inbound, admin } = portsOf(pod);
  return [
    "chain pillion_prerouting {",
    "type nat hook prerouting priority -100; policy accept;",
    'iifname "lo" return',
    "meta l4proto != tcp return",
    ...portMatch("dport", [admin, ...pod.skipInboundPorts]).map((match) => `${match} return`),
    ...(pod.skipInboundCidrs ?? []).map((cidr) => `${cidrMatch("saddr", parseCidr(cidr))} return`),
    `meta l4proto tcp redirect to :${inbound}`,
    "}",
  ];
}

/** Before translation: what policy refuses for its address, at the port that it asks for. */
function refusalChain(pod: PodInterception): string[] {
  const refused = pod.refusedInbound ?? [];
  if (refused.length === 0) return [];
  const { admin } = portsOf(pod);
  return [
    "chain pillion_refusals {",
    "type filter hook prerouting priority -150; policy accept;",
    'iifname "lo" return',
    "ct state != new return",
    ...portMatch("dport", [admin, ...pod.skipInboundPorts]).map((match) => `${match} return`),
    ...(pod.skipInboundCidrs ?? []).map((cidr) => `${cidrMatch("saddr", parseCidr(cidr))} return`),
    ...refused.map((cidr) => `${cidrMatch("saddr", parseCidr(cidr))} counter reject with tcp reset`),
    "}",
  ];
}

/** After translation: what is left to refuse. */
function guardChain(pod: PodInterception, has6: boolean, has4: boolean): string[] {
  // A Service with nobody ready. Redirected connections no longer carry its address here.
  const dead = [
    "ip daddr . meta l4proto . th dport @pillion_dead4",
    "ip6 daddr . meta l4proto . th dport @pillion_dead6",
  ];
  const rules = dead.flatMap((match) => [
    `meta l4proto tcp ${match} reject with tcp reset`,
    `${match} reject`,
  ]);
  if (pod.mode === "meshed") {
    const { inbound, outbound } = portsOf(pod);
    const uid = sidecarUid(pod);
    if (uid !== null) {
      // An answer from the sidecar's port by somebody else. Answers of the kernel itself (a reset) have no owner,
      // and match neither way.
      rules.unshift(
        `ct direction reply ct status dnat tcp sport { ${inbound}, ${outbound} } meta skuid != ${uid} drop`,
      );
    }
    rules.push(
      `${sidecarMatch(pod)} return`,
      "meta l4proto != tcp return",
      "ct direction reply return",
      'oifname "lo" return',
      // A pod with no address of a family has no business in it: fail at once, so that programs try the other.
      ...(has6 ? [] : ["meta nfproto ipv6 reject with tcp reset"]),
      ...(has4 ? [] : ["meta nfproto ipv4 reject with tcp reset"]),
      "ct status dnat return",
      ...portMatch("dport", pod.skipOutboundPorts).map((match) => `${match} return`),
      ...pod.letThroughCidrs.map((cidr) => `${cidrMatch("daddr", parseCidr(cidr))} return`),
      "reject with tcp reset",
    );
  }
  return ["chain pillion_guard {", "type filter hook output priority 0; policy accept;", ...rules, "}"];
}

/** One chain per virtual IP, found through a map, so that the number of Services costs nothing per packet. */
function serviceChains(services: readonly ServiceVip[]): string[] {
  const chains: string[] = [];
  const vips: Record<"4" | "6", string[]> = { "4": [], "6": [] };
  const dead: Record<"4" | "6", string[]> = { "4": [], "6": [] };
  // As in a map of the kernel, the last of two with one address counts; nft takes no two.
  const distinct = new Map(
    services.map((service) => [`${service.ip} ${service.port} ${service.protocol}`, service]),
  );
  [...distinct.values()].forEach((service, i) => {
    const ip = checkedIp(service.ip);
    const version = ip.includes(":") ? "6" : "4";
    const backends = service.backends
      .slice(0, BACKENDS_PER_SERVICE_MAX)
      .filter((backend) => backend.ip.includes(":") === ip.includes(":"))
      .map((backend) => `${checkedIp(backend.ip)} . ${checkedPort(backend.port)}`);
    const key = `${ip} . ${service.protocol} . ${checkedPort(service.port)}`;
    if (backends.length === 0) {
      dead[version].push(key);
      return;
    }
    const targets = backends.map((backend, slot) => `${slot} : ${backend}`).join(", ");
    const target = version === "4" ? "ip" : "ip6";
    chains.push(
      `chain pillion_vip${i} { meta l4proto ${service.protocol} dnat ${target} to numgen random mod ${backends.length} map { ${targets} }; }`,
    );
    vips[version].push(`${key} : goto pillion_vip${i}`);
  });
  const key = (version: "4" | "6"): string => `ipv${version}_addr . inet_proto . inet_service`;
  return [
    ...chains,
    `map pillion_vips4 { type ${key("4")} : verdict; ${elements(vips["4"])} }`,
    `map pillion_vips6 { type ${key("6")} : verdict; ${elements(vips["6"])} }`,
    `set pillion_dead4 { type ${key("4")}; ${elements(dead["4"])} }`,
    `set pillion_dead6 { type ${key("6")}; ${elements(dead["6"])} }`,
    "chain pillion_services {",
    "ip daddr . meta l4proto . th dport vmap @pillion_vips4",
    "ip6 daddr . meta l4proto . th dport vmap @pillion_vips6",
    "}",
  ];
}

/** How a packet of the sidecar is told from one of the application. */
function sidecarMatch(pod: PodInterception): string {
  if (pod.exempt !== undefined && "sourceAddress" in pod.exempt) {
    const ip = checkedIp(pod.exempt.sourceAddress);
    return `${ip.includes(":") ? "ip6" : "ip"} saddr ${ip}`;
  }
  return `meta skuid ${sidecarUid(pod)}`;
}

function sidecarUid(pod: PodInterception): number | null {
  if (pod.exempt === undefined) return pod.sidecarUid;
  return "uid" in pod.exempt ? pod.exempt.uid : null;
}

function portsOf(pod: PodInterception): typeof DEFAULT_SIDECAR_PORTS {
  return pod.ports ?? DEFAULT_SIDECAR_PORTS;
}

function portMatch(direction: "dport" | "sport", ports: readonly number[]): string[] {
  const distinct = [...new Set(ports.map(checkedPort))];
  return distinct.length === 0 ? [] : [`tcp ${direction} { ${distinct.join(", ")} }`];
}

function cidrMatch(direction: "daddr" | "saddr", cidr: Cidr): string {
  const v6 = cidr.bytes.length === 16;
  const port = cidr.port === null ? "" : ` tcp dport ${cidr.port}`;
  // A prefix of nothing is the whole family, which nft does not take as an address.
  if (cidr.prefixBits === 0) return `meta nfproto ipv${v6 ? 6 : 4}${port}`;
  return `${v6 ? "ip6" : "ip"} ${direction} ${formatIp(cidr.bytes)}/${cidr.prefixBits}${port}`;
}

function elements(list: readonly string[]): string {
  return list.length === 0 ? "" : `elements = { ${list.join(", ")} };`;
}

/** What goes into the rules is an address and nothing else. */
function checkedIp(text: string): string {
  const ip = parseIp(text);
  if (ip === null) throw new InterceptionError("BAD_INPUT", `"${text}" is no IP address`);
  return ip;
}
