import { addressKey } from "#/base/address.ts";
import type { Fields } from "#/base/fields.ts";
import type { Random } from "#/base/random.ts";
import type { Endpoint } from "#/model/endpoint.ts";
import type { BackendTraffic, SessionPersistence } from "#/model/traffic.ts";
import { BACKEND_TRAFFIC_DEFAULTS } from "#/model/traffic.ts";
import { ConsistentHash } from "./consistent-hash.ts";
import type { PickExplanation } from "./explain-pick.ts";
import { explainPick } from "./explain-pick.ts";
import { Member } from "./member.ts";
import { PeakEwma } from "./peak-ewma.ts";
import type { Picker } from "./pool.ts";
import { Pool } from "./pool.ts";
import { PowerOfTwo } from "./power-of-two.ts";
import { RandomPick } from "./random-pick.ts";
import { hashKeyOf } from "./request-fields.ts";
import { RoundRobin } from "./round-robin.ts";
import { endpointId, sessionEndpoint, withSession } from "./session.ts";
import { subsetOf } from "./subset.ts";
import { localityOf } from "./zone.ts";

export { Member };

/** What a share of endpoints that is a whole number may be off by. */
const ROUNDING = 1e-9;

export interface BalancerSettings {
  readonly defaultRttMs: number;
  readonly decayMs: number;
}

export const BALANCER_DEFAULTS: BalancerSettings = { defaultRttMs: 30, decayMs: 10_000 };

/** Whose requests are balanced: what subsets, hashing by source and zones go by. Empty: not known. */
export interface BalancedClient {
  /** Names the workload; the same after a restart of its sidecar. */
  readonly id: string;
  readonly zone: string;
}

export const UNKNOWN_CLIENT: BalancedClient = { id: "", zone: "" };

export interface BalancerOptions<T> {
  readonly settings?: BalancerSettings;
  readonly traffic?: BackendTraffic;
  readonly client?: BalancedClient;
  readonly random: Random;
  /** Milliseconds since 1970, for sessions that end. */
  readonly wallMs?: () => number;
  readonly make: (endpoint: Endpoint) => T;
  readonly drop: (extra: T) => void;
}

/**
 * Chooses among the endpoints of one service, as its `BackendTraffic` says, and learns from what becomes of requests:
 *
 *     pick → begin → answered | connectFailed → end
 *
 * Endpoints in use lie in a pool; with a zone preference those of other zones lie in a second one. Endpoints that cannot be
 * connected to, or whose answers failed (`FailureAccrual`), are set aside, which is a preference and no verdict: when nobody else is
 * left they are tried all the same. When the time of one is over, exactly one request tries it; a success takes it back.
 */
export class Balancer<T> {
  readonly #settings: BalancerSettings;
  readonly #client: BalancedClient;
  readonly #random: Random;
  readonly #wallMs: () => number;
  readonly #makeExtra: (endpoint: Endpoint) => T;
  readonly #dropExtra: (extra: T) => void;
  #traffic: BackendTraffic;
  #endpoints: readonly Endpoint[] = [];
  #members: Member<T>[] = [];
  #byKey = new Map<string, Member<T>>();
  /** Where requests go. */
  #pool: Pool<T>;
  /** Endpoints of other zones, while there is a preference and enough of the client's own; else it has no members. */
  #others: Pool<T>;
  /** Members by their id in tokens of sessions. Made when one is first looked for; null after a change of members. */
  #byId: ReadonlyMap<string, Member<T>> | null = null;
  #isPlain = true;
  /** Settings that are equal to those in use: many targets bring them, each as an object of its own. */
  #equals = new WeakSet<BackendTraffic>();
  #pending = 0;
  #failing = 0;
  #unreachable = 0;
  #isPanicking = false;

