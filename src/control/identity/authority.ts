import type { webcrypto } from "node:crypto";
import {
  AuthorityKeyIdentifierExtension,
  BasicConstraintsExtension,
  ExtendedKeyUsageExtension,
  KeyUsageFlags,
  KeyUsagesExtension,
  SubjectAlternativeNameExtension,
  SubjectKeyIdentifierExtension,
  X509CertificateGenerator,
} from "./x509.ts";
import type { Extension, JsonGeneralName, PublicKey, X509Certificate } from "./x509.ts";
import type { Identity } from "#/model/identity.ts";
import { dnsName, spiffeUri } from "#/model/identity.ts";
import type { StateFolder } from "../state-folder.ts";
import type { IdentityRecord, RotationKind, RotationRecord } from "./identity-record.ts";
import { readIdentity, writeIdentity } from "./identity-record.ts";
import type { IssuerMaterial, IssuerSource } from "./issuer-folder.ts";
import { identityProblems } from "./expiry.ts";
import {
  exportKey,
  fingerprint,
  isIssuedBy,
  LEAF_LIFE_MS,
  makeIssuer,
  makeKeys,
  makeRoot,
  pemOf,
  serialNumber,
  signingAlgorithm,
  SKEW_MS,
} from "./certificates.ts";

export interface Leaf {
  readonly der: Uint8Array;
  /** From the leaf's issuer upwards, without the root. */
  readonly intermediates: readonly Uint8Array[];
  readonly notAfterMs: number;
}

/** "dns" for a linkerd2-proxy, which takes the first and only SAN; "dns+spiffe" for our own sidecars (design §5). */
export type SanForm = "dns" | "dns+spiffe";

/** The roots of our trust domain that peers' chains may end in, and who signs now. Whole each time. */
export interface TrustBundle {
  /** Grows with each change, also over restarts. */
  readonly sequence: number;
  readonly trustDomain: string;
  /** DER. */
  readonly authorities: readonly Uint8Array[];
  /** SHA-256 of the issuer's DER, in hexadecimal. */
  readonly issuer: string;
}

/**
 * The certificate authority of one mesh: the roots that sidecars trust, and the issuer below one of them that signs leaves. Made at
 * first start and kept in the state folder, readable by the control plane's user alone. Each change is written before it counts.
 */
export class Authority {
  readonly #state: StateFolder;
  readonly #trustDomain: string;
  readonly #wallMs: () => number;
  #record: IdentityRecord;
  #bundle: TrustBundle;
  readonly #listeners = new Set<() => void>();

  private constructor(state: StateFolder, trustDomain: string, wallMs: () => number, record: IdentityRecord) {
    this.#state = state;
    this.#trustDomain = trustDomain;
    this.#wallMs = wallMs;
    this.#record = record;
    this.#bundle = bundleOf(record, trustDomain);
  }

  /** Reads roots and issuer, or makes what is missing. Throws when they are there and unusable: making new ones would cut off every running sidecar. */
  static async open(
    state: StateFolder,
    trustDomain: string,
    wallMs: () => number,
    outside: IssuerSource | null = null,
  ): Promise<Authority> {
    let record = await readIdentity(state, trustDomain, wallMs());
    if (record === null) {
      const made = outside === null ? await makeOwn(trustDomain, wallMs()) : await outside.read();
      const { anchors } = made;
      record = { root: null, ...made, wanted: anchors, sequence: 1, next: null, rotation: null };
      writeIdentity(state, record);
    }
    const authority = new Authority(state, trustDomain, wallMs, record);
    await authority.renewIssuer();
    return authority;
  }

  get trustDomain(): string {
    return this.#trustDomain;
  }

  get bundle(): TrustBundle {
    return this.#bundle;
  }

  /** All roots that a peer's chain may end in. */
  get anchors(): readonly X509Certificate[] {
    return this.#record.anchors;
  }

