/** A timer that was set. Cancelling one that fired or was cancelled does nothing. */
export interface Timer {
  cancel(): void;
}

/**
 * Time, handed in so that a whole mesh also runs on virtual time. Monotonic; `nowMs()` has no relation to the calendar.
 */
export interface Clock {
  /** Monotonic milliseconds, fractional. */
  nowMs(): number;
  /** Wall-clock milliseconds since 1970, for certificates, logs and dates in messages only. */
  wallMs(): number;
  /** Calls `fire` once, not before `afterMs` from now; never synchronously. */
  after(afterMs: number, fire: () => void): Timer;
  /**
   * Runs `task` once, after the current input has been handled: where writes of one turn are joined. `onlySends`: it does no more than send what
   * is there, and need not wait for other inputs of the turn.
   */
  soon(task: () => void, onlySends?: boolean): void;
}
