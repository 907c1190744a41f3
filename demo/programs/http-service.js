import { createServer } from "node:http";
import { hostname } from "node:os";

/** How long requests under way may take after SIGTERM. Kubernetes kills after 30 s by default. */
const DRAIN_MS = 10_000;
/** Longer than any client of the shop keeps an idle connection, so that no request meets a closing one. */
const KEEP_ALIVE_MS = 75_000;
const BODY_BYTES_MAX = 64 * 1024;

/**
 * A plain HTTP/1.1 service: JSON in, JSON out, `/healthz` for liveness and `/readyz` for readiness, one line of access log
 * for each request it served (probes apart), and a graceful end on SIGTERM.
 *
 * `handle(request)` gets `{ id, method, path, body, calls }` and returns `{ status?, body }`; whatever it adds to `calls`
 * is logged, so that the counts of two services can be compared. It throws to answer 502.
 */
export function serveHttp({ name, port, handle, isReady = async () => true, close = async () => {} }) {
  let isEnding = false;

  const server = createServer((request, response) => void respond(request, response));
  server.keepAliveTimeout = KEEP_ALIVE_MS;

  async function respond(request, response) {
    const startedMs = performance.now();
    const path = request.url ?? "/";
    if (path === "/healthz") return answer(response, 200, { ok: true });
    if (path === "/readyz") {
      const isFit = !isEnding && (await isReady());
      return answer(response, isFit ? 200 : 503, { ok: isFit });
    }
    const id = request.headers["x-request-id"] ?? "none";
    const calls = {};
    response.once("close", () => {
      const ms = Number((performance.now() - startedMs).toFixed(1));
      const status = response.writableFinished ? response.statusCode : 0;
      log({
        log: "access",
        service: name,
        pod: hostname(),
        id,
        method: request.method,
        path,
        status,
        ms,
        calls,
      });
    });
    try {
      const result = await handle({ id, method: request.method, path, body: await readJson(request), calls });
      answer(response, result.status ?? 200, result.body);
    } catch (error) {
      log({ log: "error", service: name, pod: hostname(), id, path, error: describe(error) });
      answer(response, 502, { error: describe(error) });
    }
  }

  function answer(response, status, body) {
    // A client with a kept-alive connection learns in time that this one ends.
    if (isEnding) response.setHeader("connection", "close");
    const bytes = Buffer.from(JSON.stringify(body));
    response
      .writeHead(status, { "content-type": "application/json", "content-length": bytes.length })
      .end(bytes);
  }

  onTermination(async () => {
    isEnding = true;
    const closed = new Promise((resolve) => server.close(resolve));
    server.closeIdleConnections();
    await closed;
    await close();
  });
  server.listen(port, () => log({ log: "listening", service: name, pod: hostname(), port }));
  return server;
}

/** Ends the process when `end` is done, or after a while without it. */
export function onTermination(end) {
  const begin = (signal) => {
    log({ log: "ending", signal, pod: hostname() });
    const timer = setTimeout(() => process.exit(1), DRAIN_MS);
    end().then(
      () => {
        clearTimeout(timer);
        process.exit(0);
      },
      (error) => {
        log({ log: "error", error: describe(error) });
        process.exit(1);
      },
    );
  };
  process.once("SIGTERM", begin);
  process.once("SIGINT", begin);
}

/** One line of JSON on standard output. */
export function log(line) {
  process.stdout.write(`${JSON.stringify(line)}\n`);
}

export function describe(error) {
  // Several refused addresses come as one error without a message of its own.
  if (error instanceof AggregateError) return error.errors.map((each) => each.message).join("; ");
  return error instanceof Error ? error.message : String(error);
}

async function readJson(request) {
  const chunks = [];
  let size = 0;
  for await (const chunk of request) {
    size += chunk.length;
    if (size > BODY_BYTES_MAX) throw new Error(`body over ${BODY_BYTES_MAX} bytes`);
    chunks.push(chunk);
  }
  return size === 0 ? null : JSON.parse(Buffer.concat(chunks).toString());
}
