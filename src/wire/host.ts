import { IS_HOST } from "./http1/tables.ts";

/**
 * Whether `value` can name whom a request is for, in Host or `:authority`: empty, or a host with an optional port (RFC 9110
 * §7.2). What some take for user information, a path or a second host is none.
 */
export function isHost(value: string): boolean {
  const length = value.length;
  let at = 0;
  if (length > 0 && value.charCodeAt(0) === BRACKET_OPEN) {
    // RFC 3986 §3.2.2: IP-literal.
    at = value.indexOf("]") + 1;
    for (let i = 1; i < at - 1; i++) if (!isInLiteral(value.charCodeAt(i))) return false;
    if (at < 4) return false;
  } else {
    while (at < length && value.charCodeAt(at) !== COLON) {
      const code = value.charCodeAt(at++);
      if (code > 0x7f || IS_HOST[code] !== 1 || code === BRACKET_OPEN || code === BRACKET_CLOSE) return false;
    }
    // A port of nobody.
    if (at === 0 && length > 0) return false;
  }
  if (at === length) return true;
  // RFC 3986 §3.2.3: digits, or none.
  if (value.charCodeAt(at) !== COLON || length - at > 1 + PORT_DIGITS_MAX) return false;
  let port = 0;
  for (let i = at + 1; i < length; i++) {
    const digit = value.charCodeAt(i) - 0x30;
    if (digit < 0 || digit > 9) return false;
    port = 10 * port + digit;
  }
  return port <= PORT_MOST;
}

const COLON = 0x3a;
const BRACKET_OPEN = 0x5b;
const BRACKET_CLOSE = 0x5d;
const PORT_DIGITS_MAX = 5;
const PORT_MOST = 65_535;

/** IPv6, IPvFuture, and the zone that some write. */
function isInLiteral(code: number): boolean {
  return code <= 0x7f && IS_HOST[code] === 1 && code !== BRACKET_OPEN && code !== BRACKET_CLOSE;
}
