import { generateKeyPair, X509Certificate, type KeyObject } from "node:crypto";
import { promisify } from "node:util";
import type { Clock, Timer } from "#/base/clock.ts";
import type { Random } from "#/base/random.ts";
import { describeError, MeshError, type Blame } from "#/base/errors.ts";
import type { Log } from "#/net/log.ts";
import { splitPem, type Tls } from "#/net/tls.ts";
import { subjectNames } from "#/net/peer-identity.ts";
import { FAMILIES } from "#/stack/metrics/families.ts";
import type { Registry } from "#/stack/metrics/registry.ts";
import { GrpcStatus } from "#/wire/grpc.ts";
import { ProtoReader, ProtoWriter } from "#/wire/proto.ts";
import type { Channel } from "../control/channel.ts";
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
  channel(isAnonymous: boolean): Channel;
  /** The token that attests this workload; read again for each call that needs it. */
  token(): Promise<Uint8Array>;
  /** The identity service does not take the token (any more). One that is good for a single use does not get better. */
  tokenRefused(reason: string): void;
  /** Another leaf is in force. */
  leafChanged(): void;
}

/** Renew at this share of a certificate's life, less up to `JITTER` of it so that a fleet does not come at once. */
const RENEW_AT = 0.7;
const JITTER = 0.1;
const RENEW_MS_MIN = 1000;
const RENEW_MS_MAX = 24 * 3600 * 1000;
const RETRY_MS_MIN = 200;
const RETRY_MS_MAX = 10_000;
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
  #notAfterMs = 0;
  #isStopped = false;
  #certified: (() => void) | null = null;
  #isCalling = false;
  /** How soon to renew once the call under way has ended; null: as its certificate needs it. */
  #nextMs: number | null = null;
  #issuer = "";
  /** Of the first certificate: a token is good for one key, also when its answer was lost and it is shown again. */
  #firstKeys: Promise<KeyPair> | null = null;

  constructor(parts: IdentityParts) {
    this.#parts = parts;
    const expires = parts.registry.gauge(FAMILIES.certExpiration, {});
    parts.registry.beforeReading(() => expires.set(Math.floor(this.#notAfterMs / 1000)));
  }

  /** Wall-clock end of the certificate in force; 0 before the first. */
  get notAfterMs(): number {
    return this.#notAfterMs;
  }

  get hasCertificate(): boolean {
    return this.#notAfterMs > this.#parts.clock.wallMs();
  }

  /** Who signed the certificate in force: SHA-256 of the issuer's DER, in hexadecimal; "" before the first. */
  get issuer(): string {
    return this.#issuer;
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
      (validMs) => {
        this.#isCalling = false;
        this.#failures = 0;
        const shareMs = validMs * RENEW_AT * (1 - JITTER * this.#parts.random.next());
        this.#again(this.#nextMs ?? Math.min(RENEW_MS_MAX, Math.max(RENEW_MS_MIN, shareMs)));
      },
      (error: unknown) => {
        this.#isCalling = false;
        const { clock, log, random } = this.#parts;
        const backoffMs =
          Math.min(RETRY_MS_MAX, RETRY_MS_MIN * 2 ** Math.min(this.#failures++, 10)) * (0.5 + random.next());
        const leftMs = this.#notAfterMs - clock.wallMs();
        log.warn(
          leftMs > 0
            ? "the certificate could not be renewed; the one in force stays"
            : "no certificate could be had",
          {
            reason: describeError(error),
            certificateEndsInSeconds: Math.max(0, Math.round(leftMs / 1000)),
            retryMs: Math.round(backoffMs),
          },
        );
        this.#again(backoffMs);
      },
    );
  }

  #again(afterMs: number): void {
    if (this.#isStopped) return;
    this.#timer = this.#parts.clock.after(afterMs, () => this.#run());
  }

  /** One round; gives how long the new certificate is valid. */
  async #certify(): Promise<number> {
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
    this.#notAfterMs = notAfterMs;
    this.#issuer = fingerprintOf(chain[1]);
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
    return validMs;
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

const CERTIFY_PATH = "/io.linkerd.proxy.identity.Identity/Certify";

/** `identity.CertifyResponse`: the chain, leaf first, and its end. */
function decodeAnswer(bytes: Uint8Array): { ders: Uint8Array[]; notAfterMs: number } {
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
function checkChain(
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

function fingerprintOf(certificate: X509Certificate | undefined): string {
  return certificate === undefined ? "" : certificate.fingerprint256.replaceAll(":", "").toLowerCase();
}

/** No certificate could be had. */
export class IdentityError extends MeshError {
  override readonly name = "IdentityError";
  readonly code = "IDENTITY_UNAVAILABLE";
  readonly blame: Blame = "operator";
}
