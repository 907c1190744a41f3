import { randomBytes, webcrypto } from "node:crypto";
import {
  AuthorityKeyIdentifierExtension,
  BasicConstraintsExtension,
  ExtendedKeyUsageExtension,
  KeyUsageFlags,
  KeyUsagesExtension,
  SubjectAlternativeNameExtension,
  SubjectKeyIdentifierExtension,
  X509Certificate,
  X509CertificateGenerator,
} from "./x509.ts";
import type { Extension, JsonGeneralName, PublicKey } from "./x509.ts";
import type { Identity } from "#/model/identity.ts";
import { dnsName, spiffeUri } from "#/model/identity.ts";
import type { StateFolder } from "../state-folder.ts";

const DAY_MS = 24 * 60 * 60 * 1000;

/** Lifetimes. The root outlives machines; the issuer is renewed when a third of its life is left; a leaf lives a day. */
export const ROOT_LIFE_MS: number = 3650 * DAY_MS;
export const ISSUER_LIFE_MS: number = 365 * DAY_MS;
export const LEAF_LIFE_MS: number = DAY_MS;
/** How far a peer's clock may be behind ours: certificates begin this much in the past. */
export const SKEW_MS: number = 60_000;

const EC = { name: "ECDSA", namedCurve: "P-256" } as const;
const SIGNING = { name: "ECDSA", hash: "SHA-256" } as const;

export interface Leaf {
  readonly der: Uint8Array;
  /** From the leaf's issuer upwards, without the root. */
  readonly intermediates: readonly Uint8Array[];
  readonly notAfterMs: number;
}

/** "dns" for a linkerd2-proxy, which takes the first and only SAN; "dns+spiffe" for our own sidecars (design §5). */
export type SanForm = "dns" | "dns+spiffe";

interface KeyedCertificate {
  readonly certificate: X509Certificate;
  readonly key: webcrypto.CryptoKey;
}

/**
 * The certificate authority of one mesh: a root kept for its whole life, and an issuer below it that signs leaves. Both
 * are made at first start and kept in the state folder, readable by the control plane's user alone.
 */
export class Authority {
  readonly #state: StateFolder;
  readonly #trustDomain: string;
  readonly #wallMs: () => number;
  readonly #root: KeyedCertificate;
  #issuer: KeyedCertificate;

  private constructor(
    state: StateFolder,
    trustDomain: string,
    wallMs: () => number,
    root: KeyedCertificate,
    issuer: KeyedCertificate,
  ) {
    this.#state = state;
    this.#trustDomain = trustDomain;
    this.#wallMs = wallMs;
    this.#root = root;
    this.#issuer = issuer;
  }

  /** Reads root and issuer, or makes what is missing. Throws when they are there and unusable: making new ones would cut off every running sidecar. */
  static async open(state: StateFolder, trustDomain: string, wallMs: () => number): Promise<Authority> {
    let root = await readKeyed(state, "root");
    if (root === null) {
      root = await makeRoot(trustDomain, wallMs());
      writeKeyed(state, "root", root, await exportKey(root.key));
    }
    let issuer = await readKeyed(state, "issuer");
    if (issuer === null) {
      issuer = await makeIssuer(root, trustDomain, wallMs());
      writeKeyed(state, "issuer", issuer, await exportKey(issuer.key));
    }
    const authority = new Authority(state, trustDomain, wallMs, root, issuer);
    await authority.renewIssuer();
    return authority;
  }

  get trustDomain(): string {
    return this.#trustDomain;
  }

  /** PEM of all roots that a peer's chain may end in. */
  get trustAnchorsPem(): string {
    return `${this.#root.certificate.toString("pem")}\n`;
  }

  /** PEM of the issuer, to send after a leaf. */
  get issuerPem(): string {
    return `${this.#issuer.certificate.toString("pem")}\n`;
  }

  get rootNotAfterMs(): number {
    return this.#root.certificate.notAfter.getTime();
  }

  get issuerNotAfterMs(): number {
    return this.#issuer.certificate.notAfter.getTime();
  }

  /** Makes a new issuer when less than a third of the present one's life is left. Peers notice nothing: the root stays. */
  async renewIssuer(): Promise<boolean> {
    const { notBefore, notAfter } = this.#issuer.certificate;
    const left = notAfter.getTime() - this.#wallMs();
    if (left > (notAfter.getTime() - notBefore.getTime()) / 3) return false;
    const issuer = await makeIssuer(this.#root, this.#trustDomain, this.#wallMs());
    writeKeyed(this.#state, "issuer", issuer, await exportKey(issuer.key));
    this.#issuer = issuer;
    return true;
  }

  /** Signs a leaf for `identity`. The caller has checked who asks and that the key is theirs. */
  async issue(identity: Identity, publicKey: PublicKey | webcrypto.CryptoKey, form: SanForm): Promise<Leaf> {
    const issuer = this.#issuer;
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
      notBefore: new Date(now - SKEW_MS),
      notAfter,
      publicKey,
      signingKey: issuer.key,
      signingAlgorithm: SIGNING,
      extensions,
    });
    return {
      der: new Uint8Array(certificate.rawData),
      intermediates: [new Uint8Array(issuer.certificate.rawData)],
      notAfterMs: notAfter.getTime(),
    };
  }
}

