import http from "node:http";
import net from "node:net";
import type { ContainerStatus, PodPlan, SidecarPlan } from "#/model/pod-plan.ts";
import { runCommand, shellQuote } from "../run-command.ts";
import type { Cgroup } from "./cgroups.ts";
import { SECRET_FD, SandboxedProcess, delay, tail, type LaunchRecord, type LaunchSpec } from "./launch.ts";
import {
  memoryLimitNodeFlags,
  programBinds,
  SHOWN_MAIN,
  SHOWN_NODE_DIR,
  SIDECAR_NODE_FLAGS,
  type Attested,
  type PodHost,
} from "./pod-host.ts";
import { SIDECAR_CPU_REQUEST_MILLIS } from "./pod-weight.ts";
import { dropPrivileges, meshSandboxArguments, type SandboxBind } from "./sandbox.ts";
import { workloadApiSettings } from "./workload-api.ts";

export interface SidecarRecord {
  launch: LaunchRecord | null;
  restartCount: number;
  lastCode: number | null;
  /** It was ready and intercepting when this was written. */
  ready: boolean;
  /** `SidecarPlan.starts` when it was started. */
  starts?: number;
  /** The targets that it was started with; only in explicit mode. */
  explicitTargets: string;
}

export const NEW_SIDECAR: Readonly<SidecarRecord> = {
  launch: null,
  restartCount: 0,
  lastCode: null,
  ready: false,
  explicitTargets: "",
};

export const SIDECAR_NAME = "pillion-sidecar";
const ADMIN_PORT = 4191;
/** What a sidecar answers when a connection to this destination reaches it: proof that steering works. */
const PROOF_PORT = 20_001;
const PROOF_OUTBOUND_IP = "192.0.2.1";
const PROOF_ANSWER = "pillion-intercept ok\n";
const SIDECAR_PIDS_MAX = 256;
/** A sidecar that dies right after its start waits this long before the next, doubling; one that has been ready does not wait. */
const RETRY_FIRST_MS = 100;
const RETRY_LAST_MS = 10_000;
const RETARGET_GRACE_MS = 3_000;
/**
 * A pod whose sidecar has had no new connection and no request for so long is taken to be known as gone. Longer than word of it
 * takes to its clients; each of their requests begins it anew, for all have been asked to go, and only come by new connections.
 */
const DRAIN_QUIET_MS = 300;
const DRAIN_LOOK_MS = 50;
const READY_INTERVAL_MS = 5_000;
/** Looks in a row that a sidecar must fail before its pod counts as not ready. */
const READY_FAILURES_MAX = 3;

export interface SidecarPlace {
  readonly podIp: string;
  /** Reserved for its own connections, by which they are told from the application's; null where its user tells them. */
  readonly sourceIp: string | null;
  readonly slot: number;
  readonly netns: string;
  readonly cgroup: Cgroup;
  readonly appCgroup: Cgroup;
  readonly logFile: string;
  readonly statusFile: string;
  readonly etcFiles: readonly { readonly source: string; readonly target: string }[];
  /** Where the workload is given SVIDs; null unless the pod asks. */
  readonly workloadApi: SandboxBind | null;
}

/** The life of one pod's sidecar: started before the pod's containers, proven, kept alive, ended last. */
export class Sidecar {
  readonly #host: PodHost;
  readonly #pod: PodPlan;
  #plan: SidecarPlan;
  readonly #place: SidecarPlace;
  readonly record: SidecarRecord;
  readonly #changed: () => void;
  #process: SandboxedProcess | null = null;
  #ready = false;
  #stopping = false;
  #complaint = "waits for its start";
  #firstReady: () => void = () => {};
  #stop: () => void = () => {};
  readonly #stopped: Promise<null>;
  /** Resolves when it is ready and intercepting for the first time. */
  readonly ready: Promise<void>;
  finished: Promise<void> = Promise.resolve();

