import { X509Certificate } from "node:crypto";
import type { Clock, Timer } from "#/base/clock.ts";
import { describeError } from "#/base/errors.ts";
import type { Random } from "#/base/random.ts";
import type { Log } from "#/net/log.ts";
import { splitPem, type TrustAnchors } from "#/net/tls.ts";
import type { Registry } from "#/stack/metrics/registry.ts";
import { GrpcStatus } from "#/wire/grpc.ts";
import { ProtoReader, ProtoWriter } from "#/wire/proto.ts";
import type { Channel } from "../control/channel.ts";
import { Watch } from "../control/client.ts";

export interface TrustParts {
  readonly clock: Clock;
  readonly random: Random;
  readonly log: Log;
  readonly registry: Registry;
  readonly channel: Pick<Channel, "call">;
  /** Echoed in requests, as in those for policy. */
  readonly workload: string;
  /** Of this workload's own identity. */
  readonly trustDomain: string;
  /** What we were started with. */
  readonly anchorsPem: string;
  /** Connections from now on go by these roots, by trust domain. */
  apply(anchors: TrustAnchors): void;
  /**
   * Who signed the leaf in force: SHA-256 of the issuer's DER, in hexadecimal; "" where there is none. Of several, one that `wanted` did
   * not sign comes first.
   */
  leafIssuer(wanted: string): string;
  /** Another issuer signs now. */
  renewWithin(ms: number): void;
}

/**
 * A change of issuer is known to all sidecars at once. They come for new leaves over so long, so that the control plane, which signs a
 * leaf in a few milliseconds, has time for its other work beside hundreds of them.
 */
export const RENEW_SPREAD_MS = 5_000;
const RETRY_MS_MIN = 200;
const RETRY_MS_MAX = 10_000;
const AUTHORITIES_MAX = 100;

/**
 * Keeps the roots that peers are verified against as the control plane has them now, and confirms what is in force. What cannot be
 * used changes nothing. A control plane that does not know the service (Linkerd's) leaves us with the roots of our start.
 */
export class TrustClient {
  readonly #parts: TrustParts;
  #anchorsPem: string;
  /** All bundles that were applied, to see whether others have come. */
  #applied: string;
  #sequence: number | null = null;
  /** Who signs now; "" where that is not told. */
  #issuer = "";
  #watch: Watch | null = null;
  #retry: Timer | null = null;
  #failures = 0;
  #isConfirming = false;
  #isChangedSince = false;

  constructor(parts: TrustParts) {
    this.#parts = parts;
    this.#anchorsPem = splitPem(parts.anchorsPem)
      .map((pem) => new X509Certificate(pem).toString())
      .join("");
    this.#applied = textOf(new Map([[parts.trustDomain, this.#anchorsPem]]));
  }

