/**
 * One plain hop that passes bytes on as they come, over each way to have sockets in Node.
 *
 *   plain-hop.ts net|onread|epoll-alone|epoll-inside PORT SERVER-HOST SERVER-PORT
 */
import { connect, createServer, type Socket } from "node:net";
import { EpollLoop, type EpollConn } from "./epoll-loop.ts";

const [kind, port, host = "", serverPort] = process.argv.slice(2);
const there = { host, port: Number(serverPort), noDelay: true };
const here = { host: "127.0.0.1", port: Number(port), backlog: 1024 };
const ready = (): void => void process.stdout.write("ready\n");

/** `node:net` by its events, each with a buffer of its own. */
function overEvents(): void {
  createServer({ noDelay: true }, (client) => {
    const server = connect(there);
    client.on("data", (bytes) => server.write(bytes));
    server.on("data", (bytes) => client.write(bytes));
    endTogether(client, server);
  }).listen(here, ready);
}

/** The same, but what the server says is read into one buffer for all (`onread`, which accepted sockets do not have). */
function overOnread(): void {
  const buffer = Buffer.alloc(64 * 1024);
  createServer({ noDelay: true }, (client) => {
    const callback = (length: number): boolean => {
      client.write(Buffer.from(buffer.subarray(0, length)));
      return true;
    };
    const server = connect({ ...there, onread: { buffer, callback } });
    client.on("data", (bytes) => server.write(bytes));
    endTogether(client, server);
  }).listen(here, ready);
}

function endTogether(client: Socket, server: Socket): void {
  for (const [one, other] of [
    [client, server],
    [server, client],
  ] as const) {
    one.on("error", () => undefined); // told by close
    one.on("close", () => other.destroy());
  }
}

function overEpoll(): EpollLoop {
  const loop = new EpollLoop();
  const pass = (from: EpollConn, to: EpollConn): void => {
    from.received = (bytes, length) => (length > 0 ? to.write(bytes, length) : to.close());
  };
  loop.listen(Number(port), (client) => {
    const server = loop.connect(Number(serverPort), host);
    pass(client, server);
    pass(server, client);
  });
  return loop;
}

const kinds: Record<string, () => void> = {
  net: overEvents,
  onread: overOnread,
  "epoll-alone": () => {
    const loop = overEpoll();
    process.stdout.write("ready\n", () => loop.runAlone());
  },
  "epoll-inside": () => {
    overEpoll().runInside();
    ready();
  },
};
kinds[kind ?? ""]?.();
