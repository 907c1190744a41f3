/**
 * What the other side of a failure sees, in the middle of a message, with and without the mesh: it must be the same. Client and
 * server speak the same version here, since the mesh never changes it.
 */
import assert from "node:assert/strict";
import { after, before, describe, test } from "node:test";
import {
  act,
  awaitBytes,
  callHttp1,
  callHttp2,
  look,
  serveHttp1,
  serveHttp2,
  type Sight,
} from "./rig/failing-peers.ts";
import { cannotRun, Mesh, type Pod } from "./rig/mesh.ts";

const skip = cannotRun() ?? false;
const VIP = "10.214.0.3";
const PORTS = { http1: 8081, http2: 8082 } as const;

interface Case {
  readonly name: string;
  readonly version: keyof typeof PORTS;
  /** What the server says at once: HTTP/1 bytes, or the text of an HTTP/2 body. Null: nothing before the end. */
  readonly first: string | null;
  readonly head?: Record<string, string>;
  /** The server answers with trailers. */
  readonly trailers?: true;
  /** The beginning of the request's body. */
  readonly body?: string;
  readonly fields?: Record<string, string>;
  /** Who fails how, once the other has the bytes above; a list is done one after the other. */
  readonly actor: "client" | "server";
  readonly acts: readonly string[];
}

const OK = "HTTP/1.1 200 OK\r\n";
const HALF = "0123456789";

const SERVER_FAILS_HTTP1: readonly (readonly [string, string, readonly string[]])[] = [
  ["with a length, by FIN", `${OK}Content-Length: 20\r\n\r\n${HALF}`, ["fin"]],
  ["with a length, by RST", `${OK}Content-Length: 20\r\n\r\n${HALF}`, ["rst"]],
  ["in chunks, by FIN", `${OK}Transfer-Encoding: chunked\r\n\r\na\r\n${HALF}\r\n`, ["fin"]],
  ["in chunks, by RST", `${OK}Transfer-Encoding: chunked\r\n\r\na\r\n${HALF}\r\n`, ["rst"]],
  ["inside a chunk, by FIN", `${OK}Transfer-Encoding: chunked\r\n\r\n14\r\n${HALF}`, ["fin"]],
  ["in chunks, by what is no chunk", `${OK}Transfer-Encoding: chunked\r\n\r\na\r\n${HALF}\r\n`, ["zz\r\n"]],
  [
    "in chunks, after the last one but before the end",
    `${OK}Transfer-Encoding: chunked\r\n\r\na\r\n${HALF}\r\n`,
    ["0\r\nX-Sum: 7\r\n", "fin"],
  ],
  ["until the connection closes, by FIN, which is its end", `${OK}Connection: close\r\n\r\n${HALF}`, ["fin"]],
  ["until the connection closes, by RST", `${OK}Connection: close\r\n\r\n${HALF}`, ["rst"]],
  ["of HTTP/1.0, by RST", `HTTP/1.0 200 OK\r\n\r\n${HALF}`, ["rst"]],
  [
    "whole, with trailers",
    `${OK}Transfer-Encoding: chunked\r\nTrailer: x-sum\r\n\r\na\r\n${HALF}\r\n`,
    ["0\r\nX-Sum: 7\r\n\r\n", "fin"],
  ],
];

const CASES: readonly Case[] = [
  ...SERVER_FAILS_HTTP1.map(([name, first, acts]) => ({
    name: `a response ${name}`,
    version: "http1" as const,
    first,
    actor: "server" as const,
    acts,
  })),
  ...["fin", "rst"].flatMap((verb) => [
    {
      name: `a request with a length, by ${verb.toUpperCase()}`,
      version: "http1" as const,
      first: null,
      body: HALF,
      fields: { "content-length": "20" },
      actor: "client" as const,
      acts: [verb],
    },
    {
      name: `a request in chunks, by ${verb.toUpperCase()}`,
      version: "http1" as const,
      first: null,
      body: HALF,
      fields: { "transfer-encoding": "chunked" },
      actor: "client" as const,
      acts: [verb],
    },
    {
      name: `a request whose answer has begun, by ${verb.toUpperCase()}`,
      version: "http1" as const,
      first: `${OK}Content-Length: 20\r\n\r\n${HALF}`,
      body: HALF,
      fields: { "content-length": "20" },
      actor: "client" as const,
      acts: [verb],
    },
  ]),
  ...[0, 2, 5, 7, 8, 11].flatMap((code) => [
    {
      name: `a response, by RST_STREAM with code ${code}`,
      version: "http2" as const,
      first: HALF,
      actor: "server" as const,
      acts: [`reset ${code}`],
    },
    {
      name: `a request, by RST_STREAM with code ${code}`,
      version: "http2" as const,
      first: null,
      body: HALF,
      actor: "client" as const,
      acts: [`reset ${code}`],
    },
  ]),
  ...["fin", "rst"].flatMap((verb) => [
    {
      name: `a response, by ${verb.toUpperCase()}`,
      version: "http2" as const,
      first: HALF,
      actor: "server" as const,
      acts: [verb],
    },
    {
      name: `a request, by ${verb.toUpperCase()}`,
      version: "http2" as const,
      first: null,
      body: HALF,
      actor: "client" as const,
      acts: [verb],
    },
  ]),
  ...(["http1", "http2"] as const).map((version) => ({
    name: "nothing but its wait for the rest of the answer, by RST",
    version,
    first: version === "http1" ? `${OK}Content-Length: 20\r\n\r\n${HALF}` : HALF,
    actor: "client" as const,
    acts: ["rst"],
  })),
  {
    name: "a response, by GOAWAY and FIN",
    version: "http2",
    first: HALF,
    actor: "server",
    acts: ["goaway", "fin"],
  },
  {
    name: "not at all, by GOAWAY: the stream goes on to its end",
    version: "http2",
    first: HALF,
    actor: "server",
    acts: ["goaway", HALF, "end"],
  },
  {
    name: "a response shorter than it says",
    version: "http2",
    first: HALF,
    head: { "content-length": "20" },
    actor: "server",
    acts: ["end"],
  },
  {
    name: "not at all: a response with trailers",
    version: "http2",
    first: HALF,
    trailers: true,
    actor: "server",
    acts: ["end"],
  },
  {
    name: "a response whose trailers do not come",
    version: "http2",
    first: HALF,
    head: { trailer: "x-sum" },
    actor: "server",
    acts: ["end"],
  },
];

