/**
 * The Huffman code of RFC 7541 Appendix B. It is canonical: within one length, codes follow the symbols' order, and
 * a longer code continues counting where the shorter ones ended. So the lengths alone are the whole table.
 */

const EOS = 256;

/** Symbols by code length, ascending within a length. */
const SYMBOLS_BY_BITS: readonly (readonly [bits: number, symbols: readonly number[]])[] = [
  [5, ascii("012aceiost")],
  [6, ascii(" %-./3456789=A_bdfghlmnpru")],
  [7, ascii(":BCDEFGHIJKLMNOPQRSTUVWYjkqvwxyz")],
  [8, ascii("&*,;XZ")],
  [10, ascii('!"()?')],
  [11, ascii("'+|")],
  [12, ascii("#>")],
  [13, [0, ...ascii("$@[]~")]],
  [14, ascii("^}")],
  [15, ascii("<`{")],
  [19, [92, 195, 208]],
  [20, [128, 130, 131, 162, 184, 194, 224, 226]],
  [21, [153, 161, 167, 172, 176, 177, 179, 209, 216, 217, 227, 229, 230]],
  [
    22,
    [
      129, 132, 133, 134, 136, 146, 154, 156, 160, 163, 164, 169, 170, 173, 178, 181, 185, 186, 187, 189, 190,
      196, 198, 228, 232, 233,
    ],
  ],
  [
    23,
    [
      1, 135, 137, 138, 139, 140, 141, 143, 147, 149, 150, 151, 152, 155, 157, 158, 165, 166, 168, 174, 175,
      180, 182, 183, 188, 191, 197, 231, 239,
    ],
  ],
  [24, [9, 142, 144, 145, 148, 159, 171, 206, 215, 225, 236, 237]],
  [25, [199, 207, 234, 235]],
  [26, [192, 193, 200, 201, 202, 205, 210, 213, 218, 219, 238, 240, 242, 243, 255]],
  [27, [203, 204, 211, 212, 214, 221, 222, 223, 241, 244, 245, 246, 247, 248, 250, 251, 252, 253, 254]],
  [
    28,
    [
      2, 3, 4, 5, 6, 7, 8, 11, 12, 14, 15, 16, 17, 18, 19, 20, 21, 23, 24, 25, 26, 27, 28, 29, 30, 31, 127,
      220, 249,
    ],
  ],
  [30, [10, 13, 22, EOS]],
];

const BITS_MAX = 30;
/** Code and its length of every symbol; index 256 is EOS. */
const CODE = new Uint32Array(257);
const BITS = new Uint8Array(257);
/** Canonical decoding: for each length the first code, how many there are, and where its symbols begin in `SYMBOLS`. */
const FIRST_CODE = new Int32Array(BITS_MAX + 1);
const CODES = new Int32Array(BITS_MAX + 1);
const FIRST_SYMBOL = new Int32Array(BITS_MAX + 1);
const SYMBOLS = new Uint16Array(257);
/** By the next 8 bits: `bits << 8 | symbol` where a code of at most 8 bits begins there, else 0. */
const SHORT = new Uint16Array(256);

build();

/**
 * Decodes `bytes[start, stop)` into `into` from 0 on; gives how many bytes came out, or -1 when the input is no valid
 * code. `into` must hold `huffmanDecodedBytesMax(stop - start)` bytes.
 */
