import { readFileSync } from "node:fs";
import type { PodPlan } from "#/model/pod-plan.ts";

/** What every container gets unless its manifest says otherwise. */
export function defaultEnvironment(hostname: string, home: string, nodeDir: string): [string, string][] {
  return [
    ["PATH", `${nodeDir}:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin`],
    ["HOSTNAME", hostname],
    ["HOME", home],
  ];
}

/** Home folder of a user of this machine, "/" when there is none. */
export function homeOf(uid: number, passwd: string = readFileSync("/etc/passwd", "utf8")): string {
  const line = passwd.split("\n").find((each) => each.split(":")[2] === String(uid));
  return line?.split(":")[5] || "/";
}

/** The pod's own files of /etc. */
export function podFiles(
  plan: PodPlan,
  ip: string,
  nameserver: string,
  clusterDomain: string,
): Record<"resolv.conf" | "hosts" | "hostname", string> {
  const search = plan.dnsSearch.length > 0 ? `search ${plan.dnsSearch.join(" ")}\n` : "";
  const fqdn =
    plan.subdomain === null
      ? ""
      : `${plan.hostname}.${plan.subdomain}.${plan.namespace}.svc.${clusterDomain} `;
  const aliases = plan.hostAliases.map((alias) => `${alias.ip} ${alias.hostnames.join(" ")}\n`).join("");
  return {
    "resolv.conf": `nameserver ${nameserver}\n${search}options ndots:5\n`,
    hosts: `127.0.0.1 localhost\n::1 localhost ip6-localhost ip6-loopback\n${ip} ${fqdn}${plan.hostname}\n${aliases}`,
    hostname: `${plan.hostname}\n`,
  };
}
