import { addressKey, type SocketAddress } from "#/base/address.ts";
import type { Clock, Timer } from "#/base/clock.ts";
import type { Endpoint } from "#/model/endpoint.ts";
import { plainEndpoint } from "#/model/endpoint.ts";
import type { OutboundPolicy, PolicySource } from "#/model/policy.ts";
import { policyTo } from "#/model/policy.ts";
import type { Backend } from "#/model/route.ts";
import type { Log } from "#/net/log.ts";
import type { Cancel, EndpointSource, OutboundTarget } from "#/stack/discovery.ts";
import { networkContains, type Network } from "#/stack/networks.ts";
import { mirrorBackends } from "#/stack/route/filters.ts";
import { RouteTable } from "#/stack/route/table.ts";
import type { ControlApi, EndpointsSink, Profile } from "../control/control-api.ts";

export interface DiscoverySettings {
  /** How long a connection waits for the first answer about its target. */
  readonly answerTimeoutMs: number;
  /** A target that no connection uses is kept so long, with its streams. */
  readonly idleMs: number;
  /** At the bound the longest idle target goes; when all are in use, further ones are refused. */
  readonly targetsMax: number;
  /** The mesh's own addresses: without an answer, connections to them fail and others pass through (plaintext must not leave a meshed pair). */
  readonly meshNetworks: readonly Network[];
}

export interface DiscoveryParts {
  readonly control: ControlApi;
  readonly clock: Clock;
  readonly log: Log;
  readonly settings: DiscoverySettings;
}

export type Lookup =
  | { readonly kind: "found"; readonly target: Target }
  /** `reason` for metrics; `message` for people. */
  | {
      readonly kind: "failed";
      readonly reason: "no_answer" | "refused" | "too_many_targets";
      readonly message: string;
    };

/**
 * What every outbound target is, asked for when it is first dialled and kept current while it is used. What was last
 * heard holds while the control plane is away, for new connections too and for as long as that lasts: nothing expires then.
 */
export class Discovery {
  readonly #parts: DiscoveryParts;
  readonly #targets = new Map<string, Target>();
  readonly #sources = new Map<string, BalancerSource>();
  #sourcesMade = 0;

  constructor(parts: DiscoveryParts) {
    this.#parts = parts;
  }

  get targetCount(): number {
    return this.#targets.size;
  }

  /** Calls `done` once the target is known, or cannot be. A found target is held for the caller, who must `release` it. */
  lookup(address: SocketAddress, done: (lookup: Lookup) => void): Cancel {
    const key = addressKey(address);
    let target = this.#targets.get(key);
    if (target === undefined) {
      if (this.#targets.size >= this.#parts.settings.targetsMax && !this.#dropOldestIdle()) {
        return this.#soon(done, {
          kind: "failed",
          reason: "too_many_targets",
          message: `more than ${this.#parts.settings.targetsMax} targets are in use`,
        });
      }
      target = new Target(
        this.#parts,
        address,
        (path) => this.#source(path),
        () => this.#targets.delete(key),
      );
    } else {
      // Kept in order of use, so that the first idle one is the oldest.
      this.#targets.delete(key);
    }
    this.#targets.set(key, target);
    return target.whenKnown(done);
  }

  close(): void {
    for (const target of this.#targets.values()) target.drop();
  }

  #soon(done: (lookup: Lookup) => void, lookup: Lookup): Cancel {
    let isCancelled = false;
    this.#parts.clock.soon(() => {
      if (!isCancelled) done(lookup);
    });
    return { cancel: () => void (isCancelled = true) };
  }

  #dropOldestIdle(): boolean {
    for (const target of this.#targets.values()) {
      if (target.isUsed) continue;
      target.drop();
      return true;
    }
    return false;
  }

  #source(path: string): BalancerSource {
    let source = this.#sources.get(path);
    if (source === undefined) {
      source = new BalancerSource(path, ++this.#sourcesMade, this.#parts.control, this.#parts.clock, () =>
        this.#sources.delete(path),
      );
      this.#sources.set(path, source);
    }
    source.hold();
    return source;
  }
}

/** Subscribers of something that changes. They are told in a later turn, once for all changes of one. */
class Subscribers {
  readonly #clock: Clock;
  readonly #all = new Set<() => void>();
  #isScheduled = false;

  constructor(clock: Clock) {
    this.#clock = clock;
  }

