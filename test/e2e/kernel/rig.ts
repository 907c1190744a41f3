/**
 * Two network namespaces with a wire between them: a pod, and the world. The pod has two cgroups, one for its
 * application and one for its sidecar. Everything has a name of its own and goes when the rig is disposed of.
 *
 *   pod    10.77.0.2  fd77::2      default routes lead to the world
 *   world  10.77.0.1  fd77::1
 */
import { execFileSync, spawn, type ChildProcess } from "node:child_process";
import { existsSync, mkdirSync, readdirSync, readFileSync, rmdirSync, statSync } from "node:fs";
import { join } from "node:path";
import { createInterface } from "node:readline";
import type { IpAddress } from "#/base/address.ts";
import type { PodInterception } from "#/kernel/interception.ts";
import type { Errand, Outcome } from "./fixtures/app.ts";
import type { Accepted } from "./fixtures/sidecar.ts";

export const POD4 = "10.77.0.2" as IpAddress;
export const POD6 = "fd77::2" as IpAddress;
export const WORLD4 = "10.77.0.1" as IpAddress;
export const WORLD6 = "fd77::1" as IpAddress;
export const SIDECAR_UID = 21020;
const ERRAND_TIMEOUT_MS = 60_000;

/** Null when the machine lets us build a rig; otherwise why it does not. */
export function cannotRun(): string | null {
  if (process.platform !== "linux") return "needs Linux";
  if (process.getuid?.() !== 0) return "needs root";
  if (cgroupRoot() === null) return "needs a mounted cgroup v2";
  return null;
}

type Place = "app" | "sidecar" | "world";

export class Rig implements AsyncDisposable {
  readonly instance: string;
  readonly pod: string = "shop/web-0.v1";
  readonly appCgroup: string;
  readonly sidecarCgroup: string;
  readonly netnsPath: string;
  readonly worldNetnsPath: string;
  readonly podDevice: string;
  readonly #cgroup: string;
  readonly #podNs: string;
  readonly #worldNs: string;
  readonly #children = new Set<ChildProcess>();

