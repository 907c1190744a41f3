import type { Identity } from "#/model/identity.ts";
import { parseIdentity, sameIdentity, spiffeUri } from "#/model/identity.ts";
import type { StateFolder } from "../state-folder.ts";

const FILE = "revoked.json";
/** They are looked through for each certificate, and are rules at every port. */
const REVOKED_MAX = 1_000;

/** Identities that get no certificate any more and are let in nowhere, until that is undone. Kept over restarts. */
export class Revocations {
  readonly #state: StateFolder;
  #all: readonly Identity[];

  /** Throws when they cannot be read: whoever was taken out of use would be let in again. */
  constructor(state: StateFolder) {
    this.#state = state;
    this.#all = read(state);
  }

  /** Another array after each change, the same otherwise. */
  get all(): readonly Identity[] {
    return this.#all;
  }

  has(identity: Identity): boolean {
    return this.#all.some((one) => sameIdentity(one, identity));
  }

  /** False: it was so already. Throws at the bound, and when it cannot be written. */
  set(identity: Identity, isRevoked: boolean): boolean {
    if (this.has(identity) === isRevoked) return false;
    const all = isRevoked
      ? [...this.#all, identity]
      : this.#all.filter((one) => !sameIdentity(one, identity));
    if (all.length > REVOKED_MAX)
      throw new Error(
        `${REVOKED_MAX} identities are revoked already; undo those that no certificate is left of (a leaf lives a day)`,
      );
    this.#state.writeTogether([[FILE, JSON.stringify(all.map(spiffeUri))]]);
    this.#all = all;
    return true;
  }
}

function read(state: StateFolder): Identity[] {
  try {
    const kept = JSON.parse(state.readText(FILE) ?? "[]") as string[];
    return kept.map((name) => {
      const identity = parseIdentity(name);
      if (identity === null) throw new Error(`${name} is no identity`);
      return identity;
    });
  } catch (error) {
    throw new Error(`${FILE} in the state folder cannot be read; put it back, or remove it and revoke anew`, {
      cause: error,
    });
  }
}
