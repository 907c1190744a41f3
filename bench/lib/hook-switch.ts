import { readFileSync, unlinkSync, writeFileSync } from "node:fs";
import { hooksOf, objectFile, targetKind, withTarget, type Hook } from "#/kernel/ebpf/hooks.ts";
import { Libbpf, type BpfObject } from "#/kernel/ebpf/libbpf.ts";
import { Pins } from "#/kernel/ebpf/pins.ts";
import type { PodInterception } from "#/kernel/interception.ts";

const STATS = "/proc/sys/kernel/bpf_stats_enabled";

/** What the kernel says of one program at one pod. */
export interface HookRuns {
  readonly hook: string;
  readonly pod: string;
  readonly runs: number;
  readonly ns: number;
}

/** Takes the hooks of pods that are installed away and puts them back, within a millisecond. Maps and connections stay. */
export class HookSwitch {
  readonly #lib = new Libbpf();
  readonly #hooks: { pod: PodInterception; hook: Hook; object: BpfObject; pin: string }[] = [];
  readonly #statsBefore = readFileSync(STATS, "latin1");

  constructor(pods: readonly PodInterception[]) {
    for (const pod of pods) {
      const pins = new Pins(pod.instance);
      for (const hook of hooksOf(pod)) {
        const object = this.#lib.load(objectFile(hook), pins.mapOf(pod.pod));
        this.#hooks.push({ pod, hook, object, pin: pins.link(pod.pod, hook.name) });
      }
    }
    // Those that were installed: the same programs, loaded once more.
    this.off();
    this.on();
  }

  on(): void {
    for (const { pod, hook, object, pin } of this.#hooks)
      withTarget(pod, hook, (fd) => this.#lib.attachAndPin(object.program, targetKind(hook), fd, pin));
  }

  off(): void {
    for (const { pin } of this.#hooks) {
      const link = this.#lib.open(pin);
      if (link === null) continue;
      this.#lib.detach(link);
      this.#lib.close(link);
      unlinkSync(pin);
    }
  }

  /** The kernel looks at the clock twice for each run meanwhile: what it says is some tens of nanoseconds too much. */
  setStats(isOn: boolean): void {
    writeFileSync(STATS, isOn ? "1" : this.#statsBefore);
  }

  /** Since they were loaded. */
  runs(): HookRuns[] {
    return this.#hooks.map(({ pod, hook, object }) => {
      const info = readFileSync(`/proc/self/fdinfo/${object.fd}`, "latin1");
      const of = (field: string): number => Number(new RegExp(`^${field}:\\s*(\\d+)`, "m").exec(info)?.[1]);
      return { hook: hook.name, pod: pod.pod, runs: of("run_cnt"), ns: of("run_time_ns") };
    });
  }

  close(): void {
    this.setStats(false);
    for (const { object } of this.#hooks) object.close();
  }
}
