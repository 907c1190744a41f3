import { latin1 } from "./latin1.ts";

/** RFC 5280 §4.2.1.3, as bits of `CertificateFacts.keyUsage`: bit n of the standard is 1 << n here. */
export const KeyUsage = { DIGITAL_SIGNATURE: 1, KEY_CERT_SIGN: 1 << 5, CRL_SIGN: 1 << 6 } as const;

/** What a certificate says about whom it is for and what it may do. Nothing here is verified. */
export interface CertificateFacts {
  /** basicConstraints: cA. */
  readonly isAuthority: boolean;
  /** Certificates that may stand between this one and a leaf; null: as many as wanted. */
  readonly pathLength: number | null;
  /** Null: the extension is not there, which forbids nothing. */
  readonly keyUsage: number | null;
  readonly isKeyUsageCritical: boolean;
  /** Object identifiers in dots; null: the extension is not there. */
  readonly extendedKeyUsage: readonly string[] | null;
  /** dNSName and uniformResourceIdentifier of subjectAltName, byte for byte, in the order of the certificate. */
  readonly names: readonly { readonly kind: "dns" | "uri"; readonly value: string }[];
  readonly notBeforeMs: number;
  readonly notAfterMs: number;
}

const CERTIFICATE_BYTES_MAX = 64 * 1024;
const NAMES_MAX = 64;
const KINDS_MAX = 64;

/**
 * Reads an X.509 certificate (RFC 5280 §4.1) from its DER. Names are taken from the bytes, never from a text that somebody made of
 * them: in such texts a name can hold what looks like another (CVE-2021-44532). Null when the structure is not what it must be.
 */
export function readCertificate(der: Uint8Array): CertificateFacts | null {
  if (der.length > CERTIFICATE_BYTES_MAX) return null;
  try {
    const outer = new Der(der);
    const certificate = outer.enter(Tag.SEQUENCE);
    outer.expectEnd();
    const facts = readTbs(certificate.enter(Tag.SEQUENCE));
    certificate.skip(); // signatureAlgorithm
    certificate.bytes(Tag.BIT_STRING);
    certificate.expectEnd();
    return facts;
  } catch (error) {
    if (error instanceof Malformed) return null;
    throw error;
  }
}

function readTbs(tbs: Der): CertificateFacts {
  if (tbs.tag === Tag.CONTEXT_0) tbs.skip();
  tbs.skip(); // serialNumber
  tbs.skip(); // signature
  tbs.skip(); // issuer
  const validity = tbs.enter(Tag.SEQUENCE);
  const notBeforeMs = readTime(validity);
  const notAfterMs = readTime(validity);
  tbs.skip(); // subject
  tbs.skip(); // subjectPublicKeyInfo
  const facts = {
    isAuthority: false,
    pathLength: null as number | null,
    keyUsage: null as number | null,
    isKeyUsageCritical: false,
    extendedKeyUsage: null as string[] | null,
    names: [] as { kind: "dns" | "uri"; value: string }[],
    notBeforeMs,
    notAfterMs,
  };
  while (!tbs.isAtEnd && tbs.tag !== Tag.CONTEXT_3) tbs.skip(); // issuerUniqueID, subjectUniqueID
  if (tbs.isAtEnd) return facts;
  const seen = new Set<string>();
  const extensions = tbs.enter(Tag.CONTEXT_3).enter(Tag.SEQUENCE);
  while (!extensions.isAtEnd) {
    const extension = extensions.enter(Tag.SEQUENCE);
    const id = readOid(extension);
    // RFC 5280 §4.2: a certificate must not hold an extension twice.
    if (seen.has(id)) throw new Malformed();
    seen.add(id);
    const isCritical = extension.tag === Tag.BOOLEAN && extension.bytes(Tag.BOOLEAN)[0] !== 0;
    const value = new Der(extension.bytes(Tag.OCTET_STRING));
    if (id === "2.5.29.19") {
      const constraints = value.enter(Tag.SEQUENCE);
      if (!constraints.isAtEnd && constraints.tag === Tag.BOOLEAN)
        facts.isAuthority = constraints.bytes(Tag.BOOLEAN)[0] !== 0;
      if (!constraints.isAtEnd) facts.pathLength = readSmall(constraints);
    } else if (id === "2.5.29.15") {
      facts.keyUsage = readBits(value);
      facts.isKeyUsageCritical = isCritical;
    } else if (id === "2.5.29.37") {
      const kinds = value.enter(Tag.SEQUENCE);
      facts.extendedKeyUsage = [];
      while (!kinds.isAtEnd) {
        if (facts.extendedKeyUsage.length === KINDS_MAX) throw new Malformed();
        facts.extendedKeyUsage.push(readOid(kinds));
      }
    } else if (id === "2.5.29.17") {
      const names = value.enter(Tag.SEQUENCE);
      while (!names.isAtEnd) {
        if (facts.names.length === NAMES_MAX) throw new Malformed();
        if (names.tag === Tag.DNS_NAME)
          facts.names.push({ kind: "dns", value: text(names.bytes(Tag.DNS_NAME)) });
        else if (names.tag === Tag.URI) facts.names.push({ kind: "uri", value: text(names.bytes(Tag.URI)) });
        else names.skip();
      }
    }
  }
  return facts;
}