  constructor(options: BalancerOptions<T>) {
    this.#settings = options.settings ?? BALANCER_DEFAULTS;
    this.#traffic = options.traffic ?? BACKEND_TRAFFIC_DEFAULTS;
    this.#client = options.client ?? UNKNOWN_CLIENT;
    this.#random = options.random;
    this.#wallMs = options.wallMs ?? (() => 0);
    this.#makeExtra = options.make;
    this.#dropExtra = options.drop;
    this.#pool = new Pool(this.#newPicker(), this.#random);
    this.#others = new Pool(this.#newPicker(), this.#random);
    this.#isPlain = this.#traffic.accrual === null;
  }

  /** Those in use and those set aside, in the order of the last update. */
  get members(): readonly Member<T>[] {
    return this.#members;
  }

  get traffic(): BackendTraffic {
    return this.#traffic;
  }

  /** Nothing needs to be known of an answer but when it began, unless it is a failure. */
  get isPlain(): boolean {
    return this.#isPlain;
  }

  /** There is an endpoint that may be picked, and not every one failed to connect of late. */
  get isReachable(): boolean {
    return this.#unreachable + (this.#isStrict ? this.#failing : 0) < this.#members.length;
  }

  /** Requests under way, those at endpoints that have left since included. */
  get pending(): number {
    return this.#pending;
  }

  /** So few are not set aside that all are used that can be connected to. */
  get isPanicking(): boolean {
    return this.#isPanicking;
  }

