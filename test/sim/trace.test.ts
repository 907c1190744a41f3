/** x-pillion-debug through real sidecars: who gets a trace, what is in it, and that nobody else learns anything. */
import assert from "node:assert/strict";
import { test } from "node:test";
import { SeededRandom } from "#/base/random.ts";
import type { FaultAction, HttpRoute, RetryPolicy } from "#/model/route.ts";
import type { InboundPolicy, OutboundPolicy } from "#/model/policy.ts";
import { fieldValue } from "#/base/fields.ts";
import { SPENT, UNHEARD, type HttpService, type RequestHead } from "#/stack/http/exchange.ts";
import { Http2Client } from "#/stack/http/http2-client.ts";
import { Http2Server } from "#/stack/http/http2-server.ts";
import { backendOf, headOf, matchOf, routeOf, ruleTo, sourceNamed } from "#/stack/route/testing.ts";
import { ALLOW_ALL, at, SimMesh, type SimPod } from "./sim-mesh.ts";

const VIP = "10.9.0.1";
const WEB = {
  kind: "balancer",
  source: sourceNamed("web", "Service"),
  path: "web.sim:80",
  defaultRttMs: 30,
  decayMs: 10_000,
  traffic: null,
} as const;

interface Scene {
  readonly mesh: SimMesh;
  readonly client: SimPod;
  /** Raw bytes that the application got, and what it answers. */
  readonly application: { heard: string; answer: string };
  /** Sends one request on a connection of its own, and gives the answer as it came. */
  ask(lines?: readonly string[], path?: string, from?: SimPod, to?: string): string;
}

const OK = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

function scene(
  of: {
    http2?: HttpService;
    client?: boolean;
    server?: boolean;
    isServerMeshed?: boolean;
    routes?: readonly HttpRoute[];
  } = {},
): Scene {
  const mesh = new SimMesh(new SeededRandom(7));
  const client = mesh.pod("client", "10.1.0.1", { isMeshed: true, tracesRequests: of.client ?? true });
  const server = mesh.pod("web", "10.1.0.2", {
    isMeshed: of.isServerMeshed ?? true,
    tracesRequests: of.server ?? true,
  });
  const application = { heard: "", answer: OK };
  server.host.listen(80, (conn) => {
    if (of.http2 !== undefined) {
      const options = { meshed: true, spells: true, clientId: null };
      void new Http2Server(conn, of.http2, mesh.clock, () => {}, options);
      return;
    }
    let text = "";
    conn.setHandler({
      onData: (bytes) => {
        text += Buffer.from(bytes).toString("latin1");
        application.heard += Buffer.from(bytes).toString("latin1");
        for (let end = text.indexOf("\r\n\r\n"); end !== -1; end = text.indexOf("\r\n\r\n")) {
          text = text.slice(end + 4);
          conn.write(Buffer.from(application.answer));
        }
      },
      onEnd: () => conn.end(),
      onDrain: () => undefined,
      onClose: () => undefined,
    });
  });
  mesh.control.endpoints("web.sim:80", [mesh.endpoint(server, 80)]);
  const routes = of.routes ?? [routeOf("web", [ruleTo([backendOf(WEB)], [matchOf("/a*"), matchOf("/b*")])])];
  const policy: OutboundPolicy = {
    source: WEB.source,
    protocol: "detect",
    http: routes,
    tcp: [],
    backend: WEB,
  };
  mesh.control.policy(at(VIP, 80), policy);
  const ask: Scene["ask"] = (lines = ["x-pillion-debug: 1"], path = "/a", from = client, to = VIP) => {
    let answer = "";
    from.host.dial(at(to, 80), (_error, conn) => {
      conn?.setHandler({
        onData: (bytes) => void (answer += Buffer.from(bytes).toString("latin1")),
        onEnd: () => conn.end(),
        onDrain: () => undefined,
        onClose: () => undefined,
      });
      const fields = ["Host: web", ...lines].map((line) => `${line}\r\n`).join("");
      conn?.write(Buffer.from(`GET ${path} HTTP/1.1\r\n${fields}\r\n`));
    });
    mesh.clock.run(5_000);
    return answer;
  };
  return { mesh, client, application, ask };
}

