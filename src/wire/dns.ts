import { assert } from "#/base/assert.ts";
import { formatIp, parseIpBytes, type IpAddress } from "#/base/address.ts";
import { ProtocolError } from "#/base/errors.ts";

/** Record types by number (RFC 1035 §3.2.2, RFC 3596, RFC 2782, RFC 6891). */
export const DnsType = {
  A: 1,
  NS: 2,
  CNAME: 5,
  SOA: 6,
  PTR: 12,
  MX: 15,
  TXT: 16,
  AAAA: 28,
  SRV: 33,
  OPT: 41,
  ANY: 255,
} as const;

/** Response codes (RFC 1035 §4.1.1, RFC 6891 §9). */
export const DnsCode = {
  NOERROR: 0,
  FORMERR: 1,
  SERVFAIL: 2,
  NXDOMAIN: 3,
  NOTIMP: 4,
  REFUSED: 5,
  BADVERS: 16,
} as const;

export const DNS_CLASS_IN = 1;

/**
 * A name is text: labels joined by ".", no dot at the end, "" for the root. Case is kept (a resolver may use it as a nonce), so
 * compare in lower case. A "." or "\" inside a label is written "\." and "\\", other bytes outside visible ASCII "\DDD".
 */
export interface DnsQuestion {
  readonly name: string;
  /** `DnsType`, or any other number. */
  readonly type: number;
  readonly class: number;
}

/** What a record says, by its type; types that we do not read are kept as bytes. */
export type DnsData =
  | { readonly kind: "A" | "AAAA"; readonly address: IpAddress }
  | { readonly kind: "NS" | "CNAME" | "PTR"; readonly target: string }
  | {
      readonly kind: "SRV";
      readonly priority: number;
      readonly weight: number;
      readonly port: number;
      readonly target: string;
    }
  | {
      readonly kind: "SOA";
      readonly primary: string;
      readonly mailbox: string;
      readonly serial: number;
      readonly refreshS: number;
      readonly retryS: number;
      readonly expireS: number;
      /** How long a negative answer may be kept (RFC 2308 §4). */
      readonly minimumS: number;
    }
  | { readonly kind: "TXT"; readonly texts: readonly Uint8Array[] }
  /** Bytes that may hold compressed names cannot be sent on in another message. */
  | { readonly kind: "other"; readonly type: number; readonly bytes: Uint8Array };

export interface DnsRecord {
  readonly name: string;
  readonly class: number;
  readonly ttlS: number;
  readonly data: DnsData;
}

/** The OPT pseudo-record (RFC 6891 §6.1); options are not read. */
export interface DnsEdns {
  /** How large a UDP message the sender can take. */
  readonly payloadBytes: number;
  readonly version: number;
  readonly dnssecOk: boolean;
}

export interface DnsMessage {
  readonly id: number;
  readonly isResponse: boolean;
  readonly opcode: number;
  readonly isAuthoritative: boolean;
  readonly isTruncated: boolean;
  readonly recursionDesired: boolean;
  readonly recursionAvailable: boolean;
  /** Of 12 bits when there is EDNS, else of 4. */
  readonly code: number;
  readonly questions: readonly DnsQuestion[];
  readonly answers: readonly DnsRecord[];
  readonly authorities: readonly DnsRecord[];
  readonly additionals: readonly DnsRecord[];
  readonly edns: DnsEdns | null;
}

export type DnsResult =
  | { readonly kind: "message"; readonly message: DnsMessage }
  /** `id` of the message as far as it has one, so that FORMERR can be answered. */
  | { readonly kind: "error"; readonly error: ProtocolError; readonly id: number | null };

/** Without EDNS a UDP message has no more than this (RFC 1035 §4.2.1). */
export const DNS_UDP_BYTES_MAX = 512;

/** Reads one message. Never throws; what it returns is bounded by the size of the message. */
export function decodeDns(bytes: Uint8Array, start = 0, stop = bytes.length): DnsResult {
  const reader = new Reader(bytes, start, stop);
  const id = reader.uint16();
  const flags = reader.uint16();
  const counts = [reader.uint16(), reader.uint16(), reader.uint16(), reader.uint16()] as const;
  if (reader.why !== "") return failed(stop - start >= 2 ? id : null, reader.why);

  const questions: DnsQuestion[] = [];
  for (let i = 0; i < counts[0] && reader.why === ""; i++) {
    questions.push({ name: reader.name(), type: reader.uint16(), class: reader.uint16() });
  }
  const sections: [DnsRecord[], DnsRecord[], DnsRecord[]] = [[], [], []];
  const opt: Opt = { edns: null, codeHigh: 0 };
  for (const section of [0, 1, 2] as const) {
    for (let i = 0; i < (counts[section + 1] as number) && reader.why === ""; i++) {
      readRecord(reader, sections[section], section === 2 ? opt : null);
    }
  }
  if (reader.why !== "") return failed(id, reader.why);
  const [answers, authorities, additionals] = sections;
  const message: DnsMessage = {
    id,
    isResponse: (flags & 0x8000) !== 0,
    opcode: (flags >> 11) & 15,
    isAuthoritative: (flags & 0x0400) !== 0,
    isTruncated: (flags & 0x0200) !== 0,
    recursionDesired: (flags & 0x0100) !== 0,
    recursionAvailable: (flags & 0x0080) !== 0,
    code: (opt.codeHigh << 4) | (flags & 15),
    questions,
    answers,
    authorities,
    additionals,
    edns: opt.edns,
  };
  return { kind: "message", message };
}

