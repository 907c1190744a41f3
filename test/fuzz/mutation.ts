import type { Random } from "#/base/random.ts";
import type { FuzzMachine } from "./fuzz-machine.ts";

const INPUT_BYTES_MAX = 20_000;
/** Bytes at which protocols turn. */
const TURNING = [0, 1, 4, 5, 9, 10, 13, 32, 34, 44, 45, 48, 57, 58, 59, 61, 64, 92, 127, 128, 192, 254, 255];
const WORDS = [
  "\r\n",
  "\r\n\r\n",
  "0\r\n\r\n",
  "HTTP/1.1",
  "HTTP/1.0",
  "Content-Length: ",
  "Transfer-Encoding: chunked\r\n",
  "Connection: upgrade\r\n",
  "Upgrade: websocket\r\n",
  "Host: a\r\n",
  "Expect: 100-continue\r\n",
  "chunked",
  ", ",
  " ",
  "\t",
].map((word) => Buffer.from(word));

/** A number from 0 to `below` - 1. */
export function pick(random: Random, below: number): number {
  return Math.floor(random.next() * below);
}

/** Another input made from one of the pool, by one to eight changes. */
export function mutate(random: Random, pool: readonly Uint8Array[], machine: FuzzMachine): Uint8Array {
  if (random.next() < 0.02) return Uint8Array.from({ length: pick(random, 200) }, () => pick(random, 256));
  let bytes = pool[pick(random, pool.length)] ?? new Uint8Array(0);
  for (let changes = 1 + pick(random, 8) * pick(random, 2); changes > 0; changes--)
    bytes = change(random, bytes, pool, machine);
  return bytes.subarray(0, INPUT_BYTES_MAX);
}

function change(
  random: Random,
  bytes: Uint8Array,
  pool: readonly Uint8Array[],
  machine: FuzzMachine,
): Uint8Array {
  const at = pick(random, bytes.length + 1);
  switch (pick(random, 10)) {
    case 0:
      return replaced(bytes, at, 1, [(bytes[at] ?? 0) ^ (1 << pick(random, 8))]);
    case 1:
      return replaced(bytes, at, 1, [TURNING[pick(random, TURNING.length)]!]);
    case 2:
      return replaced(bytes, at, 0, [TURNING[pick(random, TURNING.length)]!]);
    case 3:
      return replaced(bytes, at, 1 + pick(random, 8), []);
    case 4:
      return replaced(bytes, at, 0, WORDS[pick(random, WORDS.length)]!);
    case 5: {
      // A number one more or one less: lengths, counts, ids.
      const by = random.next() < 0.5 ? 1 : 255;
      return replaced(bytes, at, 1, [((bytes[at] ?? 0) + by) & 255]);
    }
    case 6:
      return bytes.slice(0, at);
    case 7: {
      // The rest of another input.
      const other = pool[pick(random, pool.length)] ?? bytes;
      return replaced(bytes, at, bytes.length, other.subarray(pick(random, other.length + 1)));
    }
    case 8: {
      const [start, stop] = part(random, bytes, machine);
      return replaced(bytes, start, stop - start, []);
    }
    default: {
      // A part of this input or another, once more or somewhere else.
      const other = random.next() < 0.5 ? bytes : (pool[pick(random, pool.length)] ?? bytes);
      const [start, stop] = part(random, other, machine);
      const starts = [0, ...machine.parts(bytes)];
      const to = starts[pick(random, starts.length)]!;
      const times = random.next() < 0.1 ? 1 + pick(random, 50) : 1;
      const again = Buffer.concat(Array.from({ length: times }, () => other.subarray(start, stop)));
      return replaced(bytes, to, 0, again);
    }
  }
}

function part(random: Random, bytes: Uint8Array, machine: FuzzMachine): [start: number, stop: number] {
  const starts = [0, ...machine.parts(bytes), bytes.length];
  const at = pick(random, starts.length - 1);
  return [starts[at]!, starts[at + 1]!];
}

function replaced(bytes: Uint8Array, at: number, count: number, by: ArrayLike<number>): Uint8Array {
  const stop = Math.min(bytes.length, at + count);
  const out = new Uint8Array(at + by.length + bytes.length - stop);
  out.set(bytes.subarray(0, at));
  out.set(by, at);
  out.set(bytes.subarray(stop), at + by.length);
  return out;
}

/** The pieces of `bytes` at random places: few, many, or each byte alone. */
export function cutAnywhere(random: Random, bytes: Uint8Array): Uint8Array[] {
  const kind = pick(random, 4);
  const most = kind === 0 ? 1 : kind === 1 ? 4 : kind === 2 ? 60 : Math.max(1, bytes.length);
  const pieces: Uint8Array[] = [];
  for (let at = 0; at < bytes.length;) {
    const size = 1 + pick(random, most);
    // A copy each, so that reading beside it is seen.
    pieces.push(bytes.slice(at, at + size));
    at += size;
  }
  return pieces;
}

/** A smaller input that fails as well: parts are left out, larger ones first, for as long as that goes. */
export function shrink(bytes: Uint8Array, fails: (bytes: Uint8Array) => boolean): Uint8Array {
  let best = bytes;
  let attemptsLeft = 5_000;
  for (let size = best.length >> 1; size > 0;) {
    let isSmaller = false;
    for (let at = 0; at < best.length && attemptsLeft > 0; attemptsLeft--) {
      const candidate = replaced(best, at, size, []);
      if (fails(candidate)) {
        best = candidate;
        isSmaller = true;
      } else at += size;
    }
    if (!isSmaller) size >>= 1;
  }
  return best;
}
