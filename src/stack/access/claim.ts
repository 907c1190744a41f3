import type { Claims } from "#/model/access.ts";

/**
 * What a token claims under a name: the claim of the whole name, as `https://example.com/roles`, else dots lead into objects. Undefined:
 * nothing.
 */
export function claimAt(claims: Claims, name: string): unknown {
  if (Object.hasOwn(claims, name)) return claims[name];
  let found: unknown = claims;
  for (const part of name.split(".")) {
    if (typeof found !== "object" || found === null || Array.isArray(found)) return undefined;
    if (!Object.hasOwn(found, part)) return undefined;
    found = (found as Record<string, unknown>)[part];
  }
  return found;
}
