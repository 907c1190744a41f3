import { create, fromBinary, toBinary } from "@bufbuild/protobuf";
import {
  BundlesSchema,
  ConfirmRequestSchema,
  ConfirmResponseSchema,
  WatchRequestSchema,
} from "#/gen/pillion/trust_pb.ts";
import type { Authority, TrustBundle } from "../identity/authority.ts";
import type { Trusting } from "../identity/trusting.ts";
import type { ViewPod } from "../services/mesh-view.ts";
import type { LiveView } from "./live-view.ts";
import { checkIsOwn, parseWorkload } from "./policy.ts";
import type { CallContext, MethodHandler } from "./server.ts";
import { invalidArgument, notFound } from "./status.ts";

/** `dev.pillion.trust.Trust`: sidecars are told whom to trust, and say by what they go. */
export function trustMethods(
  live: LiveView,
  authority: Pick<Authority, "bundle" | "listen">,
  trusting: Trusting,
): Map<string, MethodHandler> {
  let encoded: { readonly of: TrustBundle; readonly bytes: Uint8Array } | null = null;
  const present = (): Uint8Array => {
    const { bundle } = authority;
    if (encoded?.of !== bundle) encoded = { of: bundle, bytes: encode(bundle) };
    return encoded.bytes;
  };
  return new Map<string, MethodHandler>([
    [
      "/dev.pillion.trust.Trust/Watch",
      {
        isOpen: false,
        watch: (bytes, watcher, call) => {
          const { workload } = decode(() => fromBinary(WatchRequestSchema, bytes), "WatchRequest");
          trusting.watches(podOf(live, workload, call).uid);
          let sent = present();
          watcher.send(sent);
          return authority.listen(() => {
            const next = present();
            if (Buffer.compare(next, sent) !== 0) watcher.send(next);
            sent = next;
          });
        },
      },
    ],
    [
      "/dev.pillion.trust.Trust/Confirm",
      {
        isOpen: false,
        unary: async (bytes, call) => {
          const request = decode(() => fromBinary(ConfirmRequestSchema, bytes), "ConfirmRequest");
          const pod = podOf(live, request.workload, call);
          trusting.confirms(
            pod.uid,
            Math.min(Number(request.sequence), authority.bundle.sequence),
            Buffer.from(request.issuer).toString("hex"),
          );
          return await Promise.resolve(toBinary(ConfirmResponseSchema, create(ConfirmResponseSchema, {})));
        },
      },
    ],
  ]);
}

function encode({ sequence, trustDomain, authorities, issuer }: TrustBundle): Uint8Array {
  return toBinary(
    BundlesSchema,
    create(BundlesSchema, {
      sequence: BigInt(sequence),
      bundles: [{ trustDomain, authorities: [...authorities] }],
      issuer: Buffer.from(issuer, "hex"),
    }),
  );
}

/** A workload may speak for its own pods only. */
function podOf(live: LiveView, workload: string, call: CallContext): ViewPod {
  const name = parseWorkload(workload);
  const pod = name === null ? undefined : live.require().podsByName.get(name);
  if (pod === undefined) throw notFound(`no pod is called ${JSON.stringify(workload.slice(0, 300))}`);
  checkIsOwn(pod, call);
  return pod;
}

function decode<T>(read: () => T, what: string): T {
  try {
    return read();
  } catch {
    throw invalidArgument(`the request is no ${what}`);
  }
}
