import type { Clock, Timer } from "#/base/clock.ts";
import type { Conn } from "#/base/conn.ts";
import { Lag } from "../patrol.ts";
import type { Guard } from "./guard.ts";
import { READER_BYTES_LEAST, Wait } from "./guard.ts";

/** Longer than a slow reader takes for what the kernel still holds, which nobody can see from here. */
const LINGER_MS = 60_000;

/**
 * Cuts a connection that this side has ended and the remote side does not: it would hold its descriptor for ever. Not while
 * our bytes go on leaving, for the cut destroys what is still on its way to a slow reader: one who is no slower than `guard`
 * asks of any other. To be cancelled at the close.
 */
export function linger(conn: Conn, clock: Clock, guard: Guard | null): Timer {
  const readerMs = guard?.limits.readerMs ?? 0;
  const taking = new Lag();
  let timer: Timer;
  let sentBytes = -1;
  const watch = (): void => {
    const lagMs = taking.look(clock.nowMs(), Wait.READER, conn.sentBytes, READER_BYTES_LEAST);
    if (conn.bufferedBytes > 0 && readerMs > 0) {
      if (lagMs >= readerMs) {
        guard?.reached("slow_reader");
        conn.reset();
        return;
      }
    } else if (conn.sentBytes === sentBytes) {
      conn.reset();
      return;
    }
    sentBytes = conn.sentBytes;
    timer = clock.after(LINGER_MS, watch);
  };
  watch();
  return { cancel: () => timer.cancel() };
}
