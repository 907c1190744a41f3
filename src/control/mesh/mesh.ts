import type { IpAddress } from "#/base/address.ts";
import type { Clock, Timer } from "#/base/clock.ts";
import type { FileCache, LoadedFolder, LoadedObject } from "#/kube/folder.ts";
import { describeProblem, loadFolder, problemOf } from "#/kube/folder.ts";
import { MESH_CONFIG_NAME, MESH_CONFIG_NAMESPACE } from "#/kube/mesh-annotations.ts";
import { isWorkload, namespaceOf, objectKey, shownKind, templatePath } from "#/kube/objects.ts";
import type { KubeObject } from "#/kube/objects.ts";
import type { Identity } from "#/model/identity.ts";
import { AUDITED, describeParent } from "#/model/node-protocol.ts";
import type {
  FolderFile,
  FolderProblem,
  NodeInfo,
  ObjectStatus,
  ParentStatus,
} from "#/model/node-protocol.ts";
import type { PodPlan, PodStatus, ServicePlan } from "#/model/pod-plan.ts";
import type { Log } from "#/net/log.ts";
import type { KeySet, KeySets } from "../jwt/key-sets.ts";
import { keyFindings, keySetSources } from "../policy/access/jwt.ts";
import { compilePolicy, isPolicy } from "../policy/compile.ts";
import type { CompiledPolicy } from "../policy/compile.ts";
import { describeFaults, isFine } from "../policy/conditions.ts";
import { withRefusedInbound } from "../policy/access/refused-inbound.ts";
import { compileServices } from "../services/compile.ts";
import { shareUnchanged } from "../services/share.ts";
import type { MeshView } from "../services/mesh-view.ts";
import { allocateVirtualIps } from "../services/virtual-ips.ts";
import type { OutsideNames } from "../external/outside-names.ts";
import type { StateFolder } from "../state-folder.ts";
import { MissingReference, referencesIn } from "../workloads/references.ts";
import { volumesOf } from "../workloads/volumes.ts";
import { PodRecords, templateKey } from "./pod-records.ts";
import { stepWorkload } from "./workload-step.ts";
import type { StepContext } from "./workload-step.ts";

export interface MeshParts {
  readonly clock: Clock;
  readonly log: Log;
  readonly state: StateFolder;
  /** The present ones: for pods that are made from now on. */
  readonly trustAnchorsPem: () => string;
  readonly version: string;
  readonly newUid: () => string;
  /** Pods' names follow from it. */
  readonly seed: string;
  /** Absent: nobody is. */
  readonly revoked?: () => readonly Identity[];
  /** Absent: names outside are not resolved. */
  readonly outsideNames?: OutsideNames;
  /** Absent: the keys of tokens are not fetched. */
  readonly keySets?: KeySets;
}

export interface Manifest {
  readonly manifest: KubeObject;
  readonly status: ObjectStatus;
}

export interface MeshSinks {
  /** Discovery and policy. Told first, so that nobody is sent to a pod that is about to end. */
  readonly view: (view: MeshView) => void;
  readonly plan: (pods: readonly PodPlan[], services: readonly ServicePlan[]) => void;
  /** All pods that the agent has. */
  readonly pods?: (statuses: readonly PodStatus[], isPlanned: (podUid: string) => boolean) => void;
}

const NO_ADDRESSES: ReadonlyMap<string, readonly IpAddress[]> = new Map();
const NOBODY: readonly Identity[] = [];

/** Changes within this time are taken in together: longer where a round costs more, so that rounds take at most half of a core. */
const JOIN_MS = 20;
const JOIN_MS_MAX = 500;
/** A step may enable another (a pod removed makes room for one more); more in a row would be a controller that never rests. */
const STEPS_MAX = 50;

/**
 * The control loop: what the folder wants and what the agent reports go in, what should run comes out. Level-triggered:
 * each round looks at everything, so no event that was missed can leave it astray.
 */
export class Mesh {
  readonly #parts: MeshParts;
  readonly #sinks: MeshSinks;
  readonly #records: PodRecords;
  #node: NodeInfo | null = null;
  #folder: LoadedFolder | null = null;
  readonly #files: FileCache = new Map();
  #statuses: ReadonlyMap<string, PodStatus> | null = null;
  /** Compiled from which folder and for which machine. */
  #policy: { readonly of: LoadedFolder; readonly node: NodeInfo; readonly compiled: CompiledPolicy } | null =
    null;
  #lastGood: Map<string, string>;
  #virtualIps: Record<string, string>;
  #round: Timer | null = null;
  #lastRoundMs = 0;
  #wake: Timer | null = null;
  #view: MeshView | null = null;
  #problems: readonly FolderProblem[] = [];
  #manifests: readonly Manifest[] = [];
  #loggedProblems = "";
  #isClosed = false;

