import { addressKey, parseIpBytes, type SocketAddress } from "#/base/address.ts";
import type { Clock, Timer } from "#/base/clock.ts";
import type { Random } from "#/base/random.ts";
import type { Endpoint } from "#/model/endpoint.ts";
import type { InboundPolicy } from "#/model/policy.ts";
import type { Log } from "#/net/log.ts";
import type { Cancel } from "#/stack/discovery.ts";
import { FAMILIES } from "#/stack/metrics/families.ts";
import type { Registry } from "#/stack/metrics/registry.ts";
import { GrpcStatus } from "#/wire/grpc.ts";
import { ProtoReader, ProtoWriter } from "#/wire/proto.ts";
import type { Channel } from "./channel.ts";
import type {
  ControlApi,
  EndpointsSink,
  OutboundSink,
  Profile,
  QuotaAnswer,
  QuotaReport,
} from "./control-api.ts";
import { decodeAddress, decodeEndpoint, decodeLabel } from "./decode-endpoint.ts";
import { decodeInboundPolicy, UNREADABLE_POLICY } from "./decode-inbound.ts";
import { decodeOutboundPolicy } from "./decode-outbound.ts";
import { decodeQuotaAnswer, encodeQuotaRequest } from "./quota-wire.ts";

export interface ControlClientParts {
  readonly clock: Clock;
  readonly random: Random;
  readonly log: Log;
  readonly registry: Registry;
  readonly destination: Channel;
  readonly policy: Channel;
  /** Echoed in policy requests (`LINKERD2_PROXY_POLICY_WORKLOAD`). */
  readonly workload: string;
  /** Echoed in discovery requests (`LINKERD2_PROXY_DESTINATION_CONTEXT`). */
  readonly contextToken: string;
}

/** A stream that ended is asked for again after this long, with jitter; a refusal after `REFUSED_RETRY_MS`. */
const RETRY_MS = 200;
const REFUSED_RETRY_MS = 10_000;

/** Linkerd's proxy API (facts §10, §11) as `ControlApi`. */
export class ControlClient implements ControlApi {
  readonly #parts: ControlClientParts;

  constructor(parts: ControlClientParts) {
    this.#parts = parts;
  }

  get isConnected(): boolean {
    return this.#parts.destination.isConnected && this.#parts.policy.isConnected;
  }

