/** What a dispatch makes of a service's `BackendTraffic`, and what it learns from answers. */
import assert from "node:assert/strict";
import { test } from "node:test";
import type { Fields } from "#/base/fields.ts";
import { fieldValue } from "#/base/fields.ts";
import { SeededRandom } from "#/base/random.ts";
import type { Endpoint } from "#/model/endpoint.ts";
import type { BackendTraffic, SessionPersistence } from "#/model/traffic.ts";
import type { BackendLimit } from "../balance/backend-bounds.ts";
import type { Member } from "../balance/balancer.ts";
import { ACCRUAL, balancing, BY_USER, endpoints, traffic } from "../balance/testing.ts";
import type { EndpointSource } from "../discovery.ts";
import type { EndpointService } from "./dispatch.ts";
import { Dispatch, TriedEndpoints } from "./dispatch.ts";
import type { RequestHead } from "./exchange.ts";
import { fault } from "./fault.ts";
import { ManualClock, RecordingReply, type ScriptedCall, ScriptedService } from "./testing.ts";

const GET: RequestHead = {
  method: "GET",
  scheme: "http",
  authority: "web",
  path: "/",
  version: "1.1",
  absoluteForm: false,
  upgrade: null,
  fields: [],
};
const CALL: RequestHead = {
  ...GET,
  method: "POST",
  version: "2",
  fields: ["content-type", "application/grpc"],
};

class Scene implements EndpointSource {
  readonly key = "test";
  readonly state = "known";
  readonly clock: ManualClock = new ManualClock();
  readonly calls: { ip: string; call: ScriptedCall }[] = [];
  readonly reached: BackendLimit[] = [];
  readonly dispatch: Dispatch;
  endpoints: readonly Endpoint[];
  #changed: () => void = () => {};

  constructor(count: number, over: Partial<BackendTraffic> = {}) {
    this.endpoints = endpoints(count);
    this.dispatch = new Dispatch({
      name: "web.shop:80",
      source: this,
      clock: this.clock,
      random: new SeededRandom(5),
      traffic: traffic(over),
      limitReached: (limit) => this.reached.push(limit),
      make: ({ address }) => new ScriptedService((call) => this.calls.push({ ip: address.ip, call })),
    });
  }

  subscribe(changed: () => void): { cancel(): void } {
    this.#changed = changed;
    return { cancel: () => {} };
  }

  set(count: number): void {
    this.endpoints = endpoints(count);
    this.#changed();
  }

  ask(
    head: RequestHead = GET,
    persistence: SessionPersistence | null = null,
  ): {
    reply: RecordingReply;
    ip: string;
    call: ScriptedCall;
    member: Member<EndpointService>;
  } {
    const reply = new RecordingReply();
    this.dispatch.call(head, true, reply, null, persistence);
    const { ip, call } = this.calls.at(-1)!;
    return { reply, ip, call, member: this.#member(ip) };
  }

  get asideCount(): number {
    return this.dispatch.balancer.members.filter(({ standing }) => standing.aside !== "no").length;
  }

  #member(ip: string): Member<EndpointService> {
    return this.dispatch.balancer.members.find(({ endpoint }) => endpoint.address.ip === ip)!;
  }
}

/** A gRPC answer with its status in the trailers. */
function finishCall(call: ScriptedCall, status: number, ...fields: Fields): void {
  call.reply.head({ status: 200, version: "2", reason: null, fields: [] }, false);
  call.reply.finish(["grpc-status", String(status), ...fields]);
}

const ONE_FAILURE = { accrual: { ...ACCRUAL, consecutiveFailures: 1 } };

const FAILURES: Readonly<Record<string, (scene: Scene) => void>> = {
  "a 5xx": (scene) => scene.ask().call.answer(503, [], ""),
  "gRPC INTERNAL in trailers": (scene) => finishCall(scene.ask(CALL).call, 13),
  "gRPC UNAVAILABLE without a body": (scene) => scene.ask(CALL).call.answer(200, ["grpc-status", "14"], ""),
  "a reset after the request was seen": (scene) => scene.ask().call.reply.fail(fault("RESET", "gone")),
  "a reset in the middle of the body": (scene) => {
    const { call } = scene.ask();
    call.reply.head({ status: 200, version: "1.1", reason: null, fields: [] }, false);
    call.reply.fail(fault("RESET", "gone"));
  },
  "an answer that breaks the protocol": (scene) => scene.ask().call.reply.fail(fault("PROTOCOL", "nonsense")),
  "a timeout": (scene) =>
    scene.dispatch.call(GET, true, new RecordingReply()).abort(fault("TIMEOUT", "too long")),
};

for (const [name, happen] of Object.entries(FAILURES)) {
  test(`${name} is a failure of its endpoint`, () => {
    const scene = new Scene(4, ONE_FAILURE);
    happen(scene);
    assert.equal(scene.asideCount, 1);
  });
}