/**
 * Writes a message of at most `bytesMax` bytes. Records that do not fit are left out from the first that does not, and
 * when one of the answers or authorities is, the message is marked truncated (RFC 2181 §9). Questions and EDNS always fit:
 * `bytesMax` is at least 512. A name that cannot be written is a bug of the caller: check with `isWritableName`.
 */
export function encodeDns(message: DnsMessage, bytesMax: number): Uint8Array {
  assert(bytesMax >= DNS_UDP_BYTES_MAX && bytesMax <= 65535, `a DNS message of ${bytesMax} bytes`);
  const writer = new Writer(bytesMax);
  writer.skip(HEAD_BYTES);
  for (const question of message.questions) {
    writer.name(question.name, true);
    writer.uint16(question.type);
    writer.uint16(question.class);
  }
  assert(!writer.isFull, "the questions of a DNS message do not fit");
  // The place for OPT is kept free: without it the answer would mean something else.
  writer.limit -= message.edns === null ? 0 : OPT_BYTES;
  const counts: [number, number, number] = [0, 0, 0];
  const sections = [message.answers, message.authorities, message.additionals] as const;
  let truncated = message.isTruncated;
  for (const section of [0, 1, 2] as const) {
    if (writer.isFull) break;
    for (const record of sections[section]) {
      const before = writer.at;
      writeRecord(writer, record);
      if (writer.isFull) {
        writer.at = before;
        truncated ||= section < 2;
        break;
      }
      counts[section]++;
    }
  }
  writer.isFull = false;
  writer.limit = bytesMax;
  if (message.edns !== null) {
    writeOpt(writer, message.edns, message.code >> 4);
    counts[2]++;
  }
  const end = writer.at;
  writer.at = 0;
  writer.uint16(message.id);
  writer.uint16(
    (message.isResponse ? 0x8000 : 0) |
      ((message.opcode & 15) << 11) |
      (message.isAuthoritative ? 0x0400 : 0) |
      (truncated ? 0x0200 : 0) |
      (message.recursionDesired ? 0x0100 : 0) |
      (message.recursionAvailable ? 0x0080 : 0) |
      (message.code & 15),
  );
  writer.uint16(message.questions.length);
  for (const count of counts) writer.uint16(count);
  return writer.bytes.slice(0, end);
}

/** Whether `name` has the form that `DnsQuestion` describes and fits (RFC 1035 §2.3.4). */
export function isWritableName(name: string): boolean {
  return labelsOf(name) !== null;
}

const HEAD_BYTES = 12;
const OPT_BYTES = 11;
const V4_MAPPED = Uint8Array.of(0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff);
const LABEL_BYTES_MAX = 63;
/** With the length bytes and the root's (RFC 1035 §2.3.4). */
const NAME_BYTES_MAX = 255;

interface Opt {
  edns: DnsEdns | null;
  codeHigh: number;
}

function failed(id: number | null, why: string): DnsResult {
  return { kind: "error", error: new ProtocolError("DNS_MESSAGE_INVALID", why), id };
}

function readRecord(reader: Reader, into: DnsRecord[], opt: Opt | null): void {
  const name = reader.name();
  const type = reader.uint16();
  const recordClass = reader.uint16();
  const ttl = reader.uint32();
  const size = reader.uint16();
  const end = reader.at + size;
  if (end > reader.stop) reader.fail("a record is cut short");
  if (reader.why !== "") return;
  if (type === DnsType.OPT) {
    // RFC 6891 §6.1.1: one, in the additional section, owned by the root.
    if (opt === null || opt.edns !== null || name !== "") reader.fail("a misplaced OPT record");
    else {
      opt.codeHigh = ttl >>> 24;
      opt.edns = {
        payloadBytes: Math.max(recordClass, DNS_UDP_BYTES_MAX), // RFC 6891 §6.2.3: less than 512 means 512
        version: (ttl >>> 16) & 0xff,
        dnssecOk: (ttl & 0x8000) !== 0,
      };
    }
    reader.at = end;
    return;
  }
  const data = readData(reader, type, end);
  if (reader.at !== end) reader.fail("a record's length does not fit its content");
  // RFC 2181 §8: a TTL has 31 bits; with the highest set it counts as zero.
  into.push({ name, class: recordClass, ttlS: ttl > 0x7fff_ffff ? 0 : ttl, data });
}

