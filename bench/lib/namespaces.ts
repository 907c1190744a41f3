import { execFileSync, spawn, type ChildProcess, type StdioOptions } from "node:child_process";
import { readdirSync } from "node:fs";

export const HUB = "10.99.0.254";
export const CLIENT = "10.99.0.1";
export const SERVER = "10.99.0.2";
export const POD_CIDR = "10.96.0.0/14";
export const SERVICE_CIDR = "10.92.0.0/14";
/** Virtual address of a Service, in no namespace. */
export const serviceAddress = (number: number): string =>
  `10.92.${Math.floor(number / 250)}.${(number % 250) + 1}`;
/** The first is the server's own; the others lead to the server too. Tens of thousands. */
export const endpointAddress = (number: number): string =>
  number === 0 ? SERVER : `10.96.${Math.floor(number / 250)}.${(number % 250) + 1}`;
/** Of the one Service that the load goes to. */
export const SERVICE: string = serviceAddress(0);
const FURTHER_ENDPOINTS = "10.96.0.0/16";
/**
 * What the applications speak. Each answers at `pod`, which is redirected to the sidecar when it is dialled from another namespace,
 * and at `bare`, past any sidecar; `service` is the Service's port for it.
 */
export const PORTS = {
  http1: { service: 80, pod: 8080, bare: 8081 },
  http2: { service: 82, pod: 8082, bare: 8083 },
  grpc: { service: 84, pod: 8084, bare: 8085 },
  tcp: { service: 86, pod: 8086, bare: 8087 },
} as const;
export type Speech = keyof typeof PORTS;
/** Connections of this user are not redirected. */
export const SIDECAR_UID = 61_990;
const OUTBOUND_PORT = 4140;
const INBOUND_PORT = 4143;

const PREFIX = "pillion-bench-";
let made = 0;

export type Place = "hub" | "client" | "server";

/**
 * Three network namespaces on a bridge, reached from nowhere else: `client` and `server` stand for two pods, `hub` holds
 * the bridge and the control plane. nftables steers connections to sidecars as in Pillion's fallback mode, so that
 * every sidecar (ours or a peer's) is intercepted in the same way. Needs root.
 */
export class Namespaces {
  readonly #tag = `${PREFIX}${process.pid}-${made++}-`;
  readonly #children = new Set<ChildProcess>();
  readonly #cgroups = new Map<Place, string>();

  constructor() {
    sweep();
    const hub = this.name("hub");
    ip("netns", "add", hub);
    inside(hub, ["ip", "link", "add", "br0", "address", "02:00:00:00:00:01", "type", "bridge"]);
    inside(hub, ["ip", "address", "add", `${HUB}/24`, "dev", "br0"]);
    for (const link of ["lo", "br0"]) inside(hub, ["ip", "link", "set", link, "up"]);
    for (const [place, address] of [
      ["client", CLIENT],
      ["server", SERVER],
    ] as const) {
      const pod = this.name(place);
      ip("netns", "add", pod);
      inside(hub, ["ip", "link", "add", place, "type", "veth", "peer", "name", "eth0", "netns", pod]);
      inside(hub, ["ip", "link", "set", place, "master", "br0", "up"]);
      inside(pod, ["ip", "address", "add", `${address}/24`, "dev", "eth0"]);
      for (const link of ["lo", "eth0"]) inside(pod, ["ip", "link", "set", link, "up"]);
      inside(pod, ["ip", "route", "add", "default", "via", HUB]);
      setting(pod, "net/ipv4/ip_local_port_range", "1024 65535");
      // Whoever dials a port of these until somebody listens there must not get it as its own, and so reach itself.
      setting(pod, "net/ipv4/ip_local_reserved_ports", "4140-4191,8080-8087,8443-8474,9001-9034,20000-20199");
      setting(pod, "net/ipv4/tcp_tw_reuse", "1");
    }
    inside(this.name("client"), ["ip", "route", "add", FURTHER_ENDPOINTS, "via", SERVER]);
    inside(this.name("server"), ["ip", "route", "add", "local", FURTHER_ENDPOINTS, "dev", "lo"]);
    const all = Object.values(PORTS);
    const outbound = `type nat hook output priority -100; meta skuid ${SIDECAR_UID} return; ip daddr { ${SERVICE_CIDR}, ${SERVER} } tcp dport { ${all.map(({ service, pod }) => `${service}, ${pod}`).join(", ")} } redirect to :${OUTBOUND_PORT}`;
    inside(this.name("client"), ["nft", `table ip bench { chain out { ${outbound}; }; }`]);
    const inbound = `type nat hook prerouting priority -100; iifname != "lo" tcp dport { ${all.map(({ pod }) => pod).join(", ")} } redirect to :${INBOUND_PORT}`;
    inside(this.name("server"), ["nft", `table ip bench { chain in { ${inbound}; }; }`]);
  }

