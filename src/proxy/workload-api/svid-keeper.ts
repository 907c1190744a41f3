import { generateKeyPair, X509Certificate } from "node:crypto";
import { promisify } from "node:util";
import type { Clock, Timer } from "#/base/clock.ts";
import { describeError } from "#/base/errors.ts";
import type { Random } from "#/base/random.ts";
import type { Identity } from "#/model/identity.ts";
import { dnsName, spiffeUri } from "#/model/identity.ts";
import type { Log } from "#/net/log.ts";
import { subjectNames } from "#/net/peer-identity.ts";
import type { Cancel } from "#/stack/discovery.ts";
import { FAMILIES } from "#/stack/metrics/families.ts";
import type { Registry } from "#/stack/metrics/registry.ts";
import { ProtoWriter } from "#/wire/proto.ts";
import { GrpcStatus } from "#/wire/grpc.ts";
import { makeCsr } from "../identity/csr.ts";
import { checkChain, decodeAnswer, fingerprintOf } from "../identity/identity-client.ts";
import type { X509Svid } from "./messages.ts";
import { CallError } from "./unary-call.ts";

export interface SvidKeeperParts {
  readonly clock: Clock;
  readonly random: Random;
  readonly log: Log;
  readonly registry: Registry;
  readonly identity: Identity;
  /** PEM of the roots that a certificate must chain to, as they are now. */
  anchorsPem(): string;
  /** `Identity/Certify` on a connection that the sidecar's own certificate proves. Rejects with `CallError`. */
  certify(request: Uint8Array): Promise<Uint8Array>;
  /** Another certificate is in force. */
  leafChanged(): void;
}

export interface SvidSink {
  /** The one in force: the first as soon as there is one, then each that replaces it. */
  svid(svid: X509Svid): void;
  /** There is none, or it has ended; nothing follows. */
  failed(error: CallError): void;
}

/** Renewed at this share of its life, less up to `JITTER` of it, as the sidecar's own. */
const RENEW_AT = 0.7;
const JITTER = 0.1;
const RENEW_MS_MIN = 1000;
const RENEW_MS_MAX = 24 * 3600 * 1000;
const RETRY_MS_MIN = 1000;
const RETRY_MS_MAX = 60_000;

const generate = promisify(generateKeyPair);

/**
 * The X.509-SVID that the workload may have: of the same identity as the sidecar's own certificate, and with a key of its own, which is
 * made here when the first program asks, given to whoever asks, and replaced with each renewal. The sidecar's key is never given out.
 */
export class SvidKeeper {
  readonly #parts: SvidKeeperParts;
  readonly #sinks = new Set<SvidSink>();
  #svid: X509Svid | null = null;
  #notAfterMs = 0;
  #issuer = "";
  #isAsking = false;
  #failures = 0;
  /** The next renewal, or the next try of one that failed. */
  #renewal: Timer | null = null;
  #end: Timer | null = null;

