/**
 * The bounds on what one peer may do that an operator can set: one row each, from which the sidecar's settings, the annotations
 * and the check of docs/reference/limits.md are made. Bounds that nobody needs to move stand beside the code that keeps them.
 */
export interface Limits {
  /** From the first byte of a head to its last. */
  readonly headMs: number;
  /** In which a request's body of known length must grow by `BODY_BYTES_LEAST`, or to its end. */
  readonly bodyMs: number;
  /** In which a client must take `READER_BYTES_LEAST` of what waits for it. */
  readonly readerMs: number;
  /** Without a request, on an HTTP connection. */
  readonly idleMs: number;
  /** In one direction of one sidecar. */
  readonly connectionsMax: number;
  /** Of those, from one address. Inbound only: outbound there is one client. */
  readonly connectionsPerClientMax: number;
  /** Without a word from a far sidecar while requests are under way: then it is asked by PING. */
  readonly keepAliveMs: number;
  /** … while none is. */
  readonly keepAliveIdleMs: number;
  /** In which it must answer. */
  readonly keepAliveTimeoutMs: number;
  /** Of an HTTP/2 connection to an endpoint, give or take a tenth: then new requests get another one. */
  readonly ageMs: number;
  /** Of one head, or trailers, as RFC 9113 §6.5.2 counts it, in both versions and directions (see `HeadBound`). */
  readonly headBytesMax: number;
  /** Open at once on one HTTP/2 connection. */
  readonly streamsMax: number;
  readonly resetsBurst: number;
  readonly pingsBurst: number;
  readonly settingsBurst: number;
  readonly emptyDataBurst: number;
  readonly priorityBurst: number;
  readonly windowUpdatesBurst: number;
  readonly unknownFramesBurst: number;
  /** What each of those budgets regains in a second. */
  readonly floodRefillPerSecond: number;
  /** CONTINUATION frames of one header block. */
  readonly continuationsMax: number;
}

export interface LimitSetting {
  /** Environment variable of the sidecar. */
  readonly variable: string;
  readonly annotation: string;
  readonly unit: "duration" | "count";
  /** Milliseconds, or how many. */
  readonly standard: number;
}

/** Sorted as in the documents. 0 switches a time limit off; counts are at least 1. */
export const LIMIT_SETTINGS: Readonly<Record<keyof Limits, LimitSetting>> = {
  headMs: duration("HEAD_TIMEOUT", 30_000),
  bodyMs: duration("BODY_TIMEOUT", 60_000),
  readerMs: duration("READER_TIMEOUT", 300_000),
  idleMs: duration("HTTP_IDLE_TIMEOUT", 3_600_000),
  connectionsMax: count("CONNECTIONS_MAX", 20_000),
  connectionsPerClientMax: count("CONNECTIONS_PER_CLIENT_MAX", 10_000),
  keepAliveMs: duration("HTTP2_KEEP_ALIVE", 10_000),
  keepAliveIdleMs: duration("HTTP2_KEEP_ALIVE_IDLE", 60_000),
  keepAliveTimeoutMs: duration("HTTP2_KEEP_ALIVE_TIMEOUT", 10_000),
  ageMs: duration("HTTP2_AGE_MAX", 0),
  headBytesMax: count("HEAD_BYTES_MAX", 98_304),
  streamsMax: count("HTTP2_STREAMS_MAX", 1024),
  resetsBurst: count("HTTP2_RESETS_BURST", 1000),
  pingsBurst: count("HTTP2_PINGS_BURST", 1000),
  settingsBurst: count("HTTP2_SETTINGS_BURST", 100),
  emptyDataBurst: count("HTTP2_EMPTY_DATA_BURST", 1000),
  priorityBurst: count("HTTP2_PRIORITY_BURST", 2000),
  windowUpdatesBurst: count("HTTP2_WINDOW_UPDATES_BURST", 10_000),
  unknownFramesBurst: count("HTTP2_UNKNOWN_FRAMES_BURST", 1000),
  floodRefillPerSecond: count("HTTP2_FLOOD_REFILL", 1000),
  continuationsMax: count("HTTP2_CONTINUATIONS_MAX", 32),
};

/** The limits with the value that `read` gives for each. */
export function limitsFrom(read: (setting: LimitSetting) => number): Limits {
  return Object.fromEntries(
    Object.entries(LIMIT_SETTINGS).map(([name, setting]) => [name, read(setting)]),
  ) as unknown as Limits;
}

/** Everything at its default. */
export const LIMITS: Limits = limitsFrom(({ standard }) => standard);

/** What was reached, as the label of `pillion_limit_reached_total`. Closed. */
export type LimitReached =
  | "slow_head"
  | "slow_body"
  | "slow_reader"
  | "idle"
  | "connections"
  | "connections_per_client"
  | "header_bytes"
  | "streams"
  | "resets"
  | "pings"
  | "settings"
  | "empty_data"
  | "priority"
  | "window_updates"
  | "unknown_frames"
  | "continuations"
  | "unread_answers";

function duration(name: string, standard: number): LimitSetting {
  return { ...setting(name), unit: "duration", standard };
}

function count(name: string, standard: number): LimitSetting {
  return { ...setting(name), unit: "count", standard };
}

/** `PILLION_HEAD_TIMEOUT` and `config.pillion.dev/head-timeout`. */
function setting(name: string): Pick<LimitSetting, "variable" | "annotation"> {
  return {
    variable: `PILLION_${name}`,
    annotation: `config.pillion.dev/${name.toLowerCase().replaceAll("_", "-")}`,
  };
}
