import type { Random } from "#/base/random.ts";
import type { RouteBackend } from "#/model/route.ts";

/** What is known of a rule's backends at the moment of a draw, by their index. */
export interface SplitState {
  /** It has an endpoint that can be used. */
  isReady(index: number): boolean;
  /** Nothing ever gets there: its share is an error, and nobody else's (facts: HTTPBackendRef of Gateway API). */
  isInvalid(index: number): boolean;
}

/**
 * Which backend takes a request; -1 when none may (no backends, or all have weight 0).
 *
 * `random`: drawn by weight. One that is not ready is left out of this round and another is drawn, as Linkerd does; when none is
 * ready, the first drawn is waited for. `first`: the first that is ready, else the first valid one.
 */
export function drawBackend(
  choice: "first" | "random",
  backends: readonly RouteBackend[],
  state: SplitState,
  random: Random,
): number {
  const count = backends.length;
  if (count === 1) return backends[0]!.weight > 0 ? 0 : -1;
  if (choice === "first") return firstReady(backends, state);
  let total = 0;
  for (let i = 0; i < count; i++) total += backends[i]!.weight;
  if (total === 0) return -1;
  const drawn = at(backends, random.next() * total, null);
  if (state.isInvalid(drawn) || state.isReady(drawn)) return drawn;
  let rest = 0;
  for (let i = 0; i < count; i++) if (isOffered(state, i)) rest += backends[i]!.weight;
  return rest === 0 ? drawn : at(backends, random.next() * rest, state);
}

/** What share of requests each backend gets from `drawBackend`, 0 … 1, as long as the state stays as it is. */
export function sharesOf(
  choice: "first" | "random",
  backends: readonly RouteBackend[],
  state: SplitState,
): number[] {
  const count = backends.length;
  const certain =
    count === 1
      ? backends[0]!.weight > 0
        ? 0
        : -1
      : choice === "first"
        ? firstReady(backends, state)
        : null;
  if (certain !== null) return backends.map((_, i) => (i === certain ? 1 : 0));
  let total = 0;
  let left = 0;
  let offered = 0;
  for (let i = 0; i < count; i++) {
    const { weight } = backends[i]!;
    total += weight;
    if (isOffered(state, i)) offered += weight;
    else if (!state.isInvalid(i)) left += weight;
  }
  return backends.map(({ weight }, i) => {
    if (total === 0) return 0;
    if (isOffered(state, i) && offered > 0) return (weight + (left * weight) / offered) / total;
    return state.isInvalid(i) || offered === 0 ? weight / total : 0;
  });
}

/** The backend at a place of the line that all weights make, one behind the other; with a state, of those ready alone. */
function at(backends: readonly RouteBackend[], place: number, state: SplitState | null): number {
  let last = -1;
  for (let i = 0; i < backends.length; i++) {
    const { weight } = backends[i]!;
    if (weight === 0 || (state !== null && !isOffered(state, i))) continue;
    last = i;
    if (place < weight) return i;
    place -= weight;
  }
  // Sums of weights are whole and exact, so this is only for a place at the very end.
  return last;
}

function firstReady(backends: readonly RouteBackend[], state: SplitState): number {
  let found = -1;
  for (let i = 0; i < backends.length; i++) {
    if (backends[i]!.weight === 0) continue;
    if (isOffered(state, i)) return i;
    if (found === -1 || (state.isInvalid(found) && !state.isInvalid(i))) found = i;
  }
  return found;
}

function isOffered(state: SplitState, index: number): boolean {
  return !state.isInvalid(index) && state.isReady(index);
}
