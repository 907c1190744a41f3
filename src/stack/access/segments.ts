/**
 * Children of a node of a tree of paths, by the text of a segment. A look-up takes the segment where it stands in a path, with its hash
 * as `hashed` goes on with it, so that nothing is cut out of the path.
 */
export class Segments<Node> {
  #names: (string | null)[] = [null, null];
  #nodes: (Node | null)[] = [null, null];
  #mask = 1;
  #count = 0;

  get(path: string, start: number, stop: number, hash: number): Node | null {
    const names = this.#names;
    const mask = this.#mask;
    const length = stop - start;
    for (let place = hash & mask; ; place = (place + 1) & mask) {
      const name = names[place]!;
      if (name === null) return null;
      if (name.length === length && path.startsWith(name, start)) return this.#nodes[place]!;
    }
  }

  /** `name` must not be there. */
  add(name: string, node: Node): void {
    if (2 * ++this.#count > this.#mask) this.#grow();
    this.#put(name, node);
  }

  #put(name: string, node: Node): void {
    const mask = this.#mask;
    let hash = 0;
    for (let i = 0; i < name.length; i++) hash = hashed(hash, name.charCodeAt(i));
    let place = hash & mask;
    while (this.#names[place] !== null) place = (place + 1) & mask;
    this.#names[place] = name;
    this.#nodes[place] = node;
  }

  #grow(): void {
    const names = this.#names;
    const nodes = this.#nodes;
    const size = 2 * (this.#mask + 1);
    this.#names = Array.from({ length: size }, () => null);
    this.#nodes = Array.from({ length: size }, () => null);
    this.#mask = size - 1;
    for (const [i, name] of names.entries()) if (name !== null) this.#put(name, nodes[i]!);
  }
}

/** Names are of policies, so nobody who sends requests chooses which collide. */
export function hashed(hash: number, code: number): number {
  return (Math.imul(hash, 31) + code) | 0;
}
