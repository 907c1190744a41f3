import { writeSync } from "node:fs";
import { describeError } from "#/base/errors.ts";
import { printable } from "#/base/printable.ts";

export const LOG_LEVELS = ["error", "warn", "info", "debug"] as const;
export type LogLevel = (typeof LOG_LEVELS)[number];
export type LogFields = Readonly<Record<string, unknown>>;

/** What a component logs through: one line per event worth reading. */
export interface Log {
  error(message: string, fields?: LogFields): void;
  warn(message: string, fields?: LogFields): void;
  info(message: string, fields?: LogFields): void;
  debug(message: string, fields?: LogFields): void;
  readonly isDebug: boolean;
}

const LINES_PER_SECOND_MAX = 500;

/**
 * JSON lines to a file descriptor (stderr). At most `LINES_PER_SECOND_MAX` a second, then lines are dropped and their
 * number is told with the next that passes: a peer that fails in a loop must not fill the disk or the event loop. Lines
 * that a full pipe does not take are dropped likewise; logging never waits. Whatever a peer has written, a line stays one line of
 * plain characters.
 */
export class JsonLog implements Log {
  level: LogLevel;
  readonly #wallMs: () => number;
  readonly #fd: number;
  #second = 0;
  #lines = 0;
  #dropped = 0;

  constructor(level: LogLevel, wallMs: () => number, fd = 2) {
    this.level = level;
    this.#wallMs = wallMs;
    this.#fd = fd;
  }

  get isDebug(): boolean {
    return this.level === "debug";
  }
  error(message: string, fields?: LogFields): void {
    this.#write("error", message, fields);
  }
  warn(message: string, fields?: LogFields): void {
    this.#write("warn", message, fields);
  }
  info(message: string, fields?: LogFields): void {
    this.#write("info", message, fields);
  }
  debug(message: string, fields?: LogFields): void {
    this.#write("debug", message, fields);
  }

  #write(level: LogLevel, message: string, fields: LogFields | undefined): void {
    if (LOG_LEVELS.indexOf(level) > LOG_LEVELS.indexOf(this.level)) return;
    const nowMs = this.#wallMs();
    const second = Math.floor(nowMs / 1000);
    if (second !== this.#second) {
      this.#second = second;
      this.#lines = 0;
    }
    if (++this.#lines > LINES_PER_SECOND_MAX) {
      this.#dropped++;
      return;
    }
    const line: Record<string, unknown> = { time: new Date(nowMs).toISOString(), level, message };
    for (const name in fields) line[name] = loggable(fields[name]);
    if (this.#dropped > 0) line["droppedLines"] = this.#dropped;
    try {
      writeSync(this.#fd, `${printable(JSON.stringify(line), true)}\n`);
      this.#dropped = 0;
    } catch {
      // EAGAIN of a full pipe, EPIPE of a closed one: nowhere to say so.
      this.#dropped++;
    }
  }
}

export function isLogLevel(text: string): text is LogLevel {
  return (LOG_LEVELS as readonly string[]).includes(text);
}

/** Swallows everything: for tests and simulations. */
export const SILENT: Log = {
  error(): void {},
  warn(): void {},
  info(): void {},
  debug(): void {},
  isDebug: false,
};

function loggable(value: unknown): unknown {
  if (value instanceof Error) return describeError(value);
  return typeof value === "bigint" ? String(value) : value;
}