function traceOf(answer: string): string[] {
  const all = [...answer.matchAll(/^x-pillion-trace: (.*)\r$/gim)];
  assert.ok(all.length <= 1, "one trace");
  return all.length === 0 ? [] : all[0]![1]!.split(/, (?=[a-z-]+(?:;|$|,))/);
}

/** That nothing of tracing came to an application. */
function assertUntold({ application }: Scene): void {
  assert.notEqual(application.heard, "");
  assert.doesNotMatch(application.heard, /pillion-(debug|trace)/i);
}

test("who may ask is told the route, the endpoint, and what the far sidecar did", () => {
  const one = scene();
  const steps = traceOf(one.ask());
  assert.deepEqual(
    steps.map((step) => step.split(";")[0]),
    ["client", "route", "attempt", "server", "authorization", "attempt"],
  );
  assert.match(steps[1]!, /;policy="HTTPRoute\/shop\/web";rule=1;match=1;why="prefix \\"\/a\\", of /);
  assert.match(
    steps[2]!,
    /;n=1;at=[\d.]+;backend="web\.sim:80";endpoint="10\.1\.0\.2:80";pod="web";chosen=".*";took=[\d.]+;status=200$/,
  );
  assert.match(steps[4]!, /;allowed;by="default\/all-unauthenticated"$/);
  assert.match(steps[5]!, /;backend="the application at .*:80";.*;status=200$/);
  assertUntold(one);
  // Of the second match, on the same path of code.
  assert.match(traceOf(one.ask(["X-Pillion-Debug: yes"], "/b"))[1]!, /;match=2;/);
});

test("over HTTP/2 it is the same, and a mirror's copy says nothing of itself", () => {
  const copy = { kind: "mirror", backend: WEB, ratio: { numerator: 1, denominator: 1 } } as const;
  const routes = [routeOf("web", [ruleTo([backendOf(WEB)], [matchOf("/a*")], [copy])])];
  const asked: RequestHead["asksTrace"][] = [];
  // It would hear of both fields, that of programs and that of sidecars.
  const application: HttpService = {
    call: (head, _last, reply) => {
      asked.push(head.asksTrace);
      reply.head({ status: 204, version: "2", reason: null, fields: [] }, true);
      return SPENT;
    },
  };
  const one = scene({ routes, http2: application });
  let trace = "";
  one.client.host.dial(at(VIP, 80), (_error, conn) => {
    assert.ok(conn);
    const program = new Http2Client(conn, one.mesh.clock, () => {}, { meshed: false });
    const head = headOf("/a", { version: "2", authority: "web", fields: ["x-pillion-debug", "1"] });
    program.call(head, true, {
      ...UNHEARD,
      head: ({ fields }) => void (trace = fieldValue(fields, "x-pillion-trace") ?? ""),
    });
  });
  one.mesh.clock.run(5_000);
  assert.deepEqual(
    traceOf(`x-pillion-trace: ${trace}\r`).map((step) => step.split(";")[0]),
    ["client", "route", "mirror", "attempt", "server", "authorization", "attempt"],
  );
  assert.deepEqual(asked, [null, null], "the request and its copy");
});

test("without the header there is no trace", () => {
  const one = scene();
  assert.match(one.ask([]), /^HTTP\/1\.1 200 OK\r\nContent-Length: 2\r\n\r\nok$/);
});

test("requests that share a head have a trace each", () => {
  const one = scene();
  // Pipelined on one connection: the second is read as the first's head over again.
  const answer = one.ask(["x-pillion-debug: 1", "", "GET /a HTTP/1.1", "Host: web", "x-pillion-debug: 1"]);
  const answers = answer.split(/(?=HTTP\/1\.1 )/).map(traceOf);
  assert.deepEqual(
    answers.map((steps) => steps.filter((step) => step.startsWith("attempt;n=1;")).length),
    [2, 2],
  );
});

test("attack: a client that may not ask gets nothing, and its header ends at its sidecar", () => {
  const one = scene({ client: false });
  const answer = one.ask(["X-Pillion-Debug: 1", "l5d-pillion-debug: 1"]);
  assert.equal(answer, OK);
  assertUntold(one);
});

test("attack: a server whose workload does not allow it says nothing of itself", () => {
  const one = scene({ server: false });
  assert.deepEqual(
    traceOf(one.ask(["x-pillion-debug: 1", "l5d-pillion-debug: 1"])).map((step) => step.split(";")[0]),
    ["client", "route", "attempt"],
  );
  assertUntold(one);
});

test("attack: an unmeshed client learns nothing, whatever it claims to be", () => {
  const one = scene();
  const stranger = one.mesh.pod("stranger", "10.1.0.9", { isMeshed: false });
  const claims = ["x-pillion-debug: 1", "l5d-pillion-debug: 1", "l5d-client-id: client.sim"];
  assert.equal(one.ask(claims, "/a", stranger, "10.1.0.2"), OK);
  assertUntold(one);
});

test("attack: the header does not leave the mesh, and nobody outside can write a trace", () => {
  const one = scene({ isServerMeshed: false });
  one.application.answer =
    "HTTP/1.1 200 OK\r\nX-Pillion-Trace: forged\r\nl5d-pillion-trace: forged\r\nContent-Length: 2\r\n\r\nok";
  const answer = one.ask();
  assert.doesNotMatch(answer, /forged/);
  assert.deepEqual(
    traceOf(answer).map((step) => step.split(";")[0]),
    ["client", "route", "attempt"],
  );
  assertUntold(one);
});

test("attack: an application in the mesh can forge neither side's part", () => {
  const one = scene();
  one.application.answer =
    "HTTP/1.1 200 OK\r\nX-Pillion-Trace: forged\r\nl5d-pillion-trace: forged\r\nContent-Length: 2\r\n\r\nok";
  const answer = one.ask();
  assert.doesNotMatch(answer, /forged/);
  assert.equal(traceOf(answer).length, 6);
});

test("a refusal is traced too: no route, not authorized", () => {
  const one = scene();
  const lost = one.ask(undefined, "/elsewhere");
  assert.match(lost, /^HTTP\/1\.1 404 /);
  assert.match(traceOf(lost).join(), /route;none,refused;code="NO_ROUTE"/);
  const denied: InboundPolicy = { ...ALLOW_ALL, access: { routes: [], rules: [] } };
  one.mesh.control.port(80, denied);
  one.mesh.clock.run(1_000);
  const refused = one.ask();
  assert.match(refused, /^HTTP\/1\.1 403 /);
  const steps = traceOf(refused);
  assert.match(
    steps.find((step) => step.startsWith("authorization"))!,
    /;by="all"$/,
  );
  assert.match(
    steps.find((step) => step.startsWith("refused"))!,
    /;code="NOT_AUTHORIZED"/,
  );
});

test("retries, their budget and faults are told as they happened", () => {
  const retry: RetryPolicy = {
    retriesMax: 1,
    statusRanges: [[500, 599]],
    grpcCodes: [],
    onConnectionError: true,
    attemptTimeoutMs: null,
    bodyBytesMax: 0,
    backoff: { minMs: 25, maxMs: 25, jitterRatio: 0 },
    respectsRetryAfter: false,
  };
  const action: FaultAction = { kind: "delay", delayMs: 50, jitterMs: 0 };
  const source = sourceNamed("slow", "FaultPolicy");
  const fault = {
    kind: "fault",
    source,
    ratio: { numerator: 1, denominator: 1 },
    headers: [],
    action,
  } as const;
  const rule = { ...ruleTo([backendOf(WEB)], [], [fault]), retry };
  const one = scene({ routes: [routeOf("web", [rule])] });
  one.application.answer = "HTTP/1.1 503 Busy\r\nContent-Length: 0\r\n\r\n";
  const steps = traceOf(one.ask()).filter((step) => !/^(client|server|authorization)/.test(step));
  const own = steps.filter((step) => !step.includes("the application"));
  assert.match(own[1]!, /^fault;kind="delay";policy="FaultPolicy\/shop\/slow"$/);
  assert.match(own[2]!, /^attempt;n=1;.*;status=503$/);
  assert.match(own[3]!, /^retry;n=1;after=25;budget="within 20% in 10000 ms"$/);
  assert.match(own[4]!, /^attempt;n=2;.*;status=503$/);
  assert.match(own[5]!, /^retry-withheld;why="the rule allows 1"$/);
});
