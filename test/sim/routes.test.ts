import assert from "node:assert/strict";
import { test } from "node:test";
import { SeededRandom } from "#/base/random.ts";
import { policyTo, type OutboundPolicy } from "#/model/policy.ts";
import type { Backend, HttpFilter, HttpRoute, HttpRule, RouteBackend, TcpRoute } from "#/model/route.ts";
import type { HttpService } from "#/stack/http/exchange.ts";
import { Http1Server } from "#/stack/http/http1-server.ts";
import { backendOf, hostOfText, matchOf, routeOf, ruleTo, sourceNamed } from "#/stack/route/testing.ts";
import { at, SimMesh, type SimPod } from "./sim-mesh.ts";

const VIP = "10.9.0.1";

const balancer = (path: string): Backend => ({
  kind: "balancer",
  source: sourceNamed(path, "Service"),
  path,
  defaultRttMs: 30,
  decayMs: 10_000,
  traffic: null,
});

function policyOf(http: readonly HttpRoute[], tcp: readonly TcpRoute[] = []): OutboundPolicy {
  return { source: sourceNamed("web", "Service"), protocol: "detect", http, tcp, backend: balancer("own") };
}

function tcpTo(backends: readonly RouteBackend[], names: readonly string[] = []): TcpRoute {
  return {
    source: sourceNamed("tcp", names.length === 0 ? "TCPRoute" : "TLSRoute"),
    serverNames: names.map(hostOfText),
    refusal: null,
    choice: "random",
    backends,
  };
}

const rule = (paths: readonly string[], ...backends: RouteBackend[]): HttpRule =>
  ruleTo(
    backends,
    paths.map((path) => matchOf(path)),
  );

/** A client and one pod for each service, which answers with the service's name. */
function meshOf(seed: number, services: readonly string[]): { mesh: SimMesh; client: SimPod } {
  const mesh = new SimMesh(new SeededRandom(seed));
  const client = mesh.pod("client", "10.1.0.1", { isMeshed: true });
  for (const [index, service] of services.entries()) {
    const pod = mesh.pod(service, `10.1.0.${index + 2}`, { isMeshed: index % 2 === 0 });
    web(mesh, pod, service);
    mesh.control.endpoints(service, [mesh.endpoint(pod, 80)]);
  }
  return { mesh, client };
}

/** Answers "service method path host"; bytes that are no HTTP are answered with the service's name. */
function web(mesh: SimMesh, pod: SimPod, service: string): void {
  const app: HttpService = {
    call: (head, _last, reply) => {
      const body = Buffer.from(`${service} ${head.method} ${head.path} ${head.authority}`);
      const fields = ["content-length", String(body.length)];
      mesh.clock.after(2 * mesh.random.next(), () => {
        reply.head({ status: 200, version: "1.1", reason: null, fields }, false);
        reply.body(body, 0, body.length);
        reply.finish(null);
      });
      return { data: () => {}, end: () => {}, abort: () => {}, responseConsumed: () => {} };
    },
  };
  pod.host.listen(80, (conn) => {
    let isAnswered = false;
    conn.setHandler({
      onData: (bytes) => {
        if (!isAnswered && bytes[0] !== 0 && bytes[0] !== 0x16) {
          conn.unread(bytes);
          void new Http1Server(conn, app, mesh.clock, () => undefined);
        } else if (!isAnswered) {
          isAnswered = true;
          conn.write(Buffer.from(service));
        }
      },
      onEnd: () => conn.end(),
      onDrain: () => undefined,
      onClose: () => undefined,
    });
  });
}

interface Browser {
  readonly answers: string[];
  readonly ask: (path: string) => void;
}

/** One keep-alive connection. Answers are "status body". */
function browser(from: SimPod): Browser {
  const answers: string[] = [];
  const asked: string[] = [];
  let write: ((text: string) => void) | null = null;
  from.host.dial(at(VIP, 80), (_error, conn) => {
    let text = "";
    conn?.setHandler({
      onData: (bytes) => {
        text += Buffer.from(bytes).toString("latin1");
        const match = /^HTTP\/1\.1 (\d+)[^]*?\r\n\r\n/.exec(text);
        const length = match === null ? null : /content-length: (\d+)/i.exec(match[0]);
        if (match === null || length === null || text.length < match[0].length + Number(length[1])) return;
        answers.push(`${match[1]} ${text.slice(match[0].length)}`);
        text = "";
      },
      onEnd: () => conn.end(),
      onDrain: () => undefined,
      onClose: () => undefined,
    });
    write = (request) => void conn?.write(Buffer.from(request));
    for (const request of asked) write(request);
  });
  return {
    answers,
    ask: (path) => {
      const request = `GET ${path} HTTP/1.1\r\nHost: web\r\n\r\n`;
      if (write === null) asked.push(request);
      else write(request);
    },
  };
}

