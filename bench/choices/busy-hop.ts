/**
 * A plain hop that counts up for each request, which costs it what TLS and protocol work would.
 *
 *   busy-hop.ts PORT SERVER-HOST SERVER-PORT STEPS
 */
import { connect, createServer } from "node:net";
import { countUp } from "./count-up.ts";

const [port, serverHost = "", serverPort, steps] = process.argv.slice(2);
const stepsEach = Number(steps);

createServer({ noDelay: true }, (client) => {
  const server = connect({ host: serverHost, port: Number(serverPort), noDelay: true });
  // The load asks one request after the other, each in one segment.
  client.on("data", (bytes) => {
    countUp(stepsEach);
    server.write(bytes);
  });
  server.on("data", (bytes) => client.write(bytes));
  for (const [one, other] of [
    [client, server],
    [server, client],
  ] as const) {
    one.on("error", () => undefined); // told by close
    one.on("close", () => other.destroy());
  }
}).listen({ port: Number(port), host: "127.0.0.1", backlog: 1024 }, () => process.stdout.write("ready\n"));
