import type { Cancel, HttpServing } from "#/stack/discovery.ts";

/** One connection under way, whatever carries it. */
interface Active extends Cancel {
  /** Set while it is served as HTTP. */
  serving: HttpServing | null;
}

/**
 * The connections that one direction serves, so that it can be drained: HTTP ends gracefully by itself, opaque bytes
 * go on until their time is up. Bounded by the listener's bound on connections.
 */
export class Connections {
  readonly #active = new Set<Active>();
  #isDraining = false;
  #whenIdle: (() => void)[] = [];

  get count(): number {
    return this.#active.size;
  }

  get isDraining(): boolean {
    return this.#isDraining;
  }

  get activeRequests(): number {
    let requests = 0;
    for (const { serving } of this.#active) requests += serving?.activeRequests ?? 0;
    return requests;
  }

  /** `cut` ends the connection at once. */
  add(cut: () => void): Connection {
    const active: Active = { cancel: cut, serving: null };
    this.#active.add(active);
    return {
      serve: (serving) => {
        active.serving = serving;
        if (this.#isDraining) serving.drain();
      },
      remove: () => {
        this.#active.delete(active);
        if (this.#active.size === 0) for (const idle of this.#whenIdle.splice(0)) idle();
      },
    };
  }

  /** HTTP connections finish their requests and take no more. */
  drain(): void {
    this.#isDraining = true;
    for (const { serving } of this.#active) serving?.drain();
  }

  /** Resolves when no connection is left; at once when there is none. */
  idle(): Promise<void> {
    if (this.#active.size === 0) return Promise.resolve();
    return new Promise((resolve) => this.#whenIdle.push(resolve));
  }

  /** Cuts whatever is left. */
  cutAll(): void {
    for (const active of this.#active) active.cancel();
  }
}

export interface Connection {
  serve(serving: HttpServing): void;
  /** Idempotent. */
  remove(): void;
}