  constructor(parts: SvidKeeperParts) {
    this.#parts = parts;
    const expires = parts.registry.gauge(FAMILIES.workloadSvidExpiration, {});
    parts.registry.beforeReading(() => expires.set(Math.floor(this.#notAfterMs / 1000)));
  }

  watch(sink: SvidSink): Cancel {
    this.#sinks.add(sink);
    if (this.#svid !== null) sink.svid(this.#svid);
    else this.renew();
    return { cancel: () => this.#sinks.delete(sink) };
  }

  /** Who signed the certificate in force, as `IdentityClient.issuer`; "" where there is none. */
  get issuer(): string {
    return this.#svid === null ? "" : this.#issuer;
  }

  /** Renews so soon, whatever is left of the certificate in force. Nothing where there is none. */
  renewWithin(ms: number): void {
    if (this.#svid !== null) this.#renewLater(ms);
  }

  close(): void {
    this.#renewal?.cancel();
    this.#end?.cancel();
  }

  /** Replaces key and certificate now. One renewal at a time. */
  renew(): void {
    if (this.#isAsking) return;
    this.#isAsking = true;
    this.#renewal?.cancel();
    this.#certify().then(
      (notAfterMs) => this.#renewed(notAfterMs),
      (error: unknown) => this.#notRenewed(error),
    );
  }

  async #certify(): Promise<number> {
    const { clock, identity } = this.#parts;
    const name = dnsName(identity);
    const spiffeId = spiffeUri(identity);
    const { privateKey, publicKey } = await generate("ec", { namedCurve: "P-256" });
    const request = new ProtoWriter().text(1, name).bytes(3, makeCsr(name, privateKey, publicKey));
    const { ders, notAfterMs } = decodeAnswer(await this.#parts.certify(request.finish()));
    const chain = ders.map((der) => new X509Certificate(der));
    checkChain(chain, name, this.#parts.anchorsPem(), privateKey, clock.wallMs(), notAfterMs);
    const leaf = chain[0];
    if (leaf === undefined || !subjectNames(leaf).includes(spiffeId))
      throw new CallError(
        GrpcStatus.UNAVAILABLE,
        `the identity service gives certificates without the SPIFFE ID ${spiffeId}; check that it is Pillion's own`,
      );
    const key = privateKey.export({ type: "pkcs8", format: "der" });
    this.#svid = { spiffeId, chain: Buffer.concat(ders), key };
    this.#issuer = fingerprintOf(chain[1]);
    return notAfterMs;
  }

  #renewed(notAfterMs: number): void {
    const { clock, log, random } = this.#parts;
    const svid = this.#svid;
    this.#isAsking = false;
    if (svid === null) return;
    this.#notAfterMs = notAfterMs;
    this.#failures = 0;
    const validMs = notAfterMs - clock.wallMs();
    log.info("a certificate was issued for the workload's own use", {
      spiffeId: svid.spiffeId,
      validSeconds: Math.round(validMs / 1000),
    });
    const shareMs = validMs * RENEW_AT * (1 - JITTER * random.next());
    this.#renewLater(Math.min(RENEW_MS_MAX, Math.max(RENEW_MS_MIN, shareMs)));
    this.#end?.cancel();
    this.#end = clock.after(Math.min(RENEW_MS_MAX, validMs), () => this.#lookWhetherEnded());
    for (const sink of this.#sinks) sink.svid(svid);
    this.#parts.leafChanged();
  }

  #notRenewed(error: unknown): void {
    const { clock, log, random } = this.#parts;
    this.#isAsking = false;
    const leftMs = this.#notAfterMs - clock.wallMs();
    log.warn(
      leftMs > 0
        ? "the workload's certificate could not be renewed; the one in force stays"
        : "no certificate could be had for the workload",
      { reason: describeError(error), certificateEndsInSeconds: Math.max(0, Math.round(leftMs / 1000)) },
    );
    if (this.#svid === null) {
      // Whoever waits is told why, and asks again by itself.
      this.#failAll(
        error instanceof CallError ? error : new CallError(GrpcStatus.UNAVAILABLE, describeError(error)),
      );
      return;
    }
    const backoffMs = Math.min(RETRY_MS_MAX, RETRY_MS_MIN * 2 ** Math.min(this.#failures++, 10));
    this.#renewLater(backoffMs * (0.5 + random.next()));
  }

  #renewLater(afterMs: number): void {
    this.#renewal?.cancel();
    this.#renewal = this.#parts.clock.after(afterMs, () => this.renew());
  }

  /** One that has ended is given out no more: no message is better than one that no peer accepts. */
  #lookWhetherEnded(): void {
    const { clock } = this.#parts;
    const leftMs = this.#notAfterMs - clock.wallMs();
    if (leftMs > 0) {
      this.#end = clock.after(Math.min(RENEW_MS_MAX, leftMs), () => this.#lookWhetherEnded());
      return;
    }
    this.#svid = null;
    this.#renewal?.cancel();
    this.#failAll(
      new CallError(
        GrpcStatus.UNAVAILABLE,
        "the workload's certificate has ended and could not be renewed; check that the control plane is reachable",
      ),
    );
  }

  #failAll(error: CallError): void {
    const waiting = [...this.#sinks];
    this.#sinks.clear();
    for (const sink of waiting) sink.failed(error);
  }
}
