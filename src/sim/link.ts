import type { Clock } from "#/base/clock.ts";
import type { Fields } from "#/base/fields.ts";
import { LIMITS } from "#/model/limits.ts";
import type { BackendBounds } from "#/stack/balance/backend-bounds.ts";
import type { EndpointService } from "#/stack/http/dispatch.ts";
import type { RequestHead, RequestSink, ResponseHead, ResponseSink } from "#/stack/http/exchange.ts";
import { IDEMPOTENT, SPENT } from "#/stack/http/exchange.ts";
import type { Fault } from "#/stack/http/fault.ts";
import { fault } from "#/stack/http/fault.ts";
import type { Answerer } from "#/stack/http/mesh-answer.ts";
import { explain, meshAnswer } from "#/stack/http/mesh-answer.ts";

const SERVER: Answerer = { side: "server", workload: "" };
/** As a sidecar's own default. */
const CONNECT_TIMEOUT_MS = 1_000;
/** So long a connection is silent before its sidecar takes it for dead. */
const SILENCE_MS = LIMITS.keepAliveMs + LIMITS.keepAliveTimeoutMs;

/** How a pod looks from outside. `dead` refuses connections; `silent` does not even that. */
export type Reach = "up" | "dead" | "silent";

/** A pod as its links see it. */
export interface Far {
  readonly reach: Reach;
  /** When it was last without life: connections made before are gone. */
  readonly lostAtMs: number;
  /** Its sidecar's inbound side, with the program behind it. `client`: proven name; null for an unmeshed one. */
  accept(client: string | null, head: RequestHead, last: boolean, reply: ResponseSink): RequestSink;
  /** Requests on their way in or under way. */
  readonly open: Set<LinkRequest>;
}

/** What is counted of a link. */
export interface LinkCounts {
  /** A request was put on the wire, or waits for the connection to be. */
  sent(head: RequestHead): void;
  /** It no longer loads the endpoint: over, or lost with it, though its sender may not know yet. Before `over`, once. */
  left(): void;
  /** It is over. `isGivenBack`: untouched, so that it may go to another endpoint without being a retry. */
  over(head: RequestHead, isGivenBack: boolean): void;
}

/**
 * The way from one sidecar to one endpoint, in place of an `EndpointClient`: one connection, made when first needed, with a
 * latency. What a client's sidecar would see of a far pod that is gone, this shows: refused or timed out connections,
 * resets of what was under way, silence until the keep-alive notices it.
 */
export class Link implements EndpointService {
  readonly clock: Clock;
  /** Proven name of who sends. */
  readonly client: string | null;
  readonly far: Far;
  readonly latencyMs: number;
  readonly counts: LinkCounts;
  readonly bounds: BackendBounds;
  /** When the connection was, or will be, made; -1: there is none. */
  #connectedAtMs = -1;

  constructor(parts: {
    clock: Clock;
    client: string | null;
    far: Far;
    latencyMs: number;
    counts: LinkCounts;
    bounds: BackendBounds;
  }) {
    this.clock = parts.clock;
    this.client = parts.client;
    this.far = parts.far;
    this.latencyMs = parts.latencyMs;
    this.counts = parts.counts;
    this.bounds = parts.bounds;
  }

  call(head: RequestHead, last: boolean, reply: ResponseSink): RequestSink {
    const afterMs = this.connectMs();
    const refusal = afterMs === 0 ? null : this.bounds.refuseWaiting();
    if (refusal !== null) {
      reply.fail(refusal);
      return SPENT;
    }
    const request = new LinkRequest(this, head, last, reply);
    this.counts.sent(head);
    request.connect(afterMs);
    return request;
  }

  close(): void {
    this.#connectedAtMs = -1;
  }

  /** Until the connection is there: 0 when it is, -1 when it cannot be made. One that is silent is used like any other. */
  connectMs(): number {
    const nowMs = this.clock.nowMs();
    const { lostAtMs, reach } = this.far;
    const isLost = this.#connectedAtMs < lostAtMs;
    const isUnnoticed = reach === "silent" && nowMs < lostAtMs + SILENCE_MS;
    if (this.#connectedAtMs >= 0 && (!isLost || isUnnoticed)) return Math.max(0, this.#connectedAtMs - nowMs);
    if (reach !== "up") return -1;
    // TCP and TLS 1.3 take two round trips.
    this.#connectedAtMs = nowMs + 4 * this.latencyMs;
    return 4 * this.latencyMs;
  }
}

/** One request on a link: to the far side it is who answers to, to the near side whom it sent to. */
export class LinkRequest implements RequestSink, ResponseSink {
  readonly #link: Link;
  readonly #head: RequestHead;
  readonly #reply: ResponseSink;
  #sink: RequestSink = SPENT;
  /** Ends its waiting for a connection; null: it did not wait. */
  #waited: (() => void) | null = null;
  #isEnded: boolean;
  /** The connection is there and the request was put on it. */
  #isSent = false;
  #isArrived = false;
  #hasLeft = false;
  /** The near side wants or may hear no more. */
  #isOver = false;

