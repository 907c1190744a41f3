import { existsSync, readdirSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import type { IpAddress } from "#/base/address.ts";
import { ensureDir, readIfThere, writeAtomic } from "../files.ts";
import { cidrBits, ipv4ToNumber, type Instance } from "../instance.ts";
import { mustRun, runCommand, shellQuote } from "../run-command.ts";

/** A port of the machine that leads to a pod. */
export interface PublishedPort {
  readonly hostIp: string | null;
  readonly hostPort: number;
  readonly protocol: "TCP" | "UDP";
  readonly podIp: IpAddress;
  readonly podPort: number;
}

interface Job {
  readonly uid: string;
  readonly ip: IpAddress;
  /** A second address, for the sidecar's own connections. */
  readonly sourceIp: IpAddress | null;
  readonly slot: number;
  readonly settle: (error: Error | null) => void;
}

/** Pods whose links are made by one shell: enough to spread its cost, few enough that the first need not wait long. */
const BATCH_PODS_MAX = 16;

/**
 * The machine's side of the pods' network: one bridge with the gateway's address, one veth pair and one namespace a
 * pod, and an nft table for the way out and for published ports. Everything but sysctls is named after the instance.
 */
export class PodNetwork {
  readonly #instance: Instance;
  readonly #queue: Job[] = [];
  #flushing = false;
  #published = "";
  /** Elements of the bridge's rules, by slot. */
  readonly #admitted = new Map<number, readonly string[]>();
  /** Why pods are not kept from posing as each other; "" where they are. */
  unguarded = "";

  constructor(instance: Instance) {
    this.#instance = instance;
  }

  /** Bridge, forwarding and masquerade. Repeating it changes nothing. */
  async open(): Promise<void> {
    const { bridge, gatewayIp, podCidr, runDir, stateDir } = this.#instance;
    ensureDir(this.#namespaceDir());
    const mac = macOf(gatewayIp);
    const lines: string[] = [];
    if (!existsSync(`/sys/class/net/${bridge}`) && !(await linkExists(bridge))) {
      // A fixed address: else the bridge takes its lowest port's, and changes it under everybody's ARP caches.
      lines.push(`link add ${bridge} address ${mac} type bridge`, `link set ${bridge} addrgenmode none`);
    }
    lines.push(
      `addr replace ${gatewayIp}/${cidrBits(podCidr)} dev ${bridge}`,
      `link set ${bridge} up`,
      "link set lo up",
    );
    await mustRun("ip", ["-batch", "-"], { input: lines.join("\n") });
    const hasWayOut = (await mustRun("ip", ["-4", "route", "show", "default"])).trim() !== "";
    const memory = join(stateDir, "agent", "sysctls.json");
    if (hasWayOut) raiseSysctl("net.ipv4.ip_forward", 1, memory);
    try {
      for (const [name, entries] of NEIGHBOURS)
        raiseSysctl(`net.ipv4.neigh.default.${name}`, entries, memory);
    } catch {
      // Where /proc/sys is read-only, a machine holds as many pods as its table has room for.
    }
    // Lets the machine's own 127.0.0.1:hostPort reach a pod.
    writeFileSync(`/proc/sys/net/ipv4/conf/${bridge}/route_localnet`, "1");
    ensureDir(runDir);
    await this.#writeTable([], hasWayOut);
    await this.#guard();
  }

  namespacePath(uid: string): string {
    return join(this.#namespaceDir(), uid);
  }

  /** Makes the pod's namespace with `lo` and `eth0` up and the default route to the gateway. */
  add(uid: string, ip: IpAddress, slot: number, sourceIp: IpAddress | null = null): Promise<void> {
    return new Promise((resolve, reject) => {
      this.#queue.push({
        uid,
        ip,
        sourceIp,
        slot,
        settle: (error) => (error === null ? resolve() : reject(error)),
      });
      if (!this.#flushing) {
        this.#flushing = true;
        setImmediate(() => void this.#flush());
      }
    });
  }

  /** Ends the namespace; the veth pair goes with it. Processes inside must be gone, or they keep it alive. */
  async remove(uid: string, slot: number): Promise<void> {
    const path = this.namespacePath(uid);
    // The kernel destroys a namespace some time later; the name of its link is wanted again before that.
    await runCommand("ip", ["link", "del", this.#linkName(slot)]);
    await runCommand("umount", [path]);
    rmSync(path, { force: true });
    await this.#dismiss(slot);
  }

  /** Replaces the whole set of published ports. */
  async publish(ports: readonly PublishedPort[]): Promise<void> {
    const key = JSON.stringify(ports);
    if (key === this.#published) return;
    const hasWayOut = (await runCommand("ip", ["-4", "route", "show", "default"])).stdout.trim() !== "";
    await this.#writeTable(ports, hasWayOut);
    this.#published = key;
  }

  /** Namespaces that exist, by pod uid. */
  namespaces(): string[] {
    try {
      return readdirSync(this.#namespaceDir());
    } catch {
      return [];
    }
  }

  /** Removes everything of this instance, whoever made it. */
  async sweep(): Promise<void> {
    const { bridge, linkPrefix, nftTable, stateDir } = this.#instance;
    const links = await runCommand("ip", ["-o", "link", "show"]);
    const names = [...links.stdout.matchAll(/^\d+: ([^:@\s]+)/gm)].map((match) => match[1] as string);
    const doomed = names.filter((name) => name === bridge || name.startsWith(linkPrefix));
    // -force: a pair may vanish by itself while we go through the list.
    if (doomed.length > 0) {
      await runCommand("ip", ["-force", "-batch", "-"], {
        input: doomed.map((name) => `link del ${name}`).join("\n"),
      });
    }
    const paths = this.namespaces().map((uid) => this.namespacePath(uid));
    if (paths.length > 0)
      await runCommand("sh", ["-c", paths.map((path) => `umount ${shellQuote(path)}`).join("; ")]);
    for (const path of paths) rmSync(path, { force: true });
    await runCommand("nft", ["delete", "table", "ip", nftTable]);
    await runCommand("nft", ["delete", "table", "bridge", nftTable]);
    lowerSysctls(join(stateDir, "agent", "sysctls.json"));
  }

  /**
   * Frames of a pod carry its own addresses or end here: root in a pod may write packets as it likes (NET_RAW), and would take
   * another's address, or its traffic. Pods that an earlier version made are not among `guarded`, and go on as they are.
   */
  async #guard(): Promise<void> {
    const { nftTable: table } = this.#instance;
    const text = [
      `table bridge ${table} {`,
      "set own { type ifname . ether_addr . ipv4_addr; }",
      "set guarded { type ifname; }",
      "chain prerouting { type filter hook prerouting priority -300; }",
      "}",
      `flush chain bridge ${table} prerouting`,
      `table bridge ${table} {`,
      "chain prerouting {",
      "iifname . ether saddr . ip saddr @own accept",
      "iifname . arp saddr ether . arp saddr ip @own accept",
      "iifname @guarded drop",
      "}",
      "}",
    ].join("\n");
    const result = await runCommand("nft", ["-f", "-"], { input: text });
    this.unguarded =
      result.code === 0
        ? ""
        : `pods can pose as each other by address: the kernel takes no rules for bridges (${result.stderr.trim().split("\n")[0]}); needs nf_tables_bridge`;
  }

  /** The rules' part for these pods, before any of their programs runs. */
  async #admit(jobs: readonly Job[]): Promise<void> {
    if (this.unguarded !== "" || jobs.length === 0) return;
    const { nftTable: table } = this.#instance;
    const own = jobs.flatMap((job) => {
      const ips = job.sourceIp === null ? [job.ip] : [job.ip, job.sourceIp];
      const elements = ips.map((ip) => `"${this.#linkName(job.slot)}" . ${macOf(job.ip)} . ${ip}`);
      this.#admitted.set(job.slot, elements);
      return elements;
    });
    const links = jobs.map((job) => `"${this.#linkName(job.slot)}"`);
    await mustRun("nft", ["-f", "-"], {
      input: [
        `add element bridge ${table} own { ${own.join(", ")} }`,
        `add element bridge ${table} guarded { ${links.join(", ")} }`,
      ].join("\n"),
    });
  }

  /** A link's entries, whatever addresses it had; nothing is done where there are none. */
  async #dismiss(slot: number): Promise<void> {
    if (this.unguarded !== "") return;
    const { nftTable: table } = this.#instance;
    const link = this.#linkName(slot);
    const own = this.#admitted.get(slot) ?? (await this.#elementsOf(link));
    this.#admitted.delete(slot);
    if (own.length === 0) return;
    await runCommand("nft", ["-f", "-"], {
      input: [
        `delete element bridge ${table} own { ${own.join(", ")} }`,
        `delete element bridge ${table} guarded { "${link}" }`,
      ].join("\n"),
    });
  }

  /** What an earlier agent has admitted. */
  async #elementsOf(link: string): Promise<string[]> {
    const listed = await runCommand("nft", ["list", "set", "bridge", this.#instance.nftTable, "own"]);
    return [...listed.stdout.matchAll(/"([^"]+)" \. [0-9a-f:]+ \. [0-9.]+/g)]
      .filter((found) => found[1] === link)
      .map((found) => found[0]);
  }

  #namespaceDir(): string {
    return join(this.#instance.runDir, "netns");
  }

  #linkName(slot: number): string {
    return `${this.#instance.linkPrefix}${slot}`;
  }

  async #flush(): Promise<void> {
    while (this.#queue.length > 0) {
      const jobs = this.#queue.splice(0, BATCH_PODS_MAX);
      try {
        await this.#make(jobs);
      } catch (error) {
        for (const job of jobs) job.settle(error instanceof Error ? error : new Error(String(error)));
      }
    }
    this.#flushing = false;
  }

  /** One shell for all: per pod one `unshare` and one `ip`, then one `ip` for the bridge's side. */
  async #make(jobs: readonly Job[]): Promise<void> {
    const script = jobs.map((job, index) => this.#podScript(job, index)).join("\n");
    const made = await runCommand("sh", ["-s"], { input: script });
    const ok = new Set([...made.stdout.matchAll(/^ok (\d+)$/gm)].map((match) => Number(match[1])));
    const good = jobs.filter((_, index) => ok.has(index));
    const attach = good.flatMap((job) => {
      const link = this.#linkName(job.slot);
      return [
        `link set ${link} addrgenmode none`,
        `link set ${link} master ${this.#instance.bridge} up`,
        // Where a pod's address is, is known: nobody else is sent its frames, and nobody can say that it has moved.
        `link set ${link} type bridge_slave learning off flood off`,
        // Stays when the pod has gone: whoever has the address next has the same MAC.
        `neigh replace ${job.ip} lladdr ${macOf(job.ip)} dev ${this.#instance.bridge} nud permanent`,
      ];
    });
    const places = good.map(
      (job) => `fdb replace ${macOf(job.ip)} dev ${this.#linkName(job.slot)} master static`,
    );
    const attached =
      good.length === 0 ? null : await runCommand("ip", ["-batch", "-"], { input: attach.join("\n") });
    if (attached?.code === 0) {
      await mustRun("bridge", ["-batch", "-"], { input: places.join("\n") });
      await this.#admit(good);
    }
    for (const job of jobs) {
      if (!good.includes(job)) job.settle(new Error(`cannot make the pod's network: ${made.stderr.trim()}`));
      else if (attached?.code !== 0)
        job.settle(new Error(`cannot join the bridge: ${attached?.stderr.trim()}`));
      else job.settle(null);
    }
  }

  #podScript(job: Job, index: number): string {
    const path = shellQuote(this.namespacePath(job.uid));
    const batch = [
      `link add eth0 address ${macOf(job.ip)} type veth peer name ${this.#linkName(job.slot)} netns /proc/${process.pid}/ns/net`,
      "link set eth0 addrgenmode none",
      `addr add ${job.ip}/${cidrBits(this.#instance.podCidr)} dev eth0`,
      ...(job.sourceIp === null ? [] : [`addr add ${job.sourceIp}/32 dev eth0`]),
      "link set lo up",
      "link set eth0 up",
      `route add default via ${this.#instance.gatewayIp}`,
      // For good: a pod must find its control plane and name server also when the machine's table is full.
      `neigh replace ${this.#instance.gatewayIp} lladdr ${macOf(this.#instance.gatewayIp)} dev eth0 nud permanent`,
    ];
    // As container runtimes do: ports below 1024 and ping need no capability inside a pod's own namespace.
    const sysctls = [
      "echo 0 > /proc/sys/net/ipv4/ip_unprivileged_port_start",
      // Refused in a user namespace, where not all of these groups exist; ping is all that is missing then.
      'echo "0 2147483647" > /proc/sys/net/ipv4/ping_group_range 2>/dev/null',
    ];
    // What an attempt that failed half-way left behind is made anew.
    return [
      `{ umount ${path} || true; ip link del ${this.#linkName(job.slot)} || true; } 2>/dev/null`,
      `: > ${path}`,
      `unshare --net=${path} sh -c ${shellQuote(`${sysctls.join("; ")}; exec ip -batch -`)} <<'END' && echo ok ${index}`,
      ...batch,
      "END",
    ].join("\n");
  }

  async #writeTable(ports: readonly PublishedPort[], hasWayOut: boolean): Promise<void> {
    const { bridge, nftTable: table, podCidr } = this.#instance;
    const maps = ports.map((port) => {
      const where =
        port.hostIp === null || port.hostIp === "0.0.0.0"
          ? "fib daddr type local"
          : `ip daddr ${port.hostIp}`;
      return `${where} ${port.protocol.toLowerCase()} dport ${port.hostPort} dnat to ${port.podIp}:${port.podPort}`;
    });
    const wayOut = hasWayOut
      ? [`ip saddr ${podCidr} ip daddr != ${podCidr} oifname != "${bridge}" masquerade`]
      : [];
    const text = [
      `table ip ${table} {}`,
      `delete table ip ${table}`,
      `table ip ${table} {`,
      `chain prerouting { type nat hook prerouting priority dstnat; ${maps.join("; ")}${maps.length > 0 ? ";" : ""} }`,
      `chain output { type nat hook output priority -100; ${maps.join("; ")}${maps.length > 0 ? ";" : ""} }`,
      // A connection of the machine to its own 127.0.0.1 must not carry that source into a pod.
      `chain postrouting { type nat hook postrouting priority srcnat; ip saddr 127.0.0.0/8 oifname "${bridge}" masquerade;`,
      `${wayOut.map((rule) => `${rule};`).join(" ")} }`,
      `}`,
    ].join("\n");
    const result = await runCommand("nft", ["-f", "-"], { input: text });
    if (result.code !== 0 && (ports.length > 0 || hasWayOut)) {
      throw new Error(`nft refused the rules of published ports and egress: ${result.stderr.trim()}`);
    }
  }
}

