import { connect, type Socket } from "node:net";
import { Histogram } from "#/base/histogram.ts";

export interface OpenLoopSettings {
  host: string;
  port: number;
  connections: number;
  requestsPerSecond: number;
  seconds: number;
  /** Requests after which a connection is closed and made anew; 0 keeps it. */
  requestsPerConnection?: number;
  /** Results of the first so many seconds are thrown away. */
  warmupSeconds?: number;
}

export interface OpenLoopResult {
  sent: number;
  answered: number;
  failed: number;
  meanUs: number;
  p50Us: number;
  p99Us: number;
  p999Us: number;
  maxUs: number;
  /** How late the generator itself was, p99: when this is large the machine was too busy for the figures to count. */
  latenessP99Us: number;
}

/**
 * HTTP/1.1 GETs at a fixed rate, whatever the answers do (open loop). A request that finds every connection busy waits,
 * and its waiting counts as latency: no coordinated omission. The clock of a request starts when the generator's own
 * timer released it, so that a late timer (reported apart) is not blamed on what is measured. Waiting requests are
 * bounded at ten seconds' worth; beyond that they count as failed.
 */
export async function openLoop(settings: OpenLoopSettings): Promise<OpenLoopResult> {
  const run = new Run(settings);
  await run.finished;
  return run.result();
}

class Run {
  readonly #settings: OpenLoopSettings;
  readonly #latency = new Histogram();
  readonly #lateness = new Histogram();
  readonly #idle: Client[] = [];
  readonly #waiting: number[] = [];
  readonly #clients: Client[] = [];
  readonly #startMs = performance.now();
  readonly #periodMs: number;
  readonly #request: Buffer;
  #released = 0;
  #sent = 0;
  #failed = 0;
  #answered = 0;
  readonly finished: Promise<void>;

  constructor(settings: OpenLoopSettings) {
    this.#settings = settings;
    this.#periodMs = 1000 / settings.requestsPerSecond;
    this.#request = Buffer.from(
      `GET / HTTP/1.1\r\nHost: ${settings.host}:${settings.port}\r\n\r\n`,
      "latin1",
    );
    for (let i = 0; i < settings.connections; i++) this.#clients.push(new Client(this, settings));
    this.finished = new Promise((resolve) => {
      const tick = (): void => {
        const nowMs = performance.now();
        const elapsedMs = nowMs - this.#startMs;
        if (elapsedMs >= settings.seconds * 1000) {
          this.#drain(nowMs + 2000, resolve);
          return;
        }
        for (
          let due = this.#released * this.#periodMs;
          due <= elapsedMs;
          due = ++this.#released * this.#periodMs
        ) {
          this.#lateness.record((elapsedMs - due) * 1000);
          this.#release(nowMs);
        }
        setTimeout(tick, Math.max(this.#released * this.#periodMs - elapsedMs, 0));
      };
      setTimeout(tick, 0);
    });
  }

  #release(nowMs: number): void {
    const client = this.#idle.pop();
    if (client !== undefined) {
      this.#sent++;
      client.send(this.#request, nowMs);
    } else if (this.#waiting.length < this.#settings.requestsPerSecond * 10) this.#waiting.push(nowMs);
    else this.#failed++;
  }

  /** Lets requests under way finish until `untilMs`; what is missing then has failed. */
  #drain(untilMs: number, resolve: () => void): void {
    const busy = this.#clients.some((c) => c.busy) || this.#waiting.length > 0;
    if (busy && performance.now() < untilMs) {
      setTimeout(() => this.#drain(untilMs, resolve), 5);
      return;
    }
    this.#failed += this.#waiting.length;
    for (const client of this.#clients) {
      if (client.busy) this.#failed++;
      client.stop();
    }
    resolve();
  }

  idle(client: Client): void {
    const since = this.#waiting.shift();
    if (since === undefined) this.#idle.push(client);
    else {
      this.#sent++;
      client.send(this.#request, since);
    }
  }

  forget(client: Client): void {
    const at = this.#idle.indexOf(client);
    if (at >= 0) this.#idle.splice(at, 1);
  }

  answered(sinceMs: number): void {
    this.#answered++;
    const nowMs = performance.now();
    if (sinceMs - this.#startMs < (this.#settings.warmupSeconds ?? 0) * 1000) return;
    this.#latency.record((nowMs - sinceMs) * 1000);
  }

  failed(): void {
    this.#failed++;
  }

  result(): OpenLoopResult {
    const latency = this.#latency;
    return {
      sent: this.#sent,
      answered: this.#answered,
      failed: this.#failed,
      meanUs: latency.count === 0 ? 0 : latency.sumUs / latency.count,
      p50Us: latency.quantileUs(0.5),
      p99Us: latency.quantileUs(0.99),
      p999Us: latency.quantileUs(0.999),
      maxUs: latency.maxUs,
      latenessP99Us: this.#lateness.quantileUs(0.99),
    };
  }
}

/** One connection with one request under way at a time. Reconnects by itself until stopped. */
class Client {
  readonly #run: Run;
  readonly #settings: OpenLoopSettings;
  #socket: Socket;
  #left: number;
  #sinceMs = 0;
  #missing = -1;
  #head = "";
  #stopped = false;
  busy = false;

  constructor(run: Run, settings: OpenLoopSettings) {
    this.#run = run;
    this.#settings = settings;
    this.#left = settings.requestsPerConnection ?? 0;
    this.#socket = this.#open();
  }

  send(request: Buffer, sinceMs: number): void {
    this.busy = true;
    this.#sinceMs = sinceMs;
    this.#missing = -1;
    this.#head = "";
    this.#socket.write(request);
  }

  stop(): void {
    this.#stopped = true;
    this.#socket.destroy();
  }

  #open(): Socket {
    const socket = connect({ host: this.#settings.host, port: this.#settings.port, noDelay: true });
    socket.on("connect", () => this.#run.idle(this));
    socket.on("data", (bytes: Buffer) => this.#receive(bytes));
    socket.on("error", () => undefined); // told by close
    socket.on("close", () => {
      if (this.#stopped || socket !== this.#socket) return;
      this.#run.forget(this);
      if (this.busy) this.#run.failed();
      this.busy = false;
      setTimeout(() => {
        if (!this.#stopped) this.#socket = this.#open();
      }, 20);
    });
    return socket;
  }

  #receive(bytes: Buffer): void {
    if (this.#missing < 0) {
      this.#head += bytes.toString("latin1");
      const headEnd = this.#head.indexOf("\r\n\r\n");
      if (headEnd < 0) return;
      const length = /\r\ncontent-length: *(\d+)/i.exec(this.#head);
      const ok = this.#head.startsWith("HTTP/1.1 200");
      if (!ok || length === null) {
        this.#socket.destroy();
        return;
      }
      this.#missing = headEnd + 4 + Number(length[1]) - this.#head.length;
    } else this.#missing -= bytes.length;
    if (this.#missing > 0) return;
    this.busy = false;
    this.#run.answered(this.#sinceMs);
    if (this.#left > 0 && --this.#left === 0) {
      this.#left = this.#settings.requestsPerConnection ?? 0;
      const old = this.#socket;
      this.#socket = this.#open();
      old.destroy();
    } else this.#run.idle(this);
  }
}
