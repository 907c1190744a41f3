/**
 * A protobuf message written as field numbers and values, so that what is expected owes nothing to any .proto file:
 *
 *     1 { 1: fixed32 0x0ac9000a }   # a message in field 1
 *     2: 8080                       # a varint
 *     3: "text"   4: float 0.2   5: fixed64 0x1
 *
 * Fields are encoded in the order in which they are written, which is ascending: that is the canonical form.
 */
export function encodeNotation(text: string): Uint8Array {
  const tokens = [...text.replace(/#[^\n]*/g, "").matchAll(/"(?:[^"\\]|\\.)*"|[{}]|[^\s{}"]+/g)].map(
    (match) => match[0],
  );
  const message = fields(tokens, 0);
  if (message.next !== tokens.length) throw new SyntaxError(`unexpected ${tokens[message.next]}`);
  return message.bytes;
}

const VARINT = 0;
const FIXED64 = 1;
const BYTES = 2;
const FIXED32 = 5;

function fields(tokens: readonly string[], from: number): { bytes: Uint8Array; next: number } {
  const parts: Uint8Array[] = [];
  let at = from;
  let before = 0;
  while (at < tokens.length && tokens[at] !== "}") {
    const head = /^(\d+)(:?)$/.exec(tokens[at]!);
    if (head === null) throw new SyntaxError(`expected a field number, got ${tokens[at]}`);
    const number = Number(head[1]);
    if (number < before)
      throw new SyntaxError(`field ${number} comes after ${before}; canonical order is ascending`);
    before = number;
    at++;
    if (head[2] === "") {
      if (tokens[at] !== "{") throw new SyntaxError(`expected { after ${number}`);
      const inner = fields(tokens, at + 1);
      if (tokens[inner.next] !== "}") throw new SyntaxError("a { is not closed");
      parts.push(key(number, BYTES), varint(BigInt(inner.bytes.length)), inner.bytes);
      at = inner.next + 1;
      continue;
    }
    const value = tokens[at++] ?? "";
    if (value.startsWith('"')) {
      const bytes = Buffer.from(JSON.parse(value) as string, "utf8");
      parts.push(key(number, BYTES), varint(BigInt(bytes.length)), bytes);
    } else if (value === "fixed32" || value === "fixed64") {
      const wide = value === "fixed64";
      const bytes = Buffer.alloc(wide ? 8 : 4);
      // Protobuf encoding: fixed-width numbers are little-endian.
      if (wide) bytes.writeBigUInt64LE(BigInt(tokens[at++]!));
      else bytes.writeUInt32LE(Number(tokens[at++]));
      parts.push(key(number, wide ? FIXED64 : FIXED32), bytes);
    } else if (value === "float") {
      const bytes = Buffer.alloc(4);
      bytes.writeFloatLE(Number(tokens[at++]));
      parts.push(key(number, FIXED32), bytes);
    } else {
      parts.push(key(number, VARINT), varint(BigInt(value)));
    }
  }
  return { bytes: Buffer.concat(parts), next: at };
}

function key(number: number, wireType: number): Uint8Array {
  return varint(BigInt(number * 8 + wireType));
}

function varint(value: bigint): Uint8Array {
  const out: number[] = [];
  let left = value;
  do {
    const low = Number(left & 0x7fn);
    left >>= 7n;
    out.push(left === 0n ? low : low | 0x80);
  } while (left !== 0n);
  return Uint8Array.from(out);
}
