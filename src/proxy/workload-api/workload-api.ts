import type { Clock } from "#/base/clock.ts";
import type { Conn } from "#/base/conn.ts";
import { describeError } from "#/base/errors.ts";
import { fieldValue } from "#/base/fields.ts";
import type { Identity } from "#/model/identity.ts";
import { spiffeUri } from "#/model/identity.ts";
import type { Log } from "#/net/log.ts";
import type { UnixAccepted } from "#/net/unix.ts";
import type { Cancel } from "#/stack/discovery.ts";
import type { RequestHead } from "#/stack/http/exchange.ts";
import { Guard } from "#/stack/http/guard.ts";
import { Http2Server } from "#/stack/http/http2-server.ts";
import type { Answerer } from "#/stack/http/mesh-answer.ts";
import { FAMILIES } from "#/stack/metrics/families.ts";
import type { Registry } from "#/stack/metrics/registry.ts";
import { LIMITS } from "#/model/limits.ts";
import { GrpcStatus } from "#/wire/grpc.ts";
import { Connections } from "../connections.ts";
import { GrpcService, type GrpcMethod, type GrpcReply } from "./grpc-service.ts";
import type { JwtClient } from "./jwt-client.ts";
import {
  decodeJwtSvidRequest,
  decodeValidateRequest,
  encodeJwtBundles,
  encodeJwtSvid,
  encodeValidated,
  encodeX509Bundles,
  encodeX509Svid,
  type X509Bundles,
} from "./messages.ts";
import type { SvidKeeper } from "./svid-keeper.ts";
import { CallError } from "./unary-call.ts";

/** The roots of each trust domain, as they change. */
export interface BundleSource {
  now(): X509Bundles;
  watch(changed: () => void): Cancel;
}

export interface WorkloadApiParts {
  readonly clock: Clock;
  readonly log: Log;
  readonly registry: Registry;
  readonly identity: Identity;
  readonly answerer: Answerer;
  /** Of the pod's containers: nobody else is served. */
  readonly uids: ReadonlySet<number>;
  readonly keeper: Pick<SvidKeeper, "watch">;
  readonly jwt: Pick<JwtClient, "sign" | "watch" | "known">;
  readonly bundles: BundleSource;
}

/** Containers of one pod; a program needs one connection. Beyond it a further one is reset, and half of them are for one user. */
export const CONNECTIONS_MAX = { all: 128, perClient: 64 };
/** Of one connection: a program has a few watches open. More are refused by HTTP/2 itself. */
export const STREAMS_MAX = 100;
/** One without a call is closed after this; a watch keeps its connection. */
const IDLE_MS = 3_600_000;

const SERVICE = "/SpiffeWorkloadAPI/";

/**
 * The SPIFFE Workload API for the programs of one pod: gRPC over HTTP/2 on a Unix socket that lies in this pod's containers alone.
 * Who calls is attested by the kernel (SO_PEERCRED): a user of the pod's containers, or nobody.
 */
export class WorkloadApi {
  readonly #parts: WorkloadApiParts;
  readonly #connections = new Connections(CONNECTIONS_MAX);
  readonly #guard: Guard;
  readonly #methods: ReadonlyMap<string, GrpcMethod>;

  constructor(parts: WorkloadApiParts) {
    this.#parts = parts;
    const limits = { ...LIMITS, streamsMax: STREAMS_MAX, idleMs: IDLE_MS };
    this.#guard = new Guard(limits, "workload-api", parts.clock, parts.registry);
    this.#methods = new Map<string, GrpcMethod>(
      Object.entries({
        FetchX509SVID: (_request, reply) => this.#fetchX509Svid(reply),
        FetchX509Bundles: (_request, reply) => this.#fetchX509Bundles(reply),
        FetchJWTSVID: (request, reply) => this.#fetchJwtSvid(request, reply),
        FetchJWTBundles: (_request, reply) => this.#fetchJwtBundles(reply),
        ValidateJWTSVID: (request, reply) => this.#validateJwtSvid(request, reply),
      } satisfies Record<string, GrpcMethod>).map(([name, method]) => [SERVICE + name, method]),
    );
    const connections = parts.registry.gauge(FAMILIES.workloadApiConnections, {});
    parts.registry.beforeReading(() => connections.set(this.#connections.count));
  }

  readonly accept = ({ conn, peerUid }: UnixAccepted): void => {
    const client = `uid ${peerUid ?? "unknown"}`;
    const limit = this.#connections.limitFor(client);
    if (limit !== null) {
      this.#guard.reached(limit);
      conn.reset();
      return;
    }
    this.#serve(conn, client, this.#refusalOf(peerUid));
  };

  #serve(conn: Conn, client: string, refusal: string | null): void {
    const { answerer, clock, log, registry } = this.#parts;
    const connection = this.#connections.add(client, () => conn.reset());
    if (refusal !== null) log.warn("a program is refused the Workload API", { client, reason: refusal });
    const service = new GrpcService({
      methods: this.#methods,
      precheck: (head) => precheck(head, refusal),
      ended: (path, status) =>
        registry.count(FAMILIES.workloadApiCalls, {
          method: this.#methods.has(path) ? path.slice(SERVICE.length) : "unknown",
          grpc_status: String(status),
        }),
    });
    const server = new Http2Server(conn, service, clock, () => connection.remove(), {
      meshed: false,
      clientId: null,
      answerer,
      guard: this.#guard,
      machine: { connectProtocol: false },
    });
    connection.serve(server, true);
  }