  constructor(link: Link, head: RequestHead, last: boolean, reply: ResponseSink) {
    this.#link = link;
    this.#head = head;
    this.#isEnded = last;
    this.#reply = reply;
  }

  /** `afterMs`: as `Link.connectMs`. */
  connect(afterMs: number): void {
    const { bounds, clock, far, latencyMs } = this.#link;
    if (afterMs !== 0) this.#waited = bounds.wait();
    if (afterMs < 0) {
      const isRefused = far.reach === "dead";
      clock.after(isRefused ? 2 * latencyMs : CONNECT_TIMEOUT_MS, () =>
        this.#failNear(
          isRefused
            ? fault("CONNECT_FAILED", "refused", { safe: true, proxyError: "connection_refused" })
            : fault("CONNECT_TIMEOUT", `no connection within ${CONNECT_TIMEOUT_MS} ms`, { safe: true }),
        ),
      );
      return;
    }
    far.open.add(this);
    if (afterMs === 0) this.#put();
    else clock.after(afterMs, () => this.#put());
  }

  // --- from the near side ---

  data(_bytes: Uint8Array, start: number, stop: number): void {
    if (!this.#isOver) this.#reply.requestConsumed(stop - start);
  }

  end(): void {
    this.#isEnded = true;
    this.#send();
  }

  abort(cause: Fault): void {
    if (this.#isOver) return;
    this.#close();
    if (!this.#isSent) return;
    this.#link.clock.after(this.#link.latencyMs, () => this.#sink.abort(cause));
  }

  responseConsumed(): void {}

  // --- from the far side ---

  informational(): void {}
  body(): void {}
  requestConsumed(): void {}

  head(head: ResponseHead, last: boolean): void {
    this.#later(() => {
      if (last) this.#close();
      this.#reply.head(head, last);
    });
  }

  finish(trailers: Fields | null): void {
    this.#later(() => {
      this.#close();
      this.#reply.finish(trailers);
    });
  }

  /** The far sidecar's own refusal. One that reached no program may be sent elsewhere; any other is an answer, as on the wire. */
  fail(cause: Fault): void {
    if (!cause.safe) {
      this.head(meshAnswer(this.#head, explain(cause, SERVER)).head, true);
      return;
    }
    this.#later(() => this.#failNear(cause));
  }

  /** The far pod is gone, and with it this request. Told at once where it refuses, after a while where it is silent. */
  lost(reach: Reach): void {
    this.#sink = SPENT;
    if (this.#isOver) return;
    this.#leave();
    const { clock, far, latencyMs } = this.#link;
    const afterMs = reach === "silent" ? far.lostAtMs + SILENCE_MS - clock.nowMs() : latencyMs;
    clock.after(afterMs, () =>
      this.#failNear(
        fault("RESET", "the connection was lost", {
          safe: !this.#isSent || (!this.#isArrived && IDEMPOTENT.has(this.#head.method)),
        }),
      ),
    );
  }

  #put(): void {
    this.#waited?.();
    this.#isSent = true;
    this.#send();
  }

  #send(): void {
    if (!this.#isSent || !this.#isEnded || this.#isOver) return;
    this.#link.clock.after(this.#link.latencyMs, () => {
      const { far } = this.#link;
      if (this.#isOver || !far.open.has(this)) return;
      // On a connection that nobody holds any more at the other end.
      if (far.reach !== "up") {
        far.open.delete(this);
        this.lost(far.reach);
        return;
      }
      this.#isArrived = true;
      this.#sink = far.accept(this.#link.client, this.#head, true, this);
    });
  }

  #later(tell: () => void): void {
    if (this.#isOver) return;
    this.#link.clock.after(this.#link.latencyMs, () => {
      if (!this.#isOver && this.#link.far.open.has(this)) tell();
    });
  }

  #failNear(cause: Fault): void {
    if (this.#isOver) return;
    this.#close(cause.safe);
    this.#reply.fail(cause);
  }

  #leave(): void {
    if (this.#hasLeft) return;
    this.#hasLeft = true;
    this.#link.counts.left();
  }

  #close(isGivenBack = false): void {
    if (this.#isOver) return;
    this.#isOver = true;
    this.#leave();
    this.#waited?.();
    this.#link.far.open.delete(this);
    this.#link.counts.over(this.#head, isGivenBack);
  }
}
