import { existsSync, lstatSync, readdirSync, readlinkSync, realpathSync } from "node:fs";
import { join, resolve } from "node:path";

/** What a container sees of the file system, and what it is not to see. */
export interface SandboxView {
  readonly hostname: string;
  /** Directories on disk that become the container's own /tmp, /var/tmp and /var/log. null: in memory. */
  readonly scratchDir: string | null;
  /** Files of the pod that replace the machine's. */
  readonly etcFiles: readonly { readonly source: string; readonly target: string }[];
  readonly binds: readonly SandboxBind[];
  /** Of the machine, never visible: state and run folders of all instances. */
  readonly hidden: readonly string[];
  /** Of the machine, always visible read-only, also where it lies below a private folder: Node and the programs of the mesh. */
  readonly shown: readonly string[];
  /** Replacements of machine directories that lack a mount point (see `missingMountPoints`). */
  readonly overlays: ReadonlyMap<string, string>;
  /** Also the private folders are read-only: only volumes can be written (readOnlyRootFilesystem). */
  readonly readOnly?: boolean;
  readonly workingDir: string;
  /** The user that the program sees itself as, by a user namespace of its own, where we can become no other. */
  readonly seenAs?: { readonly uid: number; readonly gid: number } | null;
  readonly env: readonly (readonly [string, string])[];
}

export interface SandboxBind {
  readonly source: string;
  readonly target: string;
  readonly readOnly: boolean;
}

/** Folders of the root that a container gets its own of, whatever the machine has there. */
const PRIVATE = ["/tmp", "/run", "/var/tmp", "/var/log", "/dev", "/proc", "/sys"];
/** Of /proc what says more than a container should know, or writes to the machine; as container runtimes mask it. */
const PROC_HIDDEN_FILES = [
  "kcore",
  "keys",
  "latency_stats",
  "timer_list",
  "timer_stats",
  "sched_debug",
  "kmsg",
];
const PROC_HIDDEN_DIRS = ["acpi", "scsi"];
const PROC_READ_ONLY = ["sys", "sysrq-trigger", "irq", "bus", "fs"];
/** Of /sys what programs ask for: processors, memory, devices. No cgroup tree, no bpffs, no firmware, no debugfs. */
const SYS_SHOWN = ["block", "bus", "class", "dev", "devices", "module", "kernel/mm"];
/** Names of other pods' links. */
const SYS_HIDDEN = ["class/net", "devices/virtual/net", "devices/virtual/powercap"];

const SHM_BYTES = 64 * 1024 * 1024;
const RUN_BYTES = 64 * 1024 * 1024;

/**
 * Arguments of bubblewrap for one container: own mount, PID, IPC and UTS namespaces, the machine's files read-only. They are
 * handed over by a file descriptor, so neither paths nor variables show in the process list.
 */
export function sandboxArguments(view: SandboxView): string[] {
  const args: string[] = [
    "--unshare-pid",
    "--unshare-ipc",
    "--unshare-uts",
    "--hostname",
    view.hostname,
    "--clearenv",
  ];
  if (view.seenAs)
    args.push("--unshare-user", "--uid", String(view.seenAs.uid), "--gid", String(view.seenAs.gid));
  for (const [name, value] of view.env) args.push("--setenv", name, value);
  args.push(...rootArguments(view.overlays));
  for (const [path, replacement] of view.overlays) args.push("--ro-bind", replacement, path);
  args.push(...systemArguments());
  args.push("--size", String(RUN_BYTES), "--perms", "0755", "--tmpfs", "/run");
  for (const name of ["tmp", "var/tmp", "var/log"]) {
    if (view.scratchDir === null) args.push("--perms", "1777", "--tmpfs", `/${name}`);
    else args.push("--bind", join(view.scratchDir, name.replace("/", "-")), `/${name}`);
  }
  for (const path of view.hidden) if (existsSync(path) && !isBelow(path, PRIVATE)) args.push("--tmpfs", path);
  for (const path of view.shown)
    if (isBelow(path, PRIVATE) || isBelow(path, view.hidden)) args.push("--ro-bind", path, path);
  for (const file of view.etcFiles) args.push("--ro-bind", file.source, throughLinks(file.target));
  // Shorter targets first, so that a mount inside another volume is not covered by it.
  for (const bind of view.binds.toSorted((a, b) => a.target.length - b.target.length)) {
    args.push(...parentDirectories(bind.target, [...PRIVATE, ...view.hidden]));
    args.push(bind.readOnly ? "--ro-bind" : "--bind", bind.source, bind.target);
    for (const path of view.hidden) {
      if (path.startsWith(`${bind.source === "/" ? "" : bind.source}/`) && existsSync(path)) {
        args.push("--tmpfs", join(bind.target, path.slice(bind.source === "/" ? 0 : bind.source.length)));
      }
    }
  }
  if (view.readOnly === true)
    for (const name of ["run", "tmp", "var/tmp", "var/log"]) args.push("--remount-ro", `/${name}`);
  args.push("--remount-ro", "/", "--remount-ro", "/dev", "--chdir", view.workingDir);
  return args;
}

