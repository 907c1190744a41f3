import { spawn, type ChildProcess } from "node:child_process";
import { once } from "node:events";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { Mesh, until, type Pod } from "../e2e/sidecar/rig/mesh.ts";
import {
  PORTS,
  type Arrival,
  type Case,
  type Conversation,
  type Exchange,
  type ResponseHead,
  type Run,
} from "./case.ts";
import { leavesUnnoticed } from "./expected-differences.ts";
import { parseForensicLog } from "./origins/forensic-log.ts";
import { forensicLog, programs } from "./origins/programs.ts";

const VIP = "10.214.0.2";
/** Debian's own programs, not others of the same name. */
const PATH = "/usr/sbin:/usr/bin:/sbin:/bin";

/** For an origin to tell of a request after its answer. One that is not told of in time did not arrive, and that is a difference. */
const ARRIVAL_MS = 15_000;

/** What one run saw at both ends. */
export interface Seen {
  readonly exchanges: ReadonlyMap<number, Exchange>;
  /** By case: what the origin saw, mostly once. */
  readonly arrivals: ReadonlyMap<number, readonly Arrival[]>;
}

/**
 * A server's pod with all origins in it, and a client's pod, both with sidecars. The same conversations are held from inside the
 * server's pod, where nothing is in between, and from the client's.
 */
export class Lab {
  readonly #mesh: Mesh;
  readonly #server: Pod;
  readonly #client: Pod;
  readonly #processes: ChildProcess[] = [];
  readonly #arrivals: Record<Run, Arrival[]> = { direct: [], meshed: [] };
  readonly #drivers = new Map<Run, Driver>();
  #forensicRead = 0;

  static async start(goBinary: string): Promise<Lab> {
    const mesh = await Mesh.start();
    const [server, client] = await Promise.all([
      mesh.pod("server", { isMeshed: true, inboundPorts: Object.values(PORTS) }),
      mesh.pod("client", { isMeshed: true }),
    ]);
    const lab = new Lab(mesh, server, client);
    try {
      await lab.#begin(goBinary);
    } catch (error) {
      await lab.close();
      throw error;
    }
    return lab;
  }

  private constructor(mesh: Mesh, server: Pod, client: Pod) {
    this.#mesh = mesh;
    this.#server = server;
    this.#client = client;
  }

  /** Holds all conversations, in one run, and waits until the origins have told what they saw. */
  async hold(run: Run, conversations: readonly Conversation[]): Promise<Seen> {
    const driver = this.#drivers.get(run) as Driver;
    const exchanges = (await Promise.all(conversations.map((one) => driver.hold(one)))).flat();
    const byId = new Map(exchanges.map((exchange) => [exchange.id, exchange]));
    const ids = new Set(byId.keys());
    const told = conversations.flatMap(({ cases }) => cases).filter(({ answer }) => answer !== null);
    const arrivals = this.#arrivals[run];
    // An origin tells of a request after it has answered. What something else answered may never have arrived.
    const isDue = (one: Case): boolean =>
      mayHaveArrived(one, byId.get(one.id)?.head ?? null) && !(run === "meshed" && leavesUnnoticed(one));
    const due = new Set(told.filter(isDue).map(({ id }) => id));
    await until(
      () => {
        for (const { id } of arrivals) due.delete(id);
        return due.size === 0;
      },
      "the origins told of all requests",
      ARRIVAL_MS,
    ).catch(() => undefined);
    this.#readForensicLog();
    const seen = this.#arrivals[run].filter(({ id }) => ids.has(id));
    this.#arrivals[run] = this.#arrivals[run].filter(({ id }) => !ids.has(id));
    return { exchanges: byId, arrivals: Map.groupBy(seen, ({ id }) => id) };
  }

  /** Puts sidecars made from these sources in the place of both. */
  async exchangeSidecars(main: string): Promise<void> {
    await Promise.all([
      this.#server.restartSidecar(main, Object.values(PORTS)),
      this.#client.restartSidecar(main, []),
    ]);
  }

  /** A folder that every process of the lab may read, and that goes away with it. */
  get folder(): string {
    return this.#mesh.folder;
  }

