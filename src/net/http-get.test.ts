import assert from "node:assert/strict";
import { once } from "node:events";
import { createServer, type RequestListener } from "node:http";
import type { AddressInfo } from "node:net";
import test from "node:test";
import { httpGet } from "./http-get.ts";

async function serving(answer: RequestListener, use: (url: URL) => Promise<void>): Promise<void> {
  const server = createServer(answer);
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  try {
    await use(new URL(`http://127.0.0.1:${(server.address() as AddressInfo).port}/keys?v=1`));
  } finally {
    server.closeAllConnections();
    server.close();
  }
}

const BOUNDS = { timeoutMs: 5_000, bytesMax: 1_000, at: null };

test("gets a body, at another address than the URL's host where that is given", async () => {
  await serving(
    (request, response) => {
      response.setHeader("cache-control", "max-age=5");
      response.end(`${request.method} ${request.url} ${request.headers.host}`);
    },
    async (url) => {
      const got = await httpGet(url, BOUNDS);
      assert.deepEqual(got, { status: 200, body: `GET /keys?v=1 ${url.host}`, cacheControl: "max-age=5" });
      const named = new URL("http://keys.auth.svc.cluster.local/k");
      const at = { host: "127.0.0.1", port: Number(url.port) };
      assert.equal((await httpGet(named, { ...BOUNDS, at })).body, "GET /k keys.auth.svc.cluster.local");
    },
  );
});

test("follows no redirect", async () => {
  let asked = 0;
  await serving(
    (_request, response) => {
      asked++;
      response.writeHead(302, { location: "/elsewhere" }).end();
    },
    async (url) => assert.equal((await httpGet(url, BOUNDS)).status, 302),
  );
  assert.equal(asked, 1);
});

test("gives up a body that is too large, one that does not end, and a server that says nothing", async () => {
  await serving(
    (_request, response) => void response.end("x".repeat(100_000)),
    async (url) => assert.rejects(httpGet(url, BOUNDS), /more than 1000 bytes/),
  );
  await serving(
    (_request, response) => void response.write("begun"),
    async (url) => assert.rejects(httpGet(url, { ...BOUNDS, timeoutMs: 50 }), /abort|timeout/i),
  );
  await serving(
    () => undefined,
    async (url) => assert.rejects(httpGet(url, { ...BOUNDS, timeoutMs: 50 }), /abort|timeout/i),
  );
});
