import { assert } from "#/base/assert.ts";
import { SeededRandom } from "#/base/random.ts";
import { VirtualClock } from "#/base/virtual-clock.ts";
import type { Endpoint } from "#/model/endpoint.ts";
import { ruleOf } from "#/model/policy.ts";
import type { BackendBounds } from "#/stack/balance/backend-bounds.ts";
import type { Cancel, EndpointSource } from "#/stack/discovery.ts";
import type { HttpService, RequestHead, RequestSink, ResponseSink } from "#/stack/http/exchange.ts";
import type { Fault } from "#/stack/http/fault.ts";
import { PortLimits } from "#/stack/limits/port-limits.ts";
import { QuotaShares } from "#/stack/limits/quota-shares.ts";
import { RetryDamping } from "#/stack/retry/retry-pressure.ts";
import type { Condition } from "./application.ts";
import { PlayedApplication } from "./application.ts";
import type { CallEnd, CallWatch } from "./caller.ts";
import { Caller } from "./caller.ts";
import { Counts, Flow, RuleEvents, Timeline } from "./figures.ts";
import type { Far, LinkCounts, LinkRequest, Reach } from "./link.ts";
import { Link } from "./link.ts";
import { OutboundStack } from "./outbound-stack.ts";
import type { CallPlan, ReplicaPlan, ServicePlan, WorkloadPlan, WorldPlan } from "./plan.ts";
import { REQUEST_NUMBER } from "./plan.ts";

/** After the load has ended, so much time is given to what is under way. */
const DRAIN_MS = 600_000;
const VIOLATIONS_MAX = 20;
/** A pod has one program, whatever the port that it is reached by. */
const ANY_PORT = 80;

/**
 * A mesh on virtual time: pods with played programs, and for each the same layers that its sidecar has between a request and
 * its endpoint. No bytes: a request is one call of a service, so that hundreds of thousands take seconds. The same plan
 * gives the same run, event by event.
 */
export class World implements CallWatch {
  readonly clock: VirtualClock = new VirtualClock();
  readonly random: SeededRandom;
  readonly plan: WorldPlan;
  readonly timeline: Timeline;
  readonly workloads: ReadonlyMap<string, SimWorkload>;
  readonly services: ReadonlyMap<string, SimService>;
  /** Requests as programs make them, by sender and target. */
  readonly flows: Map<string, Flow> = new Map();
  /** Faults that reached a program, by code and rule, and those that policy put in. */
  readonly faults: Map<string, number> = new Map();
  /** What must never happen. At most `VIOLATIONS_MAX`. */
  readonly violations: string[] = [];
  underWay = 0;
  #numbered = 0;
  /** Looks on; null: nobody does, and nothing is told. */
  observer: Observer | null = null;
  /** By address: the port is of no matter, a pod has one program here. */
  readonly #pods = new Map<string, SimPod>();

  constructor(plan: WorldPlan) {
    this.plan = plan;
    this.random = new SeededRandom(plan.seed);
    this.timeline = new Timeline(plan.durationMs, plan.failures);
    this.workloads = new Map(plan.workloads.map((one) => [one.name, new SimWorkload(this, one)]));
    for (const workload of this.workloads.values())
      for (const pod of workload.pods) this.#pods.set(pod.plan.endpoint.address.ip, pod);
    this.services = new Map(plan.services.map((one) => [one.path, new SimService(this, one)]));
  }

  get nowMs(): number {
    return this.clock.nowMs();
  }

  get pods(): Iterable<SimPod> {
    return this.#pods.values();
  }

  podAt(endpoint: Endpoint): SimPod {
    const pod = this.#pods.get(endpoint.address.ip);
    assert(pod !== undefined, `no pod has the address ${endpoint.address.ip}`);
    return pod;
  }

  service(path: string): SimService {
    const service = this.services.get(path);
    assert(service !== undefined, `no service has the path ${path}`);
    return service;
  }

  flow(from: string, to: string): Flow {
    const key = `${from}\0${to}`;
    let flow = this.flows.get(key);
    if (flow === undefined) {
      flow = new Flow(from, to, this.timeline);
      this.flows.set(key, flow);
    }
    return flow;
  }

  /** Runs the load's time, and then until nothing is under way; what is left after that is a violation. */
  run(): void {
    this.clock.run(this.plan.durationMs);
    const endMs = this.nowMs + DRAIN_MS;
    while (this.underWay > 0 && this.nowMs < endMs) this.clock.run(1_000);
    for (const pod of this.pods) pod.outbound.close();
    // What was closed may still have timers that end by themselves.
    this.clock.run(DRAIN_MS);
    this.#checkNothingLeft();
  }

