import type { SocketAddress } from "#/base/address.ts";
import type { Labels } from "./identity.ts";

/**
 * One place where a service's requests can go: what `destination.WeightedAddr` means, free of its wire form.
 * Compared by `address` when a discovery update adds or removes it.
 */
export interface Endpoint {
  readonly address: SocketAddress;
  /** Relative share; 10,000 is one (Linkerd's unit). */
  readonly weight: number;
  /** Whom the far sidecar must prove to be; null for an unmeshed endpoint, which is dialled in plaintext. */
  readonly identity: EndpointIdentity | null;
  /** What may be spoken there: "http2" means HTTP/1 may be upgraded; "opaque" means never parse. */
  readonly protocolHint: "unknown" | "http2" | "opaque";
  /** The far sidecar's own port (4143) where connections are announced by a transport header; null: dial `address`. */
  readonly tunnelPort: number | null;
  readonly authorityOverride: string | null;
  readonly labels: Labels;
  /** A server outside that is spoken to in TLS; absent: none. Never beside an `identity`. */
  readonly originatedTls?: OriginatedTls;
}

/** TLS that the client's sidecar begins. It shows no certificate. */
export interface OriginatedTls {
  /** Asked for by SNI, and what the server's certificate must name (RFC 9525). */
  readonly serverName: string;
  /** Roots that it must chain to; "": those of the system. */
  readonly caPem: string;
}

export interface EndpointIdentity {
  /** DNS name or SPIFFE URI that some SAN of the far certificate must denote. */
  readonly name: string;
  /** SNI to send. */
  readonly serverName: string;
}

/** An address that is dialled as it is: no sidecar, nothing known of what it speaks. */
export function plainEndpoint(address: SocketAddress): Endpoint {
  return {
    address,
    weight: 10_000,
    identity: null,
    protocolHint: "unknown",
    tunnelPort: null,
    authorityOverride: null,
    labels: {},
  };
}
