import type { Clock, Timer } from "#/base/clock.ts";
import type { AccessPolicy } from "#/model/access.ts";
import type { InboundPolicy } from "#/model/policy.ts";
import type { Cancel, InboundPort } from "#/stack/discovery.ts";
import type { ControlApi } from "../control/control-api.ts";

export interface PortsSettings {
  /** In force until the control plane has answered for a port. */
  readonly defaultPolicy: InboundPolicy;
  /** The workload's declared ports: watched from the start and for good. */
  readonly declaredPorts: readonly number[];
  /** Ports whose default is opaque. */
  readonly opaquePorts: readonly number[];
  /**
   * How long a connection to a port that nobody asked about yet waits for its policy. Then the default decides; but where other ports have
   * rules of objects, those may well be about this one too, and nobody is let in unheard.
   */
  readonly answerTimeoutMs: number;
  /** An undeclared port that no connection uses is watched so long. */
  readonly idleMs: number;
  /** Undeclared ports watched at a time. Beyond, a scan of our ports gets refusals, not streams. */
  readonly undeclaredMax: number;
}

/** The policy of each port, asked for when needed and kept current. */
export class Ports {
  readonly #control: ControlApi;
  readonly #clock: Clock;
  readonly #settings: PortsSettings;
  readonly #ports = new Map<number, Port>();
  #undeclared = 0;

  constructor(control: ControlApi, clock: Clock, settings: PortsSettings) {
    this.#control = control;
    this.#clock = clock;
    this.#settings = settings;
    for (const port of settings.declaredPorts)
      this.#ports.set(port, new Port(port, control, clock, settings, this.#hasRules, null));
  }

  readonly #hasRules = (): boolean =>
    [...this.#ports.values()].some(({ isKnown, policy }) => isKnown && hasRules(policy));

  /** Every declared port has its policy. */
  get isReady(): boolean {
    return this.#settings.declaredPorts.every((port) => this.#ports.get(port)?.isKnown === true);
  }

  /** Gives the port once its policy is known, or the default is in force; null at the bound of undeclared ports. The caller must `release` it. */
  lookup(number: number, done: (port: Port | null) => void): Cancel {
    let port = this.#ports.get(number);
    if (port === undefined && this.#undeclared < this.#settings.undeclaredMax) {
      this.#undeclared++;
      port = new Port(number, this.#control, this.#clock, this.#settings, this.#hasRules, () => {
        this.#undeclared--;
        this.#ports.delete(number);
      });
      this.#ports.set(number, port);
    }
    if (port !== undefined) return port.whenKnown(done);
    let isCancelled = false;
    this.#clock.soon(() => {
      if (!isCancelled) done(null);
    });
    return { cancel: () => void (isCancelled = true) };
  }
}

/** What holds for a port of which nothing was heard in time, where others have rules. */
const UNHEARD: AccessPolicy = {
  routes: [],
  rules: [
    {
      action: "restrict",
      stage: "both",
      source: { group: "", kind: "default", namespace: "", name: "no-answer-yet", section: "", port: 0 },
      sources: null,
      requests: null,
      route: null,
      layer: "both",
    },
  ],
};

/** Whether it says more than a default and the machine's probes do. */
function hasRules({ access, jwt }: InboundPolicy): boolean {
  return jwt !== null || access.rules.some(({ action }) => action !== "default" && action !== "exempt");
}

export class Port implements InboundPort {
  readonly port: number;
  policy: InboundPolicy;
  isKnown = false;
  readonly #clock: Clock;
  readonly #settings: PortsSettings;
  readonly #watch: Cancel;
  readonly #othersHaveRules: () => boolean;
  /** Null for a declared port, which stays. */
  readonly #dropped: (() => void) | null;
  readonly #subscribers = new Set<() => void>();
  readonly #waiting = new Set<() => void>();
  #users = 0;
  #idle: Timer | null = null;

  constructor(
    port: number,
    control: ControlApi,
    clock: Clock,
    settings: PortsSettings,
    othersHaveRules: () => boolean,
    dropped: (() => void) | null,
  ) {
    this.port = port;
    const { defaultPolicy, opaquePorts } = settings;
    this.policy = opaquePorts.includes(port) ? { ...defaultPolicy, protocol: "opaque" } : defaultPolicy;
    this.#clock = clock;
    this.#settings = settings;
    this.#dropped = dropped;
    this.#othersHaveRules = othersHaveRules;
    this.#watch = control.watchPort(port, (policy) => {
      this.policy = policy;
      this.isKnown = true;
      for (const wake of [...this.#waiting]) wake();
      clock.soon(() => {
        for (const changed of [...this.#subscribers]) changed();
      });
    });
  }

  subscribe(changed: () => void): Cancel {
    const own = (): void => changed();
    this.#subscribers.add(own);
    return { cancel: () => void this.#subscribers.delete(own) };
  }

  whenKnown(done: (port: Port) => void): Cancel {
    this.#users++;
    this.#idle?.cancel();
    let isOver = false;
    const finish = (): void => {
      if (isOver) return;
      isOver = true;
      timer.cancel();
      this.#waiting.delete(finish);
      if (!this.isKnown && this.#othersHaveRules()) this.policy = { ...this.policy, access: UNHEARD };
      done(this);
    };
    const timer = this.#clock.after(this.isKnown ? 0 : this.#settings.answerTimeoutMs, finish);
    if (this.isKnown) this.#clock.soon(finish);
    else this.#waiting.add(finish);
    return {
      cancel: () => {
        if (isOver) return;
        isOver = true;
        timer.cancel();
        this.#waiting.delete(finish);
        this.release();
      },
    };
  }

  release(): void {
    if (--this.#users > 0 || this.#dropped === null) return;
    const dropped = this.#dropped;
    this.#idle = this.#clock.after(this.#settings.idleMs, () => {
      this.#watch.cancel();
      dropped();
    });
  }
}
