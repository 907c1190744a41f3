/**
 * What is put off within a turn of this thread's event loop, and when it is done: in the turn's end, after all sockets that were ready have been
 * read, so that what they brought for one connection leaves in one write. Where one socket at a time has something to say there is
 * nothing to join, and the turn's end costs more than it is worth: two calls into JavaScript, and, since Node tells in the end of a turn
 * that a TLS write is done, a further turn. Then what only sends is done right behind the input that caused it.
 */

/**
 * What a task puts off in turn is still done in the same turn, so often: a turn more costs two system calls and would part
 * a connection's machine from its socket. The rest waits for the next turn, so that no task can keep the loop from its sockets.
 */
export const SOON_ROUNDS_MAX = 4;
/** After so many turns of one input each the next is expected to have no more. */
const LONE_TURNS_MIN = 3;
/** A longer one is often a part of more. */
const LONE_BYTES_MAX = 4_096;

export class Turn {
  /** The first `#count` are to be done. Never shortened: that is a call into V8's runtime, and what comes next has to make the room again. */
  #tasks: (() => void)[] = [];
  #count = 0;
  /** The list of the round before. */
  #spare: (() => void)[] = [];
  #isScheduled = false;
  #isInInput = false;
  /** Of this turn, so far as anybody can tell where it began. */
  #inputs = 0;
  #loneTurns = 0;
  /** A TLS write that was done behind an input is under way, which ends with the turn. */
  #isHeld = false;

  /** `onlySends`: may be done at once behind the present input. */
  soon(task: () => void, onlySends: boolean): void {
    this.#tasks[this.#count++] = task;
    if (!this.#isScheduled && !(onlySends && this.#isInInput)) this.#schedule();
  }

  /** A socket hands over what it has read. `inputEnds` follows, whatever happens. */
  inputBegins(): void {
    this.#isInInput = true;
  }

  inputEnds(bytes: number): void {
    if (this.#count === 0) {
      this.#isInInput = false;
      return;
    }
    this.#inputs++;
    const isLone = this.#inputs === 1 && this.#loneTurns >= LONE_TURNS_MIN && bytes <= LONE_BYTES_MAX;
    try {
      if (isLone && !this.#isScheduled) {
        // What sends may put off more than that, which waits for the end as all of its kind.
        for (let round = 0; round < SOON_ROUNDS_MAX && this.#count > 0 && !this.#isScheduled; round++)
          this.#doRound();
        if (!this.#isHeld) this.#inputs = 0;
      }
    } finally {
      this.#isInInput = false;
      if (this.#count > 0 && !this.#isScheduled) this.#schedule();
    }
  }

  /** A TLS write begins. */
  writeBegins(): void {
    if (this.#isInInput) this.#isHeld = true;
  }

  /** … and is done: where `#isHeld`, the turn ends. */
  writeEnds(): void {
    if (!this.#isHeld) return;
    this.#isHeld = false;
    if (!this.#isScheduled) this.#inputs = 0;
  }

  #schedule(): void {
    this.#isScheduled = true;
    setImmediate(this.#end);
  }

  readonly #end = (): void => {
    if (this.#inputs > 1) this.#loneTurns = 0;
    else if (this.#inputs === 1) this.#loneTurns++;
    this.#inputs = 0;
    this.#isHeld = false;
    try {
      for (let round = 0; round < SOON_ROUNDS_MAX && this.#count > 0; round++) this.#doRound();
    } finally {
      this.#isScheduled = this.#count > 0;
      if (this.#isScheduled) setImmediate(this.#end);
    }
  };

  #doRound(): void {
    const tasks = this.#tasks;
    const count = this.#count;
    this.#tasks = this.#spare;
    this.#spare = tasks;
    this.#count = 0;
    for (let i = 0; i < count; i++) {
      const task = tasks[i] as () => void;
      tasks[i] = NOTHING;
      task();
    }
  }
}

/** Stands where a task was, which may not be kept alive by that. */
const NOTHING = (): void => {};

export const turn: Turn = new Turn();
