/**
 * Hashes that every sidecar computes alike: for spreading keys, never for secrets or against whoever chooses them.
 */

/** 32 bits of a text: FNV-1a over its UTF-16 units, then murmur3's finalizer, which mixes what FNV leaves uneven. */
export function hashText(text: string, seed: number = 0): number {
  let hash = (0x811c9dc5 ^ seed) | 0;
  for (let i = 0; i < text.length; i++) hash = Math.imul(hash ^ text.charCodeAt(i), 0x01000193);
  return finalized(hash);
}

/** 32 bits of two numbers of 32 bits. */
export function hashPair(a: number, b: number): number {
  return finalized(Math.imul(a, 0x9e3779b1) ^ finalized(b));
}

function finalized(hash: number): number {
  let mixed = hash;
  mixed = Math.imul(mixed ^ (mixed >>> 16), 0x85ebca6b);
  mixed = Math.imul(mixed ^ (mixed >>> 13), 0xc2b2ae35);
  return (mixed ^ (mixed >>> 16)) >>> 0;
}