/** A locally administered MAC that follows from the address, so that a pod's restart leaves ARP caches right. */
function macOf(ip: IpAddress): string {
  const value = ipv4ToNumber(ip);
  const bytes = [24, 16, 8, 0].map((shift) =>
    (Math.floor(value / 2 ** shift) % 256).toString(16).padStart(2, "0"),
  );
  return `0a:58:${bytes.join(":")}`;
}

async function linkExists(name: string): Promise<boolean> {
  return (await runCommand("ip", ["link", "show", name])).code === 0;
}

/**
 * One table of neighbours (ARP) for all network namespaces of a machine. What it has room for by default is filled by a
 * hundred pods that talk to ten others each; from then on new connections time out.
 */
const NEIGHBOURS = [
  ["gc_thresh3", 65_536],
  ["gc_thresh2", 32_768],
  ["gc_thresh1", 8_192],
] as const;

/** Raises a sysctl of the machine and remembers what it was, once, so that `down` can put it back. */
function raiseSysctl(name: string, value: number, memory: string): void {
  const path = `/proc/sys/${name.replaceAll(".", "/")}`;
  // Some belong to the machine's first network namespace alone.
  const was = readIfThere(path)?.trim();
  if (was === undefined || Number(was) >= value) return;
  ensureDir(join(memory, ".."));
  const known = JSON.parse(readIfThere(memory) ?? "{}") as Record<string, string>;
  known[name] ??= was;
  writeAtomic(memory, JSON.stringify(known));
  writeFileSync(path, String(value));
}

function lowerSysctls(memory: string): void {
  const known = JSON.parse(readIfThere(memory) ?? "{}") as Record<string, string>;
  for (const [name, was] of Object.entries(known)) {
    try {
      writeFileSync(`/proc/sys/${name.replaceAll(".", "/")}`, was);
    } catch {
      // Read-only /proc/sys: then we did not raise it either.
    }
  }
  rmSync(memory, { force: true });
}
