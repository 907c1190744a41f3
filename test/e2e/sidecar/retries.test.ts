/** Timeouts and retries as programs meet them, through real sidecars. */
import assert from "node:assert/strict";
import type { IncomingHttpHeaders, ServerHttp2Stream } from "node:http2";
import { after, before, beforeEach, describe, test } from "node:test";
import type { OutboundPolicy } from "#/model/policy.ts";
import { policyTo } from "#/model/policy.ts";
import type { Backend, HttpRule, RetryPolicy, Timeouts } from "#/model/route.ts";
import { BACKEND_TRAFFIC_DEFAULTS } from "#/model/traffic.ts";
import type { RetryBudget } from "#/model/traffic.ts";
import { cannotRun, Mesh, type Pod } from "./rig/mesh.ts";
import type { WorkerContext } from "./rig/worker.ts";

const skip = cannotRun() ?? false;
const VIP = "10.214.0.2";

interface Reply {
  status: number;
  text: string;
  headers: Record<string, string | string[] | undefined>;
  /** "" for an answer that ended well. */
  error: string;
}

/** `/slow` answers never, `/trickle` without end; what else it does is the test's to say. */
function serve({ http, state }: WorkerContext, port: number, name: string): Promise<null> {
  const own = { mode: "good", requests: 0, bodies: [] as string[], fields: [] as string[] };
  state["own"] = own;
  const server = http.createServer((request, response) => {
    own.requests++;
    own.fields.push(...Object.keys(request.headers));
    let body = "";
    request.on("data", (chunk: Buffer) => (body += chunk.toString()));
    request.on("end", () => {
      own.bodies.push(body);
      if (request.url === "/slow") return;
      if (request.url === "/trickle") {
        setInterval(() => response.write("more "), 50).unref();
      } else if (own.mode === "good") response.end(name);
      else if (own.mode === "cut") request.socket.destroy();
      else response.writeHead(503).end(`${name} is busy`);
    });
  });
  return new Promise((done) => server.listen(port, "0.0.0.0", () => done(null)));
}

function become({ state }: WorkerContext, mode: string): null {
  Object.assign(state["own"] as object, { mode, requests: 0, bodies: [], fields: [] });
  return null;
}

interface Seen {
  requests: number;
  bodies: string[];
  /** Names of all fields of all requests. */
  fields: string[];
}

function seen({ state }: WorkerContext): Seen {
  return state["own"] as Seen;
}

function ask(
  { http }: WorkerContext,
  host: string,
  path: string,
  body: string,
  headers: Record<string, string>,
): Promise<Reply> {
  return new Promise((resolve, reject) => {
    const method = body === "" ? "GET" : "POST";
    let fail = reject;
    const request = http.request({ host, port: 80, path, method, headers, agent: false }, (response) => {
      const { statusCode: status = 0, headers: answered } = response;
      let text = "";
      response.on("data", (bytes: Buffer) => (text += bytes.toString()));
      response.on("end", () => resolve({ status, text, headers: answered, error: "" }));
      fail = ({ message }) => resolve({ status, text, headers: answered, error: message });
      response.on("error", fail);
    });
    request.on("error", (error) => fail(error));
    request.end(body);
  });
}

interface CallReply {
  status: string;
  /** "head", where the code came without a body, or "trailers". */
  where: string;
  message: string;
}

/** Fails with UNAVAILABLE, in a head alone as servers do it, or says nothing. Notes the deadlines that it is told. */
function serveCalls({ http2, state }: WorkerContext, port: number): Promise<null> {
  const own = { mode: "good", deadlines: [] as string[] };
  state["calls"] = own;
  const server = http2.createServer();
  server.on("stream", (stream: ServerHttp2Stream, headers) => {
    own.deadlines.push(String(headers["grpc-timeout"] ?? "none"));
    const head = { ":status": 200, "content-type": "application/grpc" };
    stream.on("error", () => undefined);
    stream.resume();
    if (own.mode === "silent") return;
    if (own.mode === "unavailable") {
      stream.respond({ ...head, "grpc-status": "14" }, { endStream: true });
      return;
    }
    stream.respond(head, { waitForTrailers: true });
    stream.on("wantTrailers", () => stream.sendTrailers({ "grpc-status": "0" }));
    stream.end();
  });
  return new Promise((done) => server.listen(port, "0.0.0.0", () => done(null)));
}

function becomeCalls({ state }: WorkerContext, mode: string): null {
  Object.assign(state["calls"] as object, { mode, deadlines: [] });
  return null;
}

function deadlines({ state }: WorkerContext): string[] {
  return (state["calls"] as { deadlines: string[] }).deadlines;
}

