import { createHash, createPrivateKey, randomBytes, webcrypto, X509Certificate as Read } from "node:crypto";
import {
  AuthorityKeyIdentifierExtension,
  BasicConstraintsExtension,
  KeyUsageFlags,
  KeyUsagesExtension,
  SubjectAlternativeNameExtension,
  SubjectKeyIdentifierExtension,
  X509Certificate,
  X509CertificateGenerator,
} from "./x509.ts";
import type { Extension } from "./x509.ts";

const DAY_MS = 24 * 60 * 60 * 1000;

/** Lifetimes. The root outlives machines; the issuer is renewed when a third of its life is left; a leaf lives a day. */
export const ROOT_LIFE_MS: number = 3650 * DAY_MS;
export const ISSUER_LIFE_MS: number = 365 * DAY_MS;
export const LEAF_LIFE_MS: number = DAY_MS;
/**
 * How far a peer's clock may be behind ours: certificates begin this much in the past. Twice the five minutes that are promised, so
 * that one clock may be ahead by as much while another is behind.
 */
export const SKEW_MS: number = 10 * 60_000;

const EC = { name: "ECDSA", namedCurve: "P-256" } as const;

/** A certificate with its key, as it is kept. */
export interface KeyedCertificate {
  readonly certificate: X509Certificate;
  /** Further ones up to a root, without it. */
  readonly above: readonly X509Certificate[];
  readonly key: webcrypto.CryptoKey;
  readonly keyPem: string;
}

export async function makeKeys(): Promise<webcrypto.CryptoKeyPair> {
  return await webcrypto.subtle.generateKey(EC, true, ["sign", "verify"]);
}

export async function makeRoot(trustDomain: string, nowMs: number): Promise<KeyedCertificate> {
  const keys = await makeKeys();
  const certificate = await X509CertificateGenerator.createSelfSigned({
    serialNumber: serialNumber(),
    name: `CN=${commonName("root", trustDomain)}`,
    notBefore: new Date(nowMs - SKEW_MS),
    notAfter: new Date(nowMs + ROOT_LIFE_MS),
    keys,
    signingAlgorithm: signingAlgorithm(keys.privateKey),
    extensions: await authorityExtensions(trustDomain, keys.publicKey, 1),
  });
  return { certificate, above: [], key: keys.privateKey, keyPem: await exportKey(keys.privateKey) };
}

export async function makeIssuer(
  root: KeyedCertificate,
  trustDomain: string,
  nowMs: number,
): Promise<KeyedCertificate> {
  const keys = await makeKeys();
  const certificate = await X509CertificateGenerator.create({
    serialNumber: serialNumber(),
    subject: `CN=${commonName("identity", trustDomain)}`,
    issuer: root.certificate.subjectName,
    notBefore: new Date(nowMs - SKEW_MS),
    notAfter: new Date(Math.min(nowMs + ISSUER_LIFE_MS, root.certificate.notAfter.getTime())),
    publicKey: keys.publicKey,
    signingKey: root.key,
    signingAlgorithm: signingAlgorithm(root.key),
    extensions: [
      ...(await authorityExtensions(trustDomain, keys.publicKey, 0)),
      await AuthorityKeyIdentifierExtension.create(root.certificate.publicKey),
    ],
  });
  return { certificate, above: [], key: keys.privateKey, keyPem: await exportKey(keys.privateKey) };
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
export function serialNumber(): string {
  const bytes = randomBytes(16);
  bytes[0] = (bytes[0]! & 0x7f) | 0x40;
  return bytes.toString("hex");
}

/** What a key of this kind signs certificates with. */
export function signingAlgorithm({ algorithm }: webcrypto.CryptoKey): { name: string; hash: string } {
  const { namedCurve } = algorithm as { namedCurve?: string };
  return { name: algorithm.name, hash: namedCurve === "P-384" ? "SHA-384" : "SHA-256" };
}

/** Reads a certificate (with those above it, if any) and its key: ECDSA on P-256 or P-384, or RSA. Throws, saying what is wrong. */
export async function readKeyed(certificatePem: string, keyPem: string): Promise<KeyedCertificate> {
  const [certificate, ...above] = certificatesIn(certificatePem);
  if (certificate === undefined) throw new Error("it holds no certificate");
  const key = createPrivateKey(keyPem);
  if (!new Read(certificate.toString("pem")).checkPrivateKey(key))
    throw new Error("the key is not the certificate's");
  const curve = { prime256v1: "P-256", secp384r1: "P-384" }[key.asymmetricKeyDetails?.namedCurve ?? ""];
  if (key.asymmetricKeyType !== "rsa" && curve === undefined)
    throw new Error("the key is neither ECDSA on P-256 or P-384 nor RSA");
  const algorithm =
    curve === undefined
      ? { name: "RSASSA-PKCS1-v1_5", hash: "SHA-256" }
      : { name: "ECDSA", namedCurve: curve };
  const der = key.export({ type: "pkcs8", format: "der" });
  const imported = await webcrypto.subtle.importKey("pkcs8", der, algorithm, true, ["sign"]);
  return { certificate, above, key: imported, keyPem: await exportKey(imported) };
}

/** The certificates of a PEM text; other things in it and white space around it do not matter. */
export function certificatesIn(pem: string): X509Certificate[] {
  const blocks = pem.match(/-----BEGIN CERTIFICATE-----[^-]+-----END CERTIFICATE-----/g) ?? [];
  return blocks.map((block) => new X509Certificate(block));
}

export function pemOf(certificates: readonly X509Certificate[]): string {
  return certificates.map((certificate) => `${certificate.toString("pem")}\n`).join("");
}

export function derToPem(der: Uint8Array): string {
  return pemOf([new X509Certificate(Buffer.from(der))]);
}

/** SHA-256 of the DER, in hexadecimal: what a certificate is told from others by. */
export function fingerprint(certificate: X509Certificate): string {
  return createHash("sha256").update(new Uint8Array(certificate.rawData)).digest("hex");
}

/** Whether `certificate` was signed by `issuer`, by name and by signature. */
export function isIssuedBy(certificate: X509Certificate, issuer: X509Certificate): boolean {
  const below = new Read(certificate.toString("pem"));
  const above = new Read(issuer.toString("pem"));
  return below.checkIssued(above) && below.verify(above.publicKey);
}

export async function exportKey(key: webcrypto.CryptoKey): Promise<string> {
  const der = Buffer.from(await webcrypto.subtle.exportKey("pkcs8", key));
  return `-----BEGIN PRIVATE KEY-----\n${der.toString("base64").replace(/(.{64})(?=.)/g, "$1\n")}\n-----END PRIVATE KEY-----\n`;
}
