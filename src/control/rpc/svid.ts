import { create, fromBinary, toBinary } from "@bufbuild/protobuf";
import type { SignJwtRequest } from "#/gen/pillion/svid_pb.ts";
import { JwtBundlesSchema, SignJwtRequestSchema, SignJwtResponseSchema } from "#/gen/pillion/svid_pb.ts";
import type { Identity } from "#/model/identity.ts";
import { spiffeUri } from "#/model/identity.ts";
import type { Log } from "#/net/log.ts";
import type { JwtAuthority } from "../identity/jwt-authority.ts";
import type { CallContext, MethodHandler } from "./server.ts";
import { invalidArgument, permissionDenied, unauthenticated } from "./status.ts";

/** A token names few; each goes into every request that carries it. */
export const AUDIENCES_MAX = 16;
export const AUDIENCE_CHARS_MAX = 1024;

/** `dev.pillion.svid.Svid`: tokens of a workload's own identity, and the keys that prove them. */
export function svidMethods(
  authority: JwtAuthority,
  inUse: (identity: Identity) => boolean,
  log: Log,
  isRevoked: (identity: Identity) => boolean = () => false,
): Map<string, MethodHandler> {
  return new Map<string, MethodHandler>([
    [
      "/dev.pillion.svid.Svid/SignJwt",
      {
        isOpen: false,
        unary: async (bytes, call) => {
          const identity = callerOf(call);
          const { audience } = decode(bytes);
          if (audience.length === 0 || audience.some((each) => each === ""))
            throw invalidArgument(
              "a token needs an audience, and none of its names may be empty (JWT-SVID §3.2)",
            );
          if (audience.length > AUDIENCES_MAX || audience.some((each) => each.length > AUDIENCE_CHARS_MAX))
            throw invalidArgument(
              `a token is for ${AUDIENCES_MAX} at most, each of up to ${AUDIENCE_CHARS_MAX} characters`,
            );
          if (identity.trustDomain !== authority.trustDomain)
            throw permissionDenied(`tokens are signed for ${authority.trustDomain} alone`);
          if (isRevoked(identity)) throw permissionDenied(`${spiffeUri(identity)} was revoked`);
          if (!inUse(identity)) throw permissionDenied("no pod runs as this identity any more");
          const { token, expiresAtMs } = await authority.sign(identity, audience);
          log.info("a token was signed", {
            identity: spiffeUri(identity),
            audience: audience.map((each) => each.slice(0, 100)),
            peer: call.peer,
          });
          return toBinary(
            SignJwtResponseSchema,
            create(SignJwtResponseSchema, { token, expiresAt: BigInt(Math.floor(expiresAtMs / 1000)) }),
          );
        },
      },
    ],
    [
      "/dev.pillion.svid.Svid/WatchJwtBundles",
      {
        isOpen: false,
        watch: (_request, watcher) => {
          const send = (): void =>
            watcher.send(
              toBinary(
                JwtBundlesSchema,
                create(JwtBundlesSchema, {
                  bundles: [{ trustDomain: authority.trustDomain, keySet: authority.keySet }],
                }),
              ),
            );
          send();
          return authority.watch(send);
        },
      },
    ],
  ]);
}

/** Also the listener that asks for no certificates gives no tokens: it does not know whose they would be. */
function callerOf(call: CallContext): Identity {
  if (call.caller === null)
    throw unauthenticated("a token is signed for whom a certificate of this mesh proves");
  return call.caller.identity;
}

function decode(bytes: Uint8Array): SignJwtRequest {
  try {
    return fromBinary(SignJwtRequestSchema, bytes);
  } catch {
    throw invalidArgument("the request is no SignJwtRequest");
  }
}