  /** `head` with the next number of this world. */
  number(head: RequestHead): RequestHead {
    return { ...head, fields: [...head.fields, REQUEST_NUMBER, String(++this.#numbered)] };
  }

  begun(): void {
    this.underWay++;
  }

  ended(): void {
    this.underWay--;
  }

  violated(what: string): void {
    if (this.violations.length < VIOLATIONS_MAX)
      this.violations.push(`at ${this.nowMs.toFixed(3)} ms: ${what}`);
  }

  faulted(cause: Fault): void {
    this.count(cause.rule === "" ? cause.code : `${cause.code} [${cause.rule}]`);
  }

  count(what: string): void {
    this.faults.set(what, (this.faults.get(what) ?? 0) + 1);
  }

  #checkNothingLeft(): void {
    if (this.underWay !== 0) this.violated(`${this.underWay} requests were never answered`);
    if (this.clock.timers !== 0) this.violated(`${this.clock.timers} timers are left`);
    for (const pod of this.pods) {
      const { deadlines, keptBytes } = pod.outbound.retries;
      if (deadlines.size !== 0) this.violated(`${pod.plan.name}: ${deadlines.size} deadlines are left`);
      if (keptBytes !== 0) this.violated(`${pod.plan.name}: ${keptBytes} bytes are kept for retries`);
      for (const [path, { dispatch }] of pod.outbound.dispatches)
        if (dispatch.bounds.waiting !== 0)
          this.violated(`${pod.plan.name}: ${dispatch.bounds.waiting} requests to ${path} still wait`);
      const { held } = pod.outbound.faults;
      if (held !== 0) this.violated(`${pod.plan.name}: ${held} requests are held by faults`);
      const copies = pod.outbound.mirrors.count;
      if (copies !== 0) this.violated(`${pod.plan.name}: ${copies} copies for mirrors are left`);
      const admitted = pod.limits?.concurrency?.underWay ?? 0;
      if (admitted !== 0) this.violated(`${pod.plan.name}: ${admitted} admitted requests are left`);
      if (pod.underWay !== 0)
        this.violated(`${pod.plan.name}: ${pod.underWay} requests of its sidecar are left`);
      if (pod.open.size !== 0) this.violated(`${pod.plan.name}: ${pod.open.size} requests to it are left`);
      if (pod.application.busy !== 0 || pod.application.waiting !== 0)
        this.violated(`${pod.plan.name}: its program still has requests`);
    }
  }
}

/** Somebody who looks on. */
export interface Observer {
  /** A program made a request, and how it ended. */
  called(from: SimPod, to: string, head: RequestHead): void;
  ended(from: SimPod, to: string, head: RequestHead, outcome: string, tookMs: number): void;
  /** A sidecar sent it to an endpoint, where it may or may not arrive. */
  sent(sent: Sent): void;
  arrived(at: SimPod, head: RequestHead): void;
  /** It came back from the endpoint untouched. */
  givenBack(service: SimService, head: RequestHead): void;
  /** A failure began or ended. */
  noted(what: string): void;
}

/** One request that a sidecar put on its way to an endpoint. */
export interface Sent {
  readonly from: SimPod;
  readonly to: SimPod;
  readonly service: SimService;
  readonly head: RequestHead;
}

export class SimWorkload {
  readonly plan: WorkloadPlan;
  readonly pods: readonly SimPod[];

  constructor(world: World, plan: WorkloadPlan) {
    this.plan = plan;
    this.pods = plan.pods.map((pod) => new SimPod(world, this, pod));
  }
}

/** A pod: a program, and the sidecar beside it. */
export class SimPod implements Far {
  readonly plan: ReplicaPlan;
  readonly workload: SimWorkload;
  readonly application: PlayedApplication;
  readonly outbound: OutboundStack;
  /** What its sidecar takes in; null: whatever comes. */
  limits: PortLimits | null;
  readonly open: Set<LinkRequest> = new Set();
  /** Requests that came in at its program. */
  readonly arrivals: Counts;
  reach: Reach = "up";
  lostAtMs = -1;
  /** Requests of its sidecar that are on a link; by service, without those whose endpoint is lost. */
  underWay = 0;
  readonly underWayTo: Map<string, number> = new Map();
  readonly #world: World;
  /** The program, with its arrivals counted. */
  readonly #program: HttpService = {
    call: (head, last, reply) => {
      this.arrivals.add(this.#world.nowMs);
      this.#world.observer?.arrived(this, head);
      return this.application.call(head, last, reply);
    },
  };

  readonly #damped: RetryDamping;

  constructor(world: World, workload: SimWorkload, plan: ReplicaPlan) {
    const { clock, random } = world;
    this.#world = world;
    this.plan = plan;
    this.workload = workload;
    this.arrivals = new Counts(world.timeline);
    this.application = new PlayedApplication({
      clock,
      random,
      behaviour: workload.plan.behaviour,
      makeCall: (call, done) => this.call(call, call.head, done),
    });
    this.limits = this.#newLimits();
    this.outbound = new OutboundStack({
      clock,
      random,
      client: { id: plan.name, zone: plan.zone },
      policyOf: (path) => world.service(path).plan.policyFor(workload.plan.name),
      sourceOf: (path) => world.service(path),
      make: (endpoint, path, bounds) => this.#link(endpoint, world.service(path), bounds),
      injected: (rule, kind) => world.count(`${kind} by ${rule}`),
      limitReached: (path, limit) => world.service(path).events.limitReached(limit),
      seriesOf: (path) => world.service(path).events,
    });
    this.#damped = new RetryDamping(this.#program, this.outbound.retries.pressure, clock);
  }

  accept(client: string | null, head: RequestHead, last: boolean, reply: ResponseSink): RequestSink {
    // As in a sidecar, only another one is told.
    const program = client === null ? this.#program : this.#damped;
    return this.limits === null
      ? program.call(head, last, reply)
      : this.limits.call(program, client, head, last, reply);
  }

  /** The program makes a request. `head` may be another than the plan's. */
  call(plan: CallPlan, head: RequestHead, done: (isGood: boolean) => void): Caller {
    const world = this.#world;
    const flow = world.flow(this.workload.plan.name, plan.to);
    const sent = plan.isNumbered ? world.number(head) : head;
    const { observer } = world;
    const told: CallEnd =
      observer === null
        ? done
        : (isGood, outcome, tookMs) => {
            observer.ended(this, plan.to, sent, outcome, tookMs);
            done(isGood);
          };
    observer?.called(this, plan.to, sent);
    const caller = new Caller({ clock: world.clock, watch: world, flow, plan, done: told });
    caller.start(this.outbound.target(plan.to), sent);
    return caller;
  }

  /** Everything in it is gone. */
  lose(reach: Reach): void {
    this.reach = reach;
    this.lostAtMs = this.#world.nowMs;
    this.application.crash();
    // Its sidecar is gone too, and comes back knowing nothing.
    this.limits = this.#newLimits();
    const open = [...this.open];
    this.open.clear();
    for (const request of open) request.lost(reach);
  }

  comeBack(): void {
    this.reach = "up";
    // What was connected in between was not.
    this.lostAtMs = this.#world.nowMs;
  }

  setCondition(condition: Condition): void {
    this.application.condition = condition;
    this.application.proceed();
  }

  #newLimits(): PortLimits | null {
    const { inbound } = this.workload.plan;
    if (inbound === null) return null;
    const world = this.#world;
    const limits = new PortLimits(ANY_PORT, {
      clock: world.clock,
      // The control plane, which leases shares of global limits, is not played: each pod goes by its fair share.
      quota: new QuotaShares(),
      limited: (limit) => world.count(`RATE_LIMITED [${ruleOf(limit.source)}]`),
      shed: (source) => world.count(`SHED [${ruleOf(source)}]`),
    });
    limits.update(inbound);
    return limits;
  }

  #link(endpoint: Endpoint, service: SimService, bounds: BackendBounds): Link {
    const world = this.#world;
    const to = world.podAt(endpoint);
    const { latencyMs, zoneLatencyMs } = world.plan.network;
    const { path } = service.plan;
    const counts: LinkCounts = {
      sent: (head) => {
        this.underWay++;
        this.underWayTo.set(path, (this.underWayTo.get(path) ?? 0) + 1);
        service.attempts.add(world.nowMs);
        world.observer?.sent({ from: this, to, service, head });
      },
      left: () => void this.underWayTo.set(path, this.underWayTo.get(path)! - 1),
      over: (head, isGivenBack) => {
        if (isGivenBack) world.observer?.givenBack(service, head);
        this.underWay--;
      },
    };
    return new Link({
      clock: world.clock,
      client: this.plan.endpoint.identity?.name ?? null,
      far: to,
      bounds,
      latencyMs: to.plan.zone === this.plan.zone ? latencyMs : zoneLatencyMs,
      counts,
    });
  }
}