test("a further attempt goes to the same endpoint rather than to one that is set aside", () => {
  const scene = new Scene(2, ONE_FAILURE);
  const { ip } = scene.ask();
  scene.calls.at(-1)!.call.answer(503, [], "");
  assert.equal(scene.asideCount, 1);
  const tried = new TriedEndpoints();
  for (let attempt = 0; attempt < 3; attempt++) {
    scene.dispatch.call(GET, true, new RecordingReply(), tried);
    assert.notEqual(scene.calls.at(-1)!.ip, ip);
  }
});

const NO_FAILURES: Readonly<Record<string, (scene: Scene) => void>> = {
  "a timeout while the client still sends": (scene) =>
    scene.dispatch.call(GET, false, new RecordingReply()).abort(fault("TIMEOUT", "too long")),
  "a stream that is open at its deadline": (scene) => {
    const sink = scene.dispatch.call(CALL, true, new RecordingReply());
    scene.calls.at(-1)!.call.reply.head({ status: 200, version: "2", reason: null, fields: [] }, false);
    sink.abort(fault("TIMEOUT", "too long"));
  },
  "a 4xx": (scene) => scene.ask().call.answer(404, [], ""),
  "a 429": (scene) => scene.ask().call.answer(429, ["retry-after", "3"], ""),
  "gRPC NOT_FOUND": (scene) => finishCall(scene.ask(CALL).call, 5),
  "gRPC RESOURCE_EXHAUSTED": (scene) => finishCall(scene.ask(CALL).call, 8),
  "a grpc-status of who does not speak gRPC": (scene) => finishCall(scene.ask().call, 13),
  "a connection that ended before the request": (scene) =>
    scene.ask().call.reply.fail(fault("RESET", "idle for too long", { safe: true })),
  "a client that goes away": (scene) =>
    scene.dispatch.call(GET, true, new RecordingReply()).abort(fault("CANCELLED", "gone")),
};

for (const [name, happen] of Object.entries(NO_FAILURES)) {
  test(`${name} is none`, () => {
    const scene = new Scene(4, ONE_FAILURE);
    happen(scene);
    assert.equal(scene.asideCount, 0);
  });
}

test("the head of a gRPC answer is no success yet", () => {
  const scene = new Scene(1, { accrual: { ...ACCRUAL, consecutiveFailures: 2 }, ejectionFloor: 0 });
  for (let i = 0; i < 2; i++) finishCall(scene.ask(CALL).call, 13);
  assert.equal(scene.asideCount, 1);
});

test("a far sidecar that cannot reach its application speaks of that endpoint", () => {
  const scene = new Scene(4, ONE_FAILURE);
  const { call, ip } = scene.ask();
  const explanation = { status: 502, grpcStatus: 14, line: "not there", proxyStatus: "pillion" };
  call.reply.fail(fault("REFUSED", "not there", { safe: true, explanation }));
  assert.equal(scene.asideCount, 1);
  assert.notEqual(scene.calls.at(-1)!.ip, ip, "and the request is on its way to another");
});

for (const [name, answer, pauseMs] of [
  ["429", (call: ScriptedCall) => call.answer(429, [], ""), 5_000],
  ["429 with Retry-After", (call: ScriptedCall) => call.answer(429, ["Retry-After", "60"], ""), 60_000],
  ["503 with Retry-After", (call: ScriptedCall) => call.answer(503, ["retry-after", "7"], ""), 7_000],
  [
    "more than can be believed",
    (call: ScriptedCall) => call.answer(503, ["retry-after", "99999"], ""),
    300_000,
  ],
] as const) {
  test(`${name} counts as a latency of ${pauseMs} ms, and sets nobody aside`, () => {
    const scene = new Scene(3);
    const { call, member } = scene.ask();
    answer(call);
    assert.equal(Math.round(member.load(scene.clock.nowMs())), pauseMs);
    assert.equal(scene.asideCount, 0);
    const asked = Array.from({ length: 30 }, () => scene.ask().member);
    assert.ok(!asked.includes(member));
  });
}

test("RESOURCE_EXHAUSTED and a pushback count as such a latency too, in trailers and without", () => {
  const scene = new Scene(3);
  const first = scene.ask(CALL);
  finishCall(first.call, 8, "grpc-retry-pushback-ms", "20000");
  assert.equal(Math.round(first.member.load(scene.clock.nowMs())), 20_000);
  const second = scene.ask(CALL);
  second.call.answer(200, ["grpc-status", "8"], "");
  assert.equal(Math.round(second.member.load(scene.clock.nowMs())), 5_000);
});

