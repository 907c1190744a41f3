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
import { CertificateLife, LOOK_EVERY_MS } from "../identity/certificate-life.ts";
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
  readonly #life: CertificateLife;
  #svid: X509Svid | null = null;
  #issuer = "";
  #isAsking = false;
  #failures = 0;
  /** By the monotonic clock: asked for then, whatever is left; null: as the certificate needs it. */
  #renewAtMs: number | null = null;
  #timer: Timer | null = null;

  constructor(parts: SvidKeeperParts) {
    this.#parts = parts;
    this.#life = new CertificateLife(parts.clock, parts.random);
    const expires = parts.registry.gauge(FAMILIES.workloadSvidExpiration, {});
    parts.registry.beforeReading(() => expires.set(Math.floor(this.#life.notAfterMs / 1000)));
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
    if (this.#svid === null) return;
    this.#renewAtMs = this.#parts.clock.nowMs() + ms;
    this.#await();
  }

  close(): void {
    this.#timer?.cancel();
  }

  /** Replaces key and certificate now. One renewal at a time. */
  renew(): void {
    if (this.#isAsking) return;
    this.#isAsking = true;
    this.#renewAtMs = null;
    this.#certify().then(
      () => this.#renewed(),
      (error: unknown) => this.#notRenewed(error),
    );
  }

  async #certify(): Promise<void> {
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
    this.#life.begin(notAfterMs);
  }

  #renewed(): void {
    this.#isAsking = false;
    const svid = this.#svid;
    if (svid === null) return;
    this.#failures = 0;
    this.#parts.log.info("a certificate was issued for the workload's own use", {
      spiffeId: svid.spiffeId,
      validSeconds: Math.round(this.#life.leftMs / 1000),
    });
    this.#await();
    for (const sink of this.#sinks) sink.svid(svid);
    this.#parts.leafChanged();
  }

  #notRenewed(error: unknown): void {
    this.#isAsking = false;
    const { clock, log, random } = this.#parts;
    const reason = describeError(error);
    const isRefused = error instanceof CallError && error.status === GrpcStatus.PERMISSION_DENIED;
    if (this.#svid === null || isRefused) {
      log.warn("no certificate could be had for the workload", { reason });
      // Workload API §5.2.1: one that it may have no longer is taken back by saying so.
      this.#svid = null;
      this.#timer?.cancel();
      // Whoever waits is told why, and asks again by itself.
      this.#failAll(error instanceof CallError ? error : new CallError(GrpcStatus.UNAVAILABLE, reason));
      return;
    }
    // The sidecar's own certificate has the same trouble, and is louder the less is left.
    log[this.#failures === 0 ? "warn" : "debug"](
      "the workload's certificate could not be renewed; the one in force stays",
      { reason, certificateEndsInSeconds: Math.max(0, Math.round(this.#life.leftMs / 1000)) },
    );
    const backoffMs = Math.min(RETRY_MS_MAX, RETRY_MS_MIN * 2 ** Math.min(this.#failures++, 10));
    this.#renewAtMs = clock.nowMs() + backoffMs * (0.5 + random.next());
    this.#await();
  }

  /** Looks at the clocks again and again: a timer of hours would sleep through a jump of the wall clock. */
  #await(): void {
    const { clock } = this.#parts;
    const dueInMs = this.#renewAtMs === null ? this.#life.dueInMs : this.#renewAtMs - clock.nowMs();
    const nextMs = this.#isAsking ? LOOK_EVERY_MS : Math.min(dueInMs, LOOK_EVERY_MS);
    this.#timer?.cancel();
    this.#timer = clock.after(Math.max(0, Math.min(nextMs, this.#life.leftMs)), () => this.#look());
  }

  #look(): void {
    if (this.#life.leftMs <= 0) {
      // One that has ended is given out no more: no message is better than one that no peer accepts.
      this.#svid = null;
      this.#failures = 0;
      const why = "the workload's certificate has ended and could not be renewed";
      this.#parts.log.error(why);
      this.#failAll(
        new CallError(GrpcStatus.UNAVAILABLE, `${why}; check that the control plane is reachable`),
      );
      return;
    }
    const { clock } = this.#parts;
    const isDue = this.#renewAtMs === null ? this.#life.dueInMs <= 0 : this.#renewAtMs <= clock.nowMs();
    if (isDue) this.renew();
    this.#await();
  }

  #failAll(error: CallError): void {
    const waiting = [...this.#sinks];
    this.#sinks.clear();
    for (const sink of waiting) sink.failed(error);
  }
}
