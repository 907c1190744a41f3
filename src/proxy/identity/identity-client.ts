import { generateKeyPair, X509Certificate, type KeyObject } from "node:crypto";
import { promisify } from "node:util";
import type { Clock, Timer } from "#/base/clock.ts";
import type { Random } from "#/base/random.ts";
import { describeError, MeshError, type Blame } from "#/base/errors.ts";
import type { Log, LogLevel } from "#/net/log.ts";
import { splitPem, type Tls } from "#/net/tls.ts";
import { subjectNames } from "#/net/peer-identity.ts";
import { FAMILIES } from "#/stack/metrics/families.ts";
import type { Registry } from "#/stack/metrics/registry.ts";
import { GrpcStatus } from "#/wire/grpc.ts";
import { ProtoReader, ProtoWriter } from "#/wire/proto.ts";
import type { Channel } from "../control/channel.ts";
import { CertificateLife, LOOK_EVERY_MS } from "./certificate-life.ts";
import { makeCsr } from "./csr.ts";

export interface IdentityParts {
  readonly clock: Clock;
  readonly random: Random;
  readonly log: Log;
  readonly registry: Registry;
  readonly tls: Tls;
  readonly localName: string;
  readonly anchorsPem: string;
  /** A channel of its own for each call: the first one anonymous, later ones with the certificate in force. */
  channel(isAnonymous: boolean): Pick<Channel, "call" | "close">;
  /** The token that attests this workload; read again for each call that needs it. */
  token(): Promise<Uint8Array>;
  /** The identity service does not take the token (any more). One that is good for a single use does not get better. */
  tokenRefused(reason: string): void;
  /** Another leaf is in force. */
  leafChanged(): void;
}

const RETRY_MS_MIN = 200;
const RETRY_MS_MAX = 10_000;
/** Failures are told at each of these shares of a certificate's life that is left, and its end again and again. */
const LOUD_AT: readonly number[] = [0.5, 0.2, 0.05];
const LOUD_AGAIN_MS = 60_000;
/** Generous: a control plane that is short of processor time gets no better by being asked again. */
const CALL_TIMEOUT_MS = 20_000;

interface KeyPair {
  readonly privateKey: KeyObject;
  readonly publicKey: KeyObject;
}

const generate = promisify(generateKeyPair);
const newKeys = (): Promise<KeyPair> => generate("ec", { namedCurve: "P-256" });

/**
 * Keeps this workload's certificate: a P-256 key made here and never written, a request to the identity service, again
 * with a new key before it ends. The first call proves the workload by its token, later ones by the certificate in force;
 * the token comes again only when that has ended. A failed renewal keeps the old certificate until it truly ends.
 */
export class IdentityClient {
  readonly #parts: IdentityParts;
  #timer: Timer | null = null;
  #failures = 0;
  readonly #life: CertificateLife;
  /** How many marks of `LOUD_AT` a failure has been told for, the end among them. */
  #told = -1;
  #toldAtMs = 0;
  #isStopped = false;
  #certified: (() => void) | null = null;
  #isCalling = false;
  /** How soon to renew once the call under way has ended; null: as its certificate needs it. */
  #nextMs: number | null = null;
  #chain: readonly X509Certificate[] = [];
  /** Of the first certificate: a token is good for one key, also when its answer was lost and it is shown again. */
  #firstKeys: Promise<KeyPair> | null = null;

