import type { Endpoint } from "#/model/endpoint.ts";
import { strict as assert } from "node:assert";
import type { Conn } from "#/base/conn.ts";
import type { AccessPolicy } from "#/model/access.ts";
import type { Backend } from "#/model/route.ts";
import { backendOf, matchOf, routeOf, ruleTo, sourceNamed } from "#/stack/route/testing.ts";
import { latin1, latin1Bytes } from "#/wire/latin1.ts";
import { ALLOW_ALL, at, SimMesh, type SimPod } from "../../test/sim/sim-mesh.ts";
import type { MachineCase } from "./machine-case.ts";
import { manyRules } from "./many-rules.ts";

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
  /** All of one length; each connection says them in turn. */
  readonly says: readonly Uint8Array[];
  readonly answers: Uint8Array;
  /**
   * Each to a service of its own, with so many endpoints; with 0 all to the one that there is without. Without routes: one service with
   * one endpoint.
   */
  readonly routes?: { readonly count: number; readonly endpointsEach: number };
  /** Of the server's port; everybody's if not given. */
  readonly access?: AccessPolicy;
  /** Of the one service that there is without routes, or that all routes lead to; 1 if not given. */
  readonly endpoints?: number;
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
  const more = endpointMaker(mesh, talk);
  if (talk.routes === undefined) mesh.control.service(at(VIP, PORT), "svc", "detect");
  else publishRoutes(mesh, more, talk.routes.count, talk.routes.endpointsEach);
  if (talk.access !== undefined) mesh.control.port(PORT, { ...ALLOW_ALL, access: talk.access });
  mesh.control.endpoints("svc", [mesh.endpoint(server, PORT), ...more((talk.endpoints ?? 1) - 1)]);
  const target = talk.isMeshed ? at(VIP, PORT) : at("10.1.0.2", PORT);

  let answered = 0;
  /** How long an answer is that came through the mesh; 0 until the first has come whole. */
  let answerBytes = 0;
  const open = (): void => {
    client.host.dial(target, (error, conn) => {
      assert(conn !== null, error?.message ?? "no connection");
      let bytes = 0;
      let said = 0;
      const say = (): void => void conn.write(talk.says[said++ % talk.says.length]!);
      conn.setHandler({
        onData: (data) => {
          bytes += data.length;
          if (answerBytes === 0 || bytes < answerBytes) return;
          bytes = 0;
          answered++;
          if (talk.isConnectionPerRequest === true) {
            conn.end();
            open();
          } else say();
        },
        onEnd: () => conn.end(),
        onDrain: () => undefined,
        onClose: (why) => assert(why === null, why?.message ?? ""),
      });
      say();
      if (answerBytes === 0) {
        // The first is left to come whole, then all go on from there.
        mesh.clock.after(1000, () => {
          answerBytes = bytes;
          bytes = 0;
          say();
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

/** Endpoints of one pod: more ports than its sidecar remembers would be asked for anew each time. */
const ENDPOINTS_EACH_POD = 100;

/** Makes so many further endpoints, in as many further pods as they need. */
function endpointMaker(mesh: SimMesh, talk: Talk): (count: number) => Endpoint[] {
  const pods: SimPod[] = [];
  let made = 0;
  return (count) =>
    Array.from({ length: count }, () => {
      if (made % ENDPOINTS_EACH_POD === 0)
        pods.push(mesh.pod(`pod-${pods.length}`, `10.1.1.${pods.length + 1}`, { isMeshed: true }));
      const pod = pods.at(-1)!;
      const port = 1_000 + made++;
      pod.host.listen(port, (conn) => answerEach(conn, talk));
      return mesh.endpoint(pod, port);
    });
}

/** Routes by a prefix each, to services with endpoints of their own. */
function publishRoutes(
  mesh: SimMesh,
  more: (count: number) => Endpoint[],
  count: number,
  endpointsEach: number,
): void {
  const rules = Array.from({ length: count }, (_, route) => {
    const path = endpointsEach === 0 ? "svc" : `service-${route}`;
    if (endpointsEach > 0) mesh.control.endpoints(path, more(endpointsEach));
    return routeOf(`route-${route}`, [
      ruleTo([backendOf(serviceAt(path))], [matchOf(`/api/${threeDigits(route)}*`)]),
    ]);
  });
  mesh.control.policy(at(VIP, PORT), {
    source: sourceNamed("svc", "Service"),
    protocol: "detect",
    http: rules,
    tcp: [],
    backend: serviceAt("svc"),
  });
}

function serviceAt(path: string): Backend {
  const source = sourceNamed(path, "Service");
  return { kind: "balancer", source, path, defaultRttMs: 30, decayMs: 10_000, traffic: null };
}

function threeDigits(number: number): string {
  return String(number).padStart(3, "0");
}

function answerEach(conn: Conn, talk: Talk): void {
  /** As with answers: how long a request is when it arrives here. It arrives whole, for nothing is cut. */
  let requestBytes = 0;
  let bytes = 0;
  conn.setHandler({
    onData: (data) => {
      bytes += data.length;
      if (requestBytes === 0) {
        if (bytes < talk.says[0]!.length) return;
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

const GETTING = { says: [GET], answers: ANSWER };
/** One for each of 200 routes, so that none is like the one before. */
const ROUTES = 200;
const GETTING_ALL = {
  says: Array.from({ length: ROUTES }, (_, route) =>
    latin1Bytes(latin1(GET, 0, GET.length).replace("/api/items/17", `/api/${threeDigits(route)}/items/17`)),
  ),
  answers: ANSWER,
};
const talks: readonly (Talk & { readonly name: string; readonly unit: string })[] = [
  { name: "none: GET, 1 KiB answer", unit: "request", isMeshed: false, connections: 1, ...GETTING },
  { name: "pair: GET, 1 KiB answer", unit: "request", isMeshed: true, connections: 1, ...GETTING },
  { name: "pair: GET, 200 targets", unit: "request", isMeshed: true, connections: 1, ...GETTING_ALL },
  {
    name: "pair: GET, 200 targets, 200 routes",
    unit: "request",
    isMeshed: true,
    connections: 1,
    ...GETTING_ALL,
    routes: { count: ROUTES, endpointsEach: 0 },
  },
  {
    name: "pair: GET, 200 targets, 200 routes, one service of 1,000 endpoints",
    unit: "request",
    isMeshed: true,
    connections: 1,
    ...GETTING_ALL,
    routes: { count: ROUTES, endpointsEach: 0 },
    endpoints: 1_000,
  },
  {
    name: "pair: GET, 200 targets, 200 routes, 200 services of 5 endpoints",
    unit: "request",
    isMeshed: true,
    connections: 1,
    ...GETTING_ALL,
    routes: { count: ROUTES, endpointsEach: 5 },
  },
  {
    name: "pair: GET, 200 targets, 100 policies of 10 rules",
    unit: "request",
    isMeshed: true,
    connections: 1,
    ...GETTING_ALL,
    access: manyRules(
      "client",
      Array.from({ length: ROUTES }, (_, route) => `/api/${threeDigits(route)}`),
    ),
  },
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
    says: [POST],
    answers: ANSWER,
  },
  {
    name: "pair: opaque, 64 bytes there and back",
    unit: "round trip",
    isMeshed: true,
    connections: 1,
    says: [OPAQUE],
    answers: OPAQUE,
  },
];

/** Whole sidecars, less sockets and TLS. */
export const CASES: readonly MachineCase[] = talks.map((talk) => ({
  name: talk.name,
  unit: talk.unit,
  make: () => talking(talk),
}));
