/**
 * Brings what Pillion needs and this machine lacks. Started by scripts/run, never by hand:
 *
 *     node scripts/setup.js [SYSTEM-PACKAGE…]
 *
 * npm packages (Node 26 is one of them) come with `npm ci --ignore-scripts` into node_modules; the
 * system packages named as arguments come with apt-get. Each step says in one line what it does; a step
 * that cannot be done says why and what to do, and ends with exit code 1.
 *
 * Plain JavaScript without dependencies, because the system's own Node runs it, from version 20 on. An
 * older one must still parse it in order to be told so: hence no `?.`, `??` or top-level await.
 */
import { spawnSync } from "node:child_process";
import { createHash } from "node:crypto";
import * as fs from "node:fs";
import * as path from "node:path";
import { fileURLToPath } from "node:url";

const root = path.dirname(path.dirname(fileURLToPath(import.meta.url)));
const cache = path.join(root, ".cache");
const log = path.join(cache, "setup.log");
const modules = path.join(root, "node_modules");

/** A step that cannot be done here, with what the operator can do about it. */
class CannotDo extends Error {
  constructor(message, remedy) {
    super(message);
    this.remedy = remedy;
  }
}

try {
  checkPlatform();
  bringSystemPackages(process.argv.slice(2));
  bringNpmPackages();
  checkNode26();
} catch (error) {
  if (!(error instanceof CannotDo)) throw error;
  process.stderr.write(`pillion: ${error.message}\n  To do: ${error.remedy}\n`);
  process.exitCode = 1;
}

function checkPlatform() {
  const major = Number(process.versions.node.split(".")[0]);
  if (major < 20) {
    throw new CannotDo(
      `the system's Node is ${process.version}, and setting up needs 20 or newer`,
      "install a newer Node with npm, from nodejs.org or your distribution's backports",
    );
  }
  if (process.platform !== "linux") {
    throw new CannotDo(
      `Pillion needs Linux for its network namespaces and eBPF; this is ${process.platform}`,
      "run it in a Linux virtual machine",
    );
  }
  if (process.arch !== "x64" && process.arch !== "arm64") {
    throw new CannotDo(
      `there is no Node 26 here for the processor ${process.arch}`,
      "use a machine with x86-64 or arm64",
    );
  }
}

function bringNpmPackages() {
  const lockfile = fs.readFileSync(path.join(root, "package-lock.json"));
  const hash = createHash("sha256").update(lockfile).digest("hex");
  const stamp = path.join(modules, ".pillion-stamp");
  if (readOrEmpty(stamp).trim() !== hash || !fs.existsSync(nodeBinary())) {
    if (!matchesLockfile(JSON.parse(lockfile.toString()))) installNpmPackages();
    fs.writeFileSync(stamp, `${hash}\n`);
  }
}

function checkNode26() {
  const answer = spawnSync(nodeBinary(), ["--version"], { encoding: "utf8" });
  if (answer.status === 0) return;
  const reason = (answer.stderr || String(answer.error)).trim().split("\n")[0];
  throw new CannotDo(
    `Node 26 is here but does not start: ${reason}`,
    /libatomic/.test(reason)
      ? "install libatomic1 as root (apt-get install libatomic1)"
      : "use a distribution with glibc 2.28 and kernel 4.18 or newer, such as Debian 12",
  );
}

/** True where someone has run `npm ci` or `npm install` already: then there is nothing to do. */
function matchesLockfile(lock) {
  const installed = JSON.parse(readOrEmpty(path.join(modules, ".package-lock.json")) || "{}").packages || {};
  const isSame = (place) => installed[place] && installed[place].version === lock.packages[place].version;
  const required = Object.keys(lock.packages).filter(
    (place) => place !== "" && !lock.packages[place].optional,
  );
  return fs.existsSync(nodeBinary()) && required.every(isSame);
}

