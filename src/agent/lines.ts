import type { Socket } from "node:net";
import { StringDecoder } from "node:string_decoder";

/**
 * Newline-delimited JSON over a socket. A line longer than `lineBytesMax`, or one that is no JSON, ends the connection:
 * both sides are ours, so it means that something is badly wrong.
 */
export function readLines(socket: Socket, lineBytesMax: number, onMessage: (message: unknown) => void): void {
  const decoder = new StringDecoder("utf8");
  let parts: string[] = [];
  let size = 0;
  socket.on("data", (chunk: Buffer) => {
    let text = decoder.write(chunk);
    for (let at = text.indexOf("\n"); at !== -1; at = text.indexOf("\n")) {
      parts.push(text.slice(0, at));
      text = text.slice(at + 1);
      const line = parts.join("");
      parts = [];
      size = 0;
      if (line === "") continue;
      let message: unknown;
      try {
        message = JSON.parse(line);
      } catch (error) {
        socket.destroy(error instanceof Error ? error : new Error(String(error)));
        return;
      }
      onMessage(message);
    }
    parts.push(text);
    size += text.length;
    if (size > lineBytesMax) socket.destroy(new Error(`a line of more than ${lineBytesMax} bytes`));
  });
}

export function writeLine(socket: Socket, message: unknown): void {
  if (socket.writable) socket.write(`${JSON.stringify(message)}\n`);
}
