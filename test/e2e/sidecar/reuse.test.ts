import assert from "node:assert/strict";
import { after, before, describe, test } from "node:test";
import { cannotRun, Mesh, type Pod } from "./rig/mesh.ts";
import type { WorkerContext } from "./rig/worker.ts";

const skip = cannotRun() ?? false;
const VIP = "10.214.0.2";

/**
 * Answers each request and then ends or resets the connection, unannounced, some turns of the event loop later: sooner, as
 * the next request comes, or later.
 */
function serveAndLeave({ net, state }: WorkerContext): Promise<null> {
  const seen: Record<string, number> = {};
  state["seen"] = seen;
  let number = 0;
  const server = net.createServer({ allowHalfOpen: true, noDelay: true }, (socket) => {
    let text = "";
    socket.on("error", () => undefined);
    socket.on("end", () => socket.end());
    socket.on("data", (bytes: Buffer) => {
      text += bytes.toString("latin1");
      for (;;) {
        const head = /^(\w+ \S+) HTTP[^]*?\r\n\r\n/.exec(text);
        const length = Number(/content-length: (\d+)/i.exec(head?.[0] ?? "")?.[1] ?? 0);
        if (head === null || text.length < head[0].length + length) return;
        text = text.slice(head[0].length + length);
        seen[head[1]!] = (seen[head[1]!] ?? 0) + 1;
        socket.write("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
        const how = number++;
        let turns = how % 17;
        const leave = (): void => {
          if (turns-- > 0) setImmediate(leave);
          else if (how % 2 === 0) socket.end();
          else socket.resetAndDestroy();
        };
        if (how % 5 !== 0) leave();
      }
    });
  });
  return new Promise((done) => server.listen(8080, "0.0.0.0", () => done(null)));
}

/** So many requests, one after the other, on one connection; statuses other than 200, with their path. */
async function ask(
  { net }: WorkerContext,
  host: string,
  method: string,
  first: number,
  count: number,
): Promise<string[]> {
  const failed: string[] = [];
  const socket = net.connect({ host, port: 80, noDelay: true });
  let text = "";
  let wake = (): void => undefined;
  socket.on("data", (bytes: Buffer) => {
    text += bytes.toString("latin1");
    wake();
  });
  let isOver = false;
  for (const event of ["end", "error"])
    socket.on(event, () => {
      isOver = true;
      wake();
    });
  for (let i = first; i < first + count && !isOver; i++) {
    const body = method === "POST" ? "Content-Length: 4\r\n\r\nbody" : "\r\n";
    socket.write(`${method} /${i} HTTP/1.1\r\nHost: web\r\n${body}`);
    for (;;) {
      const head = /^HTTP\/1\.1 (\d+)[^]*?\r\n\r\n/.exec(text);
      const length = Number(/content-length: (\d+)/i.exec(head?.[0] ?? "")?.[1] ?? 0);
      if (head !== null && text.length >= head[0].length + length) {
        text = text.slice(head[0].length + length);
        if (head[1] !== "200") failed.push(`${head[1]} /${i}`);
        break;
      }
      if (isOver) break;
      await new Promise<void>((done) => (wake = done));
    }
  }
  socket.destroy();
  if (isOver) failed.push("the connection ended");
  return failed;
}

describe("an application that leaves its connections at any moment, unannounced", { skip }, () => {
  let mesh: Mesh;
  let client: Pod;
  let web: Pod;
  before(async () => {
    mesh = await Mesh.start();
    web = await mesh.pod("web", { isMeshed: true, inboundPorts: [8080] });
    client = await mesh.pod("client", { isMeshed: true });
    await mesh.set({
      services: { [`${VIP}:80`]: { protocol: "detect", path: "web:80" } },
      endpoints: { "web:80": [web.endpoint(8080)] },
    });
    await web.run(serveAndLeave);
  });
  after(() => mesh.close());

  const seen = async (method: string): Promise<number[]> => {
    const counts = await web.run(({ state }) => state["seen"] as Record<string, number>);
    return Object.entries(counts)
      .filter(([request]) => request.startsWith(method))
      .map(([, times]) => times);
  };

  test("fails no request that may be repeated (RFC 9110 §9.2.2)", async () => {
    assert.deepEqual(await client.run(ask, VIP, "GET", 0, 1_000), []);
    const counts = await seen("GET");
    assert.equal(counts.length, 1_000);
    assert.ok(Math.max(...counts) <= 2);
  });

  test("fails none that must not be sent twice either, once it is known to do so, and sees each once", async () => {
    // Enough that it is known, with paths of their own.
    assert.deepEqual(await client.run(ask, VIP, "GET", 1_000, 100), []);
    assert.deepEqual(await client.run(ask, VIP, "POST", 0, 1_000), []);
    assert.deepEqual(new Set(await seen("POST")), new Set([1]));
  });
});
