import { calculateJwkThumbprint, exportJWK, generateKeyPair, importJWK, SignJWT, type JWK } from "jose";
import type { Clock, Timer } from "#/base/clock.ts";
import type { Identity } from "#/model/identity.ts";
import { spiffeUri } from "#/model/identity.ts";
import type { Log } from "#/net/log.ts";
import type { StateFolder } from "../state-folder.ts";

const MINUTE_MS = 60 * 1000;
/** JWT-SVID §3.3: as short as is practical. Who needs one for longer asks again. */
export const TOKEN_LIFE_MS: number = 5 * MINUTE_MS;
/** A key signs for so long, … */
export const KEY_SIGNS_MS: number = 24 * 60 * MINUTE_MS;
/** … is published so long before it does, so that whoever verifies has it by then, … */
export const KEY_AHEAD_MS: number = 60 * MINUTE_MS;
/** … and so long after: its last tokens live, and clocks differ. */
export const KEY_KEPT_MS: number = TOKEN_LIFE_MS + 10 * MINUTE_MS;
const LOOK_MS = MINUTE_MS;
/** JWT-SVID §2.1 allows it; every verifier knows it. */
const ALGORITHM = "ES256";
const FILE = "jwt-keys.json";

/** As it is kept in the state folder: the private key in JWK (RFC 7517). */
interface KeptKey {
  readonly signsFromMs: number;
  readonly jwk: JWK;
}

interface Key extends KeptKey {
  readonly kid: string;
  readonly sign: CryptoKey;
}

export interface Jwt {
  readonly token: string;
  readonly expiresAtMs: number;
}

/**
 * Signs JWT-SVIDs of one trust domain. Its keys lie in the state folder, change each day, and are published an hour before they sign,
 * so that no verifier meets a token of a key that it has not heard of.
 */
export class JwtAuthority {
  readonly #state: StateFolder;
  readonly #clock: Clock;
  readonly #log: Log;
  readonly trustDomain: string;
  /** In the order in which they sign; at least one signs already. */
  #keys: readonly Key[];
  readonly #watchers = new Set<() => void>();
  #timer: Timer | null = null;

  private constructor(state: StateFolder, trustDomain: string, clock: Clock, log: Log, keys: readonly Key[]) {
    this.#state = state;
    this.trustDomain = trustDomain;
    this.#clock = clock;
    this.#log = log;
    this.#keys = keys;
  }

  /**
   * Reads the keys, or makes the first one. Unlike a root they can be made anew when their file cannot be read: tokens that are out are
   * refused from then on, and they would not have lived for more than minutes.
   */
  static async open(state: StateFolder, trustDomain: string, clock: Clock, log: Log): Promise<JwtAuthority> {
    let keys: readonly Key[] = [];
    try {
      keys = await readKeys(state);
    } catch (error) {
      log.error(
        `${FILE} in the state folder cannot be read; new keys are made, and tokens that are out are refused`,
        {
          error,
        },
      );
    }
    const authority = new JwtAuthority(state, trustDomain, clock, log, keys);
    await authority.rotate();
    authority.#rotateLater();
    return authority;
  }

  /** JSON Web Key Set of all keys that may have signed a token that still lives, or soon will (JWT-SVID §6.1). */
  get keySet(): string {
    return JSON.stringify({
      keys: this.#keys.map(({ kid, jwk: { kty, crv, x, y } }) => ({ kty, crv, x, y, kid, use: "jwt-svid" })),
    });
  }

  /** `changed` is called when `keySet` has changed. */
  watch(changed: () => void): () => void {
    this.#watchers.add(changed);
    return () => this.#watchers.delete(changed);
  }

