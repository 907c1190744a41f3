/** What the remote may send to us, of one stream or of a whole connection (RFC 9113 §6.9). */
export class RecvWindow {
  /** Bytes that may be under way or unconsumed: what `leftBytes` is filled up to. */
  windowBytes: number;
  /** What the remote may still send; below 0 it has broken the window. */
  leftBytes: number;
  /** Consumed (or padding) and not yet given back by WINDOW_UPDATE. */
  creditBytes = 0;
  /** Since `epochAtMs`, -1 before anything came; see `WindowTuner`. */
  epochBytes = 0;
  epochAtMs = -1;

  constructor(windowBytes: number) {
    this.windowBytes = windowBytes;
    this.leftBytes = windowBytes;
  }

  /** Received and not consumed. */
  get unreadBytes(): number {
    return this.windowBytes - this.leftBytes - this.creditBytes;
  }
}

/**
 * Lets windows follow bandwidth × delay: a sender that fills half a window within two round trips may be held up by it, so
 * the window doubles, up to its bound, provided that its reader keeps up. A window so comes to rest at up to four times
 * bandwidth × delay; a slow reader's stays where it began. Windows never shrink: a shorter one could only be had by not
 * giving credit back, and stalled streams are bounded anyhow.
 *
 * The round trip is the shortest one seen: that of our SETTINGS and their ACK, before there is any load, and of PINGs that are
 * sent while DATA comes and a window may still grow, at most one a second, since peers count them. Under load an answer waits
 * behind DATA; a longer one than before therefore says nothing.
 */
export class WindowTuner {
  /** Until something was measured nothing grows. */
  rttMs = 0;
  /** What `received` was told of last ended an epoch, so there is a flow worth measuring. */
  hasEpochEnded = false;
  /** A PING of ours is under way. */
  isAsking = false;
  #askedAtMs = -Infinity;

  /** By how much the window is to grow now that `bytes` came: 0 nearly always. */
  received(window: RecvWindow, bytes: number, mostBytes: number, nowMs: number): number {
    if (window.epochAtMs < 0) window.epochAtMs = nowMs;
    // Of what came before: nobody can have read what has just come, and that may be a whole window.
    const { windowBytes, epochBytes } = window;
    window.epochBytes += bytes;
    this.hasEpochEnded = 2 * epochBytes >= windowBytes;
    if (!this.hasEpochEnded) return 0;
    const elapsedMs = nowMs - window.epochAtMs;
    window.epochBytes = bytes;
    // At once, so that the pauses of a sender that comes in bursts count, too.
    window.epochAtMs = nowMs;
    if (windowBytes >= mostBytes || elapsedMs >= 2 * this.rttMs) return 0;
    if (3 * (window.unreadBytes - bytes) > windowBytes) return 0;
    return Math.min(windowBytes, mostBytes - windowBytes);
  }

  /** Whether a PING should be sent to measure the round trip. */
  wantsPing(nowMs: number): boolean {
    return !this.isAsking && nowMs - this.#askedAtMs >= PING_EVERY_MS;
  }

  asked(nowMs: number): void {
    this.isAsking = true;
    this.#askedAtMs = nowMs;
  }

  answered(nowMs: number): void {
    this.isAsking = false;
    this.measured(nowMs - this.#askedAtMs);
  }

  measured(rttMs: number): void {
    if (this.rttMs === 0 || rttMs < this.rttMs) this.rttMs = rttMs;
  }
}

const PING_EVERY_MS = 1000;
