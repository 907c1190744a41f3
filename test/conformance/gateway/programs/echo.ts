/**
 * Tells who asks what it was asked: HTTP on 8080, over TLS on 8443, lines on 9090, gRPC on 7070. Query parameters:
 * `delay=1s`, `responseCode=503`, and `succeedAfter=2` (the code is given so many times for one `id` first); `/seen/ID` says
 * how many requests with `id=ID` came.
 */
import { execFileSync } from "node:child_process";
import { mkdtempSync, readFileSync } from "node:fs";
import http, { type IncomingMessage, type ServerResponse } from "node:http";
import https from "node:https";
import net from "node:net";
import { hostname, tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { loadPackageDefinition, Server, ServerCredentials } from "@grpc/grpc-js";
import type { ServiceClientConstructor } from "@grpc/grpc-js";
import { loadSync } from "@grpc/proto-loader";
import type { Seen } from "../client.ts";

const pod = process.env["HOSTNAME"] ?? hostname();
const requestsById = new Map<string, number>();

async function answer(request: IncomingMessage, response: ServerResponse): Promise<void> {
  const url = new URL(request.url ?? "/", "http://any");
  const counted = /^\/seen\/(.+)$/.exec(url.pathname);
  if (counted !== null) {
    response.end(String(requestsById.get(counted[1]!) ?? 0));
    return;
  }
  const id = url.searchParams.get("id") ?? "";
  const nth = (requestsById.get(id) ?? 0) + 1;
  if (id !== "") requestsById.set(id, nth);
  const delay = /^(\d+)(ms|s)$/.exec(url.searchParams.get("delay") ?? "0s");
  if (delay !== null) await sleep(Number(delay[1]) * (delay[2] === "s" ? 1000 : 1));
  const code = Number(url.searchParams.get("responseCode") ?? 200);
  const fails = Number(url.searchParams.get("succeedAfter") ?? Infinity);
  request.resume();
  const seen: Seen = {
    pod,
    method: request.method ?? "",
    path: request.url ?? "",
    host: request.headers.host ?? "",
    headers: request.headersDistinct as Record<string, string[]>,
  };
  response.writeHead(nth > fails ? 200 : code, {
    "content-type": "application/json",
    "x-header-remove": "from the application",
    "x-header-set": url.searchParams.get("answer") ?? [],
    "x-header-add": url.searchParams.get("answer") ?? [],
  });
  response.end(JSON.stringify(seen));
}

function serve(request: IncomingMessage, response: ServerResponse): void {
  void answer(request, response);
}

http.createServer(serve).listen(8080, "0.0.0.0");

const folder = mkdtempSync(join(tmpdir(), "echo-"));
const [key, cert] = [join(folder, "key.pem"), join(folder, "cert.pem")];
const subject = ["-subj", "/CN=echo", "-days", "1", "-keyout", key, "-out", cert];
execFileSync(
  "openssl",
  ["req", "-x509", "-nodes", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", ...subject],
  {
    stdio: "ignore",
  },
);
https.createServer({ key: readFileSync(key), cert: readFileSync(cert) }, serve).listen(8443, "0.0.0.0");

net
  .createServer((socket) => {
    socket.on("error", () => undefined);
    socket.write(`${pod}\n`);
    socket.pipe(socket);
  })
  .listen(9090, "0.0.0.0");

const definition = loadPackageDefinition(loadSync(join(import.meta.dirname, "echo.proto")));
const { Echo } = definition["gateway"] as unknown as { Echo: ServiceClientConstructor };
const server = new Server();
const say =
  (path: string) =>
  (
    call: { metadata: { toJSON(): object }; getHost(): string },
    done: (error: null, reply: { json: string }) => void,
  ): void => {
    const headers = Object.fromEntries(
      Object.entries(call.metadata.toJSON()).map(([name, values]) => [
        name,
        (values as unknown[]).map(String),
      ]),
    );
    const seen: Seen = { pod, method: "POST", path, host: call.getHost(), headers };
    done(null, { json: JSON.stringify(seen) });
  };
server.addService(Echo.service, { Echo: say("/gateway.Echo/Echo"), Other: say("/gateway.Echo/Other") });
server.bindAsync("0.0.0.0:7070", ServerCredentials.createInsecure(), (error) => {
  if (error !== null) throw error;
});