  /** PEM of all roots that a peer's chain may end in. */
  get trustAnchorsPem(): string {
    return pemOf(this.#record.anchors);
  }

  get issuer(): X509Certificate {
    return this.#record.issuer.certificate;
  }

  /** PEM of the issuer, to send after a leaf. */
  get issuerPem(): string {
    return pemOf([this.issuer]);
  }

  get rootNotAfterMs(): number {
    return Math.min(...this.#record.anchors.map((anchor) => anchor.notAfter.getTime()));
  }

  get issuerNotAfterMs(): number {
    return this.issuer.notAfter.getTime();
  }

  /** The root above the issuer; null where its key is not here. */
  get root(): X509Certificate | null {
    return this.#record.root?.certificate ?? null;
  }

  get nextRoot(): X509Certificate | null {
    return this.#record.next?.root?.certificate ?? null;
  }

  /** Null when none is under way. */
  get rotation(): RotationRecord | null {
    return this.#record.rotation;
  }

  /** `changed` is called after each change of what sidecars are told, or of the rotation. */
  listen(changed: () => void): () => void {
    this.#listeners.add(changed);
    return () => this.#listeners.delete(changed);
  }

  /**
   * Makes a new issuer when less than a third of the present one's life is left. Peers notice nothing: the root stays. One that has
   * ended is left: then the clock may be wrong, and what is made by a wrong clock is good for nobody (`repair`).
   */
  async renewIssuer(): Promise<boolean> {
    const { root, rotation } = this.#record;
    const { notBefore, notAfter } = this.issuer;
    const left = notAfter.getTime() - this.#wallMs();
    if (root === null || rotation !== null) return false;
    if (left <= 0 || left > (notAfter.getTime() - notBefore.getTime()) / 3) return false;
    const issuer = await makeIssuer(root, this.#trustDomain, this.#wallMs());
    // A rotation or another root may have come meanwhile.
    if (this.#record.root !== root || this.#record.rotation !== null) return false;
    this.#change({ issuer });
    return true;
  }

  /**
   * Begins a rotation: what will sign is made and kept, and signs nothing. With another root, sidecars are told of that one beside
   * the present; an issuer under the present root signs from the next step on.
   */
  async prepare(kind: RotationKind): Promise<void> {
    const nowMs = this.#wallMs();
    const root = kind === "root" ? await makeRoot(this.#trustDomain, nowMs) : this.#record.root;
    if (root === null) throw new Error("the root's key is not here");
    const issuer = await makeIssuer(root, this.#trustDomain, nowMs);
    if (this.#record.rotation !== null) throw new Error("a rotation is under way");
    const anchors = withAnchors(this.#record.anchors, [root.certificate]);
    this.#change({
      next: { root, issuer },
      anchors,
      wanted: kind === "root" ? [root.certificate] : anchors,
      rotation: { kind, step: "distribute", startedAtMs: nowMs, stepAtMs: nowMs, isForced: false },
    });
  }

  /** From now on the next issuer signs. Sidecars must trust its root already. */
  signByNext(): void {
    const { next, rotation } = this.#record;
    if (next === null || rotation === null) throw new Error("no rotation is under way");
    this.#change({
      root: next.root,
      issuer: next.issuer,
      next: null,
      rotation: { ...rotation, step: "renew", stepAtMs: this.#wallMs() },
    });
  }

  /** Takes the roots from sidecars that no leaf needs any more. */
  dropOldRoots(): void {
    const { rotation, wanted } = this.#record;
    if (rotation === null) throw new Error("no rotation is under way");
    this.#change({
      anchors: wanted,
      rotation: { ...rotation, step: "drop", stepAtMs: this.#wallMs() },
    });
  }

  /** Goes on past whoever is waited for, from this step on. */
  force(): void {
    const { rotation } = this.#record;
    if (rotation !== null) this.#change({ rotation: { ...rotation, isForced: true } });
  }

  finishRotation(): void {
    this.#change({ rotation: null });
  }

  /**
   * Takes up what an authority outside gives, by the same steps as a rotation of ours. At once where nothing in force can be used any
   * more. "later": a rotation is under way.
   */
  adopt({ anchors, issuer }: IssuerMaterial): "taken" | "later" | "nothing new" {
    const present = this.#record;
    const isSameIssuer = fingerprint(issuer.certificate) === fingerprint(present.issuer.certificate);
    const isSame = isSameIssuer && pemOf(anchors) === pemOf(present.anchors);
    // A rotation under way would wait for sidecars that cannot prove themselves any more.
    if (!isSame && !this.canSign) {
      this.#change({ root: null, issuer, anchors, wanted: anchors, next: null, rotation: null });
      return "taken";
    }
    if (present.rotation !== null) return "later";
    if (isSame) return "nothing new";
    const nowMs = this.#wallMs();
    const all = withAnchors(present.anchors, anchors);
    const kind = pemOf(all) === pemOf(present.anchors) && all.length === anchors.length ? "issuer" : "root";
    this.#change({
      next: { root: null, issuer },
      anchors: all,
      wanted: anchors,
      rotation: { kind, step: "distribute", startedAtMs: nowMs, stepAtMs: nowMs, isForced: false },
    });
    return "taken";
  }

  /** What is over or soon will be, and what helps: a sentence each. */
  problems(): string[] {
    return identityProblems(this, this.#wallMs());
  }

  /** Whether anybody takes what is signed now: issuer and a root above it hold. Of further roots, any may be over. */
  get canSign(): boolean {
    const { anchors, issuer } = this.#record;
    const nowMs = this.#wallMs();
    const chain = [issuer.certificate, ...issuer.above];
    const isAbove = (anchor: X509Certificate): boolean =>
      chain.some((one) => fingerprint(one) === fingerprint(anchor) || isIssuedBy(one, anchor));
    return !isOver(issuer.certificate, nowMs) && anchors.some((one) => !isOver(one, nowMs) && isAbove(one));
  }

  /** The roots that are over, or not begun, and the issuer if it is. */
  unusable(): readonly X509Certificate[] {
    const nowMs = this.#wallMs();
    return [...this.#record.anchors, this.issuer].filter((one) => isOver(one, nowMs));
  }

  /**
   * Makes anew what can sign nothing any more: the issuer, or the root and with it the issuer. Sidecars that trust only what is over have
   * to be started again. A rotation under way is over. Null: everything can be used.
   */
  async repair(): Promise<RotationKind | null> {
    const { root } = this.#record;
    const unusable = this.unusable();
    if (unusable.length === 0) return null;
    const nowMs = this.#wallMs();
    const isRootUsable = root !== null && !isOver(root.certificate, nowMs);
    const above = isRootUsable ? root : await makeRoot(this.#trustDomain, nowMs);
    const issuer = await makeIssuer(above, this.#trustDomain, nowMs);
    const others = this.#record.anchors.filter((anchor) => !isOver(anchor, nowMs));
    const anchors = withAnchors(others, [above.certificate]);
    this.#change({
      root: above,
      issuer,
      anchors,
      wanted: anchors,
      next: null,
      rotation: null,
    });
    return isRootUsable ? "issuer" : "root";
  }

  /** Signs a leaf for `identity`. The caller has checked who asks and that the key is theirs. */
  async issue(identity: Identity, publicKey: PublicKey | webcrypto.CryptoKey, form: SanForm): Promise<Leaf> {
    const { issuer } = this.#record;
    const now = this.#wallMs();
    const name = dnsName(identity);
    const names: JsonGeneralName[] = [{ type: "dns", value: name }];
    // A linkerd2-proxy takes the first SAN as the client's identity, so the DNS name stands first.
    if (form === "dns+spiffe") names.push({ type: "url", value: spiffeUri(identity) });
    // X.520: a common name holds at most 64 characters. RFC 5280 §4.2.1.6: with an empty subject the SAN is critical.
    const subject = name.length <= 64 ? `CN=${name}` : "";
    const notAfter = new Date(
      Math.floor(Math.min(now + LEAF_LIFE_MS, issuer.certificate.notAfter.getTime()) / 1000) * 1000,
    );
    const extensions: Extension[] = [
      new BasicConstraintsExtension(false, undefined, true),
      new KeyUsagesExtension(KeyUsageFlags.digitalSignature, true),
      new ExtendedKeyUsageExtension(["1.3.6.1.5.5.7.3.1", "1.3.6.1.5.5.7.3.2"]),
      new SubjectAlternativeNameExtension(names, subject === ""),
      await AuthorityKeyIdentifierExtension.create(issuer.certificate.publicKey),
      await SubjectKeyIdentifierExtension.create(publicKey),
    ];
    const certificate = await X509CertificateGenerator.create({
      serialNumber: serialNumber(),
      subject,
      issuer: issuer.certificate.subjectName,
      // Below an issuer that has ended it has ended too, and still begins before its end.
      notBefore: new Date(Math.min(now, notAfter.getTime()) - SKEW_MS),
      notAfter,
      publicKey,
      signingKey: issuer.key,
      signingAlgorithm: signingAlgorithm(issuer.key),
      extensions,
    });
    return {
      der: new Uint8Array(certificate.rawData),
      intermediates: [issuer.certificate, ...issuer.above].map((one) => new Uint8Array(one.rawData)),
      notAfterMs: notAfter.getTime(),
    };
  }

  #change(change: Partial<IdentityRecord>): void {
    const before = this.#record;
    const changed = { ...before, ...change };
    const isTold = changed.issuer !== before.issuer || pemOf(changed.anchors) !== pemOf(before.anchors);
    const record = isTold ? { ...changed, sequence: before.sequence + 1 } : changed;
    writeIdentity(this.#state, record);
    this.#record = record;
    this.#bundle = bundleOf(record, this.#trustDomain);
    for (const listener of this.#listeners) listener();
  }
}

function bundleOf({ sequence, anchors, issuer }: IdentityRecord, trustDomain: string): TrustBundle {
  return {
    sequence,
    trustDomain,
    authorities: anchors.map((anchor) => new Uint8Array(anchor.rawData)),
    issuer: fingerprint(issuer.certificate),
  };
}

/** It is, or it has not begun. */
function isOver({ notBefore, notAfter }: X509Certificate, nowMs: number): boolean {
  return notAfter.getTime() <= nowMs || notBefore.getTime() > nowMs + SKEW_MS;
}

/** Those that are there stay where they are. */
function withAnchors(
  anchors: readonly X509Certificate[],
  more: readonly X509Certificate[],
): X509Certificate[] {
  const known = new Set(anchors.map(fingerprint));
  return [...anchors, ...more.filter((one) => !known.has(fingerprint(one)))];
}

async function makeOwn(
  trustDomain: string,
  nowMs: number,
): Promise<Pick<IdentityRecord, "root" | "anchors" | "issuer">> {
  const root = await makeRoot(trustDomain, nowMs);
  return { root, anchors: [root.certificate], issuer: await makeIssuer(root, trustDomain, nowMs) };
}

/** A key for the control plane's own identity; it stays in memory. */
export async function makeLeafKey(): Promise<{ publicKey: webcrypto.CryptoKey; privateKeyPem: string }> {
  const pair = await makeKeys();
  return { publicKey: pair.publicKey, privateKeyPem: await exportKey(pair.privateKey) };
}
