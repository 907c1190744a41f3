import type { Field } from "./case.ts";

export interface Head {
  readonly line: string;
  readonly fields: readonly Field[];
}

export type Framing =
  | { readonly kind: "none" | "chunked" | "close" }
  | { readonly kind: "length"; readonly bytes: number };

export interface MessageHandler {
  /** Says how the message goes on. */
  head(head: Head): Framing;
  body(bytes: Buffer): void;
  end(trailers: readonly Field[]): void;
}

/**
 * Reads HTTP/1 messages as strictly as can be said in a page, for the client and one of the origins of the differential run.
 * It shares nothing with the reader in `src/wire`, so that what that one gets wrong is seen here. What it does not
 * understand it throws.
 */
export class MessageReader {
  readonly #handler: MessageHandler;
  #buffer: Buffer = Buffer.alloc(0);
  #state: "head" | "length" | "chunk" | "chunk-end" | "trailers" | "close" = "head";
  #left = 0;

  constructor(handler: MessageHandler) {
    this.#handler = handler;
  }

  feed(bytes: Buffer): void {
    this.#buffer = this.#buffer.length === 0 ? bytes : Buffer.concat([this.#buffer, bytes]);
    while (this.#step());
  }

  /** The transport ended. True when that is a message's regular end or falls between two. */
  finish(): boolean {
    if (this.#state === "close") {
      this.#state = "head";
      this.#handler.end([]);
      return true;
    }
    return this.#state === "head" && this.#buffer.length === 0;
  }

  /** Bytes that belong to no message yet. */
  get bufferedBytes(): number {
    return this.#buffer.length;
  }

  /** False when more bytes are needed. */
  #step(): boolean {
    switch (this.#state) {
      case "head":
        return this.#head();
      case "length":
      case "chunk": {
        const piece = this.#take(Math.min(this.#left, this.#buffer.length));
        if (piece.length === 0) return false;
        this.#left -= piece.length;
        this.#handler.body(piece);
        if (this.#left > 0) return false;
        if (this.#state === "length") this.#end([]);
        else this.#state = "chunk-end";
        return true;
      }
      case "chunk-end":
        if (this.#buffer.length < 2) return false;
        if (this.#take(2).toString("latin1") !== "\r\n") throw new Error("no CRLF after a chunk");
        this.#state = "trailers";
        this.#left = -1;
        return true;
      case "trailers":
        return this.#left === -1 ? this.#chunkLine() : this.#trailers();
      case "close":
        if (this.#buffer.length === 0) return false;
        this.#handler.body(this.#take(this.#buffer.length));
        return true;
    }
  }

  #head(): boolean {
    const stop = this.#buffer.indexOf("\r\n\r\n");
    if (stop === -1) return false;
    const [line = "", ...lines] = this.#take(stop + 4)
      .toString("latin1", 0, stop)
      .split("\r\n");
    const framing = this.#handler.head({ line, fields: lines.map(fieldOf) });
    if (framing.kind === "length") {
      this.#left = framing.bytes;
      this.#state = "length";
      if (framing.bytes === 0) this.#end([]);
    } else if (framing.kind === "chunked") {
      this.#state = "trailers";
      this.#left = -1;
    } else if (framing.kind === "close") this.#state = "close";
    else this.#end([]);
    return true;
  }

  #chunkLine(): boolean {
    const stop = this.#buffer.indexOf("\r\n");
    if (stop === -1) return false;
    const line = this.#take(stop + 2).toString("latin1", 0, stop);
    const size = /^([0-9a-f]{1,8})(;[\t\x20-\x7e]*)?$/i.exec(line)?.[1];
    if (size === undefined) throw new Error(`no chunk size: ${JSON.stringify(line.slice(0, 40))}`);
    this.#left = Number.parseInt(size, 16);
    if (this.#left > 0) this.#state = "chunk";
    return true;
  }

  #trailers(): boolean {
    if (this.#buffer.length >= 2 && this.#buffer.toString("latin1", 0, 2) === "\r\n") {
      this.#take(2);
      this.#end([]);
      return true;
    }
    const stop = this.#buffer.indexOf("\r\n\r\n");
    if (stop === -1) return false;
    const text = this.#take(stop + 4).toString("latin1", 0, stop);
    this.#end(text.split("\r\n").map(fieldOf));
    return true;
  }

  #end(trailers: readonly Field[]): void {
    this.#state = "head";
    this.#handler.end(trailers);
  }

  #take(bytes: number): Buffer {
    const taken = this.#buffer.subarray(0, bytes);
    this.#buffer = this.#buffer.subarray(bytes);
    return taken;
  }
}

function fieldOf(line: string): Field {
  const match = /^([!#$%&'*+\-.^_`|~0-9A-Za-z]+):[ \t]*([^\r\n\0]*?)[ \t]*$/s.exec(line);
  if (match === null) throw new Error(`no field: ${JSON.stringify(line.slice(0, 60))}`);
  return [match[1] as string, match[2] as string];
}

export function valueOf(fields: readonly Field[], name: string): string | null {
  return fields.find(([each]) => each.toLowerCase() === name)?.[1] ?? null;
}

/** Whether a list of a field, such as `Connection`, has that token. */
export function hasToken(fields: readonly Field[], name: string, token: string): boolean {
  return fields.some(
    ([each, value]) =>
      each.toLowerCase() === name &&
      value
        .toLowerCase()
        .split(",")
        .some((part) => part.trim() === token),
  );
}
