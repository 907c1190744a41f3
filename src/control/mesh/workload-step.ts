import type { LoadedObject } from "#/kube/folder.ts";
import { meshRelevant, meshSettings } from "#/kube/mesh-annotations.ts";
import { namespaceOf, objectKey, templateOf } from "#/kube/objects.ts";
import type { PodTemplate, WorkloadObject } from "#/kube/objects.ts";
import type { NodeInfo } from "#/model/node-protocol.ts";
import type { PodStatus } from "#/model/pod-plan.ts";
import { decideBarePod } from "../workloads/bare-pod.ts";
import { decideDaemonSet } from "../workloads/daemon-set.ts";
import type { Decision, NewPod, Situation } from "../workloads/decision.ts";
import { decideDeployment } from "../workloads/deployment.ts";
import { shortHash } from "../workloads/hash.ts";
import { decideJob } from "../workloads/job.ts";
import { buildPod } from "../workloads/pod-builder.ts";
import { MissingReference } from "../workloads/references.ts";
import type { References } from "../workloads/references.ts";
import { decideStatefulSet } from "../workloads/stateful-set.ts";
import type { PodRecord, PodRecords } from "./pod-records.ts";
import { templateKey } from "./pod-records.ts";

export interface StepContext {
  readonly nowMs: number;
  readonly node: NodeInfo;
  readonly refs: References;
  readonly statuses: ReadonlyMap<string, PodStatus>;
  readonly statusesByOwner: ReadonlyMap<string, readonly PodStatus[]>;
  readonly meshAnnotations: Readonly<Record<string, string>>;
  readonly namespaceAnnotations: (namespace: string) => Readonly<Record<string, string>>;
  readonly trustAnchorsPem: string;
  /** Of Pillion itself: a new one brings new sidecars. */
  readonly version: string;
  readonly seed: string;
  readonly newUid: () => string;
}

export interface StepOutcome {
  readonly decision: Decision;
  /** Why no new pod could be made; null when none was missing. */
  readonly missing: { readonly path: readonly (string | number)[]; readonly reason: string } | null;
}

/** Brings one workload one step further: decides, and writes the decision into the records. */
export function stepWorkload(loaded: LoadedObject, records: PodRecords, context: StepContext): StepOutcome {
  const object = loaded.object as WorkloadObject;
  const owner = objectKey(object);
  const template = templateOf(object);
  const wantedHash = hashOf(object, owner, template, records, context);
  const mine = records.wantedOf(owner);
  // A template that cannot become a pod yet must not cost a running one: what runs is kept and scaled until it can.
  const missing = mine.some((record) => record.plan.templateHash === wantedHash)
    ? null
    : tryBuild(object, owner, template, wantedHash, context);
  const hash =
    missing !== null && mine.length > 0
      ? mine.reduce((best, record) => (record.serial > best.serial ? record : best)).plan.templateHash
      : wantedHash;
  const live = new Set(mine.map((record) => record.plan.uid));
  const leaving = (context.statusesByOwner.get(owner) ?? []).filter((status) => !live.has(status.uid));
  const names = new Set([...mine.map((record) => record.plan.name), ...leaving.map((status) => status.name)]);
  const situation: Situation = {
    nowMs: context.nowMs,
    hash,
    pods: mine
      .map((record) => records.owned(record, context.statuses.get(record.plan.uid)))
      .toSorted((a, b) => a.serial - b.serial),
    leaving: leaving.map((status) => records.stranger(status)),
    nextName: (of) => {
      const name = nextName(object, owner, of, names, records, context.seed);
      names.add(name);
      return name;
    },
  };
  const decision = decide(object, situation, records, owner);
  for (const uid of decision.remove) {
    const record = records.get(uid);
    if (record === undefined) continue;
    record.isLeaving = true;
    records.touch();
    // One that the agent never had needs no ending.
    if (!context.statuses.has(uid)) records.delete(uid);
  }
  for (const pod of decision.create) {
    // A pod of an older template (below a StatefulSet's partition, or while paused) is made as its siblings are.
    const of = pod.hash === wantedHash ? template : records.templates.get(templateKey(owner, pod.hash));
    try {
      create(pod, object, owner, of ?? template, of === undefined ? wantedHash : pod.hash, records, context);
    } catch (error) {
      if (error instanceof MissingReference)
        return { decision, missing: { path: error.path, reason: error.message } };
      throw error;
    }
  }
  return { decision, missing };
}

/** What a pod of this template would lack; null when it could be made. */
function tryBuild(
  object: WorkloadObject,
  owner: string,
  template: PodTemplate,
  hash: string,
  context: StepContext,
): StepOutcome["missing"] {
  try {
    build(
      { name: object.metadata.name, hash, ordinal: null },
      object,
      owner,
      template,
      hash,
      "00000000-0000-0000-0000-000000000000",
      context,
    );
    return null;
  } catch (error) {
    if (error instanceof MissingReference) return { path: error.path, reason: error.message };
    throw error;
  }
}

