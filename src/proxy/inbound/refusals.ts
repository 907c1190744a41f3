import { addressKey } from "#/base/address.ts";
import type { Conn } from "#/base/conn.ts";
import type { Log } from "#/net/log.ts";
import type { SecureRefusal } from "#/net/transport.ts";
import { FAMILIES } from "#/stack/metrics/families.ts";
import type { Registry } from "#/stack/metrics/registry.ts";

/** Why an inbound connection was not served. Closed: each is a value of `error` in `inbound_tcp_errors_total`. */
export type InboundRefusal =
  | SecureRefusal
  | "client_gone"
  | "no_original_destination"
  | "not_local_address"
  | "loop"
  | "too_many_ports"
  | "not_tls"
  | "wrong_sni"
  | "detect_timeout"
  | "no_transport_header"
  | "bad_transport_header"
  | "no_gateway"
  | "unauthorized"
  | "expired_identity" // it was served until its proof ended and no other came
  | "too_many_connections"
  | "memory_limit"
  | "connect_refused"
  | "connect_timeout"
  | "connect_failed";

/** Says in log and metric why a connection was refused, and ends it as an error. */
export class Refusals {
  readonly #log: Log;
  readonly #registry: Registry;

  constructor(log: Log, registry: Registry) {
    this.#log = log;
    this.#registry = registry;
  }

  /**
   * Without a line in the log: where memory is short the guard has said so once, and a line for each would cost more of it; of a client
   * that is gone nothing is known.
   */
  turnAway(conn: Conn, port: number, reason: "memory_limit" | "client_gone"): void {
    this.#registry.count(FAMILIES.inboundTcpErrors, { error: reason, target_port: String(port) });
    conn.reset();
  }

  /** `conn` is null when it is gone already. */
  refuse(conn: Conn | null, client: string, port: number, reason: InboundRefusal, detail: string): void {
    this.#registry.count(FAMILIES.inboundTcpErrors, { error: reason, target_port: String(port) });
    this.#log.warn("inbound connection refused", { client, port, reason, detail });
    conn?.reset();
  }
}

export function clientOf(conn: Conn): string {
  return addressKey(conn.remote);
}