function readData(reader: Reader, type: number, end: number): DnsData {
  switch (type) {
    case DnsType.A:
      return { kind: "A", address: formatIp(reader.take(4)) };
    case DnsType.AAAA:
      return { kind: "AAAA", address: formatIp(reader.take(16)) };
    case DnsType.NS:
      return { kind: "NS", target: reader.name() };
    case DnsType.CNAME:
      return { kind: "CNAME", target: reader.name() };
    case DnsType.PTR:
      return { kind: "PTR", target: reader.name() };
    case DnsType.SRV: {
      const [priority, weight, port] = [reader.uint16(), reader.uint16(), reader.uint16()];
      return { kind: "SRV", priority, weight, port, target: reader.name() };
    }
    case DnsType.SOA: {
      const [primary, mailbox, serial] = [reader.name(), reader.name(), reader.uint32()];
      const [refreshS, retryS, expireS] = [reader.uint32(), reader.uint32(), reader.uint32()];
      return { kind: "SOA", primary, mailbox, serial, refreshS, retryS, expireS, minimumS: reader.uint32() };
    }
    case DnsType.TXT: {
      const texts: Uint8Array[] = [];
      while (reader.at < end && reader.why === "") texts.push(reader.take(reader.uint8()));
      return { kind: "TXT", texts };
    }
    default:
      return { kind: "other", type, bytes: reader.take(end - reader.at) };
  }
}

/** Reading past the end gives zeros and sets `why`; nothing is read after that. */
class Reader {
  readonly bytes: Uint8Array;
  readonly start: number;
  readonly stop: number;
  at: number;
  why = "";

  constructor(bytes: Uint8Array, start: number, stop: number) {
    this.bytes = bytes;
    this.start = start;
    this.stop = stop;
    this.at = start;
  }

  fail(why: string): void {
    if (this.why === "") this.why = why;
  }

  uint8(): number {
    if (this.at >= this.stop) {
      this.fail("the message is cut short");
      return 0;
    }
    return this.bytes[this.at++] as number;
  }

  uint16(): number {
    return (this.uint8() << 8) | this.uint8();
  }

  uint32(): number {
    return this.uint16() * 0x1_0000 + this.uint16();
  }

  /** A copy, so that a record does not hold the whole datagram. */
  take(size: number): Uint8Array {
    if (size < 0 || size > this.stop - this.at) {
      this.fail("the message is cut short");
      return new Uint8Array(size === 16 ? 16 : 4);
    }
    this.at += size;
    return this.bytes.slice(this.at - size, this.at);
  }

  /** RFC 1035 §4.1.4. Each pointer must lead further back than the one before, so that no loop can be. */
  name(): string {
    let text = "";
    let nameBytes = 1;
    let after = -1;
    let lowest = this.at;
    while (this.why === "") {
      const size = this.uint8();
      if (size === 0) break;
      if (size >= 0xc0) {
        const target = this.start + (((size & 0x3f) << 8) | this.uint8());
        if (after === -1) after = this.at;
        if (target >= lowest) this.fail("a compressed name does not point back");
        lowest = target;
        this.at = target;
        continue;
      }
      if (size > LABEL_BYTES_MAX) this.fail("a label of an unknown kind");
      else if ((nameBytes += 1 + size) > NAME_BYTES_MAX) this.fail("a name is too long");
      else if (size > this.stop - this.at) this.fail("the message is cut short");
      else {
        text += `${text === "" ? "" : "."}${labelText(this.bytes, this.at, this.at + size)}`;
        this.at += size;
      }
    }
    if (after !== -1) this.at = after;
    return this.why === "" ? text : "";
  }
}

function labelText(bytes: Uint8Array, start: number, stop: number): string {
  let text = "";
  for (let i = start; i < stop; i++) {
    const byte = bytes[i] as number;
    if (byte === 0x2e || byte === 0x5c) text += `\\${String.fromCharCode(byte)}`;
    else if (byte > 0x20 && byte < 0x7f) text += String.fromCharCode(byte);
    else text += `\\${String(byte).padStart(3, "0")}`;
  }
  return text;
}

