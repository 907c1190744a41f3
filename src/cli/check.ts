import { spawnSync } from "node:child_process";
import { existsSync, readFileSync, readdirSync } from "node:fs";
import { release } from "node:os";
import { join } from "node:path";
import { detectSupport } from "#/kernel/interception.ts";
import type { InstancePaths } from "./instance-paths.ts";
import type { AnswerOf } from "./operator.ts";
import { ask } from "./operator.ts";
import {
  DEFAULT_POD_CIDR,
  DEFAULT_SERVICE_CIDR,
  overlap,
  routedNetworks,
  takenEverywhere,
} from "./networks.ts";
import { rotationLine } from "./identity/identity-text.ts";
import { countOf, statusIfRunning } from "./up.ts";

/** One thing looked at. "warn" does not stop the mesh, "bad" does. */
export interface Finding {
  readonly level: "ok" | "warn" | "bad";
  readonly what: string;
  /** What was seen. */
  readonly detail: string;
  /** What to do; "" when ok. */
  readonly remedy: string;
}

/** Looks at the machine and, when it runs, at the mesh. Changes nothing. */
export async function check(paths: InstancePaths): Promise<Finding[]> {
  const running = await statusIfRunning(paths);
  return [
    platform(),
    user(),
    kernelVersion(),
    cgroup(),
    ...programs(),
    btf(),
    ...interception(),
    clock(),
    ...(running === null ? [leftovers(paths), ports(), addresses()] : await mesh(paths, running)),
  ];
}

export function findingLine(finding: Finding): string {
  const mark = { ok: "ok  ", warn: "warn", bad: "BAD " }[finding.level];
  return `${mark} ${finding.what}: ${finding.detail}${finding.remedy === "" ? "" : `; ${finding.remedy}`}`;
}

const ok = (what: string, detail: string): Finding => ({ level: "ok", what, detail, remedy: "" });
const warn = (what: string, detail: string, remedy: string): Finding => ({
  level: "warn",
  what,
  detail,
  remedy,
});
const bad = (what: string, detail: string, remedy: string): Finding => ({
  level: "bad",
  what,
  detail,
  remedy,
});

function platform(): Finding {
  if (process.platform !== "linux")
    return bad(
      "platform",
      process.platform,
      "Pillion's pods need Linux; use a Linux machine or a virtual one",
    );
  return ok("platform", `linux ${process.arch}, Node ${process.versions.node}`);
}

function user(): Finding {
  return process.getuid?.() === 0
    ? ok("user", "root")
    : warn(
        "user",
        `uid ${process.getuid?.()}`,
        "without root only what an unprivileged user namespace allows; use sudo for eBPF",
      );
}

function kernelVersion(): Finding {
  const [major = 0, minor = 0] = release().split(".").map(Number);
  if (major > 5 || (major === 5 && minor >= 10)) return ok("kernel", release());
  return warn("kernel", release(), "eBPF interception needs 5.10; nftables is used instead");
}

function cgroup(): Finding {
  const mounts = readFileSync("/proc/self/mountinfo", "utf8");
  const v2 = /^\S+ \S+ \S+ \S+ (\S+) .* - cgroup2 /m.exec(mounts)?.[1];
  if (v2 === undefined)
    return bad(
      "cgroup v2",
      "not mounted",
      "mount it: mount -t cgroup2 none /sys/fs/cgroup/unified (or boot with systemd.unified_cgroup_hierarchy=1)",
    );
  const hybrid = / - cgroup .*\bmemory\b/.test(mounts);
  return ok("cgroup v2", `${v2}${hybrid ? ", with memory and cpu on v1 (hybrid)" : ""}`);
}

/** What the agent calls, with the Debian package that brings it. */
const PROGRAMS: readonly (readonly [program: string, pkg: string])[] = [
  ["ip", "iproute2"],
  ["bwrap", "bubblewrap"],
  ["nft", "nftables"],
  ["nsenter", "util-linux"],
  ["setpriv", "util-linux"],
];

function programs(): Finding[] {
  return PROGRAMS.map(([program, pkg]) => {
    const found = (process.env["PATH"] ?? "")
      .split(":")
      .concat("/usr/sbin", "/sbin")
      .map((folder) => join(folder, program))
      .find((file) => existsSync(file));
    return found === undefined
      ? bad(program, "not found", `install it: apt-get install ${pkg}`)
      : ok(program, found);
  });
}

function btf(): Finding {
  return existsSync("/sys/kernel/btf/vmlinux")
    ? ok("BTF", "/sys/kernel/btf/vmlinux")
    : warn("BTF", "the kernel has none", "not needed by our programs, but bpftool shows less");
}

function interception(): Finding[] {
  if (process.getuid?.() !== 0)
    return [warn("interception", "not tried without root", "run the check as root")];
  const { ebpf, nftables } = detectSupport();
  return [
    ebpf.ok
      ? ok("eBPF", "programs load and attach")
      : nftables.ok
        ? warn("eBPF", ebpf.reason, "nftables is used instead")
        : bad("eBPF", ebpf.reason, "without nftables too, only --intercept=explicit is left"),
    nftables.ok
      ? ok("nftables", "rules load")
      : warn("nftables", nftables.reason, "needed only where eBPF cannot be used, and for published ports"),
  ];
}

