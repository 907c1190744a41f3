import { X509Certificate } from "node:crypto";
import type { Clock } from "#/base/clock.ts";
import type { Random } from "#/base/random.ts";
import { peerCredentials } from "#/kernel/libc.ts";
import type { Identity } from "#/model/identity.ts";
import type { Log } from "#/net/log.ts";
import { splitPem, type TrustAnchors } from "#/net/tls.ts";
import { listenUnix } from "#/net/unix.ts";
import type { Registry } from "#/stack/metrics/registry.ts";
import type { Channel } from "../control/channel.ts";
import { CERTIFY_PATH } from "../identity/identity-client.ts";
import { JwtClient } from "./jwt-client.ts";
import type { X509Bundles } from "./messages.ts";
import { SvidKeeper } from "./svid-keeper.ts";
import { unaryCall } from "./unary-call.ts";
import { CONNECTIONS_MAX, WorkloadApi } from "./workload-api.ts";

export interface WorkloadApiSettings {
  readonly socketPath: string;
  /** Users of the pod's containers. */
  readonly uids: readonly number[];
}

export interface ServeParts {
  readonly settings: WorkloadApiSettings;
  readonly clock: Clock;
  readonly random: Random;
  readonly log: Log;
  readonly registry: Registry;
  readonly identity: Identity;
  /** "pod.namespace". */
  readonly workload: string;
  /** The roots that peers are verified against now, PEM by trust domain. */
  anchors(): TrustAnchors;
  /** The workload has another certificate. */
  leafChanged(): void;
  /** A connection of its own to the identity service, with the certificate in force. */
  identityChannel(): Pick<Channel, "call" | "close">;
  /** To the control plane. */
  readonly control: Pick<Channel, "call">;
}

const CERTIFY_TIMEOUT_MS = 20_000;
/** Whoever sees the socket may connect: it lies in the pod's containers alone, and users are told apart by the kernel's word. */
const SOCKET_MODE = 0o666;

/** What a change of whom to trust concerns. */
export interface ServedWorkload {
  /** As `SvidKeeper.issuer`. */
  readonly issuer: string;
  renewWithin(ms: number): void;
  /** `anchors` gives others. */
  anchorsChanged(): void;
}

/** Serves the Workload API on its socket, for as long as the sidecar runs. Rejects when the socket cannot be had. */
export async function serveWorkloadApi(parts: ServeParts): Promise<ServedWorkload> {
  const { clock, control, identity, log, random, registry, settings } = parts;
  const keeper = new SvidKeeper({
    clock,
    random,
    log,
    registry,
    identity,
    anchorsPem: () => parts.anchors().get(identity.trustDomain) ?? "",
    leafChanged: () => parts.leafChanged(),
    certify: async (request) => {
      const channel = parts.identityChannel();
      try {
        return await unaryCall(clock, channel, CERTIFY_PATH, request, CERTIFY_TIMEOUT_MS);
      } finally {
        channel.close();
      }
    },
  });
  const watchers = new Set<() => void>();
  const api = new WorkloadApi({
    clock,
    log,
    registry,
    identity,
    answerer: { side: "client", workload: parts.workload },
    uids: new Set(settings.uids),
    keeper,
    jwt: new JwtClient({ clock, random, log, registry, channel: control }),
    bundles: {
      now: () => dersOf(parts.anchors()),
      watch: (changed) => {
        watchers.add(changed);
        return { cancel: () => watchers.delete(changed) };
      },
    },
  });
  await listenUnix(
    clock,
    settings.socketPath,
    { connectionsMax: 2 * CONNECTIONS_MAX.all, mode: SOCKET_MODE, peer: peerCredentials },
    api.accept,
  );
  log.info("the Workload API is served", { socket: settings.socketPath, uids: settings.uids });
  return {
    get issuer() {
      return keeper.issuer;
    },
    renewWithin: (ms) => keeper.renewWithin(ms),
    anchorsChanged: () => {
      for (const changed of watchers) changed();
    },
  };
}

function dersOf(anchors: TrustAnchors): X509Bundles {
  return new Map(
    [...anchors].map(([domain, pem]) => [domain, splitPem(pem).map((one) => new X509Certificate(one).raw)]),
  );
}
