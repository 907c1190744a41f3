import type { Clock } from "#/base/clock.ts";
import type { LimitReached, Limits } from "#/model/limits.ts";
import type { Labels } from "#/model/identity.ts";
import { FRAME_BYTES_DEFAULT } from "#/wire/http2/frame.ts";
import type { Http2Settings } from "#/wire/http2/settings.ts";
import { FAMILIES } from "../metrics/families.ts";
import type { Registry } from "../metrics/registry.ts";
import { Patrol } from "../patrol.ts";
import { HeadBound } from "./head-bound.ts";

export type GuardedDirection = "inbound" | "outbound" | "admin" | "workload-api";

/** What all client connections of one direction share to be kept within their limits. */
export class Guard {
  readonly limits: Limits;
  readonly patrol: Patrol;
  readonly heads: HeadBound;
  /** The limits that the machine of HTTP/2 keeps by itself. */
  readonly machine: Partial<Http2Settings>;
  readonly #direction: GuardedDirection;
  readonly #registry: Registry;

  constructor(limits: Limits, direction: GuardedDirection, clock: Clock, registry: Registry) {
    this.limits = limits;
    this.patrol = new Patrol(clock);
    this.#direction = direction;
    this.#registry = registry;
    this.heads = new HeadBound(limits.headBytesMax, (protocol, message, times) =>
      this.#count({ limit: "header_bytes", direction, protocol, message }, times),
    );
    // A head that is allowed must not fail for its frames, whatever else is set.
    const framesLeast = Math.ceil((2 * this.heads.http2(true).headerBlockBytesMax) / FRAME_BYTES_DEFAULT);
    this.machine = {
      maxConcurrentStreams: limits.streamsMax,
      resetBurst: limits.resetsBurst,
      pingBurst: limits.pingsBurst,
      settingsBurst: limits.settingsBurst,
      emptyDataBurst: limits.emptyDataBurst,
      priorityBurst: limits.priorityBurst,
      windowUpdateBurst: limits.windowUpdatesBurst,
      unknownFrameBurst: limits.unknownFramesBurst,
      floodRefillPerSecond: limits.floodRefillPerSecond,
      continuationFramesMax: Math.max(limits.continuationsMax, framesLeast),
    };
  }

  reached(limit: LimitReached, times = 1): void {
    this.#count({ limit, direction: this.#direction }, times);
  }

  #count(labels: Labels, times: number): void {
    const series = this.#registry.counter(FAMILIES.limitReached, labels);
    series.add(times);
    series.release();
  }
}

/**
 * Asks a silent far sidecar whether it is alive. Not an application: of that the kernel tells when it is gone, and some count
 * PINGs as an attack. One whose answer may take for ever (0) would tell nothing, so none is sent.
 */
export function keepAlive(limits: Limits): Partial<Http2Settings> {
  const { keepAliveMs, keepAliveIdleMs, keepAliveTimeoutMs: pingTimeoutMs } = limits;
  if (pingTimeoutMs === 0) return {};
  return { pingIntervalMs: keepAliveMs, pingIdleIntervalMs: keepAliveIdleMs, pingTimeoutMs };
}

/** Less than this in `bodyMs` is no upload but an attempt to hold a connection: 17 bytes a second. */
export const BODY_BYTES_LEAST = 1_024;
/** A body of unknown length may be a stream that has nothing to say: any byte will do, in so many times `bodyMs`. */
export const OPEN_BODY_PATIENCE = 5;
/** Less than this in `readerMs` is no download: 218 bytes a second. */
export const READER_BYTES_LEAST = 65_536;

/** What a connection waits for, as `Lag` has it. Below 0, apart from the numbers that the machine of HTTP/2 gives. */
export const Wait = { IDLE: -1, HEAD: -2, BODY: -3, READER: -4 } as const;
