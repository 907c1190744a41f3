/**
 * The one way to compile the kernel programs: `node bpf/build.ts` writes `bpf/out`, `node bpf/build.ts --check` compiles
 * into a temporary folder and fails when the committed objects differ by a byte.
 *
 * Reproducible with the compiler named in CLANG_VERSION, in any folder: no compiler identification, no absolute paths,
 * DWARF stripped and BTF kept.
 */
import { execFileSync } from "node:child_process";
import { existsSync, mkdtempSync, mkdirSync, readdirSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { commandLine } from "../scripts/command-line.ts";

const folder = import.meta.dirname;
const committed = join(folder, "out");
const sources = readdirSync(folder).filter((name) => name.endsWith(".bpf.c")).toSorted();
const { check } = commandLine(
  `Usage: scripts/run test bpf/build.ts [options]

Compiles the kernel programs into bpf/out.

Options:
  --check       writes nothing, and fails where a committed object differs by a byte
  -h, --help    shows this`,
  { check: { type: "boolean", default: false } },
);

const clang = pinnedClang();
if (check) {
  const fresh = mkdtempSync(join(tmpdir(), "pillion-bpf-"));
  try {
    compileInto(fresh);
    const stale = differences(fresh);
    for (const line of stale) console.error(line);
    if (stale.length > 0) {
      console.error("bpf/out does not match the sources: run `node bpf/build.ts` and commit the result");
      process.exitCode = 1;
    } else {
      console.log(`bpf/out matches its ${sources.length} sources`);
    }
  } finally {
    rmSync(fresh, { recursive: true });
  }
} else {
  rmSync(committed, { recursive: true, force: true });
  mkdirSync(committed);
  compileInto(committed);
  console.log(`compiled ${sources.length} programs`);
}

function compileInto(out: string): void {
  for (const source of sources) {
    const object = join(out, objectOf(source));
    const flags = ["-O2", "-g", "-Wall", "-Werror", "-Wno-unused-function", "-target", "bpf", "-mcpu=v2", "-fno-ident"];
    // Compiled from inside the folder, so that no path of this machine can get into the object.
    execFileSync(clang.compiler, [...flags, `-ffile-prefix-map=${folder}=.`, "-c", source, "-o", object], {
      cwd: folder,
      stdio: ["ignore", "inherit", "inherit"],
    });
    execFileSync(clang.strip, ["-g", object]);
  }
}

function differences(fresh: string): string[] {
  const expected = sources.map(objectOf);
  const found = existsSync(committed) ? readdirSync(committed) : [];
  const extra = found.filter((name) => !expected.includes(name)).map((name) => `${name}: has no source`);
  const different = expected
    .filter((name) => !found.includes(name) || !readFileSync(join(committed, name)).equals(readFileSync(join(fresh, name))))
    .map((name) => `${name}: differs from its source`);
  return [...extra, ...different];
}

function objectOf(source: string): string {
  return source.replace(/\.c$/, ".o");
}

/** The compiler of CLANG_VERSION: another one writes other bytes, and the comparison would say nothing. */
function pinnedClang(): { compiler: string; strip: string } {
  const wanted = readFileSync(join(folder, "CLANG_VERSION"), "utf8").trim();
  for (const suffix of [`-${wanted}`, ""]) {
    const compiler = `clang${suffix}`;
    try {
      const version = /clang version (\d+)\./.exec(execFileSync(compiler, ["--version"], { encoding: "utf8" }));
      if (version?.[1] === wanted) return { compiler, strip: `llvm-strip${suffix}` };
    } catch {
      // Not installed under this name.
    }
  }
  console.error(`clang ${wanted} is needed (Debian and Ubuntu: apt install clang-${wanted} llvm-${wanted})`);
  process.exit(2);
}
