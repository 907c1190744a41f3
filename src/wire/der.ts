/** The few forms of DER (X.690) that certificates and requests for them need. Definite lengths, shortest form. */
export const Der = {
  sequence: (...parts: Uint8Array[]): Uint8Array => tagged(0x30, ...parts),
  set: (...parts: Uint8Array[]): Uint8Array => tagged(0x31, ...parts),
  integer: (value: number): Uint8Array => tagged(0x02, Uint8Array.of(value)),
  octetString: (...parts: Uint8Array[]): Uint8Array => tagged(0x04, ...parts),
  /** Whole bytes only. */
  bitString: (...parts: Uint8Array[]): Uint8Array => tagged(0x03, Uint8Array.of(0), ...parts),
  /** [number] constructed. */
  context: (number: number, ...parts: Uint8Array[]): Uint8Array => tagged(0xa0 | number, ...parts),
  /** [number] primitive: implicit strings such as a GeneralName's dNSName. */
  implicit: (number: number, text: string): Uint8Array => tagged(0x80 | number, Buffer.from(text, "latin1")),
  /** `1.2.840.10045.4.3.2`: the first two arcs share a byte, others are base 128. */
  oid(text: string): Uint8Array {
    const [first = 0, second = 0, ...rest] = text.split(".").map(Number);
    const bytes = [first * 40 + second];
    for (const arc of rest) {
      const groups = [arc & 0x7f];
      for (let left = arc >>> 7; left > 0; left >>>= 7) groups.unshift((left & 0x7f) | 0x80);
      bytes.push(...groups);
    }
    return tagged(0x06, Uint8Array.from(bytes));
  },
};

/** Any other form, by its identifier octet; up to 65,535 bytes. */
export function tagged(tag: number, ...parts: Uint8Array[]): Uint8Array {
  const length = parts.reduce((sum, part) => sum + part.length, 0);
  const head =
    length < 0x80
      ? [tag, length]
      : length < 0x100
        ? [tag, 0x81, length]
        : [tag, 0x82, length >> 8, length & 0xff];
  return Buffer.concat([Uint8Array.from(head), ...parts]);
}