  #refusalOf(peerUid: number | null): string | null {
    if (peerUid !== null && this.#parts.uids.has(peerUid)) return null;
    const uids = [...this.#parts.uids].toSorted((a, b) => a - b).join(", ");
    return `user ${peerUid ?? "unknown"} is none that a container of this pod runs as (${uids}); set runAsUser to the user that asks`;
  }

  #fetchX509Svid(reply: GrpcReply): () => void {
    const { bundles, identity, keeper } = this.#parts;
    let svid: Parameters<typeof encodeX509Svid>[0] | null = null;
    const tell = (): void => {
      if (svid !== null) reply.state(encodeX509Svid(svid, identity.trustDomain, bundles.now()));
    };
    const watches = [
      bundles.watch(tell),
      keeper.watch({
        svid: (next) => {
          svid = next;
          tell();
        },
        failed: (error) => reply.refuse(error.status, error.message),
      }),
    ];
    return () => watches.forEach((watch) => watch.cancel());
  }

  #fetchX509Bundles(reply: GrpcReply): () => void {
    const { bundles } = this.#parts;
    const tell = (): void => reply.state(encodeX509Bundles(bundles.now()));
    tell();
    const watch = bundles.watch(tell);
    return () => watch.cancel();
  }

  #fetchJwtSvid(bytes: Uint8Array, reply: GrpcReply): () => void {
    const { identity, jwt } = this.#parts;
    const own = spiffeUri(identity);
    const request = decodeJwtSvidRequest(bytes);
    if (request === null) reply.refuse(GrpcStatus.INVALID_ARGUMENT, "the request is no JWTSVIDRequest");
    else if (request.audience.length === 0 || request.audience.includes(""))
      reply.refuse(GrpcStatus.INVALID_ARGUMENT, "audience is missing: say for whom the token is");
    else if (request.spiffeId !== "" && request.spiffeId !== own)
      reply.refuse(
        GrpcStatus.PERMISSION_DENIED,
        `this workload is ${own}, and gets no token of ${JSON.stringify(request.spiffeId.slice(0, 300))}`,
      );
    else this.#answer(reply, async () => encodeJwtSvid(own, await jwt.sign(request.audience)));
    return () => undefined;
  }

  #fetchJwtBundles(reply: GrpcReply): () => void {
    const watch = this.#parts.jwt.watch((keySets) => reply.state(encodeJwtBundles(keySets)));
    return () => watch.cancel();
  }

  #validateJwtSvid(bytes: Uint8Array, reply: GrpcReply): () => void {
    const { clock, jwt } = this.#parts;
    const request = decodeValidateRequest(bytes);
    if (request === null)
      reply.refuse(GrpcStatus.INVALID_ARGUMENT, "the request is no ValidateJWTSVIDRequest");
    else if (request.audience === "" || request.token === "")
      reply.refuse(GrpcStatus.INVALID_ARGUMENT, "both audience and svid are needed");
    else
      this.#answer(reply, async () => {
        // Few programs ask for this, and the library that verifies takes memory.
        const { verifyJwtSvid } = await import("#/net/jwt-svid.ts");
        const verdict = await verifyJwtSvid(
          request.token,
          request.audience,
          await jwt.known(),
          clock.wallMs(),
        );
        if (verdict.kind === "refused") throw new CallError(GrpcStatus.INVALID_ARGUMENT, verdict.reason);
        return encodeValidated(verdict.spiffeId, verdict.claims);
      });
    return () => undefined;
  }

  /** The answer when it comes; a client that has gone meanwhile is told nothing. */
  #answer(reply: GrpcReply, make: () => Promise<Uint8Array>): void {
    make().then(
      (message) => reply.answer(message),
      (error: unknown) => {
        if (error instanceof CallError) return reply.refuse(error.status, error.message);
        this.#parts.log.error("a call of the Workload API failed", { error: describeError(error) });
        reply.refuse(GrpcStatus.INTERNAL, "the sidecar failed to answer; its log says why");
      },
    );
  }
}

/** Workload Endpoint §3: the header shows that the caller is no proxy or browser which was made to pass on somebody's request. */
function precheck(
  head: RequestHead,
  refusal: string | null,
): { readonly status: GrpcStatus; readonly reason: string } | null {
  if (fieldValue(head.fields, "workload.spiffe.io") !== "true")
    return {
      status: GrpcStatus.INVALID_ARGUMENT,
      reason: "the metadata workload.spiffe.io: true is missing; every call of the Workload API needs it",
    };
  return refusal === null ? null : { status: GrpcStatus.PERMISSION_DENIED, reason: refusal };
}
