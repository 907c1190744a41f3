/** Connections that stay idle, and connections that are over at once; HTTP/1 and bytes of no protocol. */
import net from "node:net";

/** Answers each request at once and keeps the connection. `text` tells servers apart; reads no bodies. */
export function serveHttp(port: number): Promise<void> {
  const server = net.createServer((socket) => {
    socket.on("error", () => undefined);
    socket.on("data", (bytes) => {
      const isLast = /connection: close/i.test(bytes.toString("latin1"));
      const reply = `HTTP/1.1 200 OK\r\nContent-Length: 2\r\n${isLast ? "Connection: close\r\n" : ""}\r\nok`;
      if (isLast) socket.end(reply);
      else socket.write(reply);
    });
  });
  return listen(server, port);
}

export function serveEcho(port: number): Promise<void> {
  const server = net.createServer({ allowHalfOpen: true }, (socket) => {
    socket.on("error", () => undefined);
    socket.pipe(socket);
  });
  return listen(server, port);
}

function listen(server: net.Server, port: number): Promise<void> {
  return new Promise((resolve) => server.listen({ host: "0.0.0.0", port, backlog: 4096 }, resolve));
}

const REQUEST = "GET / HTTP/1.1\r\nHost: soak\r\n\r\n";
const LAST_REQUEST = "GET / HTTP/1.1\r\nHost: soak\r\nConnection: close\r\n\r\n";
/** Attempts at once: fewer than a listener's backlog, enough to fill the machine. */
const OPENING_AT_ONCE = 64;

const held: net.Socket[] = [];

/** Opens connections that have each said something and been answered, and keeps them. */
export async function hold(host: string, port: number, count: number, says: "http" | "bytes"): Promise<void> {
  let left = count;
  const opener = async (): Promise<void> => {
    while (left-- > 0) {
      const socket = net.connect({ host, port });
      socket.on("error", () => undefined);
      held.push(socket);
      await ask(socket, says);
    }
  };
  await Promise.all(Array.from({ length: OPENING_AT_ONCE }, opener));
}

/** How many of the held connections still answer. Ends them. */
export async function proveHeld(says: "http" | "bytes"): Promise<number> {
  let alive = 0;
  const all = held.splice(0);
  const prover = async (): Promise<void> => {
    for (let socket = all.pop(); socket !== undefined; socket = all.pop()) {
      try {
        await ask(socket, says);
        alive++;
      } catch {
        // Counted by being missing.
      }
      socket.destroy();
    }
  };
  await Promise.all(Array.from({ length: OPENING_AT_ONCE }, prover));
  return alive;
}

function ask(socket: net.Socket, says: "http" | "bytes"): Promise<void> {
  return new Promise((resolve, reject) => {
    const gone = (): void => reject(new Error("the connection is gone"));
    if (socket.destroyed) {
      gone();
      return;
    }
    socket.once("close", gone);
    socket.once("data", () => {
      socket.off("close", gone);
      resolve();
    });
    socket.write(says === "http" ? REQUEST : "\x00hello");
  });
}

/** Opens, asks once, is answered, closes; again and again until `count` are done. Returns how many went wrong. */
export async function churn(
  host: string,
  port: number,
  count: number,
  atOnce: number,
  says: "http" | "bytes",
): Promise<number> {
  let left = count;
  let failed = 0;
  const one = (): Promise<void> =>
    new Promise((resolve) => {
      let answered = false;
      const socket = net.connect({ host, port }, () => {
        if (says === "http") socket.write(LAST_REQUEST);
        else socket.end("\x00hello");
      });
      socket.on("data", () => (answered = true));
      socket.on("error", () => undefined);
      socket.on("close", () => {
        if (!answered) failed++;
        resolve();
      });
    });
  const runner = async (): Promise<void> => {
    while (left-- > 0) await one();
  };
  await Promise.all(Array.from({ length: atOnce }, runner));
  return failed;
}
