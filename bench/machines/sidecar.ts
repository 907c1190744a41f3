import { strict as assert } from "node:assert";
import type { Conn } from "#/base/conn.ts";
import { latin1Bytes } from "#/wire/latin1.ts";
import { at, SimMesh } from "../../test/sim/sim-mesh.ts";
import type { MachineCase } from "./machine-case.ts";

const VIP = "10.9.0.1";
const PORT = 80;
/** Nothing is cut, nothing comes early or late: each time is the same work. */
const STEADY = { next: (): number => 0.5 };

const GET = latin1Bytes(
  "GET /api/items/17 HTTP/1.1\r\nHost: catalogue\r\nUser-Agent: load/1.0\r\nAccept: */*\r\n" +
    "X-Request-Id: 5f3c1d2e-0a1b-4c5d-8e9f-001122334410\r\n\r\n",
);
const POST = latin1Bytes(
  `POST /api/items HTTP/1.1\r\nHost: catalogue\r\nUser-Agent: load/1.0\r\nContent-Length: 4096\r\n\r\n${"x".repeat(4096)}`,
);
const ANSWER = latin1Bytes(
  `HTTP/1.1 200 OK\r\nServer: nginx/1.22.1\r\nDate: Mon, 23 Nov 2026 05:00:00 GMT\r\nContent-Type: application/json\r\nContent-Length: 1024\r\n\r\n${"y".repeat(1024)}`,
);
/** No HTTP grammar begins so. */
const OPAQUE = Uint8Array.from({ length: 64 }, (_, i) => i);

interface Talk {
  readonly isMeshed: boolean;
  readonly connections: number;
  readonly isConnectionPerRequest?: boolean;
  readonly says: Uint8Array;
  readonly answers: Uint8Array;
}

/**
 * A client and a server that know each other's words by heart, on a network in memory and on virtual time. Between them two whole
 * sidecars with all they do, or, as a measure of what the playing itself costs, none.
 */
function talking(talk: Talk): () => number {
  const mesh = new SimMesh(STEADY);
  const client = mesh.pod("client", "10.1.0.1", { isMeshed: talk.isMeshed });
  const server = mesh.pod("server", "10.1.0.2", { isMeshed: talk.isMeshed });
  server.host.listen(PORT, (conn) => answerEach(conn, talk));
  mesh.control.service(at(VIP, PORT), "svc", "detect");
  mesh.control.endpoints("svc", [mesh.endpoint(server, PORT)]);
  const target = talk.isMeshed ? at(VIP, PORT) : at("10.1.0.2", PORT);

  let answered = 0;
  /** How long an answer is that came through the mesh; 0 until the first has come whole. */
  let answerBytes = 0;
  const open = (): void => {
    client.host.dial(target, (error, conn) => {
      assert(conn !== null, error?.message ?? "no connection");
      let bytes = 0;
      conn.setHandler({
        onData: (data) => {
          bytes += data.length;
          if (answerBytes === 0 || bytes < answerBytes) return;
          bytes = 0;
          answered++;
          if (talk.isConnectionPerRequest === true) {
            conn.end();
            open();
          } else conn.write(talk.says);
        },
        onEnd: () => conn.end(),
        onDrain: () => undefined,
        onClose: (why) => assert(why === null, why?.message ?? ""),
      });
      conn.write(talk.says);
      if (answerBytes === 0) {
        // The first is left to come whole, then all go on from there.
        mesh.clock.after(1000, () => {
          answerBytes = bytes;
          bytes = 0;
          conn.write(talk.says);
        });
      }
    });
  };
  open();
  mesh.clock.runUntil(() => answerBytes > 0, "the first answer");
  assert(answerBytes >= talk.answers.length, "the answer is whole");
  for (let i = 1; i < talk.connections; i++) open();

  return () => {
    const before = answered;
    mesh.clock.runUntil(() => answered > before, "an answer");
    return answered - before;
  };
}

function answerEach(conn: Conn, talk: Talk): void {
  /** As with answers: how long a request is when it arrives here. It arrives whole, for nothing is cut. */
  let requestBytes = 0;
  let bytes = 0;
  conn.setHandler({
    onData: (data) => {
      bytes += data.length;
      if (requestBytes === 0) {
        if (bytes < talk.says.length) return;
        requestBytes = bytes;
      }
      if (bytes < requestBytes) return;
      bytes = 0;
      conn.write(talk.answers);
    },
    onEnd: () => conn.end(),
    onDrain: () => undefined,
    onClose: () => undefined,
  });
}

const GETTING = { says: GET, answers: ANSWER };
const talks: readonly (Talk & { readonly name: string; readonly unit: string })[] = [
  { name: "none: GET, 1 KiB answer", unit: "request", isMeshed: false, connections: 1, ...GETTING },
  { name: "pair: GET, 1 KiB answer", unit: "request", isMeshed: true, connections: 1, ...GETTING },
  {
    name: "pair: GET, 1 KiB answer, 16 connections",
    unit: "request",
    isMeshed: true,
    connections: 16,
    ...GETTING,
  },
  {
    name: "pair: GET, 1 KiB answer, a connection each",
    unit: "request",
    isMeshed: true,
    connections: 1,
    isConnectionPerRequest: true,
    ...GETTING,
  },
  {
    name: "pair: POST 4 KiB, 1 KiB answer",
    unit: "request",
    isMeshed: true,
    connections: 1,
    says: POST,
    answers: ANSWER,
  },
  {
    name: "pair: opaque, 64 bytes there and back",
    unit: "round trip",
    isMeshed: true,
    connections: 1,
    says: OPAQUE,
    answers: OPAQUE,
  },
];

/** Whole sidecars, less sockets and TLS. */
export const CASES: readonly MachineCase[] = talks.map((talk) => ({
  name: talk.name,
  unit: talk.unit,
  make: () => talking(talk),
}));
