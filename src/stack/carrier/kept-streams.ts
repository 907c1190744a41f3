/** What streams that the remote side has reset may hold for readers here, all together. */
const KEPT_BYTES_MAX = 4 * 1024 * 1024;

/**
 * A stream that was reset counts for no window any more, and its last bytes may still wait for a slow reader. Were they not counted, a
 * client that sends and resets could fill the memory. What goes over the bound is not delivered: its reader sees the reset at once.
 */
export class KeptStreams {
  #bytes = 0;

  /** Whether `bytes` of a stream that the remote side has reset may wait for their reader. If so `letGo` follows. */
  keep(bytes: number): boolean {
    if (this.#bytes + bytes > KEPT_BYTES_MAX) return false;
    this.#bytes += bytes;
    return true;
  }

  letGo(bytes: number): void {
    this.#bytes -= bytes;
  }
}
