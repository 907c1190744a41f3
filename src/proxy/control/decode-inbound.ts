import type { Authz, Network, ProxyProtocol, Server } from "#/gen/linkerd/inbound_pb.ts";
import type { IPNetwork } from "#/gen/linkerd/net_pb.ts";
import type { Authorization, InboundPolicy, Protocol } from "#/model/policy.ts";
import { decodeIp } from "./decode-endpoint.ts";

/** What a `Server` message means, or null when it cannot be followed: what was in force before then stays. */
export function decodeInboundPolicy(message: Server): InboundPolicy | null {
  const protocol = decodeProtocol(message.protocol);
  if (protocol === null) return null;
  const authorizations: Authorization[] = [];
  for (const one of message.authorizations) {
    const authorization = decodeAuthorization(one);
    // What cannot be read must not allow anything; leaving it out denies.
    if (authorization !== null) authorizations.push(authorization);
  }
  return { protocol, labels: message.labels, authorizations };
}

function decodeProtocol(message: ProxyProtocol | undefined): Protocol | null {
  switch (message?.kind.case) {
    case "detect":
    case "opaque":
    case "tls":
    case "http1":
    case "http2":
    case "grpc":
      return message.kind.case;
    default:
      return null;
  }
}

/** An authorization without networks is invalid (facts §11.3). */
function decodeAuthorization(message: Authz): Authorization | null {
  const networks = message.networks.map(decodeNetwork).filter((network) => network !== null);
  const authentication = decodeAuthentication(message);
  if (networks.length === 0 || authentication === null) return null;
  return { networks, authentication, labels: message.labels };
}

function decodeNetwork(message: Network): Authorization["networks"][number] | null {
  const net = networkText(message.net);
  const except = message.except.map(networkText);
  // An exception that cannot be read would let in whom it should keep out.
  if (net === null || except.includes(null)) return null;
  return { net, except: except.filter((one) => one !== null) };
}

function networkText(message: IPNetwork | undefined): string | null {
  const ip = decodeIp(message?.ip);
  return message === undefined || ip === null ? null : `${ip}/${message.prefixLen}`;
}

function decodeAuthentication({ authentication }: Authz): Authorization["authentication"] | null {
  const permit = authentication?.permit;
  if (permit?.case === "unauthenticated") return { kind: "unauthenticated" };
  if (permit?.case !== "meshTLS") return null;
  const { clients } = permit.value;
  if (clients.case === "unauthenticated") return { kind: "meshed-any" };
  if (clients.case !== "identities") return null;
  return {
    kind: "meshed",
    identities: clients.value.identities.map(({ name }) => name),
    suffixes: clients.value.suffixes.map(({ parts }) => parts),
  };
}
