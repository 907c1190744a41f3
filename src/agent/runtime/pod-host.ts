import { join } from "node:path";
import type { Interceptor } from "#/kernel/interception.ts";
import type { PodPlan } from "#/model/pod-plan.ts";
import type { Instance } from "../instance.ts";
import type { AddressPool, SlotPool } from "./addresses.ts";
import type { PodNetwork } from "./network.ts";
import type { ProcessGroups } from "./process-groups.ts";
import type { SandboxBind } from "./sandbox.ts";
import type { Users } from "./users.ts";

export type InterceptMode = "ebpf" | "nftables" | "explicit";

/** What all pods of a machine share. */
export interface PodHost {
  readonly instance: Instance;
  readonly cgroups: ProcessGroups;
  /** Under which users the parts run. */
  readonly users: Users;
  readonly network: PodNetwork;
  readonly addresses: AddressPool;
  readonly slots: SlotPool;
  readonly intercept: InterceptMode;
  /** What sidecars listen for in explicit mode (`PILLION_EXPLICIT_TARGETS`), as Services are now. */
  explicitTargets(pod: PodPlan): string;
  /** null in explicit mode: nothing steers connections. */
  readonly interceptor: Interceptor | null;
  /** Single-use token with which a sidecar proves to the control plane whose it is. Waits while the control plane is away. */
  attest(podUid: string): Promise<Attested>;
  /** Admits so many pods at a time to the expensive part of their start; call the result when it is over. */
  readonly startGate: Gate;
  /** Package of the mesh and folder of its Node: shown to containers and sidecars. */
  readonly programs: Programs;
  readonly clusterDomain: string;
  /** Some pod's status has changed. */
  changed(): void;
  readonly log: (level: "info" | "warn" | "error", message: string) => void;
}

/** What a sidecar starts with that its plan does not say. */
export interface Attested {
  readonly token: string;
  readonly trustAnchorsPem: string;
}

export interface Programs {
  readonly packageRoot: string;
  readonly nodeDir: string;
  /** `src` as JavaScript (see `strippedSources`): what sidecars and the mesh's other processes run. */
  readonly sourceDir: string;
}

/** Folders of the mesh's programs as seen inside every sandbox: any uid can reach them there, wherever the package lies. */
export const SHOWN_NODE_DIR = "/.pillion/bin";
export const SHOWN_PACKAGE = "/.pillion/mesh";
/** The mesh's program, where `programBinds` has put its JavaScript in the place of `src`. */
export const SHOWN_MAIN: string = `${SHOWN_PACKAGE}/src/main.js`;

/** What a process of the mesh itself sees of its programs. */
export function programBinds(programs: Programs): SandboxBind[] {
  return [
    { source: programs.nodeDir, target: SHOWN_NODE_DIR, readOnly: true },
    ...["package.json", "node_modules"].map((name) => ({
      source: join(programs.packageRoot, name),
      target: `${SHOWN_PACKAGE}/${name}`,
      readOnly: true,
    })),
    { source: programs.sourceDir, target: `${SHOWN_PACKAGE}/src`, readOnly: true },
  ];
}

/** Node calls FFI experimental once per process; the line would begin every log. */
export const NODE_FLAGS: readonly string[] = ["--disable-warning=ExperimentalWarning"];

/**
 * A sidecar's, in addition: a young generation that fits the processor's cache, instead of one that grows to 48 MB under
 * load; and a collector that marks and sweeps without helpers, for which requests would wait on a core that they share (one is
 * still woken for each collection of the young generation; docs/decisions/0004-runtime.md).
 */
export const SIDECAR_NODE_FLAGS: readonly string[] = [
  ...NODE_FLAGS,
  "--max-semi-space-size=4",
  "--single-threaded-gc",
];

/**
 * What V8 is told of a memory limit, so that it collects garbage before it grows to that size: three quarters, because
 * buffers, its own code and the kernel's part lie outside. It must also be able to collect when the sidecar asks for it.
 */
export function memoryLimitNodeFlags(limitBytes: number | null): readonly string[] {
  if (limitBytes === null) return [];
  return [`--max-old-space-size=${Math.max(16, Math.floor((limitBytes * 0.75) / (1 << 20)))}`];
}

/** Lets `limit` holders in at a time, in order of arrival. */
export class Gate {
  #free: number;
  readonly #waiting: (() => void)[] = [];

  constructor(limit: number) {
    this.#free = limit;
  }

  async enter(): Promise<() => void> {
    if (this.#free > 0) this.#free--;
    else await new Promise<void>((resolve) => this.#waiting.push(resolve));
    let left = false;
    return () => {
      if (left) return;
      left = true;
      const next = this.#waiting.shift();
      if (next === undefined) this.#free++;
      else next();
    };
  }
}
