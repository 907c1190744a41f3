import { fromBinary, toBinary } from "@bufbuild/protobuf";
import { parseIp } from "#/base/address.ts";
import { PortSpecSchema, ServerSchema } from "#/gen/linkerd/inbound_pb.ts";
import { OutboundPolicySchema, TrafficSpecSchema } from "#/gen/linkerd/outbound_pb.ts";
import { inboundServerOf } from "../answers/inbound-policy.ts";
import { outboundPolicyOf } from "../answers/outbound-policy.ts";
import { meaningOfName, parseAuthority, targetOfAddress, targetOfService } from "../answers/target.ts";
import { addressOf } from "../answers/wire.ts";
import type { MeshView } from "../services/mesh-view.ts";
import type { LiveView } from "./live-view.ts";
import { sameBytes, SharedAnswers } from "./live-view.ts";
import type { MethodHandler } from "./server.ts";
import { invalidArgument, notFound } from "./status.ts";

interface Question {
  readonly key: string;
  readonly compute: (view: MeshView) => Uint8Array;
}

/** `InboundServerPolicies` and `OutboundPolicies`: each question once or watched. */
export function policyMethods(live: LiveView): Map<string, MethodHandler> {
  const pair = (
    once: string,
    watched: string,
    parse: (request: Uint8Array) => Question,
  ): [string, MethodHandler][] => {
    const shared = new SharedAnswers<Uint8Array>(sameBytes);
    return [
      [
        once,
        {
          isOpen: false,
          unary: async (request) => {
            const { key, compute } = parse(request);
            return await Promise.resolve(shared.get(key, live.require(), compute));
          },
        },
      ],
      [
        watched,
        {
          isOpen: false,
          watch: (request, watcher) => {
            const { key, compute } = parse(request);
            return shared.watch(live, key, compute, watcher, (bytes) => watcher.send(bytes));
          },
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

function inboundQuestion(request: Uint8Array): Question {
  const { workload, port } = decode(() => fromBinary(PortSpecSchema, request), "PortSpec");
  const pod = parseWorkload(workload);
  if (pod === null)
    throw invalidArgument(
      `${JSON.stringify(workload.slice(0, 300))} names no workload; it is {"ns":"…","pod":"…"} or ns:pod`,
    );
  if (port < 1 || port > 65535) throw invalidArgument(`${port} is no port`);
  return {
    key: `${pod} ${port}`,
    compute: (view) => {
      const found = view.podsByName.get(pod);
      if (found === undefined) throw notFound(`no pod is called ${pod}`);
      return toBinary(ServerSchema, inboundServerOf(found, port));
    },
  };
}

function outboundQuestion(request: Uint8Array): Question {
  const { target } = decode(() => fromBinary(TrafficSpecSchema, request), "TrafficSpec");
  if (target.case === "addr") {
    const address = addressOf(target.value);
    const ip = address === null ? null : parseIp(address.ip);
    if (address === null || ip === null) throw invalidArgument("the target holds no address and port");
    return {
      key: `${ip} ${address.port}`,
      compute: (view) =>
        toBinary(OutboundPolicySchema, outboundPolicyOf(view, targetOfAddress(view, ip, address.port))),
    };
  }
  const authority = target.case === "authority" ? parseAuthority(target.value) : null;
  if (authority === null) throw invalidArgument("the target is neither an address nor name:port");
  const { host, port } = authority;
  return {
    key: `${host.toLowerCase()} ${port}`,
    compute: (view) => {
      const ip = parseIp(host);
      if (ip !== null)
        return toBinary(OutboundPolicySchema, outboundPolicyOf(view, targetOfAddress(view, ip, port)));
      const meaning = meaningOfName(view, host);
      if (meaning.kind !== "service" || meaning.service.externalName !== null)
        throw notFound(`no Service is called ${host}`);
      return toBinary(OutboundPolicySchema, outboundPolicyOf(view, targetOfService(meaning.service, port)));
    },
  };
}

/** `{"ns":"shop","pod":"web-0"}` or `shop:web-0`, as `shop/web-0`. */
function parseWorkload(text: string): string | null {
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
