import { create, fromBinary, toBinary } from "@bufbuild/protobuf";
import { timestampFromMs } from "@bufbuild/protobuf/wkt";
import type { CertifyRequest } from "#/gen/linkerd/identity_pb.ts";
import { CertifyRequestSchema, CertifyResponseSchema } from "#/gen/linkerd/identity_pb.ts";
import type { Identity } from "#/model/identity.ts";
import type { Log } from "#/net/log.ts";
import { GrpcStatus } from "#/wire/grpc.ts";
import type { Authority } from "../identity/authority.ts";
import { certify } from "../identity/certify.ts";
import type { Tokens } from "../identity/tokens.ts";
import type { MethodHandler } from "./server.ts";
import { invalidArgument, RpcError } from "./status.ts";

const STATUS = {
  "invalid-argument": GrpcStatus.INVALID_ARGUMENT,
  unauthenticated: GrpcStatus.UNAUTHENTICATED,
  "permission-denied": GrpcStatus.PERMISSION_DENIED,
  "failed-precondition": GrpcStatus.FAILED_PRECONDITION,
} as const;

/** `io.linkerd.proxy.identity.Identity`: the one method that needs no certificate, because it gives the first. */
export function identityMethods(
  authority: Authority,
  tokens: Tokens,
  inUse: (identity: Identity) => boolean,
  log: Log,
  isRevoked: (identity: Identity) => boolean = () => false,
): Map<string, MethodHandler> {
  return new Map([
    [
      "/io.linkerd.proxy.identity.Identity/Certify",
      {
        isOpen: true,
        unary: async (bytes: Uint8Array, call) => {
          const request = decode(bytes);
          const answer = await certify(authority, tokens, {
            identity: request.identity,
            token: request.token,
            csr: request.certificateSigningRequest,
            caller: call.caller,
            // The listener without TLS is for a linkerd2-proxy, which knows the DNS form only.
            ...(call.isTrusted ? { form: "dns" as const } : {}),
            inUse,
            isRevoked,
          });
          if (answer.kind === "refused") {
            log.warn("a certificate was refused", {
              identity: request.identity.slice(0, 300),
              peer: call.peer,
              reason: answer.reason,
            });
            throw new RpcError(STATUS[answer.code], answer.reason);
          }
          log.info(answer.podUid === null ? "a certificate was renewed" : "a certificate was issued", {
            identity: request.identity,
            peer: call.peer,
            podUid: answer.podUid,
            notAfter: new Date(answer.leaf.notAfterMs).toISOString(),
          });
          return toBinary(
            CertifyResponseSchema,
            create(CertifyResponseSchema, {
              leafCertificate: answer.leaf.der,
              intermediateCertificates: [...answer.leaf.intermediates],
              validUntil: timestampFromMs(answer.leaf.notAfterMs),
            }),
          );
        },
      } satisfies MethodHandler,
    ],
  ]);
}

function decode(bytes: Uint8Array): CertifyRequest {
  try {
    return fromBinary(CertifyRequestSchema, bytes);
  } catch {
    throw invalidArgument("the request is no CertifyRequest");
  }
}