  async close(): Promise<void> {
    for (const driver of this.#drivers.values()) await end(driver.process);
    for (const process of this.#processes) await end(process);
    await this.#mesh.close();
  }

  async #begin(goBinary: string): Promise<void> {
    const started = programs(this.#mesh.folder, goBinary);
    await Promise.all(
      Object.entries(started).map(async ([name, { command, says }]) => {
        const process = this.#inside(this.#server, command);
        this.#processes.push(process);
        let isListening = false;
        createInterface(process.stdout!).on("line", (line) => {
          if (line === "listening") isListening = true;
          else this.#note(JSON.parse(line) as Arrival);
        });
        const port = PORTS[name as keyof typeof PORTS];
        await until(async () => (says ? isListening : await this.#answers(port)), `${name} listens`, 10_000);
      }),
    );
    await this.#teach();
    this.#drivers.set("direct", new Driver(this.#inside(this.#server, driverCommand("direct", "127.0.0.1"))));
    this.#drivers.set("meshed", new Driver(this.#inside(this.#client, driverCommand("meshed", VIP))));
  }

  async #teach(): Promise<void> {
    const origins = Object.values(PORTS);
    await this.#mesh.set({
      services: Object.fromEntries(
        origins.map((port) => [`${VIP}:${port}`, { protocol: "detect" as const, path: `origin:${port}` }]),
      ),
      endpoints: Object.fromEntries(origins.map((port) => [`origin:${port}`, [this.#server.endpoint(port)]])),
    });
  }

  #note(arrival: Arrival): void {
    // A faulty proxy may lose the name of the run.
    this.#arrivals[arrival.run]?.push(arrival);
  }

  #answers(port: number): Promise<boolean> {
    return this.#server.run(
      ({ net }, at) =>
        new Promise<boolean>((resolve) => {
          const socket = net.connect({ host: "127.0.0.1", port: at });
          socket.on("connect", () => resolve(true)).on("error", () => resolve(false));
          socket.on("connect", () => socket.destroy());
        }),
      port,
    );
  }

  /** Takes what Apache has written since the last time. */
  #readForensicLog(): void {
    const text = readFileSync(forensicLog(this.#mesh.folder), "latin1");
    for (const arrival of parseForensicLog(text.slice(this.#forensicRead))) this.#note(arrival);
    this.#forensicRead = text.length;
  }

  #inside(pod: Pod, command: readonly string[]): ChildProcess {
    return spawn("ip", ["netns", "exec", pod.ns, ...command], {
      stdio: ["pipe", "pipe", "inherit"],
      env: { PATH },
    });
  }
}

function mayHaveArrived({ answer, close }: Case, head: ResponseHead | null): boolean {
  if (head === null) return close === "gone" || close === "cut";
  return head.line.split(" ")[1] === String(answer?.status);
}

function driverCommand(run: Run, host: string): string[] {
  const driver = join(import.meta.dirname, "driver.ts");
  return [
    process.execPath,
    "--disable-warning=ExperimentalWarning",
    driver,
    run,
    host,
    JSON.stringify(PORTS),
  ];
}

/** A process in a pod that holds conversations. */
class Driver {
  readonly process: ChildProcess;
  readonly #waiting = new Map<
    number,
    { resolve: (seen: Exchange[]) => void; reject: (error: Error) => void }
  >();
  #next = 0;

  constructor(process: ChildProcess) {
    this.process = process;
    createInterface(process.stdout!).on("line", (line) => {
      const { index, exchanges } = JSON.parse(line) as { index: number; exchanges: Exchange[] };
      this.#waiting.get(index)?.resolve(exchanges);
      this.#waiting.delete(index);
    });
    process.on("exit", (code) => {
      for (const { reject } of this.#waiting.values()) reject(new Error(`the driver ended with ${code}`));
    });
  }

  hold(conversation: Conversation): Promise<Exchange[]> {
    const index = this.#next++;
    const { promise, resolve, reject } = Promise.withResolvers<Exchange[]>();
    this.#waiting.set(index, { resolve, reject });
    this.process.stdin?.write(`${JSON.stringify({ index, conversation })}\n`);
    return promise;
  }
}

async function end(process: ChildProcess): Promise<void> {
  if (process.exitCode !== null || process.signalCode !== null) return;
  process.kill("SIGTERM");
  await once(process, "exit");
}