/**
 * Installs beside the old folder and then swaps the two: a mesh that runs from this checkout never finds
 * its Node gone, and an interrupted install leaves what was there.
 */
function installNpmPackages() {
  say("installing npm packages into node_modules, once (Node 26 among them; half a minute or so)");
  const staging = path.join(cache, "install");
  try {
    fs.rmSync(staging, { recursive: true, force: true });
    fs.mkdirSync(staging, { recursive: true });
  } catch (error) {
    throw new CannotDo(
      `npm packages are missing and cannot be installed here: ${error.message}`,
      `run this once as a user who may write to ${root}`,
    );
  }
  for (const name of ["package.json", "package-lock.json"]) {
    fs.copyFileSync(path.join(root, name), path.join(staging, name));
  }
  // When `npm test` is what called us, npm's variables name the checkout, and npm ci would work there.
  const env = Object.assign({}, process.env);
  for (const name of Object.keys(env)) {
    if (/^npm_(package_|lifecycle_|command$|config_local_prefix$|config_prefix$)/.test(name))
      delete env[name];
  }
  const flags =
    "--ignore-scripts --include=dev --include=optional --no-audit --no-fund --loglevel=error".split(" ");
  const outcome = runLogged("npm", ["ci", ...flags, "--prefix", staging], { cwd: staging, env });
  if (outcome.missing) {
    throw new CannotDo("npm is not installed", "install npm (on Debian: apt-get install npm)");
  }
  if (outcome.status !== 0) {
    throw new CannotDo(
      `npm ci failed: ${outcome.firstLine(/^npm error (request|[45]\d\d |.* failed)/) || outcome.firstLine(/^npm error (?!code )/)}`,
      `check the network and npm's registry setting (npm config get registry); the whole output is in ${log}`,
    );
  }
  const fresh = path.join(staging, "node_modules");
  if (!fs.existsSync(path.join(fresh, path.relative(modules, nodeBinary())))) {
    throw new CannotDo(
      `npm installed everything but node-linux-${process.arch}`,
      "check that the npm registry in use carries it, and that npm does not omit optional packages",
    );
  }
  if (process.getuid() === 0) {
    // Under sudo the checkout often belongs to someone else, who must be able to update it later.
    const owner = fs.statSync(root);
    if (owner.uid !== 0) spawnSync("chown", ["-hR", `${owner.uid}:${owner.gid}`, cache]);
  }
  const old = path.join(cache, "old-node_modules");
  fs.rmSync(old, { recursive: true, force: true });
  if (fs.existsSync(modules)) fs.renameSync(modules, old);
  fs.renameSync(fresh, modules);
  fs.rmSync(old, { recursive: true, force: true });
  fs.rmSync(staging, { recursive: true, force: true });
}

function bringSystemPackages(packages) {
  if (packages.length === 0) return;
  const list = packages.join(" ");
  const byHand = `apt-get install --no-install-recommends ${list}`;
  if (process.getuid() !== 0) {
    say(`going on without ${list}: installing them needs root (sudo ${byHand})`);
    return;
  }
  if (spawnSync("apt-get", ["--version"]).error) {
    throw new CannotDo(
      `these are missing, and this is not Debian or Ubuntu: ${list}`,
      "install your distribution's packages for them, or go on without: PILLION_SETUP=skip",
    );
  }
  say(`installing system packages, once, without starting their services: ${list}`);
  const outcome = withoutServices(packages, () => {
    const flags = ["--yes", "--no-install-recommends", "--no-upgrade", "-o", "DPkg::Lock::Timeout=120"];
    const env = Object.assign({}, process.env, {
      DEBIAN_FRONTEND: "noninteractive",
      NEEDRESTART_SUSPEND: "1",
    });
    const install = () => runLogged("apt-get", ["install", ...flags, ...packages], { env });
    const first = install();
    if (first.status === 0 || first.signal) return first;
    // The package lists are absent on a fresh machine, or older than what the mirrors hold.
    runLogged("apt-get", ["update"], { env });
    return install();
  });
  if (outcome.status !== 0) {
    throw new CannotDo(
      `apt-get could not install ${list}: ${outcome.firstLine(/^E: /) || "see the log"}`,
      `check the network and /etc/apt, or run: apt-get update && ${byHand}; the whole output is in ${log}; ` +
        "to go on without: PILLION_SETUP=skip",
    );
  }
}

