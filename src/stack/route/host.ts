import type { HostMatch } from "#/model/route.ts";

/** The host of an authority, in lower case and without its port: "Web.Shop:80" is "web.shop", "[::1]:80" is "[::1]". */
export function hostOf(authority: string): string {
  const colon = authority.lastIndexOf(":");
  const host = colon === -1 || authority.indexOf("]", colon) !== -1 ? authority : authority.slice(0, colon);
  return host.toLowerCase();
}

/** A suffix takes one or more labels before it. */
export function hostHolds({ kind, host }: HostMatch, asked: string): boolean {
  if (kind === "exact") return asked === host;
  return asked.length > host.length + 1 && asked.endsWith(`.${host}`) && !asked.startsWith(".");
}

/** As objects write it. */
export function hostText({ kind, host }: HostMatch): string {
  return kind === "exact" ? host : `*.${host}`;
}
