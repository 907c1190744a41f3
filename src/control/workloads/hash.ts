import { createHash } from "node:crypto";

/** Letters and digits of which no word can be made, as Kubernetes' own names. */
const ALPHABET = "bcdfghjklmnpqrstvwxz2456789";

/** A short name for any JSON value: the same for equal values whatever the order of their keys. */
export function shortHash(value: unknown, length: number): string {
  const digest = createHash("sha256").update(canonicalJson(value)).digest();
  let out = "";
  // 27 letters do not divide 256; the bias is harmless in a name.
  for (let i = 0; i < length; i++) out += ALPHABET[digest[i]! % ALPHABET.length]!;
  return out;
}

/** JSON with sorted keys and without undefined members. */
export function canonicalJson(value: unknown): string {
  if (Array.isArray(value)) return `[${value.map(canonicalJson).join(",")}]`;
  if (typeof value !== "object" || value === null) return JSON.stringify(value) ?? "null";
  const object = value as Readonly<Record<string, unknown>>;
  const keys = Object.keys(object)
    .filter((key) => object[key] !== undefined)
    .toSorted();
  return `{${keys.map((key) => `${JSON.stringify(key)}:${canonicalJson(object[key])}`).join(",")}}`;
}
