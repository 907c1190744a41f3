import { addressKey, type SocketAddress } from "#/base/address.ts";
import type { Conn } from "#/base/conn.ts";
import type { ConnError } from "#/base/errors.ts";
import type { Transport } from "#/net/transport.ts";
import type { Cancel } from "#/stack/discovery.ts";
import { ConnLabels, tlsLabels, type TransportMetrics } from "#/stack/metrics/transport.ts";

export interface ApplicationParts {
  readonly transport: Transport;
  readonly metrics: TransportMetrics;
  readonly connectTimeoutMs: number;
}

/** Opens a connection to the application beside us: plaintext, at the address that its client dialled (facts §6). */
export function dialApplication(
  { transport, metrics, connectTimeoutMs: timeoutMs }: ApplicationParts,
  target: SocketAddress,
  done: (error: ConnError | null, conn: Conn | null) => void,
): Cancel {
  return transport.connect(target, { timeoutMs, keepAliveMs: 0 }, (error, conn) => {
    if (conn !== null)
      metrics.opened(
        conn,
        new ConnLabels({
          direction: "inbound",
          peer: "dst",
          target_addr: addressKey(target),
          ...tlsLabels(null, "server", "loopback"),
        }),
      );
    done(error, conn);
  });
}
