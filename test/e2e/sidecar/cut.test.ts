/**
 * Something between the two sidecars ends their connections in mid-stream, as a load balancer, a NAT or an attacker on the path
 * does. Neither application may take that for the end of what the other had to say.
 */
import assert from "node:assert/strict";
import { after, before, describe, test } from "node:test";
import {
  act,
  awaitBytes,
  callBytes,
  callHttp1,
  callHttp2,
  cut,
  look,
  relay,
  serveBytes,
  serveHttp1,
  serveHttp2,
} from "./rig/failing-peers.ts";
import { cannotRun, Mesh, type Pod } from "./rig/mesh.ts";

const skip = cannotRun() ?? false;
const VIP = "10.214.0.4";
const PORTS = { http1: 8081, http2: 8082, bytes: 7000 } as const;
const CALLS = { http1: callHttp1, http2: callHttp2, bytes: callBytes } as const;
const RELAY_PORT = 4143;
const HALF = "0123456789";
const OK = "HTTP/1.1 200 OK\r\n";

interface Case {
  readonly name: string;
  readonly kind: keyof typeof PORTS;
  /** What the server says at once, see `serveHttp1`; "" for nothing. */
  readonly first: string;
  /** The beginning of what the client says. */
  readonly body: string;
  readonly fields?: Record<string, string>;
  /** The client has ended its half. */
  readonly isHalfClosed?: true;
  /** Who must not see an end. */
  readonly watchers: readonly ("client" | "server")[];
}

const CASES: readonly Case[] = [
  { name: "opaque bytes", kind: "bytes", first: HALF, body: HALF, watchers: ["client", "server"] },
  {
    name: "opaque bytes whose client has ended its half",
    kind: "bytes",
    first: HALF,
    body: HALF,
    isHalfClosed: true,
    watchers: ["client"],
  },
  ...(
    [
      ["that ends with the connection", `${OK}Connection: close\r\n\r\n${HALF}`],
      ["with a length", `${OK}Content-Length: 20\r\n\r\n${HALF}`],
      ["in chunks", `${OK}Transfer-Encoding: chunked\r\n\r\na\r\n${HALF}\r\n`],
    ] as const
  ).map(([what, first]) => ({
    name: `an HTTP/1 response ${what}`,
    kind: "http1" as const,
    first,
    body: "",
    watchers: ["client"] as const,
  })),
  {
    name: "an HTTP/1 request with a length",
    kind: "http1",
    first: "",
    body: HALF,
    fields: { "content-length": "20" },
    watchers: ["server", "client"],
  },
  {
    name: "an HTTP/1 request in chunks",
    kind: "http1",
    first: "",
    body: HALF,
    fields: { "transfer-encoding": "chunked" },
    watchers: ["server", "client"],
  },
  { name: "an HTTP/2 response", kind: "http2", first: HALF, body: "", watchers: ["client"] },
  {
    name: "an HTTP/2 request and its response",
    kind: "http2",
    first: HALF,
    body: HALF,
    watchers: ["client", "server"],
  },
];

describe("a connection cut between the sidecars is never taken for an end", { skip }, () => {
  let mesh: Mesh;
  let client: Pod;
  let server: Pod;
  let between: Pod;
  before(async () => {
    mesh = await Mesh.start();
    server = await mesh.pod("server", { isMeshed: true, inboundPorts: Object.values(PORTS) });
    client = await mesh.pod("client", { isMeshed: true });
    between = await mesh.pod("between", { isMeshed: false });
    await between.run(relay, RELAY_PORT, server.ip, 4143);
    const ports = Object.entries(PORTS);
    await mesh.set({
      services: Object.fromEntries(
        ports.map(([kind, port]) => [
          `${VIP}:${port}`,
          { protocol: kind === "bytes" ? ("opaque" as const) : ("detect" as const), path: `svc:${port}` },
        ]),
      ),
      // The server's sidecar, at the relay's address.
      endpoints: Object.fromEntries(
        ports.map(([, port]) => [
          `svc:${port}`,
          [{ ...server.endpoint(port), ip: between.ip, tunnelPort: RELAY_PORT }],
        ]),
      ),
    });
    await server.run(serveHttp1, PORTS.http1);
    await server.run(serveHttp2, PORTS.http2);
    await server.run(serveBytes, PORTS.bytes);
  });
  after(() => mesh.close());

  for (const how of ["FIN", "RST"] as const) {
    for (const [i, each] of CASES.entries()) {
      test(`by ${how}: ${each.name}`, async () => {
        const path = `/${how}-${i}`;
        const base64 = (text: string): string => Buffer.from(text).toString("base64");
        const fields: Record<string, string> = { ...each.fields };
        if (each.first !== "") fields["x-first"] = base64(each.first);
        fields["x-head"] = base64("{}");
        await client.run(CALLS[each.kind], VIP, PORTS[each.kind], path, fields, each.body);
        if (each.isHalfClosed === true) await client.run(act, path, "fin");
        assert.ok(await server.run(awaitBytes, path, each.body.length), "the server has the beginning");
        if (each.first !== "")
          assert.ok(await client.run(awaitBytes, path, HALF.length), "the client has the beginning");
        assert.ok((await between.run(cut, how)) > 0, "the relay carries it");
        const pods = { client, server };
        for (const side of each.watchers) {
          const sight = await pods[side].run(look, path);
          // A request that was never answered is answered by the sidecar: no success, whatever else.
          const isAnswered = sight?.end === "complete" && sight.status >= 500;
          assert.ok(sight?.end === "broken" || isAnswered, `the ${side} saw ${JSON.stringify(sight)}`);
        }
      });
    }
  }
});