  constructor(parts: MeshParts, sinks: MeshSinks) {
    this.#parts = parts;
    this.#sinks = sinks;
    this.#records = new PodRecords(parts.state);
    this.#lastGood = new Map(
      Object.entries((parts.state.readJson("good-files.json") ?? {}) as Record<string, string>),
    );
    this.#virtualIps = (parts.state.readJson("virtual-ips.json") ?? {}) as Record<string, string>;
  }

  takeNode(node: NodeInfo): void {
    this.#node = node;
    this.#soon();
  }

  /** The whole folder. `problems` are the agent's own: a file that it names there and that is missing was not readable, not deleted. */
  takeFolder(files: readonly FolderFile[], problems: readonly string[]): void {
    const present = new Set(files.map((file) => file.path));
    const unreadable = new Set(
      [...this.#lastGood.keys()].filter(
        (path) => !present.has(path) && problems.some((problem) => problem.includes(path)),
      ),
    );
    this.#folder = loadFolder(files, this.#lastGood, unreadable, this.#files);
    const good = new Map(this.#folder.good);
    if (!sameMap(good, this.#lastGood)) {
      this.#parts.state.writeJson("good-files.json", Object.fromEntries(good));
      this.#lastGood = good;
    }
    this.#soon();
  }

  /** A name outside has other addresses. */
  takeOutsideNames(): void {
    this.#soon();
  }

  /** Other identities are revoked. */
  takeRevocations(): void {
    this.#soon();
  }

  /** Has the agent start these pods' sidecars again, inside their pods, with fresh tokens and roots. Gives how many. */
  restartSidecars(isConcerned: (podUid: string) => boolean): number {
    let count = 0;
    for (const record of this.#records.all()) {
      const { plan } = record;
      if (plan.sidecar === null || record.isLeaving || !isConcerned(plan.uid)) continue;
      record.plan = { ...plan, sidecar: { ...plan.sidecar, starts: (plan.sidecar.starts ?? 0) + 1 } };
      count++;
    }
    if (count > 0) this.#records.touch();
    this.#soon();
    // The agent hears of it before whoever asked hears that it was done.
    this.catchUp();
    return count;
  }

  /** Pods whose sidecar runs and is not ready. */
  isSidecarUnwell(podUid: string): boolean {
    return this.#statuses?.get(podUid)?.sidecar?.ready === false;
  }

  /** A key set has other keys, or another problem. */
  takeKeySets(): void {
    this.#soon();
  }

  takePods(statuses: readonly PodStatus[]): void {
    const byUid = new Map(statuses.map((status) => [status.uid, status]));
    // The first report of a machine that has none of our pods: it begins anew, and so do they.
    if (
      this.#statuses === null &&
      this.#records.size > 0 &&
      !statuses.some((status) => this.#records.get(status.uid) !== undefined)
    ) {
      this.#parts.log.info("the machine has none of the pods that were running before; all begin anew", {
        pods: this.#records.size,
      });
      this.#records.clear();
    }
    this.#statuses = byUid;
    this.#records.observe(byUid, this.#parts.clock.wallMs());
    this.#sinks.pods?.(statuses, (uid) => this.#records.get(uid) !== undefined);
    this.#soon();
  }

  /** Identity of a pod that runs a sidecar; null when there is no such pod. */
  identityOf(podUid: string): Identity | null {
    const plan = this.#records.get(podUid)?.plan;
    if (plan === undefined || plan.sidecar === null || this.#node === null) return null;
    return {
      trustDomain: this.#node.trustDomain,
      namespace: plan.namespace,
      serviceAccount: plan.serviceAccount,
    };
  }

  /** Whether any meshed pod runs as this identity. */
  isInUse(identity: Identity): boolean {
    for (const { plan } of this.#records.all()) {
      if (
        plan.sidecar !== null &&
        plan.namespace === identity.namespace &&
        plan.serviceAccount === identity.serviceAccount
      )
        return true;
    }
    return false;
  }

  get isReady(): boolean {
    return this.#node !== null && this.#folder !== null && this.#statuses !== null;
  }

  get objects(): readonly ObjectStatus[] {
    return this.#manifests.map(({ status }) => status);
  }

  /** The folder's objects as they are written, with what became of them. */
  get manifests(): readonly Manifest[] {
    return this.#manifests;
  }

  get problems(): readonly FolderProblem[] {
    return this.#problems;
  }

  /** Of each file the last text without a problem. */
  get acceptedFiles(): readonly FolderFile[] {
    return [...(this.#folder?.good ?? [])].map(([path, text]) => ({ path, text }));
  }

  /** The state that discovery and policy go by; null before the first round. */
  get view(): MeshView | null {
    return this.#view;
  }

  /** Makes all pods of these workloads anew, each by its own rules of updating; "" stands for all. */
  restart(owners: readonly string[]): void {
    const stamp = new Date(this.#parts.clock.wallMs()).toISOString();
    for (const owner of owners) this.#records.restarts.set(owner, stamp);
    this.#records.touch();
    this.#soon();
    this.catchUp();
  }

  /** Takes in at once what has come, so that whoever asks next hears of it. */
  catchUp(): void {
    if (this.#round === null) return;
    this.#round.cancel();
    this.#round = null;
    this.#reconcile();
  }

  /** Takes nothing in any more: what comes after belongs to a successor over the same state. */
  close(): void {
    this.#isClosed = true;
    this.#round?.cancel();
    this.#round = null;
    this.#wake?.cancel();
  }

  #soon(): void {
    if (this.#round !== null || this.#isClosed || !this.isReady) return;
    const { clock } = this.#parts;
    this.#round = clock.after(Math.min(JOIN_MS_MAX, Math.max(JOIN_MS, this.#lastRoundMs)), () => {
      this.#round = null;
      const beganAtMs = clock.nowMs();
      this.#reconcile();
      this.#lastRoundMs = clock.nowMs() - beganAtMs;
    });
  }

  #reconcile(): void {
    const { clock, log, state } = this.#parts;
    const node = this.#node!;
    const folder = this.#folder!;
    const statuses = this.#statuses!;
    const problems: FolderProblem[] = [...folder.problems];
    const annotationsOf = (namespace: string): Readonly<Record<string, string>> =>
      folder.objects.get(`Namespace//${namespace}`)?.object.metadata.annotations ?? {};
    const config = folder.objects.get(`ConfigMap/${MESH_CONFIG_NAMESPACE}/${MESH_CONFIG_NAME}`)?.object;
    const context: StepContext = {
      nowMs: clock.wallMs(),
      node,
      refs: referencesIn(folder.objects),
      statuses,
      statusesByOwner: Map.groupBy(statuses.values(), (status) => status.owner),
      meshAnnotations: config?.kind === "ConfigMap" ? (config.data ?? {}) : {},
      namespaceAnnotations: annotationsOf,
      trustAnchorsPem: this.#parts.trustAnchorsPem(),
      version: this.#parts.version,
      seed: this.#parts.seed,
      newUid: this.#parts.newUid,
    };

    this.#letGoOrphans(folder, statuses);
    const manifests: Manifest[] = [];
    const tell = ({ object: manifest }: LoadedObject, status: ObjectStatus): void =>
      void manifests.push({ manifest, status });
    let wakeAtMs = Number.POSITIVE_INFINITY;
    for (const loaded of folder.objects.values()) {
      if (!isWorkload(loaded.object)) continue;
      const outcome = this.#rest(loaded, context);
      if (outcome.missing !== null)
        problems.push(
          problemOf(
            loaded,
            [...templatePath(loaded.object), "spec", ...outcome.missing.path],
            outcome.missing.reason,
          ),
        );
      wakeAtMs = Math.min(wakeAtMs, outcome.decision.wakeAtMs ?? Number.POSITIVE_INFINITY);
      tell(
        loaded,
        statusOf(
          loaded,
          outcome.missing === null
            ? outcome.decision.summary
            : `${outcome.decision.summary}; no new pods: ${outcome.missing.reason}`,
          outcome.decision.ok && outcome.missing === null,
        ),
      );
    }
    this.#refreshVolumes(context, folder, problems);
    this.#records.forgetUnusedTemplates();

    const clusterIps = this.#allocate(folder, node, problems);
    const compiled = compileServices({
      node,
      objects: folder.objects,
      pods: [...this.#records.all()].map((record) => ({
        plan: record.plan,
        status: statuses.get(record.plan.uid) ?? null,
        isLeaving: record.isLeaving,
        opaquePorts: record.opaquePorts,
      })),
      clusterIps,
      namespaceAnnotations: annotationsOf,
      meshAnnotations: context.meshAnnotations,
    });
    const { services } = compiled;
    const made = this.#view === null ? compiled.view : shareUnchanged(this.#view, compiled.view);
    const servicesByName = new Map(services.map((one) => [`${one.namespace}/${one.name}`, one]));
    const policy = this.#compilePolicy(folder, made);
    const { outsideNames } = this.#parts;
    outsideNames?.want(
      [...policy.externals.values()].flatMap((entry) =>
        entry.kind === "backend" ? [entry.backend.hostname] : [],
      ),
    );
    const outsideAddresses = outsideNames?.addresses ?? NO_ADDRESSES;
    const revoked = this.#parts.revoked?.() ?? NOBODY;
    const { keySets } = this.#parts;
    keySets?.want(keySetSources({ ...made, policy }));
    const sets = keySets?.sets ?? NO_SETS;
    const view: MeshView = { ...made, policy, outsideAddresses, revoked, keySets: sets };
    for (const loaded of folder.objects.values()) {
      if (isWorkload(loaded.object)) continue;
      if (isPolicy(loaded.object)) {
        tell(loaded, policyStatus(loaded, policy, sets));
        continue;
      }
      const service =
        loaded.object.kind === "Service"
          ? servicesByName.get(`${namespaceOf(loaded.object)}/${loaded.object.metadata.name}`)
          : undefined;
      tell(loaded, statusOf(loaded, service === undefined ? "" : describeService(service), true));
    }
    this.#view = view;
    this.#manifests = manifests;
    this.#problems = problems;
    this.#logProblems([...problems, ...manifests.flatMap(({ status }) => status.findings)], log);
    // In this order: remember, tell discovery, then let the agent act.
    this.#records.save();
    const allocated = JSON.stringify(this.#virtualIps);
    if (state.readText("virtual-ips.json") !== allocated) state.writeText("virtual-ips.json", allocated);
    this.#sinks.view(view);
    const plans = [...this.#records.all()]
      .filter((record) => !record.isLeaving)
      .map((record) => withRefusedInbound(view, record.plan));
    this.#sinks.plan(plans, services);
    this.#wake?.cancel();
    this.#wake =
      wakeAtMs === Number.POSITIVE_INFINITY
        ? null
        : clock.after(Math.max(JOIN_MS, wakeAtMs - context.nowMs), () => this.#soon());
  }

  /** Only a change of the folder changes it: Services and their ports come from there too. */
  #compilePolicy(folder: LoadedFolder, view: MeshView): CompiledPolicy {
    const before = this.#policy;
    if (before !== null && before.of === folder && before.node === view.node) return before.compiled;
    const compiled = compilePolicy({ objects: folder.objects, view });
    this.#policy = { of: folder, node: view.node, compiled };
    return compiled;
  }

  /** Steps a workload until it has nothing more to do for now. */
  #rest(loaded: LoadedObject, context: StepContext): ReturnType<typeof stepWorkload> {
    for (let i = 0; ; i++) {
      const outcome = stepWorkload(loaded, this.#records, context);
      const { create, remove } = outcome.decision;
      if (outcome.missing !== null || create.length + remove.length === 0) return outcome;
      if (i === STEPS_MAX) {
        this.#parts.log.error("a workload does not come to rest; it goes on with the next change", {
          object: `${loaded.object.kind} ${namespaceOf(loaded.object)}/${loaded.object.metadata.name}`,
        });
        return outcome;
      }
    }
  }

  /** Pods whose workload is no longer in the folder. */
  #letGoOrphans(folder: LoadedFolder, statuses: ReadonlyMap<string, PodStatus>): void {
    for (const record of this.#records.all()) {
      const { uid } = record.plan;
      if (record.isLeaving || folder.objects.has(record.plan.owner)) continue;
      record.isLeaving = true;
      this.#records.touch();
      if (!statuses.has(uid)) this.#records.delete(uid);
    }
    for (const map of [this.#records.jobs, this.#records.restarts, this.#records.serials]) {
      for (const owner of map.keys()) {
        if (owner === "" || folder.objects.has(owner)) continue;
        map.delete(owner);
        this.#records.touch();
      }
    }
  }

  /** ConfigMaps and Secrets in volumes change in running pods, as in Kubernetes; environments do not. */
  #refreshVolumes(context: StepContext, folder: LoadedFolder, problems: FolderProblem[]): void {
    for (const record of this.#records.all()) {
      const { plan } = record;
      const template = this.#records.templates.get(templateKey(plan.owner, plan.templateHash));
      if (
        record.isLeaving ||
        template === undefined ||
        !plan.volumes.some((volume) => volume.kind === "files")
      )
        continue;
      const facts = {
        name: plan.name,
        namespace: plan.namespace,
        uid: plan.uid,
        labels: plan.labels,
        annotations: plan.annotations,
        nodeName: context.node.name,
        serviceAccount: plan.serviceAccount,
      };
      try {
        const volumes = volumesOf(template.spec, facts, context.refs, record.claims);
        if (JSON.stringify(volumes) !== JSON.stringify(plan.volumes)) {
          record.plan = { ...plan, volumes };
          this.#records.touch();
        }
      } catch (error) {
        if (!(error instanceof MissingReference)) throw error;
        const loaded = folder.objects.get(plan.owner);
        if (loaded === undefined || !isWorkload(loaded.object)) continue;
        const problem = problemOf(
          loaded,
          [...templatePath(loaded.object), "spec", ...error.path],
          `${error.message}; running pods keep what they have`,
        );
        if (!problems.some((other) => describeProblem(other) === describeProblem(problem)))
          problems.push(problem);
      }
    }
  }

  #allocate(folder: LoadedFolder, node: NodeInfo, problems: FolderProblem[]): Map<string, IpAddress> {
    const asking: { key: string; wanted: string | null; loaded: LoadedObject }[] = [];
    for (const loaded of folder.objects.values()) {
      const { object } = loaded;
      if (
        object.kind !== "Service" ||
        object.spec.clusterIP === "None" ||
        object.spec.type === "ExternalName"
      )
        continue;
      const wanted = object.spec.clusterIP ?? object.spec.clusterIPs?.[0] ?? "";
      asking.push({
        key: `${namespaceOf(object)}/${object.metadata.name}`,
        wanted: wanted === "" ? null : wanted,
        loaded,
      });
    }
    const { ips, taken } = allocateVirtualIps(asking, this.#virtualIps, node.serviceCidr);
    this.#virtualIps = taken;
    const out = new Map<string, IpAddress>();
    for (const { key, loaded } of asking) {
      const allocation = ips.get(key);
      if (allocation?.kind === "ip") out.set(key, allocation.ip);
      else if (allocation?.kind === "refused")
        problems.push(problemOf(loaded, ["spec", "clusterIP"], allocation.reason));
    }
    return out;
  }

  #logProblems(problems: readonly FolderProblem[], log: Log): void {
    const lines = problems.map(describeProblem);
    const text = lines.join("\n");
    if (text === this.#loggedProblems) return;
    this.#loggedProblems = text;
    for (const line of lines.slice(0, 100))
      log.warn("an object is not taken, or not whole", { problem: line });
    if (lines.length === 0) log.info("all objects of the folder are taken");
  }
}

