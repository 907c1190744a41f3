/**
 * The one way to programs written in Go that judge or meet us: others' test suites, servers and clients.
 *
 *     const h2spec = await goTool("h2spec", "github.com/summerwind/h2spec/cmd/h2spec");
 *     const interop = await goTool("grpc-interop");
 *
 * Each has a folder beside this file with a `go.mod` and a `go.sum`, which pin every module by version and hash, and with a
 * `main.go` where the program is our own. It is built once into `.cache/tools`, and anew when a file of its folder changes.
 *
 * Modules come through Go's own proxy. A Go older than the pinned one, such as Debian 12's, brings that one first: a
 * toolchain is a module too, and its hash stands here.
 */
import { execFile } from "node:child_process";
import { createHash } from "node:crypto";
import {
  chmodSync,
  copyFileSync,
  existsSync,
  globSync,
  mkdirSync,
  readFileSync,
  renameSync,
  writeFileSync,
} from "node:fs";
import { basename, dirname, join } from "node:path";

const TOOLS = join(import.meta.dirname, "../../.cache/tools");
/**
 * One call of Go, from when its turn has come: the first brings modules and compiles Go's standard library. At the bound it is
 * killed and the test fails.
 */
const CALL_SECONDS = 240;
/** For its turn, while another test builds. At the bound the test fails. */
const TURN_SECONDS = 300;
const NO_TURN_CODE = 75;
/** What `timeout` says of a program that it ended. */
const OUT_OF_TIME_CODE = 124;
const GO = "1.26.8";
/** Of the module golang.org/toolchain, as in Go's checksum database. */
const GO_SUMS: Readonly<Record<string, string>> = {
  amd64: "h1:ZOmGe1OnfREDMIdb1Qi4G9JSuDPBLGExZMQ4nis1RXM=",
  arm64: "h1:sYL/O6MqS68ML0kjsQ36WoYIpJqkw60TxizWUYUKQMc=",
};

const OWN_CACHES = { GOCACHE: join(TOOLS, "go-build"), GOMODCACHE: join(TOOLS, "go-modules") };

/**
 * The path of the program in `test/tools/<folder>`, built where it is not yet. `target` is the main package: the folder's
 * own by default, or one that its `go.mod` requires. Throws an error that says what to do.
 */
export async function goTool(folder: string, target = "."): Promise<string> {
  const source = join(import.meta.dirname, folder);
  const name = target === "." ? folder : basename(target);
  const program = join(TOOLS, `${name}-${hashOf(source, target)}`, name);
  if (existsSync(program)) return program;

  mkdirSync(dirname(program), { recursive: true });
  const go = await newEnoughGo();
  // Renamed when it is whole: another test may be looking.
  const fresh = `${program}.${process.pid}`;
  await run(go, ["build", "-mod=readonly", "-trimpath", "-buildvcs=false", "-o", fresh, target], source);
  renameSync(fresh, program);
  return program;
}

/** The machine's own Go, or the pinned one that the machine's own brings. */
async function newEnoughGo(): Promise<string> {
  const own = ownGo();
  const found = / go(\d+)\.(\d+)/.exec(await run(own, ["version"], TOOLS));
  const [major = 0, minor = 0] = GO.split(".").map(Number);
  const isNewEnough = found !== null && Number(found[1]) === major && Number(found[2]) >= minor;
  if (isNewEnough) return own;

  const arch = process.arch === "x64" ? "amd64" : process.arch;
  const module = `golang.org/toolchain@v0.0.1-go${GO}.linux-${arch}`;
  const modules = OWN_CACHES.GOMODCACHE;
  const folder = join(modules, module);
  const go = join(folder, "bin/go");
  const ready = join(folder, "ready");
  if (existsSync(ready)) return go;

  const download = ["mod", "download", "-modcacherw", "-json", module];
  const answer = await run(own, download, TOOLS, { GOMODCACHE: modules });
  const { Sum } = JSON.parse(answer) as { Sum: string };
  if (Sum !== GO_SUMS[arch]) throw new Error(`${module} came with the hash ${Sum}, not with the pinned one`);
  // Modules carry no modes and no go.mod files inside; whoever unpacks a toolchain restores them (cmd/go, toolchain/select.go).
  for (const file of globSync(["bin/*", "pkg/tool/**/*"], { cwd: folder }))
    chmodSync(join(folder, file), 0o755);
  for (const file of globSync("**/_go.mod", { cwd: folder })) {
    const copy = join(folder, `${file}.${process.pid}`);
    copyFileSync(join(folder, file), copy);
    renameSync(copy, join(folder, dirname(file), "go.mod"));
  }
  writeFileSync(ready, "");
  return go;
}

function ownGo(): string {
  const places = [...(process.env["PATH"] ?? "").split(":"), "/usr/local/go/bin", "/usr/lib/go/bin"];
  const found = places.map((place) => join(place, "go")).find((path) => existsSync(path));
  if (found === undefined)
    throw new Error(
      "Go is not installed; on Debian and Ubuntu: apt-get install --no-install-recommends golang-go",
    );
  return found;
}

function hashOf(source: string, target: string): string {
  const hash = createHash("sha256").update(`${GO} ${target}\n`);
  for (const file of globSync("**/*", { cwd: source, withFileTypes: true }).filter((entry) =>
    entry.isFile(),
  )) {
    const path = join(file.parentPath, file.name);
    hash.update(`${path.slice(source.length)}\n`).update(readFileSync(path));
  }
  return hash.digest("hex").slice(0, 16);
}

/** Runs Go, one at a time on this checkout: a second builder would only do the same work beside the first. */
function run(
  go: string,
  args: readonly string[],
  cwd: string,
  more: Readonly<Record<string, string>> = {},
): Promise<string> {
  // What the user's caches have need not be brought and compiled again; who has no home has none, and Go asks for some.
  const isHomeless = (process.env["HOME"] ?? "") === "";
  const env: NodeJS.ProcessEnv = {
    ...(isHomeless ? OWN_CACHES : {}),
    ...process.env,
    GOTOOLCHAIN: "local",
    GOFLAGS: "",
    GOWORK: "off",
    CGO_ENABLED: "0",
    ...more,
  };
  delete env["GOROOT"];
  const { promise, resolve, reject } = Promise.withResolvers<string>();
  const turn = ["-w", String(TURN_SECONDS), "-E", String(NO_TURN_CODE), join(TOOLS, "lock")];
  // `timeout` ends the compilers that Go starts, too.
  const command = [...turn, "timeout", "-k", "2", String(CALL_SECONDS), go, ...args];
  execFile("flock", command, { cwd, env }, (error, stdout, stderr) => {
    if (error === null) return resolve(stdout);
    if (error.code === NO_TURN_CODE)
      return reject(new Error(`go ${args[0]}: another build had not ended after ${TURN_SECONDS} s`));
    const why =
      error.code === OUT_OF_TIME_CODE
        ? `was not done after ${CALL_SECONDS} s`
        : stderr.trim() || error.message;
    reject(
      new Error(`go ${args[0]}: ${why}\n  Check that Go's module proxy can be reached (go env GOPROXY).`),
    );
  });
  return promise;
}
