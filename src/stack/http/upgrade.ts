/**
 * What of an offer to upgrade is passed on; null when nothing is. An offer may always be ignored (RFC 9110 §7.8):
 *
 * - `h2c` is: RFC 9113 §3.1 took it out of HTTP/2, and behind a proxy it opens a connection that nobody looks into
 *   (CVE-2022-41721). HTTP/2 in plaintext is spoken from the first byte on.
 * - `TLS/…` is: some clients offer it with every request, and the mesh speaks TLS already.
 *
 * Other words, known or not, are between the client and its server.
 */
export function passedUpgrade(offer: string | null): string | null {
  if (offer === null) return null;
  const passed = upgradeTokens(offer).filter((token) => !isIgnored(token.toLowerCase()));
  return passed.length === 0 ? null : passed.join(", ");
}

/** RFC 9110 §7.8: protocols, in order of preference. */
export function upgradeTokens(value: string): string[] {
  return value
    .split(",")
    .map((token) => token.trim())
    .filter((token) => token !== "");
}

/**
 * A Connection field of a request whose upgrade is passed on: as it came when it says nothing of this hop alone, else
 * "Upgrade"; null when it does not name the upgrade.
 */
export function upgradeConnection(value: string): string | null {
  const options = upgradeTokens(value.toLowerCase());
  if (!options.includes("upgrade")) return null;
  return options.every((option) => option === "upgrade" || option === "keep-alive") ? value : "Upgrade";
}

/** RFC 9110 §7.8: a server must not switch to what was not offered. */
export function isOffered(offer: string, answer: string | null): boolean {
  if (answer === null) return true;
  const offered = upgradeTokens(offer.toLowerCase());
  return upgradeTokens(answer.toLowerCase()).every((token) => offered.includes(token));
}

function isIgnored(token: string): boolean {
  return token === "h2c" || token.startsWith("tls/");
}