  /** Roots of our own trust domain that are in force. */
  get anchors(): readonly X509Certificate[] {
    return splitPem(this.#anchorsPem).map((pem) => new X509Certificate(pem));
  }

  /** PEM of the roots of our own trust domain that are in force. */
  get anchorsPem(): string {
    return this.#anchorsPem;
  }

  start(): void {
    const { channel, log, workload } = this.#parts;
    this.#watch = new Watch(this.#parts, channel, WATCH_PATH, new ProtoWriter().text(1, workload).finish(), {
      message: (bytes) => this.#take(bytes),
      refused: (status, reason) => {
        if (status === GrpcStatus.UNIMPLEMENTED) {
          this.#watch?.cancel();
          log.info("the control plane tells of no new roots; those of our start stay");
        } else log.warn("the control plane tells us of no roots; those in force stay", { status, reason });
      },
    });
  }

  stop(): void {
    this.#watch?.cancel();
    this.#retry?.cancel();
  }

  /** Another leaf is in force. */
  leafChanged(): void {
    if (this.#sequence !== null) this.#confirm();
  }

  #take(bytes: Uint8Array): void {
    const { log, random, trustDomain } = this.#parts;
    let bundles: Bundles;
    try {
      bundles = decodeBundles(bytes);
    } catch (error) {
      log.error("roots of the control plane cannot be used; those in force stay", {
        reason: describeError(error),
      });
      return;
    }
    const own = bundles.anchors.get(trustDomain);
    if (own === undefined) {
      log.error("the control plane named no root of our own trust domain; those in force stay", {
        trustDomain,
      });
      return;
    }
    const text = textOf(bundles.anchors);
    if (text !== this.#applied) {
      this.#parts.apply(bundles.anchors);
      this.#applied = text;
      this.#anchorsPem = own;
      log.info("other roots are trusted from now on", {
        sequence: bundles.sequence,
        roots: splitPem(own).map(describeRoot),
      });
    }
    this.#sequence = bundles.sequence;
    this.#issuer = bundles.issuer;
    this.#confirm();
    const issuer = this.#parts.leafIssuer(bundles.issuer);
    if (bundles.issuer !== "" && issuer !== "" && bundles.issuer !== issuer)
      this.#parts.renewWithin(RENEW_SPREAD_MS * random.next());
  }

  #confirm(): void {
    if (this.#isConfirming) {
      this.#isChangedSince = true;
      return;
    }
    this.#retry?.cancel();
    this.#isConfirming = true;
    this.#isChangedSince = false;
    const { channel, clock, log, random, workload } = this.#parts;
    const request = new ProtoWriter()
      .text(1, workload)
      .uint(2, this.#sequence ?? 0)
      .bytes(3, Buffer.from(this.#parts.leafIssuer(this.#issuer), "hex"))
      .finish();
    channel.call(CONFIRM_PATH, request, {
      message: () => undefined,
      ended: (status, reason) => {
        this.#isConfirming = false;
        if (status === GrpcStatus.OK) this.#failures = 0;
        if (status === GrpcStatus.OK && !this.#isChangedSince) return;
        if (status !== GrpcStatus.OK)
          log.debug("the roots in force could not be confirmed; tried again", { status, reason });
        const backoffMs = Math.min(RETRY_MS_MAX, RETRY_MS_MIN * 2 ** Math.min(this.#failures, 10));
        if (status !== GrpcStatus.OK) this.#failures++;
        this.#retry = clock.after(status === GrpcStatus.OK ? 0 : backoffMs * (0.5 + random.next()), () =>
          this.#confirm(),
        );
      },
    });
  }
}

const WATCH_PATH = "/dev.pillion.trust.Trust/Watch";
const CONFIRM_PATH = "/dev.pillion.trust.Trust/Confirm";

interface Bundles {
  readonly sequence: number;
  /** PEM by trust domain. */
  readonly anchors: TrustAnchors;
  /** In hexadecimal. */
  readonly issuer: string;
}

/** `trust.Bundles`. Throws when anything of it cannot be read, or is no root. */
function decodeBundles(bytes: Uint8Array): Bundles {
  const reader = new ProtoReader(bytes);
  const anchors = new Map<string, string>();
  let sequence = 0;
  let issuer = "";
  while (reader.next()) {
    if (reader.field === 1) sequence = reader.int();
    else if (reader.field === 2) {
      const { trustDomain, roots } = decodeBundle(reader.part());
      if (trustDomain !== "" && roots.length > 0) anchors.set(trustDomain, roots.join(""));
    } else if (reader.field === 3) issuer = Buffer.from(reader.bytes()).toString("hex");
  }
  if (reader.error !== null) throw new Error(reader.error.message);
  return { sequence, anchors, issuer };
}

function decodeBundle(reader: ProtoReader): { trustDomain: string; roots: string[] } {
  let trustDomain = "";
  const roots: string[] = [];
  while (reader.next()) {
    if (reader.field === 1) trustDomain = reader.text();
    else if (reader.field === 2) {
      const certificate = new X509Certificate(reader.bytes());
      if (!certificate.ca) throw new Error(`${certificate.subject} is no authority`);
      if (roots.length === AUTHORITIES_MAX)
        throw new Error(`more than ${AUTHORITIES_MAX} roots of one domain`);
      roots.push(certificate.toString());
    }
  }
  return { trustDomain, roots };
}

function textOf(anchors: TrustAnchors): string {
  return JSON.stringify([...anchors].toSorted(([a], [b]) => (a < b ? -1 : 1)));
}

function describeRoot(pem: string): string {
  const { subject, serialNumber, validTo } = new X509Certificate(pem);
  return `${subject.replace(/^CN=/, "")} (serial ${serialNumber.slice(0, 8).toLowerCase()}…) until ${validTo}`;
}
