import { once } from "node:events";
import { createServer, type AddressInfo } from "node:net";
import { Authority, type SanForm } from "#/control/identity/authority.ts";
import { Tokens } from "#/control/identity/tokens.ts";
import { destinationMethods } from "#/control/rpc/destination.ts";
import { identityMethods } from "#/control/rpc/identity.ts";
import { LiveView } from "#/control/rpc/live-view.ts";
import { policyMethods } from "#/control/rpc/policy.ts";
import { RpcServer } from "#/control/rpc/server.ts";
import type { MeshView } from "#/control/services/mesh-view.ts";
import { StateFolder } from "#/control/state-folder.ts";
import type { Identity } from "#/model/identity.ts";
import { SystemClock } from "#/net/clock.ts";
import { JsonLog } from "#/net/log.ts";

export interface SmallControl {
  readonly authority: Authority;
  /** On loopback. */
  readonly port: number;
  /** A single-use token by which a sidecar fetches its first certificate. */
  readonly tokenFor: (name: string, identity: Identity, form: SanForm) => string;
}

/**
 * Pillion's own answers, certificates and gRPC server, in plaintext, over a mesh that is written down instead of read from a folder and an agent.
 * Whoever names the same folder shares the certificate authority in it.
 */
export async function startSmallControl(folder: string, view: MeshView): Promise<SmallControl> {
  const clock = new SystemClock();
  const log = new JsonLog("warn", () => clock.wallMs());
  const authority = await Authority.open(new StateFolder(folder), view.node.trustDomain, () => Date.now());
  const tokens = new Tokens(() => Date.now());
  const live = new LiveView();
  live.publish(view);
  const methods = new Map([
    ...identityMethods(authority, tokens, () => true, log),
    ...destinationMethods(live),
    ...policyMethods(live),
  ]);
  const rpc = new RpcServer({ methods, clock, log });
  const server = createServer((socket) =>
    rpc.serve(socket, { caller: null, isTrusted: true, peer: socket.remoteAddress ?? "" }),
  );
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  return {
    authority,
    port: (server.address() as AddressInfo).port,
    tokenFor: (name, identity, form) => tokens.give({ podUid: name, identity, form }),
  };
}
