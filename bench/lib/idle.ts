import { once } from "node:events";
import { connect } from "node:net";
import { join } from "node:path";
import { end, type Subject } from "../subjects/subject.ts";
import { LOAD_CORE } from "./load.ts";
import { memoryUsed } from "./process-cost.ts";

const CONNECTIONS = 500;
const OPENED_WITHIN_MS = 30_000;
const HELLO = { http1: "GET / HTTP/1.1\r\nHost: bench\r\n\r\n", tcp: "echo\nx" } as const;

/** Opens connections, each with one answer on it, and keeps them until it is killed. Says "held" once all are there. */
export async function hold(host: string, port: number, speech: "http1" | "tcp"): Promise<void> {
  const open = async (): Promise<void> => {
    const socket = connect({ host, port, noDelay: true });
    socket.write(HELLO[speech]);
    await once(socket, "data");
    socket.resume();
  };
  for (let i = 0; i < CONNECTIONS; i += 20) await Promise.all(Array.from({ length: 20 }, open));
  process.stdout.write("held\n");
}

/** KiB of resident memory that one idle connection adds to each process of a subject; null where it does not speak so. */
export async function idleCost(subject: Subject, speech: "http1" | "tcp"): Promise<number[] | null> {
  const place = subject.places[speech];
  if (place === undefined || subject.processes.length === 0) return null;
  const before = subject.processes.map(({ pid }) => memoryUsed(pid).rssKib);
  const program = join(import.meta.dirname, "../load.ts");
  const child = subject.world.start(
    "client",
    [process.execPath, program, "hold", JSON.stringify({ place, speech })],
    { core: LOAD_CORE },
  );
  try {
    const signal = AbortSignal.timeout(OPENED_WITHIN_MS);
    if (child.stdout !== null) await once(child.stdout, "data", { signal });
    return subject.processes.map(({ pid }, i) =>
      Math.max(0, (memoryUsed(pid).rssKib - before[i]!) / CONNECTIONS),
    );
  } finally {
    await end(child);
  }
}