/**
 * Runs `install` so that no package starts a service, now or at the next boot, and puts back what stood
 * there. Services that run already belong to packages that are installed already, and are not touched.
 */
function withoutServices(packages, install) {
  const policy = "/usr/sbin/policy-rc.d";
  const saved = `${policy}.saved-by-pillion`;
  const mark = "# Placed by pillion while it installs packages: no service starts.";
  // PostgreSQL's package would also make a database cluster of its own.
  const cluster = "/etc/postgresql-common/createcluster.d/pillion.conf";

  // A handler, even an empty one, keeps Ctrl-C from ending us before the finally block.
  const onSignal = () => {};
  for (const signal of ["SIGINT", "SIGTERM", "SIGHUP"]) process.on(signal, onSignal);
  // After a kill -9 our file may still stand there; it must not be saved as the user's.
  if (fs.existsSync(policy) && !readOrEmpty(policy).includes(mark)) fs.renameSync(policy, saved);
  try {
    fs.writeFileSync(policy, `#!/bin/sh\n${mark}\nexit 101\n`, { mode: 0o755 });
    if (packages.includes("postgresql") && !fs.existsSync("/etc/postgresql-common")) {
      fs.mkdirSync(path.dirname(cluster), { recursive: true });
      fs.writeFileSync(cluster, "create_main_cluster = false\n");
    }
    const outcome = install();
    // On a machine without systemd there is no next boot that would start them.
    for (const service of servicesOf(packages)) spawnSync("systemctl", ["disable", "--quiet", service]);
    return outcome;
  } finally {
    fs.rmSync(cluster, { force: true });
    fs.rmSync(policy, { force: true });
    if (fs.existsSync(saved)) fs.renameSync(saved, policy);
    for (const signal of ["SIGINT", "SIGTERM", "SIGHUP"]) process.removeListener(signal, onSignal);
  }
}

function servicesOf(packages) {
  const rows = fs.readFileSync(path.join(root, "scripts/system-packages"), "utf8").split("\n");
  const columns = rows.map((row) => row.trim().split(/\s+/));
  return columns.filter((row) => packages.includes(row[1]) && row[3] !== "-").map((row) => row[3]);
}

/** Runs a command with its output in the log; `firstLine` finds in that output what went wrong. */
function runLogged(command, args, options) {
  const answer = spawnSync(
    command,
    args,
    Object.assign({ encoding: "utf8", stdio: ["ignore", "pipe", "pipe"], maxBuffer: 64 << 20 }, options),
  );
  const output = `${answer.stdout || ""}${answer.stderr || ""}`;
  try {
    fs.mkdirSync(cache, { recursive: true });
    fs.appendFileSync(log, `$ ${command} ${args.join(" ")}\n${output}\n`);
  } catch {
    // A checkout that cannot be written to needs no log to get its system packages.
  }
  return {
    missing: Boolean(answer.error && answer.error.code === "ENOENT"),
    status: answer.status,
    signal: answer.signal,
    firstLine: (pattern) => {
      const line = output.split("\n").find((each) => pattern.test(each));
      return line && line.replace(/^(npm error|E:) /, "").trim();
    },
  };
}

function nodeBinary() {
  return path.join(modules, `node-linux-${process.arch}`, "bin/node");
}

function readOrEmpty(file) {
  return fs.existsSync(file) ? fs.readFileSync(file, "utf8") : "";
}

function say(text) {
  process.stderr.write(`pillion: ${text}\n`);
}