  add(changed: () => void): Cancel {
    const own = (): void => changed();
    this.#all.add(own);
    return { cancel: () => void this.#all.delete(own) };
  }

  tell(): void {
    if (this.#isScheduled || this.#all.size === 0) return;
    this.#isScheduled = true;
    this.#clock.soon(() => {
      this.#isScheduled = false;
      for (const changed of [...this.#all]) changed();
    });
  }
}

/** A source that nobody holds is followed for this long: a balancer may be made of it soon, or a target that leads to it. */
const SOURCE_LINGER_MS = 45_000;

/** Endpoints of one service, shared by all targets that lead to it. */
class BalancerSource implements EndpointSource {
  readonly key: string;
  state: EndpointSource["state"] = "pending";
  endpoints: readonly Endpoint[] = [];
  readonly #subscribers: Subscribers;
  readonly #watch: Cancel;
  readonly #dropped: () => void;
  readonly #clock: Clock;
  #linger: Timer | null = null;
  #holders = 0;

  /**
   * `number` tells it from an earlier source of the path, whose balancer a connection may still hold: endpoints that nobody
   * watches any more must not be taken for these.
   */
  constructor(path: string, number: number, control: ControlApi, clock: Clock, dropped: () => void) {
    this.key = `balancer:${path}#${number}`;
    this.#clock = clock;
    this.#dropped = dropped;
    this.#subscribers = new Subscribers(clock);
    const sink: EndpointsSink = (state, endpoints) => {
      this.state = state;
      this.endpoints = endpoints;
      this.#subscribers.tell();
    };
    this.#watch = control.watchEndpoints(path, sink);
  }

  /** Whoever subscribes holds it too: balancers outlive the targets that they were made for. */
  subscribe(changed: () => void): Cancel {
    const own = this.#subscribers.add(changed);
    this.hold();
    let isCancelled = false;
    return {
      cancel: () => {
        if (isCancelled) return;
        isCancelled = true;
        own.cancel();
        this.release();
      },
    };
  }

  hold(): void {
    this.#holders++;
    this.#linger?.cancel();
  }

  release(): void {
    if (--this.#holders > 0) return;
    this.#linger = this.#clock.after(SOURCE_LINGER_MS, () => {
      this.#watch.cancel();
      this.#dropped();
    });
  }
}

/** All that connections depend on, so that equal keys may share them. */
function forwardKey(endpoint: Endpoint): string {
  const { address, identity, protocolHint, tunnelPort, authorityOverride, originatedTls } = endpoint;
  return [
    "forward",
    addressKey(address),
    identity?.name ?? "",
    identity?.serverName ?? "",
    protocolHint,
    tunnelPort ?? "",
    authorityOverride ?? "",
    originatedTls === undefined ? "" : JSON.stringify(originatedTls),
  ].join(" ");
}

/** The one endpoint of a `forward` backend. */
class ForwardSource implements EndpointSource {
  readonly key: string;
  readonly state = "known";
  readonly endpoints: readonly Endpoint[];

  constructor(key: string, endpoint: Endpoint) {
    this.key = key;
    this.endpoints = [endpoint];
  }

  subscribe(): Cancel {
    return { cancel: () => undefined };
  }

  release(): void {}
}

/** What a policy has no routes for, as requests or as bytes, goes to the target itself. */
function withDefaults(policy: OutboundPolicy): OutboundPolicy {
  if (policy.http.length > 0 && policy.tcp.length > 0) return policy;
  const { http, tcp } = policyTo(policy.backend, policy.source, policy.protocol);
  return {
    ...policy,
    http: policy.http.length === 0 ? http : policy.http,
    tcp: policy.tcp.length === 0 ? tcp : policy.tcp,
  };
}

/** All backends that a policy names, in any place. */
function backendsOf({ http, tcp }: OutboundPolicy): Backend[] {
  return [
    ...http.flatMap(({ rules }) =>
      rules.flatMap(({ backends, filters }) => [
        ...backends.flatMap((each) => [each.backend, ...mirrorBackends(each.filters)]),
        ...mirrorBackends(filters),
      ]),
    ),
    ...tcp.flatMap(({ backends }) => backends.map(({ backend }) => backend)),
  ];
}

/** The backend of connections that no route tells apart: the Service's own. Null where there is no such one. */
function straightBackend({ http, tcp }: OutboundPolicy): Backend | null {
  const backends = tcp.length > 0 ? tcp.at(-1)!.backends : (http.at(-1)?.rules.at(-1)?.backends ?? []);
  return backends.length === 1 ? backends[0]!.backend : null;
}

const DEFAULT_SOURCE: PolicySource = {
  group: "",
  kind: "default",
  namespace: "",
  name: "default",
  section: "",
  port: 0,
};

/** Different backends that one target may lead to. Those beyond are as if they were not valid, and the log says so. */
const BACKENDS_MAX = 1_000;

/** One original destination. */
export class Target implements OutboundTarget {
  readonly address: SocketAddress;
  policy: OutboundPolicy;
  table: RouteTable;
  authority: string;
  /** What the last connections taught: "server" speaks first, "http" clients do. Forgotten when the policy changes. */
  learned: "nothing" | "server" | "client" = "nothing";

