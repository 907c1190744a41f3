import type { Protocol } from "#/model/policy.ts";

/**
 * What a port speaks, by what its owner says of it: `appProtocol`, else the port's name; "detect" when neither says
 * enough. Only names that leave no doubt count: a port called "http" may well serve HTTP/2 with prior knowledge, and
 * detection costs nothing where the client speaks first. No port number means anything by itself.
 */
export function declaredProtocol(appProtocol: string | undefined, portName: string | undefined): Protocol {
  if (appProtocol !== undefined && appProtocol !== "") {
    const known = APP_PROTOCOLS[appProtocol.toLowerCase()];
    // Linkerd: an appProtocol that is not known is opaque; its bytes are nobody's business.
    return known ?? "opaque";
  }
  const prefix = portName?.split("-")[0];
  return (prefix === undefined ? undefined : PORT_NAMES[prefix]) ?? "detect";
}

const APP_PROTOCOLS: Readonly<Record<string, Protocol>> = {
  http: "http1",
  "kubernetes.io/ws": "http1",
  http2: "http2",
  h2c: "http2",
  "kubernetes.io/h2c": "http2",
  grpc: "http2",
  "kubernetes.io/grpc": "http2",
  "linkerd.io/opaque": "opaque",
  "linkerd.io/tcp": "opaque",
};

const PORT_NAMES: Readonly<Record<string, Protocol>> = {
  http2: "http2",
  h2c: "http2",
  grpc: "http2",
  tcp: "opaque",
  tls: "opaque",
};
