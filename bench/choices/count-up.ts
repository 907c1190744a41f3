let last = 0;

/** Work of the processor's alone: a thousand steps take 1 to 2 µs. */
export function countUp(steps: number): void {
  let sum = last;
  for (let i = 0; i < steps; i++) sum = Math.imul(sum ^ i, 31);
  // Kept, so that the counting is not optimised away.
  last = sum;
}
