import type { MeshView } from "../services/mesh-view.ts";
import { RpcError, unavailable } from "./status.ts";
import type { Watcher } from "./server.ts";

/** The present `MeshView` and those who wait for the next. Null until the first state of the mesh is complete. */
export class LiveView {
  #view: MeshView | null = null;
  readonly #listeners = new Set<(view: MeshView) => void>();

  get current(): MeshView | null {
    return this.#view;
  }

  /** The present view, or the error that tells a client to come back. */
  require(): MeshView {
    if (this.#view === null)
      throw unavailable("the control plane has not yet heard of the machine's pods; ask again");
    return this.#view;
  }

  publish(view: MeshView): void {
    this.#view = view;
    for (const listener of this.#listeners) listener(view);
  }

  listen(listener: (view: MeshView) => void): () => void {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  }

  get watchers(): number {
    return this.#listeners.size;
  }
}

/** What is asked of a view. */
export interface Question<T> {
  /** Equal keys have equal answers. */
  readonly key: string;
  readonly compute: (view: MeshView) => T;
  /**
   * All that the answer follows from, as objects and plain values: as long as they are the same ones, it is not computed again. Null
   * where that cannot be said.
   */
  readonly basis: ((view: MeshView) => readonly unknown[]) | null;
}

interface Entry<T> {
  view: MeshView;
  basis: readonly unknown[] | null;
  answer: T;
  users: number;
}

/**
 * Answers that many streams share: each key is computed once for each view, and an answer that came out equal stays the
 * same object, so that a change touches only the streams that it concerns. A key is kept while somebody watches it.
 */
export class SharedAnswers<T> {
  readonly #entries = new Map<string, Entry<T>>();
  readonly #isEqual: (a: T, b: T) => boolean;

  constructor(isEqual: (a: T, b: T) => boolean) {
    this.#isEqual = isEqual;
  }

  get(question: Question<T>, view: MeshView): T {
    const entry = this.#entries.get(question.key);
    return entry === undefined ? question.compute(view) : this.#current(entry, question, view);
  }

  #current(entry: Entry<T>, { compute, basis }: Question<T>, view: MeshView): T {
    if (entry.view === view) return entry.answer;
    const now = basis?.(view) ?? null;
    if (now === null || entry.basis?.every((part, i) => part === now[i]) !== true) {
      const answer = compute(view);
      if (!this.#isEqual(entry.answer, answer)) entry.answer = answer;
    }
    entry.view = view;
    entry.basis = now;
    return entry.answer;
  }

  /** `changed` is called at once and whenever the answer differs. Throws what `compute` throws at first. */
  watch(
    live: LiveView,
    question: Question<T>,
    watcher: Watcher,
    changed: (answer: T, before: T | null) => void,
  ): () => void {
    const { key, basis } = question;
    const first = live.require();
    let answer = this.get(question, first);
    const entry = this.#entries.get(key) ?? { view: first, basis: basis?.(first) ?? null, answer, users: 0 };
    entry.users++;
    this.#entries.set(key, entry);
    changed(answer, null);
    const unlisten = live.listen((view) => {
      let next: T;
      try {
        next = this.#current(entry, question, view);
      } catch (error) {
        watcher.fail(error instanceof RpcError ? error : unavailable(String(error)));
        return;
      }
      if (next === answer) return;
      const before = answer;
      answer = next;
      changed(next, before);
    });
    return () => {
      unlisten();
      if (--entry.users === 0) this.#entries.delete(key);
    };
  }
}

export function sameBytes(a: Uint8Array, b: Uint8Array): boolean {
  return a === b || Buffer.compare(a, b) === 0;
}
