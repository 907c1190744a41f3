import type { MessageInitShape } from "@bufbuild/protobuf";
import type { JwtPolicySchema } from "#/gen/pillion/access_pb.ts";
import type { JwtPolicy } from "#/model/access.ts";
import { wireRequests } from "./encode-access.ts";
import { millis, wireSource } from "./wire.ts";

/** Whose tokens a port takes, with the keys as they stand. */
export function wireJwt({ source, issuers, required }: JwtPolicy): MessageInitShape<typeof JwtPolicySchema> {
  return {
    metadata: wireSource(source),
    issuers: issuers.map(({ issuer, audiences, jwks, leewayMs, headers, forwards, claimHeaders }) => ({
      issuer,
      audiences: [...audiences],
      jwks,
      leeway: millis(leewayMs),
      headers: [...headers],
      forwards,
      claimHeaders: claimHeaders.map(({ claim, header }) => ({ claim, header })),
    })),
    ...(required === null ? {} : { required: wireRequests(required) }),
  };
}