  /** Puts what is started from now on in a namespace into a cgroup, before it makes a socket. */
  enter(place: Place, cgroup: string): void {
    this.#cgroups.set(place, cgroup);
  }

  name(place: Place): string {
    return `${this.#tag}${place}`;
  }

  /**
   * Starts a program in a namespace, on one core, as a user. Every wrapper replaces itself, so the child's pid is the
   * program's own. It is killed at `close` at the latest.
   */
  start(place: Place, command: readonly string[], options: StartOptions = {}): ChildProcess {
    const pin = options.core === undefined ? [] : ["taskset", "-c", String(options.core)];
    const uid =
      options.uid === undefined
        ? []
        : ["setpriv", `--reuid=${options.uid}`, `--regid=${options.uid}`, "--clear-groups", "--"];
    const cgroup = this.#cgroups.get(place);
    const enter =
      cgroup === undefined ? [] : ["sh", "-c", `echo $$ > ${cgroup}/cgroup.procs && exec "$@"`, "sh"];
    // The cgroup comes first: a namespace has a /sys of its own.
    const inside = ["netns", "exec", this.name(place), ...pin, ...uid, ...command];
    const [program = "ip", ...args] = [...enter, "ip", ...inside];
    const child = spawn(program, args, {
      stdio: options.stdio ?? ["ignore", "pipe", "inherit"],
      ...(options.env === undefined ? {} : { env: options.env }),
    });
    this.#children.add(child);
    child.once("exit", () => this.#children.delete(child));
    return child;
  }

  /** Runs a program to its end and returns what it printed. */
  run(place: Place, command: readonly string[], options: StartOptions = {}): Promise<string> {
    const child = this.start(place, command, { ...options, stdio: ["ignore", "pipe", "pipe"] });
    let out = "";
    let err = "";
    child.stdout?.on("data", (bytes: Buffer) => (out += bytes.toString()));
    child.stderr?.on("data", (bytes: Buffer) => (err += bytes.toString()));
    return new Promise((resolve, reject) => {
      child.once("error", reject);
      child.once("close", (code) => {
        if (code === 0) resolve(out);
        else reject(new Error(`${command.join(" ")} ended with ${code ?? "a signal"}: ${err.slice(-500)}`));
      });
    });
  }

  /** Bytes that went between `client` and `server` so far, both ways, with the headers of Ethernet. */
  wireBytes(): number {
    const counter = (name: string): number =>
      Number(
        execFileSync("ip", [
          "netns",
          "exec",
          this.name("server"),
          "cat",
          `/sys/class/net/eth0/statistics/${name}`,
        ]),
      );
    return counter("rx_bytes") + counter("tx_bytes");
  }

  close(): void {
    for (const child of this.#children) child.kill("SIGKILL");
    for (const place of ["client", "server", "hub"] as const) remove(this.name(place));
  }
}

export interface StartOptions {
  core?: number;
  uid?: number;
  env?: Record<string, string>;
  stdio?: StdioOptions;
}

/** Removes what runs that were killed left behind. */
function sweep(): void {
  for (const name of existing()) {
    const owner = Number(name.slice(PREFIX.length).split("-")[0]);
    if (owner !== process.pid && !isAlive(owner)) remove(name);
  }
}

function existing(): string[] {
  try {
    return readdirSync("/run/netns").filter((name) => name.startsWith(PREFIX));
  } catch {
    return []; // no namespace was ever made on this machine
  }
}

function isAlive(pid: number): boolean {
  try {
    process.kill(pid, 0);
    return true;
  } catch {
    return false;
  }
}

function remove(name: string): void {
  try {
    ip("netns", "del", name);
  } catch {
    // never made, or already gone
  }
}

function ip(...args: string[]): void {
  execFileSync("ip", args, { stdio: ["ignore", "ignore", "pipe"] });
}

function inside(name: string, command: readonly string[]): void {
  ip("netns", "exec", name, ...command);
}

/** Sets what the kernel keeps for the namespace. */
function setting(name: string, file: string, value: string): void {
  execFileSync("ip", ["netns", "exec", name, "tee", `/proc/sys/${file}`], {
    input: value,
    stdio: ["pipe", "ignore", "pipe"],
  });
}
