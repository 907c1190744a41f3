import { randomUUID } from "node:crypto";
import { readFileSync } from "node:fs";
import { createServer } from "node:net";
import type { Server } from "node:net";
import { join } from "node:path";
import type { Clock } from "#/base/clock.ts";
import type { Identity } from "#/model/identity.ts";
import type { NodeInfo } from "#/model/node-protocol.ts";
import { SystemClock } from "#/net/clock.ts";
import { httpGet } from "#/net/http-get.ts";
import { JsonLog } from "#/net/log.ts";
import type { Log, LogLevel } from "#/net/log.ts";
import { Authority } from "./identity/authority.ts";
import { IdentityDesk } from "./identity/identity-desk.ts";
import { IssuerFeed } from "./identity/issuer-feed.ts";
import { IssuerFolder } from "./identity/issuer-folder.ts";
import { JwtAuthority } from "./identity/jwt-authority.ts";
import { Revocations } from "./identity/revocations.ts";
import { Rotator } from "./identity/rotator.ts";
import { Tokens } from "./identity/tokens.ts";
import { Trusting } from "./identity/trusting.ts";
import { keptKeySets, KeySets } from "./jwt/key-sets.ts";
import { OutsideNames, systemResolve } from "./external/outside-names.ts";
import { Mesh } from "./mesh/mesh.ts";
import { CONTROL_IDENTITY_ACCOUNT, CONTROL_IDENTITY_NAMESPACE } from "./names.ts";
import { NodeLink } from "./node-link.ts";
import type { NodeParts } from "./node-link.ts";
import { answerQuestion } from "./operator.ts";
import { destinationMethods } from "./rpc/destination.ts";
import { identityMethods } from "./rpc/identity.ts";
import { LiveView } from "./rpc/live-view.ts";
import { StandardLosses } from "./answers/standard-losses.ts";
import { policyMethods } from "./rpc/policy.ts";
import { inboundLimitsFor } from "./policy/policy.ts";
import { keysMethods } from "./rpc/keys.ts";
import { quotaMethods } from "./rpc/quota.ts";
import { SecureListener } from "./rpc/secure-listener.ts";
import { RpcServer } from "./rpc/server.ts";
import { trustMethods } from "./rpc/trust.ts";
import { unavailable } from "./rpc/status.ts";
import { svidMethods } from "./rpc/svid.ts";
import { StateFolder } from "./state-folder.ts";

export interface ControlOptions {
  /** Keys and everything else that outlives this process. Made 0700 when missing. */
  readonly stateDir: string;
  /** Where root and issuer of an authority outside lie, as the operator names it and as we see it; absent: we make our own. */
  readonly issuerFolder?: { readonly name: string; readonly dir: string };
  /** Where the agent connects. */
  readonly socketPath: string;
  /** Of Pillion; default: of this source tree. Another one rolls all meshed pods. */
  readonly version?: string;
  readonly logLevel?: LogLevel;
  /** Also serve the three APIs without TLS or certificates, on loopback: for a linkerd2-proxy in a test rig. */
  readonly plaintext?: { readonly host: "127.0.0.1" | "::1"; readonly port: number };
}

/** What tests put in the place of the machine. */
export interface ControlSurroundings {
  readonly clock?: Clock;
  readonly log?: Log;
  /** Told when a port is open. */
  readonly onListening?: (what: "secure" | "plaintext", port: number) => void;
  /** Ends the control plane. Default: SIGTERM and SIGINT do. */
  readonly signal?: AbortSignal;
}

/** Runs the control plane until it is told to end. Rejects when it cannot begin. */
export async function runControl(
  options: ControlOptions,
  surroundings: ControlSurroundings = {},
): Promise<void> {
  const clock = surroundings.clock ?? new SystemClock();
  const log = surroundings.log ?? new JsonLog(options.logLevel ?? "info", () => clock.wallMs());
  const control = new Control(options, surroundings, clock, log);
  try {
    await control.listen();
    log.info("the control plane waits for the agent", {
      socket: options.socketPath,
    });
    await Promise.race([ended(surroundings.signal), control.failed]);
  } finally {
    control.close();
    log.info("the control plane ends");
  }
}

/** The parts of a control plane. Most are made when the agent has said for which machine and trust domain. */
class Control {
  readonly #options: ControlOptions;
  readonly #surroundings: ControlSurroundings;
  readonly #clock: Clock;
  readonly #log: Log;
  readonly #state: StateFolder;
  readonly #link: NodeLink;
  readonly #failure = Promise.withResolvers<never>();
  #begun: { readonly node: NodeInfo; readonly parts: Promise<NodeParts> } | null = null;
  readonly #closers: (() => void)[] = [];

