/** Load of opaque connections, for a process of its own (`bench/load.ts tcp …`). The far side is `bench/apps/tcp.ts`. */
import { connect, type Socket } from "node:net";
import { Histogram } from "#/base/histogram.ts";

export interface TcpLoadSettings {
  host: string;
  port: number;
  /** `ping`: a message there and back, again and again. `connect`: the same on a new connection each time. */
  what: "ping" | "connect" | "download" | "upload";
  connections: number;
  seconds: number;
  messageBytes: number;
}

export interface TcpLoadResult {
  /** Round trips, connections or mebibytes. */
  done: number;
  failed: number;
  seconds: number;
  p50Us: number;
  p99Us: number;
  p999Us: number;
}

const MIB = 1024 * 1024;
const CHUNK = Buffer.alloc(256 * 1024, "x");

export async function tcpLoad(settings: TcpLoadSettings): Promise<TcpLoadResult> {
  const latency = new Histogram();
  const startMs = performance.now();
  const run: Run = { settings, latency, untilMs: startMs + settings.seconds * 1000, done: 0, failed: 0 };
  const one = { ping, connect: reconnect, download, upload }[settings.what];
  await Promise.all(Array.from({ length: settings.connections }, () => one(run)));
  return {
    done: run.done,
    failed: run.failed,
    seconds: (performance.now() - startMs) / 1000,
    p50Us: latency.quantileUs(0.5),
    p99Us: latency.quantileUs(0.99),
    p999Us: latency.quantileUs(0.999),
  };
}

interface Run {
  readonly settings: TcpLoadSettings;
  readonly latency: Histogram;
  readonly untilMs: number;
  done: number;
  failed: number;
}

function dial({ settings }: Run, first: string): Socket {
  const socket = connect({
    host: settings.host,
    port: settings.port,
    noDelay: true,
    allowHalfOpen: true,
  });
  socket.write(first);
  return socket;
}

/** Resolves when the time is over; a connection that fails counts once and is not made again. */
function ping(run: Run): Promise<void> {
  return new Promise((resolve) => {
    const message = Buffer.alloc(run.settings.messageBytes, "m");
    const socket = dial(run, "echo\n");
    let missing = message.length;
    let sentMs = performance.now();
    socket.write(message);
    socket.on("data", (bytes) => {
      missing -= bytes.length;
      if (missing > 0) return;
      const nowMs = performance.now();
      run.latency.record((nowMs - sentMs) * 1000);
      run.done++;
      if (nowMs >= run.untilMs) {
        socket.destroy();
        return;
      }
      missing = message.length;
      sentMs = nowMs;
      socket.write(message);
    });
    over(run, socket, resolve);
  });
}

async function reconnect(run: Run): Promise<void> {
  while (performance.now() < run.untilMs) await once(run);
}

function once(run: Run): Promise<void> {
  return new Promise((resolve) => {
    const startMs = performance.now();
    const socket = dial(run, "echo\nx");
    let isAnswered = false;
    socket.once("data", () => {
      isAnswered = true;
      run.latency.record((performance.now() - startMs) * 1000);
      run.done++;
      socket.end();
    });
    socket.on("end", () => socket.end());
    socket.on("error", () => undefined); // told by close
    socket.on("close", () => {
      if (!isAnswered) run.failed++;
      resolve();
    });
  });
}

function download(run: Run): Promise<void> {
  return new Promise((resolve) => {
    const socket = dial(run, `send ${2 ** 52}\n`);
    socket.on("data", (bytes) => {
      run.done += bytes.length / MIB;
      if (performance.now() >= run.untilMs) socket.destroy();
    });
    over(run, socket, resolve);
  });
}

function upload(run: Run): Promise<void> {
  return new Promise((resolve) => {
    const socket = dial(run, "take\n");
    const write = (): void => {
      while (performance.now() < run.untilMs) {
        if (!socket.write(CHUNK)) {
          socket.once("drain", write);
          return;
        }
      }
      socket.end();
    };
    // What arrived is what counts: the far side says so at the end.
    let said = "";
    socket.on("data", (bytes) => (said += bytes.toString("latin1")));
    socket.on("end", () => (run.done += Number(said) / MIB));
    write();
    over(run, socket, resolve);
  });
}

function over(run: Run, socket: Socket, resolve: () => void): void {
  socket.on("error", () => run.failed++);
  socket.on("close", () => resolve());
}