  watchOutbound(address: SocketAddress, sink: OutboundSink): Cancel {
    const { workload, policy, log } = this.#parts;
    const request = new ProtoWriter().text(1, workload).message(2, encodeAddress(address));
    return this.#watch(policy, "io.linkerd.proxy.outbound.OutboundPolicies/Watch", request, {
      message: (bytes) => {
        const decoded = decodeOutboundPolicy(bytes);
        if (decoded === null)
          log.warn("an outbound policy cannot be followed; what was in force stays", {
            target: addressKey(address),
          });
        else sink.policy(decoded);
      },
      refused: (status, reason) => {
        if (status === GrpcStatus.NOT_FOUND || status === GrpcStatus.UNIMPLEMENTED) sink.unknown();
        else sink.refused(reason);
      },
    });
  }

  watchProfile(address: SocketAddress, profile: (profile: Profile | null) => void): Cancel {
    const { contextToken, destination } = this.#parts;
    const request = new ProtoWriter().text(2, addressKey(address)).text(3, contextToken);
    return this.#watch(destination, "io.linkerd.proxy.destination.Destination/GetProfile", request, {
      message: (bytes) => profile(decodeProfile(bytes)),
      // Whatever the reason: there is no profile, and the policy decides alone (facts §11.2).
      refused: () => profile(null),
      ended: () => profile(null),
    });
  }

  watchEndpoints(path: string, sink: EndpointsSink): Cancel {
    const { contextToken, destination, log } = this.#parts;
    const set = new EndpointSet(sink);
    const request = new ProtoWriter().text(2, path).text(3, contextToken);
    return this.#watch(destination, "io.linkerd.proxy.destination.Destination/Get", request, {
      begun: () => set.begun(),
      message: (bytes) => {
        if (!set.apply(new ProtoReader(bytes))) log.warn("a change of endpoints cannot be read", { path });
      },
      refused: (status, reason) => {
        log.warn("the control plane knows no endpoints", { path, status, reason });
        sink("absent", []);
      },
    });
  }

  watchPort(port: number, policy: (policy: InboundPolicy) => void): Cancel {
    const { workload, policy: channel, log } = this.#parts;
    const request = new ProtoWriter().text(1, workload).uint(2, port);
    let hasHeard = false;
    let last: Buffer | null = null;
    return this.#watch(channel, "io.linkerd.proxy.inbound.InboundServerPolicies/WatchPort", request, {
      message: (bytes) => {
        // A control plane that comes back says all again, and nobody needs to be asked about requests under way for that.
        if (last?.equals(bytes) === true) return;
        last = Buffer.from(bytes);
        const decoded = decodeInboundPolicy(bytes);
        if (decoded !== null) policy(decoded);
        else if (hasHeard)
          log.warn("an inbound policy cannot be followed; what was in force stays", { port });
        else {
          // The default may let in whom this policy would not.
          log.warn(
            "the first inbound policy of a port cannot be followed; until one can, nobody may use it",
            { port },
          );
          policy(UNREADABLE_POLICY);
        }
        hasHeard = true;
      },
      refused: (status, reason) =>
        log.warn("the control plane has no policy for a port; what was in force stays", {
          port,
          status,
          reason,
        }),
    });
  }

  leaseQuota(reports: readonly QuotaReport[], done: (answer: QuotaAnswer | null) => void): Cancel {
    const { workload, policy, registry } = this.#parts;
    const request = encodeQuotaRequest(workload, reports).finish();
    const labels = { path: "/dev.pillion.quota.Quota/Lease" };
    registry.count(FAMILIES.controlRequestTotal, labels);
    let answer: QuotaAnswer | null = null;
    return policy.call(labels.path, request, {
      message: (bytes) => void (answer = decodeQuotaAnswer(bytes, reports)),
      ended: (status) => {
        registry.count(FAMILIES.controlResponseTotal, { ...labels, grpc_status: String(status) });
        done(answer);
      },
    });
  }

  refreshKeys(port: number, issuer: string, done: (jwks: string | null) => void): Cancel {
    const { workload, policy, registry } = this.#parts;
    const request = new ProtoWriter().text(1, workload).uint(2, port).text(3, issuer).finish();
    const labels = { path: "/dev.pillion.keys.Keys/Refresh" };
    registry.count(FAMILIES.controlRequestTotal, labels);
    let jwks: string | null = null;
    return policy.call(labels.path, request, {
      message: (bytes) => {
        const reader = new ProtoReader(bytes);
        let text = "";
        while (reader.next()) if (reader.field === 1) text = reader.text();
        jwks = reader.error === null && text !== "" ? text : null;
      },
      ended: (status) => {
        registry.count(FAMILIES.controlResponseTotal, { ...labels, grpc_status: String(status) });
        done(jwks);
      },
    });
  }

  #watch(channel: Channel, method: string, request: ProtoWriter, handler: WatchHandler): Cancel {
    return new Watch(this.#parts, channel, `/${method}`, request.finish(), handler);
  }
}

export interface WatchHandler {
  /** A new stream begins: its first message replaces what was known. */
  begun?(): void;
  /** One message, borrowed. */
  message(bytes: Uint8Array): void;
  /** The control plane said no, and why. Asked again much later. */
  refused(status: number, reason: string): void;
  /** The stream broke or ended. Asked again soon. */
  ended?(): void;
}

/** What keeping a stream open needs. */
export type WatchParts = Pick<ControlClientParts, "clock" | "random" | "log" | "registry">;

/** Keeps one server stream open for as long as it is wanted. */
export class Watch implements Cancel {
  readonly #parts: WatchParts;
  readonly #channel: Pick<Channel, "call">;
  readonly #path: string;
  readonly #request: Uint8Array;
  readonly #handler: WatchHandler;
  #call: Cancel | null = null;
  #timer: Timer | null = null;
  #isCancelled = false;

  constructor(
    parts: WatchParts,
    channel: Pick<Channel, "call">,
    path: string,
    request: Uint8Array,
    handler: WatchHandler,
  ) {
    this.#parts = parts;
    this.#channel = channel;
    this.#path = path;
    this.#request = request;
    this.#handler = handler;
    this.#begin();
  }

  cancel(): void {
    this.#isCancelled = true;
    this.#timer?.cancel();
    this.#call?.cancel();
  }

