import type { SocketAddress } from "#/base/address.ts";
import type { Conn } from "#/base/conn.ts";

/** A documentation address (RFC 5737) that nobody has: only interception can make something answer there. */
const OUTBOUND_PROBE_IP = "192.0.2.1";
const PROBE_PORT = 20001;
const ANSWER = new TextEncoder().encode("pillion-intercept ok\n");

/** The agent dials this from the application's cgroup to see that connections are steered to the sidecar. */
export function isOutboundProbe({ ip, port }: SocketAddress): boolean {
  return port === PROBE_PORT && ip === OUTBOUND_PROBE_IP;
}

/** … and this from outside, to the pod's own address. */
export function isInboundProbe({ port }: SocketAddress): boolean {
  return port === PROBE_PORT;
}

/** Says so in one line and ends the connection. */
export function answerProbe(conn: Conn): void {
  conn.setHandler({
    onData: () => undefined,
    onEnd: () => conn.end(),
    onDrain: () => undefined,
    onClose: () => undefined,
  });
  conn.write(ANSWER);
  conn.end();
}
