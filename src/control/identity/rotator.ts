import type { Clock, Timer } from "#/base/clock.ts";
import type { AwaitedPod, RotationReport, RotationStepReport } from "#/model/identity-status.ts";
import type { Log } from "#/net/log.ts";
import type { Authority } from "./authority.ts";
import type { RotationKind, RotationStep } from "./identity-record.ts";
import type { Awaited, Trusting } from "./trusting.ts";

/**
 * A handshake that began before a sidecar took up new roots or a new leaf has ended by then, whichever way: sidecars give them 5 s. So
 * long nobody may be lacking before the next step.
 */
export const SETTLE_MS = 6_000;
const LOOK_EVERY_MS = 1_000;
const JOIN_MS = 50;
const REMIND_EVERY_MS = 60_000;

/**
 * Carries a rotation through its steps: the next root is given to sidecars; when all trust it, its issuer signs; when all leaves are
 * signed by that, the old root goes. The step is in the authority's record, so a control plane that begins goes on where the one before
 * was, and hears again from each sidecar what it goes by.
 */
export class Rotator {
  readonly #clock: Clock;
  readonly #log: Log;
  readonly #authority: Authority;
  readonly #trusting: Trusting;
  #timer: Timer | null = null;
  #isSoon = false;
  #clearSinceMs: number | null = null;
  #remindAtMs = 0;
  #isClosed = false;

  constructor(parts: { clock: Clock; log: Log; authority: Authority; trusting: Trusting }) {
    this.#clock = parts.clock;
    this.#log = parts.log;
    this.#authority = parts.authority;
    this.#trusting = parts.trusting;
    const { rotation } = this.#authority;
    if (rotation !== null)
      this.#log.info("a rotation that was under way goes on", { what: rotation.kind, step: rotation.step });
    this.#trusting.listen(() => this.#lookSoon());
    this.#authority.listen(() => this.#lookSoon());
    this.#lookSoon();
  }

  close(): void {
    this.#isClosed = true;
    this.#timer?.cancel();
  }

  /** Begins one, or lets the one under way go on past whoever it waits for. Says what happens, or why not. */
  async start(
    kind: RotationKind,
    isForced: boolean,
  ): Promise<{ readonly isRefused: boolean; readonly message: string }> {
    const { rotation } = this.#authority;
    if (rotation !== null) {
      if (rotation.kind !== kind)
        return refused(`a rotation of the ${rotation.kind} is under way; see: pillion identity status`);
      const awaited = this.awaited();
      if (isForced) this.#authority.force();
      this.#lookSoon();
      return {
        isRefused: false,
        message: isForced
          ? `the rotation of the ${kind} goes on without waiting for ${namesOf(awaited)}`
          : `the rotation of the ${kind} that is under way goes on`,
      };
    }
    await this.#authority.prepare(kind);
    if (isForced) this.#authority.force();
    this.#log.info("a rotation has begun", { what: kind, isForced });
    // The root is one that all trust already.
    if (kind === "issuer") this.#authority.signByNext();
    this.#clearSinceMs = null;
    this.#lookSoon();
    return { isRefused: false, message: `the rotation of the ${kind} has begun` };
  }

  /** Whom the present step waits for; forced or not. */
  awaited(): Awaited[] {
    const { bundle, rotation } = this.#authority;
    if (rotation === null) return [];
    return this.#awaitedIn(rotation.step, bundle.sequence, bundle.issuer, rotation.stepAtMs);
  }

