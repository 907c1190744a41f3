/** Loads `loopback-redirect.bpf.c` for one experiment, and takes everything away again. Needs root, clang 14 and bpftool. */
import { execFileSync } from "node:child_process";
import { existsSync, mkdirSync, readFileSync, rmdirSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";

const ROOT = join(import.meta.dirname, "../..");

export class Redirect {
  readonly #name = `pillion-choice-${process.pid}`;
  readonly #pins = join("/sys/fs/bpf", this.#name);
  readonly #home: string;
  readonly #cgroup: string;

  constructor() {
    const root = cgroupRoot();
    this.#home = join(root, ownCgroup());
    this.#cgroup = join(root, this.#name);
    const object = join(tmpdir(), `${this.#name}.bpf.o`);
    try {
      compile(object);
      mkdirSync(this.#cgroup);
      mkdirSync(this.#pins);
      bpftool("prog", "loadall", object, this.#pins, "pinmaps", this.#pins);
      bpftool(
        "prog",
        "attach",
        "pinned",
        join(this.#pins, "choice_redirect"),
        "sk_msg_verdict",
        ...this.#peers,
      );
      bpftool("cgroup", "attach", this.#cgroup, "sock_ops", "pinned", join(this.#pins, "choice_sockops"));
    } catch (error) {
      this.close();
      throw error;
    } finally {
      rmSync(object, { force: true });
    }
  }

  /** What `start` opens and starts belongs to the cgroup, so its connections inside a pod are redirected. */
  within<T>(start: () => T): T {
    this.enter();
    try {
      return start();
    } finally {
      this.leave();
    }
  }

  enter(): void {
    writeFileSync(join(this.#cgroup, "cgroup.procs"), String(process.pid));
  }

  leave(): void {
    writeFileSync(join(this.#home, "cgroup.procs"), String(process.pid));
  }

  /** Messages that were redirected, and those that TCP carried since the other end was not known yet. */
  messages(): { redirected: number; leftToTcp: number } {
    const dump = bpftool("--json", "map", "dump", "pinned", join(this.#pins, "messages"));
    const [redirected, leftToTcp] = (JSON.parse(dump) as { value: string[] }[]).map(({ value }) =>
      Number(Buffer.from(value.map(Number)).readBigUInt64LE(0)),
    );
    return { redirected: redirected ?? 0, leftToTcp: leftToTcp ?? 0 };
  }

  /** Programs that are still in the cgroup keep it there: end them first. */
  close(): void {
    if (existsSync(this.#pins)) rmSync(this.#pins, { recursive: true });
    // A cgroup that goes lets go of its programs.
    for (let tries = 0; existsSync(this.#cgroup); tries++) {
      try {
        rmdirSync(this.#cgroup);
      } catch (error) {
        if (tries === 100) throw error;
        Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 20);
      }
    }
  }

  get #peers(): string[] {
    return ["pinned", join(this.#pins, "peers")];
  }
}

function compile(object: string): void {
  const flags = ["-O2", "-g", "-Wall", "-Wno-unused-function", "-target", "bpf", "-mcpu=v2"];
  execFileSync("clang-14", [...flags, "-c", "loopback-redirect.bpf.c", "-o", object], {
    cwd: import.meta.dirname,
  });
}

function bpftool(...args: string[]): string {
  return execFileSync("bpftool", args, { encoding: "utf8", cwd: ROOT });
}

function cgroupRoot(): string {
  const lines = readFileSync("/proc/mounts", "utf8").split("\n");
  const mount = lines.find((line) => line.split(" ")[2] === "cgroup2")?.split(" ")[1];
  if (mount === undefined) throw new Error("no cgroup v2 is mounted: the redirect attaches to one");
  return mount;
}

function ownCgroup(): string {
  return /^0::(.*)$/m.exec(readFileSync("/proc/self/cgroup", "utf8"))?.[1] ?? "/";
}