/** A service as discovery tells of it. */
export class SimService implements EndpointSource {
  readonly plan: ServicePlan;
  readonly key: string;
  readonly state = "known";
  /** Requests that sidecars sent to its endpoints: more than those of the programs where there are retries. */
  readonly attempts: Counts;
  /** What sidecars did about requests for it, by the rules of its routes. */
  readonly events: RuleEvents = new RuleEvents();
  readonly pods: readonly SimPod[];
  endpoints: readonly Endpoint[];
  readonly #subscribers = new Set<() => void>();
  readonly #absent = new Set<SimPod>();

  constructor(world: World, plan: ServicePlan) {
    this.plan = plan;
    this.key = plan.path;
    this.attempts = new Counts(world.timeline);
    this.pods = plan.workloads.flatMap((name) => world.workloads.get(name)!.pods);
    this.endpoints = this.pods.map((pod) => pod.plan.endpoint);
  }

  subscribe(changed: () => void): Cancel {
    this.#subscribers.add(changed);
    return { cancel: () => void this.#subscribers.delete(changed) };
  }

  /** Discovery has learned that a pod is ready, or no longer. */
  setReady(pod: SimPod, isReady: boolean): void {
    if (!this.pods.includes(pod)) return;
    if (isReady) this.#absent.delete(pod);
    else this.#absent.add(pod);
    this.endpoints = this.pods.filter((one) => !this.#absent.has(one)).map((one) => one.plan.endpoint);
    for (const changed of this.#subscribers) changed();
  }
}
