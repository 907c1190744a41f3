import { fromBinary, toBinary } from "@bufbuild/protobuf";
import { parseIp } from "#/base/address.ts";
import { PortSpecSchema, ServerSchema } from "#/gen/linkerd/inbound_pb.ts";
import type { TrafficSpec } from "#/gen/linkerd/outbound_pb.ts";
import { TrafficSpecSchema } from "#/gen/linkerd/outbound_pb.ts";
import type { Capabilities } from "#/model/capabilities.ts";
import { capabilitiesIn } from "#/model/capabilities.ts";
import { dnsName, sameIdentity } from "#/model/identity.ts";
import { encodedPolicyOf } from "../answers/encoded-policy.ts";
import { isOpaquePort } from "../answers/endpoints.ts";
import { inboundServerOf } from "../answers/inbound-policy.ts";
import { StandardLosses } from "../answers/standard-losses.ts";
import type { Target } from "../answers/target.ts";
import { meaningOfName, parseAuthority, targetOfAddress, targetOfService } from "../answers/target.ts";
import { addressOf } from "../answers/wire.ts";
import { inboundJwtFor } from "../policy/access/jwt.ts";
import type { PolicyClient } from "../policy/policy.ts";
import type { MeshView, ViewPod } from "../services/mesh-view.ts";
import type { LiveView } from "./live-view.ts";
import { sameBytes, SharedAnswers } from "./live-view.ts";
import type { Question } from "./live-view.ts";
import type { CallContext, MethodHandler } from "./server.ts";
import { invalidArgument, notFound, permissionDenied } from "./status.ts";

/** `InboundServerPolicies` and `OutboundPolicies`: each question once or watched. Notes what proxies of another kind lose. */
export function policyMethods(
  live: LiveView,
  losses: StandardLosses = new StandardLosses(),
): Map<string, MethodHandler> {
  const pair = (
    once: string,
    watched: string,
    parse: (request: Uint8Array, call: CallContext, losses: StandardLosses) => Question<Uint8Array>,
  ): [string, MethodHandler][] => {
    const shared = new SharedAnswers<Uint8Array>(sameBytes);
    return [
      [
        once,
        {
          isOpen: false,
          unary: async (request, call) => {
            return await Promise.resolve(shared.get(parse(request, call, losses), live.require()));
          },
        },
      ],
      [
        watched,
        {
          isOpen: false,
          watch: (request, watcher, call) =>
            shared.watch(live, parse(request, call, losses), watcher, (bytes) => watcher.send(bytes)),
        },
      ],
    ];
  };
  return new Map([
    ...pair(
      "/io.linkerd.proxy.inbound.InboundServerPolicies/GetPort",
      "/io.linkerd.proxy.inbound.InboundServerPolicies/WatchPort",
      inboundQuestion,
    ),
    ...pair(
      "/io.linkerd.proxy.outbound.OutboundPolicies/Get",
      "/io.linkerd.proxy.outbound.OutboundPolicies/Watch",
      outboundQuestion,
    ),
  ]);
}

function inboundQuestion(
  request: Uint8Array,
  call: CallContext,
  losses: StandardLosses,
): Question<Uint8Array> {
  const { workload, port } = decode(() => fromBinary(PortSpecSchema, request), "PortSpec");
  const pod = parseWorkload(workload);
  if (pod === null)
    throw invalidArgument(
      `${JSON.stringify(workload.slice(0, 300))} names no workload; it is {"ns":"…","pod":"…"} or ns:pod`,
    );
  if (port < 1 || port > 65535) throw invalidArgument(`${port} is no port`);
  const capabilities = capabilitiesIn(workload);
  return {
    key: `${keyOf(capabilities)} ${keyOfCaller(call)} ${pod} ${port}`,
    compute: (view) => {
      const found = view.podsByName.get(pod);
      if (found === undefined) throw notFound(`no pod is called ${pod}`);
      checkIsOwn(found, call);
      return toBinary(ServerSchema, inboundServerOf(view, found, port, capabilities, losses));
    },
    basis: capabilities.isExtended ? (view) => basisOf(view, view.podsByName.get(pod), port) : null,
  };
}

/**
 * What the answer to a sidecar of ours follows from: most changes of a mesh are none of these, and it is not encoded again. A pod's
 * template is its own for as long as it lives.
 */
function basisOf(view: MeshView, pod: ViewPod | undefined, port: number): readonly unknown[] {
  if (pod === undefined) return [];
  const { policy, revoked } = view;
  return [
    policy,
    revoked,
    inboundJwtFor(view, pod, port),
    pod.uid,
    pod.ip,
    isOpaquePort(pod, port),
    pod.protocols.get(port),
  ];
}