  #begin(): void {
    const { registry, log } = this.#parts;
    const labels = { path: this.#path };
    registry.count(FAMILIES.controlRequestTotal, labels);
    this.#handler.begun?.();
    this.#call = this.#channel.call(this.#path, this.#request, {
      message: (bytes) => this.#handler.message(bytes),
      ended: (status, reason) => {
        this.#call = null;
        registry.count(FAMILIES.controlResponseTotal, { ...labels, grpc_status: String(status) });
        if (this.#isCancelled) return;
        const isRefusal = REFUSALS.includes(status);
        log.debug("a stream of the control plane ended", { path: this.#path, status, reason });
        if (isRefusal) this.#handler.refused(status, reason);
        else this.#handler.ended?.();
        if (this.#isCancelled) return;
        const waitMs = (isRefusal ? REFUSED_RETRY_MS : RETRY_MS) * (0.5 + this.#parts.random.next());
        this.#timer = this.#parts.clock.after(waitMs, () => this.#begin());
      },
    });
  }
}

/** Answers that asking again soon will not change (facts §11.2). */
const REFUSALS: readonly number[] = [
  GrpcStatus.NOT_FOUND,
  GrpcStatus.UNIMPLEMENTED,
  GrpcStatus.INVALID_ARGUMENT,
  GrpcStatus.FAILED_PRECONDITION,
];

/** The updates of one `Get` stream, kept as a whole set. The first `add` of a stream replaces everything (facts §11.2). */
class EndpointSet {
  readonly #sink: EndpointsSink;
  readonly #byAddress = new Map<string, Endpoint>();
  #isFresh = true;

  constructor(sink: EndpointsSink) {
    this.#sink = sink;
  }

  begun(): void {
    this.#isFresh = true;
  }

  /** False when the message cannot be read. */
  apply(update: ProtoReader): boolean {
    while (update.next()) {
      if (update.field === 1) {
        this.#add(update.message());
        this.#tell("known");
      } else if (update.field === 2 && !this.#isFresh) {
        const set = update.message();
        while (set.next()) {
          const address = set.field === 1 ? decodeAddress(set.message()) : null;
          if (address !== null) this.#byAddress.delete(addressKey(address));
        }
        this.#tell("known");
      } else if (update.field === 3) {
        let exists = false;
        const none = update.message();
        while (none.next()) if (none.field === 1) exists = none.flag();
        this.#isFresh = false;
        this.#byAddress.clear();
        this.#tell(exists ? "known" : "absent");
      }
    }
    return update.error === null;
  }

  #add(set: ProtoReader): void {
    const old = new Map(this.#byAddress);
    if (this.#isFresh) this.#byAddress.clear();
    this.#isFresh = false;
    const messages: ProtoReader[] = [];
    const labels: Record<string, string> = {};
    while (set.next()) {
      if (set.field === 1) messages.push(set.message());
      else if (set.field === 2) decodeLabel(set.message(), labels);
    }
    for (const message of messages) {
      const endpoint = decodeEndpoint(message, labels);
      if (endpoint === null) continue;
      const key = addressKey(endpoint.address);
      const known = old.get(key);
      // Equal endpoints keep their object: whoever holds connections to one compares by it.
      this.#byAddress.set(
        key,
        known !== undefined && JSON.stringify(known) === JSON.stringify(endpoint) ? known : endpoint,
      );
    }
  }

  #tell(state: "known" | "absent"): void {
    this.#sink(state, [...this.#byAddress.values()]);
  }
}

/** `destination.DestinationProfile`. */
function decodeProfile(bytes: Uint8Array): Profile | null {
  const reader = new ProtoReader(bytes);
  let name = "";
  let isOpaque = false;
  let endpoint: Endpoint | null = null;
  while (reader.next()) {
    if (reader.field === 4) isOpaque = reader.flag();
    else if (reader.field === 5) name = reader.text();
    else if (reader.field === 6) endpoint = decodeEndpoint(reader.message(), {});
  }
  return reader.error === null ? { name, isOpaque, endpoint } : null;
}

/** `net.TcpAddress`. */
function encodeAddress({ ip, port }: SocketAddress): ProtoWriter {
  const bytes = parseIpBytes(ip) ?? new Uint8Array(4);
  const view = new DataView(bytes.buffer, bytes.byteOffset);
  const address =
    bytes.length === 4
      ? new ProtoWriter().fixed32(1, view.getUint32(0))
      : new ProtoWriter().message(
          2,
          new ProtoWriter().fixed64(1, view.getBigUint64(0)).fixed64(2, view.getBigUint64(8)),
        );
  return new ProtoWriter().message(1, address).uint(2, port);
}
