import type { Clock } from "#/base/clock.ts";
import type { Log } from "#/net/log.ts";
import { FAMILIES } from "#/stack/metrics/families.ts";
import type { Registry } from "#/stack/metrics/registry.ts";
import type { Connections } from "./connections.ts";

/** The memory of this process, as the kernel charges it. */
export interface ProcessMemory {
  /** At which the kernel kills this process. */
  readonly limitBytes: number;
  /** What only its end, or giving it back, would free: neither files nor what the kernel keeps for its sockets. */
  usedBytes(): number;
  /** Collects garbage and returns free memory to the kernel: milliseconds, tens of them for a large heap. */
  giveBack(): void;
}

export interface MemoryGuardParts {
  readonly clock: Clock;
  readonly log: Log;
  readonly registry: Registry;
  /** null: there is no limit, and nothing is guarded. */
  readonly memory: ProcessMemory | null;
}

/** Shares of the limit. From FULL on nobody new is let in, and below ROOMY again; the rest is for what is under way. */
const ROOMY = 0.75;
const FULL = 0.85;
const CRITICAL = 0.92;
/** What the kernel holds for one connection's sockets (3.4 KiB measured) is charged to the same limit. */
const KERNEL_BYTES_PER_CONNECTION = 4_096;
/** How often it looks while there are connections; an accepted connection makes it look sooner. */
const LOOK_EVERY_MS = 100;
const LOOK_AT_MOST_EVERY_MS = 10;
/** Giving memory back stops everything: below CRITICAL not sooner again than so, and never before so many times what it took. */
const GIVE_BACK_EVERY_MS = 1_000;
const SERVE_PER_GIVE_BACK = 5;
/** Of the idle ones at FULL, of all at CRITICAL; at each look that has given memory back, which shows what it brought. */
const IDLE_SHARE = 0.25;
const NEWEST_SHARE = 0.1;

/**
 * Keeps the sidecar below its memory limit, so that too many clients cost some of them their connections, and not
 * all of them the sidecar. In this order: memory that is free already goes back to the kernel; new connections are refused;
 * the oldest idle HTTP/1 connections to the workload are ended, unfinished heads among them; past CRITICAL the newest
 * connections are cut, whatever they do.
 */
export class MemoryGuard {
  readonly #parts: MemoryGuardParts;
  readonly #memory: ProcessMemory | null;
  #inbound: Connections | null = null;
  #outbound: Connections | null = null;
  #isFull = false;
  #refused = 0;
  #ended = 0;
  #lookedAtMs = -Infinity;
  #gaveBackAtMs = -Infinity;
  #gaveBackForMs = 0;
  #isWaiting = false;

  constructor(parts: MemoryGuardParts) {
    this.#parts = parts;
    this.#memory = parts.memory;
  }

  /** Begins; says it when there would be no room even without a connection. */
  watch(inbound: Connections, outbound: Connections): void {
    this.#inbound = inbound;
    this.#outbound = outbound;
    if (this.#memory === null) return;
    const { log, registry } = this.#parts;
    const { limitBytes } = this.#memory;
    registry.gauge(FAMILIES.memoryLimit, {}).set(limitBytes);
    const used = registry.gauge(FAMILIES.memoryUsed, {});
    registry.beforeReading(() => used.set(this.#usedBytes()));
    if (this.#share() >= ROOMY) this.#giveBack(this.#memory);
    if (this.#share() < ROOMY) return;
    log.error(
      "the sidecar's memory limit is too low: without any connection there is no room below it, so new ones will be refused; " +
        "raise config.linkerd.io/proxy-memory-limit well above neededBytes",
      { usedBytes: this.#usedBytes(), limitBytes, neededBytes: Math.ceil(this.#usedBytes() / ROOMY) },
    );
  }

  /** Asked for each new connection. True: refuse it. */
  refuses(): boolean {
    if (this.#memory === null) return false;
    if (this.#parts.clock.nowMs() - this.#lookedAtMs >= LOOK_AT_MOST_EVERY_MS) this.#look();
    if (this.#isFull) this.#refused++;
    if (!this.#isWaiting) this.#lookLater();
    return this.#isFull;
  }

  #lookLater(): void {
    this.#isWaiting = true;
    this.#parts.clock.after(LOOK_EVERY_MS, () => {
      this.#isWaiting = false;
      this.#look();
      if (this.#isFull || this.#connections() > 0) this.#lookLater();
    });
  }

  #look(): void {
    this.#lookedAtMs = this.#parts.clock.nowMs();
    if (this.#memory !== null && !this.#hasRoom() && this.#mayGiveBack()) {
      this.#giveBack(this.#memory);
      if (!this.#hasRoom()) this.#endSome();
    }
    this.#setFull(!this.#hasRoom());
  }

  #mayGiveBack(): boolean {
    const servedMs = this.#lookedAtMs - this.#gaveBackAtMs;
    if (servedMs < SERVE_PER_GIVE_BACK * this.#gaveBackForMs) return false;
    return servedMs >= GIVE_BACK_EVERY_MS || this.#share() >= CRITICAL;
  }

  #giveBack(memory: ProcessMemory): void {
    const { clock } = this.#parts;
    const beganMs = clock.nowMs();
    memory.giveBack();
    this.#gaveBackAtMs = clock.nowMs();
    this.#gaveBackForMs = this.#gaveBackAtMs - beganMs;
  }

  #endSome(): void {
    this.#end("idle", this.#inbound?.endIdle(IDLE_SHARE) ?? 0);
    if (this.#share() < CRITICAL) return;
    this.#end("newest", this.#inbound?.cutNewest(NEWEST_SHARE) ?? 0);
    this.#end("newest", this.#outbound?.cutNewest(NEWEST_SHARE) ?? 0);
  }

  /** For somebody new. It takes less use to let in again than to shut, so that the door does not swing. */
  #hasRoom(): boolean {
    return this.#share() < (this.#isFull ? ROOMY : FULL);
  }

  #setFull(isFull: boolean): void {
    if (isFull === this.#isFull) return;
    this.#isFull = isFull;
    const { log } = this.#parts;
    const figures = {
      usedBytes: this.#usedBytes(),
      limitBytes: this.#memory?.limitBytes,
      connections: this.#connections(),
    };
    if (isFull) {
      log.warn("near its memory limit: refuses new connections and ends idle ones", figures);
    } else {
      log.info("has room again", { ...figures, refused: this.#refused, ended: this.#ended });
      this.#refused = 0;
      this.#ended = 0;
    }
  }

  #end(which: "idle" | "newest", count: number): void {
    this.#ended += count;
    if (count === 0) return;
    const series = this.#parts.registry.counter(FAMILIES.memoryEnded, { which });
    series.add(count);
    series.release();
  }

  #share(): number {
    return this.#usedBytes() / (this.#memory?.limitBytes ?? Infinity);
  }

  #usedBytes(): number {
    return (this.#memory?.usedBytes() ?? 0) + this.#connections() * KERNEL_BYTES_PER_CONNECTION;
  }

  #connections(): number {
    return (this.#inbound?.count ?? 0) + (this.#outbound?.count ?? 0);
  }
}