describe("a failure in the middle of a message is seen as without the mesh", { skip }, () => {
  let mesh: Mesh;
  let meshed: { client: Pod; server: Pod; host: string };
  let direct: { client: Pod; server: Pod; host: string };
  before(async () => {
    mesh = await Mesh.start();
    const server = await mesh.pod("server", { isMeshed: true, inboundPorts: Object.values(PORTS) });
    const client = await mesh.pod("client", { isMeshed: true });
    const plainServer = await mesh.pod("plainserver", { isMeshed: false });
    const plainClient = await mesh.pod("plainclient", { isMeshed: false });
    await mesh.set({
      services: Object.fromEntries(
        Object.values(PORTS).map((port) => [
          `${VIP}:${port}`,
          { protocol: "detect" as const, path: `svc:${port}` },
        ]),
      ),
      endpoints: Object.fromEntries(
        Object.values(PORTS).map((port) => [`svc:${port}`, [server.endpoint(port)]]),
      ),
    });
    for (const pod of [server, plainServer]) {
      await pod.run(serveHttp1, PORTS.http1);
      await pod.run(serveHttp2, PORTS.http2);
    }
    meshed = { client, server, host: VIP };
    direct = { client: plainClient, server: plainServer, host: plainServer.ip };
  });
  after(() => mesh.close());

  for (const [i, each] of CASES.entries()) {
    test(`${each.version}: ${each.actor} ends ${each.name}`, async () => {
      const [without, within] = await Promise.all([run(each, `/${i}`, direct), run(each, `/${i}`, meshed)]);
      // Where the connection breaks there is no code: Node makes up one of its own, and a sidecar must choose one.
      const ignored = each.acts.some((verb) => verb === "fin" || verb === "rst") ? { resetCode: null } : {};
      assert.ok(
        without !== null && within !== null,
        `noticed: ${without !== null} without, ${within !== null} with the mesh`,
      );
      assert.deepEqual({ ...within, ...ignored }, { ...without, ...ignored });
    });
  }

  for (const [spoken, understood] of [
    ["http1", "http2"],
    ["http2", "http1"],
  ] as const) {
    test(`${spoken} to a server of ${understood} alone fails with and without the mesh: it converts nothing`, async () => {
      for (const { client, host } of [direct, meshed]) {
        await client.run(CALLS[spoken], host, PORTS[understood], "/other", {}, "");
        const sight = await client.run(look, "/other");
        assert.ok(sight?.end === "broken" || (sight?.status ?? 0) >= 400, JSON.stringify(sight));
      }
    });
  }
});

const CALLS = { http1: callHttp1, http2: callHttp2 } as const;

/** What the side that did not fail saw. */
async function run(
  each: Case,
  path: string,
  { client, server, host }: { client: Pod; server: Pod; host: string },
): Promise<Sight | null> {
  const base64 = (text: string): string => Buffer.from(text).toString("base64");
  const fields: Record<string, string> = { ...each.fields };
  if (each.first !== null) fields["x-first"] = base64(each.first);
  if (each.version === "http2") fields["x-head"] = base64(JSON.stringify(each.head ?? {}));
  if (each.trailers === true) fields["x-trailers"] = "1";
  await client.run(CALLS[each.version], host, PORTS[each.version], path, fields, each.body ?? "");
  if (each.body !== undefined)
    assert.ok(await server.run(awaitBytes, path, each.body.length), "the server has the request's beginning");
  if (each.first !== null)
    assert.ok(await client.run(awaitBytes, path, HALF.length), "the client has the response's beginning");
  const [actor, other] = each.actor === "client" ? [client, server] : [server, client];
  for (const verb of each.acts) await actor.run(act, path, verb);
  return other.run(look, path);
}
