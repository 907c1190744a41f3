import { parseIp } from "#/base/address.ts";
import { parseIdentity } from "#/model/identity.ts";
import { durationMs } from "../duration.ts";
import { INBOUND_DEFAULTS, isInboundDefault } from "../inbound-default.ts";
import { parseQuantity } from "../quantity.ts";

/** Checks that a pattern alone would explain badly: each gives what is wrong, or null. */
export const CHECKS: Readonly<Record<string, (value: unknown) => string | null>> = {
  dnsLabel: (value) =>
    typeof value === "string" && value.length <= 63 && /^[a-z0-9]([a-z0-9-]*[a-z0-9])?$/.test(value)
      ? null
      : "must be a DNS label: at most 63 of a-z, 0-9 and -, beginning and ending with a letter or digit",
  dnsSubdomain: (value) =>
    typeof value === "string" &&
    value.length <= 253 &&
    /^[a-z0-9]([a-z0-9-]*[a-z0-9])?(\.[a-z0-9]([a-z0-9-]*[a-z0-9])?)*$/.test(value)
      ? null
      : "must be a DNS name of a-z, 0-9, - and .",
  portName: (value) =>
    typeof value === "string" && isPortName(value)
      ? null
      : "must be a port name: at most 15 of a-z, 0-9 and -, with at least one letter",
  portRef: (value) => {
    if (typeof value === "number")
      return Number.isInteger(value) && value >= 1 && value <= 65535 ? null : "must be a port, 1 to 65535";
    return typeof value === "string" && isPortName(value)
      ? null
      : "must be a port number (without quotes) or a port name";
  },
  quantity: (value) =>
    (typeof value === "string" || typeof value === "number") && (parseQuantity(value) ?? -1) >= 0
      ? null
      : "must be a quantity such as 500m, 2, 64Mi",
  intOrPercent: (value) => {
    if (typeof value === "number")
      return Number.isInteger(value) && value >= 0 ? null : "must be a number of pods or a percentage";
    return typeof value === "string" && /^\d{1,3}%$/.test(value)
      ? null
      : 'must be a number of pods or a percentage such as "25%"';
  },
  envName: (value) =>
    typeof value === "string" && /^[^=\0]+$/.test(value) ? null : "must be a variable name without =",
  envValue: (value) =>
    typeof value === "string"
      ? value.includes("\0")
        ? "must not contain a zero byte"
        : null
      : "must be text: put it in quotes",
  absolutePath: (value) =>
    typeof value === "string" &&
    value.startsWith("/") &&
    !value.split("/").includes("..") &&
    !value.includes("\0")
      ? null
      : "must be an absolute path without ..",
  insidePath: (value) =>
    typeof value === "string" &&
    !value.startsWith("/") &&
    !value.split("/").includes("..") &&
    !value.includes("\0")
      ? null
      : "must be a relative path without ..",
  ip: (value) => (typeof value === "string" && parseIp(value) !== null ? null : "must be an IP address"),
  clusterIp: (value) =>
    value === "None" || value === "" || (typeof value === "string" && parseIp(value)?.includes(":") === false)
      ? null
      : "must be an IPv4 address or None",
  base64: (value) =>
    typeof value === "string" &&
    /^[A-Za-z0-9+/\s]*={0,2}\s*$/.test(value) &&
    value.replace(/\s/g, "").length % 4 === 0
      ? null
      : "must be base64",
  duration: (value) =>
    typeof value === "string" && durationMs(value) !== null
      ? null
      : "must be a duration such as 500ms, 10s or 1h30m",
  headerName: (value) =>
    typeof value === "string" && value.length <= 256 && /^[A-Za-z0-9!#$%&'*+\-.^_`|~]+$/.test(value)
      ? null
      : "must be a name of letters, digits and - as headers and cookies have",
  matchPath: (value) =>
    typeof value === "string" && value.length > 0 && value.length <= 1024
      ? null
      : "must be a path of 1 to 1,024 characters",
  hostPattern: (value) =>
    typeof value === "string" &&
    value.length <= 253 &&
    /^(\*\.)?[a-z0-9]([a-z0-9-]*[a-z0-9])?(\.[a-z0-9]([a-z0-9-]*[a-z0-9])?)*$/.test(value)
      ? null
      : "must be a host in lower case such as example.com, or *.example.com for all below it",
  cidr: (value) => {
    const [ip, bits, more] = typeof value === "string" ? value.split("/") : [];
    const parsed = parseIp(ip ?? "");
    return parsed !== null &&
      more === undefined &&
      /^\d{1,3}$/.test(bits ?? "") &&
      Number(bits) <= (parsed.includes(":") ? 128 : 32)
      ? null
      : "must be a network such as 192.0.2.0/24";
  },
  network: (value) =>
    typeof value === "string" && (parseIp(value) !== null || CHECKS["cidr"]!(value) === null)
      ? null
      : "must be a network such as 192.0.2.0/24, or an address",
  method: (value) =>
    typeof value === "string" && value.length <= 64 && /^[A-Za-z0-9!#$%&'*+\-.^_`|~]+$/.test(value)
      ? null
      : "must be a method such as GET",
  requestPath: (value) =>
    typeof value === "string" && value.length > 0 && value.length <= 1024 && !/[\0-\x20\x7f]/.test(value)
      ? null
      : "must be a path of 1 to 1,024 characters without spaces",
  accountOrAny: (value) =>
    value === "*" || CHECKS["dnsSubdomain"]!(value) === null
      ? null
      : "must be the name of a service account, or * for any of the namespace",
  spiffeId: (value) =>
    typeof value === "string" && value.startsWith("spiffe://") && parseIdentity(value) !== null
      ? null
      : "must be of the form spiffe://DOMAIN/ns/NAMESPACE/sa/SERVICEACCOUNT",
  trustDomain: (value) =>
    typeof value === "string" && value.length <= 255 && /^[a-z0-9._-]+$/.test(value)
      ? null
      : "must be a trust domain such as cluster.local: a-z, 0-9, ., - and _",
  inboundDefault: (value) =>
    isInboundDefault(value) ? null : `must be one of ${INBOUND_DEFAULTS.join(", ")}`,
  capability: (value) =>
    typeof value === "string" && /^(CAP_)?[A-Z_]+$/.test(value)
      ? null
      : "must be a capability such as NET_BIND_SERVICE",
  capabilityAdd: (value) => {
    if (typeof value !== "string" || !/^(CAP_)?[A-Z_]+$/.test(value))
      return "must be a capability such as NET_BIND_SERVICE";
    const name = value.replace(/^CAP_/, "");
    return TOO_STRONG.has(name)
      ? `${name} would let the container out of its pod or undo the mesh; run such a program outside of it`
      : null;
  },
};

const TOO_STRONG = new Set([
  "ALL",
  "SYS_ADMIN",
  "SYS_PTRACE",
  "SYS_MODULE",
  "SYS_RAWIO",
  "SYS_BOOT",
  "BPF",
  "PERFMON",
  "MKNOD",
  "NET_ADMIN",
  "DAC_READ_SEARCH",
  "MAC_ADMIN",
  "MAC_OVERRIDE",
  "CHECKPOINT_RESTORE",
]);

function isPortName(value: string): boolean {
  return (
    value.length <= 15 &&
    /^[a-z0-9]([a-z0-9-]*[a-z0-9])?$/.test(value) &&
    /[a-z]/.test(value) &&
    !value.includes("--")
  );
}
