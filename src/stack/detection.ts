import type { Clock, Timer } from "#/base/clock.ts";
import type { Conn, ConnHandler } from "#/base/conn.ts";
import { ConnError } from "#/base/errors.ts";
import { isHttp2ServerPreface } from "#/wire/detect.ts";
import type { Cancel } from "./discovery.ts";

/** What the client's bytes so far say. "tls" ends detection so that the caller can look at the hello. */
export type ClientVerdict = "http1" | "http2" | "opaque" | "tls" | "more";

/** A connection that was opened before it was known what the client speaks. */
export interface Dialled {
  readonly conn: Conn;
  /** Called where detection itself gives the connection up, so that it counts as load no more. */
  release?(): void;
}

export interface DetectionOptions<D extends Dialled> {
  readonly clock: Clock;
  readonly client: Conn;
  /** How long to wait for the client before dialling. 0: dial at once, because this target is known to speak first. */
  readonly patienceMs: number;
  /** After so long, counted from the start, whatever is undecided is opaque. */
  readonly timeoutMs: number;
  inspect(bytes: Uint8Array): ClientVerdict;
  /** Opens the connection to the chosen endpoint; null where the server may not be reached before the client has spoken. */
  readonly dial: ((done: (error: ConnError | null, dialled: D | null) => void) => Cancel) | null;
  /** The server that is dialled takes bytes alone, and requests go elsewhere: that it cannot be reached decides nothing yet. */
  readonly isDialOptional?: boolean;
  /** Whether what was dialled is known to take bytes alone: then nothing else needs to be found out. Without it none is. */
  isOpaque?(dialled: D): boolean;
}

/** "endpoint": what is known of it, by nobody's bytes. */
export type DecidedBy = "client" | "server" | "timeout" | "endpoint";

/**
 * Who decided is kept for the next connection: "server" means that this target speaks first.
 * Both connections are paused, hold all their bytes, and wait for their next handler and `resume`.
 */
export type Detected<D extends Dialled> =
  | {
      readonly kind: "http1" | "http2" | "opaque" | "tls";
      /** Null: nothing was dialled. */
      readonly dialled: D | null;
      readonly decidedBy: DecidedBy;
    }
  | { readonly kind: "client-gone"; readonly error: ConnError | null }
  | { readonly kind: "dial-failed"; readonly error: ConnError };

/** More than a client needs to be understood; past it the bytes are opaque. */
const CLIENT_BYTES_MAX = 24 * 1024;

/**
 * Finds out what a client speaks without ever stalling it. Its bytes usually come at once and decide. If they do not
 * come within the patience, the server may be the one to speak first: it is dialled, and both directions are watched.
 * Server bytes that are an HTTP/2 SETTINGS frame on stream 0 decide nothing, since many servers send it unasked; any
 * others mean opaque.
 */
export function detect<D extends Dialled>(
  options: DetectionOptions<D>,
  done: (detected: Detected<D>) => void,
): Cancel {
  return new Detection(options, done);
}

class Detection<D extends Dialled> implements Cancel, ConnHandler {
  readonly #options: DetectionOptions<D>;
  readonly #done: (detected: Detected<D>) => void;
  readonly #server: ServerWatch<D>;
  #clientBytes: Uint8Array = EMPTY;
  #timer: Timer | null = null;
  #dialling: Cancel | null = null;
  #dialled: D | null = null;
  #isOver = false;

  constructor(options: DetectionOptions<D>, done: (detected: Detected<D>) => void) {
    this.#options = options;
    this.#done = done;
    this.#server = new ServerWatch(this);
    options.client.setHandler(this);
    options.client.resume();
    this.#timer = options.clock.after(options.patienceMs, () => this.#runOutOfPatience());
  }

  cancel(): void {
    if (this.#isOver) return;
    this.#close();
    this.#dialling?.cancel();
    this.#dialled?.conn.reset();
    this.#dialled?.release?.();
  }

  onData(bytes: Uint8Array): void {
    if (this.#isOver) return;
    this.#clientBytes = concat(this.#clientBytes, bytes);
    const verdict = this.#options.inspect(this.#clientBytes);
    if (verdict !== "more") this.#decide(verdict, "client");
    else if (this.#clientBytes.length > CLIENT_BYTES_MAX) this.#decide("opaque", "client");
  }

  /** A client that ends its half without a word waits for what the server says. */
  onEnd(): void {
    this.#decide("opaque", "client");
  }

  onDrain(): void {}

  onClose(error: ConnError | null): void {
    if (this.#isOver) return;
    this.cancel();
    this.#done({ kind: "client-gone", error });
  }

  serverSpoke(): void {
    this.#decide("opaque", "server");
  }

  serverFailed(error: ConnError): void {
    if (this.#isOver) return;
    this.#dialled?.release?.();
    if (this.#options.isDialOptional === true) {
      this.#dialled = null;
      this.#server.bytes = EMPTY;
      return;
    }
    this.#close();
    this.#done({ kind: "dial-failed", error });
  }

  #runOutOfPatience(): void {
    const { clock, patienceMs, timeoutMs, dial } = this.#options;
    this.#timer = clock.after(Math.max(0, timeoutMs - patienceMs), () => this.#decide("opaque", "timeout"));
    if (dial === null) return;
    this.#dialling = dial((error, dialled) => {
      this.#dialling = null;
      if (dialled === null) {
        this.serverFailed(error ?? new ConnError("CONNECT_FAILED", "no connection"));
        return;
      }
      this.#dialled = dialled;
      dialled.conn.setHandler(this.#server);
      dialled.conn.resume();
      if (this.#options.isOpaque?.(dialled) === true) this.#decide("opaque", "endpoint");
    });
  }

  #decide(kind: "http1" | "http2" | "opaque" | "tls", decidedBy: DecidedBy): void {
    if (this.#isOver) return;
    this.#close();
    // An attempt still under way has carried nothing; whoever goes on opens what fits the protocol.
    this.#dialling?.cancel();
    const { client } = this.#options;
    client.pause();
    client.unread(this.#clientBytes);
    this.#clientBytes = EMPTY;
    if (this.#dialled !== null) {
      this.#dialled.conn.pause();
      this.#dialled.conn.unread(this.#server.bytes);
      this.#server.bytes = EMPTY;
    }
    this.#done({ kind, dialled: this.#dialled, decidedBy });
  }

  #close(): void {
    this.#isOver = true;
    this.#timer?.cancel();
  }
}

/** The server's half, watched while the client is silent. */
class ServerWatch<D extends Dialled> implements ConnHandler {
  bytes: Uint8Array = EMPTY;
  readonly #detection: Detection<D>;

  constructor(detection: Detection<D>) {
    this.#detection = detection;
  }

  onData(bytes: Uint8Array): void {
    this.bytes = concat(this.bytes, bytes);
    // RFC 9113 §3.4: a server's preface is a SETTINGS frame, which it may send before it has heard anything.
    if (isHttp2ServerPreface(this.bytes) === "no") this.#detection.serverSpoke();
  }

  onEnd(): void {
    this.#detection.serverSpoke();
  }

  onDrain(): void {}

  onClose(error: ConnError | null): void {
    if (error !== null) this.#detection.serverFailed(error);
    else this.#detection.serverSpoke();
  }
}

const EMPTY = new Uint8Array(0);

function concat(a: Uint8Array, b: Uint8Array): Uint8Array {
  if (a.length === 0) return b;
  const out = new Uint8Array(a.length + b.length);
  out.set(a);
  out.set(b, a.length);
  return out;
}
