/**
 * The service of all examples. It knows nothing of the mesh. HTTP/1.1 on 8080: an answer is one line, `NAME POD`, and each request
 * is one line of the log, `METHOD PATH`.
 *
 * Paths: `/headers` answers with the request as it came, one field a line; `/broken` always with 503; anything else with 200.
 * With `?ms=N` in it, after N ms.
 *
 * Environment: NAME; FAIL_EVERY=N, each Nth request is answered with 503 (1: all); GRPC=1, the service shop.Catalogue on 50051;
 * TLS=1, HTTPS on 8443 with a certificate of its own; TCP=1, a greeting for each connection to 7000.
 */
import { execFileSync } from "node:child_process";
import { createServer } from "node:http";
import { createServer as createTlsServer } from "node:https";
import { createServer as createTcpServer } from "node:net";
import { hostname } from "node:os";

const { NAME = "web", FAIL_EVERY = "0", GRPC, TLS, TCP } = process.env;
const failEvery = Number(FAIL_EVERY);
const line = `${NAME} ${hostname()}\n`;
let requests = 0;

function serve(request, response) {
  process.stdout.write(`${request.method} ${request.url}\n`);
  const { pathname, searchParams } = new URL(request.url, "http://self");
  const isFailing = pathname.startsWith("/broken") || (failEvery > 0 && ++requests % failEvery === 0);
  request.resume();
  request.on("end", () =>
    setTimeout(
      () => {
        response.writeHead(isFailing ? 503 : 200, { "content-type": "text/plain", "x-served-by": NAME });
        response.end(pathname === "/headers" ? asItCame(request) : line);
      },
      Number(searchParams.get("ms") ?? 0),
    ),
  );
}

function asItCame({ method, url, rawHeaders }) {
  const lines = [`${method} ${url}`];
  for (let i = 0; i < rawHeaders.length; i += 2) lines.push(`${rawHeaders[i]}: ${rawHeaders[i + 1]}`);
  return `${lines.join("\n")}\n`;
}

createServer(serve).listen(8080);

if (GRPC === "1") {
  const { Server, ServerCredentials } = await import("@grpc/grpc-js");
  const asIs = (bytes) => bytes;
  const method = (name) => ({
    path: `/shop.Catalogue/${name}`,
    requestStream: false,
    responseStream: false,
    requestSerialize: asIs,
    requestDeserialize: asIs,
    responseSerialize: asIs,
    responseDeserialize: asIs,
  });
  const answer = (call, callback) => callback(null, Buffer.from(line));
  const server = new Server();
  server.addService({ get: method("Get"), list: method("List") }, { get: answer, list: answer });
  server.bindAsync("0.0.0.0:50051", ServerCredentials.createInsecure(), (error) => {
    if (error !== null) throw error;
  });
}

if (TLS === "1") {
  const made = execFileSync(
    "openssl",
    [
      "req",
      "-x509",
      "-nodes",
      "-newkey",
      "ec",
      "-pkeyopt",
      "ec_paramgen_curve:P-256",
      "-subj",
      `/CN=${NAME}`,
      "-keyout",
      "-",
    ],
    { encoding: "utf8", stdio: ["ignore", "pipe", "ignore"] },
  );
  // Key and certificate in one text; each reader takes what is its own.
  createTlsServer({ key: made, cert: made }, serve).listen(8443);
}

if (TCP === "1") createTcpServer((socket) => socket.on("error", () => {}).end(line)).listen(7000);

process.on("SIGTERM", () => process.exit(0));
