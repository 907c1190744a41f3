import { printable } from "#/base/printable.ts";
import { existsSync, readdirSync, rmSync } from "node:fs";
import { availableParallelism, hostname } from "node:os";
import { dirname, join } from "node:path";
import { addressKey } from "#/base/address.ts";
import { describeError } from "#/base/errors.ts";
import { detectSupport, openInterceptor, type PodTraffic } from "#/kernel/interception.ts";
import type { NodeInfo } from "#/model/node-protocol.ts";
import type { OperatorAnswer, OperatorRequest, PodTrafficReport } from "#/model/operator-protocol.ts";
import type { ServicePlan } from "#/model/pod-plan.ts";
import { ControlLink, joinMs } from "./control-link.ts";
import type { Daemon } from "./daemon.ts";
import { zoneSnapshot } from "./dns/zone.ts";
import { explicitTargets, ownPorts } from "./explicit.ts";
import { ensureDir, readIfThere, writeAtomic } from "./files.ts";
import { ManifestFolder } from "./folder.ts";
import { describeInstance, type Instance } from "./instance.ts";
import { LogRotation } from "./log-rotation.ts";
import { controlProcess, controlSocketDir, dnsProcess, zoneFile } from "./mesh-processes.ts";
import { OperatorSocket } from "./operator-socket.ts";
import { AddressPool, lowerHalf, SlotPool } from "./runtime/addresses.ts";
import { Cgroups } from "./runtime/cgroups.ts";
import { PodNetwork } from "./runtime/network.ts";
import { Gate, type InterceptMode, type PodHost } from "./runtime/pod-host.ts";
import { PodRuntime } from "./runtime/pod-runtime.ts";
import { ProcessTrees } from "./runtime/process-trees.ts";
import { SIDECAR_NAME } from "./runtime/sidecar.ts";
import { ONE_USER, OWN_USERS } from "./runtime/users.ts";
import { strippedSources } from "./stripped-sources.ts";
import { cgroupBase, sweep } from "./sweep.ts";
import { NOT_KEPT, readEndpoints, readFlows, readPages } from "./unprivileged.ts";

export interface AgentOptions {
  readonly instance: string;
  readonly folder: string;
  /** auto: eBPF where the kernel allows it, else nftables. */
  readonly intercept: "auto" | InterceptMode;
  readonly podCidr: string;
  readonly serviceCidr: string;
  /** Where root and issuer of an authority outside lie; null: the mesh makes its own. */
  readonly issuerFolder?: string | null;
  readonly stateRoot: string;
  readonly runRoot: string;
  /** See `NodeInfo.testWithoutTls`. */
  readonly testWithoutTls?: boolean;
  /** We are the one user of a user namespace. */
  readonly unprivileged?: boolean;
  /** Nobody but this mesh is in it, so that its first process ends at `down`. */
  readonly endsNamespace?: boolean;
}

const CONTROL_PORT = 8086;
const CLUSTER_DOMAIN = "cluster.local";
const TRUST_DOMAIN = "cluster.local";
const DAEMON_GRACE_MS = 3_000;

/** One machine's agent: the parts, made and tied together. */
export class Agent {
  readonly #instance: Instance;
  readonly #host: PodHost;
  readonly #runtime: PodRuntime;
  readonly #link: ControlLink;
  readonly #control: Daemon;
  readonly #dns: Daemon;
  readonly #operators: OperatorSocket;
  readonly #rotation: LogRotation;
  readonly #node: NodeInfo;
  readonly #isUnprivileged: boolean;
  readonly #endsNamespace: boolean;
  readonly #folder: ManifestFolder;
  #services: readonly ServicePlan[] = [];
  /** A plan has come since the folder was last sent. */
  #planned = false;
  #zoneTimer: NodeJS.Timeout | null = null;
  #ending: Promise<void> | null = null;
  #end: () => void = () => {};

