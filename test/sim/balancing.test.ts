/** Traffic policy through whole sidecars: what a service's `BackendTraffic` says, heard live, is what its requests meet. */
import assert from "node:assert/strict";
import { test } from "node:test";
import { SeededRandom } from "#/base/random.ts";
import type { OutboundPolicy } from "#/model/policy.ts";
import { policyTo } from "#/model/policy.ts";
import type { Backend, HttpRule } from "#/model/route.ts";
import type { BackendTraffic, SessionPersistence } from "#/model/traffic.ts";
import { BACKEND_TRAFFIC_DEFAULTS } from "#/model/traffic.ts";
import { Http1Server } from "#/stack/http/http1-server.ts";
import type { HttpService } from "#/stack/http/exchange.ts";
import { SPENT } from "#/stack/http/exchange.ts";
import { at, SimMesh, type SimPod } from "./sim-mesh.ts";

const VIP = "10.9.0.1";
const SOURCE = { group: "", kind: "Service", namespace: "shop", name: "web", section: "", port: 80 };
/** Of a target without routes of its own. */
const ROUTELESS = { ...SOURCE, group: "", kind: "default", name: "http" };

interface Answer {
  readonly status: number;
  readonly pod: string;
  readonly text: string;
}

/** Four replicas of a web service and a client, on one keep-alive connection that outlives every change. */
class Scene {
  readonly mesh: SimMesh = new SimMesh(new SeededRandom(11));
  readonly client: SimPod;
  readonly answers: Answer[] = [];
  /** Pods that answer 500. */
  readonly broken = new Set<string>();
  #write: (text: string) => void = () => {};

  /** `silentMs`: the client says nothing for so long, and its server is dialled meanwhile. */
  constructor(isMeshed = true, traffic: Partial<BackendTraffic> = {}, silentMs = 0) {
    const { mesh } = this;
    this.client = mesh.pod("client", "10.1.0.1", { isMeshed: true });
    const servers = [2, 3, 4, 5].map((n) => mesh.pod(`web-${n}`, `10.1.0.${n}`, { isMeshed }));
    const canary = mesh.pod("canary", "10.1.0.9", { isMeshed });
    for (const pod of [...servers, canary]) {
      const service: HttpService = {
        call: (_head, _last, reply) => {
          const status = this.broken.has(pod.name) ? 500 : 200;
          reply.head(
            { status, version: "1.1", reason: null, fields: ["x-pod", pod.name, "content-length", "0"] },
            true,
          );
          return SPENT;
        },
      };
      pod.host.listen(80, (conn) => void new Http1Server(conn, service, mesh.clock, () => undefined));
    }
    const endpoints = servers.map((pod) => mesh.endpoint(pod, 80));
    mesh.control.endpoints("web", endpoints);
    mesh.control.endpoints("canary", [mesh.endpoint(canary, 80)]);
    this.set(traffic);
    this.client.host.dial(at(VIP, 80), (error, conn) => {
      assert(conn !== null, String(error));
      let text = "";
      conn.setHandler({
        onData: (bytes) => {
          text += Buffer.from(bytes).toString("latin1");
          const head = /^HTTP\/1\.1 (\d+)[^]*?\r\n\r\n/.exec(text);
          const length = head === null ? null : /content-length: (\d+)/i.exec(head[0]);
          if (head === null || length === null || text.length < head[0].length + Number(length[1])) return;
          const pod = /x-pod: (\S+)/i.exec(head[0])?.[1] ?? "";
          this.answers.push({ status: Number(head[1]), pod, text });
          text = "";
        },
        onEnd: () => assert.fail("the connection ended"),
        onDrain: () => undefined,
        onClose: () => assert.fail("the connection closed"),
      });
      this.#write = (request) => void conn.write(Buffer.from(request));
    });
    mesh.clock.run(Math.max(50, silentMs));
  }

  /** To `backends` alike. */
  rule(path: string, backends: readonly Backend[]): HttpRule {
    return {
      name: path.slice(1),
      matches: [{ path: { kind: "exact", value: path }, headers: [], query: [], method: null }],
      filters: [],
      choice: "random",
      backends: backends.map((backend) => ({ weight: 1, backend, filters: [], attemptTimeoutMs: null })),
      timeouts: { requestMs: null, attemptMs: null, responseMs: null, idleMs: null },
      retry: null,
      allowsRequestHeaders: false,
    };
  }

  backend(traffic: Partial<BackendTraffic>, path: string = "web"): Backend {
    return {
      kind: "balancer",
      source: SOURCE,
      path,
      defaultRttMs: 30,
      decayMs: 10_000,
      traffic: { ...BACKEND_TRAFFIC_DEFAULTS, ...traffic },
    };
  }

  set(traffic: Partial<BackendTraffic>): void {
    this.#say(policyTo(this.backend(traffic), ROUTELESS, "detect"));
  }

  route(rules: readonly HttpRule[]): void {
    const source = { ...SOURCE, kind: "HTTPRoute" };
    this.#say({ ...policyTo(this.backend({}), SOURCE, "http1"), http: [{ source, hosts: [], rules }] });
  }

