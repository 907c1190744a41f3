import type { Clock } from "#/base/clock.ts";
import type { Fields } from "#/base/fields.ts";
import { fieldValue, keepNeverIndexed } from "#/base/fields.ts";
import type { HttpService, RequestHead, RequestSink, ResponseHead, ResponseSink } from "../http/exchange.ts";
import { PassedReply } from "../http/exchange.ts";
import { isGrpc } from "../http/mesh-answer.ts";

/** How long a workload counts as out of retries after one was withheld from it. */
const PRESSURE_MS = 1_000;

/** In a member of Proxy-Status: whoever gave this answer was out of retries, so that to ask again is to ask for the same. */
export const WITHHELD = "pillion-retry=withheld";

/** What a sidecar's two directions tell each other: that requests of its own workload are out of retries. */
export class RetryPressure {
  /** The workload has made a request that may be retried. Until then nobody's answers are looked at. */
  isPossible = false;
  #withheldAtMs = -Infinity;

  withheld(nowMs: number): void {
    this.#withheldAtMs = nowMs;
  }

  isOn(clock: Clock): boolean {
    return this.#withheldAtMs > clock.nowMs() - PRESSURE_MS;
  }
}

/** Whether an answer, whoever's it is, comes from a workload that is out of retries. Only the mesh can be last to say so (decision 7). */
export function isWithheldBehind(fields: Fields): boolean {
  for (let i = fields.length - 2; i >= 0; i -= 2) {
    const name = fields[i] as string;
    if (name.length !== PROXY_STATUS.length || name.toLowerCase() !== PROXY_STATUS) continue;
    const value = fields[i + 1] as string;
    const last = value.slice(value.lastIndexOf("pillion;"));
    return last.startsWith("pillion;") && last.includes(WITHHELD);
  }
  return false;
}

/** With a member that says that the mesh passes on what another has answered, and did not ask for it again (RFC 9209 §2). */
export function withWithheld(head: ResponseHead, side: "client" | "server", details: string): ResponseHead {
  const fields: Fields = [...head.fields];
  keepNeverIndexed(head.fields, fields);
  const member = `pillion;received-status=${head.status};pillion-side=${side};${WITHHELD};details="${details}"`;
  fields.push(PROXY_STATUS, member);
  return { ...head, fields };
}

/**
 * The inbound side: an answer that failed, from a workload that is out of retries itself, says so to the client's sidecar, which
 * then does not ask again. Without that each tier would add its own share to those behind it, and three tiers of 1.2 make 1.7.
 * Costs nothing where the workload's own requests have no retries.
 */
export class RetryDamping implements HttpService {
  readonly #inner: HttpService;
  readonly #pressure: RetryPressure;
  readonly #clock: Clock;

  constructor(inner: HttpService, pressure: RetryPressure, clock: Clock) {
    this.#inner = inner;
    this.#pressure = pressure;
    this.#clock = clock;
  }

  get isOn(): boolean {
    return this.#pressure.isOn(this.#clock);
  }

  call(head: RequestHead, last: boolean, reply: ResponseSink): RequestSink {
    if (!this.#pressure.isPossible) return this.#inner.call(head, last, reply);
    return this.#inner.call(head, last, new DampedReply(this, reply, isGrpc(head)));
  }
}

class DampedReply extends PassedReply {
  readonly #damping: RetryDamping;
  readonly #isCall: boolean;

  constructor(damping: RetryDamping, reply: ResponseSink, isCall: boolean) {
    super(reply);
    this.#damping = damping;
    this.#isCall = isCall;
  }

  override head(head: ResponseHead, last: boolean): void {
    const code = this.#isCall ? fieldValue(head.fields, "grpc-status") : null;
    const hasFailed = head.status >= 500 || (code !== null && code !== "0");
    const said =
      hasFailed && this.#damping.isOn
        ? withWithheld(head, "server", "what it asked for was not sent again")
        : head;
    this.reply.head(said, last);
  }
}

const PROXY_STATUS = "proxy-status";
