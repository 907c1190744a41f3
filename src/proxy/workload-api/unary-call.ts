import type { Clock } from "#/base/clock.ts";
import { MeshError, type Blame } from "#/base/errors.ts";
import { GrpcStatus } from "#/wire/grpc.ts";
import type { Channel } from "../control/channel.ts";

/** A call to the control plane that came to nothing, in terms that its caller can be told. */
export class CallError extends MeshError {
  override readonly name = "CallError";
  readonly code = "WORKLOAD_API_UNAVAILABLE";
  readonly blame: Blame = "operator";
  readonly status: GrpcStatus;
  constructor(status: GrpcStatus, message: string) {
    super(message);
    this.status = status;
  }
}

/** What the control plane says of the request itself is passed on; all else means that it cannot be had now. */
const PASSED_ON: readonly number[] = [GrpcStatus.INVALID_ARGUMENT, GrpcStatus.PERMISSION_DENIED];

/** One request, one answer, within a time. Rejects with `CallError`. */
export function unaryCall(
  clock: Clock,
  channel: Pick<Channel, "call">,
  path: string,
  request: Uint8Array,
  timeoutMs: number,
): Promise<Uint8Array> {
  return new Promise((resolve, reject) => {
    let answer: Uint8Array | null = null;
    const call = channel.call(path, request, {
      message: (bytes) => void (answer = Uint8Array.from(bytes)),
      ended: (status, message) => {
        timer.cancel();
        if (status === GrpcStatus.OK && answer !== null) return resolve(answer);
        const isPassedOn = PASSED_ON.includes(status);
        reject(
          new CallError(
            isPassedOn ? (status as GrpcStatus) : GrpcStatus.UNAVAILABLE,
            isPassedOn
              ? message
              : `the control plane did not answer (status ${status}: ${message}); try again`,
          ),
        );
      },
    });
    const timer = clock.after(timeoutMs, () => {
      call.cancel();
      reject(
        new CallError(
          GrpcStatus.UNAVAILABLE,
          `the control plane did not answer within ${timeoutMs} ms; check that it runs and is reachable`,
        ),
      );
    });
  });
}
