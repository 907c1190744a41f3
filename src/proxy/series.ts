import { addressKey, type SocketAddress } from "#/base/address.ts";
import type { Endpoint } from "#/model/endpoint.ts";
import { HttpCounters } from "#/stack/metrics/http-series.ts";
import type { Registry } from "#/stack/metrics/registry.ts";

/** Pairs remembered per direction; past it the longest unused is let go (its series stay until they are idle). */
const PAIRS_MAX = 4096;

/** Gives the same pair the same HTTP counters. */
export class SeriesCache {
  readonly #registry: Registry;
  readonly #counters = new Map<string, HttpCounters>();

  constructor(registry: Registry) {
    this.#registry = registry;
  }

  /** Requests of one target to one endpoint. */
  readonly outbound = (authority: string, endpoint: Endpoint): HttpCounters => {
    const address = addressKey(endpoint.address);
    return this.#get(`out ${authority} ${address} ${endpoint.identity?.name ?? ""}`, () => {
      const labels: Record<string, string> = { direction: "outbound", authority, target_addr: address };
      if (endpoint.identity === null)
        Object.assign(labels, { tls: "no_identity", no_tls_reason: "not_provided_by_service_discovery" });
      else Object.assign(labels, { tls: "true", server_id: endpoint.identity.name });
      for (const name in endpoint.labels) labels[`dst_${name}`] = endpoint.labels[name] as string;
      return labels;
    });
  };

  /** Requests of one client ("" without mutual TLS) to one port of the workload. */
  readonly inbound = (target: SocketAddress, clientId: string): HttpCounters =>
    this.#get(`in ${addressKey(target)} ${clientId}`, () => ({
      direction: "inbound",
      target_addr: addressKey(target),
      target_port: String(target.port),
      ...(clientId === ""
        ? { tls: "no_identity", no_tls_reason: "no_tls_from_remote" }
        : { tls: "true", client_id: clientId }),
    }));

  #get(key: string, labels: () => Record<string, string>): HttpCounters {
    let counters = this.#counters.get(key);
    if (counters !== undefined) {
      this.#counters.delete(key);
    } else {
      counters = new HttpCounters(this.#registry, labels());
      if (this.#counters.size >= PAIRS_MAX) {
        const [oldest, dropped] = this.#counters.entries().next().value as [string, HttpCounters];
        this.#counters.delete(oldest);
        dropped.release();
      }
    }
    this.#counters.set(key, counters);
    return counters;
  }
}
