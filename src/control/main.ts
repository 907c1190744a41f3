import { randomUUID } from "node:crypto";
import { createServer } from "node:net";
import type { Clock } from "#/base/clock.ts";
import type { NodeInfo } from "#/model/node-protocol.ts";
import { SystemClock } from "#/net/clock.ts";
import { JsonLog } from "#/net/log.ts";
import type { Log, LogLevel } from "#/net/log.ts";
import { Authority } from "./identity/authority.ts";
import { Tokens } from "./identity/tokens.ts";
import { Mesh } from "./mesh/mesh.ts";
import { CONTROL_IDENTITY_ACCOUNT, CONTROL_IDENTITY_NAMESPACE } from "./names.ts";
import { NodeLink } from "./node-link.ts";
import { answerQuestion } from "./operator.ts";
import { destinationMethods } from "./rpc/destination.ts";
import { identityMethods } from "./rpc/identity.ts";
import { LiveView } from "./rpc/live-view.ts";
import { policyMethods } from "./rpc/policy.ts";
import { SecureListener } from "./rpc/secure-listener.ts";
import { RpcServer } from "./rpc/server.ts";
import { unavailable } from "./rpc/status.ts";
import { StateFolder } from "./state-folder.ts";

export interface ControlOptions {
  /** Keys and everything else that outlives this process. Made 0700 when missing. */
  readonly stateDir: string;
  /** Where the agent connects. */
  readonly socketPath: string;
  readonly trustDomain: string;
  /** Of Pillion. Another one rolls all meshed pods. */
  readonly version: string;
  readonly logLevel?: LogLevel;
  /** Also serve the three APIs without TLS or certificates, on loopback: for a linkerd2-proxy in a test rig. */
  readonly plaintext?: { readonly host: "127.0.0.1" | "::1"; readonly port: number };
  /** Pods' names follow from it. Default: the trust domain. */
  readonly seed?: string;
  /** For tests; default: the machine's. */
  readonly clock?: Clock;
  readonly log?: Log;
  /** Told when a port is open. */
  readonly onListening?: (what: "secure" | "plaintext", port: number) => void;
  /** Ends the control plane. Default: SIGTERM and SIGINT do. */
  readonly signal?: AbortSignal;
}

/** Runs the control plane until it is told to end. Rejects when it cannot begin. */
export async function runControl(options: ControlOptions): Promise<void> {
  const clock = options.clock ?? new SystemClock();
  const log = options.log ?? new JsonLog(options.logLevel ?? "info", () => clock.wallMs());
  const state = new StateFolder(options.stateDir);
  const authority = await Authority.open(state, options.trustDomain, () => clock.wallMs());
  const tokens = new Tokens(() => clock.nowMs());
  const live = new LiveView();
  const mesh: Mesh = new Mesh(
    {
      clock,
      log,
      state,
      trustAnchorsPem: authority.trustAnchorsPem,
      version: options.version,
      newUid: randomUUID,
      seed: options.seed ?? options.trustDomain,
    },
    { view: (view) => live.publish(view), plan: (pods, services) => link.setPlan(pods, services) },
  );
  const isInUse = (identity: Parameters<Mesh["isInUse"]>[0]): boolean => {
    if (!mesh.isReady)
      throw unavailable("the control plane has not yet heard of the machine's pods; ask again");
    return mesh.isInUse(identity);
  };
  const rpc = new RpcServer({
    clock,
    log,
    methods: new Map([
      ...identityMethods(authority, tokens, isInUse, log),
      ...destinationMethods(live),
      ...policyMethods(live),
    ]),
  });
  const secure = new SecureListener({
    authority,
    identity: {
      trustDomain: options.trustDomain,
      namespace: CONTROL_IDENTITY_NAMESPACE,
      serviceAccount: CONTROL_IDENTITY_ACCOUNT,
    },
    rpc,
    clock,
    log,
  });
  const failed = Promise.withResolvers<never>();
  let served: NodeInfo | null = null;
  const serve = (node: NodeInfo): void => {
    if (served !== null) {
      if (served.gatewayIp !== node.gatewayIp || served.controlPort !== node.controlPort)
        failed.reject(
          new Error(
            `the agent now has the gateway ${node.gatewayIp}:${node.controlPort}, not ${served.gatewayIp}:${served.controlPort}; start the control plane anew`,
          ),
        );
      return;
    }
    served = node;
    secure.listen(node.gatewayIp, node.controlPort).then((port) => {
      log.info("sidecars are served", { host: node.gatewayIp, port });
      options.onListening?.("secure", port);
    }, failed.reject);
  };
  const link = new NodeLink({
    socketPath: options.socketPath,
    mesh,
    log,
    attest: (podUid) => {
      const identity = mesh.identityOf(podUid);
      if (identity === null) return { token: "", error: `no meshed pod has the uid ${podUid}` };
      return { token: tokens.give({ podUid, identity, form: "dns+spiffe" }), error: "" };
    },
    answer: (question) => answerQuestion(question, mesh, authority),
    onNode: serve,
  });
  await link.listen();
  const plaintext =
    options.plaintext === undefined
      ? null
      : createServer((socket) =>
          rpc.serve(socket, {
            caller: null,
            isTrusted: true,
            peer: `${socket.remoteAddress ?? "?"}:${socket.remotePort ?? 0}`,
          }),
        );
  if (plaintext !== null) {
    await new Promise<void>((resolve, reject) => {
      plaintext.once("error", reject);
      plaintext.listen(options.plaintext, resolve);
    });
    options.onListening?.("plaintext", (plaintext.address() as { port: number }).port);
  }
  log.info("the control plane waits for the agent", {
    socket: options.socketPath,
    trustDomain: options.trustDomain,
    version: options.version,
  });
  try {
    await Promise.race([ended(options.signal), failed.promise]);
  } finally {
    link.close();
    secure.close();
    plaintext?.close();
    rpc.close();
    log.info("the control plane ends");
  }
}

async function ended(signal: AbortSignal | undefined): Promise<void> {
  await new Promise<void>((resolve) => {
    if (signal !== undefined) {
      if (signal.aborted) resolve();
      else signal.addEventListener("abort", () => resolve(), { once: true });
      return;
    }
    process.once("SIGTERM", resolve);
    process.once("SIGINT", resolve);
  });
}
