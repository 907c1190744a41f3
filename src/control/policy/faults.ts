import { durationMs } from "#/kube/duration.ts";
import { groupOf, LINKERD_POLICY, namespaceOf } from "#/kube/objects.ts";
import type { ClientSelector, FaultPolicyObject, FaultSpec } from "#/kube/policy-objects.ts";
import type { FaultAction, HttpFilter, HttpRoute } from "#/model/route.ts";
import { sourceOf } from "./backends.ts";
import type { PolicyClient } from "./client.ts";
import { fieldMatches, ratioOf } from "./filters.ts";
import type { Targeting } from "./targets.ts";

/** The faults of one policy at one of its targets. */
export interface FaultEntry {
  /** Of a Service: the name of a port; of a route: of a rule. Null: all. */
  readonly section: string | null;
  /** Null: everybody. */
  readonly from: readonly Required<ClientSelector>[] | null;
  readonly filters: readonly HttpFilter[];
}

/** Faults by what they are for: `Service shop/web`, `HTTPRoute shop/r`. */
export type FaultIndex = ReadonlyMap<string, readonly FaultEntry[]>;

export function faultIndex(all: readonly Targeting<FaultPolicyObject>[]): FaultIndex {
  const out = new Map<string, FaultEntry[]>();
  for (const { policy, ref, key, refusal } of all) {
    if (refusal !== null) continue;
    const namespace = namespaceOf(policy);
    const source = sourceOf(groupOf(policy), policy.kind, namespace, policy.metadata.name);
    const entry: FaultEntry = {
      section: ref.sectionName ?? null,
      from:
        policy.spec.from?.map((each) => ({
          namespace: each.namespace ?? namespace,
          serviceAccount: each.serviceAccount ?? "",
        })) ?? null,
      filters: policy.spec.faults.map((fault): HttpFilter => ({
        kind: "fault",
        source,
        ratio: ratioOf(fault),
        headers: fieldMatches(fault.headers, true),
        action: actionOf(fault),
      })),
    };
    const at = `${ref.kind} ${key}`;
    const some = out.get(at);
    if (some === undefined) out.set(at, [entry]);
    else some.push(entry);
  }
  return out;
}

/**
 * Routes with the faults in them that are meant for this client, before all other filters. The same routes where there are
 * none.
 */
export function withFaults(
  faults: FaultIndex,
  routes: readonly HttpRoute[],
  serviceKey: string,
  portName: string,
  client: PolicyClient | null,
): readonly HttpRoute[] {
  if (faults.size === 0) return routes;
  const atService = filtersFor(faults.get(`Service ${serviceKey}`), portName, client);
  return routes.map((route) => {
    const { group, kind, namespace, name } = route.source;
    const atRoute = group === LINKERD_POLICY ? undefined : faults.get(`${kind} ${namespace}/${name}`);
    if (atService.length === 0 && atRoute === undefined) return route;
    const rules = route.rules.map((rule) => {
      const added = [...atService, ...(kind === "Service" ? [] : filtersFor(atRoute, rule.name, client))];
      return added.length === 0 ? rule : { ...rule, filters: [...added, ...rule.filters] };
    });
    return { ...route, rules };
  });
}

/** Whether any are for some clients only. */
export function namesClients(faults: FaultIndex): boolean {
  for (const entries of faults.values()) if (entries.some(({ from }) => from !== null)) return true;
  return false;
}

function filtersFor(
  entries: readonly FaultEntry[] | undefined,
  section: string,
  client: PolicyClient | null,
): readonly HttpFilter[] {
  return (entries ?? [])
    .filter((each) => (each.section === null || each.section === section) && isMeant(each, client))
    .flatMap((each) => each.filters);
}

function isMeant({ from }: FaultEntry, client: PolicyClient | null): boolean {
  if (from === null) return true;
  return (
    client !== null &&
    from.some(
      (each) =>
        each.namespace === client.namespace &&
        (each.serviceAccount === "" || each.serviceAccount === client.serviceAccount),
    )
  );
}

/** UNAVAILABLE and 503: what a service that is away would answer. */
const ABORT = { status: 503, grpcStatus: 14, message: "a fault by policy" } as const;

/** Exactly one action is there: `checkSemantics`. */
function actionOf(fault: FaultSpec): FaultAction {
  const ms = (text: string | undefined): number => durationMs(text ?? "0s") ?? 0;
  if (fault.delay !== undefined)
    return { kind: "delay", delayMs: ms(fault.delay.duration), jitterMs: ms(fault.delay.jitter) };
  if (fault.bandwidth !== undefined)
    return { kind: "bandwidth", bytesPerSecond: fault.bandwidth.bytesPerSecond };
  if (fault.slowClose !== undefined) return { kind: "slow-close", delayMs: ms(fault.slowClose.duration) };
  if (fault.reset !== undefined) return { kind: "reset" };
  return {
    kind: "abort",
    status: fault.abort?.httpStatus ?? ABORT.status,
    grpcStatus: fault.abort?.grpcStatus ?? ABORT.grpcStatus,
    message: fault.abort?.message ?? ABORT.message,
  };
}