  /** The caller has proven to be `identity`. */
  async sign(identity: Identity, audience: readonly string[]): Promise<Jwt> {
    const nowMs = this.#clock.wallMs();
    const { kid, sign } = this.#signing(nowMs);
    const issuedAt = Math.floor(nowMs / 1000);
    const expiresAt = issuedAt + TOKEN_LIFE_MS / 1000;
    const token = await new SignJWT({})
      .setProtectedHeader({ alg: ALGORITHM, kid, typ: "JWT" })
      .setSubject(spiffeUri(identity))
      .setAudience([...audience])
      .setIssuedAt(issuedAt)
      .setExpirationTime(expiresAt)
      .sign(sign);
    return { token, expiresAtMs: expiresAt * 1000 };
  }

  /** Makes the next key when its time has come, and forgets what nobody needs any more. */
  async rotate(): Promise<void> {
    const nowMs = this.#clock.wallMs();
    // A clock that was far ahead has left keys that nobody needs, and would keep the next from being made.
    const present = this.#keys.filter(({ signsFromMs }) => signsFromMs <= nowMs + KEY_SIGNS_MS);
    const last = present.at(-1);
    const made: Key[] = [];
    const isStranded = !present.some((key) => key.signsFromMs <= nowMs);
    if (last === undefined || isStranded) made.push(await newKey(nowMs));
    else if (last.signsFromMs + KEY_SIGNS_MS - KEY_AHEAD_MS <= nowMs)
      made.push(await newKey(Math.max(nowMs + KEY_AHEAD_MS, last.signsFromMs + KEY_SIGNS_MS)));
    const keys = [...present, ...made].toSorted((a, b) => a.signsFromMs - b.signsFromMs);
    const needed = keys.filter((_, at) => {
      const next = keys[at + 1];
      return next === undefined || next.signsFromMs + KEY_KEPT_MS > nowMs;
    });
    if (made.length === 0 && needed.length === this.#keys.length) return;
    // Written before it is told: a key that others know must be there after a crash.
    this.#state.writeTogether([
      [FILE, JSON.stringify(needed.map(({ signsFromMs, jwk }) => ({ signsFromMs, jwk }) satisfies KeptKey))],
    ]);
    this.#keys = needed;
    this.#log.info("the keys that sign tokens have changed", {
      keys: needed.map(({ kid, signsFromMs }) => `${kid} from ${new Date(signsFromMs).toISOString()}`),
    });
    for (const changed of this.#watchers) changed();
  }

  close(): void {
    this.#timer?.cancel();
  }

  #signing(nowMs: number): Key {
    const key = this.#keys.findLast(({ signsFromMs }) => signsFromMs <= nowMs) ?? this.#keys[0];
    if (key === undefined) throw new Error("no key to sign tokens with");
    return key;
  }

  #rotateLater(): void {
    this.#timer = this.#clock.after(LOOK_MS, () => {
      this.rotate()
        .catch((error: unknown) =>
          this.#log.error(
            "the keys that sign tokens could not be changed; the old one goes on, and it is tried again",
            {
              error,
            },
          ),
        )
        .finally(() => this.#rotateLater());
    });
  }
}

async function newKey(signsFromMs: number): Promise<Key> {
  const { privateKey } = await generateKeyPair(ALGORITHM, { extractable: true });
  return await keyOf({ signsFromMs, jwk: await exportJWK(privateKey) });
}

async function readKeys(state: StateFolder): Promise<readonly Key[]> {
  const text = state.readText(FILE);
  if (text === null) return [];
  return await Promise.all((JSON.parse(text) as KeptKey[]).map(keyOf));
}

async function keyOf({ signsFromMs, jwk }: KeptKey): Promise<Key> {
  if (!Number.isFinite(signsFromMs)) throw new Error("a key does not say from when it signs");
  const sign = await importJWK(jwk, ALGORITHM);
  if (sign instanceof Uint8Array || sign.type !== "private") throw new Error("a key is no private one");
  // RFC 7638: the same key has the same name, whoever counts.
  return { signsFromMs, jwk, kid: await calculateJwkThumbprint(jwk), sign };
}
