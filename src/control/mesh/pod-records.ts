import type { PortRange } from "#/kube/mesh-annotations.ts";
import type { PodTemplate } from "#/kube/objects.ts";
import type { PodPlan, PodStatus } from "#/model/pod-plan.ts";
import type { StateFolder } from "../state-folder.ts";
import type { OwnedPod } from "../workloads/decision.ts";
import type { JobMemory } from "../workloads/job.ts";

/** A pod that was decided on. It is the same pod, with the same uid and address, over restarts of control plane and agent. */
export interface PodRecord {
  plan: PodPlan;
  readonly ordinal: number | null;
  readonly serial: number;
  readonly claims: Readonly<Record<string, string>>;
  readonly opaquePorts: readonly PortRange[];
  /** Let go: no longer in the plan, kept until the agent has ended it. */
  isLeaving: boolean;
}

interface Kept {
  readonly records: PodRecord[];
  readonly templates: [string, PodTemplate][];
  readonly serials: Record<string, number>;
  readonly jobs: Record<string, JobMemory>;
  readonly restarts: Record<string, string>;
}

const FILE = "pods.json";

/** All that the controllers remember, kept in the state folder before anybody acts on it. */
export class PodRecords {
  readonly #state: StateFolder;
  readonly #byUid = new Map<string, PodRecord>();
  readonly #byOwner = new Map<string, Set<PodRecord>>();
  /** By owner and hash, as long as a pod of it exists: an old pod's volumes must still be refreshed. */
  readonly templates = new Map<string, PodTemplate>();
  /** Pods made so far, by owner. */
  readonly serials = new Map<string, number>();
  readonly jobs = new Map<string, JobMemory>();
  /** When a rollout was last asked for, by owner; "" for all. Part of the template's hash. */
  readonly restarts = new Map<string, string>();
  readonly #readySinceMs = new Map<string, number>();
  readonly #finishedAtMs = new Map<string, number>();
  #isChanged = false;

  constructor(state: StateFolder) {
    this.#state = state;
    const kept = state.readJson(FILE) as Partial<Kept> | null;
    for (const record of kept?.records ?? []) this.add(record);
    this.#isChanged = false;
    for (const [key, template] of kept?.templates ?? []) this.templates.set(key, template);
    for (const [key, serial] of Object.entries(kept?.serials ?? {})) this.serials.set(key, serial);
    for (const [key, job] of Object.entries(kept?.jobs ?? {})) this.jobs.set(key, job);
    for (const [key, stamp] of Object.entries(kept?.restarts ?? {})) this.restarts.set(key, stamp);
  }

  get(uid: string): PodRecord | undefined {
    return this.#byUid.get(uid);
  }

  /** In the order in which they were made. */
  all(): Iterable<PodRecord> {
    return this.#byUid.values();
  }

  get size(): number {
    return this.#byUid.size;
  }

  /** Pods of a workload that are still wanted. */
  wantedOf(owner: string): PodRecord[] {
    return [...(this.#byOwner.get(owner) ?? [])].filter((record) => !record.isLeaving);
  }

  add(record: PodRecord): void {
    const { uid, owner } = record.plan;
    this.#byUid.set(uid, record);
    this.#byOwner.set(owner, (this.#byOwner.get(owner) ?? new Set()).add(record));
    this.touch();
  }

  delete(uid: string): void {
    const record = this.#byUid.get(uid);
    if (record === undefined) return;
    this.#byUid.delete(uid);
    const siblings = this.#byOwner.get(record.plan.owner);
    siblings?.delete(record);
    if (siblings?.size === 0) this.#byOwner.delete(record.plan.owner);
    this.touch();
  }

  /** Something that is kept was changed in place: `save` must write. */
  touch(): void {
    this.#isChanged = true;
  }

  /** Forgets all pods: the agent began with none, so those that were are gone. */
  clear(): void {
    this.#byUid.clear();
    this.#byOwner.clear();
    this.touch();
    this.templates.clear();
    this.jobs.clear();
  }

  /** Writes what changed. Call it before the plan is sent. */
  save(): void {
    if (!this.#isChanged) return;
    const kept: Kept = {
      records: [...this.#byUid.values()],
      templates: [...this.templates],
      serials: Object.fromEntries(this.serials),
      jobs: Object.fromEntries(this.jobs),
      restarts: Object.fromEntries(this.restarts),
    };
    this.#state.writeText(FILE, JSON.stringify(kept));
    this.#isChanged = false;
  }

  /** Takes in what the agent reports: since when pods are ready or finished, and which ones are gone. */
  observe(statuses: ReadonlyMap<string, PodStatus>, nowMs: number): void {
    for (const [uid, status] of statuses) {
      if (!status.ready) this.#readySinceMs.delete(uid);
      else if (!this.#readySinceMs.has(uid)) this.#readySinceMs.set(uid, nowMs);
      const finished = status.phase === "Succeeded" || status.phase === "Failed";
      if (finished && !this.#finishedAtMs.has(uid)) this.#finishedAtMs.set(uid, nowMs);
    }
    for (const map of [this.#readySinceMs, this.#finishedAtMs])
      for (const uid of map.keys()) if (!statuses.has(uid)) map.delete(uid);
    for (const [uid, record] of this.#byUid) {
      if (record.isLeaving && !statuses.has(uid)) this.delete(uid);
    }
  }

  /** As a controller sees it. */
  owned(record: PodRecord, status: PodStatus | undefined): OwnedPod {
    const { plan } = record;
    return {
      uid: plan.uid,
      name: plan.name,
      hash: plan.templateHash,
      ordinal: record.ordinal,
      serial: record.serial,
      ...this.#observed(plan.uid, status),
    };
  }

  /** A pod that only the agent knows: it was let go, or planned by somebody before us. */
  stranger(status: PodStatus): OwnedPod {
    return {
      uid: status.uid,
      name: status.name,
      hash: status.templateHash,
      ordinal: null,
      serial: 0,
      ...this.#observed(status.uid, status),
    };
  }

  #observed(
    uid: string,
    status: PodStatus | undefined,
  ): Pick<OwnedPod, "phase" | "ready" | "readySinceMs" | "finishedAtMs" | "restarts"> {
    return {
      phase: status?.phase ?? "Pending",
      ready: status?.ready ?? false,
      readySinceMs: this.#readySinceMs.get(uid) ?? null,
      finishedAtMs: this.#finishedAtMs.get(uid) ?? null,
      restarts: status?.containers.reduce((sum, container) => sum + container.restartCount, 0) ?? 0,
    };
  }

  setJob(owner: string, memory: JobMemory): void {
    const before = this.jobs.get(owner);
    if (
      before !== undefined &&
      (Object.keys(memory) as (keyof JobMemory)[]).every((key) => before[key] === memory[key])
    )
      return;
    this.jobs.set(owner, memory);
    this.touch();
  }

  /** Drops templates that no pod has any more. */
  forgetUnusedTemplates(): void {
    const used = new Set(
      [...this.#byUid.values()].map((record) => templateKey(record.plan.owner, record.plan.templateHash)),
    );
    for (const key of this.templates.keys()) if (!used.has(key)) this.templates.delete(key);
  }
}

export function templateKey(owner: string, hash: string): string {
  return `${owner}|${hash}`;
}
