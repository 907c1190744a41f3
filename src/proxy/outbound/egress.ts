import { addressKey, type SocketAddress } from "#/base/address.ts";
import { egressVerdictOf, leadsOutside, ruleOf, type PolicySource } from "#/model/policy.ts";
import type { Log } from "#/net/log.ts";
import type { OutboundTarget } from "#/stack/discovery.ts";
import type { HttpService, RequestHead, RequestSink, ResponseSink } from "#/stack/http/exchange.ts";
import { BoundedNames } from "#/stack/metrics/bounded-names.ts";
import { FAMILIES } from "#/stack/metrics/families.ts";
import type { Registry } from "#/stack/metrics/registry.ts";
import { hostOf } from "#/stack/route/host.ts";

/** What has been logged is remembered up to so many; then it may be said once more. */
const SAID_MAX = 1024;

/** Counts what leaves the mesh by host, and what EgressPolicies say of it. */
export class Egress {
  readonly #registry: Registry;
  readonly #log: Log;
  readonly #hosts = new BoundedNames();
  readonly #said = new Set<string>();

  constructor(registry: Registry, log: Log) {
    this.#registry = registry;
    this.#log = log;
  }

  /** The same service where the target is of the mesh. */
  watch(service: HttpService, target: OutboundTarget): HttpService {
    return leadsOutside(target.policy.source) ? new WatchedRequests(service, target, this) : service;
  }

  /** A request to a host outside. */
  request(target: OutboundTarget, head: RequestHead): void {
    const host = hostOf(head.authority);
    this.#registry.count(FAMILIES.egressRequests, {
      host: this.#hosts.nameFor(host),
      target_port: String(target.address.port),
    });
    const source = target.table.find(head)?.route.source;
    if (source !== undefined) this.#judged(source, "http", target.address, host);
  }

  /** A connection that is not looked into, taken by a route of that source. `serverName`: what its TLS asks for, or null. */
  connection(source: PolicySource, address: SocketAddress, serverName: string | null): void {
    this.#judged(source, "tcp", address, serverName ?? "");
  }

  #judged(source: PolicySource, protocol: "http" | "tcp", address: SocketAddress, host: string): void {
    const verdict = egressVerdictOf(source);
    if (verdict === null) return;
    this.#registry.count(FAMILIES.egressVerdicts, {
      policy_namespace: source.namespace,
      policy_name: source.name,
      verdict: verdict.replace("-", "_"),
      protocol,
    });
    if (verdict === "allow") return;
    const target = addressKey(address);
    const rule = ruleOf(source);
    const key = `${verdict} ${rule} ${target} ${host}`;
    if (this.#said.has(key)) return;
    if (this.#said.size >= SAID_MAX) this.#said.clear();
    this.#said.add(key);
    const fields = protocol === "http" ? { rule, target, host } : { rule, target, serverName: host };
    if (verdict === "deny") this.#log.warn("egress denied", fields);
    else this.#log.warn("egress would be denied", { would_deny: true, ...fields });
  }
}

class WatchedRequests implements HttpService {
  readonly #service: HttpService;
  readonly #target: OutboundTarget;
  readonly #egress: Egress;

  constructor(service: HttpService, target: OutboundTarget, egress: Egress) {
    this.#service = service;
    this.#target = target;
    this.#egress = egress;
  }

  call(head: RequestHead, last: boolean, reply: ResponseSink): RequestSink {
    this.#egress.request(this.#target, head);
    return this.#service.call(head, last, reply);
  }
}