function statusOf(loaded: LoadedObject, summary: string, ok: boolean): ObjectStatus {
  const { object } = loaded;
  return {
    kind: shownKind(object),
    namespace: namespaceOf(object),
    name: object.metadata.name,
    file: loaded.file,
    summary,
    ok,
    parents: [],
    findings: [],
  };
}

function policyStatus(
  loaded: LoadedObject,
  policy: CompiledPolicy,
  keySets: ReadonlyMap<string, KeySet>,
): ObjectStatus {
  const key = objectKey(loaded.object);
  const parents = policy.statuses.get(key) ?? [];
  const keys = loaded.object.kind === "JwtPolicy" ? keyFindings(loaded.object, keySets) : NO_KEYS;
  const findings = [...(policy.findings.get(key) ?? []), ...keys.findings].map(({ path, message }) =>
    problemOf(loaded, path, message),
  );
  if (!keys.hasAll && isFine(parents))
    return { ...statusOf(loaded, "some of its keys cannot be had", false), parents, findings };
  const summary = isFine(parents)
    ? parents.length === 0
      ? "attached to nothing"
      : `accepted by ${parents.map((each) => describeParent(each.parent)).join(", ")}${modeOf(parents)}`
    : describeFaults(parents);
  return { ...statusOf(loaded, summary, isFine(parents)), parents, findings };
}

function modeOf(parents: readonly ParentStatus[]): string {
  const isAudited = parents.some(({ conditions }) =>
    conditions.some(({ message }) => message.startsWith(AUDITED)),
  );
  return isAudited ? `; ${AUDITED}` : "";
}

const NO_SETS: ReadonlyMap<string, KeySet> = new Map();
const NO_KEYS = { findings: [], hasAll: true } as const;

function describeService(service: ServicePlan): string {
  if (service.externalName !== null) return `stands for ${service.externalName}`;
  const ready = service.endpoints.filter((endpoint) => endpoint.ready).length;
  return `${service.clusterIp ?? "headless"}, ${ready} endpoint${ready === 1 ? "" : "s"}`;
}

function sameMap(a: ReadonlyMap<string, string>, b: ReadonlyMap<string, string>): boolean {
  return a.size === b.size && [...a].every(([key, value]) => b.get(key) === value);
}
