/** A container that has run this long starts with a clean slate. */
const RESET_AFTER_MS = 10 * 60_000;
const FIRST_MS = 10_000;
const LAST_MS = 5 * 60_000;

/**
 * When a container that ended may start again, as the kubelet has it: at once the first time, then 10 s after its end,
 * doubling to five minutes. JSON-safe state, so that a new agent goes on where the old one was.
 */
export interface BackoffState {
  /** Wait that applies to the next end. 0: none yet. */
  readonly waitMs: number;
}

export const FRESH_BACKOFF: BackoffState = { waitMs: 0 };

/** The wait after a run that lasted `ranMs`, and the state after it. */
export function nextRestart(
  state: BackoffState,
  ranMs: number,
): { readonly waitMs: number; readonly state: BackoffState } {
  const waitMs = ranMs >= RESET_AFTER_MS ? 0 : state.waitMs;
  return { waitMs, state: { waitMs: waitMs === 0 ? FIRST_MS : Math.min(waitMs * 2, LAST_MS) } };
}