  readonly #parts: DiscoveryParts;
  readonly #makeSource: (path: string) => BalancerSource;
  readonly #dropped: () => void;
  readonly #subscribers: Subscribers;
  readonly #watches: readonly Cancel[];
  /** By key of what they lead to (`keyOf`). */
  #sources = new Map<string, BalancerSource | ForwardSource>();
  #byBackend = new Map<Backend, EndpointSource>();
  #profile: Profile | null | "pending" = "pending";
  #answer: OutboundPolicy | "pending" | "unknown" | "refused" = "pending";
  #refusal = "";
  /** Works without an answer: passed through because the control plane did not say anything in time. */
  #isProvisional = false;
  #users = 0;
  #idle: Timer | null = null;
  #isDropped = false;
  readonly #waiting = new Set<(lookup: Lookup) => void>();

  constructor(
    parts: DiscoveryParts,
    address: SocketAddress,
    makeSource: (path: string) => BalancerSource,
    dropped: () => void,
  ) {
    this.#parts = parts;
    this.address = address;
    this.authority = addressKey(address);
    this.#makeSource = makeSource;
    this.#dropped = dropped;
    this.#subscribers = new Subscribers(parts.clock);
    this.policy = policyTo(this.#toOriginal(null), DEFAULT_SOURCE, "detect");
    this.table = new RouteTable(this.policy.http);
    this.#watches = [
      parts.control.watchOutbound(address, {
        policy: (policy) => {
          this.#answer = policy;
          this.#update();
        },
        unknown: () => {
          // An answer that was given before is not taken back by a later shrug.
          if (typeof this.#answer === "object") return;
          this.#answer = "unknown";
          this.#update();
        },
        refused: (reason) => {
          if (typeof this.#answer === "object") return;
          this.#answer = "refused";
          this.#refusal = reason;
          this.#update();
        },
      }),
      parts.control.watchProfile(address, (profile) => {
        if (profile === null && this.#profile !== "pending") return;
        this.#profile = profile;
        this.#update();
      }),
    ];
    this.#armIdle();
  }

  get isUsed(): boolean {
    return this.#users > 0 || this.#waiting.size > 0;
  }

  subscribe(changed: () => void): Cancel {
    return this.#subscribers.add(changed);
  }

  sourceOf(backend: Backend): EndpointSource | null {
    return this.#byBackend.get(backend) ?? null;
  }

  whenKnown(done: (lookup: Lookup) => void): Cancel {
    const { clock, settings } = this.#parts;
    if (this.#isKnown || this.#answer === "refused") {
      let isCancelled = false;
      this.#users++;
      clock.soon(() => {
        if (isCancelled) this.release();
        else this.#tell(done);
      });
      return { cancel: () => void (isCancelled = true) };
    }
    const finish = (lookup: Lookup): void => {
      cancel.cancel();
      done(lookup);
    };
    const timer = clock.after(settings.answerTimeoutMs, () => this.#giveUpWaiting());
    const cancel = {
      cancel: (): void => {
        timer.cancel();
        this.#waiting.delete(finish);
        if (!this.isUsed) this.#armIdle();
      },
    };
    this.#waiting.add(finish);
    return cancel;
  }

  /** A connection that was given this target is over. */
  release(): void {
    if (--this.#users === 0) this.#armIdle();
  }

  drop(): void {
    if (this.#isDropped) return;
    this.#isDropped = true;
    this.#idle?.cancel();
    for (const watch of this.#watches) watch.cancel();
    for (const source of this.#sources.values()) source.release();
    this.#dropped();
  }

  get #isKnown(): boolean {
    return (
      this.#isProvisional ||
      (this.#answer !== "pending" && this.#answer !== "refused" && this.#profile !== "pending")
    );
  }

  /** Gives `done` the outcome; the caller has counted one user for it. */
  #tell(done: (lookup: Lookup) => void): void {
    if (this.#answer === "refused") {
      this.release();
      done({
        kind: "failed",
        reason: "refused",
        message: `the control plane refuses ${addressKey(this.address)}: ${this.#refusal}`,
      });
    } else done({ kind: "found", target: this });
  }

  #giveUpWaiting(): void {
    const { settings, log, clock } = this.#parts;
    const address = addressKey(this.address);
    if (settings.meshNetworks.some((network) => networkContains(network, this.address.ip))) {
      const message = `no answer about ${address} from the control plane within ${settings.answerTimeoutMs} ms; check that it runs and is reachable`;
      for (const finish of this.#waiting) finish({ kind: "failed", reason: "no_answer", message });
      return;
    }
    log.warn("no answer about a target outside of the mesh: it is passed through", { target: address });
    this.#isProvisional = true;
    this.#adopt(this.policy);
    clock.soon(() => this.#wakeWaiting());
  }

  #update(): void {
    if (this.#isDropped) return;
    if (this.#answer === "refused") {
      this.#wakeWaiting();
      return;
    }
    if (this.#answer === "pending" || this.#profile === "pending") return;
    this.#isProvisional = false;
    const profile = this.#profile;
    const policy = this.#answer === "unknown" ? this.#policyOf(profile) : this.#answer;
    this.#adopt(
      profile?.isOpaque === true && policy.protocol === "detect" ? { ...policy, protocol: "opaque" } : policy,
    );
    this.#wakeWaiting();
  }

  #wakeWaiting(): void {
    for (const finish of this.#waiting) {
      this.#users++;
      this.#tell(finish);
    }
  }

  /** The control plane has no policy: a pod's own profile, or the address as it is (facts §11.2). */
  #policyOf(profile: Profile | null): OutboundPolicy {
    const isOpaque = profile?.isOpaque === true || profile?.endpoint?.protocolHint === "opaque";
    return policyTo(
      this.#toOriginal(profile?.endpoint ?? null),
      DEFAULT_SOURCE,
      isOpaque ? "opaque" : "detect",
    );
  }

  #toOriginal(endpoint: Endpoint | null): Backend {
    return {
      kind: "forward",
      source: DEFAULT_SOURCE,
      endpoint: endpoint ?? plainEndpoint(this.address),
      traffic: null,
    };
  }

  #adopt(heard: OutboundPolicy): void {
    const { protocol } = this.policy;
    const straight = this.#straightSource;
    const policy = withDefaults(heard);
    this.policy = policy;
    this.table = new RouteTable(policy.http);
    this.#takeSources(policy);
    if (policy.protocol !== protocol || this.#straightSource?.key !== straight?.key) this.learned = "nothing";
    this.authority = this.#authorityOf(policy);
    if (this.table.problems.length > 0) {
      const { log } = this.#parts;
      log.warn("parts of a policy cannot be followed", {
        target: this.authority,
        count: this.table.problems.length,
        first: this.table.problems[0],
      });
    }
    this.#subscribers.tell();
  }

  /** Endpoints of the one backend that bytes go to; null where there are several, or none. */
  get #straightSource(): EndpointSource | null {
    const backend = straightBackend(this.policy);
    return backend === null ? null : this.sourceOf(backend);
  }

  /** Holds the sources of every backend, and lets go of those that are not named any more. */
  #takeSources(policy: OutboundPolicy): void {
    const old = this.#sources;
    const sources = new Map<string, BalancerSource | ForwardSource>();
    const byBackend = new Map<Backend, EndpointSource>();
    let dropped = 0;
    for (const backend of backendsOf(policy)) {
      if (backend.kind === "forbidden") continue;
      const key = backend.kind === "balancer" ? backend.path : forwardKey(backend.endpoint);
      let source = sources.get(key);
      if (source === undefined && sources.size >= BACKENDS_MAX) {
        dropped++;
        continue;
      }
      if (source === undefined) {
        const known = old.get(key);
        // Labels of an endpoint may differ under one key, so the newer one is taken.
        if (backend.kind === "forward") source = new ForwardSource(key, backend.endpoint);
        else if (known === undefined) source = this.#makeSource(key);
        else source = known;
        if (source === known) old.delete(key);
        sources.set(key, source);
      }
      byBackend.set(backend, source);
    }
    for (const source of old.values()) source.release();
    this.#sources = sources;
    this.#byBackend = byBackend;
    if (dropped > 0)
      this.#parts.log.warn("a target has more backends than are followed", {
        target: addressKey(this.address),
        max: BACKENDS_MAX,
        left: dropped,
      });
  }

  #authorityOf(policy: OutboundPolicy): string {
    const { backend } = policy;
    if (backend.kind === "balancer") return backend.path;
    const name = this.#profile === "pending" ? "" : (this.#profile?.name ?? "");
    return name === "" ? addressKey(this.address) : `${name}:${this.address.port}`;
  }

  #armIdle(): void {
    this.#idle?.cancel();
    const { clock, control, settings } = this.#parts;
    this.#idle = clock.after(settings.idleMs, () => {
      if (this.isUsed || this.#isDropped) return;
      // What could not be asked for again must not be forgotten.
      if (control.isConnected || this.#answer === "pending") this.drop();
      else this.#armIdle();
    });
  }
}
