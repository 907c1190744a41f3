import type { ChildProcess } from "node:child_process";
import type { DialledPeer } from "../lib/handshake-load.ts";
import type { Namespaces, Speech } from "../lib/namespaces.ts";
import type { Watched } from "../lib/observed.ts";

/** One thing that is measured: nothing at all, one proxy, or a pair of sidecars. It runs from its start to `stop`. */
export interface Subject {
  readonly name: string;
  readonly world: Namespaces;
  /** Where the load goes, `host:port` as seen from the `client` namespace of `world`, by what is spoken there; not all speak all. */
  readonly places: Readonly<Partial<Record<Speech, string>>>;
  /** The server's sidecar, for load that dials it by itself; absent where none takes mutual TLS. */
  readonly peer?: DialledPeer;
  /** Of `processes`, where they are watched from within. Such a subject is no part of the comparison. */
  readonly watched?: readonly Watched[];
  /** The proxies whose CPU and memory count, client side first. */
  readonly processes: readonly Measured[];
  stop(): Promise<void>;
}

export interface Measured {
  readonly role: "client" | "server" | "hop";
  readonly pid: number;
  /** From exec until it could serve. */
  readonly readyMs: number;
}

export interface SubjectContext {
  readonly world: Namespaces;
  /** A world for subjects that are intercepted, since only one pair can be in each; with its own application. */
  readonly makeWorld: () => Promise<Namespaces>;
  /** For configurations, certificates and keys; removed at the end. */
  readonly folder: string;
  /** Where CPU profiles of our sidecars go when they stop; null for none. Its owner is `SIDECAR_UID`. */
  readonly profileFolder: string | null;
}

/** Starts a subject, or says why it cannot be measured here. */
export type StartSubject = (context: SubjectContext) => Promise<Subject | { skipped: string }>;

/** Waits for a child's first output (`ready`), at most 10 s; returns how long it took. */
export async function readyByOutput(child: ChildProcess, name: string): Promise<number> {
  const startMs = performance.now();
  await new Promise<void>((resolve, reject) => {
    const timer = setTimeout(() => reject(new Error(`${name} was not ready within 10 s`)), 10_000);
    child.stdout?.once("data", () => {
      clearTimeout(timer);
      resolve();
    });
    child.once("exit", (code) => {
      clearTimeout(timer);
      reject(new Error(`${name} ended with ${code ?? "a signal"} before it was ready`));
    });
  });
  return performance.now() - startMs;
}

/** Waits until a port in a namespace answers, asking every 5 ms, at most 10 s; returns how long it took. */
export async function readyByPort(
  world: Namespaces,
  place: "client" | "server",
  port: number,
  address = "127.0.0.1",
): Promise<number> {
  const startMs = performance.now();
  const dial = `for i in $(seq 2000); do (exec 3<>/dev/tcp/${address}/${port}) 2>/dev/null && exit 0; sleep 0.005; done; exit 1`;
  await world.run(place, ["bash", "-c", dial]);
  return performance.now() - startMs;
}

/** Waits until a GET in a namespace is answered with 200, asking every 5 ms, at most 10 s. */
export async function readyByHttp(
  world: Namespaces,
  place: "client" | "server",
  port: number,
  path: string,
): Promise<void> {
  const ask = `exec 3<>/dev/tcp/127.0.0.1/${port} && printf 'GET ${path} HTTP/1.0\\r\\n\\r\\n' >&3 && read -r line <&3 && [[ $line == *" 200 "* ]]`;
  await world.run(place, [
    "bash",
    "-c",
    `for i in $(seq 2000); do (${ask}) 2>/dev/null && exit 0; sleep 0.005; done; exit 1`,
  ]);
}

/** Asks a child to end, by force after `withinMs`; resolves when it has. */
export async function end(child: ChildProcess, withinMs = 5_000): Promise<void> {
  if (child.exitCode !== null || child.signalCode !== null) return;
  const gone = new Promise((resolve) => child.once("exit", resolve));
  child.kill();
  const force = setTimeout(() => child.kill("SIGKILL"), withinMs);
  await gone;
  clearTimeout(force);
}