  constructor(options: ControlOptions, surroundings: ControlSurroundings, clock: Clock, log: Log) {
    this.#options = options;
    this.#surroundings = surroundings;
    this.#clock = clock;
    this.#log = log;
    this.#state = new StateFolder(options.stateDir);
    this.#link = new NodeLink({
      socketPath: options.socketPath,
      log,
      begin: async (node) => await this.#begin(node),
    });
    this.#closers.push(() => this.#link.close());
  }

  /** Rejects when the control plane cannot go on. */
  get failed(): Promise<never> {
    return this.#failure.promise;
  }

  async listen(): Promise<void> {
    await this.#link.listen();
  }

  close(): void {
    for (const close of this.#closers.splice(0)) close();
  }

  #begin(node: NodeInfo): Promise<NodeParts> {
    if (this.#begun === null) {
      this.#begun = { node, parts: this.#make(node) };
      this.#begun.parts.catch(this.#failure.reject);
      return this.#begun.parts;
    }
    const before = this.#begun.node;
    if (
      before.gatewayIp !== node.gatewayIp ||
      before.controlPort !== node.controlPort ||
      before.trustDomain !== node.trustDomain
    ) {
      // The agent starts another control plane, which then begins with what the agent says.
      this.#failure.reject(
        new Error(
          `the machine is now ${node.gatewayIp}:${node.controlPort} in ${node.trustDomain}, not ${before.gatewayIp}:${before.controlPort} in ${before.trustDomain}`,
        ),
      );
    }
    return this.#begun.parts;
  }

  async #make(node: NodeInfo): Promise<NodeParts> {
    const clock = this.#clock;
    const log = this.#log;
    const { issuerFolder } = this.#options;
    const outside =
      issuerFolder === undefined
        ? null
        : new IssuerFolder(issuerFolder.name, issuerFolder.dir, node.trustDomain, clock);
    const authority = await Authority.open(this.#state, node.trustDomain, () => clock.wallMs(), outside);
    const feed = outside === null ? null : new IssuerFeed(outside, authority, log);
    if (feed !== null) this.#closers.push(() => feed.close());
    const trusting = new Trusting(this.#state);
    const jwtAuthority = await JwtAuthority.open(this.#state, node.trustDomain, clock, log);
    this.#closers.push(() => jwtAuthority.close());
    const revocations = new Revocations(this.#state);
    const rotator = new Rotator({ clock, log, authority, trusting });
    this.#closers.push(() => rotator.close());
    const desk = new IdentityDesk({ clock, log, authority, rotator, revocations, feed });
    this.#closers.push(() => desk.close());
    const tokens = new Tokens(() => clock.nowMs());
    const live = new LiveView();
    const losses = new StandardLosses();
    const outsideNames = new OutsideNames({
      clock,
      log,
      resolve: systemResolve(),
      changed: () => mesh.takeOutsideNames(),
    });
    this.#closers.push(() => outsideNames.close());
    const keySets = new KeySets({
      clock,
      log,
      get: httpGet,
      changed: () => mesh.takeKeySets(),
      kept: keptKeySets(this.#state),
    });
    this.#closers.push(() => keySets.close());
    this.#closers.push(() => mesh.close());
    const mesh: Mesh = new Mesh(
      {
        clock,
        log,
        state: this.#state,
        trustAnchorsPem: () => authority.trustAnchorsPem,
        version: this.#options.version ?? ownVersion(),
        newUid: randomUUID,
        seed: node.instance,
        revoked: () => revocations.all,
        outsideNames,
        keySets,
      },
      {
        view: (view) => live.publish(view),
        plan: (pods, services) => this.#link.setPlan(pods, services),
        pods: (statuses, isPlanned) => trusting.observe(statuses, isPlanned),
      },
    );
    const isInUse = (identity: Parameters<Mesh["isInUse"]>[0]): boolean => {
      if (!mesh.isReady)
        throw unavailable("the control plane has not yet heard of the machine's pods; ask again");
      return mesh.isInUse(identity);
    };
    const isRevoked = (identity: Identity): boolean => revocations.has(identity);
    const rpc = new RpcServer({
      clock,
      log,
      methods: new Map([
        ...identityMethods(authority, tokens, isInUse, log, isRevoked),
        ...destinationMethods(live),
        ...policyMethods(live, losses),
        ...trustMethods(live, authority, trusting),
        ...keysMethods(live, keySets),
        ...quotaMethods(live, clock, inboundLimitsFor),
        ...svidMethods(jwtAuthority, isInUse, log, isRevoked),
      ]),
    });
    const secure = new SecureListener({
      authority,
      identity: {
        trustDomain: node.trustDomain,
        namespace: CONTROL_IDENTITY_NAMESPACE,
        serviceAccount: CONTROL_IDENTITY_ACCOUNT,
      },
      rpc,
      clock,
      log,
    });
    const port = await secure.listen(node.gatewayIp, node.controlPort);
    this.#closers.push(() => secure.close());
    log.info("sidecars are served", { host: node.gatewayIp, port, trustDomain: node.trustDomain });
    this.#surroundings.onListening?.("secure", port);
    await this.#listenPlaintext(rpc);
    this.#closers.push(() => rpc.close());
    return {
      mesh,
      attest: (podUid) => {
        const identity = mesh.identityOf(podUid);
        if (identity === null)
          return { token: "", trustAnchorsPem: "", error: `no meshed pod has the uid ${podUid}` };
        const { sequence, issuer } = authority.bundle;
        trusting.starts(podUid, sequence, issuer);
        const token = tokens.give({ podUid, identity, form: "dns+spiffe" });
        return { token, trustAnchorsPem: authority.trustAnchorsPem, error: "" };
      },
      answer: (question) => answerQuestion(question, mesh, desk, losses),
    };
  }

  async #listenPlaintext(rpc: RpcServer): Promise<void> {
    const { plaintext } = this.#options;
    if (plaintext === undefined) return;
    const server: Server = createServer((socket) =>
      rpc.serve(socket, {
        caller: null,
        isTrusted: true,
        peer: `${socket.remoteAddress ?? "?"}:${socket.remotePort ?? 0}`,
      }),
    );
    await new Promise<void>((resolve, reject) => {
      server.once("error", reject);
      server.listen(plaintext, resolve);
    });
    this.#closers.push(() => server.close());
    this.#surroundings.onListening?.("plaintext", (server.address() as { port: number }).port);
  }
}

function ownVersion(): string {
  const manifest = JSON.parse(readFileSync(join(import.meta.dirname, "../../package.json"), "utf8")) as {
    version: string;
  };
  return manifest.version;
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