  constructor(parts: IdentityParts) {
    this.#parts = parts;
    this.#life = new CertificateLife(parts.clock, parts.random);
    const expires = parts.registry.gauge(FAMILIES.certExpiration, {});
    const left = parts.registry.gauge(FAMILIES.certLeft, {});
    parts.registry.gauge(FAMILIES.identityInfo, { identity: parts.localName }).set(1);
    parts.registry.beforeReading(() => {
      expires.set(Math.floor(this.#life.notAfterMs / 1000));
      left.set(Math.max(0, Math.floor(this.#life.leftMs / 1000)));
    });
  }

  /** Wall-clock end of the certificate in force; 0 before the first. */
  get notAfterMs(): number {
    return this.#life.notAfterMs;
  }

  get hasCertificate(): boolean {
    return this.#life.notAfterMs > this.#parts.clock.wallMs();
  }

  /** A certificate has been asked for and has not come yet. */
  get isCalling(): boolean {
    return this.#isCalling;
  }

  /** Who signed the certificate in force: SHA-256 of the issuer's DER, in hexadecimal; "" before the first. */
  get issuer(): string {
    return fingerprintOf(this.#chain[1]);
  }

  /** The certificate in force, then those above it; empty before the first. */
  get chain(): readonly X509Certificate[] {
    return this.#chain;
  }

  /** Renews so soon, whatever is left of the certificate in force. */
  renewWithin(ms: number): void {
    if (this.#isCalling) {
      this.#nextMs = ms;
      return;
    }
    this.#timer?.cancel();
    this.#again(ms);
  }

  /** `certified` is called once, with the first certificate in force. */
  start(certified: () => void): void {
    this.#certified = certified;
    this.#run();
  }

  stop(): void {
    this.#isStopped = true;
    this.#timer?.cancel();
  }

  #run(): void {
    this.#isCalling = true;
    this.#nextMs = null;
    this.#certify().then(
      () => {
        this.#isCalling = false;
        this.#failures = 0;
        this.#told = -1;
        if (this.#nextMs === null) this.#await();
        else this.#again(this.#nextMs);
      },
      (error: unknown) => {
        this.#isCalling = false;
        const { random, registry } = this.#parts;
        registry.count(FAMILIES.certRenewalFailures, {});
        const backoffMs =
          Math.min(RETRY_MS_MAX, RETRY_MS_MIN * 2 ** Math.min(this.#failures++, 10)) * (0.5 + random.next());
        this.#tell(error, backoffMs);
        this.#again(backoffMs);
      },
    );
  }

  /** Looks at the clocks again and again: a timer of hours would sleep through a jump of the wall clock. */
  #await(): void {
    if (this.#isStopped) return;
    const { dueInMs } = this.#life;
    this.#timer = this.#parts.clock.after(Math.min(dueInMs, LOOK_EVERY_MS), () => {
      if (this.#life.dueInMs > 0) this.#await();
      else this.#run();
    });
  }

  /** A failure is loud when it matters more than the last one that was told; the others are for whoever looks closely. */
  #tell(error: unknown, retryMs: number): void {
    const { clock, log } = this.#parts;
    const { leftMs, leftShare } = this.#life;
    const hasEnded = leftMs <= 0;
    const mark = hasEnded ? LOUD_AT.length : LOUD_AT.filter((share) => leftShare < share).length;
    const isLoud = mark > this.#told || (hasEnded && clock.nowMs() - this.#toldAtMs >= LOUD_AGAIN_MS);
    if (isLoud) {
      this.#told = mark;
      this.#toldAtMs = clock.nowMs();
    }
    const fields = {
      reason: describeError(error),
      certificateEndsInSeconds: Math.max(0, Math.round(leftMs / 1000)),
      leftPercent: Math.max(0, Math.round(leftShare * 100)),
      failures: this.#failures,
      retryMs: Math.round(retryMs),
    };
    const [level, message]: [LogLevel, string] =
      this.#life.notAfterMs === 0
        ? ["warn", "no certificate could be had"]
        : hasEnded
          ? ["error", "the certificate has ended and no other could be had: connections of the mesh fail"]
          : [
              leftShare < 0.2 ? "error" : "warn",
              "the certificate could not be renewed; the one in force stays",
            ];
    log[isLoud ? level : "debug"](message, fields);
  }

  #again(afterMs: number): void {
    if (this.#isStopped) return;
    this.#timer = this.#parts.clock.after(afterMs, () => this.#run());
  }

  async #certify(): Promise<void> {
    const { clock, localName, log, registry, tls } = this.#parts;
    const byToken = !this.hasCertificate;
    const { privateKey, publicKey } = await (byToken ? (this.#firstKeys ??= newKeys()) : newKeys());
    const request = new ProtoWriter().text(1, localName);
    if (byToken) request.bytes(2, await this.#parts.token());
    request.bytes(3, makeCsr(localName, privateKey, publicKey));
    const { ders, notAfterMs } = decodeAnswer(await this.#call(request.finish(), byToken));
    const chain = ders.map((der) => new X509Certificate(der));
    checkChain(chain, localName, this.#parts.anchorsPem, privateKey, clock.wallMs(), notAfterMs);
    tls.setLeaf({
      keyPem: privateKey.export({ type: "pkcs8", format: "pem" }) as string,
      chainPem: chain.map(String).join(""),
    });
    const validMs = notAfterMs - clock.wallMs();
    this.#life.begin(notAfterMs);
    this.#chain = chain;
    this.#firstKeys = null;
    registry.count(FAMILIES.certRefreshes, {});
    log.info("certificate issued", {
      identity: localName,
      validSeconds: Math.round(validMs / 1000),
      provenBy: byToken ? "token" : "certificate",
    });
    this.#certified?.();
    this.#certified = null;
    this.#parts.leafChanged();
  }

  #call(request: Uint8Array, isAnonymous: boolean): Promise<Uint8Array> {
    const { clock } = this.#parts;
    const channel = this.#parts.channel(isAnonymous);
    return new Promise<Uint8Array>((resolve, reject) => {
      let answer: Uint8Array | null = null;
      const finish = (error: IdentityError | null): void => {
        timer.cancel();
        channel.close();
        if (error === null && answer !== null) resolve(answer);
        else reject(error ?? new IdentityError("the identity service answered with nothing"));
      };
      const call = channel.call(CERTIFY_PATH, request, {
        message: (bytes) => void (answer = Uint8Array.from(bytes)),
        ended: (status, message) => {
          const why = `the identity service refused (status ${status}: ${message}); check the token and the service account`;
          finish(status === GrpcStatus.OK ? null : new IdentityError(why));
          if (isAnonymous && status === GrpcStatus.UNAUTHENTICATED) this.#parts.tokenRefused(message);
        },
      });
      const timer = clock.after(CALL_TIMEOUT_MS, () => {
        call.cancel();
        finish(
          new IdentityError(
            `the identity service did not answer within ${CALL_TIMEOUT_MS} ms; check that the control plane runs and is reachable`,
          ),
        );
      });
    });
  }
}

export const CERTIFY_PATH = "/io.linkerd.proxy.identity.Identity/Certify";

/** `identity.CertifyResponse`: the chain, leaf first, and its end. */
export function decodeAnswer(bytes: Uint8Array): { ders: Uint8Array[]; notAfterMs: number } {
  const reader = new ProtoReader(bytes);
  const intermediates: Uint8Array[] = [];
  let leaf: Uint8Array | null = null;
  let notAfterMs = 0;
  while (reader.next()) {
    if (reader.field === 1) leaf = reader.bytes();
    else if (reader.field === 2) intermediates.push(reader.bytes());
    else if (reader.field === 3) {
      const timestamp = reader.message();
      while (timestamp.next()) if (timestamp.field === 1) notAfterMs = timestamp.int() * 1000;
    }
  }
  if (reader.error !== null)
    throw new IdentityError(`the identity service's answer cannot be read: ${reader.error.message}`);
  return { ders: leaf === null ? [] : [leaf, ...intermediates], notAfterMs };
}

/** A certificate that our peers would refuse must not replace one that they accept. */
export function checkChain(
  chain: readonly X509Certificate[],
  name: string,
  anchorsPem: string,
  key: KeyObject,
  nowMs: number,
  notAfterMs: number,
): void {
  const leaf = chain[0];
  if (leaf === undefined) throw new IdentityError("the identity service sent no certificate");
  if (!leaf.checkPrivateKey(key)) throw new IdentityError("the certificate is not for our key");
  if (!subjectNames(leaf).includes(name.toLowerCase()))
    throw new IdentityError(`the certificate is not for ${name}`);
  if (notAfterMs <= nowMs) throw new IdentityError("the certificate has ended already; check the clocks");
  const anchors = splitPem(anchorsPem).map((pem) => new X509Certificate(pem));
  for (let i = 0; i < chain.length; i++) {
    const certificate = chain[i] as X509Certificate;
    if (
      anchors.some(
        (anchor) =>
          anchor.raw.equals(certificate.raw) ||
          (certificate.checkIssued(anchor) && certificate.verify(anchor.publicKey)),
      )
    )
      return;
    const issuer = chain[i + 1];
    if (issuer === undefined || !certificate.checkIssued(issuer) || !certificate.verify(issuer.publicKey))
      break;
  }
  throw new IdentityError(
    "the certificate does not chain to our trust anchors; check that agent and control plane use the same root",
  );
}

/** SHA-256 of its DER, in hexadecimal; "" where there is none. */
export function fingerprintOf(certificate: X509Certificate | undefined): string {
  return certificate === undefined ? "" : certificate.fingerprint256.replaceAll(":", "").toLowerCase();
}

/** No certificate could be had. */
export class IdentityError extends MeshError {
  override readonly name = "IdentityError";
  readonly code = "IDENTITY_UNAVAILABLE";
  readonly blame: Blame = "operator";
}
