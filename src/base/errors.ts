/** Who has to act for an error to go away. */
export type Blame = "us" | "peer" | "operator" | "network";

/**
 * The world failed: refused, timed out, expired, misconfigured. `code` is a closed union in each subclass and has an
 * entry in `docs/reference/errors.md`; the message ends with what an operator should check.
 */
export abstract class MeshError extends Error {
  abstract readonly code: string;
  abstract readonly blame: Blame;
}

/** A peer broke a protocol's rules. A value inside a machine (`machine.error`), never thrown on the byte path. */
export class ProtocolError extends MeshError {
  override readonly name = "ProtocolError";
  readonly blame = "peer";
  readonly code: string;
  constructor(code: string, message: string) {
    super(message);
    this.code = code;
  }
}

/** Why a byte stream ended or could not begin. */
export type ConnErrorCode =
  | "CONNECT_REFUSED" // the target answered with RST
  | "CONNECT_TIMEOUT" // nobody answered in time
  | "CONNECT_FAILED" // unreachable, no local address, …
  | "RESET" // RST from the remote side, or an unclean end where a clean one is marked
  | "IDLE_TIMEOUT"
  | "TLS_FAILED" // handshake or record failure
  | "IDENTITY_REFUSED" // peer's certificate is not who we dialled or nobody we trust
  | "ABORTED"; // ended by us on purpose

/** A connection could not be made, or ended other than by a clean close. */
export class ConnError extends MeshError {
  override readonly name = "ConnError";
  readonly code: ConnErrorCode;
  readonly blame: Blame;
  constructor(code: ConnErrorCode, message: string, options?: { cause?: unknown; blame?: Blame }) {
    super(message, options);
    this.code = code;
    this.blame =
      options?.blame ?? (code === "ABORTED" ? "us" : code.startsWith("CONNECT") ? "network" : "peer");
  }
}

/** First error of `type` along the cause chain, or null. */
export function causeOf<E extends Error>(
  error: unknown,
  type: abstract new (...args: never[]) => E,
): E | null {
  for (let e = error; e instanceof Error; e = e.cause) if (e instanceof type) return e;
  return null;
}

/** The whole cause chain in one line, outermost first: what logs print. */
export function describeError(error: unknown): string {
  const parts: string[] = [];
  for (let e = error; e !== undefined && e !== null; e = e instanceof Error ? e.cause : undefined) {
    // Whatever else was thrown is not ours to format.
    // oxlint-disable-next-line typescript/no-base-to-string
    parts.push(e instanceof Error ? e.message : String(e));
    if (parts.length === 8) break;
  }
  return parts.join(": ");
}