  /** Takes a new set: members whose endpoint is unchanged keep their connections and statistics. */
  update(endpoints: readonly Endpoint[], nowMs: number): void {
    this.#endpoints = endpoints;
    const old = this.#byKey;
    const known = new Map<string, Member<T>>();
    const members: Member<T>[] = [];
    let hasStayed = false;
    for (const endpoint of this.#chosen(endpoints)) {
      const key = addressKey(endpoint.address);
      if (known.has(key)) continue;
      let member = old.get(key);
      if (member !== undefined && sameTransport(member.endpoint, endpoint)) {
        member.endpoint = endpoint;
        old.delete(key);
        hasStayed = true;
      } else {
        const { defaultRttMs, decayMs } = this.#settings;
        const latency = new PeakEwma(defaultRttMs, decayMs, nowMs);
        member = new Member(endpoint, this.#makeExtra(endpoint), latency, nowMs);
      }
      known.set(key, member);
      members.push(member);
    }
    // A set that is new as a whole has nobody who could bear the load meanwhile.
    if (!hasStayed) for (const member of members) member.joinedAtMs = -Infinity;
    this.#members = members;
    this.#byId = null;
    this.#byKey = known;
    this.#reckonAside();
    this.#keepFloor();
    this.#regroup();
    for (const gone of old.values()) {
      gone.pool = null;
      this.#dropExtra(gone.extra);
    }
  }

  /**
   * Takes other settings from now on. Connections, statistics and who is set aside stay, as far as they still mean something. Sessions
   * are the requests' own (`pick`): settings that differ in them alone are the same.
   */
  configure(traffic: BackendTraffic, nowMs: number): void {
    const old = this.#traffic;
    if (old === traffic || this.#equals.has(traffic)) return;
    if (sameSettings({ ...old, persistence: null }, { ...traffic, persistence: null })) {
      this.#equals.add(traffic);
      return;
    }
    this.#traffic = traffic;
    this.#equals = new WeakSet();
    if (!sameSettings(old.balancing, traffic.balancing)) {
      this.#pool = new Pool(this.#newPicker(), this.#random);
      this.#others = new Pool(this.#newPicker(), this.#random);
    }
    this.#isPlain = traffic.accrual === null;
    if (traffic.accrual === null)
      for (const { standing } of this.#members) if (standing.aside === "failing") standing.readmit();
    this.update(this.#endpoints, nowMs);
  }

  /**
   * The endpoint for a request with these `fields` (null: of a connection). `tried`: who had it already; never long, for a request
   * gives up after a few. Null: there is no endpoint, all were tried, or all are set aside and the policy allows none of them
   * (`ejectionFloor` and `panicThreshold` 0). `persistence`: of the request's rule.
   */
  pick(
    nowMs: number,
    tried: readonly Member<T>[],
    fields: Fields | null = null,
    persistence: SessionPersistence | null = null,
  ): Member<T> | null {
    return this.pickInUse(nowMs, tried, fields, persistence) ?? this.#lastResort(tried);
  }

  /** As `pick`; null also where only such are left that are set aside and not yet due. */
  pickInUse(
    nowMs: number,
    tried: readonly Member<T>[],
    fields: Fields | null,
    persistence: SessionPersistence | null = null,
  ): Member<T> | null {
    if (persistence !== null && fields !== null) {
      const member = this.sessionMember(fields, persistence);
      // Asked last: of one that is set aside it says that this request tries it.
      if (member !== null && !tried.includes(member) && this.#mayServe(member, nowMs)) return member;
    }
    const first = this.#others.members.length > 0 && this.#spills() ? this.#others : this.#pool;
    const picked = this.#pickFrom(first, nowMs, tried, fields);
    if (picked !== null) return picked;
    const second = first === this.#pool ? this.#others : this.#pool;
    return this.#pickFrom(second, nowMs, tried, fields);
  }

  /** Whether any endpoint that is not set aside is none of these. */
  hasOther(tried: readonly Member<T>[]): boolean {
    return this.#members.some((member) => member.place !== -1 && !tried.includes(member));
  }

  /** A request is on its way to the member. */
  begin(member: Member<T>): void {
    this.#pending++;
    member.pending++;
    if (member.pool !== null) member.pool.pending++;
  }

  /** It is over there, however it ended. `startedAtMs`: when it was picked. */
  end(member: Member<T>, startedAtMs: number): void {
    this.#pending--;
    member.pending--;
    const { pool, standing } = member;
    if (pool !== null) pool.pending--;
    if (standing.probedAtMs < 0 || startedAtMs < standing.probedAtMs) return;
    // It tried a member that is set aside, and has not told how it is. Another may try.
    standing.probedAtMs = -1;
    pool?.reckonDue();
  }

  /** No connection to it could be made, however many requests waited for that one. */
  connectFailed(member: Member<T>, nowMs: number): void {
    if (nowMs < member.standing.untilMs) return;
    member.standing.unreachable(nowMs, this.#random);
    this.#setAside(member);
  }

  /** An answer began within `latencyMs`, which is what its endpoint is measured by. Quick failures let nobody look quicker. */
  observe(member: Member<T>, latencyMs: number, isFailure: boolean, nowMs: number): void {
    const { latency } = member;
    latency.observe(isFailure ? Math.max(latencyMs, latency.load(0, nowMs)) : latencyMs, nowMs);
    // Whoever answers can be reached.
    if (member.standing.aside === "unreachable") this.#readmit(member);
  }

  /** An endpoint that says it has too much to do is asked less, though its answer came soon. `pauseMs`: what it asked for. */
  overloaded(member: Member<T>, pauseMs: number, nowMs: number): void {
    const { overloadPenaltyMs } = this.#traffic;
    if (overloadPenaltyMs > 0) member.latency.observe(Math.max(overloadPenaltyMs, pauseMs), nowMs);
  }

  /**
   * What an answer was, for failure accrual. `startedAtMs`: when the request was picked; what began before the endpoint was set aside
   * says nothing new. `pauseMs`: what the endpoint asked for (`Retry-After`), or 0.
   */
  answered(member: Member<T>, isFailure: boolean, startedAtMs: number, pauseMs: number, nowMs: number): void {
    const { accrual } = this.#traffic;
    const { standing } = member;
    if (accrual === null || this.#byKey.get(member.key) !== member) return;
    if (standing.aside !== "no" && startedAtMs <= standing.sinceMs) return;
    // It was reached, whatever it said.
    if (standing.aside === "unreachable") this.#readmit(member);
    if (standing.aside === "failing") {
      if (!isFailure) this.#readmit(member);
      else {
        standing.failing(nowMs, accrual, accrual.respectsRetryAfter ? pauseMs : 0, this.#random);
        this.#setAside(member);
      }
      return;
    }
    if (!standing.counts(isFailure, accrual, nowMs)) return;
    if (this.#failing >= this.#failingMax) return;
    standing.failing(nowMs, accrual, accrual.respectsRetryAfter ? pauseMs : 0, this.#random);
    this.#setAside(member);
  }

  /** A long answer has begun well on an endpoint that was set aside: it need not end before others may come. */
  begunWell(member: Member<T>, startedAtMs: number): void {
    const { standing } = member;
    if (standing.aside !== "failing" || startedAtMs <= standing.sinceMs) return;
    standing.readmitOnTrial();
    this.#tookBack(member);
  }

  /**
   * The answer's fields with a new token, where the request began a session: it brought none that is good. Who has one keeps it,
   * also when another endpoint answered because the session's own could not just then. Null: nothing to add.
   */
  sessionBegun(
    request: Fields,
    answer: Fields,
    member: Member<T>,
    persistence: SessionPersistence,
  ): Fields | null {
    if (this.sessionMember(request, persistence) !== null) return null;
    return withSession(answer, endpointId(member), persistence, this.#wallMs());
  }

  /** The endpoint of the request's session; null without one, and when its endpoint is gone. */
  sessionMember(fields: Fields, persistence: SessionPersistence): Member<T> | null {
    const id = sessionEndpoint(fields, persistence, this.#wallMs());
    if (id === null) return null;
    this.#byId ??= new Map(this.#members.map((member) => [endpointId(member), member]));
    return this.#byId.get(id) ?? null;
  }

  /**
   * Why `picked` was picked for such a request just now (null: nobody was), or, without it, whom a pick would give. Changes
   * nothing; costs a look at every endpoint.
   */
  explainPick(
    nowMs: number,
    tried: readonly Member<T>[],
    fields: Fields | null,
    picked?: Member<T> | null,
    persistence: SessionPersistence | null = null,
  ): PickExplanation {
    const state = {
      traffic: this.#traffic,
      zone: this.#client.zone,
      client: this.#client.id,
      members: this.#members,
      pending: this.#pending,
      pool: this.#pool,
      others: this.#others,
      spills: this.#others.members.length > 0 && this.#spills(),
      isPanicking: this.#isPanicking,
      isStrict: this.#isStrict,
      persistence,
      sessionMember: fields === null || persistence === null ? null : this.sessionMember(fields, persistence),
    };
    return explainPick(state, nowMs, tried, fields, picked);
  }

  // --- who may be picked ---

  #pickFrom(
    pool: Pool<T>,
    nowMs: number,
    tried: readonly Member<T>[],
    fields: Fields | null,
  ): Member<T> | null {
    if (nowMs >= pool.nextDueMs) {
      const due = this.#due(pool, nowMs, tried, fields);
      if (due !== null) return due;
    }
    return pool.picker.pick(pool, nowMs, tried, fields);
  }

  /** The member of those set aside that this request is to try. */
  #due(pool: Pool<T>, nowMs: number, tried: readonly Member<T>[], fields: Fields | null): Member<T> | null {
    // A key that belongs elsewhere stays there.
    const owner = pool.picker instanceof ConsistentHash ? pool.picker.ownerFor(fields) : null;
    for (const member of pool.aside) {
      const { standing } = member;
      if (standing.probedAtMs >= 0 || standing.untilMs > nowMs || tried.includes(member)) continue;
      if (owner !== null && owner !== member) continue;
      standing.probedAtMs = nowMs;
      pool.reckonDue();
      return member;
    }
    return null;
  }

  /** In use, or set aside and due: then the request tries it. */
  #mayServe(member: Member<T>, nowMs: number): boolean {
    if (member.place !== -1) return true;
    const { pool, standing } = member;
    if (pool === null || standing.probedAtMs >= 0 || standing.untilMs > nowMs) return false;
    standing.probedAtMs = nowMs;
    pool.reckonDue();
    return true;
  }

  /** Nobody in use is left: whoever is nearest to being taken back, unless the policy forbids those whose answers failed. */
  #lastResort(tried: readonly Member<T>[]): Member<T> | null {
    const isStrict = this.#isStrict;
    let best: Member<T> | null = null;
    for (const member of this.#members) {
      const { aside, untilMs } = member.standing;
      if (member.pool === null || tried.includes(member) || (isStrict && aside === "failing")) continue;
      if (best === null || untilMs < best.standing.untilMs) best = member;
    }
    return best;
  }

  /** Even when all are set aside for their answers none of them is used. */
  get #isStrict(): boolean {
    return this.#traffic.ejectionFloor <= 0 && this.#traffic.panicThreshold <= 0;
  }

  // --- standing ---

  /** How many may be set aside for their answers. */
  get #failingMax(): number {
    const count = this.#members.length;
    // 0.3 of 10 are 3, and not the 4 that 1 - 0.7 would make of them.
    return count - Math.min(count, Math.ceil(count * this.#traffic.ejectionFloor - ROUNDING));
  }

  #setAside(member: Member<T>): void {
    if (this.#byKey.get(member.key) !== member) return;
    this.#reckonAside();
    if (!this.#isIn(member)) member.pool?.setAside(member);
    this.#review();
  }

  #readmit(member: Member<T>): void {
    member.standing.readmit();
    this.#tookBack(member);
  }

  #tookBack(member: Member<T>): void {
    if (this.#byKey.get(member.key) !== member) return;
    this.#reckonAside();
    member.pool?.takeBack(member);
    this.#review();
  }

  #reckonAside(): void {
    this.#failing = 0;
    this.#unreachable = 0;
    for (const { standing } of this.#members) {
      if (standing.aside === "failing") this.#failing++;
      else if (standing.aside === "unreachable") this.#unreachable++;
    }
  }

  /** Members in use may have left: then those are taken back that would be first. */
  #keepFloor(): void {
    let excess = this.#failing - this.#failingMax;
    if (excess <= 0) return;
    const failing = this.#members.filter(({ standing }) => standing.aside === "failing");
    failing.sort((a, b) => a.standing.untilMs - b.standing.untilMs);
    for (const { standing } of failing) {
      if (excess-- <= 0) break;
      standing.readmit();
    }
    this.#reckonAside();
  }

  /** What depends on how many are set aside. */
  #review(): void {
    const wasPanicking = this.#isPanicking;
    if (this.#traffic.zone !== null || this.#reckonPanic() !== wasPanicking) this.#regroup();
  }

  #reckonPanic(): boolean {
    const count = this.#members.length;
    const share = count === 0 ? 1 : (count - this.#failing - this.#unreachable) / count;
    this.#isPanicking = this.#failing > 0 && share < this.#traffic.panicThreshold;
    return this.#isPanicking;
  }

  #isIn({ standing }: Member<T>): boolean {
    return standing.aside === "no" || (this.#isPanicking && standing.aside === "failing");
  }

  // --- pools ---

  /** Fills the pools anew. */
  #regroup(): void {
    this.#reckonPanic();
    const { slowStartMs, zone } = this.#traffic;
    const isIn = (member: Member<T>): boolean => this.#isIn(member);
    let members: readonly Member<T>[] = this.#members;
    if (
      members.some(({ endpoint }) => endpoint.weight === 0) &&
      members.some(({ endpoint }) => endpoint.weight > 0)
    ) {
      for (const member of members) member.pool = null;
      members = members.filter(({ endpoint }) => endpoint.weight > 0);
    }
    let others: readonly Member<T>[] = [];
    if (zone !== null) {
      const isLocal = ({ endpoint }: Member<T>): boolean =>
        localityOf(endpoint, this.#client.zone) === "local";
      const local = members.filter(isLocal);
      const isEnough =
        local.length > 0 && local.filter(isIn).length >= zone.healthyShareMin * local.length - ROUNDING;
      if (isEnough && local.length < members.length) {
        others = members.filter((member) => !isLocal(member));
        members = local;
      }
    }
    this.#pool.fill(members, slowStartMs, isIn);
    if (others.length > 0 || this.#others.members.length > 0) this.#others.fill(others, slowStartMs, isIn);
  }

  /** Whether the client's own zone is loaded, and the others less so. */
  #spills(): boolean {
    const spillAtPending = this.#traffic.zone?.spillAtPending ?? 0;
    const here = (this.#pool.pending + 1) / Math.max(1, this.#pool.active.length);
    if (spillAtPending <= 0 || here <= spillAtPending) return false;
    return (this.#others.pending + 1) / Math.max(1, this.#others.active.length) < here;
  }

  /** The endpoints of `subsetSize`; with a zone preference so many here and so many elsewhere, or none here might be left. */
  #chosen(endpoints: readonly Endpoint[]): readonly Endpoint[] {
    const { subsetSize, zone } = this.#traffic;
    if (subsetSize <= 0) return endpoints;
    const { id } = this.#client;
    if (zone === null) return subsetOf(endpoints, subsetSize, id);
    const isLocal = (endpoint: Endpoint): boolean => localityOf(endpoint, this.#client.zone) === "local";
    return [
      ...subsetOf(endpoints.filter(isLocal), subsetSize, id),
      ...subsetOf(
        endpoints.filter((endpoint) => !isLocal(endpoint)),
        subsetSize,
        id,
      ),
    ];
  }

  #newPicker(): Picker<T> {
    const { algorithm, hashOn, boundedLoad } = this.#traffic.balancing;
    if (algorithm === "round-robin") return new RoundRobin(this.#random);
    if (algorithm === "random") return new RandomPick();
    if (algorithm === "least-request") return new PowerOfTwo("requests", this.#random);
    const byLatency = new PowerOfTwo<T>("latency", this.#random);
    if (algorithm === "p2c-ewma") return byLatency;
    const keyOf = (fields: Fields | null): number => hashKeyOf(hashOn, this.#client.id, fields);
    return new ConsistentHash(keyOf, boundedLoad, byLatency);
  }
}

/**
 * Whether a service's settings need to see each request or its answer. If not, one that goes over a connection which was made before
 * it came misses nothing.
 */
export function looksAtRequests({ accrual, balancing, limits, persistence }: BackendTraffic): boolean {
  const hasLimits = limits.requestsMax > 0 || limits.pendingMax > 0 || limits.connectionsMax > 0;
  return accrual !== null || persistence !== null || balancing.algorithm === "consistent-hash" || hasLimits;
}

/** Whether connections made for `a` serve `b` as well. Labels and weight may differ. */
function sameTransport(a: Endpoint, b: Endpoint): boolean {
  return (
    a === b ||
    (a.identity?.name === b.identity?.name &&
      a.identity?.serverName === b.identity?.serverName &&
      a.protocolHint === b.protocolHint &&
      a.tunnelPort === b.tunnelPort &&
      a.authorityOverride === b.authorityOverride &&
      a.originatedTls?.serverName === b.originatedTls?.serverName &&
      a.originatedTls?.caPem === b.originatedTls?.caPem)
  );
}

/** Of plain data, made in one place: equal parts come in equal order. */
function sameSettings(a: unknown, b: unknown): boolean {
  return a === b || JSON.stringify(a) === JSON.stringify(b);
}
