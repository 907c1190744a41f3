import assert from "node:assert/strict";
import { spawn, spawnSync, type ChildProcessWithoutNullStreams } from "node:child_process";
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { createInterface } from "node:readline";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { ContainerPlan, PodPlan, PodStatus } from "#/model/pod-plan.ts";

interface CommandResult {
  readonly code: number;
  readonly stdout: string;
  readonly stderr: string;
}

/**
 * A pretended machine: a network namespace, state and run folders, an instance name of its own, and a driver process in
 * the agent's place. Nothing of it touches the real machine's network.
 */
export class Machine {
  readonly name: string;
  readonly dir: string;
  readonly #netns: string;
  #driver: ChildProcessWithoutNullStreams | null = null;
  readonly #waiting = new Map<
    number,
    { resolve: (value: unknown) => void; reject: (error: Error) => void }
  >();
  #nextId = 1;
  stderr: string = "";

  constructor(label: string) {
    this.name = `t-${label}-${process.pid}`;
    this.dir = mkdtempSync(join(tmpdir(), `pillion-${label}-`));
    mkdirSync(join(this.dir, "state"));
    mkdirSync(join(this.dir, "run"));
    this.#netns = join(this.dir, "machine-netns");
    writeFileSync(this.#netns, "");
    const made = spawnSync("unshare", [`--net=${this.#netns}`, "ip", "link", "set", "lo", "up"]);
    assert.equal(made.status, 0, `unshare: ${String(made.stderr)}`);
  }

  /** Starts the driver and lets it take over what is there, unless it is only to sweep. */
  async start(takeOver: boolean = true): Promise<void> {
    const driver = spawn(
      "nsenter",
      [
        `--net=${this.#netns}`,
        process.execPath,
        join(import.meta.dirname, "driver.ts"),
        this.name,
        join(this.dir, "state"),
        join(this.dir, "run"),
      ],
      { stdio: ["pipe", "pipe", "pipe"] },
    );
    this.#driver = driver;
    driver.stderr.on("data", (text: Buffer) => (this.stderr += text.toString()));
    createInterface({ input: driver.stdout }).on("line", (line) => {
      const message = JSON.parse(line) as { id: number; value?: unknown; error?: string };
      const waiting = this.#waiting.get(message.id);
      this.#waiting.delete(message.id);
      if (message.error !== undefined) waiting?.reject(new Error(message.error));
      else waiting?.resolve(message.value);
    });
    driver.on("exit", (code) => {
      for (const { reject } of this.#waiting.values())
        reject(new Error(`the driver ended with ${code}: ${this.stderr}`));
      this.#waiting.clear();
    });
    if (takeOver) await this.ask("open");
  }

  ask(kind: string, more: object = {}): Promise<unknown> {
    const id = this.#nextId++;
    if (this.#driver === null) return Promise.reject(new Error("no driver runs"));
    return new Promise((resolve, reject) => {
      this.#waiting.set(id, { resolve, reject });
      this.#driver?.stdin.write(`${JSON.stringify({ id, kind, ...more })}\n`);
    });
  }

  async apply(...plans: PodPlan[]): Promise<void> {
    await this.ask("apply", { plans });
  }

  async status(): Promise<PodStatus[]> {
    return (await this.ask("status")) as PodStatus[];
  }

  async pod(name: string): Promise<PodStatus | undefined> {
    return (await this.status()).find((pod) => pod.name === name);
  }

  async exec(pod: string, container: string, ...argv: string[]): Promise<CommandResult> {
    return (await this.ask("exec", { pod, container, argv })) as CommandResult;
  }

  async log(pod: string, container: string): Promise<string> {
    return readFileSync((await this.ask("log", { pod, container })) as string, "utf8");
  }

  /** Runs a command on the pretended machine. */
  run(...argv: string[]): CommandResult {
    const result = spawnSync("nsenter", [`--net=${this.#netns}`, ...argv], {
      encoding: "utf8",
      timeout: 20_000,
    });
    return { code: result.status ?? -1, stdout: result.stdout, stderr: result.stderr };
  }

  /** kill -9 of the agent. */
  async kill(): Promise<void> {
    const driver = this.#driver;
    if (driver === null) return;
    this.#driver = null;
    await new Promise((resolve) => {
      driver.once("exit", resolve);
      driver.kill("SIGKILL");
    });
  }

  /** Waits until `probe` gives something true; a pod's life has no other end to wait on. */
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
        throw new Error(
          `not within ${timeoutMs} ms: ${what}\n${JSON.stringify(await this.status(), null, 1)}\n${this.stderr}`,
        );
      await new Promise((resolve) => setTimeout(resolve, 25));
    }
  }

  /** Ends everything and removes the pretended machine. */
  async close(): Promise<void> {
    await this.kill();
    await this.start(false);
    await this.ask("sweep");
    this.#driver?.stdin.end();
    spawnSync("umount", [this.#netns]);
    rmSync(this.dir, { recursive: true, force: true });
  }

  leftovers(): string[] {
    return leftovers(this.name, this.dir, (...argv) => this.run(...argv).stdout);
  }
}

/** Whatever of an instance is still on the machine, as sentences. `run` runs a command in the machine's network. */
export function leftovers(name: string, dir: string, run: (...argv: string[]) => string): string[] {
  const found: string[] = [];
  const shell = (script: string): string =>
    spawnSync("sh", ["-c", script], { encoding: "utf8" }).stdout.trim();
  // A zombie is nobody's leftover but its parent's to collect.
  const states = shell(
    `for d in $(grep -l 'pillion/${name}' /proc/[0-9]*/cgroup 2>/dev/null); do grep -H State "\${d%cgroup}status"; done`,
  );
  const processes = states.split("\n").filter((line) => line !== "" && !line.includes("zombie"));
  if (processes.length > 0) found.push(`processes: ${processes.join("\n")}`);
  const groups = shell(`find /sys/fs/cgroup -type d -path '*/pillion/${name}*'`);
  if (groups !== "") found.push(`cgroups: ${groups}`);
  const pins = shell(`ls -d /sys/fs/bpf/pillion/${name} 2>/dev/null`);
  if (pins !== "") found.push(`pins: ${pins}`);
  const mounts = readFileSync("/proc/self/mounts", "utf8").split("\n");
  const ours = mounts.filter((line) => line.includes(`${dir}/`) && !line.includes("machine-netns"));
  if (ours.length > 0) found.push(`mounts: ${ours.join("\n")}`);
  const links = run("ip", "-o", "link")
    .split("\n")
    .filter((line) => line.includes("pln"));
  if (links.length > 0) found.push(`links: ${links.join("\n")}`);
  const tables = run("nft", "list", "tables").trim();
  if (tables !== "") found.push(`nft: ${tables}`);
  const files = shell(`ls -A ${dir}/run/${name} 2>/dev/null`);
  if (files !== "") found.push(`run folder: ${files}`);
  return found;
}

/** A container that sleeps; `changes` say what else it is. */
export function container(changes: Partial<ContainerPlan> = {}): ContainerPlan {
  return {
    name: "main",
    argv: ["sleep", "1000"],
    workingDir: null,
    env: [],
    ports: [],
    mounts: [],
    runAsUser: null,
    runAsGroup: null,
    readOnlyRootFilesystem: false,
    capabilitiesAdd: [],
    capabilitiesDrop: [],
    cpuLimitMillis: null,
    cpuRequestMillis: null,
    memoryLimitBytes: null,
    memoryRequestBytes: null,
    startupProbe: null,
    readinessProbe: null,
    livenessProbe: null,
    postStart: null,
    preStop: null,
    restartAlways: false,
    stdin: false,
    tty: false,
    ...changes,
  };
}

export function sh(script: string, changes: Partial<ContainerPlan> = {}): ContainerPlan {
  return container({ argv: ["sh", "-c", script], ...changes });
}

export function pod(
  name: string,
  containers: readonly ContainerPlan[],
  changes: Partial<PodPlan> = {},
): PodPlan {
  return {
    uid: `uid-${name}`,
    name,
    namespace: "test",
    labels: {},
    annotations: {},
    serviceAccount: "default",
    owner: `Pod/test/${name}`,
    templateHash: "1",
    restartPolicy: "Always",
    terminationGracePeriodSeconds: 5,
    hostname: name,
    subdomain: null,
    fsGroup: null,
    supplementalGroups: [],
    shareProcessNamespace: false,
    dnsSearch: ["test.svc.cluster.local", "svc.cluster.local", "cluster.local"],
    hostAliases: [],
    initContainers: [],
    containers,
    volumes: [],
    sidecar: null,
    ...changes,
  };
}
