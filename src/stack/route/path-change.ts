import type { PathChange } from "#/model/route.ts";
import { latin1OfUtf8 } from "./text.ts";
import type { Candidate } from "./candidate.ts";

/** Why no path may be changed to this (RFC 9112 §3.2.1: it would end the request's line, or the path); null when one may. */
export function pathProblem(value: string): string | null {
  return NOT_IN_PATHS.test(value)
    ? "has white space, a control character, ? or #; write it as %20 and so on"
    : null;
}

/**
 * `path` (with query) after a change (HTTPPathModifier of Gateway API). `prefix` replaces what the prefix match of the rule took,
 * and leaves one slash between what it put and what follows. The query stays. What is no path ("*", "" of CONNECT) stays.
 */
export function changedPath(path: string, change: PathChange, candidate: Candidate): string {
  if (path.charCodeAt(0) !== SLASH) return path;
  const at = path.indexOf("?");
  const bare = at === -1 ? path : path.slice(0, at);
  const query = at === -1 ? "" : path.slice(at);
  const value = latin1OfUtf8(change.value);
  if (change.kind === "full") return rooted(value) + query;
  const match = candidate.match?.path ?? null;
  // Of a match by anything but a prefix nothing was matched that could be replaced; such an object is refused.
  if (match !== null && match.kind !== "prefix") return path;
  const prefix = match === null ? "/" : latin1OfUtf8(match.value);
  const rest = bare.slice(prefix.endsWith("/") ? prefix.length - 1 : prefix.length);
  const head = value.endsWith("/") ? value.slice(0, -1) : value;
  return rooted(head + rest) + query;
}

function rooted(path: string): string {
  return path.charCodeAt(0) === SLASH ? path : `/${path}`;
}

const SLASH = 0x2f;
// oxlint-disable-next-line no-control-regex
const NOT_IN_PATHS = /[\x00-\x20\x7f?#]/;