/** The labels' bytes; null when the text is no name. */
function labelsOf(name: string): number[][] | null {
  if (name === "") return [];
  const labels: number[][] = [[]];
  let nameBytes = 2;
  for (let i = 0; i < name.length; i++) {
    let byte = name.charCodeAt(i);
    if (byte === 0x2e) {
      labels.push([]);
      nameBytes++;
      continue;
    }
    if (byte === 0x5c) {
      const digits = name.slice(i + 1, i + 4);
      const isNumber = /^[0-9]{3}$/.test(digits);
      byte = isNumber ? Number(digits) : name.charCodeAt(i + 1);
      i += isNumber ? 3 : 1;
    }
    // Not a number at the end of the text, where `byte` is NaN.
    if (!(byte <= 0xff)) return null;
    (labels.at(-1) as number[]).push(byte);
    if (++nameBytes > NAME_BYTES_MAX) return null;
  }
  return labels.every((label) => label.length >= 1 && label.length <= LABEL_BYTES_MAX) ? labels : null;
}

function writeRecord(writer: Writer, record: DnsRecord): void {
  const { data } = record;
  writer.name(record.name, true);
  writer.uint16(data.kind === "other" ? data.type : DnsType[data.kind]);
  writer.uint16(record.class);
  writer.uint32(record.ttlS);
  const sizeAt = writer.at;
  writer.uint16(0);
  writeData(writer, data);
  if (writer.isFull) return;
  const end = writer.at;
  writer.at = sizeAt;
  writer.uint16(end - sizeAt - 2);
  writer.at = end;
}

function writeData(writer: Writer, data: DnsData): void {
  switch (data.kind) {
    case "A":
    case "AAAA": {
      const bytes = parseIpBytes(data.address);
      // Our text of a v4-mapped IPv6 address is the IPv4 one; such an AAAA record may be read and sent on.
      if (data.kind === "AAAA" && bytes?.length === 4) writer.put(V4_MAPPED);
      else assert(bytes?.length === (data.kind === "A" ? 4 : 16), `${data.address} as ${data.kind}`);
      return writer.put(bytes);
    }
    case "NS":
    case "CNAME":
    case "PTR":
      return writer.name(data.target, true);
    case "SRV":
      for (const number of [data.priority, data.weight, data.port]) writer.uint16(number);
      return writer.name(data.target, false); // RFC 2782: no compression here
    case "SOA":
      writer.name(data.primary, true);
      writer.name(data.mailbox, true);
      for (const n of [data.serial, data.refreshS, data.retryS, data.expireS, data.minimumS])
        writer.uint32(n);
      return;
    case "TXT":
      for (const text of data.texts) {
        assert(text.length <= 255, "a TXT string over 255 bytes");
        writer.uint8(text.length);
        writer.put(text);
      }
      return;
    case "other":
      return writer.put(data.bytes);
  }
}

function writeOpt(writer: Writer, edns: DnsEdns, codeHigh: number): void {
  writer.uint8(0);
  writer.uint16(DnsType.OPT);
  writer.uint16(edns.payloadBytes);
  writer.uint32(codeHigh * 0x100_0000 + edns.version * 0x1_0000 + (edns.dnssecOk ? 0x8000 : 0));
  writer.uint16(0);
}

/** Writing past `limit` writes nothing and sets `isFull`. */
class Writer {
  readonly bytes: Uint8Array;
  at = 0;
  limit: number;
  isFull = false;
  /** Where a name, in lower case, was written whole; only places that a pointer can reach. */
  readonly #places = new Map<string, number>();

  constructor(bytesMax: number) {
    this.bytes = new Uint8Array(bytesMax);
    this.limit = bytesMax;
  }

  skip(size: number): void {
    this.at += size;
  }

  uint8(value: number): void {
    if (this.at >= this.limit) this.isFull = true;
    else this.bytes[this.at++] = value;
  }

  uint16(value: number): void {
    this.uint8(value >> 8);
    this.uint8(value);
  }

  uint32(value: number): void {
    this.uint16(value >>> 16);
    this.uint16(value & 0xffff);
  }

  put(bytes: Uint8Array): void {
    if (this.at + bytes.length > this.limit) this.isFull = true;
    else {
      this.bytes.set(bytes, this.at);
      this.at += bytes.length;
    }
  }

  /** RFC 1035 §4.1.4. The same spelling only, so that the case of a name is kept. */
  name(name: string, compress: boolean): void {
    const labels = labelsOf(name);
    assert(labels !== null, "a name that cannot be written");
    for (let i = 0; i < labels.length; i++) {
      const rest = labels.slice(i).join(".");
      const place = this.#places.get(rest);
      // A place after `at` belongs to a record that was taken back.
      if (compress && place !== undefined && place < this.at) return this.uint16(0xc000 | place);
      if (!this.isFull && this.at < 0x4000) this.#places.set(rest, this.at);
      const label = labels[i] as number[];
      this.uint8(label.length);
      for (const byte of label) this.uint8(byte);
    }
    this.uint8(0);
  }
}
