import {
  create,
  fromBinary,
  toBinary,
  type DescMessage,
  type DescMethod,
  type MessageInitShape,
  type MessageShape,
} from "@bufbuild/protobuf";
import { addressKey, parseIpBytes, type SocketAddress } from "#/base/address.ts";
import { describeError } from "#/base/errors.ts";
import type { Clock, Timer } from "#/base/clock.ts";
import type { Random } from "#/base/random.ts";
import { Destination, type DestinationProfile, type Update } from "#/gen/linkerd/destination_pb.ts";
import { InboundServerPolicies } from "#/gen/linkerd/inbound_pb.ts";
import { TcpAddressSchema } from "#/gen/linkerd/net_pb.ts";
import { OutboundPolicies } from "#/gen/linkerd/outbound_pb.ts";
import type { Endpoint } from "#/model/endpoint.ts";
import type { InboundPolicy } from "#/model/policy.ts";
import type { Log } from "#/net/log.ts";
import type { Cancel } from "#/stack/discovery.ts";
import { FAMILIES } from "#/stack/metrics/families.ts";
import type { Registry } from "#/stack/metrics/registry.ts";
import { GrpcStatus } from "#/wire/grpc.ts";
import type { Channel } from "./channel.ts";
import type { ControlApi, EndpointsSink, OutboundSink, Profile } from "./control-api.ts";
import { decodeAddress, decodeEndpoint } from "./decode-endpoint.ts";
import { decodeInboundPolicy } from "./decode-inbound.ts";
import { decodeOutboundPolicy } from "./decode-outbound.ts";

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
    const { workload: sourceWorkload, policy } = this.#parts;
    const target = { case: "addr" as const, value: create(TcpAddressSchema, encodeAddress(address)) };
    return this.#watch(
      policy,
      OutboundPolicies.method.watch,
      { sourceWorkload, target },
      {
        message: (message) => {
          const decoded = decodeOutboundPolicy(message);
          if (decoded === null)
            this.#parts.log.warn("an outbound policy cannot be followed; what was in force stays", {
              target: addressKey(address),
            });
          else sink.policy(decoded);
        },
        refused: (status, reason) => {
          if (status === GrpcStatus.NOT_FOUND || status === GrpcStatus.UNIMPLEMENTED) sink.unknown();
          else sink.refused(reason);
        },
      },
    );
  }

  watchProfile(address: SocketAddress, profile: (profile: Profile | null) => void): Cancel {
    const { contextToken, destination } = this.#parts;
    return this.#watch(
      destination,
      Destination.method.getProfile,
      { path: addressKey(address), contextToken },
      {
        message: (message) => profile(decodeProfile(message)),
        // Whatever the reason: there is no profile, and the policy decides alone (facts §11.2).
        refused: () => profile(null),
        ended: () => profile(null),
      },
    );
  }

  watchEndpoints(path: string, sink: EndpointsSink): Cancel {
    const { contextToken, destination } = this.#parts;
    const set = new EndpointSet(sink);
    return this.#watch(
      destination,
      Destination.method.get,
      { path, contextToken },
      {
        begun: () => set.begun(),
        message: (message) => set.apply(message),
        refused: (status, reason) => {
          this.#parts.log.warn("the control plane knows no endpoints", { path, status, reason });
          sink("absent", []);
        },
      },
    );
  }

  watchPort(port: number, policy: (policy: InboundPolicy) => void): Cancel {
    const { workload, policy: channel } = this.#parts;
    return this.#watch(
      channel,
      InboundServerPolicies.method.watchPort,
      { workload, port },
      {
        message: (message) => {
          const decoded = decodeInboundPolicy(message);
          if (decoded === null)
            this.#parts.log.warn("an inbound policy cannot be followed; what was in force stays", { port });
          else policy(decoded);
        },
        refused: (status, reason) =>
          this.#parts.log.warn("the control plane has no policy for a port; what was in force stays", {
            port,
            status,
            reason,
          }),
      },
    );
  }

  #watch<I extends DescMessage, O extends DescMessage>(
    channel: Channel,
    method: DescMethod & { readonly input: I; readonly output: O },
    request: MessageInitShape<I>,
    handler: WatchHandler<MessageShape<O>>,
  ): Cancel {
    return new Watch(
      this.#parts,
      channel,
      `/${method.parent.typeName}/${method.name}`,
      toBinary(method.input, create(method.input, request)),
      method.output,
      handler,
    );
  }
}

interface WatchHandler<O> {
  /** A new stream begins: its first message replaces what was known. */
  begun?(): void;
  message(message: O): void;
  /** The control plane said no, and why. Asked again much later. */
  refused(status: number, reason: string): void;
  /** The stream broke or ended. Asked again soon. */
  ended?(): void;
}

/** Keeps one server stream open for as long as it is wanted. */
class Watch<O extends DescMessage> implements Cancel {
  readonly #parts: ControlClientParts;
  readonly #channel: Channel;
  readonly #path: string;
  readonly #request: Uint8Array;
  readonly #output: O;
  readonly #handler: WatchHandler<MessageShape<O>>;
  #call: Cancel | null = null;
  #timer: Timer | null = null;
  #isCancelled = false;

  constructor(
    parts: ControlClientParts,
    channel: Channel,
    path: string,
    request: Uint8Array,
    output: O,
    handler: WatchHandler<MessageShape<O>>,
  ) {
    this.#parts = parts;
    this.#channel = channel;
    this.#path = path;
    this.#request = request;
    this.#output = output;
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
      message: (bytes) => {
        let message: MessageShape<O>;
        try {
          message = fromBinary(this.#output, bytes);
        } catch (error) {
          log.warn("a message of the control plane cannot be decoded", {
            path: this.#path,
            reason: describeError(error),
          });
          return;
        }
        this.#handler.message(message);
      },
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

  apply({ update }: Update): void {
    switch (update.case) {
      case "add":
        this.#add(update.value);
        this.#tell("known");
        break;
      case "remove":
        if (this.#isFresh) break;
        for (const message of update.value.addrs) {
          const address = decodeAddress(message);
          if (address !== null) this.#byAddress.delete(addressKey(address));
        }
        this.#tell("known");
        break;
      case "noEndpoints":
        this.#isFresh = false;
        this.#byAddress.clear();
        this.#tell(update.value.exists ? "known" : "absent");
        break;
      default:
    }
  }

  #add(set: Extract<Update["update"], { case: "add" }>["value"]): void {
    const old = new Map(this.#byAddress);
    if (this.#isFresh) this.#byAddress.clear();
    this.#isFresh = false;
    for (const message of set.addrs) {
      const endpoint = decodeEndpoint(message, set.metricLabels);
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

function decodeProfile(message: DestinationProfile): Profile {
  return {
    name: message.fullyQualifiedName,
    isOpaque: message.opaqueProtocol,
    endpoint: message.endpoint === undefined ? null : decodeEndpoint(message.endpoint, {}),
  };
}

function encodeAddress({ ip, port }: SocketAddress): MessageInitShape<typeof TcpAddressSchema> {
  const bytes = parseIpBytes(ip) ?? new Uint8Array(4);
  const view = new DataView(bytes.buffer, bytes.byteOffset);
  if (bytes.length === 4) return { ip: { ip: { case: "ipv4", value: view.getUint32(0) } }, port };
  return {
    ip: { ip: { case: "ipv6", value: { first: view.getBigUint64(0), last: view.getBigUint64(8) } } },
    port,
  };
}
