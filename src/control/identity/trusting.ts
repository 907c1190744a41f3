import type { PodStatus } from "#/model/pod-plan.ts";
import type { StateFolder } from "../state-folder.ts";
import { LEAF_LIFE_MS, SKEW_MS } from "./certificates.ts";

/** A pod whose sidecar does not go by what is wanted of it yet. */
export interface Awaited {
  readonly podUid: string;
  readonly namespace: string;
  readonly name: string;
  /** "Deployment/shop/front" */
  readonly owner: string;
  /** It speaks our trust service: it will take what is new by itself. Else only a start gives it new roots. */
  readonly isOurs: boolean;
  readonly why: string;
}

interface Standing {
  /** Of the roots in force. */
  sequence: number;
  /** Fingerprint of whoever signed the leaf in force; "": not known. */
  issuer: string;
  isOurs: boolean;
}

const FILE = "started-with.json";

/**
 * By which roots each running sidecar goes, and who signed its leaf. A sidecar starts with the roots of the moment in which its token
 * was given out, which is kept over restarts; what it takes up while it runs it confirms, also to a control plane that has just begun.
 */
export class Trusting {
  readonly #state: StateFolder;
  readonly #standings = new Map<string, Standing>();
  /** What is kept. */
  readonly #started = new Map<string, Readonly<Standing>>();
  #pods: ReadonlyMap<string, PodStatus> = new Map();
  #isInformed = false;
  readonly #listeners = new Set<() => void>();

  constructor(state: StateFolder) {
    this.#state = state;
    const kept = state.readJson(FILE) as Record<string, Standing> | null;
    for (const [uid, standing] of Object.entries(kept ?? {})) {
      this.#started.set(uid, standing);
      this.#standings.set(uid, { ...standing });
    }
  }

  /** `changed` is called after whatever may end somebody's waiting. */
  listen(changed: () => void): void {
    this.#listeners.add(changed);
  }

  /** Whether the agent has said which pods it has. */
  get isInformed(): boolean {
    return this.#isInformed;
  }

  /** A sidecar is about to start with these roots, and gets its leaf from this issuer or a later one. Written before it is told. */
  starts(podUid: string, sequence: number, issuer: string): void {
    // Which kind of proxy rides in a pod does not change.
    const standing = { sequence, issuer, isOurs: this.#standings.get(podUid)?.isOurs ?? false };
    this.#started.set(podUid, standing);
    this.#standings.set(podUid, { ...standing });
    this.#save();
  }

  watches(podUid: string): void {
    this.#standing(podUid).isOurs = true;
    const started = this.#started.get(podUid);
    if (started?.isOurs === false) {
      this.#started.set(podUid, { ...started, isOurs: true });
      this.#save();
    }
    this.#tell();
  }

  confirms(podUid: string, sequence: number, issuer: string): void {
    const standing = this.#standing(podUid);
    standing.isOurs = true;
    standing.sequence = Math.max(standing.sequence, sequence);
    if (issuer !== "") standing.issuer = issuer;
    this.#tell();
  }

  /** All pods that the agent has, and which of the others are still planned. */
  observe(pods: readonly PodStatus[], isPlanned: (podUid: string) => boolean): void {
    this.#pods = new Map(pods.map((pod) => [pod.uid, pod]));
    this.#isInformed = true;
    let isForgotten = false;
    for (const uid of this.#standings.keys()) {
      if (this.#pods.has(uid) || isPlanned(uid)) continue;
      this.#standings.delete(uid);
      isForgotten = this.#started.delete(uid) || isForgotten;
    }
    if (isForgotten) this.#save();
    this.#tell();
  }

  /** Running sidecars that have not confirmed these roots, nor started with them. */
  withoutRoots(sequence: number): Awaited[] {
    return this.#awaited(
      ({ sequence: has }) => has < sequence,
      ({ isOurs }) =>
        isOurs
          ? "its sidecar has not confirmed the new root yet"
          : "its sidecar has not been heard of since the new root; one that does not take new roots while it runs has to be restarted",
    );
  }

  /** Running sidecars whose leaf another issuer has signed, or may have: one that says nothing has renewed it when a leaf's life is over. */
  withOtherLeaves(issuer: string, sinceMs: number, nowMs: number): Awaited[] {
    const endMs = sinceMs + LEAF_LIFE_MS + SKEW_MS;
    return this.#awaited(
      (standing) => standing.issuer !== issuer && (standing.isOurs || nowMs < endMs),
      ({ isOurs }) =>
        isOurs
          ? "its leaf is not signed by the new issuer yet"
          : `its leaf may be signed by the issuer before, until ${new Date(endMs).toISOString()} at the latest`,
    );
  }

  #awaited(isLacking: (standing: Standing) => boolean, why: (standing: Standing) => string): Awaited[] {
    const found: Awaited[] = [];
    const running = [...this.#pods.values()].filter((pod) => pod.sidecar?.state === "running");
    const uids = new Set([...this.#standings.keys(), ...running.map((pod) => pod.uid)]);
    for (const podUid of uids) {
      // Of a Job that is done: it starts no more.
      if (this.#pods.get(podUid)?.sidecar?.state === "terminated") continue;
      const standing = this.#standings.get(podUid) ?? UNKNOWN;
      if (!isLacking(standing)) continue;
      const { namespace = "", name = podUid, owner = "" } = this.#pods.get(podUid) ?? {};
      found.push({ podUid, namespace, name, owner, isOurs: standing.isOurs, why: why(standing) });
    }
    return found.toSorted((a, b) => `${a.namespace}/${a.name}`.localeCompare(`${b.namespace}/${b.name}`));
  }

  #standing(podUid: string): Standing {
    let standing = this.#standings.get(podUid);
    if (standing === undefined) this.#standings.set(podUid, (standing = { ...UNKNOWN }));
    return standing;
  }

  #save(): void {
    this.#state.writeJson(FILE, Object.fromEntries(this.#started));
  }

  #tell(): void {
    for (const listener of this.#listeners) listener();
  }
}

const UNKNOWN: Standing = { sequence: 0, issuer: "", isOurs: false };
