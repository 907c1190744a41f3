import type { Readable, Writable } from "node:stream";

/** Shorter waits than this are not worth a timer. */
const WAIT_MS_MIN = 20;

/** Reads to the end, never faster than so: a reader that its peer has to wait for. Returns how much came. */
export function readSlowly(stream: Readable, bytesPerSecond: number): Promise<number> {
  let takenBytes = 0;
  const startMs = performance.now();
  stream.on("data", (chunk: Uint8Array) => {
    takenBytes += chunk.length;
    const aheadMs = (takenBytes / bytesPerSecond) * 1000 - (performance.now() - startMs);
    if (aheadMs < WAIT_MS_MIN) return;
    stream.pause();
    setTimeout(() => stream.resume(), aheadMs);
  });
  return new Promise((resolve, reject) => {
    stream.once("end", () => resolve(takenBytes));
    stream.once("error", reject);
    stream.once("close", () => reject(new Error(`closed after ${takenBytes} bytes`)));
  });
}

const CHUNK = Buffer.alloc(65_536, "the quick brown fox ");

/** Writes so many bytes and ends, as fast as the stream takes them. */
export function writeEagerly(stream: Writable, bytes: number): void {
  let leftBytes = bytes;
  const go = (): void => {
    while (leftBytes > 0) {
      const chunk = leftBytes >= CHUNK.length ? CHUNK : CHUNK.subarray(0, leftBytes);
      leftBytes -= chunk.length;
      if (!stream.write(chunk) && leftBytes > 0) {
        stream.once("drain", go);
        return;
      }
    }
    stream.end();
  };
  go();
}
