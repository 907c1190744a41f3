import type { Clock } from "#/base/clock.ts";
import type { Log } from "#/net/log.ts";
import type { PolicySource } from "#/model/policy.ts";
import type { RateLimit } from "#/model/traffic.ts";
import type { InboundPort } from "#/stack/discovery.ts";
import { PortLimits } from "#/stack/limits/port-limits.ts";
import { QuotaShares } from "#/stack/limits/quota-shares.ts";
import { FAMILIES } from "#/stack/metrics/families.ts";
import type { Family, Registry, Value } from "#/stack/metrics/registry.ts";
import type { ControlApi } from "../control/control-api.ts";
import { QuotaClient } from "./quota-client.ts";

export interface WorkloadLimitsParts {
  readonly clock: Clock;
  readonly log: Log;
  readonly registry: Registry;
  readonly control: ControlApi;
}

/** What each port of the workload takes in, where policy limits it, with the metrics of that. */
export class WorkloadLimits {
  readonly #parts: WorkloadLimitsParts;
  readonly #quota = new QuotaShares();
  /** By port, for good: what was counted must not be forgotten with a port that nobody uses for a while. */
  readonly #ports = new Map<number, PortLimits>();
  readonly #gauges = new Map<number, readonly [limit: Value, underWay: Value]>();

  constructor(parts: WorkloadLimitsParts) {
    this.#parts = parts;
    new QuotaClient(this.#quota, parts.control, parts.clock, parts.log);
    parts.registry.beforeReading(() => this.#readGauges());
  }

  /** Null where the port's policy of this moment has no limits. */
  readonly of = ({ port, policy }: InboundPort): PortLimits | null => {
    let limits = this.#ports.get(port) ?? null;
    if (policy.limits === null) {
      limits?.update(null);
      return null;
    }
    if (limits === null) this.#ports.set(port, (limits = this.#make(port)));
    limits.update(policy.limits);
    return limits;
  };

  #make(port: number): PortLimits {
    return new PortLimits(port, {
      clock: this.#parts.clock,
      quota: this.#quota,
      limited: (limit) => this.#limited(port, limit),
      shed: (source) => this.#count(FAMILIES.inboundShed, port, source, {}),
    });
  }

  #limited(port: number, { source, key, scope }: RateLimit): void {
    const family = scope === "local" ? FAMILIES.inboundLocalRateLimit : FAMILIES.inboundGlobalRateLimit;
    this.#count(family, port, source, { ratelimit_scope: key.kind });
  }

  #count(family: Family, port: number, source: PolicySource, labels: Record<string, string>): void {
    this.#parts.registry.count(family, {
      target_port: String(port),
      ratelimit_group: source.group,
      ratelimit_kind: source.kind,
      ratelimit_name: source.name,
      ...labels,
    });
  }

  #readGauges(): void {
    for (const [port, { concurrency }] of this.#ports) {
      const known = this.#gauges.get(port);
      if (concurrency === null) {
        for (const gauge of known ?? []) gauge.release();
        this.#gauges.delete(port);
        continue;
      }
      const [limit, underWay] = known ?? this.#addGauges(port);
      limit.set(concurrency.limit);
      underWay.set(concurrency.underWay);
    }
  }

  #addGauges(port: number): readonly [Value, Value] {
    const labels = { target_port: String(port) };
    const { registry } = this.#parts;
    const gauges = [
      registry.gauge(FAMILIES.concurrencyLimit, labels),
      registry.gauge(FAMILIES.concurrencyUnderWay, labels),
    ] as const;
    this.#gauges.set(port, gauges);
    return gauges;
  }
}
