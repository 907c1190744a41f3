import type { IpAddress } from "#/base/address.ts";
import { cidrBits, cidrRange, ipv4FromNumber, ipv4ToNumber } from "../instance.ts";

/**
 * Hands out pod addresses. An address comes back into use as late as possible: somebody may still be dialling the pod
 * that had it last. The first address is the gateway's, the last is the network's broadcast.
 */
export class AddressPool {
  readonly #first: number;
  readonly #last: number;
  readonly #used = new Set<number>();
  #next: number;

  constructor(cidr: string) {
    const [first, last] = cidrRange(cidr);
    this.#first = first + 2;
    this.#last = last - 1;
    this.#next = this.#first;
  }

  /** Throws when all are taken: the pod CIDR is the bound. */
  take(): IpAddress {
    const count = this.#last - this.#first + 1;
    for (let i = 0; i < count; i++) {
      const value = this.#first + ((this.#next - this.#first + i) % count);
      if (this.#used.has(value)) continue;
      this.#used.add(value);
      this.#next = value + 1;
      return ipv4FromNumber(value);
    }
    throw new Error(`all ${count} pod addresses are taken: choose a wider --pod-cidr`);
  }

  /** Marks an address of an earlier agent's pod. */
  reserve(ip: IpAddress): void {
    const value = ipv4ToNumber(ip);
    this.#used.add(value);
    if (value >= this.#next) this.#next = value + 1;
  }

  release(ip: IpAddress): void {
    this.#used.delete(ipv4ToNumber(ip));
  }
}

/**
 * The address that is reserved for a pod's sidecar, where its connections are told from the application's by their
 * source: the pod's own, in the upper half of the network. Pods have the lower half then.
 */
export function sidecarSource(cidr: string, podIp: IpAddress): IpAddress {
  const [first, last] = cidrRange(cidr);
  return ipv4FromNumber(ipv4ToNumber(podIp) + (last - first + 1) / 2);
}

/** The lower half of a network. */
export function lowerHalf(cidr: string): string {
  const [first] = cidrRange(cidr);
  return `${ipv4FromNumber(first)}/${cidrBits(cidr) + 1}`;
}

/** Hands out small numbers, lowest first: they become sidecars' user ids and link names. */
export class SlotPool {
  readonly #used = new Set<number>();

  take(): number {
    let slot = 0;
    while (this.#used.has(slot)) slot++;
    this.#used.add(slot);
    return slot;
  }

  reserve(slot: number): void {
    this.#used.add(slot);
  }

  release(slot: number): void {
    this.#used.delete(slot);
  }
}
