import type { Clock } from "#/base/clock.ts";
import type { Random } from "#/base/random.ts";
import type { RequestHead, RequestSink, ResponseSink } from "../http/exchange.ts";
import { Request } from "../http/translate.ts";
import { DeadlineWheel } from "./deadline-wheel.ts";
import { readOverrides } from "./request-overrides.ts";
import type { RetryRoom, SoonTask } from "./retried-exchange.ts";
import { RetriedExchange } from "./retried-exchange.ts";
import { RetryPressure } from "./retry-pressure.ts";
import type { Destinations, RetryRule } from "./retry-rule.ts";

export interface RetryLayerSettings {
  /** Bytes of bodies that all requests of the sidecar together keep to send again. Past it a body is bound to its endpoint. */
  readonly keptBytesMax: number;
}

export const RETRY_LAYER_DEFAULTS: RetryLayerSettings = { keptBytesMax: 16_777_216 };

/**
 * Keeps a request within the timeouts of its rule, and sends it again as the rule says, each time to a backend drawn anew and
 * there to an endpoint that has not had it. One for a client's sidecar.
 *
 *     RouteLayer ──call──▶ RetryLayer ──Destination.call, once per attempt──▶ Dispatch
 *
 * The client hears one answer: that of the attempt whose head was passed on, or the last one's. Requests for which nothing of
 * this is configured do not come here (`needsRetryLayer`).
 */
export class RetryLayer implements RetryRoom {
  readonly clock: Clock;
  readonly random: Random;
  readonly deadlines: DeadlineWheel;
  readonly keptBytesMax: number;
  readonly pressure: RetryPressure;
  keptBytes = 0;
  #soon: SoonTask[] = [];

  /** `pressure`: shared with the inbound side; by default nobody's. */
  constructor(options: {
    clock: Clock;
    random: Random;
    settings?: RetryLayerSettings;
    pressure?: RetryPressure;
  }) {
    this.clock = options.clock;
    this.random = options.random;
    this.pressure = options.pressure ?? new RetryPressure();
    this.keptBytesMax = (options.settings ?? RETRY_LAYER_DEFAULTS).keptBytesMax;
    this.deadlines = new DeadlineWheel(options.clock);
  }

  call(
    rule: RetryRule,
    destinations: Destinations,
    head: RequestHead,
    last: boolean,
    reply: ResponseSink,
  ): RequestSink {
    const own = rule.allowsRequestHeaders ? readOverrides(head.fields, rule.timeouts, rule.retry) : null;
    const sent = own === null ? head : new Request({ ...head, fields: own.fields });
    const exchange = new RetriedExchange(this, rule, own, destinations, sent, last, reply);
    exchange.begin();
    return exchange;
  }

  soon(task: SoonTask): void {
    if (this.#soon.push(task) === 1) this.clock.soon(this.#runSoon);
  }

  readonly #runSoon = (): void => {
    const tasks = this.#soon;
    this.#soon = [];
    for (const task of tasks) task.soon();
  };
}