  constructor() {
    const name = `plk${process.pid.toString(36)}${(rigs++).toString(36)}`;
    this.instance = name;
    this.#podNs = `${name}p`;
    this.#worldNs = `${name}w`;
    this.netnsPath = `/run/netns/${this.#podNs}`;
    this.worldNetnsPath = `/run/netns/${this.#worldNs}`;
    this.podDevice = `${name}e`;
    const root = cgroupRoot();
    if (root === null) throw new Error("no cgroup v2");
    this.#cgroup = join(root, name);
    this.appCgroup = join(this.#cgroup, "app");
    this.sidecarCgroup = join(this.#cgroup, "sidecar");
    for (const dir of [this.#cgroup, this.appCgroup, this.sidecarCgroup]) mkdirSync(dir);
    this.#buildNetwork(this.podDevice, `${name}f`);
  }

  /** A meshed pod with nothing exempt, changed as the test wants. */
  interception(changes: Partial<PodInterception> = {}): PodInterception {
    return {
      instance: this.instance,
      pod: this.pod,
      netnsPath: this.netnsPath,
      appCgroup: this.appCgroup,
      sidecarCgroup: this.sidecarCgroup,
      podIps: [POD4, POD6],
      mode: "meshed",
      sidecarUid: SIDECAR_UID,
      skipInboundPorts: [],
      skipOutboundPorts: [],
      letThroughCidrs: [],
      ...changes,
    };
  }

  async startSidecar(...options: ("forward" | "dual-stack")[]): Promise<Sidecar> {
    const child = this.#start("sidecar", "sidecar.ts", [String(SIDECAR_UID), ...options]);
    const sidecar = new Sidecar(child);
    await sidecar.ready();
    return sidecar;
  }

  /** `where`: "tcp:IP:PORT", "udp:IP:PORT" and "hold:IP:PORT". */
  async startServer(place: Place, name: string, ...where: string[]): Promise<ChildProcess> {
    const child = this.#start(place, "server.ts", [name, ...where]);
    await new Lines(child).next();
    return child;
  }

  /** Runs an application once and gives what it saw. */
  async run(place: Place, errand: Errand): Promise<Outcome> {
    const [outcome] = await this.runMany(place, errand);
    if (outcome === undefined) throw new Error("no outcome");
    return outcome;
  }

  async runMany(place: Place, errand: Errand): Promise<Outcome[]> {
    const child = this.#start(place, "app.ts", [JSON.stringify(errand)]);
    // A connection that hangs shall fail its test, not stop it.
    const timer = setTimeout(() => child.kill("SIGKILL"), ERRAND_TIMEOUT_MS);
    try {
      return JSON.parse(await new Lines(child).next()) as Outcome[];
    } finally {
      clearTimeout(timer);
    }
  }

  nsenter(place: Place, ...command: string[]): string {
    const ns = place === "world" ? this.#worldNs : this.#podNs;
    return execFileSync("nsenter", [`--net=/run/netns/${ns}`, ...command], { encoding: "utf8" });
  }

  /** What interception left of this pod: pins, links to its cgroups, rules in its namespace. */
  leftovers(): string[] {
    const pins = `/sys/fs/bpf/pillion/${this.instance}`;
    const pinned = existsSync(pins) ? readdirSync(pins).filter((name) => name !== "~machine") : [];
    const attached = execFileSync("bpftool", ["--json", "link", "show"], { encoding: "utf8" });
    const inodes = [this.appCgroup, this.sidecarCgroup, this.netnsPath].map((path) => statSync(path).ino);
    const links = (JSON.parse(attached) as { id: number; cgroup_id?: number; netns_ino?: number }[])
      .filter((link) => inodes.includes(link.cgroup_id ?? link.netns_ino ?? -1))
      .map((link) => `link ${link.id}`);
    const rules = this.nsenter("app", "nft", "list", "ruleset")
      .split("\n")
      .filter((line) => line.includes("pillion"));
    return [...pinned, ...links, ...rules];
  }

  async stop(child: ChildProcess): Promise<void> {
    if (child.exitCode !== null || child.signalCode !== null) return;
    const gone = new Promise((resolve) => child.once("exit", resolve));
    child.kill("SIGKILL");
    await gone;
    this.#children.delete(child);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const child of this.#children) await this.stop(child);
    for (const ns of [this.#podNs, this.#worldNs]) execFileSync("ip", ["netns", "del", ns]);
    for (const dir of [this.appCgroup, this.sidecarCgroup, this.#cgroup]) await emptyAndRemove(dir);
  }

  #start(place: Place, program: string, args: string[]): ChildProcess {
    const ns = place === "world" ? this.#worldNs : this.#podNs;
    const cgroup = place === "world" ? null : place === "app" ? this.appCgroup : this.sidecarCgroup;
    // A socket belongs to the cgroup that its maker was in, so the process moves first and then becomes the program.
    const enter = cgroup === null ? "" : `echo $$ > ${cgroup}/cgroup.procs && `;
    const file = join(import.meta.dirname, "fixtures", program);
    const child = spawn(
      "sh",
      [
        "-c",
        `${enter}exec nsenter --net=/run/netns/${ns} "$@"`,
        "sh",
        process.execPath,
        "--disable-warning=ExperimentalWarning",
        file,
        ...args,
      ],
      { stdio: ["ignore", "pipe", "inherit"] },
    );
    this.#children.add(child);
    return child;
  }

  #buildNetwork(podEnd: string, worldEnd: string): void {
    const pod = this.#podNs;
    const world = this.#worldNs;
    const commands = [
      `netns add ${pod}`,
      `netns add ${world}`,
      `link add ${podEnd} netns ${pod} type veth peer name ${worldEnd} netns ${world}`,
      ...[
        [pod, podEnd, POD4, POD6],
        [world, worldEnd, WORLD4, WORLD6],
      ].flatMap(([ns, end, ip4, ip6]) => [
        `-n ${ns} link set lo up`,
        `-n ${ns} addr add ${ip4}/24 dev ${end}`,
        `-n ${ns} addr add ${ip6}/64 dev ${end} nodad`,
        `-n ${ns} link set ${end} up`,
      ]),
      `-n ${pod} route add default via ${WORLD4}`,
      `-n ${pod} -6 route add default via ${WORLD6}`,
    ];
    for (const command of commands) execFileSync("ip", command.split(" "));
  }
}

/** The stand-in sidecar, and what it accepted, in order. */
export class Sidecar {
  readonly child: ChildProcess;
  readonly #lines: Lines;

  constructor(child: ChildProcess) {
    this.child = child;
    this.#lines = new Lines(child);
  }

  async ready(): Promise<void> {
    await this.#lines.next();
  }

  async accepted(): Promise<Accepted> {
    return JSON.parse(await this.#lines.next()) as Accepted;
  }
}

class Lines {
  readonly #iterator: AsyncIterator<string>;
  constructor(child: ChildProcess) {
    if (child.stdout === null) throw new Error("no output");
    this.#iterator = createInterface({ input: child.stdout })[Symbol.asyncIterator]();
  }

  async next(): Promise<string> {
    const line = await this.#iterator.next();
    if (line.done === true) throw new Error("the program ended before it said anything more");
    return line.value;
  }
}

let rigs = 0;

/** The kernel lets go of a cgroup a moment after its last process is gone. */
async function emptyAndRemove(dir: string): Promise<void> {
  const POLL_MS = 5;
  const TRIES = 400;
  for (let tries = 0; ; tries++) {
    try {
      rmdirSync(dir);
      return;
    } catch (error) {
      if (tries === TRIES) throw error;
      await new Promise((resolve) => setTimeout(resolve, POLL_MS));
    }
  }
}

function cgroupRoot(): string | null {
  const line = readFileSync("/proc/mounts", "utf8")
    .split("\n")
    .find((mount) => mount.split(" ")[2] === "cgroup2");
  return line?.split(" ")[1] ?? null;
}
