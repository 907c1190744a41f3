import { Agent, request } from "node:http";

// Far above any answer's time, so that a busy machine alone fails nothing.
const TIMEOUT_MS = 30_000;
const BODY_BYTES_MAX = 1024 * 1024;
// Idle connections are given up well before any server of the shop would close them.
const agent = new Agent({ keepAlive: true, maxSockets: 64, maxFreeSockets: 32, timeout: 30_000 });

/**
 * One HTTP request over a kept-alive connection, never repeated: `{ status, body }`, the body as text. Throws when no
 * whole answer came.
 */
export function call(url, { id, method = "GET", body } = {}) {
  const bytes = body === undefined ? null : Buffer.from(JSON.stringify(body));
  const headers = { "x-request-id": id };
  if (bytes !== null)
    Object.assign(headers, { "content-type": "application/json", "content-length": bytes.length });
  return new Promise((resolve, reject) => {
    const sent = request(
      url,
      { method, headers, agent, signal: AbortSignal.timeout(TIMEOUT_MS) },
      (response) => {
        const chunks = [];
        let size = 0;
        response.on("data", (chunk) => {
          size += chunk.length;
          if (size > BODY_BYTES_MAX) response.destroy(new Error(`answer over ${BODY_BYTES_MAX} bytes`));
          else chunks.push(chunk);
        });
        response.once("error", reject);
        response.once("end", () =>
          resolve({ status: response.statusCode, body: Buffer.concat(chunks).toString() }),
        );
      },
    );
    sent.once("error", reject);
    sent.end(bytes ?? undefined);
  });
}

/** As `call`, for services that answer JSON: the parsed body of a 2xx, anything else throws. */
export async function callJson(url, options) {
  const { status, body } = await call(url, options);
  if (status < 200 || status > 299) throw new Error(`${url} answered ${status}: ${body.slice(0, 200)}`);
  return JSON.parse(body);
}
