import { durationMs } from "#/kube/duration.ts";
import type { LoadedObject } from "#/kube/folder.ts";
import { groupOf, namespaceOf, selectorMatches } from "#/kube/objects.ts";
import type { LabelSelector } from "#/kube/objects.ts";
import type { RateLimitPolicyObject } from "#/kube/policy-objects.ts";
import type { ConcurrencyLimit, InboundLimits, RateLimit } from "#/model/traffic.ts";
import type { ViewPod } from "../services/mesh-view.ts";
import { byAge } from "./attach.ts";
import { sourceOf } from "./backends.ts";
import { httpMatch } from "./routes.ts";
import type { Targeting } from "./targets.ts";

/** The limits of one policy, and on which ports of which pods they are kept. */
export interface LimitEntry {
  readonly selector: LabelSelector;
  /** Numbers and names of container ports; null: all. */
  readonly ports: ReadonlySet<number | string> | null;
  readonly rates: readonly RateLimit[];
  readonly concurrency: ConcurrencyLimit | null;
}

/** By namespace, older policies first. */
export type LimitIndex = ReadonlyMap<string, readonly LimitEntry[]>;

/** `targets` are those of all policies at Services; a policy with a selector has none. */
export function limitIndex(
  policies: readonly LoadedObject[],
  targets: readonly Targeting<RateLimitPolicyObject>[],
  serviceOf: (key: string) => LoadedObject | undefined,
): LimitIndex {
  const out = new Map<string, LimitEntry[]>();
  const add = (namespace: string, entry: LimitEntry): void => {
    const some = out.get(namespace);
    if (some === undefined) out.set(namespace, [entry]);
    else some.push(entry);
  };
  const byPolicy = Map.groupBy(targets, ({ policy }) => policy);
  for (const { object } of policies.toSorted(byAge)) {
    if (object.kind !== "RateLimitPolicy") continue;
    const namespace = namespaceOf(object);
    const limits = limitsOf(object);
    const { selector, ports } = object.spec;
    if (selector !== undefined)
      add(namespace, { selector, ports: ports === undefined ? null : new Set(ports), ...limits });
    for (const { ref, key, refusal } of byPolicy.get(object) ?? []) {
      const service = serviceOf(key)?.object;
      if (refusal !== null || service?.kind !== "Service") continue;
      // A Service without a selector has no pods of ours.
      if (Object.keys(service.spec.selector ?? {}).length === 0) continue;
      const meant = (service.spec.ports ?? []).filter(
        (port) => ref.sectionName === undefined || port.name === ref.sectionName,
      );
      add(namespace, {
        selector: { matchLabels: service.spec.selector! },
        ports: new Set(meant.map((port) => port.targetPort ?? port.port)),
        ...limits,
      });
    }
  }
  return out;
}

/** All limits of a port together; null without any. The oldest policy's concurrency counts, for a port has one limiter. */
export function limitsFor(index: LimitIndex, pod: ViewPod, port: number): InboundLimits | null {
  const entries = (index.get(pod.namespace) ?? []).filter(
    (entry) => selectorMatches(entry.selector, pod.labels) && hasPort(entry, pod, port),
  );
  if (entries.length === 0) return null;
  return {
    exempt: pod.probes
      .filter((probe) => probe.port === port)
      .map(({ path }) => ({ path: { kind: "exact", value: path }, headers: [], query: [], method: "GET" })),
    rates: entries.flatMap((entry) => entry.rates),
    concurrency: entries.find((entry) => entry.concurrency !== null)?.concurrency ?? null,
  };
}

function hasPort({ ports }: LimitEntry, pod: ViewPod, port: number): boolean {
  if (ports === null || ports.has(port)) return true;
  return pod.ports.some((each) => each.port === port && each.name !== "" && ports.has(each.name));
}

const WINDOW_MS = 1000;
const CONCURRENCY = { limitMin: 4, limitMax: 1000 } as const;

function limitsOf(policy: RateLimitPolicyObject): Pick<LimitEntry, "rates" | "concurrency"> {
  const { rates, concurrency } = policy.spec;
  const source = sourceOf(groupOf(policy), policy.kind, namespaceOf(policy), policy.metadata.name);
  return {
    rates: (rates ?? []).map((rate, i) => ({
      // Each counts by itself, also beside another of the same policy.
      source: { ...source, section: String(i) },
      matches: (rate.matches ?? []).map(httpMatch),
      key:
        rate.per?.header !== undefined
          ? { kind: "header", name: rate.per.header.toLowerCase() }
          : { kind: rate.per?.identity === true ? "identity" : "total" },
      requests: rate.requests,
      windowMs: durationMs(rate.window ?? "") ?? WINDOW_MS,
      burst: rate.burst ?? rate.requests,
      scope: rate.scope === "Global" ? "global" : "local",
    })),
    concurrency:
      concurrency === undefined
        ? null
        : {
            source,
            limitMin:
              concurrency.min ?? Math.min(CONCURRENCY.limitMin, concurrency.max ?? CONCURRENCY.limitMin),
            limitMax: concurrency.max ?? Math.max(CONCURRENCY.limitMax, concurrency.min ?? 0),
            priorityHeader: concurrency.priorityHeader?.toLowerCase() ?? "",
          },
  };
}
