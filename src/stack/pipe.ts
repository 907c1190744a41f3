import type { Conn, ConnHandler } from "#/base/conn.ts";
import type { ConnError } from "#/base/errors.ts";

/**
 * Joins two byte streams until both are over. Ends stay ends and resets stay resets: FIN on one side becomes FIN on the
 * other while the second half goes on, and a broken side makes the other end in RST. Back-pressure goes through: a side
 * whose writes wait is not read for.
 *
 * `done` is called once, when both are closed. `error` is the first side's that broke, null after two clean ends. `spoke` is called at
 * the first byte of either side.
 */
export function pipe(
  a: Conn,
  b: Conn,
  done: (error: ConnError | null, side: "a" | "b") => void,
  spoke: (() => void) | null = null,
): void {
  const state: PipeState = { open: 2, error: null, side: "a", done, spoke };
  a.setHandler(new Half(a, b, "a", state));
  b.setHandler(new Half(b, a, "b", state));
  // Detection hands its connections over paused.
  a.resume();
  b.resume();
}

interface PipeState {
  open: number;
  error: ConnError | null;
  side: "a" | "b";
  readonly done: (error: ConnError | null, side: "a" | "b") => void;
  /** Null once it was called. */
  spoke: (() => void) | null;
}

class Half implements ConnHandler {
  readonly borrows = true;
  readonly #own: Conn;
  readonly #other: Conn;
  readonly #side: "a" | "b";
  readonly #state: PipeState;

  constructor(own: Conn, other: Conn, side: "a" | "b", state: PipeState) {
    this.#own = own;
    this.#other = other;
    this.#side = side;
    this.#state = state;
  }

  onData(bytes: Uint8Array): void {
    const { spoke } = this.#state;
    if (spoke !== null) {
      this.#state.spoke = null;
      spoke();
    }
    if (!this.#other.writeLent(bytes)) this.#own.pause();
  }

  onEnd(): void {
    this.#other.end();
  }

  onDrain(): void {
    this.#other.resume();
  }

  onClose(error: ConnError | null): void {
    const state = this.#state;
    if (error !== null && state.error === null) {
      state.error = error;
      state.side = this.#side;
      this.#other.reset();
    }
    if (--state.open === 0) state.done(state.error, state.side);
  }
}
