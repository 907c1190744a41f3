/**
 * Adds to package-lock.json the platform packages that npm left out. Run after each `npm install`.
 *
 * A tool such as oxlint lists one optional package per platform. Where the registry in use does not
 * carry one of them (mirrors often hold only their own platforms), npm writes no entry for it, and
 * `npm ci` then refuses the lockfile on every machine. An entry with the version and the platform
 * is all `npm ci` needs in order to skip the package. No entry made here is ever installed by us:
 * Pillion runs on Linux with glibc on x64 and arm64, and the script refuses to make one for those.
 */
import { readFileSync, writeFileSync } from "node:fs";

interface Entry {
  version?: string;
  dev?: boolean;
  optional?: boolean;
  cpu?: string[];
  os?: string[];
  libc?: string[];
  optionalDependencies?: Record<string, string>;
}

const lockfile = new URL("../package-lock.json", import.meta.url);
const lock = JSON.parse(readFileSync(lockfile, "utf8")) as { packages: Record<string, Entry> };

let added = 0;
for (const owner of Object.values(lock.packages)) {
  for (const [name, version] of Object.entries(owner.optionalDependencies ?? {})) {
    const place = `node_modules/${name}`;
    if (lock.packages[place] !== undefined) continue;
    const platform = platformOf(name);
    if (
      platform.os[0] === "linux" &&
      platform.libc?.[0] !== "musl" &&
      /^(x64|arm64)$/.test(platform.cpu[0] ?? "")
    ) {
      throw new Error(`${name} is for a platform that Pillion runs on, yet the registry does not carry it`);
    }
    const { cpu, libc, os } = platform;
    // In npm's own order of keys, so that npm leaves the entry as it is.
    lock.packages[place] = {
      version,
      cpu,
      ...(owner.dev === true && { dev: true }),
      ...(libc !== undefined && { libc }),
      optional: true,
      os,
    };
    added += 1;
  }
}

// npm keeps the places sorted; keeping its order keeps the diffs small.
lock.packages = Object.fromEntries(
  Object.entries(lock.packages).sort(([a], [b]) => a.localeCompare(b, "en")),
);
writeFileSync(lockfile, `${JSON.stringify(lock, null, 2)}\n`);
console.log(`package-lock.json: ${added} platform packages added`);

/** Reads the platform from names such as `@oxlint/binding-linux-x64-musl` and `buf-win32-arm64`. */
function platformOf(name: string): { os: string[]; cpu: string[]; libc?: string[] } {
  const found =
    /(android|darwin|freebsd|linux|openharmony|win32|aix|netbsd|openbsd|sunos)-([a-z0-9]+)(?:-(\w+))?$/.exec(
      name,
    );
  const [, os, cpu, abi] = found ?? [];
  if (os === undefined || cpu === undefined)
    throw new Error(`${name}: no platform in the name of this optional package`);
  const libc =
    abi === undefined ? undefined : abi.includes("musl") ? "musl" : abi === "gnu" ? "glibc" : undefined;
  return { os: [os], cpu: [cpu === "armv7" ? "arm" : cpu], ...(libc !== undefined && { libc: [libc] }) };
}