  #awaitedIn(step: RotationStep, sequence: number, issuer: string, sinceMs: number): Awaited[] {
    if (step === "renew") return this.#trusting.withOtherLeaves(issuer, sinceMs, this.#clock.wallMs());
    const awaited = this.#trusting.withoutRoots(sequence);
    // That a proxy trusts the old root until it is started again harms nothing that works.
    return step === "drop" ? awaited.filter(({ isOurs }) => isOurs) : awaited;
  }

  get report(): RotationReport | null {
    const { rotation } = this.#authority;
    if (rotation === null) return null;
    return {
      what: rotation.kind,
      startedAtMs: rotation.startedAtMs,
      isForced: rotation.isForced,
      sinceMs: rotation.stepAtMs,
      steps: stepsOf(rotation.kind, rotation.step),
      waitingFor: this.awaited().map(told),
    };
  }

  /** What a rotation would do now, and who would have to take part. */
  plan(kind: RotationKind): RotationReport {
    const nowMs = this.#clock.wallMs();
    return {
      what: kind,
      startedAtMs: nowMs,
      isForced: false,
      sinceMs: nowMs,
      steps: stepsOf(kind, null),
      waitingFor: this.#trusting.withoutRoots(Number.POSITIVE_INFINITY).map((awaited) =>
        told({
          ...awaited,
          why: awaited.isOurs
            ? "its sidecar takes new roots and a new leaf by itself"
            : "its sidecar does not take new roots while it runs",
        }),
      ),
    };
  }

  #lookSoon(): void {
    if (this.#isSoon || this.#isClosed || this.#authority.rotation === null) return;
    this.#isSoon = true;
    this.#again(JOIN_MS);
  }

  #again(afterMs: number): void {
    this.#timer?.cancel();
    this.#timer = this.#clock.after(afterMs, () => {
      this.#isSoon = false;
      try {
        this.#look();
      } catch (error) {
        // The state folder cannot be written: nothing has changed, and leaves are signed meanwhile.
        const nowMs = this.#clock.nowMs();
        if (nowMs >= this.#remindAtMs) {
          this.#remindAtMs = nowMs + REMIND_EVERY_MS;
          this.#log.error("a rotation cannot go on; it is tried again", { error });
        }
      }
      if (this.#authority.rotation !== null && !this.#isClosed && !this.#isSoon) this.#again(LOOK_EVERY_MS);
    });
  }

  #look(): void {
    const { rotation } = this.#authority;
    // Who runs is known from the agent's first word on.
    if (rotation === null || !this.#trusting.isInformed) return;
    const awaited = rotation.isForced ? [] : this.awaited();
    const nowMs = this.#clock.nowMs();
    if (awaited.length > 0) {
      this.#clearSinceMs = null;
      if (nowMs >= this.#remindAtMs && this.#clock.wallMs() - rotation.stepAtMs > REMIND_EVERY_MS) {
        this.#remindAtMs = nowMs + REMIND_EVERY_MS;
        this.#log.warn("a rotation waits", {
          what: rotation.kind,
          step: rotation.step,
          waitingFor: awaited.slice(0, 20).map(({ namespace, name, why }) => `${namespace}/${name}: ${why}`),
        });
      }
      return;
    }
    this.#clearSinceMs ??= nowMs;
    // Below the same root a leaf is good whoever signed it.
    const settleMs = rotation.step === "drop" || rotation.kind === "issuer" ? 0 : SETTLE_MS;
    if (nowMs - this.#clearSinceMs < settleMs) return;
    this.#clearSinceMs = null;
    if (rotation.step === "distribute") this.#authority.signByNext();
    else if (rotation.step === "renew") this.#authority.dropOldRoots();
    else this.#authority.finishRotation();
    this.#log.info(rotation.step === "drop" ? "the rotation is over" : "a rotation goes on", {
      what: rotation.kind,
      step: this.#authority.rotation?.step ?? "done",
    });
    this.#lookSoon();
  }
}

function refused(message: string): { isRefused: true; message: string } {
  return { isRefused: true, message };
}

function told({ isOurs, namespace, name, owner, why }: Awaited): AwaitedPod {
  const [kind = "", , workload = ""] = owner.split("/");
  const remedy =
    isOurs || workload === ""
      ? ""
      : `; pillion rollout restart ${kind.toLowerCase()}/${workload} -n ${namespace}`;
  return { namespace, name, why: `${why}${remedy}` };
}

function namesOf(awaited: readonly Awaited[]): string {
  if (awaited.length === 0) return "anybody";
  const names = awaited.slice(0, 5).map(({ namespace, name }) => `${namespace}/${name}`);
  return awaited.length > 5 ? `${names.join(", ")} and ${awaited.length - 5} more` : names.join(", ");
}

const STEPS: readonly RotationStepReport["step"][] = ["prepare", "distribute", "sign", "renew", "drop"];

function stepsOf(kind: RotationKind, present: RotationStep | null): RotationStepReport[] {
  const steps = STEPS.filter((step) => kind === "root" || (step !== "distribute" && step !== "drop"));
  const at = present === null ? -1 : STEPS.indexOf(present);
  return steps.map((step) => {
    const own = STEPS.indexOf(step);
    return { step, state: own < at ? "done" : own === at ? "now" : "to come", what: WHAT[step](kind) };
  });
}

const WHAT: Readonly<Record<RotationStepReport["step"], (kind: RotationKind) => string>> = {
  prepare: (kind) =>
    kind === "root"
      ? "make a new root, and an issuer below it that signs nothing yet"
      : "make a new issuer below the present root",
  distribute: () => "tell every sidecar of the new root beside the old, and wait until all trust it",
  sign: () => "the new issuer signs from now on; the control plane's own certificate first",
  renew: () => "wait until every sidecar's leaf is signed by the new issuer",
  drop: () => "take the old root from every sidecar",
};
