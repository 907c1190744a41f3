import { request as requestPlain, type IncomingMessage } from "node:http";
import { request as requestSecure } from "node:https";

export interface Got {
  readonly status: number;
  readonly body: string;
  /** "" without one. */
  readonly cacheControl: string;
}

export interface GetOptions {
  readonly timeoutMs: number;
  /** A larger body is an error, and is not read further. */
  readonly bytesMax: number;
  /** Where to connect instead of to the URL's host; only without TLS. Null: to the host, by its name. */
  readonly at: { readonly host: string; readonly port: number } | null;
}

/**
 * One GET on a connection of its own: no redirect is followed, no cookie and no body sent. TLS trusts what Node trusts, or the file in
 * `NODE_EXTRA_CA_CERTS`. Rejects where no whole answer comes in time.
 */
export async function httpGet(url: URL, { timeoutMs, bytesMax, at }: GetOptions): Promise<Got> {
  const { promise, resolve, reject } = Promise.withResolvers<Got>();
  const headers = { accept: "application/json", host: url.host };
  const options = {
    agent: false as const,
    method: "GET",
    headers,
    path: url.pathname + url.search,
    signal: AbortSignal.timeout(timeoutMs),
  };
  const answered = (response: IncomingMessage): void => {
    const chunks: Buffer[] = [];
    let bytes = 0;
    response.on("data", (chunk: Buffer) => {
      bytes += chunk.length;
      if (bytes <= bytesMax) chunks.push(chunk);
      else response.destroy(new Error(`the answer has more than ${bytesMax} bytes`));
    });
    response.on("error", reject);
    response.on("end", () =>
      resolve({
        status: response.statusCode ?? 0,
        body: Buffer.concat(chunks).toString("utf8"),
        cacheControl: response.headers["cache-control"] ?? "",
      }),
    );
  };
  const host = url.hostname.replace(/^\[|\]$/g, "");
  const request =
    url.protocol === "https:"
      ? requestSecure({ ...options, host, port: url.port === "" ? 443 : Number(url.port) }, answered)
      : requestPlain(
          { ...options, host: at?.host ?? host, port: at?.port ?? (url.port === "" ? 80 : Number(url.port)) },
          answered,
        );
  request.on("error", reject);
  request.end();
  return await promise;
}
