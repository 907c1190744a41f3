import { addressKey } from "#/base/address.ts";
import { hashPair, hashText } from "#/base/hash.ts";
import type { Endpoint } from "#/model/endpoint.ts";

/**
 * The `size` endpoints that one client uses, always the same: those whose hash with the client is highest (rendezvous hashing). An
 * endpoint that leaves is replaced by one other, and one that comes replaces at most one; over many clients each endpoint is used by as
 * many, but for chance. In the order in which they came.
 */
export function subsetOf(endpoints: readonly Endpoint[], size: number, client: string): readonly Endpoint[] {
  if (size <= 0 || endpoints.length <= size) return endpoints;
  const clientHash = hashText(client);
  const scores = endpoints.map(({ address }) => {
    const key = addressKey(address);
    return { key, score: hashPair(clientHash, hashText(key)) };
  });
  const ranked = [...scores].sort((a, b) => b.score - a.score || (a.key < b.key ? -1 : 1));
  const chosen = new Set(ranked.slice(0, size).map(({ key }) => key));
  return endpoints.filter((_, i) => chosen.has((scores[i] as { key: string }).key));
}