test("requests of one connection go where their rules lead, and follow a change of policy", () => {
  const { mesh, client } = meshOf(1, ["v1", "v2", "own"]);
  const straight = [tcpTo([backendOf(balancer("own"))])];
  mesh.control.policy(
    at(VIP, 80),
    policyOf(
      [routeOf("web", [rule(["/v1"], backendOf(balancer("v1"))), rule(["/v2*"], backendOf(balancer("v2")))])],
      straight,
    ),
  );
  const { answers, ask } = browser(client);
  for (const path of ["/v1", "/v2/x", "/none"]) {
    ask(path);
    mesh.clock.run(100);
  }
  assert.deepEqual(answers.slice(0, 2), ["200 v1 GET /v1 web", "200 v2 GET /v2/x web"]);
  assert.match(answers[2]!, /^404 client's sidecar.*its route does not match GET \/none.*\(NO_ROUTE\)/);
  mesh.control.policy(
    at(VIP, 80),
    policyOf([routeOf("web", [rule(["/*"], backendOf(balancer("v2")))])], straight),
  );
  mesh.clock.run(100);
  ask("/v1");
  mesh.clock.run(100);
  assert.equal(answers[3], "200 v2 GET /v1 web");
});

test("a weight is kept over the requests of one connection, and its change holds at once", () => {
  const { mesh, client } = meshOf(2, ["v1", "v2"]);
  const split = (one: number, two: number): void =>
    mesh.control.policy(
      at(VIP, 80),
      policyOf([
        routeOf("web", [rule(["/*"], backendOf(balancer("v1"), one), backendOf(balancer("v2"), two))]),
      ]),
    );
  split(70, 30);
  const { answers, ask } = browser(client);
  const share = (): number => {
    answers.length = 0;
    for (let i = 0; i < 400; i++) {
      ask("/");
      mesh.clock.run(15);
    }
    assert.equal(answers.length, 400);
    return answers.filter((answer) => answer.startsWith("200 v1")).length;
  };
  assert(Math.abs(share() - 280) < 40);
  split(0, 1);
  mesh.clock.run(10);
  assert.equal(share(), 0);
});

test("a connection that was dialled before its protocol was known serves no request that a route sends elsewhere", () => {
  const { mesh, client } = meshOf(3, ["v1", "own"]);
  mesh.control.policy(
    at(VIP, 80),
    policyOf(
      [routeOf("web", [rule(["/*"], backendOf(balancer("v1")))])],
      [tcpTo([backendOf(balancer("own"))])],
    ),
  );
  const { answers, ask } = browser(client);
  // Longer than the sidecar's patience with a silent client.
  mesh.clock.run(200);
  ask("/a");
  mesh.clock.run(200);
  assert.deepEqual(answers, ["200 v1 GET /a web"]);
});

test("a hundred changes of all kinds fail no request of open connections, and the last one holds", () => {
  const { mesh, client } = meshOf(5, ["v1", "v2", "v3", "own"]);
  const to = (name: string, weight = 1): RouteBackend => backendOf(balancer(name), weight);
  const headers: HttpFilter = {
    kind: "request-headers",
    change: { add: [["x-a", "b"]], set: [], remove: [] },
  };
  const mirror: HttpFilter = {
    kind: "mirror",
    backend: balancer("v3"),
    ratio: { numerator: 1, denominator: 2 },
  };
  const rewrite: HttpFilter = {
    kind: "rewrite",
    host: "other",
    path: { kind: "prefix", value: "/new" },
  };
  const all = rule(["/*"], to("v1"), to("v2"));
  const timeouts = { requestMs: 5_000, attemptMs: 1_000, responseMs: null, idleMs: 3_000 };
  const retry = {
    retriesMax: 2,
    statusRanges: [[500, 599] as const],
    grpcCodes: [],
    onConnectionError: true,
    attemptTimeoutMs: null,
    bodyBytesMax: 1_000,
    backoff: { minMs: 1, maxMs: 2, jitterRatio: 1 },
    respectsRetryAfter: true,
  };
  const kinds: readonly (() => OutboundPolicy)[] = [
    () => policyTo(balancer("own"), sourceNamed("web", "Service"), "detect"),
    () => policyOf([routeOf("web", [all])]),
    () => policyOf([routeOf("web", [rule(["/*"], to("v1", 0), to("v3", 5))])]),
    () => policyOf([routeOf("web", [rule(["~/[0-9]+"], to("v2")), rule([], to("v1"))])]),
    () => policyOf([routeOf("web", [{ ...all, filters: [headers, rewrite] }])]),
    () => policyOf([routeOf("web", [{ ...all, filters: [mirror] }])]),
    () => policyOf([routeOf("web", [{ ...all, timeouts, retry }])]),
    () => policyOf([routeOf("web", [all])], [tcpTo([to("own")]), tcpTo([to("v1")], ["*.example.com"])]),
    () => policyOf([routeOf("web", [all], { hosts: ["other"] }), routeOf("rest", [rule([], to("v2"))])]),
  ];
  mesh.control.policy(at(VIP, 80), kinds[0]!());
  const browsers = Array.from({ length: 4 }, () => browser(client));
  const asked = browsers.map(() => 0);
  /** One request at a time on each connection. */
  const ask = (): void => {
    for (const [index, { answers, ask: askNext }] of browsers.entries())
      if (answers.length === asked[index]) askNext(`/${asked[index]!++}`);
  };
  for (let change = 0; change < 100; change++) {
    mesh.control.policy(at(VIP, 80), kinds[change % kinds.length]!());
    for (let i = 0; i < 5; i++) {
      ask();
      mesh.clock.run(4 * mesh.random.next());
    }
  }
  mesh.clock.run(1_000);
  mesh.control.policy(at(VIP, 80), policyOf([routeOf("web", [rule(["/*"], to("v3"))])]));
  mesh.clock.run(10);
  for (const { answers, ask: askNext } of browsers) {
    assert(answers.length >= 50, `${answers.length}`);
    assert.deepEqual(
      answers.filter((answer) => !answer.startsWith("200 ")),
      [],
    );
    askNext("/last");
  }
  mesh.clock.run(100);
  for (const { answers } of browsers) assert.equal(answers.at(-1), "200 v3 GET /last web");
});

test("a silent client is not cut off because the target itself cannot be reached, if routes lead elsewhere", () => {
  const { mesh, client } = meshOf(6, ["v1"]);
  mesh.control.endpoints("own", []);
  const routes = [routeOf("web", [rule(["/*"], backendOf(balancer("v1")))])];
  mesh.control.policy(at(VIP, 80), policyOf(routes, [tcpTo([backendOf(balancer("own"))])]));
  const { answers, ask } = browser(client);
  // Longer than a connection waits for an endpoint, shorter than the client is waited for.
  mesh.clock.run(8_000);
  ask("/a");
  mesh.clock.run(200);
  assert.deepEqual(answers, ["200 v1 GET /a web"]);
});

/** A ClientHello (RFC 8446 §4.1.2) that asks for `name`. */
function clientHello(name: string): Buffer {
  const sni = Buffer.concat([u16(name.length + 3), Buffer.from([0]), u16(name.length), Buffer.from(name)]);
  const extensions = Buffer.concat([u16(0), u16(sni.length), sni]);
  const body = Buffer.concat([
    u16(0x0303),
    Buffer.alloc(32),
    Buffer.from([0]),
    u16(2),
    u16(0x1301),
    Buffer.from([1, 0]),
    u16(extensions.length),
    extensions,
  ]);
  const handshake = Buffer.concat([Buffer.from([1, 0]), u16(body.length), body]);
  return Buffer.concat([Buffer.from([0x16, 3, 1]), u16(handshake.length), handshake]);
}

function u16(value: number): Buffer {
  return Buffer.from([value >> 8, value & 0xff]);
}

test("a connection in TLS of its own goes by the name that it asks for, after silence too, and else is refused", () => {
  const { mesh, client } = meshOf(4, ["a", "b", "own"]);
  const send = (bytes: Buffer, afterMs: number): { heard: string; isClosed: boolean } => {
    const own = { heard: "", isClosed: false };
    client.host.dial(at(VIP, 80), (_error, conn) => {
      conn?.setHandler({
        onData: (data) => void (own.heard += Buffer.from(data).toString()),
        onEnd: () => undefined,
        onDrain: () => undefined,
        onClose: () => void (own.isClosed = true),
      });
      mesh.clock.after(afterMs, () => void conn?.write(Uint8Array.from(bytes)));
    });
    mesh.clock.run(afterMs + 100);
    return own;
  };
  const names = [
    tcpTo([backendOf(balancer("a"))], ["a.example.com"]),
    tcpTo([backendOf(balancer("b"))], ["*.example.com"]),
  ];
  mesh.control.policy(at(VIP, 80), policyOf([], [...names, tcpTo([backendOf(balancer("own"))])]));
  for (const afterMs of [0, 150]) {
    assert.equal(send(clientHello("a.example.com"), afterMs).heard, "a");
    assert.equal(send(clientHello("x.example.com"), afterMs).heard, "b");
    assert.equal(send(clientHello("other"), afterMs).heard, "own");
    assert.equal(send(Buffer.from([0, 1, 2]), afterMs).heard, "own");
  }
  const page = client.registry.render();
  assert.match(page, /^outbound_tcp_route_open_total\{.*route_kind="TLSRoute".*target_port="80"\} 4$/m);
  assert.match(page, /^outbound_tcp_route_open_total\{.*route_kind="TCPRoute".*target_port="80"\} 4$/m);
  mesh.control.policy(at(VIP, 80), { ...policyOf([], names), protocol: "tls" });
  mesh.clock.run(100);
  assert.equal(send(clientHello("a.example.com"), 0).heard, "a");
  assert.deepEqual(send(clientHello("other"), 0), { heard: "", isClosed: true });
});
