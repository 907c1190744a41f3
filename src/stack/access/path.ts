/**
 * A request's target in the one form that is decided upon and forwarded (docs/reference/authorization.md, "Paths"), so that what was
 * checked is what the application gets; null where servers read it in several ways. The query stays as it is. "*" and the empty
 * target of CONNECT are no paths and stay too.
 *
 * A target that is in this form already, as nearly all are, costs one look at each character.
 */
export function normalPath(target: string): string | null {
  if (target.charCodeAt(0) !== SLASH) return target === "*" || target === "" ? target : null;
  if (plainEnd(target) !== -1) return target;
  const query = target.indexOf("?");
  const end = query === -1 ? target.length : query;
  if (NEVER.test(target.slice(0, end)) || target.includes("#", end)) return null;
  const path = normalised(target.slice(0, end));
  return path === null ? null : path + target.slice(end);
}

/**
 * Where the path of a target ends, if it is in normal form as it stands and without an escape, so that it is also what rules compare; -1 for all
 * others. Nearly all targets are so.
 */
export function plainEnd(target: string): number {
  if (target.charCodeAt(0) !== SLASH) return -1;
  let before = SLASH;
  for (let at = 1; at < target.length; at++) {
    const code = target.charCodeAt(at);
    if (code === QUESTION) return target.includes("#", at) ? -1 : at;
    if (code <= SPACE || code >= DELETE || code === PERCENT || code === BACKSLASH || code === HASH) return -1;
    if (before === SLASH && (code === SLASH || code === DOT)) return -1;
    before = code;
  }
  return target.length;
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

/** Control characters, a space, and what some take for "/"; a fragment is the client's own, and a server that gets one may cut it off. */
// eslint-disable-next-line no-control-regex
const NEVER = /[\x00-\x20\x7f\\#]/;
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
