import type { SocketAddress } from "#/base/address.ts";
import type { AccessDecision } from "#/model/access.ts";
import type { PeerIdentity } from "#/model/identity.ts";
import type { RequestHead } from "../http/exchange.ts";

/** Wants to know of everything that is decided. Called while requests wait, so it must be quick; what it is given it may keep, and not change. */
export interface AccessObserver {
  /**
   * Once for each request and each opaque connection, and again where a change of policy ends one. `port`: of the pod, as its program
   * listens. `peer`: proven; null for a plaintext client. `head`: as it was judged; null for an opaque connection. Equal outcomes of one
   * client under one policy share one decision.
   */
  decided(
    decision: AccessDecision,
    port: number,
    client: SocketAddress,
    peer: PeerIdentity | null,
    head: RequestHead | null,
  ): void;
}
