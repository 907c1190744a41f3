import type { Random } from "#/base/random.ts";
import type { PodStatus } from "#/model/pod-plan.ts";
import type { Decision, OwnedPod, Situation } from "./decision.ts";

interface SimulatedPod {
  readonly uid: string;
  readonly name: string;
  readonly hash: string;
  readonly ordinal: number | null;
  readonly serial: number;
  phase: PodStatus["phase"];
  readySinceMs: number | null;
  finishedAtMs: number | null;
  restarts: number;
  isLeaving: boolean;
}

/** A machine that does what one controller decides, in whatever order chance has it. For tests. */
export class SimulatedWorkload {
  nowMs = 1_000_000;
  hash = "one";
  pods: SimulatedPod[] = [];
  /** Pods of this hash never become ready. */
  broken = "";
  #serial = 0;
  readonly #decide: (now: Situation) => Decision;
  readonly #random: Random;
  last: Decision | null = null;

  constructor(decide: (now: Situation) => Decision, random: Random) {
    this.#decide = decide;
    this.#random = random;
  }

  get wanted(): SimulatedPod[] {
    return this.pods.filter((pod) => !pod.isLeaving);
  }

  available(minReadySeconds = 0): number {
    return this.wanted.filter(
      (pod) => pod.readySinceMs !== null && this.nowMs - pod.readySinceMs >= minReadySeconds * 1000,
    ).length;
  }

  /** Decides until nothing more is to be done, and takes it in. */
  step(): void {
    for (let i = 0; i < 100; i++) {
      const names = new Set(this.pods.map((pod) => pod.name));
      let made = 0;
      const decision = this.#decide({
        nowMs: this.nowMs,
        hash: this.hash,
        pods: this.wanted.map(owned),
        leaving: this.pods.filter((pod) => pod.isLeaving).map(owned),
        nextName: (hash) => `pod-${hash}-${this.#serial + ++made}`,
      });
      this.last = decision;
      for (const uid of decision.remove) {
        const pod = this.wanted.find((one) => one.uid === uid);
        if (pod === undefined) throw new Error(`removes ${uid}, which is not there`);
        pod.isLeaving = true;
      }
      for (const one of decision.create) {
        if (names.has(one.name)) throw new Error(`makes ${one.name} while its predecessor is still there`);
        const serial = ++this.#serial;
        this.pods.push({
          uid: `uid-${serial}`,
          name: one.name,
          hash: one.hash,
          ordinal: one.ordinal,
          serial,
          phase: "Pending",
          readySinceMs: null,
          finishedAtMs: null,
          restarts: 0,
          isLeaving: false,
        });
      }
      if (decision.create.length + decision.remove.length === 0) return;
    }
    throw new Error("the controller does not come to rest");
  }

  /** Something happens somewhere: a pod becomes ready, one that leaves is gone, or time passes. */
  chance(): void {
    this.nowMs += 1000;
    const moving = this.pods.filter(
      (pod) =>
        pod.isLeaving ||
        (pod.readySinceMs === null &&
          pod.phase !== "Succeeded" &&
          pod.phase !== "Failed" &&
          pod.hash !== this.broken),
    );
    const pod = moving[Math.floor(this.#random.next() * moving.length)];
    if (pod === undefined) return;
    if (pod.isLeaving) this.pods = this.pods.filter((one) => one !== pod);
    else this.ready(pod);
  }

  ready(pod: SimulatedPod): void {
    pod.phase = "Running";
    pod.readySinceMs = this.nowMs;
  }

  finish(pod: SimulatedPod, phase: "Succeeded" | "Failed"): void {
    pod.phase = phase;
    pod.readySinceMs = null;
    pod.finishedAtMs = this.nowMs;
  }

  /** Lets chance go on until the controller is content. Throws when that does not come. */
  settle(check: () => void = () => {}): void {
    for (let i = 0; i < 500; i++) {
      this.step();
      check();
      if (this.last?.ok === true && this.pods.every((pod) => !pod.isLeaving)) return;
      this.chance();
    }
    throw new Error(`not settled: ${this.last?.summary}`);
  }
}

function owned(pod: SimulatedPod): OwnedPod {
  const { uid, name, hash, ordinal, serial, phase, readySinceMs, finishedAtMs, restarts } = pod;
  return {
    uid,
    name,
    hash,
    ordinal,
    serial,
    phase,
    ready: readySinceMs !== null,
    readySinceMs,
    finishedAtMs,
    restarts,
  };
}
