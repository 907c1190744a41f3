import type { LimitReached } from "#/model/limits.ts";
import type { Cancel, HttpServing } from "#/stack/discovery.ts";

/** One connection under way, whatever carries it. */
interface Active extends Cancel {
  readonly client: string;
  /** Set while it is served as HTTP. */
  serving: HttpServing | null;
  /** May be ended between requests: the client has this connection to itself and opens another. */
  isExpendable: boolean;
}

export interface ConnectionsMax {
  readonly all: number;
  /** From one address: nobody alone can take up the whole. */
  readonly perClient: number;
}

/**
 * The connections that one direction serves, within their bounds, so that it can be drained: HTTP ends gracefully by
 * itself, opaque bytes go on until their time is up.
 */
export class Connections {
  readonly #max: ConnectionsMax;
  readonly #active = new Set<Active>();
  /** By the client's address. */
  readonly #counts = new Map<string, number>();
  #accepted = 0;
  #isDraining = false;
  #whenIdle: (() => void)[] = [];

  constructor(max: ConnectionsMax) {
    this.#max = max;
  }

  /** The bound that a further connection of this client would go over; null for none. */
  limitFor(client: string): LimitReached | null {
    if (this.#active.size >= this.#max.all) return "connections";
    return (this.#counts.get(client) ?? 0) >= this.#max.perClient ? "connections_per_client" : null;
  }

  get count(): number {
    return this.#active.size;
  }

  /** All so far, those that are over among them. */
  get accepted(): number {
    return this.#accepted;
  }

  get isDraining(): boolean {
    return this.#isDraining;
  }

  get activeRequests(): number {
    let requests = 0;
    for (const { serving } of this.#active) requests += serving?.activeRequests ?? 0;
    return requests;
  }

  /** `client` is its address; `cut` ends the connection at once. */
  add(client: string, cut: () => void): Connection {
    const active: Active = { client, cancel: cut, serving: null, isExpendable: false };
    this.#active.add(active);
    this.#accepted++;
    this.#counts.set(client, (this.#counts.get(client) ?? 0) + 1);
    return {
      serve: (serving, isExpendable) => {
        active.serving = serving;
        active.isExpendable = isExpendable;
        if (this.#isDraining) serving.drain();
      },
      remove: () => {
        if (!this.#active.delete(active)) return;
        const left = (this.#counts.get(client) ?? 1) - 1;
        if (left === 0) this.#counts.delete(client);
        else this.#counts.set(client, left);
        if (this.#active.size === 0) for (const idle of this.#whenIdle.splice(0)) idle();
      },
    };
  }

  /** Tells all HTTP clients to go elsewhere, and those that still come: they are served until they know. */
  drain(): void {
    this.#isDraining = true;
    for (const { serving } of this.#active) serving?.drain();
  }

  /** HTTP connections end with the requests under way. */
  close(): void {
    this.#isDraining = true;
    for (const { serving } of this.#active) serving?.close();
  }

  /** Resolves when no connection is left; at once when there is none. */
  idle(): Promise<void> {
    if (this.#active.size === 0) return Promise.resolve();
    return new Promise((resolve) => this.#whenIdle.push(resolve));
  }

  /** Cuts a share of the expendable ones on which no request is under way, oldest first. Says how many. */
  endIdle(share: number): number {
    const idle: Active[] = [];
    for (const active of this.#active) {
      if (active.isExpendable && active.serving?.activeRequests === 0) idle.push(active);
    }
    const chosen = idle.slice(0, Math.ceil(idle.length * share));
    for (const active of chosen) active.cancel();
    return chosen.length;
  }

  /** Cuts a share of all, newest first: who was here before is served on. Says how many. */
  cutNewest(share: number): number {
    const count = Math.ceil(this.#active.size * share);
    const chosen = [...this.#active].slice(this.#active.size - count);
    for (const active of chosen) active.cancel();
    return chosen.length;
  }

  /** Cuts whatever is left. */
  cutAll(): void {
    for (const active of this.#active) active.cancel();
  }
}

export interface Connection {
  /** `isExpendable`: it may be ended while no request is under way, if memory is short. */
  serve(serving: HttpServing, isExpendable: boolean): void;
  /** Idempotent. */
  remove(): void;
}
