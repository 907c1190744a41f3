/**
 * HTTP header or trailer fields as one flat list: name, value, name, value, … in wire order, duplicates kept.
 * Strings are latin1: one character per byte, so that bytes which are no valid text survive. Over HTTP/1 names keep
 * their case; over HTTP/2 they are lower-case and pseudo-fields (":method") come first.
 *
 * Even length always. Flat because a request then costs one array, not one object per field.
 *
 * `neverIndexed`: names, in lower case, of those that came over HTTP/2 as "never indexed" and must go on so (RFC 7541
 * §6.2.3), less those that always do. Absent from nearly all; whoever makes a list from another one hands it on by `keepNeverIndexed`.
 */
export type Fields = string[] & { neverIndexed?: Set<string> };

export function keepNeverIndexed(from: Fields, to: Fields): void {
  if (from.neverIndexed !== undefined) to.neverIndexed = from.neverIndexed;
}

/** Value of the first field called `name` (given in lower case; compared without case), or null. */
export function fieldValue(fields: Fields, name: string): string | null {
  for (let i = 0; i < fields.length; i += 2) {
    const at = fields[i] as string;
    if (at === name || (at.length === name.length && at.toLowerCase() === name))
      return fields[i + 1] as string;
  }
  return null;
}

/** How many fields are called `name` (lower case given). */
export function fieldCount(fields: Fields, name: string): number {
  let count = 0;
  for (let i = 0; i < fields.length; i += 2) {
    const at = fields[i] as string;
    if (at === name || (at.length === name.length && at.toLowerCase() === name)) count++;
  }
  return count;
}