/** What one of the mesh's own processes sees. */
export interface MeshView {
  readonly hostname: string;
  /** Replace the machine's, or are the only ones of their folder. */
  readonly etcFiles: readonly { readonly source: string; readonly target: string }[];
  readonly binds: readonly SandboxBind[];
  readonly env: readonly (readonly [string, string])[];
}

/** Where Node and `setpriv` have their libraries. */
const LIBRARIES = ["/usr/lib", "/usr/lib64", "/lib", "/lib64"];
const DROPS_PRIVILEGES = "/usr/bin/setpriv";
/** How names are looked up, what a time zone is called; nothing of the machine's users or secrets. */
const ETC_SHOWN = [
  "/etc/nsswitch.conf",
  "/etc/host.conf",
  "/etc/gai.conf",
  "/etc/hosts",
  "/etc/ld.so.cache",
  "/etc/localtime",
];
const DEVICES_SHOWN = ["/dev/null", "/dev/zero", "/dev/urandom", "/dev/random"];

/**
 * Arguments of bubblewrap for a process of the mesh: an empty root with what Node needs to run, all of it read-only, and the folders
 * of `binds`. Nothing else of the machine is there, and nothing can be written but what a bind says so of.
 */
export function meshSandboxArguments(view: MeshView): string[] {
  const args = ["--unshare-pid", "--unshare-ipc", "--unshare-uts", "--hostname", view.hostname, "--clearenv"];
  for (const [name, value] of view.env) args.push("--setenv", name, value);
  // bubblewrap makes missing folders for root alone.
  for (const path of ["/usr", "/usr/bin", "/etc", "/dev"]) args.push("--perms", "0755", "--dir", path);
  for (const path of LIBRARIES) {
    const stat = lstatSync(path, { throwIfNoEntry: false });
    if (stat === undefined) continue;
    if (stat.isSymbolicLink()) args.push("--symlink", readlinkSync(path), path);
    else args.push("--ro-bind", path, path);
  }
  args.push("--ro-bind", DROPS_PRIVILEGES, DROPS_PRIVILEGES);
  const replaced = new Set(view.etcFiles.map((file) => file.target));
  for (const path of ETC_SHOWN)
    if (!replaced.has(path) && existsSync(path)) args.push("--ro-bind", path, path);
  for (const file of view.etcFiles) args.push("--ro-bind", file.source, file.target);
  args.push("--proc", "/proc", "--remount-ro", "/proc");
  for (const path of DEVICES_SHOWN) args.push("--dev-bind", path, path, "--remount-ro", path);
  for (const bind of view.binds.toSorted((a, b) => a.target.length - b.target.length)) {
    args.push(...parentDirectories(bind.target, ["/"]));
    args.push(bind.readOnly ? "--ro-bind" : "--bind", bind.source, bind.target);
  }
  args.push("--remount-ro", "/", "--chdir", "/");
  return args;
}

/** bubblewrap makes missing parents of a mount point for root alone; a container's user has to pass through them. */
function parentDirectories(target: string, emptied: readonly string[]): string[] {
  const args: string[] = [];
  for (let at = target.indexOf("/", 1); at !== -1; at = target.indexOf("/", at + 1)) {
    const parent = target.slice(0, at);
    if (!existsSync(parent) || (isBelow(parent, emptied) && !emptied.includes(parent)))
      args.push("--perms", "0755", "--dir", parent);
  }
  return args;
}

/** The machine's root, entry by entry: what is mounted below /run (namespaces of pods, sockets) never comes along. */
function rootArguments(overlays: ReadonlyMap<string, string>): string[] {
  const args: string[] = [];
  for (const name of readdirSync("/").toSorted()) {
    const path = `/${name}`;
    if (PRIVATE.includes(path) || name === "lost+found" || overlays.has(path)) continue;
    const stat = lstatSync(path);
    if (stat.isSymbolicLink()) args.push("--symlink", readlinkSync(path), path);
    else if (stat.isDirectory()) args.push("--ro-bind", path, path);
  }
  return args;
}

function systemArguments(): string[] {
  const args = [
    "--proc",
    "/proc",
    "--dev",
    "/dev",
    "--size",
    String(SHM_BYTES),
    "--perms",
    "1777",
    "--tmpfs",
    "/dev/shm",
  ];
  for (const name of PROC_READ_ONLY)
    if (existsSync(`/proc/${name}`)) args.push("--ro-bind", `/proc/${name}`, `/proc/${name}`);
  for (const name of PROC_HIDDEN_FILES)
    if (existsSync(`/proc/${name}`)) args.push("--ro-bind", "/dev/null", `/proc/${name}`);
  for (const name of PROC_HIDDEN_DIRS)
    if (existsSync(`/proc/${name}`)) args.push("--tmpfs", `/proc/${name}`, "--remount-ro", `/proc/${name}`);
  for (const name of SYS_SHOWN)
    if (existsSync(`/sys/${name}`)) args.push("--ro-bind", `/sys/${name}`, `/sys/${name}`);
  for (const name of SYS_HIDDEN)
    if (existsSync(`/sys/${name}`)) args.push("--tmpfs", `/sys/${name}`, "--remount-ro", `/sys/${name}`);
  return args;
}

