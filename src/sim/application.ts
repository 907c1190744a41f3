import type { Clock, Timer } from "#/base/clock.ts";
import type { Fields } from "#/base/fields.ts";
import type { Random } from "#/base/random.ts";
import type { HttpService, RequestHead, RequestSink, ResponseSink } from "#/stack/http/exchange.ts";
import { SPENT } from "#/stack/http/exchange.ts";
import { drawMs } from "./latency.ts";
import type { Behaviour, CallPlan } from "./plan.ts";

/** What a failure makes of a behaviour, until it is over. */
export interface Condition {
  readonly slowFactor: number;
  /** Null: as the behaviour says. */
  readonly errorRate: number | null;
  readonly capacityShare: number;
}

export const WELL: Condition = { slowFactor: 1, errorRate: null, capacityShare: 1 };

/** Makes one call of its own; `done` is told once whether it went well, unless it is cancelled. */
export type MakeCall = (plan: CallPlan, done: (isGood: boolean) => void) => { cancel(): void };

/**
 * A played program in one pod: a queue with some workers. A request takes a worker for its own work and for the calls that
 * it makes, one after another, and is then answered with 200, or with 500 where chance or a call of its own failed it.
 */
export class PlayedApplication implements HttpService {
  readonly clock: Clock;
  readonly random: Random;
  readonly behaviour: Behaviour;
  readonly makeCall: MakeCall;
  condition: Condition = WELL;
  /** Requests under way, and the most there ever were. */
  busy = 0;
  busyPeak = 0;
  arrived = 0;
  /** Turned away because too many waited. */
  refused = 0;
  waitingPeak = 0;
  readonly #works = new Set<Work>();
  /** First in, first out; what was given up meanwhile is stepped over. */
  #waiting: Work[] = [];
  #next = 0;

  constructor(parts: { clock: Clock; random: Random; behaviour: Behaviour; makeCall: MakeCall }) {
    this.clock = parts.clock;
    this.random = parts.random;
    this.behaviour = parts.behaviour;
    this.makeCall = parts.makeCall;
  }

  get waiting(): number {
    return this.#waiting.length - this.#next;
  }

  call(_head: RequestHead, _last: boolean, reply: ResponseSink): RequestSink {
    this.arrived++;
    if (this.busy >= this.#workersMax() && this.waiting >= this.behaviour.waitingMax) {
      this.refused++;
      reply.head({ status: 503, version: "1.1", reason: null, fields: NO_FIELDS }, true);
      return SPENT;
    }
    const work = new Work(this, reply);
    this.#works.add(work);
    if (this.busy < this.#workersMax()) this.#start(work);
    else {
      this.#waiting.push(work);
      if (this.waiting > this.waitingPeak) this.waitingPeak = this.waiting;
    }
    return work;
  }

  /** Everything under way is gone, without a word to anybody. */
  crash(): void {
    for (const work of this.#works) work.drop();
    this.#works.clear();
    this.#waiting = [];
    this.#next = 0;
    this.busy = 0;
  }

  /** A worker has become free, or there are more of them. */
  proceed(): void {
    while (this.busy < this.#workersMax() && this.#next < this.#waiting.length) {
      const work = this.#waiting[this.#next++] as Work;
      if (!work.isOver) this.#start(work);
    }
    if (this.#next === this.#waiting.length || this.#next > QUEUE_SLACK) {
      this.#waiting = this.#waiting.slice(this.#next);
      this.#next = 0;
    }
  }

  /** Of `Work` alone. */
  ended(work: Work, held: boolean): void {
    if (!this.#works.delete(work)) return;
    if (held) this.busy--;
    this.proceed();
  }

  #start(work: Work): void {
    this.busy++;
    if (this.busy > this.busyPeak) this.busyPeak = this.busy;
    work.start();
  }

  #workersMax(): number {
    return Math.max(1, Math.floor(this.behaviour.workersMax * this.condition.capacityShare));
  }
}

/** One request in a program. */
class Work implements RequestSink {
  readonly #application: PlayedApplication;
  readonly #reply: ResponseSink;
  #timer: Timer | null = null;
  #call: { cancel(): void } | null = null;
  #next = 0;
  #isStarted = false;
  #isHeard = true;
  isOver = false;

  constructor(application: PlayedApplication, reply: ResponseSink) {
    this.#application = application;
    this.#reply = reply;
  }

  start(): void {
    this.#isStarted = true;
    const { behaviour, clock, condition, random } = this.#application;
    const tookMs = drawMs(behaviour.latency, random) * condition.slowFactor;
    this.#timer = clock.after(tookMs, () => {
      this.#timer = null;
      this.#goOn();
    });
  }

  /** Nobody will hear of it, and whoever it called is told that it is gone. */
  drop(): void {
    this.isOver = true;
    this.#timer?.cancel();
    this.#call?.cancel();
  }

  data(): void {}
  end(): void {}
  responseConsumed(): void {}

  abort(): void {
    if (this.isOver) return;
    this.#isHeard = false;
    if (!this.#application.behaviour.noticesAbort) return;
    this.drop();
    this.#application.ended(this, this.#isStarted);
  }

  #goOn(): void {
    const { behaviour, condition, makeCall, random } = this.#application;
    const plan = behaviour.calls[this.#next++];
    if (plan !== undefined) {
      let isDone = false;
      const call = makeCall(plan, (isGood) => {
        isDone = true;
        this.#call = null;
        if (this.isOver) return;
        if (isGood || plan.isOptional) this.#goOn();
        else this.#answer(502);
      });
      if (!isDone) this.#call = call;
      return;
    }
    this.#answer(random.next() < (condition.errorRate ?? behaviour.errorRate) ? 500 : 200);
  }

  #answer(status: number): void {
    this.isOver = true;
    // First, so that whoever hears of the answer finds a worker free.
    this.#application.ended(this, true);
    if (this.#isHeard) this.#reply.head({ status, version: "1.1", reason: null, fields: NO_FIELDS }, true);
  }
}

const NO_FIELDS: Fields = [];
/** The head of the queue is cut off once so much of it is over. */
const QUEUE_SLACK = 4_096;
