import assert from "node:assert/strict";
import { spawn, spawnSync, type ChildProcess } from "node:child_process";
import { mkdirSync, mkdtempSync, renameSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import type { NodeInfo } from "#/model/node-protocol.ts";
import type { PodStatus, ServicePlan } from "#/model/pod-plan.ts";

export interface Run {
  readonly code: number;
  readonly stdout: string;
  readonly stderr: string;
}

export interface MeshStatus {
  readonly node: NodeInfo;
  readonly agentPid: number;
  readonly controlPid: number;
  readonly controlConnected: boolean;
  readonly pods: readonly PodStatus[];
  readonly services: readonly ServicePlan[];
  readonly problems: readonly { readonly file: string; readonly line: number; readonly reason: string }[];
  readonly ok: boolean;
}

const MAIN = fileURLToPath(new URL("../../../src/main.ts", import.meta.url));
let meshes = 0;

/**
 * A whole mesh on a pretended machine: a network namespace with an instance of its own, driven by the operator's command
 * as a person would. Nothing of it touches the real machine's network, and `close` leaves nothing.
 */
export class Mesh {
  readonly name: string;
  readonly dir: string;
  readonly folder: string;
  readonly #netns: string;
  readonly #children = new Set<ChildProcess>();
  readonly #node: string;

  /** `node`: what runs the operator's command and with it the agent, which shows its folder to all that it starts. */
  constructor(label: string, node: string = process.execPath) {
    this.#node = node;
    this.name = `e2e-${label}-${process.pid % 10_000}-${meshes++}`;
    this.dir = mkdtempSync(join(tmpdir(), `pln-${label}-`));
    this.folder = join(this.dir, "folder");
    for (const name of ["folder", "state", "run"]) mkdirSync(join(this.dir, name));
    this.#netns = join(this.dir, "machine-netns");
    writeFileSync(this.#netns, "");
    const made = spawnSync("unshare", [`--net=${this.#netns}`, "ip", "link", "set", "lo", "up"]);
    assert.equal(made.status, 0, `unshare: ${String(made.stderr)}`);
  }

  /** Writes a manifest, at once as a whole; a running mesh follows. */
  write(file: string, yaml: string): void {
    const whole = join(this.dir, file);
    writeFileSync(whole, yaml);
    renameSync(whole, join(this.folder, file));
  }

  remove(file: string): void {
    rmSync(join(this.folder, file));
  }

  /** `pillion up --detach`; fails the test with what was printed when it does not come up. */
  async up(...options: string[]): Promise<MeshStatus> {
    const { code, stderr } = await this.pillion("up", "-f", this.folder, "--detach", ...options);
    if (code !== 0) throw new Error(`pillion up: ${stderr}\n${await this.#diagnosis()}`);
    return await this.status();
  }

  /** The operator's command on this machine. */
  async pillion(subcommand: string, ...args: string[]): Promise<Run> {
    const at = args.indexOf("--");
    const instance = ["--instance", this.name];
    const all = ["rollout", "authz", "identity"].includes(subcommand)
      ? [args[0] ?? "", ...instance, ...args.slice(1)]
      : at === -1
        ? [...args, ...instance]
        : [...instance, ...args];
    return await this.run(this.#node, "--disable-warning=ExperimentalWarning", MAIN, subcommand, ...all);
  }

  async status(): Promise<MeshStatus> {
    const { stdout, stderr } = await this.pillion("status", "-o", "json");
    if (stdout === "") throw new Error(`pillion status: ${stderr}`);
    return JSON.parse(stdout) as MeshStatus;
  }

  /** The one pod of a workload (or the pod of that name); with several, the first. */
  async pod(name: string): Promise<PodStatus> {
    const { pods } = await this.status();
    const pod =
      pods.find((each) => each.name === name) ?? pods.find((each) => each.owner.endsWith(`/${name}`));
    assert.ok(pod, `no pod ${name} among ${pods.map((each) => each.name).join(", ")}`);
    return pod;
  }

  /** Runs a program in a workload's container. */
  async exec(pod: string, ...argv: string[]): Promise<Run> {
    return await this.pillion("exec", pod, "--", ...argv);
  }

  async log(pod: string, container?: string): Promise<string> {
    return (await this.pillion("logs", pod, ...(container === undefined ? [] : ["-c", container]))).stdout;
  }

  /** Runs a program on the pretended machine, outside all pods. */
  async run(...argv: string[]): Promise<Run> {
    return await new Promise((resolve, reject) => {
      const child = this.spawn(...argv);
      let stdout = "";
      let stderr = "";
      child.stdout?.setEncoding("utf8").on("data", (text: string) => (stdout += text));
      child.stderr?.setEncoding("utf8").on("data", (text: string) => (stderr += text));
      child.on("error", reject);
      child.on("close", (code, signal) =>
        resolve({ code: code ?? (signal === null ? -1 : 128), stdout, stderr }),
      );
    });
  }

  /** Starts a program on the pretended machine; `close` ends it if it still runs. */
  spawn(...argv: string[]): ChildProcess {
    const child = spawn("nsenter", [`--net=${this.#netns}`, ...argv], {
      stdio: ["ignore", "pipe", "pipe"],
      env: {
        ...process.env,
        PILLION_STATE_DIR: join(this.dir, "state"),
        PILLION_RUN_DIR: join(this.dir, "run"),
      },
    });
    this.#children.add(child);
    child.on("exit", () => this.#children.delete(child));
    return child;
  }

  /** Starts a program in a workload's container, to be watched while it runs. */
  spawnIn(pod: string, ...argv: string[]): ChildProcess {
    return this.spawn(
      this.#node,
      "--disable-warning=ExperimentalWarning",
      MAIN,
      "exec",
      "--instance",
      this.name,
      pod,
      "--",
      ...argv,
    );
  }

  /** One series of a pod's metrics page, summed over what `labels` leaves open; 0 when there is none. */
  async metric(pod: PodStatus, name: string, labels: Record<string, string> = {}): Promise<number> {
    const { stdout } = await this.run("curl", "-s", "--max-time", "5", `http://${pod.ip}:4191/metrics`);
    let sum = 0;
    for (const line of stdout.split("\n")) {
      if (!line.startsWith(`${name}{`) && !line.startsWith(`${name} `)) continue;
      if (Object.entries(labels).every(([key, value]) => line.includes(`${key}="${value}"`)))
        sum += Number(
          line
            .slice(line.lastIndexOf("}") + 1)
            .trim()
            .split(" ")[0],
        );
    }
    return sum;
  }

  /** Waits until `probe` gives something true. */
  async until<T>(
    what: string,
    probe: () => Promise<T | null | undefined | false>,
    timeoutMs: number = 20_000,
  ): Promise<T> {
    const end = Date.now() + timeoutMs;
    for (;;) {
      const value = await probe();
      if (value !== null && value !== undefined && value !== false) return value;
      if (Date.now() > end)
        throw new Error(`not within ${timeoutMs} ms: ${what}\n${await this.#diagnosis()}`);
      await new Promise((resolve) => setTimeout(resolve, 50));
    }
  }

  /** Ends everything and removes the pretended machine. */
  async close(): Promise<void> {
    for (const child of this.#children) child.kill("SIGKILL");
    const ended = await this.pillion("down");
    spawnSync("umount", [this.#netns]);
    rmSync(this.dir, { recursive: true, force: true });
    assert.equal(ended.code, 0, `pillion down: ${ended.stderr}`);
  }

  async #diagnosis(): Promise<string> {
    const status = await this.pillion("status");
    const log = await this.run("tail", "-n", "40", join(this.dir, "state", this.name, "agent", "agent.log"));
    return `${status.stdout}${status.stderr}\n--- agent log\n${log.stdout}`;
  }
}

export interface Workload {
  readonly name: string;
  readonly namespace?: string;
  readonly command: readonly string[];
  readonly replicas?: number;
  /** Service ports: name → [port, targetPort]. None: no Service. */
  readonly ports?: Readonly<Record<string, readonly [port: number, targetPort: number]>>;
  /** Extra YAML of the pod's spec and of its container, at the indentation of `spec:` members and of container members. */
  readonly podExtra?: string;
  readonly containerExtra?: string;
  readonly annotations?: Readonly<Record<string, string>>;
  /** A TCP readiness probe on this port. */
  readonly readyPort?: number;
  readonly graceSeconds?: number;
}

/** A Deployment with its Service and ServiceAccount, as YAML. */
export function workload(shape: Workload): string {
  const namespace = shape.namespace ?? "test";
  const ports = Object.entries(shape.ports ?? {});
  const json = (value: unknown): string => JSON.stringify(value);
  const probe =
    shape.readyPort === undefined
      ? ""
      : `\n          readinessProbe: { tcpSocket: { port: ${shape.readyPort} }, periodSeconds: 1 }`;
  const service =
    ports.length === 0
      ? ""
      : `---
apiVersion: v1
kind: Service
metadata: { name: ${shape.name}, namespace: ${namespace} }
spec:
  selector: { app: ${shape.name} }
  ports: ${json(ports.map(([name, [port, targetPort]]) => ({ name, port, targetPort })))}
`;
  return `apiVersion: v1
kind: ServiceAccount
metadata: { name: ${shape.name}, namespace: ${namespace} }
---
apiVersion: apps/v1
kind: Deployment
metadata: { name: ${shape.name}, namespace: ${namespace} }
spec:
  replicas: ${shape.replicas ?? 1}
  selector: { matchLabels: { app: ${shape.name} } }
  template:
    metadata:
      labels: { app: ${shape.name} }
      annotations: ${json(shape.annotations ?? {})}
    spec:
      serviceAccountName: ${shape.name}
      terminationGracePeriodSeconds: ${shape.graceSeconds ?? 5}${shape.podExtra === undefined ? "" : `\n${shape.podExtra}`}
      containers:
        - name: main
          command: ${json(shape.command)}${probe}${shape.containerExtra === undefined ? "" : `\n${shape.containerExtra}`}
${service}`;
}

export const NAMESPACE: string = `apiVersion: v1
kind: Namespace
metadata: { name: test }
`;
