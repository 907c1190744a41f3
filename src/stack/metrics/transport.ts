import type { Conn } from "#/base/conn.ts";
import type { ConnError } from "#/base/errors.ts";
import type { Labels, PeerIdentity } from "#/model/identity.ts";
import { BoundedNames } from "./bounded-names.ts";
import { FAMILIES } from "./families.ts";
import { LabelText, type Registry, type Value } from "./registry.ts";

/** A connection that counts its own bytes and says when it is over, whoever handles it. */
export interface MeteredConn extends Conn {
  readonly bytesRead: number;
  readonly bytesWritten: number;
  /** Called once at its close. Who sets it calls whom it finds there. */
  closed: ((error: ConnError | null) => void) | null;
}

export function isMetered(conn: Conn): conn is MeteredConn {
  return "bytesRead" in conn;
}

/** Of all connections that are open with the same labels, and held by them together. */
interface Counters {
  users: number;
  readonly opened: Value;
  readonly open: Value;
  readonly read: Value;
  readonly written: Value;
}

/** The labels of connections that are alike, written out once for all of them. */
export class ConnLabels {
  readonly #labels: Labels;
  readonly open: LabelText;
  #ended: LabelText | null = null;

  constructor(labels: Labels) {
    this.#labels = labels;
    this.open = new LabelText(labels);
  }

  /** … of one that closed: `errno` says how, "" without an error. */
  closed(errno: string): LabelText {
    if (errno !== "") return new LabelText({ ...this.#labels, errno });
    this.#ended ??= new LabelText({ ...this.#labels, errno });
    return this.#ended;
  }
}

/** `tcp_*` of all connections. Bytes are summed up when metrics are read and when a connection closes, never per chunk. */
export class TransportMetrics {
  readonly #registry: Registry;
  readonly #live = new Set<Meter>();
  readonly #counters = new Map<ConnLabels, Counters>();
  readonly #serverNames = new BoundedNames();

  constructor(registry: Registry) {
    this.#registry = registry;
    registry.beforeReading(() => {
      for (const meter of this.#live) meter.collect();
    });
  }

  /** Counts a connection from its opening on (bytes that it carried before included) until it closes. */
  opened(conn: Conn, labels: ConnLabels): void {
    if (!isMetered(conn)) return;
    const counters = this.#hold(labels);
    counters.opened.add(1);
    counters.open.add(1);
    const meter = new Meter(conn, counters);
    this.#live.add(meter);
    conn.closed = (error) => {
      this.#live.delete(meter);
      meter.collect();
      counters.open.add(-1);
      this.#release(labels, counters);
      const errno = error === null || error.code === "ABORTED" ? "" : error.code;
      this.#registry.count(FAMILIES.tcpCloseTotal, labels.closed(errno));
    };
  }

  #hold(labels: ConnLabels): Counters {
    let counters = this.#counters.get(labels);
    if (counters === undefined) {
      const registry = this.#registry;
      const { open } = labels;
      counters = {
        users: 0,
        opened: registry.counter(FAMILIES.tcpOpenTotal, open),
        open: registry.gauge(FAMILIES.tcpOpenConnections, open),
        read: registry.counter(FAMILIES.tcpReadBytesTotal, open),
        written: registry.counter(FAMILIES.tcpWriteBytesTotal, open),
      };
      this.#counters.set(labels, counters);
    }
    counters.users++;
    return counters;
  }

  #release(labels: ConnLabels, counters: Counters): void {
    if (--counters.users > 0) return;
    this.#counters.delete(labels);
    const { opened, open, read, written } = counters;
    for (const series of [opened, open, read, written]) series.release();
  }

  /** A connection in a workload's own TLS. `serverName` is what its ClientHello asks for. */
  passedTls(direction: "inbound" | "outbound", port: number, serverName: string | null): void {
    this.#registry.count(FAMILIES.passedTls, {
      direction,
      target_port: String(port),
      server_name: this.#serverNames.nameFor(serverName ?? ""),
    });
  }
}

class Meter {
  readonly #conn: MeteredConn;
  readonly #counters: Counters;
  #read = 0;
  #written = 0;

  constructor(conn: MeteredConn, counters: Counters) {
    this.#conn = conn;
    this.#counters = counters;
  }

  collect(): void {
    const { bytesRead, bytesWritten } = this.#conn;
    this.#counters.read.add(bytesRead - this.#read);
    this.#counters.written.add(bytesWritten - this.#written);
    this.#read = bytesRead;
    this.#written = bytesWritten;
  }
}

/** The `tls` labels of a connection: proven by mutual TLS and protected how, or why it is plain. `group` is known to the client's side alone. */
export function tlsLabels(
  peer: PeerIdentity | null,
  side: "client" | "server",
  noTlsReason: string,
  secured: { readonly cipher: string; readonly group: string } | null = null,
): Labels {
  if (peer === null) return { tls: "no_identity", no_tls_reason: noTlsReason };
  const labels: Record<string, string> = {
    tls: "true",
    [side === "client" ? "client_id" : "server_id"]: peer.name,
  };
  if (secured !== null && secured.cipher !== "") labels["tls_cipher"] = secured.cipher;
  if (secured !== null && secured.group !== "") labels["tls_group"] = secured.group;
  return labels;
}
