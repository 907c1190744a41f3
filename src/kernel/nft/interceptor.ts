/**
 * Interception by nftables, for kernels or privileges that do not allow eBPF: one table in the pod's own network
 * namespace, written by `nft`. The original destination comes from conntrack. See docs/transparency.md for what differs.
 */
import { execFileSync } from "node:child_process";
import { statSync } from "node:fs";
import { InterceptionError } from "../errors.ts";
import type { Interceptor, PodInterception, PodTraffic, ServiceVip, Support } from "../pod.ts";
import { renderRules, TABLE } from "./rules.ts";

const NFT_TIMEOUT_MS = 10_000;
const OUTPUT_BYTES_MAX = 16 * 1024 * 1024;

export function createNftInterceptor(instance: string): Interceptor {
  return new NftInterceptor(instance);
}

/** Writes a table of every kind of rule that we use, in a network namespace that is gone when the command ends. */
export function nftSupport(): Support {
  const sample = renderRules(
    {
      instance: "probe",
      pod: "probe",
      netnsPath: "",
      appCgroup: "",
      sidecarCgroup: "",
      podIps: [],
      mode: "meshed",
      sidecarUid: 1,
      skipInboundPorts: [],
      skipOutboundPorts: [],
      letThroughCidrs: [],
    },
    [],
  );
  try {
    run("unshare", ["--net", "nft", "-f", "-"], sample);
    return { ok: true, reason: "" };
  } catch (error) {
    return { ok: false, reason: error instanceof Error ? error.message : String(error) };
  }
}

class NftInterceptor implements Interceptor {
  readonly kind = "nftables";
  readonly #instance: string;
  readonly #pods = new Map<string, PodInterception>();
  /** The rules that each pod has, as we wrote them: writing costs a process, and most news concern few pods. */
  readonly #written = new Map<string, string>();
  /** What `setServices` was last told; null while nobody has. */
  #services: readonly ServiceVip[] | null = null;

  constructor(instance: string) {
    this.#instance = instance;
  }

  install(pod: PodInterception): void {
    this.#checkInstance(pod.instance);
    this.#write(pod, renderRules(pod, reached(pod, this.#services ?? [])));
    this.#pods.set(pod.pod, pod);
  }

  update(pod: PodInterception): void {
    if (!this.#pods.has(pod.pod))
      throw new InterceptionError("BAD_INPUT", `pod ${pod.pod} is not installed`, { blame: "us" });
    this.install(pod);
  }

  adopt(pod: PodInterception): boolean {
    this.#checkInstance(pod.instance);
    if (!hasTable(pod.netnsPath)) return false;
    // The rules hold virtual IPs that we have not been told yet: they stay as they are until we have.
    if (this.#services === null) this.#pods.set(pod.pod, pod);
    else this.install(pod);
    return true;
  }

  /** Only of pods that this process installed or adopted: the rules of others go with their network namespace. */
  remove(instance: string, pod: string): void {
    this.#checkInstance(instance);
    const known = this.#pods.get(pod);
    if (known === undefined) return;
    this.#pods.delete(pod);
    this.#written.delete(pod);
    if (hasTable(known.netnsPath)) nft(known.netnsPath, ["delete", "table", "inet", TABLE], "");
  }

  setServices(services: readonly ServiceVip[]): void {
    this.#services = services;
    for (const pod of this.#pods.values()) {
      const rules = renderRules(pod, reached(pod, services));
      if (this.#written.get(pod.pod) !== rules) this.#write(pod, rules);
    }
  }

  readTelemetry(): PodTraffic[] {
    return [];
  }

  close(): void {
    this.#pods.clear();
  }

  #write(pod: PodInterception, rules: string): void {
    // Forgotten first: when it fails, nobody knows what is there.
    this.#written.delete(pod.pod);
    nft(pod.netnsPath, ["-f", "-"], rules);
    this.#written.set(pod.pod, rules);
  }

  #checkInstance(instance: string): void {
    if (instance !== this.#instance) {
      const message = `this interceptor serves instance ${this.#instance}, not ${instance}`;
      throw new InterceptionError("BAD_INPUT", message, { blame: "us" });
    }
  }
}

/** Services that a pod's rules translate: where all TCP goes to a sidecar, only those of UDP. */
function reached(pod: PodInterception, services: readonly ServiceVip[]): readonly ServiceVip[] {
  const letsThrough = pod.skipOutboundPorts.length > 0 || pod.letThroughCidrs.length > 0;
  return pod.mode === "service-only" || letsThrough
    ? services
    : services.filter(({ protocol }) => protocol === "udp");
}

function hasTable(netnsPath: string): boolean {
  if (statSync(netnsPath, { throwIfNoEntry: false }) === undefined) return false;
  return nft(netnsPath, ["list", "tables", "inet"], "").split("\n").includes(`table inet ${TABLE}`);
}

/** Enters the pod's network namespace, unless we are in it: without root we may have no other. */
function nft(netnsPath: string, args: readonly string[], input: string): string {
  const ours = statSync("/proc/self/ns/net", { bigint: true }).ino;
  const inside = statSync(netnsPath, { bigint: true, throwIfNoEntry: false })?.ino === ours;
  return inside ? run("nft", args, input) : run("nsenter", [`--net=${netnsPath}`, "nft", ...args], input);
}

function run(command: string, args: readonly string[], input: string): string {
  try {
    return execFileSync(command, args, {
      input,
      encoding: "utf8",
      timeout: NFT_TIMEOUT_MS,
      maxBuffer: OUTPUT_BYTES_MAX,
      stdio: ["pipe", "pipe", "pipe"],
    });
  } catch (cause) {
    const { stderr, code } = cause as { stderr?: string; code?: string };
    const said = stderr?.trim().split("\n")[0];
    const missing = code === "ENOENT" || said?.includes("No such file or directory") === true;
    const hint = missing
      ? "check that nft (package nftables) and util-linux are installed"
      : "check that nf_tables and conntrack are in the kernel and that we may administer the network namespace";
    throw new InterceptionError(
      "RULES_FAILED",
      `nft refused: ${said === undefined || said === "" ? String(cause) : said}; ${hint}`,
      { cause },
    );
  }
}
