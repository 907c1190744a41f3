import type { Clock } from "#/base/clock.ts";
import type { Log } from "#/net/log.ts";
import type { Cancel } from "#/stack/discovery.ts";
import { GrpcStatus } from "#/wire/grpc.ts";
import { ProtoReader, ProtoWriter } from "#/wire/proto.ts";
import type { Channel } from "../control/channel.ts";
import { Watch, type WatchParts } from "../control/client.ts";
import { CallError, unaryCall } from "./unary-call.ts";

export interface JwtClientParts extends WatchParts {
  readonly clock: Clock;
  readonly log: Log;
  /** Proven by the sidecar's certificate. */
  readonly channel: Pick<Channel, "call">;
}

/** Key sets (JWKS as JSON) by trust domain. */
export type JwtBundles = ReadonlyMap<string, string>;

const SIGN_PATH = "/dev.pillion.svid.Svid/SignJwt";
const WATCH_PATH = "/dev.pillion.svid.Svid/WatchJwtBundles";
const SIGN_TIMEOUT_MS = 10_000;
const BUNDLES_TIMEOUT_MS = 10_000;
/** Tokens that are being asked for at once; more are refused, so that one workload does not keep the control plane busy alone. */
const SIGNING_MAX = 32;

/** Tokens of the workload's identity, signed by the control plane, and the keys that prove tokens: watched from when they are first asked for. */
export class JwtClient {
  readonly #parts: JwtClientParts;
  readonly #watchers = new Set<(bundles: JwtBundles) => void>();
  #bundles: JwtBundles | null = null;
  #watch: Cancel | null = null;
  #signing = 0;

  constructor(parts: JwtClientParts) {
    this.#parts = parts;
  }

  /** Rejects with `CallError`. */
  async sign(audience: readonly string[]): Promise<string> {
    if (this.#signing >= SIGNING_MAX)
      throw new CallError(
        GrpcStatus.RESOURCE_EXHAUSTED,
        `${SIGNING_MAX} tokens are being signed for this workload; ask again, and keep tokens while they are good`,
      );
    this.#signing++;
    try {
      const request = new ProtoWriter();
      for (const each of audience) request.text(1, each);
      const { clock, channel } = this.#parts;
      const reader = new ProtoReader(
        await unaryCall(clock, channel, SIGN_PATH, request.finish(), SIGN_TIMEOUT_MS),
      );
      let token = "";
      while (reader.next()) if (reader.field === 1) token = reader.text();
      if (reader.error !== null || token === "")
        throw new CallError(GrpcStatus.UNAVAILABLE, "the control plane's answer holds no token");
      return token;
    } finally {
      this.#signing--;
    }
  }

  /** `changed` is called with what is known, as soon as it is, and with each change. */
  watch(changed: (bundles: JwtBundles) => void): Cancel {
    this.#watchers.add(changed);
    if (this.#bundles !== null) changed(this.#bundles);
    else this.#begin();
    return { cancel: () => this.#watchers.delete(changed) };
  }

  /** Rejects with `CallError` when they are not known in time. */
  async known(): Promise<JwtBundles> {
    if (this.#bundles !== null) return this.#bundles;
    return await new Promise((resolve, reject) => {
      const timer = this.#parts.clock.after(BUNDLES_TIMEOUT_MS, () => {
        watching.cancel();
        reject(
          new CallError(
            GrpcStatus.UNAVAILABLE,
            "the control plane has not said which keys sign tokens; check that it runs and is reachable",
          ),
        );
      });
      const watching = this.watch((bundles) => {
        timer.cancel();
        this.#parts.clock.soon(() => watching.cancel());
        resolve(bundles);
      });
    });
  }

  #begin(): void {
    if (this.#watch !== null) return;
    const { channel, log } = this.#parts;
    this.#watch = new Watch(this.#parts, channel, WATCH_PATH, new Uint8Array(0), {
      message: (bytes) => {
        const bundles = decodeBundles(bytes);
        if (bundles === null) {
          log.warn("the keys that sign tokens cannot be read; those that were known stay");
          return;
        }
        this.#bundles = bundles;
        for (const changed of this.#watchers) changed(bundles);
      },
      refused: (status, reason) =>
        log.warn("the control plane does not say which keys sign tokens", { status, reason }),
    });
  }
}

/** `dev.pillion.svid.JwtBundles`. */
function decodeBundles(bytes: Uint8Array): JwtBundles | null {
  const reader = new ProtoReader(bytes);
  const bundles = new Map<string, string>();
  while (reader.next()) {
    if (reader.field !== 1) continue;
    const bundle = reader.part();
    let trustDomain = "";
    let keySet = "";
    while (bundle.next()) {
      if (bundle.field === 1) trustDomain = bundle.text();
      else if (bundle.field === 2) keySet = bundle.text();
    }
    bundles.set(trustDomain, keySet);
  }
  return reader.error === null ? bundles : null;
}