  #say(policy: OutboundPolicy): void {
    this.mesh.control.policy(at(VIP, 80), policy);
    this.mesh.clock.run(20);
  }

  ask(fields: string = "", path: string = "/"): Answer {
    const before = this.answers.length;
    this.#write(`GET ${path} HTTP/1.1\r\nHost: web\r\n${fields}\r\n`);
    this.mesh.clock.runUntil(() => this.answers.length > before, "an answer");
    return this.answers.at(-1)!;
  }

  podsOf(count: number, fields: string = "", path: string = "/"): Map<string, number> {
    const pods = new Map<string, number>();
    for (let i = 0; i < count; i++) {
      const { pod } = this.ask(fields, path);
      pods.set(pod, (pods.get(pod) ?? 0) + 1);
    }
    return pods;
  }
}

const session = (name: string): SessionPersistence => ({
  kind: "cookie",
  name,
  absoluteTimeoutMs: null,
  isPermanent: false,
  path: "/",
});

test("changes of a service's traffic policy hold for the next request of an open connection", () => {
  const scene = new Scene();
  scene.set({ balancing: { algorithm: "round-robin", hashOn: [], boundedLoad: 0 } });
  assert.deepEqual([...scene.podsOf(20).values()], [5, 5, 5, 5]);

  const hashOn = [{ kind: "header", name: "x-user" }] as const;
  scene.set({ balancing: { algorithm: "consistent-hash", hashOn, boundedLoad: 0 } });
  assert.equal(scene.podsOf(10, "X-User: ann\r\n").size, 1);

  const persistence = session("sid");
  scene.set({ persistence });
  const first = scene.ask();
  const cookie = /set-cookie: (sid=[^;\r]+)/i.exec(first.text)?.[1] ?? "";
  assert.deepEqual([...scene.podsOf(10, `Cookie: ${cookie}\r\n`)], [[first.pod, 10]]);

  scene.set({});
  assert.doesNotMatch(scene.ask().text, /set-cookie/i);
  assert.ok(
    scene.answers.every(({ status }) => status === 200),
    "and no request was lost",
  );
});

test("each rule has its own sessions at the endpoints that it shares with others, on one connection", () => {
  const scene = new Scene();
  scene.route([
    scene.rule("/one", [scene.backend({ persistence: session("a") })]),
    scene.rule("/two", [scene.backend({ persistence: session("b") })]),
    scene.rule("/free", [scene.backend({})]),
  ]);
  const begin = (path: string): readonly [string, string] => {
    const { pod, text } = scene.ask("", path);
    return [pod, /set-cookie: ([ab]=[^;\r]+)/i.exec(text)?.[1] ?? ""];
  };
  const [onePod, one] = begin("/one");
  const [twoPod, two] = begin("/two");
  assert.match(`${one} ${two}`, /^a=\S+ b=\S+$/);
  assert.equal(begin("/free")[1], "");
  const cookies = `Cookie: ${one}; ${two}\r\n`;
  for (let i = 0; i < 10; i++) {
    assert.equal(scene.ask(cookies, "/one").pod, onePod);
    assert.equal(scene.ask(cookies, "/two").pod, twoPod);
    assert.doesNotMatch(scene.ask(cookies, "/free").text, /set-cookie/i);
  }
  assert.ok(scene.podsOf(40, cookies, "/free").size > 1, "chance has it");
});

test("a session stays with its backend, whatever the weights are", () => {
  const scene = new Scene();
  const split = (weights: readonly number[]): void =>
    scene.route([
      {
        ...scene.rule("/", []),
        backends: weights.map((weight, i) => ({
          weight,
          backend: scene.backend({ persistence: session("sid") }, i === 0 ? "web" : "canary"),
          filters: [],
          attemptTimeoutMs: null,
        })),
      },
    ]);
  split([0, 1]);
  const first = scene.ask();
  const cookie = /set-cookie: (sid=[^;\r]+)/i.exec(first.text)?.[1] ?? "";
  split([1000, 1]);
  assert.deepEqual([...scene.podsOf(20, `Cookie: ${cookie}\r\n`)], [[first.pod, 20]]);
  assert.ok(scene.podsOf(20).size > 1);
  split([1, 0]);
  assert.notEqual(scene.ask(`Cookie: ${cookie}\r\n`).pod, first.pod, "nothing goes where the weight is 0");
});

test("an endpoint whose answers fail is set aside, tried by one request, and taken back", () => {
  const scene = new Scene();
  scene.set({
    balancing: { algorithm: "round-robin", hashOn: [], boundedLoad: 0 },
    accrual: {
      consecutiveFailures: 2,
      successRateMin: 0,
      windowMs: 10_000,
      requestsMin: 5,
      backoff: { minMs: 60_000, maxMs: 60_000, jitterRatio: 0 },
      respectsRetryAfter: false,
    },
  });
  scene.broken.add("web-3");
  const failuresOf = (count: number): number =>
    Array.from({ length: count }, () => scene.ask()).filter(({ status }) => status === 500).length;
  assert.equal(failuresOf(40), 2);
  scene.mesh.clock.run(60_000);
  assert.equal(failuresOf(40), 1, "the one that tried it");
  scene.broken.clear();
  scene.mesh.clock.run(60_000);
  assert.equal(scene.ask().pod, "web-3");
  assert.deepEqual([...scene.podsOf(40).values()], [10, 10, 10, 10]);
});

test("the first request of a connection whose server was dialled before it came is balanced as any other", () => {
  const persistence = session("sid");
  const scene = new Scene(false, { persistence }, 200);
  const cookie = /set-cookie: (sid=[^;\r]+)/i.exec(scene.ask().text)?.[1];
  assert.ok(cookie !== undefined, "the first answer begins a session");
});