/** A key for the control plane's own identity; it stays in memory. */
export async function makeLeafKey(): Promise<{ publicKey: webcrypto.CryptoKey; privateKeyPem: string }> {
  const pair = await makeKeys();
  return { publicKey: pair.publicKey, privateKeyPem: await exportKey(pair.privateKey) };
}

export function derToPem(der: Uint8Array): string {
  return `${new X509Certificate(Buffer.from(der)).toString("pem")}\n`;
}

async function makeKeys(): Promise<webcrypto.CryptoKeyPair> {
  return await webcrypto.subtle.generateKey(EC, true, ["sign", "verify"]);
}

async function makeRoot(trustDomain: string, now: number): Promise<KeyedCertificate> {
  const keys = await makeKeys();
  const certificate = await X509CertificateGenerator.createSelfSigned({
    serialNumber: serialNumber(),
    name: `CN=${commonName("root", trustDomain)}`,
    notBefore: new Date(now - SKEW_MS),
    notAfter: new Date(now + ROOT_LIFE_MS),
    keys,
    signingAlgorithm: SIGNING,
    extensions: await authorityExtensions(trustDomain, keys.publicKey, 1),
  });
  return { certificate, key: keys.privateKey };
}

async function makeIssuer(
  root: KeyedCertificate,
  trustDomain: string,
  now: number,
): Promise<KeyedCertificate> {
  const keys = await makeKeys();
  const certificate = await X509CertificateGenerator.create({
    serialNumber: serialNumber(),
    subject: `CN=${commonName("identity", trustDomain)}`,
    issuer: root.certificate.subjectName,
    notBefore: new Date(now - SKEW_MS),
    notAfter: new Date(Math.min(now + ISSUER_LIFE_MS, root.certificate.notAfter.getTime())),
    publicKey: keys.publicKey,
    signingKey: root.key,
    signingAlgorithm: SIGNING,
    extensions: [
      ...(await authorityExtensions(trustDomain, keys.publicKey, 0)),
      await AuthorityKeyIdentifierExtension.create(root.certificate.publicKey),
    ],
  });
  return { certificate, key: keys.privateKey };
}

/** X.509-SVID §4: a signing certificate names its trust domain and no path, has cA and a critical keyCertSign. */
async function authorityExtensions(
  trustDomain: string,
  publicKey: webcrypto.CryptoKey,
  pathLength: number,
): Promise<Extension[]> {
  return [
    new BasicConstraintsExtension(true, pathLength, true),
    new KeyUsagesExtension(KeyUsageFlags.keyCertSign | KeyUsageFlags.cRLSign, true),
    new SubjectAlternativeNameExtension([{ type: "url", value: `spiffe://${trustDomain}` }]),
    await SubjectKeyIdentifierExtension.create(publicKey),
  ];
}

function commonName(role: string, trustDomain: string): string {
  return `${role}.pillion.${trustDomain}`.slice(0, 64);
}

/** RFC 5280 §4.1.2.2: positive, at most 20 octets; 127 random bits are unique without keeping a counter. */
function serialNumber(): string {
  const bytes = randomBytes(16);
  bytes[0] = (bytes[0]! & 0x7f) | 0x40;
  return bytes.toString("hex");
}

async function exportKey(key: webcrypto.CryptoKey): Promise<string> {
  const der = Buffer.from(await webcrypto.subtle.exportKey("pkcs8", key));
  return `-----BEGIN PRIVATE KEY-----\n${der.toString("base64").replace(/(.{64})(?=.)/g, "$1\n")}\n-----END PRIVATE KEY-----\n`;
}

async function readKeyed(state: StateFolder, name: string): Promise<KeyedCertificate | null> {
  const pem = state.readText(`${name}.crt`);
  const key = state.readText(`${name}.key`);
  if (pem === null && key === null) return null;
  if (pem === null || key === null)
    throw new Error(
      `the state folder has only one of ${name}.crt and ${name}.key; put the other back, or remove both to begin a new mesh`,
    );
  try {
    const der = Buffer.from(key.replace(/-----[^-]+-----|\s/g, ""), "base64");
    return {
      certificate: new X509Certificate(pem),
      key: await webcrypto.subtle.importKey("pkcs8", der, EC, true, ["sign"]),
    };
  } catch (error) {
    throw new Error(
      `${name}.crt or ${name}.key in the state folder cannot be read; put them back, or remove them to begin a new mesh`,
      { cause: error },
    );
  }
}

/** Both or neither, also over a crash: a root without its key would be a mesh that cannot go on. */
function writeKeyed(state: StateFolder, name: string, made: KeyedCertificate, keyPem: string): void {
  state.writeTogether([
    [`${name}.key`, keyPem],
    [`${name}.crt`, `${made.certificate.toString("pem")}\n`],
  ]);
}
