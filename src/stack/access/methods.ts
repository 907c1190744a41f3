/** Methods that have a bit each (RFC 9110 §9.3, RFC 5789), so that a set of them is a number. */
const KNOWN = ["GET", "POST", "PUT", "DELETE", "PATCH", "HEAD", "OPTIONS", "CONNECT", "TRACE"] as const;

/** The bit of a method, or 0 of one that has none. As written: methods are case-sensitive. */
export function methodBit(method: string): number {
  for (let i = 0; i < KNOWN.length; i++) if (KNOWN[i] === method) return 1 << i;
  return 0;
}
