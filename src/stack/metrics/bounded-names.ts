/** Names that have a series of their own, for clients choose them; later ones are counted together. */
const NAMES_MAX = 64;

/** Names as a metric's label may have them. */
export class BoundedNames {
  readonly #names = new Set<string>();

  /** The name itself, or "other" past the bound. */
  nameFor(name: string): string {
    if (this.#names.has(name)) return name;
    if (this.#names.size >= NAMES_MAX) return "other";
    this.#names.add(name);
    return name;
  }
}