function makeCall({ http2 }: WorkerContext, host: string, timeout: string): Promise<CallReply> {
  return new Promise((resolve, reject) => {
    const session = http2.connect(`http://${host}:80`);
    session.on("error", reject);
    const stream = session.request({
      ":method": "POST",
      ":path": "/shop.Web/Get",
      "content-type": "application/grpc",
      te: "trailers",
      ...(timeout === "" ? {} : { "grpc-timeout": timeout }),
    });
    const take = (where: string, fields: IncomingHttpHeaders): void => {
      const { "grpc-status": status, "grpc-message": message = "" } = fields;
      if (typeof status !== "string") return;
      session.close();
      resolve({ status, where, message: message as string });
    };
    stream.on("response", (fields) => take("head", fields));
    stream.on("trailers", (fields) => take("trailers", fields));
    stream.on("error", reject);
    stream.resume();
    stream.end();
  });
}

const POLICY: RetryPolicy = {
  retriesMax: 2,
  statusRanges: [[503, 503]],
  grpcCodes: [],
  onConnectionError: true,
  attemptTimeoutMs: null,
  bodyBytesMax: 65_536,
  backoff: { minMs: 10, maxMs: 50, jitterRatio: 0.5 },
  respectsRetryAfter: true,
};
const PLENTY: RetryBudget = { percent: 100, intervalMs: 10_000, floorCount: 1_000, floorIntervalMs: 1_000 };

function policyWith(
  what: Partial<Pick<HttpRule, "retry" | "allowsRequestHeaders">> & {
    timeouts?: Partial<Timeouts>;
    budget?: RetryBudget;
    protocol?: "http1" | "grpc";
  },
): OutboundPolicy {
  const source = (kind: string, name: string): OutboundPolicy["source"] => ({
    group: kind === "Service" ? "core" : "gateway.networking.k8s.io",
    kind,
    namespace: "shop",
    name,
    section: "",
    port: 80,
  });
  const backend: Backend = {
    kind: "balancer",
    source: source("Service", "web"),
    path: "web:80",
    defaultRttMs: 30,
    decayMs: 10_000,
    traffic: { ...BACKEND_TRAFFIC_DEFAULTS, retryBudget: what.budget ?? PLENTY },
  };
  const policy = policyTo(backend, source("Service", "web"), what.protocol ?? "http1");
  const rule: HttpRule = {
    ...policy.http[0]!.rules[0]!,
    retry: what.retry ?? null,
    allowsRequestHeaders: what.allowsRequestHeaders ?? false,
    timeouts: { requestMs: null, responseMs: null, attemptMs: null, idleMs: null, ...what.timeouts },
  };
  return { ...policy, http: [{ source: source("HTTPRoute", "web"), hosts: [], rules: [rule] }] };
}