function decide(object: WorkloadObject, situation: Situation, records: PodRecords, owner: string): Decision {
  switch (object.kind) {
    case "Deployment":
      return decideDeployment(object, situation);
    case "StatefulSet":
      return decideStatefulSet(object, situation);
    case "DaemonSet":
      return decideDaemonSet(object, situation);
    case "Pod":
      return decideBarePod(object, situation);
    case "Job": {
      const decision = decideJob(object, situation, records.jobs.get(owner) ?? null);
      records.setJob(owner, decision.memory);
      return decision;
    }
  }
}

/** All that a running pod cannot take in: its template, its place in the mesh, Pillion's version, rollouts asked for. */
function hashOf(
  object: WorkloadObject,
  owner: string,
  template: PodTemplate,
  records: PodRecords,
  context: StepContext,
): string {
  const layers = [
    context.meshAnnotations,
    context.namespaceAnnotations(namespaceOf(object)),
    template.metadata?.annotations,
  ];
  const surroundings = {
    // What a pod's own annotation overrides is not in here, so a change of it rolls nothing.
    mesh: meshRelevant(...layers),
    version: meshSettings(...layers).meshed ? context.version : undefined,
    restarts: object.kind === "Job" ? undefined : [records.restarts.get(""), records.restarts.get(owner)],
  };
  const key = JSON.stringify(surroundings);
  const known = hashes.get(object);
  if (known?.key === key) return known.hash;
  const hash = shortHash(
    {
      ...surroundings,
      labels: template.metadata?.labels,
      annotations: template.metadata?.annotations,
      spec: template.spec,
      claims:
        object.kind === "StatefulSet"
          ? object.spec.volumeClaimTemplates?.map((claim) => claim.metadata.name)
          : undefined,
      serviceName: object.kind === "StatefulSet" ? object.spec.serviceName : undefined,
    },
    8,
  );
  hashes.set(object, { key, hash });
  return hash;
}

/** Objects are made anew when the folder changes; until then their hash needs no second look. */
const hashes = new WeakMap<WorkloadObject, { readonly key: string; readonly hash: string }>();

function create(
  pod: NewPod,
  object: WorkloadObject,
  owner: string,
  template: PodTemplate,
  hash: string,
  records: PodRecords,
  context: StepContext,
): void {
  const { plan, claims, opaquePorts } = build(pod, object, owner, template, hash, context.newUid(), context);
  const serial = (records.serials.get(owner) ?? 0) + 1;
  records.serials.set(owner, serial);
  records.templates.set(templateKey(owner, hash), template);
  records.add({ plan, ordinal: pod.ordinal, serial, claims, opaquePorts, isLeaving: false });
}

function build(
  pod: NewPod,
  object: WorkloadObject,
  owner: string,
  template: PodTemplate,
  hash: string,
  uid: string,
  context: StepContext,
): Pick<PodRecord, "plan" | "claims" | "opaquePorts"> {
  const namespace = namespaceOf(object);
  const mesh = meshSettings(
    context.meshAnnotations,
    context.namespaceAnnotations(namespace),
    template.metadata?.annotations,
  );
  const claims: Record<string, string> = {};
  if (object.kind === "StatefulSet")
    for (const { metadata } of object.spec.volumeClaimTemplates ?? [])
      claims[metadata.name] = `${metadata.name}-${pod.name}`;
  const plan = buildPod(
    {
      uid,
      name: pod.name,
      namespace,
      owner,
      templateHash: hash,
      template,
      labels: labelsFor(object, pod, hash),
      claims,
      hostname: object.kind === "StatefulSet" ? pod.name : null,
      subdomain: object.kind === "StatefulSet" ? (object.spec.serviceName ?? null) : null,
    },
    { node: context.node, refs: context.refs, mesh, trustAnchorsPem: context.trustAnchorsPem },
  );
  return { plan, claims, opaquePorts: mesh.opaquePorts };
}

/** Labels that Kubernetes' own controllers add. */
function labelsFor(object: WorkloadObject, pod: NewPod, hash: string): Record<string, string> {
  switch (object.kind) {
    case "Deployment":
      return { "pod-template-hash": hash };
    case "StatefulSet":
      return {
        "statefulset.kubernetes.io/pod-name": pod.name,
        "apps.kubernetes.io/pod-index": String(pod.ordinal ?? 0),
        "controller-revision-hash": hash,
      };
    case "DaemonSet":
      return { "controller-revision-hash": hash };
    case "Job":
      return { "batch.kubernetes.io/job-name": object.metadata.name, "job-name": object.metadata.name };
    case "Pod":
      return {};
  }
}

/** A pod's name is its hostname, of at most 63 characters. */
const NAME_LENGTH_MAX = 63;

function nextName(
  object: WorkloadObject,
  owner: string,
  hash: string,
  taken: ReadonlySet<string>,
  records: PodRecords,
  seed: string,
): string {
  const middle = object.kind === "Deployment" ? `-${hash}` : "";
  const base = object.metadata.name.slice(0, NAME_LENGTH_MAX - middle.length - 6);
  for (let i = 1; ; i++) {
    const name = `${base}${middle}-${shortHash([seed, owner, hash, (records.serials.get(owner) ?? 0) + i], 5)}`;
    if (!taken.has(name)) return name;
  }
}