/** What an instance has on this machine while no agent answers: running pods without one, or remains. */
function leftovers(paths: InstancePaths): Finding {
  const found: string[] = [];
  for (const folder of [join(paths.runRoot, paths.name), `/sys/fs/bpf/pillion/${paths.name}`]) {
    if (existsSync(folder) && readdirSync(folder).length > 0) found.push(folder);
  }
  if (found.length === 0) return ok("leftovers", "none");
  return warn(
    "leftovers",
    found.join(", "),
    "no agent answers: `pillion up` takes over what still runs, `pillion down` removes it",
  );
}

/** Who listens on every address also holds the bridge's, on which name server and control plane listen. */
function ports(): Finding {
  const taken = [
    ["name server", "udp", 53],
    ["name server", "tcp", 53],
    ["control plane", "tcp", 8086],
  ] as const;
  const held = taken.filter(([, protocol, port]) =>
    [protocol, `${protocol}6`].some((table) => takenEverywhere(readIfThere(`/proc/net/${table}`)).has(port)),
  );
  if (held.length === 0) return ok("ports", "53 and 8086 are free on new addresses");
  return bad(
    "ports",
    held
      .map(([whose, protocol, port]) => `${protocol} ${port} (${whose}) is taken on every address`)
      .join(", "),
    "see who has it with: ss -lntup; let it listen on its own address only",
  );
}

/** The default networks against those that this machine is on. */
function addresses(): Finding {
  const wanted = [
    ["--pod-cidr", DEFAULT_POD_CIDR],
    ["--service-cidr", DEFAULT_SERVICE_CIDR],
  ] as const;
  const routed = routedNetworks(readIfThere("/proc/net/route"));
  const clashes = wanted.flatMap(([flag, cidr]) =>
    routed
      .filter((route) => overlap(route.cidr, cidr))
      .map((route) => `${cidr} (${flag}) overlaps ${route.cidr} on ${route.device}`),
  );
  return clashes.length === 0
    ? ok("addresses", `${wanted.map(([, cidr]) => cidr).join(" and ")} are free`)
    : warn("addresses", clashes.join(", "), `give \`pillion up\` other networks with the flags named`);
}

function readIfThere(file: string): string {
  try {
    return readFileSync(file, "utf8");
  } catch {
    return "";
  }
}

/** Certificates are only as good as the clock. */
function clock(): Finding {
  const year = new Date().getUTCFullYear();
  if (year < 2025)
    return bad("clock", new Date().toISOString(), "set the clock; certificates would not be valid yet");
  const sync = spawnSync("timedatectl", ["show", "-p", "NTPSynchronized", "--value"], { encoding: "utf8" });
  if (sync.status === 0 && sync.stdout.trim() === "no")
    return warn(
      "clock",
      `${new Date().toISOString()}, not synchronised`,
      "enable NTP; certificates live 24 h, and five minutes of difference between machines are tolerated",
    );
  return ok("clock", new Date().toISOString());
}

async function mesh(paths: InstancePaths, status: AnswerOf<"status">): Promise<Finding[]> {
  const findings = [ok("agent", `instance "${paths.name}" is running, pid ${status.agentPid}`)];
  if (!status.controlConnected)
    return [
      ...findings,
      bad("control plane", "not connected to the agent", `see the log: ${paths.agentLog}`),
    ];
  findings.push(ok("control plane", `pid ${status.controlPid}`));
  const { answer } = await ask(paths, { kind: "ask", question: { kind: "status" } }, "control");
  if (answer.kind === "status") {
    // By the control plane's own clock.
    for (const problem of answer.identity.problems) {
      const [detail = "", ...remedies] = problem.split("; ");
      const isOver = answer.identity.problems.length > 0 && /expired|begins only/.test(detail);
      findings.push((isOver ? bad : warn)("certificates", detail, remedies.join("; ")));
    }
    if (answer.identity.problems.length === 0)
      for (const { name, notAfterMs } of answer.certificates)
        findings.push(ok(`${name} certificate`, `ends ${new Date(notAfterMs).toISOString()}`));
    const { rotation } = answer.identity;
    if (rotation !== null && rotation.waitingFor.length > 0)
      findings.push(warn("rotation", rotationLine(rotation, Date.now()), "see: pillion identity status"));
    const problems = answer.problems.length + answer.objects.flatMap((object) => object.findings).length;
    findings.push(
      problems === 0
        ? ok("folder", status.folder)
        : bad("folder", `${countOf(problems, "problem")} in ${status.folder}`, "see: pillion status"),
    );
  }
  const unwell = status.pods.filter((pod) => !pod.ready && pod.phase !== "Succeeded");
  findings.push(
    unwell.length === 0
      ? ok("pods", `${status.pods.length} ready`)
      : bad(
          "pods",
          unwell
            .slice(0, 5)
            .map((pod) => `${pod.namespace}/${pod.name}: ${pod.message}`)
            .join("; "),
          "see: pillion status",
        ),
  );
  return findings;
}
