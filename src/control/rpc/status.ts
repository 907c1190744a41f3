import { GrpcStatus } from "#/wire/grpc.ts";

/** An RPC that is answered with an error. `reason` is for whoever reads the other side's log. */
export class RpcError extends Error {
  override readonly name = "RpcError";
  readonly status: GrpcStatus;
  constructor(status: GrpcStatus, reason: string) {
    super(reason);
    this.status = status;
  }
}

export const invalidArgument = (reason: string): RpcError =>
  new RpcError(GrpcStatus.INVALID_ARGUMENT, reason);
export const notFound = (reason: string): RpcError => new RpcError(GrpcStatus.NOT_FOUND, reason);
export const permissionDenied = (reason: string): RpcError =>
  new RpcError(GrpcStatus.PERMISSION_DENIED, reason);
export const unavailable = (reason: string): RpcError => new RpcError(GrpcStatus.UNAVAILABLE, reason);
export const unauthenticated = (reason: string): RpcError => new RpcError(GrpcStatus.UNAUTHENTICATED, reason);
