import { addressKey, type SocketAddress } from "#/base/address.ts";
import type { AccessDecision } from "#/model/access.ts";
import type { PeerIdentity } from "#/model/identity.ts";
import type { PolicySource } from "#/model/policy.ts";
import { ruleOf } from "#/model/policy.ts";
import type { Log } from "#/net/log.ts";
import type { AccessObserver } from "#/stack/access/observer.ts";
import type { InboundPort } from "#/stack/discovery.ts";
import { FAMILIES } from "#/stack/metrics/families.ts";
import type { Registry, Value } from "#/stack/metrics/registry.ts";
import { tlsLabels } from "#/stack/metrics/transport.ts";

/** Whose connection it is, and to where. */
export interface AccessParty {
  readonly target: SocketAddress;
  readonly client: SocketAddress;
  readonly peer: PeerIdentity | null;
  readonly port: InboundPort;
}

/** Where decisions are told: metrics, log, and whoever observes. */
export class AccessRecord {
  /** Null: nobody. */
  readonly observer: AccessObserver | null;
  readonly #registry: Registry;
  readonly #log: Log;

  constructor(registry: Registry, log: Log, observer: AccessObserver | null) {
    this.#registry = registry;
    this.#log = log;
    this.observer = observer;
  }

  /**
   * Counters of one outcome for one connection; the caller releases them. What is refused of requests is in the log once for each: as
   * often as connections are made, not as requests are.
   */
  tallyOf(party: AccessParty, decision: AccessDecision, of: "http" | "tcp"): Tally {
    const { peer, port, client } = party;
    const labels = {
      target_addr: addressKey(party.target),
      ...serverLabels(port),
      ...tlsLabels(peer, "client", "no_tls_from_remote"),
    };
    const registry = this.#registry;
    const { verdict, by, would, audits, reason } = decision;
    const values = [registry.counter(familyOf(decision, of), { ...labels, ...ruleLabels(by) })];
    const told = [
      ...(would === null ? [] : [{ verdict: would.verdict, by: would.by }]),
      ...audits.map((audit) => ({ verdict: "audit", by: audit })),
    ];
    for (const each of told)
      values.push(
        registry.counter(FAMILIES.inboundAuthzWould, {
          verdict: each.verdict,
          ...labels,
          ...ruleLabels(each.by),
        }),
      );
    if (verdict !== "allowed" && of === "http")
      this.#log.warn("requests of an inbound connection are refused", {
        client: addressKey(client),
        port: port.port,
        rule: namedRule(by, port),
        detail: reason,
      });
    return new Tally(values);
  }
}

export class Tally {
  readonly #first: Value;
  /** Of `would` and audits; empty nearly always. */
  readonly #more: readonly Value[];

  constructor([first, ...more]: readonly Value[]) {
    this.#first = first as Value;
    this.#more = more;
  }

  count(): void {
    this.#first.value++;
    for (let i = 0; i < this.#more.length; i++) (this.#more[i] as Value).value++;
  }

  release(): void {
    this.#first.release();
    for (const value of this.#more) value.release();
  }
}

/** "AuthorizationPolicy/shop/orders web-reads". Where nothing allows, what the port's own policy is called. */
export function namedRule(by: PolicySource, { policy }: InboundPort): string {
  if (by.kind === "default" && by.name === "deny") return ruleOf(policy.labels) || ruleOf(by);
  return `${ruleOf(by)} ${by.section}`.trim();
}

function familyOf(
  { verdict }: AccessDecision,
  of: "http" | "tcp",
): (typeof FAMILIES)["inboundHttpAuthzAllow"] {
  if (verdict === "no-route") return FAMILIES.inboundHttpRouteNotFound;
  if (of === "http")
    return verdict === "allowed" ? FAMILIES.inboundHttpAuthzAllow : FAMILIES.inboundHttpAuthzDeny;
  return verdict === "allowed" ? FAMILIES.inboundTcpAuthzAllow : FAMILIES.inboundTcpAuthzDeny;
}

/** Facts §17. */
function serverLabels({ policy: { labels } }: InboundPort): Record<string, string> {
  return {
    srv_group: labels["group"] ?? "",
    srv_kind: labels["kind"] ?? "",
    srv_name: labels["name"] ?? "",
  };
}

function ruleLabels({ group, kind, namespace, name, section }: PolicySource): Record<string, string> {
  return {
    authz_group: group,
    authz_kind: kind,
    authz_namespace: namespace,
    authz_name: name,
    authz_rule: section,
  };
}
