import { chmodSync, mkdirSync, readdirSync, rmSync, statSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import type { IpAddress } from "#/base/address.ts";
import { describeError } from "#/base/errors.ts";
import type { PodInterception } from "#/kernel/interception.ts";
import { fieldVariables, withFieldVariables } from "#/model/field-variables.ts";
import type { ContainerPlan, PodPhase, PodPlan, PodStatus } from "#/model/pod-plan.ts";
import { hiddenRoots } from "../instance.ts";
import { ensureDir, giveTo, removeTree, writeAtomic } from "../files.ts";
import { isAlive } from "../processes.ts";
import { shellQuote } from "../run-command.ts";
import { defaultEnvironment, homeOf, podFiles } from "./container-environment.ts";
import {
  Container,
  NEW_CONTAINER,
  type ContainerHost,
  type ContainerRecord,
  type ContainerRole,
} from "./container.ts";
import type { Cgroup } from "./cgroups.ts";
import { sidecarSource } from "./addresses.ts";
import { delay, type LaunchSpec, type SandboxedProcess } from "./launch.ts";
import { SHOWN_NODE_DIR, SHOWN_PACKAGE, type PodHost } from "./pod-host.ts";
import {
  containerCapabilities,
  dropPrivileges,
  isLoaderVariable,
  missingMountPoints,
  sandboxArguments,
  type RunAs,
} from "./sandbox.ts";
import { podCpuRequests } from "./pod-weight.ts";
import { weighedOnly } from "./process-groups.ts";
import { NEW_SIDECAR, Sidecar, sidecarLimits, type SidecarRecord } from "./sidecar.ts";
import {
  asksForWorkloadApi,
  makeWorkloadApiFolder,
  workloadApiBind,
  WORKLOAD_API_VARIABLE,
} from "./workload-api.ts";
import { prepareVolumes, refreshFiles, removeVolumes, subPathOf, type VolumeFolders } from "./volumes.ts";

/** What a pod waits for. */
export const Stage = {
  /** Its network namespace, address and cgroups. */
  NETWORK: "Network",
  /** Its sidecar to be ready and to intercept. */
  SIDECAR: "Sidecar",
  /** Its init containers, in order. */
  INIT: "Init",
  /** Its end. */
  RUNNING: "Running",
  /** preStop hooks, and the sidecar's last inbound requests. */
  DRAINING: "Draining",
  /** Its containers to end: applications, then native sidecars, then the mesh's sidecar. */
  STOPPING: "Stopping",
  /** The removal of what it had on this machine. */
  REMOVING: "Removing",
  /** Its deletion: it has run to its end (a Job's pod), and only its status and logs are left. */
  FINISHED: "Finished",
  GONE: "Gone",
} as const;
export type Stage = (typeof Stage)[keyof typeof Stage];

/** What is kept of a pod over restarts of the agent: `pod.json` in its folder. JSON-safe. */
export interface PodRecord {
  plan: PodPlan;
  ip: string;
  slot: number;
  startedAtMs: number;
  stopping: boolean;
  /** Reached RUNNING once: the containers' life goes on where it was, init containers do not run again. */
  initialised: boolean;
  /** How it ended by itself. */
  finalPhase: "Succeeded" | "Failed" | null;
  containers: Record<string, ContainerRecord>;
  sidecar: SidecarRecord | null;
}

const POD_PIDS_MAX = 8192;
const DRAIN_MAX_MS = 5_000;
const SIDECAR_GRACE_MS = 5_000;
const RETRY_FIRST_MS = 500;
const RETRY_LAST_MS = 30_000;

/** The life of one pod, from its plan to its removal. */
export class Pod {
  /** Once its connections are intercepted. */
  #app: Cgroup | null = null;
  readonly record: PodRecord;
  readonly #host: PodHost;
  #stage: Stage = Stage.NETWORK;
  #complaint = "";
  #containers: Container[] = [];
  #sidecar: Sidecar | null = null;
  #volumes: ReadonlyMap<string, string> = new Map();
  #stopRequested: () => void = () => {};
  readonly #stop: Promise<void>;
  #saveQueued = false;
  /** Resolves when it has been brought up, taken over, or has met its first obstacle: its status means something then. */
  readonly settled: Promise<void>;
  #resolveSettled: () => void = () => {};
  /** Resolves when nothing of it is left on the machine. */
  readonly gone: Promise<void>;
  #resolveGone: () => void = () => {};

  constructor(host: PodHost, record: PodRecord) {
    this.#host = host;
    this.record = record;
    this.#stop = new Promise((resolve) => (this.#stopRequested = resolve));
    this.settled = new Promise((resolve) => (this.#resolveSettled = resolve));
    this.gone = new Promise((resolve) => (this.#resolveGone = resolve));
    if (record.stopping) this.#stopRequested();
  }

  /** A new pod's record; takes an address and a slot. */
  static newRecord(host: PodHost, plan: PodPlan): PodRecord {
    const ip = host.addresses.take();
    const slot = host.slots.take();
    return {
      plan,
      ip,
      slot,
      startedAtMs: Date.now(),
      stopping: false,
      initialised: false,
      finalPhase: null,
      containers: {},
      sidecar: null,
    };
  }

  get plan(): PodPlan {
    return this.record.plan;
  }

  get stage(): Stage {
    return this.#stage;
  }

  start(): void {
    ensureDir(this.#dir());
    if (this.record.initialised && !this.#anythingRuns()) this.#beginAnew();
    this.#save();
    void this.#live().catch((error: unknown) =>
      this.#host.log("error", `pod ${this.#name()}: ${describeError(error)}`),
    );
  }

  /** Applies what may change in a running pod: contents of files, labels. */
  update(plan: PodPlan): void {
    if (JSON.stringify(plan) === JSON.stringify(this.record.plan)) return;
    const refusedBefore = JSON.stringify(this.record.plan.sidecar?.refusedInbound ?? []);
    this.record.plan = plan;
    if (plan.sidecar !== null) this.#sidecar?.update(plan.sidecar);
    if (this.#app !== null && JSON.stringify(plan.sidecar?.refusedInbound ?? []) !== refusedBefore)
      this.#updateInterception(this.#app);
    if (this.#stage === Stage.RUNNING || this.#stage === Stage.INIT || this.#stage === Stage.SIDECAR) {
      try {
        refreshFiles(plan, this.#volumeFolders());
        this.#complaint = "";
      } catch (error) {
        this.#complaint = `its files could not be brought up to date: ${describeError(error)}`;
      }
    }
    this.#changed();
  }

  /** Ends it in order. Repeating it does nothing. */
  stop(): void {
    if (this.record.stopping) return;
    this.record.stopping = true;
    this.#stopRequested();
    this.#changed();
  }

  status(): PodStatus {
    const { plan, ip, startedAtMs, stopping } = this.record;
    // The applications first: they are what an operator means when they name no container.
    const order = ["app", "native-sidecar", "init"];
    const listed = this.#containers.toSorted((a, b) => order.indexOf(a.role) - order.indexOf(b.role));
    const containers = listed.map((container) => container.status());
    return {
      uid: plan.uid,
      name: plan.name,
      namespace: plan.namespace,
      templateHash: plan.templateHash,
      owner: plan.owner,
      ip: this.#stage === Stage.NETWORK ? "" : ip,
      phase: this.#phase(),
      ready: this.#ready(),
      terminating: stopping,
      message: this.#message(),
      startedAtMs,
      intercept: plan.sidecar === null ? "none" : this.#host.intercept,
      containers,
      sidecar: this.#sidecar?.status() ?? null,
    };
  }

  container(name: string): Container | null {
    return this.#containers.find((container) => container.plan.name === name) ?? null;
  }

  get sidecar(): Sidecar | null {
    return this.#sidecar;
  }

  logFile(container: string): string {
    return join(this.#dir(), "logs", `${container}.log`);
  }

  execScript(container: string): string {
    return join(this.#runDir(), "exec", `${container}.sh`);
  }

  // — life —

  async #live(): Promise<void> {
    let retryMs = RETRY_FIRST_MS;
    while (!this.record.stopping && this.record.finalPhase === null) {
      try {
        await this.#run();
        break;
      } catch (error) {
        this.#complaint = describeError(error);
        this.#host.log("warn", `pod ${this.#name()}: ${this.#complaint}`);
        this.#changed();
        this.#resolveSettled();
        await Promise.race([delay(retryMs), this.#stop]);
        retryMs = Math.min(retryMs * 2, RETRY_LAST_MS);
      }
    }
    this.#resolveSettled();
    if (!this.record.stopping) {
      // It has run to its end. What is left is its status, until its plan is withdrawn.
      await this.#endProcesses(0);
      await this.#removeRuntime();
      this.#enter(Stage.FINISHED);
      await this.#stop;
    } else {
      await this.#drainAndEnd();
      await this.#removeRuntime();
    }
    await this.#removeFiles();
    this.#enter(Stage.GONE);
    this.#resolveGone();
  }

  /** Brings it up and stays until it has to end or has ended by itself. Whatever exists already is taken over. */
  async #run(): Promise<void> {
    const { plan } = this.record;
    refuseUnsupported(plan);
    const app = this.#createCgroups();
    if (!this.#host.network.namespaces().includes(plan.uid) || !this.#anythingRuns()) {
      this.#enter(Stage.NETWORK);
      await this.#host.network.add(plan.uid, this.record.ip as IpAddress, this.record.slot, this.#sourceIp());
    }
    this.#volumes = await prepareVolumes(plan, this.#volumeFolders());
    this.#writePodFiles();
    if (asksForWorkloadApi(plan))
      await makeWorkloadApiFolder(this.#runDir(), this.#host.users.sidecar(this.record.slot));
    this.#intercept(app);
    if (plan.sidecar !== null) {
      this.#enter(Stage.SIDECAR);
      this.#startSidecar(app);
      if (!this.record.initialised) await Promise.race([this.#sidecar?.ready, this.#stop]);
    }
    if (this.record.stopping) return;
    if (!(await this.#runInit())) return;
    this.record.initialised = true;
    for (const each of plan.containers) this.#container(each, "app").start();
    this.#enter(Stage.RUNNING);
    // Containers that are taken over need a turn to be seen running.
    setImmediate(this.#resolveSettled);
    const apps = this.#containers.filter((container) => container.role === "app");
    await Promise.race([Promise.all(apps.map((container) => container.finished)), this.#stop]);
    if (this.record.stopping) return;
    this.record.finalPhase = apps.every((container) => container.record.lastExit?.code === 0)
      ? "Succeeded"
      : "Failed";
  }

  /** Init containers in order. False: the pod has failed or has to end. */
  async #runInit(): Promise<boolean> {
    const { plan } = this.record;
    if (!this.record.initialised) this.#enter(Stage.INIT);
    for (const each of plan.initContainers) {
      const container = this.#container(each, each.restartAlways ? "native-sidecar" : "init");
      if (each.restartAlways) {
        container.start();
        // A native sidecar has only to have started; then the next one begins.
        while (!this.record.initialised && !this.record.stopping && !container.record.started)
          await Promise.race([delay(20), this.#stop]);
      } else if (!this.record.initialised) {
        container.start();
        await Promise.race([container.finished, this.#stop]);
        if (!this.record.stopping && container.record.lastExit?.code !== 0) {
          this.record.finalPhase = "Failed";
          return false;
        }
      }
      if (this.record.stopping) return false;
    }
    return true;
  }

  /** The order of a deletion: out of discovery, drained until nobody comes any more, applications, native sidecars, sidecar. */
  async #drainAndEnd(): Promise<void> {
    const graceMs = this.record.plan.terminationGracePeriodSeconds * 1000;
    const startedMs = Date.now();
    this.#enter(Stage.DRAINING);
    const running = this.#containers.filter((container) => container.role === "app");
    const drained = this.#sidecar?.drainInbound(Math.min(graceMs / 2, DRAIN_MAX_MS));
    await Promise.all([...running.map((container) => container.preStop(graceMs)), drained]);
    await this.#endProcesses(graceMs - (Date.now() - startedMs));
  }

  async #endProcesses(graceMs: number): Promise<void> {
    this.#enter(Stage.STOPPING);
    // The kubelet gives two seconds even where the hook has used up the whole grace.
    const leftMs = Math.max(graceMs, Math.min(2_000, this.record.plan.terminationGracePeriodSeconds * 1000));
    const end = Date.now() + leftMs;
    await Promise.all(
      this.#containers.filter((each) => each.role !== "native-sidecar").map((each) => each.terminate(leftMs)),
    );
    for (const each of this.#containers
      .filter((container) => container.role === "native-sidecar")
      .toReversed()) {
      const ms = Math.max(end - Date.now(), 2_000);
      await each.preStop(ms);
      await each.terminate(ms);
    }
    await this.#sidecar?.terminate(SIDECAR_GRACE_MS);
  }

  /** Everything in the kernel: interception, cgroups, namespace. */
  async #removeRuntime(): Promise<void> {
    this.#enter(Stage.REMOVING);
    const { uid } = this.record.plan;
    this.#host.interceptor?.remove(this.#host.instance.name, uid);
    for (let pass = 0; !this.#host.cgroups.remove(uid); pass++) {
      if (pass === 100) {
        this.#host.log("warn", `pod ${this.#name()}: processes in its cgroup do not die`);
        break;
      }
      await delay(pass < 20 ? 5 : 50);
    }
    await this.#host.network.remove(uid, this.record.slot);
    await removeVolumes(this.#volumeFolders());
    removeTree(this.#runDir());
    this.#sidecar = null;
  }

  async #removeFiles(): Promise<void> {
    this.#host.addresses.release(this.record.ip as IpAddress);
    this.#host.slots.release(this.record.slot);
    this.#saveQueued = true; // Nothing is written from here on.
    await Promise.resolve();
    removeTree(this.#dir());
  }

  // — parts —

  #createCgroups(): Cgroup {
    const { plan } = this.record;
    const { appMillis, podMillis } = podCpuRequests(plan);
    this.#host.cgroups.create(plan.uid, weighedOnly(podMillis));
    const app = this.#host.cgroups.create(`${plan.uid}/app`, weighedOnly(appMillis));
    if (plan.sidecar !== null) this.#host.cgroups.create(`${plan.uid}/sidecar`, sidecarLimits(plan.sidecar));
    return app;
  }

  #anythingRuns(): boolean {
    const launches = [this.record.sidecar, ...Object.values(this.record.containers)].map(
      (each) => each?.launch ?? null,
    );
    return launches.some((launch) => launch !== null && isAlive(launch.monitor));
  }

  /** After a reboot, or when everything was killed: the whole order again, sidecar and init containers first. */
  #beginAnew(): void {
    this.record.initialised = false;
    if (this.record.sidecar !== null) this.record.sidecar = { ...this.record.sidecar, launch: null };
    for (const [name, record] of Object.entries(this.record.containers)) {
      const again = record.launch === null ? 0 : 1;
      const isApp = this.record.plan.containers.some((each) => each.name === name);
      // An application that had ended for good stays ended.
      if (isApp && record.done) continue;
      this.record.containers[name] = {
        ...NEW_CONTAINER,
        restartCount: record.restartCount + again,
        backoff: record.backoff,
      };
    }
  }

  /** The sidecar refuses by itself what the kernel does not, so a failure costs work and lets nobody in. */
  #updateInterception(app: Cgroup): void {
    try {
      this.#host.interceptor?.update(this.#interception(app));
    } catch (error) {
      this.#host.log(
        "warn",
        `pod ${this.#name()}: refusals by address stay with the sidecar: ${describeError(error)}`,
      );
    }
  }

  #interception(app: Cgroup): PodInterception {
    const { plan } = this.record;
    const { instance, network, cgroups } = this.#host;
    const sourceIp = this.#sourceIp();
    const sidecar = plan.sidecar === null ? null : cgroups.create(`${plan.uid}/sidecar`, null);
    return {
      instance: instance.name,
      pod: plan.uid,
      netnsPath: network.namespacePath(plan.uid),
      appCgroup: app.v2,
      sidecarCgroup: sidecar?.v2 ?? "",
      podIps: [this.record.ip as IpAddress, ...(sourceIp === null ? [] : [sourceIp])],
      mode: plan.sidecar === null ? "service-only" : "meshed",
      sidecarUid: this.#host.users.sidecar(this.record.slot),
      ...(sourceIp === null ? {} : { exempt: { sourceAddress: sourceIp } }),
      skipInboundPorts: plan.sidecar?.skipInboundPorts ?? [],
      skipOutboundPorts: plan.sidecar?.skipOutboundPorts ?? [],
      letThroughCidrs: plan.sidecar?.letThroughCidrs ?? [],
      refusedInbound: plan.sidecar?.refusedInbound ?? [],
    };
  }

  #intercept(app: Cgroup): void {
    const { interceptor } = this.#host;
    if (interceptor === null) return;
    const interception = this.#interception(app);
    this.#app = app;
    try {
      if (!interceptor.adopt(interception)) interceptor.install(interception);
    } catch (error) {
      // What an earlier agent installed lives in the kernel and goes on: a running pod is not given up for this.
      if (!this.#anythingRuns()) throw error;
      this.#host.log(
        "warn",
        `pod ${this.#name()}: its interception could not be renewed: ${describeError(error)}`,
      );
    }
  }

  #startSidecar(app: Cgroup): void {
    const { plan } = this.record;
    if (plan.sidecar === null || this.#sidecar !== null) return;
    this.record.sidecar ??= { ...NEW_SIDECAR };
    const cgroup = this.#host.cgroups.create(`${plan.uid}/sidecar`, null);
    this.#sidecar = new Sidecar(
      this.#host,
      plan,
      plan.sidecar,
      {
        podIp: this.record.ip,
        sourceIp: this.#sourceIp(),
        slot: this.record.slot,
        netns: this.#host.network.namespacePath(plan.uid),
        cgroup,
        appCgroup: app,
        logFile: this.logFile("pillion-sidecar"),
        statusFile: join(this.#runDir(), "status", "pillion-sidecar.json"),
        etcFiles: this.#etcFiles(),
        workloadApi: asksForWorkloadApi(plan) ? workloadApiBind(this.#runDir(), true) : null,
      },
      this.record.sidecar,
      () => this.#changed(),
    );
    this.#sidecar.start();
  }

  #container(plan: ContainerPlan, role: ContainerRole): Container {
    const known = this.container(plan.name);
    if (known !== null) return known;
    const record = (this.record.containers[plan.name] ??= { ...NEW_CONTAINER });
    const path = `${this.record.plan.uid}/app/${plan.name}`;
    const limits = {
      cpuLimitMillis: plan.cpuLimitMillis,
      cpuRequestMillis: plan.cpuRequestMillis,
      memoryLimitBytes: plan.memoryLimitBytes,
      pidsMax: POD_PIDS_MAX,
    };
    const cgroup = this.#host.cgroups.create(path, limits);
    const statusFile = join(this.#runDir(), "status", `${plan.name}.json`);
    const host: ContainerHost = {
      cgroups: this.#host.cgroups,
      podIp: this.record.ip,
      restartPolicy: this.record.plan.restartPolicy,
      graceMs: this.record.plan.terminationGracePeriodSeconds * 1000,
      cgroup,
      logFile: this.logFile(plan.name),
      statusFile,
      execScript: this.execScript(plan.name),
      prepare: () => this.#prepare(plan, cgroup, statusFile),
      writeExecScript: (process) => this.#writeExecScript(plan, cgroup, process),
      changed: () => this.#changed(),
    };
    const container = new Container(host, plan, role, record);
    this.#containers.push(container);
    return container;
  }

  #prepare(plan: ContainerPlan, cgroup: Cgroup, statusFile: string): LaunchSpec {
    const pod = this.record.plan;
    const runAs = this.#runAs(plan);
    const scratchDir = join(this.#dir(), "scratch", plan.name);
    makeScratch(scratchDir);
    const binds = plan.mounts.map((mount) => {
      const volume = this.#volumes.get(mount.volume);
      if (volume === undefined) throw new Error(`volume "${mount.volume}" is not in the pod`);
      const source =
        mount.subPath === null || mount.subPath === "" ? volume : subPathOf(volume, mount.subPath);
      const kind = pod.volumes.find((each) => each.name === mount.volume);
      const readOnly = mount.readOnly || kind?.kind === "files" || (kind?.kind === "claim" && kind.readOnly);
      return { source, target: mount.mountPath.replace(/(?<=.)\/+$/, ""), readOnly };
    });
    const overlays = this.#overlays(join(scratchDir, "overlays"), binds);
    const environment = this.#environment(plan, runAs.uid);
    const loader = environment
      .filter(([name]) => isLoaderVariable(name))
      .map(([name, value]) => `${name}=${value}`);
    return {
      cgroup,
      netns: this.#host.network.namespacePath(pod.uid),
      sandbox: sandboxArguments({
        hostname: pod.hostname,
        scratchDir,
        readOnly: plan.readOnlyRootFilesystem,
        etcFiles: this.#etcFiles(),
        binds: [
          ...binds,
          { source: this.#host.programs.nodeDir, target: SHOWN_NODE_DIR, readOnly: true },
          // Manifests name the demo's programs by this path: where the checkout lies differs.
          { source: this.#host.programs.packageRoot, target: SHOWN_PACKAGE, readOnly: true },
          ...(asksForWorkloadApi(pod) ? [workloadApiBind(this.#runDir(), false)] : []),
        ],
        hidden: this.#hidden(),
        shown: [this.#host.programs.packageRoot],
        overlays: new Map(overlays.map(({ lower, at }) => [lower, at])),
        workingDir: plan.workingDir ?? "/",
        seenAs: this.#seenAs(runAs),
        env: environment.filter(([name]) => !isLoaderVariable(name)),
      }),
      overlays,
      argv: [
        ...(this.#seenAs(runAs) === null ? dropPrivileges(runAs) : []),
        ...(loader.length > 0 ? ["/usr/bin/env", ...loader] : []),
        ...plan.argv.map((word) => withFieldVariables(word, this.#fieldVariables(plan))),
      ],
      logFile: this.logFile(plan.name),
      statusFile,
      stdinFile: plan.stdin ? join(this.#runDir(), "status", `${plan.name}.stdin`) : null,
      secret: null,
    };
  }

  /** Read-only overlays for mount points that the machine's own folders lack. */
  #overlays(
    dir: string,
    binds: readonly { readonly source: string; readonly target: string }[],
  ): LaunchSpec["overlays"] {
    const missing = missingMountPoints(binds.map((bind) => bind.target));
    return [...missing].map(([lower, names], index) => {
      const upper = join(dir, `${index}-upper`);
      const at = join(dir, `${index}`);
      ensureDir(at);
      ensureDir(upper);
      // The upper folder's mode and owner are what a container sees of the merged one.
      const stat = statSync(lower);
      chmodSync(upper, stat.mode & 0o7777);
      giveTo(upper, stat.uid, stat.gid);
      for (const name of names) {
        const source = binds.find((bind) => bind.target.endsWith(`/${name}`))?.source;
        if (source !== undefined && statSync(source).isFile()) {
          mkdirSync(join(upper, name, ".."), { recursive: true, mode: 0o755 });
          writeFileSync(join(upper, name), "");
        } else mkdirSync(join(upper, name), { recursive: true, mode: 0o755 });
      }
      return { at, upper, lower };
    });
  }

  #runAs(plan: ContainerPlan): RunAs {
    const pod = this.record.plan;
    const groups = [...new Set([...pod.supplementalGroups, ...(pod.fsGroup === null ? [] : [pod.fsGroup])])];
    return {
      uid: plan.runAsUser ?? 0,
      gid: plan.runAsGroup ?? 0,
      groups,
      capabilities: containerCapabilities(plan.capabilitiesAdd, plan.capabilitiesDrop),
      keepGroups: this.#host.users.isOneForAll,
    };
  }

  /** Where we can become no other user, a container that asks for one gets a user namespace in which it is that one. */
  #seenAs(runAs: RunAs): { uid: number; gid: number } | null {
    if (!this.#host.users.isOneForAll || (runAs.uid === 0 && runAs.gid === 0)) return null;
    return { uid: runAs.uid, gid: runAs.gid };
  }

  /** nftables tells the sidecar by its user, and where there is but one, by a reserved address. */
  #sourceIp(): IpAddress | null {
    const { users, interceptor, instance } = this.#host;
    if (!users.isOneForAll || interceptor === null || this.record.plan.sidecar === null) return null;
    return sidecarSource(instance.podCidr, this.record.ip as IpAddress);
  }

  #environment(plan: ContainerPlan, uid: number): [string, string][] {
    const env = new Map(defaultEnvironment(this.record.plan.hostname, homeOf(uid), SHOWN_NODE_DIR));
    if (asksForWorkloadApi(this.record.plan)) env.set(...WORKLOAD_API_VARIABLE);
    const fields = this.#fieldVariables(plan);
    for (const each of plan.env) {
      env.set(
        each.name,
        "value" in each ? withFieldVariables(each.value, fields) : (fields.get(each.name) ?? ""),
      );
    }
    return [...env];
  }

  #fieldVariables(plan: ContainerPlan): ReadonlyMap<string, string> {
    return fieldVariables(plan.env, (field) =>
      field === "status.hostIP" ? this.#host.instance.gatewayIp : this.record.ip,
    );
  }

  /** How to enter the container: its cgroups, its namespaces, then its user and limits. Readable by root only. */
  #writeExecScript(plan: ContainerPlan, cgroup: Cgroup, process: SandboxedProcess): void {
    const init = process.init();
    if (init === null) return;
    const runAs = this.#runAs(plan);
    const environment = this.#environment(plan, runAs.uid);
    const loader = environment
      .filter(([name]) => isLoaderVariable(name))
      .map(([name, value]) => shellQuote(`${name}=${value}`));
    const exported = environment.filter(
      ([name]) => !isLoaderVariable(name) && /^[A-Za-z_][A-Za-z0-9_]*$/.test(name),
    );
    const lines = [
      ...cgroup.dirs.map((dir) => `echo 0 > ${shellQuote(`${dir}/cgroup.procs`)} || exit 126`),
      "unset OLDPWD PWD",
      ...exported.map(([name, value]) => `export ${name}=${shellQuote(value)}`),
      [
        `exec /usr/bin/nsenter --target ${init.pid} --mount --pid --net --ipc --uts --`,
        // Last, because it is the end of what we may do in the others.
        ...(this.#seenAs(runAs) === null
          ? []
          : ["/usr/bin/nsenter --target 1 --user --preserve-credentials --"]),
        `/bin/sh -c 'cd "$0" && exec "$@"' ${shellQuote(plan.workingDir ?? "/")}`,
        ...dropPrivileges(runAs).map(shellQuote),
        ...(loader.length > 0 ? ["/usr/bin/env", ...loader] : []),
        '"$@"',
      ].join(" "),
      "",
    ];
    writeAtomic(this.execScript(plan.name), lines.join("\n"), 0o600);
  }

  #writePodFiles(): void {
    for (const dir of ["logs", "scratch", "volumes"]) ensureDir(join(this.#dir(), dir));
    for (const dir of ["status", "exec", "etc", "volumes"]) ensureDir(join(this.#runDir(), dir));
    const { plan, ip } = this.record;
    const { gatewayIp } = this.#host.instance;
    const files = podFiles(plan, ip, gatewayIp, this.#host.clusterDomain);
    for (const [name, text] of Object.entries(files))
      writeAtomic(join(this.#runDir(), "etc", name), text, 0o644);
  }

  #etcFiles(): { source: string; target: string }[] {
    return ["resolv.conf", "hosts", "hostname"].map((name) => ({
      source: join(this.#runDir(), "etc", name),
      target: `/etc/${name}`,
    }));
  }

  #hidden(): readonly string[] {
    return hiddenRoots(this.#host.instance);
  }

  #volumeFolders(): VolumeFolders {
    const { stateDir } = this.#host.instance;
    return {
      podDir: join(this.#dir(), "volumes"),
      podRunDir: join(this.#runDir(), "volumes"),
      claimsDir: join(stateDir, "agent", "claims"),
      hidden: this.#hidden(),
    };
  }

  #dir(): string {
    return join(this.#host.instance.stateDir, "agent", "pods", this.record.plan.uid);
  }

  #runDir(): string {
    return join(this.#host.instance.runDir, "pods", this.record.plan.uid);
  }

  #name(): string {
    return `${this.record.plan.namespace}/${this.record.plan.name}`;
  }

  // — what it shows —

  #phase(): PodPhase {
    if (this.record.finalPhase !== null) return this.record.finalPhase;
    return this.record.initialised &&
      this.#containers.some((each) => each.role === "app" && (each.running || each.record.lastExit !== null))
      ? "Running"
      : "Pending";
  }

  #ready(): boolean {
    if (this.#stage !== Stage.RUNNING || this.record.stopping) return false;
    if (this.#sidecar !== null && !this.#sidecar.isReady) return false;
    return this.#containers.every((each) => each.role === "init" || each.ready);
  }

  #message(): string {
    if (this.#complaint !== "") return this.#complaint;
    const sidecar = this.#sidecar?.complaint() ?? "";
    if (sidecar !== "") return sidecar;
    return this.#containers.map((each) => each.complaint()).find((text) => text !== "") ?? "";
  }

  #enter(stage: Stage): void {
    if (this.#stage === stage) return;
    this.#stage = stage;
    this.#complaint = "";
    this.#changed();
  }

  #changed(): void {
    if (!this.#saveQueued) {
      this.#saveQueued = true;
      // Joined over one turn; a process that this loses is found by its cgroup.
      queueMicrotask(() => {
        if (this.#stage === Stage.GONE || !this.#saveQueued) return;
        this.#saveQueued = false;
        this.#save();
      });
    }
    this.#host.changed();
  }

  #save(): void {
    writeAtomic(join(this.#dir(), "pod.json"), JSON.stringify(this.record));
  }
}

/** What would behave otherwise than asked for is not started. */
function refuseUnsupported(plan: PodPlan): void {
  if (plan.shareProcessNamespace) {
    throw new Error(
      "shareProcessNamespace is not supported on one machine: each container has its own; remove it from the pod",
    );
  }
  const terminal = [...plan.initContainers, ...plan.containers].find((container) => container.tty);
  if (terminal !== undefined) {
    throw new Error(
      `container ${terminal.name} asks for a terminal (tty), which containers do not get here: use \`pillion exec\` for one`,
    );
  }
}

/** Fresh at every start of a container, as a container's own file system is. */
function makeScratch(dir: string): void {
  rmSync(dir, { recursive: true, force: true });
  for (const name of ["tmp", "var-tmp", "var-log"]) {
    ensureDir(join(dir, name));
    chmodSync(join(dir, name), name === "var-log" ? 0o755 : 0o1777);
  }
  // Programs expect their folder below /var/log to be there, as their package made it.
  for (const entry of readdirSync("/var/log", { withFileTypes: true })) {
    if (!entry.isDirectory()) continue;
    const stat = statSync(join("/var/log", entry.name));
    const path = join(dir, "var-log", entry.name);
    ensureDir(path);
    giveTo(path, stat.uid, stat.gid);
    chmodSync(path, stat.mode & 0o7777);
  }
}
