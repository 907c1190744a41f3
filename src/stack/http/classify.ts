/** Facts §12: HTTP 5xx fail, and the gRPC codes that blame the server. `grpcStatus` -1: no call, or none came. */
export function isFailedAnswer(status: number, grpcStatus: number): boolean {
  return status >= 500 || GRPC_FAILURES.includes(grpcStatus);
}

/** UNKNOWN, DEADLINE_EXCEEDED, PERMISSION_DENIED, INTERNAL, UNAVAILABLE, DATA_LOSS. */
const GRPC_FAILURES: readonly number[] = [2, 4, 7, 13, 14, 15];