  constructor(options: AgentOptions, packageRoot: string) {
    const instance = describeInstance({ ...options, name: options.instance });
    this.#isUnprivileged = options.unprivileged ?? false;
    this.#endsNamespace = options.endsNamespace ?? false;
    this.#instance = instance;
    const intercept = chooseInterception(options.intercept, this.#isUnprivileged);
    ensureDir(instance.runDir, 0o755);
    ensureDir(join(instance.stateDir, "agent"));
    this.#node = {
      name: hostname(),
      instance: instance.name,
      gatewayIp: instance.gatewayIp,
      podCidr: instance.podCidr,
      serviceCidr: instance.serviceCidr,
      controlPort: CONTROL_PORT,
      intercept,
      clusterDomain: CLUSTER_DOMAIN,
      trustDomain: TRUST_DOMAIN,
      testWithoutTls: options.testWithoutTls ?? false,
    };
    this.#host = {
      instance,
      cgroups: this.#isUnprivileged
        ? new ProcessTrees(join(instance.runDir, "groups"))
        : new Cgroups(cgroupBase(instance.name)),
      users: this.#isUnprivileged ? ONE_USER : OWN_USERS,
      network: new PodNetwork(instance),
      addresses: new AddressPool(this.#isUnprivileged ? lowerHalf(instance.podCidr) : instance.podCidr),
      slots: new SlotPool(),
      intercept,
      interceptor: intercept === "explicit" ? null : openInterceptor(intercept, instance.name),
      explicitTargets: (pod) => explicitTargets(this.#services, ownPorts(pod, this.#services)),
      attest: (podUid) => this.#link.attest(podUid),
      startGate: new Gate(Math.max(4, 2 * availableParallelism())),
      programs: {
        packageRoot,
        nodeDir: dirname(process.execPath),
        sourceDir: strippedSources(packageRoot, join(instance.runDir, "programs")),
      },
      clusterDomain: CLUSTER_DOMAIN,
      changed: () => this.#podsChanged(),
      log,
    };
    this.#runtime = new PodRuntime(this.#host);
    this.#folder = this.#openFolder(options.folder);
    this.#control = controlProcess(this.#host, TRUST_DOMAIN, options.issuerFolder ?? null);
    this.#dns = dnsProcess(this.#host);
    this.#link = new ControlLink({
      socketPath: join(controlSocketDir(instance), "control.sock"),
      controlUid: this.#host.users.control,
      node: this.#node,
      folder: () => this.#folder.content,
      pods: () => this.#runtime.statuses(),
      podCount: () => this.#runtime.pods.length,
      onPlan: (plan) => {
        this.#services = plan.services;
        this.#planned = true;
        this.#runtime.applyServices(plan.services);
        this.#runtime.apply(plan.pods);
        this.#zoneChanged();
      },
      log,
    });
    this.#operators = new OperatorSocket((request, say) => this.#serve(request, say));
    this.#rotation = new LogRotation(() => this.#logFolders());
  }

  /** The operator has asked for its end. */
  get isEnding(): boolean {
    return this.#ending !== null;
  }

  /** Brings everything up, or takes it over, and resolves after `down`. */
  async run(): Promise<void> {
    const ended = new Promise<void>((resolve) => (this.#end = resolve));
    const socket = join(this.#instance.runDir, "agent.sock");
    await this.#operators.listen(socket);
    this.#keepToSettings();
    log(
      "info",
      `instance ${this.#instance.name}: interception by ${this.#node.intercept}, pods ${this.#instance.podCidr}, folder ${this.#folder.path}`,
    );
    await this.#host.network.open();
    if (this.#host.network.unguarded !== "") log("warn", this.#host.network.unguarded);
    await this.#runtime.open();
    this.#writeZone();
    this.#control.start();
    this.#dns.start();
    this.#link.open();
    await ended;
    // Process 1 of our PID namespace: nothing is left when it has gone.
    if (this.#endsNamespace) process.kill(1, "SIGTERM");
  }

  /** What runs was made with certain networks and a way of interception; another agent can only go on with the same. */
  #keepToSettings(): void {
    const file = join(this.#instance.runDir, "settings.json");
    const { podCidr, serviceCidr, intercept } = this.#node;
    const ours = JSON.stringify({ podCidr, serviceCidr, intercept });
    const theirs = readIfThere(file);
    const hasPods = existsSync(join(this.#instance.stateDir, "agent", "pods"));
    if (theirs !== null && theirs !== ours && hasPods) {
      throw new Error(
        `pods of this instance run with ${theirs}, not ${ours}: give the same options, or end them with \`pillion down\` first`,
      );
    }
    writeAtomic(file, ours);
  }

  async #serve(request: OperatorRequest, say: (answer: OperatorAnswer) => void): Promise<void> {
    switch (request.kind) {
      case "status":
        return say(this.#status());
      case "traffic":
        return say({ kind: "traffic", pods: this.#traffic() });
      case "exec":
        return say({ kind: "exec", argv: this.#execArgv(request) });
      case "logs":
        return say({ kind: "logs", file: this.#logFile(request) });
      case "ask":
        return say({ kind: "control", answer: await this.#link.ask(request.question) });
      case "down":
        await (this.#ending ??= this.#down((message) => say({ kind: "progress", message })));
        // After the answer has gone out.
        setTimeout(() => this.#end(), 50);
        return;
      case "endpoints": {
        const url = this.#traffic().find((pod) => pod.podUid === request.podUid)?.metricsUrl ?? "";
        return say({ kind: "endpoints", text: await readEndpoints(url, request.backend, request.headers) });
      }
      case "flows":
        return say({ kind: "flows", pages: await readFlows(this.#traffic()) });
      case "pages":
        return say({ kind: "pages", pages: await readPages(this.#traffic()) });
      default:
        throw new Error(
          `this agent does not know the request "${String((request as { kind: unknown }).kind)}": are command and agent of one version?`,
        );
    }
  }

  /** Pods first, each in its order; then the mesh's own processes; then whatever is left. */
  async #down(say: (message: string) => void): Promise<void> {
    this.#folder.close();
    const count = this.#runtime.pods.length;
    say(`ending ${count} pod${count === 1 ? "" : "s"}`);
    await this.#runtime.stopAll();
    say("ending the control plane and the name server");
    this.#link.close();
    await Promise.all([this.#control.stop(DAEMON_GRACE_MS), this.#dns.stop(DAEMON_GRACE_MS)]);
    this.#rotation.close();
    if (this.#zoneTimer !== null) clearTimeout(this.#zoneTimer);
    this.#host.interceptor?.close();
    say("removing network, cgroups and files");
    const problems = await sweep(this.#instance, this.#host.cgroups);
    for (const problem of problems) say(problem);
    for (const name of ["control.json", "dns.json"])
      rmSync(join(this.#instance.stateDir, "agent", name), { force: true });
  }

  #status(): OperatorAnswer {
    return {
      kind: "status",
      node: this.#node,
      agentPid: process.pid,
      controlPid: this.#control.pid,
      controlConnected: this.#link.connected,
      folder: this.#folder.path,
      planned: this.#planned,
      pods: this.#runtime.statuses(),
      services: this.#services,
      notKept: this.#isUnprivileged ? NOT_KEPT : [],
    };
  }

  #traffic(): PodTrafficReport[] {
    const counted = Map.groupBy(this.#host.interceptor?.readTelemetry() ?? [], (each) => each.pod);
    return this.#runtime.pods.map((pod) => ({
      podUid: pod.plan.uid,
      metricsUrl: pod.plan.sidecar === null ? "" : `http://${pod.record.ip}:4191/metrics`,
      targets: (counted.get(pod.plan.uid) ?? []).map(trafficOf),
    }));
  }

  #execArgv(request: Extract<OperatorRequest, { kind: "exec" }>): string[] {
    const pod = this.#pod(request);
    if (request.container === SIDECAR_NAME)
      throw new Error("nothing is run inside a sidecar: it holds a key; use its admin port or its log");
    const container = pod.container(request.container);
    if (container === null) throw new Error(`pod ${request.pod} has no container "${request.container}"`);
    const script = pod.execScript(request.container);
    if (!container.running || !existsSync(script))
      throw new Error(
        `container ${request.container} of ${request.pod} is not running: ${container.complaint() || "it is starting"}`,
      );
    // Nothing of the operator's environment comes along but the terminal's kind.
    return [
      "/bin/sh",
      "-c",
      'exec /usr/bin/env -i PATH=/usr/bin:/bin ${TERM:+TERM="$TERM"} /bin/sh "$0" "$@"',
      script,
      ...request.argv,
    ];
  }

  #logFile(request: Extract<OperatorRequest, { kind: "logs" }>): string {
    const pod = this.#pod(request);
    if (request.container !== SIDECAR_NAME && pod.container(request.container) === null) {
      const known = [...pod.plan.initContainers, ...pod.plan.containers].some(
        (each) => each.name === request.container,
      );
      throw new Error(
        known
          ? `container ${request.container} of ${request.pod} has not started yet`
          : `pod ${request.pod} has no container "${request.container}"`,
      );
    }
    return pod.logFile(request.container);
  }

  #pod(request: {
    readonly namespace: string;
    readonly pod: string;
  }): NonNullable<ReturnType<PodRuntime["find"]>> {
    const pod = this.#runtime.find(request.namespace, request.pod);
    if (pod === null)
      throw new Error(`there is no pod ${request.namespace}/${request.pod}: see \`pillion status\``);
    return pod;
  }

  #openFolder(path: string): ManifestFolder {
    return new ManifestFolder(path, () => this.#sendFolder());
  }

  #sendFolder(): void {
    this.#planned = false;
    this.#link.sendFolder();
  }

  #podsChanged(): void {
    this.#link.podsChanged();
    this.#zoneChanged();
  }

  #zoneChanged(): void {
    this.#zoneTimer ??= setTimeout(() => {
      this.#zoneTimer = null;
      this.#writeZone();
    }, joinMs(this.#runtime.pods.length));
  }

  #writeZone(): void {
    // An agent that has just started knows no Services yet, and the one before did: its zone stays until the plan comes.
    if (!this.#planned && existsSync(zoneFile(this.#instance))) return;
    const { clusterDomain, podCidr, serviceCidr } = this.#node;
    const snapshot = zoneSnapshot(
      { clusterDomain, podCidr, serviceCidr },
      this.#services,
      this.#runtime.statuses(),
      this.#explicitPods(),
    );
    try {
      writeAtomic(zoneFile(this.#instance), JSON.stringify(snapshot), 0o644);
    } catch (error) {
      log("error", `the name server's zone cannot be written: ${describeError(error)}`);
    }
  }

  #explicitPods(): { ip: string; ownPorts: number[] }[] {
    if (this.#node.intercept !== "explicit") return [];
    return this.#runtime.pods
      .filter(({ plan }) => plan.sidecar !== null)
      .map(({ plan, record }) => ({ ip: record.ip, ownPorts: ownPorts(plan, this.#services) }));
  }

  #logFolders(): string[] {
    const pods = join(this.#instance.stateDir, "agent", "pods");
    const uids = existsSync(pods) ? readdirSync(pods) : [];
    return [join(this.#instance.stateDir, "agent", "logs"), ...uids.map((uid) => join(pods, uid, "logs"))];
  }
}

function chooseInterception(wanted: AgentOptions["intercept"], isUnprivileged: boolean): InterceptMode {
  if (wanted === "explicit") return "explicit";
  if (isUnprivileged && wanted === "ebpf")
    throw new Error(
      "interception by eBPF needs root: use sudo, or --intercept=auto for nftables in a user namespace",
    );
  const support = detectSupport();
  if (wanted === "auto") {
    if (support.ebpf.ok) return "ebpf";
    if (!support.nftables.ok)
      throw new Error(
        `neither eBPF nor nftables works here: ${support.ebpf.reason}; ${support.nftables.reason}`,
      );
    if (!isUnprivileged)
      log("warn", `eBPF does not work here, nftables is used instead: ${support.ebpf.reason}`);
    return "nftables";
  }
  if (!support[wanted].ok)
    throw new Error(`interception by ${wanted} does not work here: ${support[wanted].reason}`);
  return wanted;
}

function trafficOf(traffic: PodTraffic): PodTrafficReport["targets"][number] {
  return {
    target: addressKey(traffic.target),
    direction: traffic.direction === "inbound" ? "in" : "out",
    via: traffic.path === "refused" ? "refused" : traffic.path === "proxied" ? "sidecar" : "kernel",
    connections: traffic.connections,
    bytesIn: traffic.bytesIn,
    bytesOut: traffic.bytesOut,
    retransmits: traffic.retransmits,
    rttUs: traffic.rttUs ?? 0,
  };
}

function log(level: "info" | "warn" | "error", message: string): void {
  process.stderr.write(`${new Date().toISOString()} ${level} ${printable(message)}\n`);
}