function outboundQuestion(
  request: Uint8Array,
  call: CallContext,
  losses: StandardLosses,
): Question<Uint8Array> {
  const { target, sourceWorkload } = decode(() => fromBinary(TrafficSpecSchema, request), "TrafficSpec");
  const asked = askedTarget(target);
  const pod = parseWorkload(sourceWorkload);
  if (pod === null && sourceWorkload !== "")
    throw invalidArgument(
      `${JSON.stringify(sourceWorkload.slice(0, 300))} names no workload; it is {"ns":"…","pod":"…"} or ns:pod`,
    );
  const capabilities = capabilitiesIn(sourceWorkload);
  return {
    key: `${keyOf(capabilities)} ${keyOfCaller(call)} ${pod ?? ""} ${asked.key}`,
    compute: (view) =>
      encodedPolicyOf(view, asked.find(view), clientOf(view, pod, call), capabilities, losses),
    basis: capabilities.isExtended
      ? (view) => [
          view.policy,
          view.node,
          view.outsideAddresses,
          pod === null ? null : view.podsByName.get(pod),
          ...partsOf(asked.find(view)),
        ]
      : null,
  };
}

/** What of the mesh a target is, as the objects of the view. */
function partsOf(target: Target): readonly unknown[] {
  switch (target.kind) {
    case "service":
      return [target.service, target.port];
    case "undefined-port":
      return [target.service];
    case "pod":
      return [target.pod];
    default:
      return [target.kind];
  }
}

/** An address, or a name and a port, and what it means in a view. */
function askedTarget(target: TrafficSpec["target"]): {
  readonly key: string;
  readonly find: (view: MeshView) => Target;
} {
  if (target.case === "addr") {
    const address = addressOf(target.value);
    const ip = address === null ? null : parseIp(address.ip);
    if (address === null || ip === null) throw invalidArgument("the target holds no address and port");
    return { key: `${ip} ${address.port}`, find: (view) => targetOfAddress(view, ip, address.port) };
  }
  const authority = target.case === "authority" ? parseAuthority(target.value) : null;
  if (authority === null) throw invalidArgument("the target is neither an address nor name:port");
  const { host, port } = authority;
  return {
    key: `${host.toLowerCase()} ${port}`,
    find: (view) => {
      const ip = parseIp(host);
      if (ip !== null) return targetOfAddress(view, ip, port);
      const meaning = meaningOfName(view, host);
      if (meaning.kind !== "service" || meaning.service.externalName !== null)
        throw notFound(`no Service is called ${host}`);
      return targetOfService(meaning.service, port);
    },
  };
}

/** The proven identity; on the loopback listener, where nobody proves one, that of the pod which is named. */
function clientOf(view: MeshView, pod: string | null, call: CallContext): PolicyClient | null {
  const found = pod === null ? undefined : view.podsByName.get(pod);
  if (found !== undefined) checkIsOwn(found, call);
  else if (pod !== null && call.caller !== null && !pod.startsWith(`${call.caller.identity.namespace}/`))
    throw permissionDenied(`${pod} is not in the namespace of ${dnsName(call.caller.identity)}`);
  const identity = call.caller?.identity ?? found?.identity;
  return identity === undefined ? null : { ...identity, labels: found?.labels };
}

/** What a workload's policy is, is told to that workload alone. */
export function checkIsOwn(pod: ViewPod, { caller }: CallContext): void {
  if (caller !== null && !sameIdentity(caller.identity, pod.identity))
    throw permissionDenied(
      `${pod.namespace}/${pod.name} does not run as ${dnsName(caller.identity)}; a workload may ask for its own policy only`,
    );
}

function keyOf({ isExtended }: Capabilities): string {
  return isExtended ? "extended" : "standard";
}

function keyOfCaller({ caller }: CallContext): string {
  return caller === null ? "" : dnsName(caller.identity);
}

/** `{"ns":"shop","pod":"web-0"}` or `shop:web-0`, as `shop/web-0`. */
export function parseWorkload(text: string): string | null {
  if (!text.startsWith("{")) {
    const match = /^([a-z0-9-]+):([a-z0-9.-]+)$/.exec(text);
    return match === null ? null : `${match[1]}/${match[2]}`;
  }
  try {
    const { ns, pod } = JSON.parse(text) as { ns?: unknown; pod?: unknown };
    return typeof ns === "string" && typeof pod === "string" ? `${ns}/${pod}` : null;
  } catch {
    return null;
  }
}

function decode<T>(read: () => T, what: string): T {
  try {
    return read();
  } catch {
    throw invalidArgument(`the request is no ${what}`);
  }
}
