import type { Clock, Timer } from "#/base/clock.ts";
import type { Conn } from "#/base/conn.ts";

/** Longer than a slow reader takes for what the kernel still holds, which nobody can see from here. */
const LINGER_MS = 60_000;

/**
 * Cuts a connection that this side has ended and the remote side does not: it would hold its descriptor for ever. Not while
 * our bytes go on leaving, for the cut destroys what is still on its way to a slow reader. To be cancelled at the close.
 */
export function linger(conn: Conn, clock: Clock): Timer {
  let timer: Timer;
  let sentBytes = conn.sentBytes;
  const watch = (): void => {
    if (conn.sentBytes === sentBytes) {
      conn.reset();
      return;
    }
    sentBytes = conn.sentBytes;
    timer = clock.after(LINGER_MS, watch);
  };
  timer = clock.after(LINGER_MS, watch);
  return { cancel: () => timer.cancel() };
}
