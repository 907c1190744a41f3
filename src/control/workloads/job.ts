import type { JobObject } from "#/kube/objects.ts";
import { hasFinished } from "./decision.ts";
import type { Decision, NewPod, Situation } from "./decision.ts";

/** What is remembered of a Job beyond its pods. A changed template begins anew, as a Job of its own. */
export interface JobMemory {
  readonly hash: string;
  readonly startedAtMs: number;
  readonly result: "" | "Complete" | "Failed";
  readonly reason: string;
  readonly finishedAtMs: number;
  readonly succeeded: number;
  /** Its pods were removed after `ttlSecondsAfterFinished`. */
  readonly expired: boolean;
}

const BACKOFF_FIRST_MS = 10_000;
const BACKOFF_MAX_MS = 6 * 60_000;

/** A Job's next step. Times are wall-clock, because they must outlive the control plane. */
export function decideJob(
  object: JobObject,
  now: Situation,
  before: JobMemory | null,
): Decision & { readonly memory: JobMemory } {
  const { spec } = object;
  const parallelism = spec.suspend === true ? 0 : (spec.parallelism ?? 1);
  const backoffLimit = spec.backoffLimit ?? 6;
  const memory: JobMemory =
    before?.hash === now.hash
      ? before
      : {
          hash: now.hash,
          startedAtMs: now.nowMs,
          result: "",
          reason: "",
          finishedAtMs: 0,
          succeeded: 0,
          expired: false,
        };
  const foreign = now.pods.filter((pod) => pod.hash !== now.hash).map((pod) => pod.uid);
  const pods = now.pods.filter((pod) => pod.hash === now.hash);
  const active = pods.filter((pod) => !hasFinished(pod));
  if (memory.result !== "") return afterwards(memory);

  const succeeded = pods.filter((pod) => pod.phase === "Succeeded").length;
  const failed = pods.filter((pod) => pod.phase === "Failed");
  const restarts = active.reduce((sum, pod) => sum + pod.restarts, 0);
  const deadlineAtMs =
    spec.activeDeadlineSeconds === undefined ? null : memory.startedAtMs + spec.activeDeadlineSeconds * 1000;
  // Without completions one success is enough, once the pods that still run have ended.
  const isDone =
    spec.completions === undefined
      ? (spec.parallelism ?? 1) > 0 && succeeded > 0 && active.length === 0
      : succeeded >= spec.completions;
  const finish = (result: "Complete" | "Failed", reason: string): ReturnType<typeof decideJob> =>
    afterwards({ ...memory, result, reason, finishedAtMs: now.nowMs, succeeded });
  if (isDone) return finish("Complete", "");
  if (failed.length > backoffLimit)
    return finish("Failed", `${failed.length} pods failed, more than backoffLimit ${backoffLimit}`);
  if (restarts > backoffLimit || (backoffLimit === 0 && restarts > 0))
    return finish("Failed", `containers were restarted ${restarts} times, backoffLimit is ${backoffLimit}`);
  if (deadlineAtMs !== null && now.nowMs >= deadlineAtMs)
    return finish("Failed", `activeDeadlineSeconds ${spec.activeDeadlineSeconds} are over`);

  // A work queue: once one pod has succeeded nothing is added, and the others end by themselves.
  const left =
    spec.completions !== undefined
      ? spec.completions - succeeded
      : succeeded > 0
        ? active.length
        : parallelism;
  const missing = Math.min(parallelism, left) - active.length;
  const lastFailureAtMs = failed.reduce((last, pod) => Math.max(last, pod.finishedAtMs ?? now.nowMs), 0);
  const retryAtMs =
    failed.length === 0
      ? 0
      : lastFailureAtMs + Math.min(BACKOFF_MAX_MS, BACKOFF_FIRST_MS * 2 ** (failed.length - 1));
  const create: NewPod[] = [];
  if (missing > 0 && now.nowMs >= retryAtMs)
    for (let i = 0; i < missing; i++)
      create.push({ name: now.nextName(now.hash), hash: now.hash, ordinal: null });
  const wakes = [deadlineAtMs, missing > 0 && retryAtMs > now.nowMs ? retryAtMs : null].filter(
    (at) => at !== null,
  );
  return {
    create,
    remove: [...foreign, ...active.slice(0, Math.max(0, -missing)).map((pod) => pod.uid)],
    summary: `${succeeded}/${spec.completions ?? 1} completed, ${active.length + create.length} active${failed.length > 0 ? `, ${failed.length} failed` : ""}${spec.suspend === true ? ", suspended" : ""}`,
    ok: true,
    wakeAtMs: wakes.length === 0 ? null : Math.min(...wakes),
    memory: { ...memory, succeeded },
  };

  function afterwards(at: JobMemory): ReturnType<typeof decideJob> {
    const expiresAtMs =
      spec.ttlSecondsAfterFinished === undefined
        ? null
        : at.finishedAtMs + spec.ttlSecondsAfterFinished * 1000;
    const expired = at.expired || (expiresAtMs !== null && now.nowMs >= expiresAtMs);
    const gone = expired ? pods : active;
    return {
      create: [],
      remove: [...foreign, ...gone.map((pod) => pod.uid)],
      summary:
        at.result === "Complete"
          ? `completed ${at.succeeded}/${spec.completions ?? 1}`
          : `failed: ${at.reason}`,
      ok: at.result === "Complete",
      wakeAtMs: expired ? null : expiresAtMs,
      memory: { ...at, expired },
    };
  }
}
