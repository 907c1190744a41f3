/**
 * Stops on a bug of ours. Stays on in production: a proxy that is wrong must end the connection loudly, not go on.
 *
 * Never use it for what a peer sent or for what the world did; those are `ProtocolError` and `MeshError`.
 */
export function assert(condition: unknown, message: string): asserts condition {
  if (!condition) throw new AssertionError(message);
}

/** A broken invariant in Pillion itself. */
export class AssertionError extends Error {
  override readonly name = "AssertionError";
}
