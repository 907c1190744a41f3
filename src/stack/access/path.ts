/**
 * A request's target in the one form that is decided upon and forwarded (docs/reference/authorization.md, "Paths"), so that what was
 * checked is what the application gets; null where servers read it in several ways. The query stays as it is. "*" and the empty
 * target of CONNECT are no paths and stay too.
 *
 * A target that is in this form already, as nearly all are, costs one look at each character.
 */
export function normalPath(target: string): string | null {
  if (target.charCodeAt(0) !== SLASH) return target === "*" || target === "" ? target : null;
  let isNormal = true;
  let at = 1;
  let before = SLASH;
  for (; at < target.length; at++) {
    const code = target.charCodeAt(at);
    if (code === QUESTION) break;
    // A fragment is the client's own; a server that gets one may cut it off.
    if (code <= SPACE || code === BACKSLASH || code === HASH || code === DELETE) return null;
    if (code === PERCENT || code > DELETE) isNormal = false;
    else if (before === SLASH && (code === SLASH || code === DOT)) isNormal = false;
    before = code;
  }
  if (at < target.length && target.includes("#", at)) return null;
  if (isNormal) return target;
  const path = normalised(target.slice(0, at));
  return path === null ? null : path + target.slice(at);
}

/**
 * What rules compare: the path of a target in normal form, without its query, and with the escapes that are left resolved, for to most
 * servers `%3A` is `:`. But `%3F` stays, for `?` begins the query.
 */
export function comparedPath(normal: string): string {
  const query = normal.indexOf("?");
  const path = query === -1 ? normal : normal.slice(0, query);
  return path.includes("%")
    ? path.replace(ESCAPE, (escape) => (escape === "%3F" ? escape : characterOf(escape)))
    : path;
}

function normalised(path: string): string | null {
  if (NO_ESCAPE.test(path)) return null;
  const plain = path.replace(ESCAPE, (escape) => {
    const character = characterOf(escape);
    return UNRESERVED.test(character) ? character : escape.toUpperCase();
  });
  if (REFUSED_ESCAPE.test(plain)) return null;
  if (OVERLONG.test(comparedPath(plain))) return null;
  return withoutDots(plain);
}

/** RFC 3986 §5.2.4, and several slashes as one. */
function withoutDots(path: string): string | null {
  const segments = path.split("/");
  const kept: string[] = [];
  const last = segments.length - 1;
  for (let i = 1; i <= last; i++) {
    const segment = segments[i] as string;
    if (segment === "..") {
      // "/a//..": some merge slashes before they go up, and some after.
      if (kept.length === 0 || segments[i - 1] === "") return null;
      kept.pop();
    } else if (segment !== "" && segment !== ".") {
      if (DOTS_AND_MORE.test(segment)) return null;
      kept.push(segment);
      continue;
    }
    if (i === last) kept.push("");
  }
  return `/${kept.join("/")}`;
}

function characterOf(escape: string): string {
  return String.fromCharCode(Number.parseInt(escape.slice(1), 16));
}

const SLASH = 0x2f;
const QUESTION = 0x3f;
const HASH = 0x23;
const PERCENT = 0x25;
const DOT = 0x2e;
const BACKSLASH = 0x5c;
const SPACE = 0x20;
const DELETE = 0x7f;

const ESCAPE = /%[0-9A-Fa-f]{2}/g;
const NO_ESCAPE = /%(?![0-9A-Fa-f]{2})/;
/** RFC 3986 §2.3. */
const UNRESERVED = /[A-Za-z0-9\-._~]/;
/** "/", "\", control characters; and "%" before two digits, which a second reading would resolve. In upper case. */
const REFUSED_ESCAPE = /%(?:2F|5C|[01][0-9A-F]|7F|25[0-9A-Fa-f]{2})/;
/** UTF-8 that says an ASCII character, or any other, in more bytes than it needs (RFC 3629 §3): "/" to some servers. */
// eslint-disable-next-line no-control-regex
const OVERLONG = /[\xc0\xc1]|\xe0[\x80-\x9f]|\xf0[\x80-\x8f]/;
/** "..;x" goes up where parameters are taken off first; spaces at the end are nothing to some file systems. */
const DOTS_AND_MORE = /^\.{1,2}(?:;|%3B|%20|%23|%3F)/;