/**
 * Mount points that the read-only root lacks, grouped by the deepest directory that exists: a container could make them
 * in its image, here that directory gets a read-only overlay with the missing names added. Targets below a private
 * folder or right below the root need none.
 */
export function missingMountPoints(targets: readonly string[]): Map<string, string[]> {
  const missing = new Map<string, string[]>();
  for (const target of targets.toSorted()) {
    if (existsSync(target) || isBelow(target, PRIVATE)) continue;
    if (targets.some((other) => other !== target && isBelow(target, [other]))) continue;
    let parent = target;
    while (!existsSync(parent)) parent = resolve(parent, "..");
    if (parent === "/") continue;
    const real = realpathSync(parent);
    const above = [...missing.keys()].find((key) => isBelow(real, [key])) ?? real;
    const inside = join(real, target.slice(parent.length)).slice(above.length + 1);
    missing.set(above, [...(missing.get(above) ?? []), inside]);
  }
  return missing;
}

/** Whether `path` is one of `folders` or inside one. */
export function isBelow(path: string, folders: readonly string[]): boolean {
  return folders.some((folder) => path === folder || path.startsWith(folder === "/" ? "/" : `${folder}/`));
}

/** Where a file like /etc/resolv.conf really lies: a mount cannot replace a symbolic link, only what it points to. */
function throughLinks(path: string): string {
  let at = path;
  for (let depth = 0; depth < 8; depth++) {
    let stat;
    try {
      stat = lstatSync(at);
    } catch {
      return at;
    }
    if (!stat.isSymbolicLink()) return at;
    at = resolve(at, "..", readlinkSync(at));
  }
  return path;
}

/** Capabilities that container runtimes leave by default. */
export const DEFAULT_CAPABILITIES: readonly string[] = [
  "CHOWN",
  "DAC_OVERRIDE",
  "FSETID",
  "FOWNER",
  "NET_RAW",
  "SETGID",
  "SETUID",
  "SETFCAP",
  "SETPCAP",
  "NET_BIND_SERVICE",
  "SYS_CHROOT",
  "KILL",
  "AUDIT_WRITE",
];

/** Capabilities that no container may have: each is a way out of its isolation. MKNOD among them, as design says. */
const FORBIDDEN_CAPABILITIES: readonly string[] = [
  "SYS_ADMIN",
  "SYS_MODULE",
  "SYS_PTRACE",
  "SYS_RAWIO",
  "SYS_BOOT",
  "BPF",
  "PERFMON",
  "MKNOD",
  "DAC_READ_SEARCH",
  "MAC_ADMIN",
  "MAC_OVERRIDE",
  "SYSLOG",
  "CHECKPOINT_RESTORE",
];

export function containerCapabilities(add: readonly string[], drop: readonly string[]): string[] {
  const forbidden = add.find((name) => FORBIDDEN_CAPABILITIES.includes(name) || name === "ALL");
  if (forbidden !== undefined) {
    throw new Error(
      `capability ${forbidden} would let the container out of its pod and is not granted: remove it from securityContext.capabilities.add`,
    );
  }
  const kept = drop.includes("ALL") ? [] : DEFAULT_CAPABILITIES.filter((name) => !drop.includes(name));
  return [...new Set([...kept, ...add])].toSorted();
}

export interface RunAs {
  readonly uid: number;
  readonly gid: number;
  readonly groups: readonly number[];
  readonly capabilities: readonly string[];
  /** The capabilities are in effect although the user is not root. Default: only root has them in effect, as in containers. */
  readonly ambient?: boolean;
  /** In a user namespace where groups cannot be set. */
  readonly keepGroups?: boolean;
}

/** The last program before the container's own: it gives up everything that the container is not to have. */
export function dropPrivileges(runAs: RunAs): string[] {
  const bounding = ["-all", ...runAs.capabilities.map((name) => `+${name.toLowerCase()}`)].join(",");
  return [
    "/usr/bin/setpriv",
    "--reuid",
    String(runAs.uid),
    "--regid",
    String(runAs.gid),
    ...(runAs.keepGroups === true
      ? ["--keep-groups"]
      : runAs.groups.length === 0
        ? ["--clear-groups"]
        : ["--groups", runAs.groups.join(",")]),
    "--bounding-set",
    bounding,
    "--inh-caps",
    runAs.ambient === true ? bounding : "-all",
    ...(runAs.ambient === true ? ["--ambient-caps", bounding] : []),
    "--no-new-privs",
    "--",
  ];
}

/**
 * Variables that the C library obeys in any process, so also in our own tools on their way into the container: those
 * are given to the container's program alone.
 */
const LOADER_VARIABLES =
  /^(LD_.*|GLIBC_TUNABLES|GCONV_PATH|GETCONF_DIR|HOSTALIASES|LOCALDOMAIN|LOCPATH|MALLOC_.*|NIS_PATH|NLSPATH|RESOLV_.*|RES_OPTIONS|TMPDIR|TZDIR)$/;

export function isLoaderVariable(name: string): boolean {
  return LOADER_VARIABLES.test(name);
}