describe("timeouts and retries", { skip }, () => {
  let mesh: Mesh;
  let client: Pod;
  let a: Pod;
  let b: Pod;

  /** Each test has a target of its own, so that no budget is another's. */
  let number = 0;
  const use = async (policy: OutboundPolicy, port = 8080): Promise<string> => {
    const host = VIP.replace(/2$/, String(++number + 1));
    const path = `web${number}:80`;
    const named = JSON.parse(JSON.stringify(policy).replaceAll("web:80", path)) as OutboundPolicy;
    await mesh.set({
      policies: { ...mesh.table.policies, [`${host}:80`]: named },
      endpoints: { ...mesh.table.endpoints, [path]: [a.endpoint(port), b.endpoint(port)] },
    });
    return host;
  };

  before(async () => {
    mesh = await Mesh.start();
    a = await mesh.pod("a", { isMeshed: true, inboundPorts: [8080, 8081] });
    b = await mesh.pod("b", { isMeshed: true, inboundPorts: [8080, 8081] });
    client = await mesh.pod("client", { isMeshed: true });
    await a.run(serve, 8080, "a");
    await b.run(serve, 8080, "b");
    await a.run(serveCalls, 8081);
    await b.run(serveCalls, 8081);
  });
  beforeEach(async () => {
    await a.run(become, "good");
    await b.run(become, "good");
    await a.run(becomeCalls, "good");
    await b.run(becomeCalls, "good");
  });
  after(() => mesh.close());

  test("a request without an answer in time gets 504, and the rule that decided", async () => {
    const host = await use(policyWith({ timeouts: { requestMs: 300 } }));
    const { status, headers } = await client.run(ask, host, "/slow", "", {});
    assert.equal(status, 504);
    const reason = String(headers["proxy-status"]);
    assert.match(reason, /error=http_response_timeout;pillion-code=TIMEOUT;pillion-side=client/);
    assert.match(reason, /pillion-rule="HTTPRoute\/shop\/web, rule 1: timeouts.request"/);
    assert.match(String(headers["l5d-proxy-error"]), /no answer came within 300 ms/);
    assert.equal(
      await client.metric(/^pillion_request_timeouts_total\{.*route_name="web".*timeout="request"/),
      1,
    );
  });

  test("an answer that takes too long is cut where it is", async () => {
    const host = await use(policyWith({ timeouts: { requestMs: 2_000 } }));
    const { status, text, error } = await client.run(ask, host, "/trickle", "", {});
    assert.equal(status, 200);
    assert.match(text, /^(more )+/);
    assert.match(error, /aborted|ECONNRESET/);
  });

  test("an endpoint that is busy is not asked again while there is another", async () => {
    const host = await use(policyWith({ retry: POLICY }));
    await a.run(become, "busy");
    for (let i = 0; i < 20; i++) {
      const { status, text } = await client.run(ask, host, "/", "", {});
      assert.equal(`${status} ${text}`, "200 b");
    }
    const { requests } = await a.run(seen);
    assert.ok(requests > 0 && requests <= 20, `${requests} requests at the busy one`);
    const retries = await client.metric(/^outbound_http_route_retry_requests_total/);
    assert.equal(retries, requests);
    assert.equal(await client.metric(/^outbound_http_route_retry_successes_total/), requests);
  });

  test("a request that was lost with its connection is sent again with its body, whatever its method", async () => {
    const host = await use(policyWith({ retry: POLICY }));
    await a.run(become, "cut");
    for (let i = 0; i < 10; i++) {
      const { status, text } = await client.run(ask, host, "/", `body ${i}`, {});
      assert.equal(`${status} ${text}`, "200 b");
    }
    const { bodies } = await b.run(seen);
    assert.deepEqual(
      bodies,
      Array.from({ length: 10 }, (_, i) => `body ${i}`),
    );
  });

  test("an attempt that takes too long gives way to another", async () => {
    const host = await use(
      policyWith({ retry: { ...POLICY, retriesMax: 1 }, timeouts: { attemptMs: 1_000 } }),
    );
    const { status, headers } = await client.run(ask, host, "/slow", "", {});
    assert.equal(status, 504);
    assert.match(String(headers["l5d-proxy-error"]), /within an attempt's 1000 ms, in 2 attempts/);
    const both = [(await a.run(seen)).requests, (await b.run(seen)).requests];
    assert.deepEqual(both, [1, 1], "one attempt at each");
  });

  test("over budget the application's own answer comes through, and says that it was not retried", async () => {
    const budget = { percent: 20, intervalMs: 10_000, floorCount: 1, floorIntervalMs: 60_000 };
    const host = await use(policyWith({ retry: POLICY, budget }));
    await a.run(become, "busy");
    await b.run(become, "busy");
    await client.run(ask, host, "/", "", {});
    const { status, text, headers } = await client.run(ask, host, "/", "", {});
    assert.equal(status, 503);
    assert.match(text, /^[ab] is busy$/);
    assert.match(
      String(headers["proxy-status"]),
      /pillion;received-status=503;pillion-side=client;pillion-retry=withheld;details="not sent again/,
    );
    const { requests: atA } = await a.run(seen);
    const { requests: atB } = await b.run(seen);
    assert.equal(atA + atB, 3, "two requests and one retry");
    assert.ok((await client.metric(/^outbound_http_route_retry_overflow_total\{.*reason="budget"/)) >= 1);
  });

  test("a request asks for a timeout of its own where the rule allows it, and no server sees the field", async () => {
    const host = await use(policyWith({ allowsRequestHeaders: true }));
    const { status, headers } = await client.run(ask, host, "/slow", "", { "l5d-timeout": "1s" });
    assert.equal(status, 504);
    assert.match(String(headers["proxy-status"]), /pillion-rule="l5d-timeout"/);
    const fields = [...(await a.run(seen)).fields, ...(await b.run(seen)).fields];
    assert.ok(fields.includes("host"));
    assert.ok(!fields.includes("l5d-timeout"), fields.join());
  });

  test("a call whose code comes without a body is made again elsewhere", async () => {
    const retry = { ...POLICY, statusRanges: [], grpcCodes: [14] };
    const host = await use(policyWith({ retry, protocol: "grpc" }), 8081);
    await a.run(becomeCalls, "unavailable");
    for (let i = 0; i < 10; i++) assert.equal((await client.run(makeCall, host, "")).status, "0");
    assert.ok((await a.run(deadlines)).length > 0, "it was asked");
    assert.equal((await b.run(deadlines)).length, 10);
  });

  test("a call ends at its deadline, and each attempt is told what is left of it", async () => {
    const retry = { ...POLICY, statusRanges: [], grpcCodes: [14], retriesMax: 1 };
    const policy = policyWith({ retry, timeouts: { requestMs: 20_000, attemptMs: 1_200 }, protocol: "grpc" });
    const host = await use(policy, 8081);
    await a.run(becomeCalls, "silent");
    await b.run(becomeCalls, "silent");
    const { status, where, message } = await client.run(makeCall, host, "2000m");
    assert.equal(`${status} ${where}`, "4 head");
    assert.match(message, /no answer came within 2000 ms, in 2 attempts \[grpc-timeout\]/);
    const told = [...(await a.run(deadlines)), ...(await b.run(deadlines))];
    assert.equal(told.length, 2);
    // The first has an attempt's time, the second what is left after it and the pause.
    const [first] = told.filter((text) => text === "1200m");
    const [left] = told.filter((text) => text !== "1200m").map((text) => Number(/^(\d+)m$/.exec(text)?.[1]));
    assert.equal(first, "1200m");
    assert.ok(left! > 0 && left! <= 800, told.join());
  });
});
