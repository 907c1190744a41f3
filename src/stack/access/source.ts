import type { IpAddress } from "#/base/address.ts";
import type { AccessSource, NetworkMatch, PeerMatch } from "#/model/access.ts";
import { dnsName, type PeerIdentity } from "#/model/identity.ts";
import { networkContains, parseNetwork, type Network } from "../networks.ts";

/** Who a rule is about, read once. */
export class SourceTest {
  readonly #peer: PeerMatch;
  /** Null: from anywhere. */
  readonly #networks: readonly NetworkTest[] | null;

  /** `ifUnreadable`: whether a network holds that cannot be read. */
  constructor({ peer, networks }: AccessSource, ifUnreadable: boolean) {
    this.#peer = peer;
    this.#networks = networks?.map((network) => new NetworkTest(network, ifUnreadable)) ?? null;
  }

  /** What of it cannot be read; null where all can. */
  get problem(): string | null {
    return this.#networks?.find(({ problem }) => problem !== null)?.problem ?? null;
  }

  holds(ip: IpAddress, peer: PeerIdentity | null): boolean {
    if (!peerHolds(this.#peer, peer)) return false;
    if (this.#networks === null) return true;
    for (const network of this.#networks) if (network.holds(ip)) return true;
    return false;
  }
}

class NetworkTest {
  readonly problem: string | null;
  readonly #net: Network | null;
  readonly #except: readonly Network[];
  readonly #ifUnreadable: boolean;

  constructor({ net, except }: NetworkMatch, ifUnreadable: boolean) {
    const unreadable = [net, ...except].find((one) => parseNetwork(one) === null);
    this.problem = unreadable === undefined ? null : `${unreadable} is no network`;
    this.#net = parseNetwork(net);
    this.#except = except.flatMap((one) => parseNetwork(one) ?? []);
    this.#ifUnreadable = ifUnreadable;
  }

  holds(ip: IpAddress): boolean {
    if (this.problem !== null || this.#net === null) return this.#ifUnreadable;
    if (!networkContains(this.#net, ip)) return false;
    for (const one of this.#except) if (networkContains(one, ip)) return false;
    return true;
  }
}

function peerHolds(match: PeerMatch, peer: PeerIdentity | null): boolean {
  if (match.kind === "anyone") return true;
  if (peer === null || match.kind === "unauthenticated")
    return peer === null && match.kind === "unauthenticated";
  const { identity, name } = peer;
  switch (match.kind) {
    case "authenticated":
      return true;
    case "trust-domain":
      return identity.trustDomain === match.trustDomain;
    case "namespace":
      return identity.trustDomain === match.trustDomain && identity.namespace === match.namespace;
    case "identity":
      return (
        identity.trustDomain === match.trustDomain &&
        identity.namespace === match.namespace &&
        identity.serviceAccount === match.serviceAccount
      );
    case "name":
      return name === match.name;
    case "suffix":
      // Whichever form its certificate has, it is the same identity.
      return (
        match.labels.length === 0 ||
        (name.startsWith("spiffe://") ? dnsName(identity) : name).endsWith(`.${match.labels.join(".")}`)
      );
  }
}
