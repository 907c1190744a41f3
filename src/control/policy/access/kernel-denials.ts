import { formatIp, parseIpBytes } from "#/base/address.ts";
import type { AccessPolicy, AccessRule, NetworkMatch } from "#/model/access.ts";
import { EVERYWHERE } from "./sources.ts";

/** Networks of one port; beyond it the rule that brought too many stays with the sidecar, which decides it all the same. */
const NETWORKS_MAX = 256;

/**
 * The networks from which an inbound connection is refused whoever comes and whatever it holds: what DENY rules say by address alone.
 * The kernel refuses them before the sidecar hears of them; everything else, the sidecar decides, and would decide these alike. Never
 * loopback, and never `machineIp`, whose probes go through before any rule.
 */
export function kernelDenialsOf(policy: AccessPolicy, machineIp: string): readonly string[] {
  const found = new Set<string>();
  for (const rule of policy.rules) {
    const networks = deniedBy(rule);
    if (networks === null) continue;
    const pieces = networks.flatMap(({ net, except }) => less(net, [...except, machineIp, ...LOOPBACK]));
    // What cannot be read refuses in the sidecar, too.
    if (pieces.includes(null)) continue;
    const grown = new Set([...found, ...(pieces as string[])]);
    if (grown.size > NETWORKS_MAX) continue;
    for (const piece of grown) found.add(piece);
  }
  return [...found];
}

/** Null: it is for the sidecar, because it looks at more than the address, or does not decide. */
function deniedBy(rule: AccessRule): readonly NetworkMatch[] | null {
  if (rule.action !== "deny" || rule.stage === "proposed") return null;
  if (rule.requests !== null || rule.route !== null || rule.layer !== "both") return null;
  if (rule.sources === null) return EVERYWHERE;
  // Of several sources, one is enough: those by address are taken, the others are left.
  const networks = rule.sources.flatMap((source) =>
    source.peer.kind === "anyone" ? (source.networks ?? EVERYWHERE) : [],
  );
  return networks.length === 0 ? null : networks;
}

const LOOPBACK = ["127.0.0.0/8", "::1/128"];

interface Range {
  readonly bits: 32 | 128;
  readonly prefix: number;
  readonly first: bigint;
}

/** `net` without `except`, as networks that hold nothing twice; a lone null where one of them cannot be read. */
function less(net: string, except: readonly string[]): (string | null)[] {
  const from = rangeOf(net);
  const holes = except.map(rangeOf);
  if (from === null || holes.includes(null)) return [null];
  const pieces: Range[] = [];
  split(from, holes as Range[], pieces);
  return pieces.map(textOf);
}

function split(range: Range, holes: readonly Range[], pieces: Range[]): void {
  // One more than fits, so that who counts sees that it is too much.
  if (pieces.length > NETWORKS_MAX || holes.some((hole) => holds(hole, range))) return;
  const inside = holes.filter((hole) => holds(range, hole));
  if (inside.length === 0) {
    pieces.push(range);
    return;
  }
  const prefix = range.prefix + 1;
  const half = 1n << BigInt(range.bits - prefix);
  split({ ...range, prefix }, inside, pieces);
  split({ ...range, prefix, first: range.first + half }, inside, pieces);
}

function holds(outer: Range, inner: Range): boolean {
  const shift = BigInt(outer.bits - outer.prefix);
  return (
    outer.bits === inner.bits && outer.prefix <= inner.prefix && outer.first >> shift === inner.first >> shift
  );
}

function rangeOf(text: string): Range | null {
  const [ip = "", length] = text.split("/");
  const bytes = parseIpBytes(ip);
  if (bytes === null) return null;
  const bits = bytes.length === 4 ? 32 : 128;
  const prefix = length === undefined ? bits : /^\d{1,3}$/.test(length) ? Number(length) : -1;
  if (prefix < 0 || prefix > bits) return null;
  const value = bytes.reduce((sum, byte) => (sum << 8n) | BigInt(byte), 0n);
  const shift = BigInt(bits - prefix);
  return { bits, prefix, first: (value >> shift) << shift };
}

function textOf({ bits, prefix, first }: Range): string {
  const bytes = Uint8Array.from({ length: bits / 8 }, (_, at) =>
    Number((first >> BigInt(bits - 8 - 8 * at)) & 0xffn),
  );
  return `${formatIp(bytes)}/${prefix}`;
}
