import { create, fromBinary, toBinary } from "@bufbuild/protobuf";
import type { Clock } from "#/base/clock.ts";
import type { LeaseRequest, LimitReport, ShareReport } from "#/gen/pillion/quota_pb.ts";
import { LeaseRequestSchema, LeaseResponseSchema } from "#/gen/pillion/quota_pb.ts";
import type { InboundLimits, RateLimit } from "#/model/traffic.ts";
import { limitIds } from "#/stack/limits/rate-limiter.ts";
import type { MemberReport } from "../quota/quota-pool.ts";
import { QuotaPools } from "../quota/quota-pools.ts";
import type { MeshView, ViewPod } from "../services/mesh-view.ts";
import type { LiveView } from "./live-view.ts";
import { checkIsOwn, parseWorkload } from "./policy.ts";
import type { CallContext, MethodHandler } from "./server.ts";
import { invalidArgument, notFound } from "./status.ts";

/** What policy says of one port of a pod. */
export type LimitsOf = (view: MeshView, pod: ViewPod, port: number) => InboundLimits | null;

/** `dev.pillion.quota.Quota`: sidecars take from rate limits that count for all pods of a workload. */
export function quotaMethods(
  live: LiveView,
  clock: Clock,
  limitsOf: LimitsOf,
  pools: QuotaPools = new QuotaPools(),
): Map<string, MethodHandler> {
  return new Map([
    [
      "/dev.pillion.quota.Quota/Lease",
      {
        isOpen: false,
        unary: async (bytes: Uint8Array, call: CallContext) => {
          const request = decode(bytes);
          const view = live.require();
          const pod = podOf(view, request.workload, call);
          const limits = request.limits.map((report) =>
            grant(pools, view, pod, report, limitsOf, clock.nowMs()),
          );
          const { intervalMs } = pools;
          return await Promise.resolve(
            toBinary(LeaseResponseSchema, create(LeaseResponseSchema, { intervalMs, limits })),
          );
        },
      } satisfies MethodHandler,
    ],
  ]);
}

/** A workload may take from its own limits only. */
function podOf(view: MeshView, workload: string, call: CallContext): ViewPod {
  const name = parseWorkload(workload);
  const pod = name === null ? undefined : view.podsByName.get(name);
  if (pod === undefined) throw notFound(`no pod is called ${JSON.stringify(workload.slice(0, 300))}`);
  checkIsOwn(pod, call);
  return pod;
}

function grant(
  pools: QuotaPools,
  view: MeshView,
  pod: ViewPod,
  report: LimitReport,
  limitsOf: LimitsOf,
  nowMs: number,
): { isKnown: boolean; replicas: number; shares: { granted: number; waitMs: number }[] } {
  const limit = limitOf(limitsOf(view, pod, report.port), report.limit);
  if (limit === null) return { isKnown: false, replicas: 0, shares: [] };
  const workload = workloadKey(pod);
  const limitKey = `${report.port} ${report.limit}`;
  const shares: { granted: number; waitMs: number }[] = [];
  for (const share of report.shares) {
    const lease = pools.lease(workload, limitKey, limit, pod.uid, keyOf(share), countsOf(share), nowMs);
    if (lease === null) return { isKnown: false, replicas: 0, shares: [] };
    shares.push({ granted: lease.granted, waitMs: Math.ceil(lease.waitMs) });
  }
  return { isKnown: true, replicas: replicasOf(view, pod), shares };
}

function limitOf(limits: InboundLimits | null, id: string): RateLimit | null {
  const rates = limits?.rates ?? [];
  const limit = rates[limitIds(rates).indexOf(id)];
  return limit !== undefined && limit.scope === "global" ? limit : null;
}

/** All pods of a workload have its limits together; a pod of its own is alone. */
function workloadKey({ namespace, name, workload }: ViewPod): string {
  return workload === null ? `${namespace}/pod/${name}` : `${namespace}/${workload.kind}/${workload.name}`;
}

/** Ready pods by workload, counted once for each state of the mesh. */
const READY = new WeakMap<MeshView, Map<string, number>>();

function replicasOf(view: MeshView, pod: ViewPod): number {
  let counts = READY.get(view);
  if (counts === undefined) {
    READY.set(view, (counts = new Map()));
    for (const other of view.podsByName.values()) {
      const key = workloadKey(other);
      if (other.isReady && !other.isLeaving) counts.set(key, (counts.get(key) ?? 0) + 1);
    }
  }
  return Math.max(1, counts.get(workloadKey(pod)) ?? 0);
}

function keyOf({ key, isRest }: ShareReport): string | null {
  return isRest ? null : Buffer.from(key).toString("latin1");
}

function countsOf({ held, returned, wanted, demandMillis, overdraft }: ShareReport): MemberReport {
  return { held, returned, wanted, demandPerSecond: demandMillis / 1_000, overdraft };
}

function decode(request: Uint8Array): LeaseRequest {
  try {
    return fromBinary(LeaseRequestSchema, request);
  } catch {
    throw invalidArgument("the request is no LeaseRequest");
  }
}
