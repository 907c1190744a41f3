import type { BackendLimits, BackendTraffic } from "#/model/traffic.ts";
import type { Fault } from "../http/fault.ts";
import { fault } from "../http/fault.ts";
import type { MeteredConn } from "../metrics/transport.ts";

export type BackendLimit = keyof BackendLimits;

const NO_LIMITS: BackendLimits = { requestsMax: 0, pendingMax: 0, connectionsMax: 0 };

/**
 * What one client's sidecar may have under way to one service: requests, those of them that wait (for an endpoint, for a
 * connection to one, or for a stream on it), and connections. One more is refused at once, with a reason, for a queue would only make its service slower. A
 * limit that changes holds from then on: what is there already stays.
 */
export class BackendBounds {
  /** Of the service, for people. */
  readonly name: string;
  readonly #reached: (limit: BackendLimit) => void;
  limits: BackendLimits = NO_LIMITS;
  /** What making a connection may take; null: as long as anywhere. */
  connectTimeoutMs: number | null = null;
  waiting = 0;
  connections = 0;

  /** `reached` is told of each refusal. */
  constructor(name: string, reached: (limit: BackendLimit) => void = () => {}) {
    this.name = name;
    this.#reached = reached;
  }

  configure({ limits, connectTimeoutMs }: BackendTraffic): void {
    this.limits = limits;
    this.connectTimeoutMs = connectTimeoutMs;
  }

  /** Why one more request may not come when so many are under way; null: it may. */
  refuseRequest(underWay: number): Fault | null {
    const { requestsMax } = this.limits;
    return requestsMax === 0 || underWay < requestsMax
      ? null
      : this.#refusal("requestsMax", "requests are under way");
  }

  /** … or wait. Who may must call `wait`. */
  refuseWaiting(): Fault | null {
    const { pendingMax } = this.limits;
    return pendingMax === 0 || this.waiting < pendingMax
      ? null
      : this.#refusal("pendingMax", "requests wait already");
  }

  /** … or have a connection made for it. */
  refuseConnection(): Fault | null {
    const { connectionsMax } = this.limits;
    return connectionsMax === 0 || this.connections < connectionsMax
      ? null
      : this.#refusal("connectionsMax", "connections are open or being made");
  }

  /** A request waits, until the returned function is called for the first time. */
  wait(): () => void {
    this.waiting++;
    return once(() => this.waiting--);
  }

  /** A connection is made, or there, until the returned function is called for the first time. */
  connecting(): () => void {
    this.connections++;
    return once(() => this.connections--);
  }

  #refusal(limit: BackendLimit, what: string): Fault {
    this.#reached(limit);
    const max = this.limits[limit];
    return fault("OVERLOADED", `${this.name}: ${max} ${what}, as many as this client may have`, {
      safe: true,
      rule: `${limit}=${max}`,
    });
  }
}

/** Calls `over` at the connection's close, beside whoever counts its bytes. */
export function whenClosed(conn: MeteredConn, over: () => void): void {
  const others = conn.closed;
  conn.closed = (error) => {
    others?.(error);
    over();
  };
}

function once(run: () => void): () => void {
  let isOver = false;
  return () => {
    if (isOver) return;
    isOver = true;
    run();
  };
}
