/** What a peer may send without need, each with a budget of its own. */
export const Flood = {
  PING: 0,
  SETTINGS: 1,
  EMPTY_DATA: 2,
  PRIORITY: 3,
  RESET: 4,
  WINDOW_UPDATE: 5,
  UNKNOWN: 6,
} as const;

/** What each is called where it is reported, by kind. */
export const FLOOD_NAMES = [
  "pings",
  "settings",
  "empty_data",
  "priority",
  "resets",
  "window_updates",
  "unknown_frames",
] as const;
export type FloodName = (typeof FLOOD_NAMES)[number];

const KINDS = FLOOD_NAMES.length;

/**
 * A token bucket for each kind of frame that costs the sender nothing (CVE-2019-9512…9518, CVE-2023-44487). It is
 * refilled by time and by work that was really done, so a busy honest peer never runs dry.
 */
export class FloodBudget {
  readonly #burst: readonly number[];
  readonly #tokens: Float64Array;
  readonly #refillPerSecond: number;
  /** Something was spent that time has not given back yet: only then is there anything to do as it passes. */
  #isSpent = false;

  constructor(burst: readonly number[], refillPerSecond: number) {
    this.#burst = burst;
    this.#tokens = new Float64Array(burst);
    this.#refillPerSecond = refillPerSecond;
  }

  /** False when the budget of `kind` is used up. */
  spend(kind: number): boolean {
    const left = this.#tokens[kind]! - 1;
    this.#tokens[kind] = left;
    this.#isSpent = true;
    return left >= 0;
  }

  /** Gives back `tokens` for useful work. */
  earn(kind: number, tokens: number): void {
    const most = this.#burst[kind]!;
    const sum = this.#tokens[kind]! + tokens;
    this.#tokens[kind] = sum < most ? sum : most;
  }

  refill(elapsedMs: number): void {
    if (!this.#isSpent) return;
    this.#isSpent = false;
    for (let kind = 0; kind < KINDS; kind++) {
      this.earn(kind, (elapsedMs * this.#refillPerSecond) / 1000);
      if (this.#tokens[kind]! < this.#burst[kind]!) this.#isSpent = true;
    }
  }

  /** Whether time should be let pass into `refill`: some budget is half used. */
  get isLow(): boolean {
    if (!this.#isSpent) return false;
    for (let kind = 0; kind < KINDS; kind++) if (this.#tokens[kind]! < this.#burst[kind]! / 2) return true;
    return false;
  }
}