  constructor(
    host: PodHost,
    pod: PodPlan,
    plan: SidecarPlan,
    place: SidecarPlace,
    record: SidecarRecord,
    changed: () => void,
  ) {
    this.#host = host;
    this.#pod = pod;
    this.#plan = plan;
    this.#place = place;
    this.record = record;
    this.#changed = changed;
    this.ready = new Promise((resolve) => (this.#firstReady = resolve));
    this.#stopped = new Promise((resolve) => (this.#stop = () => resolve(null)));
  }

  start(): void {
    this.finished = this.#live();
  }

  get isReady(): boolean {
    return this.#ready;
  }

  get uid(): number {
    return this.#host.users.sidecar(this.#place.slot);
  }

  get process(): SandboxedProcess | null {
    return this.#process;
  }

  complaint(): string {
    return this.#complaint === "" ? "" : `sidecar ${this.#complaint}`;
  }

  status(): ContainerStatus & { readonly pid: number; readonly uid: number } {
    const running = this.#process !== null;
    return {
      name: SIDECAR_NAME,
      state: running ? "running" : this.#stopping ? "terminated" : "waiting",
      reason: running ? "" : this.#complaint,
      ready: this.#ready,
      started: this.#ready,
      restartCount: this.record.restartCount,
      exitCode: running ? null : this.record.lastCode,
      startedAtMs: this.record.launch?.startedAtMs ?? 0,
      pid: this.#process?.main()?.pid ?? 0,
      uid: this.uid,
    };
  }

  /**
   * Explicit mode only: a sidecar learns its targets when it starts, so that another set of Services needs another start.
   * What it has open gets a moment to end.
   */
  retarget(): void {
    if (this.#host.intercept !== "explicit") return;
    if (this.record.explicitTargets !== this.#host.explicitTargets(this.#pod)) this.#startAgain();
  }

  /** The pod's plan has changed; most of what a sidecar is told of it, it is told at its start. */
  update(plan: SidecarPlan): void {
    this.#plan = plan;
    if ((this.record.starts ?? 0) === (plan.starts ?? 0)) return;
    this.#ready = false;
    this.#complaint = "is started again";
    this.#startAgain();
  }

  #startAgain(): void {
    const process = this.#process;
    if (process === null || this.#stopping) return;
    process.signal("SIGTERM");
    const timer = setTimeout(() => process.kill(), RETARGET_GRACE_MS);
    void process.exited.then(() => clearTimeout(timer));
  }

  /**
   * Asks clients to go elsewhere, and waits until nobody has come or asked for a while: those who have not heard yet that
   * the pod is no endpoint any more are still served. At most so long.
   */
  async drainInbound(timeoutMs: number): Promise<void> {
    this.#process?.signal("SIGUSR2");
    const end = Date.now() + timeoutMs;
    let accepted = -1;
    let quietSinceMs = Date.now();
    while (Date.now() < end && this.#process !== null) {
      const answer = await adminGet(this.#place.podIp, "/drain", Math.max(50, end - Date.now()));
      if (answer === null) return;
      const drain = parseDrain(answer.body);
      if (answer.status !== 200 || drain === null) return;
      const nowMs = Date.now();
      if (!drain.draining || drain.inboundRequests > 0 || drain.inboundAccepted !== accepted) {
        accepted = drain.inboundAccepted;
        quietSinceMs = nowMs;
      } else if (nowMs - quietSinceMs >= DRAIN_QUIET_MS) return;
      await delay(DRAIN_LOOK_MS);
    }
  }

  async terminate(graceMs: number): Promise<void> {
    this.#stopping = true;
    this.#stop();
    const process = this.#process;
    if (process !== null) {
      process.signal("SIGTERM");
      const timer = setTimeout(() => process.kill(), graceMs);
      await process.exited;
      clearTimeout(timer);
    }
    await this.finished;
  }

  async #live(): Promise<void> {
    let retryMs = 0;
    let adopt = this.record.launch;
    while (!this.#stopping) {
      // Only first starts queue: a sidecar that died, or is taken over, has applications waiting for it.
      const isFirst = this.record.launch === null && this.record.restartCount === 0;
      const leave = isFirst ? await this.#enterGate() : () => {};
      try {
        if (this.#stopping) return;
        const process = adopt === null ? await this.#launch() : this.#adopt(adopt);
        if (process === null) return;
        this.#process = process;
        this.record.launch = process.record;
        // A sidecar that an earlier agent had proven stays ready while it is looked at again: peers must not lose it.
        const wasProven = adopt !== null && this.record.ready;
        adopt = null;
        if (wasProven) this.#becomeReady();
        this.#changed();
        void (wasProven ? this.#watch(process, 0) : this.#prove(process).finally(leave));
        const exit = await process.exited;
        this.#process = null;
        const wasReady = this.record.ready;
        this.#ready = false;
        this.record.ready = false;
        this.record.launch = null;
        this.record.lastCode = exit.code;
        if (this.#stopping) return;
        this.record.restartCount++;
        const why = exit.oomKilled
          ? "was killed for want of memory: raise its limit"
          : `ended with exit code ${exit.code}`;
        const words =
          exit.code === 137 ? "" : (tail(this.#place.logFile, 300).trim().split("\n").at(-1) ?? "");
        this.#complaint = words === "" ? why : `${why}; its last words: ${words}`;
        this.#host.log("warn", `sidecar of ${this.#pod.namespace}/${this.#pod.name} ${this.#complaint}`);
        retryMs = wasReady ? 0 : Math.min(RETRY_LAST_MS, Math.max(RETRY_FIRST_MS, retryMs * 2));
        this.#changed();
      } catch (error) {
        this.#complaint = `cannot start: ${error instanceof Error ? error.message : String(error)}`;
        retryMs = Math.min(RETRY_LAST_MS, Math.max(RETRY_FIRST_MS, retryMs * 2));
        this.#changed();
      } finally {
        leave();
      }
      if (retryMs > 0) await Promise.race([delay(retryMs), this.#stopped]);
    }
  }

  /** Waits for its turn, but not when its pod has to go. */
  async #enterGate(): Promise<() => void> {
    const turn = this.#host.startGate.enter();
    const leave = await Promise.race([turn, this.#stopped]);
    if (leave !== null) return leave;
    void turn.then((late) => late());
    return () => {};
  }

  #adopt(record: LaunchRecord): SandboxedProcess {
    const { cgroup, statusFile, logFile } = this.#place;
    return SandboxedProcess.adopt(this.#host.cgroups, { cgroup, statusFile, logFile }, record);
  }

  async #launch(): Promise<SandboxedProcess | null> {
    this.#complaint = "waits for a token of the control plane";
    this.#changed();
    const attested = await Promise.race([this.#host.attest(this.#pod.uid), this.#stopped]);
    if (attested === null || this.#stopping) return null;
    this.#complaint = "is starting";
    this.record.starts = this.#plan.starts ?? 0;
    this.record.explicitTargets =
      this.#host.intercept === "explicit" ? this.#host.explicitTargets(this.#pod) : "";
    return SandboxedProcess.launch(this.#host.cgroups, this.#launchSpec(attested));
  }

  #launchSpec({ token, trustAnchorsPem }: Attested): LaunchSpec {
    const { programs, intercept } = this.#host;
    const place = this.#place;
    const env: Record<string, string> = {
      PATH: `${SHOWN_NODE_DIR}:/usr/bin:/bin`,
      ...this.#plan.env,
      LINKERD2_PROXY_IDENTITY_TRUST_ANCHORS: trustAnchorsPem,
      LINKERD2_PROXY_INBOUND_IPS: place.podIp,
      PILLION_TOKEN_FD: String(SECRET_FD),
      PILLION_INTERCEPT: intercept,
      ...(place.sourceIp === null ? {} : { PILLION_SOURCE_IP: place.sourceIp }),
      ...(intercept === "explicit"
        ? { PILLION_EXPLICIT_TARGETS: this.#host.explicitTargets(this.#pod) }
        : {}),
      ...(place.workloadApi === null ? {} : workloadApiSettings(this.#pod, this.#host.users)),
    };
    const sandbox = meshSandboxArguments({
      hostname: this.#pod.hostname,
      etcFiles: place.etcFiles,
      binds: [...programBinds(programs), ...(place.workloadApi === null ? [] : [place.workloadApi])],
      env: Object.entries(env),
    });
    return {
      cgroup: place.cgroup,
      netns: place.netns,
      sandbox,
      overlays: [],
      argv: [
        ...dropPrivileges({
          uid: this.uid,
          gid: this.uid,
          groups: [],
          capabilities: [],
          keepGroups: this.#host.users.isOneForAll,
        }),
        `${SHOWN_NODE_DIR}/node`,
        ...SIDECAR_NODE_FLAGS,
        ...memoryLimitNodeFlags(this.#plan.memoryLimitBytes),
        SHOWN_MAIN,
        "sidecar",
      ],
      logFile: place.logFile,
      statusFile: place.statusFile,
      secret: token,
      isOurs: true,
    };
  }

  /** Waits for readiness, proves interception both ways, then keeps an eye on readiness. */
  async #prove(process: SandboxedProcess): Promise<void> {
    let over = false;
    void process.exited.then(() => (over = true));
    let proven = false;
    for (let waitMs = 20; !over; waitMs = Math.min(waitMs * 1.4, 500)) {
      const complaint = await this.#examine(proven);
      if (over) break;
      if (complaint === "") {
        proven = true;
        this.#becomeReady();
        break;
      }
      if (complaint !== this.#complaint) {
        this.#complaint = complaint;
        this.#changed();
      }
      await delay(waitMs);
    }
    if (proven) void this.#watch(process, READY_INTERVAL_MS);
  }

  #becomeReady(): void {
    this.#ready = true;
    this.record.ready = true;
    this.#complaint = "";
    this.#firstReady();
    this.#changed();
  }

  async #watch(process: SandboxedProcess, firstAfterMs: number): Promise<void> {
    let failures = 0;
    for (
      let waitMs = firstAfterMs;
      this.#process === process && !this.#stopping;
      waitMs = READY_INTERVAL_MS
    ) {
      await delay(waitMs);
      if (this.#process !== process || this.#stopping) return;
      const complaint = await this.#examine(true);
      failures = complaint === "" ? 0 : failures + 1;
      if (this.#process !== process || (complaint === "") === this.#ready) continue;
      // One that has no processor time for the moment is slow, not gone.
      if (failures > 0 && failures < READY_FAILURES_MAX) continue;
      this.#ready = complaint === "";
      this.record.ready = this.#ready;
      this.#complaint = complaint;
      this.#changed();
    }
  }

  /** "" when all is well. */
  async #examine(proven: boolean): Promise<string> {
    const answer = await adminGet(this.#place.podIp, "/ready", 2_000);
    if (answer === null) return "does not answer on its admin port 4191 yet";
    if (answer.status !== 200)
      return `is not ready: ${answer.body.trim().slice(0, 200) || `status ${answer.status}`}`;
    if (proven || this.#host.intercept === "explicit") return "";
    const [outbound, inbound] = await Promise.all([this.#proveOutbound(), this.#proveInbound()]);
    if (outbound !== PROOF_ANSWER)
      return `does not receive the pod's outbound connections (${this.#host.intercept}): ${outbound || "nobody answered"}; run \`pillion check\``;
    if (inbound !== PROOF_ANSWER)
      return `does not receive the pod's inbound connections (${this.#host.intercept}): ${inbound || "nobody answered"}; run \`pillion check\``;
    return "";
  }

  /** From inside the pod, as an application would. */
  async #proveOutbound(): Promise<string> {
    const enter = this.#place.appCgroup.dirs.map(
      (dir) => `echo 0 > ${shellQuote(`${dir}/cgroup.procs`)} || exit 1`,
    );
    const dial = `exec 3<>/dev/tcp/${PROOF_OUTBOUND_IP}/${PROOF_PORT} && IFS= read -r -t 2 line <&3 && echo "$line"`;
    const script = [
      ...enter,
      `exec nsenter --net=${shellQuote(this.#place.netns)} -- timeout 2 bash -c ${shellQuote(dial)}`,
    ].join("\n");
    const result = await runCommand("sh", ["-c", script], { timeoutMs: 3_000 });
    return result.code === 0 ? result.stdout : (result.stderr.trim().split("\n").at(-1) ?? "");
  }

  /** From outside, as a peer would. */
  #proveInbound(): Promise<string> {
    return new Promise((resolve) => {
      const socket = net.connect({ host: this.#place.podIp, port: PROOF_PORT });
      let text = "";
      socket.setTimeout(2_000, () => socket.destroy(new Error("no answer in 2 s")));
      socket.on("data", (chunk: Buffer) => {
        text += chunk.toString("latin1");
        if (text.length >= PROOF_ANSWER.length) socket.destroy();
      });
      socket.on("error", (error) => resolve(text || error.message));
      socket.on("close", () => resolve(text));
    });
  }
}

export function sidecarLimits(plan: SidecarPlan): {
  cpuLimitMillis: number | null;
  cpuRequestMillis: number | null;
  memoryLimitBytes: number | null;
  pidsMax: number | null;
} {
  return {
    cpuLimitMillis: plan.cpuLimitMillis,
    cpuRequestMillis: SIDECAR_CPU_REQUEST_MILLIS,
    memoryLimitBytes: plan.memoryLimitBytes,
    pidsMax: SIDECAR_PIDS_MAX,
  };
}

/** null: nobody answers. */
function adminGet(
  ip: string,
  path: string,
  timeoutMs: number,
): Promise<{ status: number; body: string } | null> {
  return new Promise((resolve) => {
    const request = http.get({
      host: ip,
      port: ADMIN_PORT,
      path,
      agent: false,
      timeout: timeoutMs,
      headers: { connection: "close" },
    });
    request.on("timeout", () => request.destroy(new Error("timeout")));
    request.on("error", () => resolve(null));
    request.on("response", (response) => {
      let body = "";
      response.setEncoding("utf8");
      response.on("data", (text: string) => {
        if (body.length < 65_536) body += text;
      });
      response.on("error", () => resolve(null));
      response.on("end", () => resolve({ status: response.statusCode ?? 0, body }));
    });
  });
}

interface DrainState {
  readonly draining: boolean;
  readonly inboundRequests: number;
  readonly inboundAccepted: number;
}

function parseDrain(body: string): DrainState | null {
  try {
    const { draining, inboundRequests, inboundAccepted } = JSON.parse(body) as Record<string, unknown>;
    if (typeof draining !== "boolean") return null;
    if (typeof inboundRequests !== "number" || typeof inboundAccepted !== "number") return null;
    return { draining, inboundRequests, inboundAccepted };
  } catch {
    return null;
  }
}