test("a session begins with the first good answer, and its requests go to one endpoint (GEP-1619)", () => {
  const persistence = {
    kind: "cookie",
    name: "sid",
    absoluteTimeoutMs: null,
    isPermanent: false,
    path: "/",
  } as const;
  const scene = new Scene(10);
  const failed = scene.ask(GET, persistence);
  failed.call.answer(500, [], "");
  assert.equal(fieldValue(failed.reply.fields, "set-cookie"), null);
  const first = scene.ask(GET, persistence);
  first.call.answer(200, ["set-cookie", "theme=dark"], "");
  const { fields } = first.reply;
  const cookies = fields.filter((_, i) => fields[i - 1] === "set-cookie");
  assert.equal(cookies.length, 2, "the application's own stays");
  const cookie = cookies[1]!.split(";")[0]!;
  for (let i = 0; i < 20; i++) {
    const next = scene.ask({ ...GET, fields: ["cookie", cookie] }, persistence);
    assert.equal(next.ip, first.ip);
    next.call.answer(200, [], "");
    assert.equal(fieldValue(next.reply.fields, "set-cookie"), null);
  }
});

test("requests are hashed by their fields, and a repeated attempt walks on from the key's endpoint", () => {
  const scene = new Scene(10, balancing("consistent-hash", BY_USER));
  const head = { ...GET, fields: ["x-user", "ann"] };
  const { ip, call } = scene.ask(head);
  for (let i = 0; i < 5; i++) assert.equal(scene.ask(head).ip, ip);
  call.reply.fail(fault("REFUSED", "not here", { safe: true }));
  const second = scene.calls.at(-1)!.ip;
  assert.notEqual(second, ip);
  const again = scene.ask(head);
  again.call.reply.fail(fault("REFUSED", "not here", { safe: true }));
  assert.equal(scene.calls.at(-1)!.ip, second);
});

test("a request beyond requestsMax is refused at once, and none once there is room", () => {
  const scene = new Scene(3, { limits: { requestsMax: 2, pendingMax: 0, connectionsMax: 0 } });
  const first = scene.ask();
  scene.ask();
  const third = scene.ask().reply;
  assert.deepEqual([third.events, third.fault?.rule], [["fail OVERLOADED safe"], "requestsMax=2"]);
  assert.match(third.fault!.message, /^web\.shop:80: 2 requests/);
  assert.equal(scene.calls.length, 2);
  first.call.answer(200, [], "");
  scene.ask();
  assert.equal(scene.calls.length, 3);
  assert.deepEqual(scene.reached, ["requestsMax"]);
});

test("a request at an endpoint that has left still counts for requestsMax", () => {
  const scene = new Scene(1, { limits: { requestsMax: 1, pendingMax: 0, connectionsMax: 0 } });
  const open = scene.ask();
  scene.set(0);
  scene.set(1);
  assert.equal(scene.ask().reply.fault?.rule, "requestsMax=1");
  open.call.answer(200, [], "");
  assert.equal(scene.ask().reply.fault, null);
});

test("no more than pendingMax wait for an endpoint", () => {
  const scene = new Scene(0, { limits: { requestsMax: 0, pendingMax: 2, connectionsMax: 0 } });
  const replies = [1, 2, 3].map(() => {
    const reply = new RecordingReply();
    scene.dispatch.call(GET, true, reply);
    return reply;
  });
  assert.deepEqual(
    replies.map(({ events, fault: cause }) => [...events, cause?.rule ?? ""]),
    [[""], [""], ["fail OVERLOADED safe", "pendingMax=2"]],
  );
  scene.set(1);
  assert.deepEqual([scene.calls.length, scene.dispatch.bounds.waiting], [2, 0]);
});

test("with neither floor nor panic a request to endpoints that all failed is refused at once, with the reason", () => {
  const scene = new Scene(2, { ...ONE_FAILURE, ejectionFloor: 0, panicThreshold: 0 });
  for (let i = 0; i < 2; i++) scene.ask().call.answer(500, [], "");
  const reply = new RecordingReply();
  scene.dispatch.call(GET, true, reply);
  assert.deepEqual(reply.events, ["fail NO_ENDPOINTS safe"]);
  assert.equal(reply.fault?.status, 503);
  scene.clock.advance(1_000);
  scene.ask().call.answer(200, [], "");
  assert.equal(scene.asideCount, 1);
});

test("other settings hold for the next request; requests under way, statistics and who is set aside stay", () => {
  const scene = new Scene(4, ONE_FAILURE);
  scene.ask().call.answer(500, [], "");
  const { balancer } = scene.dispatch;
  const members = [...balancer.members];
  const open = scene.ask();
  const loads = members.map((member) => member.latency.load(0, scene.clock.nowMs()));
  scene.dispatch.configure(
    traffic({
      ...ONE_FAILURE,
      ...balancing("round-robin"),
      limits: { requestsMax: 1, pendingMax: 0, connectionsMax: 0 },
    }),
  );
  assert.deepEqual([...balancer.members], members);
  assert.deepEqual([scene.asideCount, balancer.pending], [1, 1]);
  assert.deepEqual(
    members.map((member) => member.latency.load(0, scene.clock.nowMs())),
    loads,
  );
  assert.equal(scene.ask().reply.fault?.rule, "requestsMax=1");
  open.call.answer(200, [], "");
  assert.equal(balancer.pending, 0);
});
