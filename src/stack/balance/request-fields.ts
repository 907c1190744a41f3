import type { Fields } from "#/base/fields.ts";
import { fieldValue } from "#/base/fields.ts";
import { hashText } from "#/base/hash.ts";
import type { HashKey } from "#/model/traffic.ts";

/** Value of the first cookie called `name` that a request sends (RFC 6265 §4.2.1), or null. */
export function cookieValue(fields: Fields, name: string): string | null {
  for (let i = 0; i < fields.length; i += 2) {
    // Over HTTP/2 each cookie may come in a field of its own (RFC 9113 §8.2.3).
    if ((fields[i] as string).toLowerCase() !== "cookie") continue;
    for (const pair of (fields[i + 1] as string).split(";")) {
      const equals = pair.indexOf("=");
      if (equals !== -1 && pair.slice(0, equals).trim() === name) return pair.slice(equals + 1).trim();
    }
  }
  return null;
}

/** 32 bits of the first part of `hashOn` that the request has; -1 when it has none. `source`: the client's own name. */
export function hashKeyOf(hashOn: readonly HashKey[], source: string, fields: Fields | null): number {
  for (const key of hashOn) {
    const value = partOf(key, source, fields);
    if (value !== null) return hashText(value);
  }
  return -1;
}

/** That part's name, for people; null where there is none. Never its value, which may be a secret. */
export function hashedPart(hashOn: readonly HashKey[], source: string, fields: Fields | null): string | null {
  const key = hashOn.find((each) => partOf(each, source, fields) !== null);
  return key === undefined ? null : key.kind === "source" ? "source" : `${key.kind} ${key.name}`;
}

function partOf(key: HashKey, source: string, fields: Fields | null): string | null {
  if (key.kind === "source") return source;
  if (fields === null) return null;
  const value =
    key.kind === "header" ? fieldValue(fields, key.name.toLowerCase()) : cookieValue(fields, key.name);
  return value === "" ? null : value;
}