export function huffmanDecode(bytes: Uint8Array, start: number, stop: number, into: Uint8Array): number {
  let out = 0;
  // The low `bitCount` bits of `window` are read but not decoded; fewer than 8 between bytes.
  let window = 0;
  let bitCount = 0;
  let at = start;
  while (at < stop) {
    window = ((window & 0xff) << 8) | bytes[at++]!;
    bitCount += 8;
    while (bitCount >= 8) {
      const short = SHORT[(window >>> (bitCount - 8)) & 0xff]!;
      if (short !== 0) {
        bitCount -= short >>> 8;
        into[out++] = short & 0xff;
        continue;
      }
      // A code of 10 to 30 bits: rare in header text, so bit by bit.
      let code = (window >>> (bitCount - 8)) & 0xff;
      bitCount -= 8;
      let bits = 8;
      let symbol = -1;
      while (symbol < 0) {
        if (bitCount === 0) {
          // RFC 7541 §5.2: more than 7 bits of padding, or a code cut short, is an error.
          if (at === stop) return -1;
          window = bytes[at++]!;
          bitCount = 8;
        }
        bitCount--;
        code = (code << 1) | ((window >>> bitCount) & 1);
        if (++bits > BITS_MAX) return -1;
        const index = code - FIRST_CODE[bits]!;
        if (index >= 0 && index < CODES[bits]!) symbol = SYMBOLS[FIRST_SYMBOL[bits]! + index]!;
      }
      // RFC 7541 §5.2: a string that contains EOS is an error.
      if (symbol === EOS) return -1;
      into[out++] = symbol;
    }
  }
  while (bitCount >= 5) {
    const short = SHORT[((window << (8 - bitCount)) | ((1 << (8 - bitCount)) - 1)) & 0xff]!;
    if (short === 0 || short >>> 8 > bitCount) break;
    bitCount -= short >>> 8;
    into[out++] = short & 0xff;
  }
  // RFC 7541 §5.2: padding is the most significant bits of EOS, all ones.
  const padding = (1 << bitCount) - 1;
  return (window & padding) === padding ? out : -1;
}

/** The shortest code has 5 bits. */
export function huffmanDecodedBytesMax(encodedBytes: number): number {
  return Math.floor((encodedBytes * 8) / 5);
}

/** How many bytes `text` (latin1) takes encoded. */
export function huffmanEncodedBytes(text: string): number {
  let bits = 0;
  for (let i = 0; i < text.length; i++) bits += BITS[text.charCodeAt(i) & 0xff]!;
  return (bits + 7) >>> 3;
}

/** Writes `text` (latin1) from `at` on, which must have room for `huffmanEncodedBytes(text)`; gives the end. */
export function huffmanEncode(text: string, into: Uint8Array, at: number): number {
  let window = 0;
  let bitCount = 0;
  for (let i = 0; i < text.length; i++) {
    const symbol = text.charCodeAt(i) & 0xff;
    let code = CODE[symbol]!;
    let bits = BITS[symbol]!;
    if (bits > 16) {
      // 7 bits left over and 30 new ones do not fit 32: take the upper part first.
      bits -= 16;
      window = (window << bits) | (code >>> 16);
      bitCount += bits;
      while (bitCount >= 8) {
        bitCount -= 8;
        into[at++] = window >>> bitCount;
      }
      window &= 0xff;
      code &= 0xffff;
      bits = 16;
    }
    window = ((window & 0xff) << bits) | code;
    bitCount += bits;
    while (bitCount >= 8) {
      bitCount -= 8;
      into[at++] = window >>> bitCount;
    }
  }
  if (bitCount > 0) into[at++] = (window << (8 - bitCount)) | ((1 << (8 - bitCount)) - 1);
  return at;
}

function build(): void {
  let code = 0;
  let bitsBefore = 0;
  let symbolCount = 0;
  for (const [bits, symbols] of SYMBOLS_BY_BITS) {
    code *= 2 ** (bits - bitsBefore);
    bitsBefore = bits;
    FIRST_CODE[bits] = code;
    CODES[bits] = symbols.length;
    FIRST_SYMBOL[bits] = symbolCount;
    for (const symbol of symbols) {
      SYMBOLS[symbolCount++] = symbol;
      CODE[symbol] = code;
      BITS[symbol] = bits;
      if (bits <= 8) {
        const first = code << (8 - bits);
        SHORT.fill((bits << 8) | symbol, first, first + (1 << (8 - bits)));
      }
      code++;
    }
  }
}

function ascii(text: string): number[] {
  return Array.from(text, (character) => character.charCodeAt(0));
}
