import { createHash, type Hash } from "node:crypto";
import type { Arrival, Field } from "../case.ts";

/** One request as an origin of ours sees it; told to the test as a line on stdout when it is over. */
export class ArrivalLog {
  readonly #arrival: Omit<Arrival, "body" | "trailers" | "end">;
  readonly #hash: Hash = createHash("sha1");
  #bytes = 0;
  #isOver = false;

  constructor(arrival: Omit<Arrival, "body" | "trailers" | "end">) {
    this.#arrival = arrival;
  }

  get bytes(): number {
    return this.#bytes;
  }

  body(bytes: Uint8Array): void {
    this.#hash.update(bytes);
    this.#bytes += bytes.length;
  }

  over(end: Arrival["end"], trailers: readonly Field[]): void {
    if (this.#isOver) return;
    this.#isOver = true;
    const body = { bytes: this.#bytes, sha1: this.#hash.digest("hex") };
    process.stdout.write(`${JSON.stringify({ ...this.#arrival, body, trailers, end } satisfies Arrival)}\n`);
  }
}
