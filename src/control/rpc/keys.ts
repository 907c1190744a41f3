import { create, fromBinary, toBinary } from "@bufbuild/protobuf";
import type { RefreshRequest } from "#/gen/pillion/keys_pb.ts";
import { RefreshRequestSchema, RefreshResponseSchema } from "#/gen/pillion/keys_pb.ts";
import type { KeySets } from "../jwt/key-sets.ts";
import { keySetUrlFor } from "../policy/access/jwt.ts";
import type { LiveView } from "./live-view.ts";
import { checkIsOwn, parseWorkload } from "./policy.ts";
import type { CallContext, MethodHandler } from "./server.ts";
import { invalidArgument, notFound } from "./status.ts";

/** `dev.pillion.keys.Keys`: a workload's own issuers only, so that nobody makes us ask elsewhere. */
export function keysMethods(live: LiveView, keySets: Pick<KeySets, "refresh">): Map<string, MethodHandler> {
  return new Map([
    [
      "/dev.pillion.keys.Keys/Refresh",
      {
        isOpen: false,
        unary: async (bytes: Uint8Array, call: CallContext) => {
          const { workload, port, issuer } = decode(bytes);
          const view = live.require();
          const name = parseWorkload(workload);
          const pod = name === null ? undefined : view.podsByName.get(name);
          if (pod === undefined) throw notFound(`no pod is called ${JSON.stringify(workload.slice(0, 300))}`);
          checkIsOwn(pod, call);
          const url = keySetUrlFor(view, pod, port, issuer);
          const jwks = url === null ? null : await keySets.refresh(url);
          if (jwks === null) throw notFound("the port's policy has no such issuer whose keys are fetched");
          return toBinary(RefreshResponseSchema, create(RefreshResponseSchema, { jwks }));
        },
      } satisfies MethodHandler,
    ],
  ]);
}

function decode(request: Uint8Array): RefreshRequest {
  try {
    return fromBinary(RefreshRequestSchema, request);
  } catch {
    throw invalidArgument("the request is no RefreshRequest");
  }
}