const Tag = {
  BOOLEAN: 0x01,
  INTEGER: 0x02,
  BIT_STRING: 0x03,
  OCTET_STRING: 0x04,
  OID: 0x06,
  UTC_TIME: 0x17,
  GENERALIZED_TIME: 0x18,
  SEQUENCE: 0x30,
  DNS_NAME: 0x82,
  URI: 0x86,
  CONTEXT_0: 0xa0,
  CONTEXT_3: 0xa3,
} as const;

class Malformed extends Error {}

/** Elements one after another (X.690): definite lengths only, in their shortest form, and one-byte tags. */
class Der {
  readonly #bytes: Uint8Array;
  #at = 0;

  constructor(bytes: Uint8Array) {
    this.#bytes = bytes;
  }

  get isAtEnd(): boolean {
    return this.#at >= this.#bytes.length;
  }

  /** Of the next element; -1 at the end. */
  get tag(): number {
    return this.#bytes[this.#at] ?? -1;
  }

  expectEnd(): void {
    if (!this.isAtEnd) throw new Malformed();
  }

  enter(tag: number): Der {
    return new Der(this.bytes(tag));
  }

  skip(): void {
    this.bytes(this.tag);
  }

  /** The next element's contents, which must have this tag. */
  bytes(tag: number): Uint8Array {
    if (this.isAtEnd || this.tag !== tag || (tag & 0x1f) === 0x1f) throw new Malformed();
    let at = this.#at + 1;
    let length = this.#byte(at++);
    if (length >= 0x80) {
      const count = length & 0x7f;
      // X.690 §10.1: definite, shortest. Two bytes hold more than the longest certificate that is read.
      if (count === 0 || count > 2) throw new Malformed();
      length = this.#byte(at++);
      if (count === 2) length = (length << 8) | this.#byte(at++);
      if (length < (count === 1 ? 0x80 : 0x100)) throw new Malformed();
    }
    if (at + length > this.#bytes.length) throw new Malformed();
    this.#at = at + length;
    return this.#bytes.subarray(at, this.#at);
  }

  #byte(at: number): number {
    const byte = this.#bytes[at];
    if (byte === undefined) throw new Malformed();
    return byte;
  }
}

function readOid(der: Der): string {
  const bytes = der.bytes(Tag.OID);
  if (bytes.length === 0 || bytes.length > 32) throw new Malformed();
  const arcs: number[] = [];
  let arc = 0;
  for (const byte of bytes) {
    arc = arc * 128 + (byte & 0x7f);
    if (byte >= 0x80) continue;
    if (arcs.length > 0) arcs.push(arc);
    else {
      // X.690 §8.19.4: the first two share a number.
      const first = Math.min(2, Math.floor(arc / 40));
      arcs.push(first, arc - 40 * first);
    }
    arc = 0;
  }
  if (((bytes.at(-1) as number) & 0x80) !== 0) throw new Malformed();
  return arcs.join(".");
}

/** 0 to 127: nobody means a longer chain. */
function readSmall(der: Der): number {
  const bytes = der.bytes(Tag.INTEGER);
  if (bytes.length !== 1 || (bytes[0] as number) > 0x7f) throw new Malformed();
  return bytes[0] as number;
}

/** The first eight bits of a BIT STRING, the first one lowest. */
function readBits(der: Der): number {
  const bytes = der.bytes(Tag.BIT_STRING);
  if (bytes.length < 1 || (bytes[0] as number) > 7) throw new Malformed();
  const first = bytes[1] ?? 0;
  let bits = 0;
  for (let i = 0; i < 8; i++) if ((first & (0x80 >> i)) !== 0) bits |= 1 << i;
  return bits;
}

/** RFC 5280 §4.1.2.5: in Zulu and with seconds, years of two digits from 1950 on. */
function readTime(der: Der): number {
  const isUtc = der.tag === Tag.UTC_TIME;
  const time = text(der.bytes(isUtc ? Tag.UTC_TIME : Tag.GENERALIZED_TIME));
  const match = (
    isUtc ? /^(\d\d)(\d\d)(\d\d)(\d\d)(\d\d)(\d\d)Z$/ : /^(\d{4})(\d\d)(\d\d)(\d\d)(\d\d)(\d\d)Z$/
  ).exec(time);
  if (match === null) throw new Malformed();
  const [year = 0, month = 0, day = 0, hour = 0, minute = 0, second = 0] = match.slice(1).map(Number);
  return Date.UTC(isUtc ? year + (year < 50 ? 2000 : 1900) : year, month - 1, day, hour, minute, second);
}

function text(bytes: Uint8Array): string {
  return latin1(bytes, 0, bytes.length);
}
