/** The layer over real connections in memory: what becomes of them when an answer is discarded, an attempt given up, a body replayed. */
import assert from "node:assert/strict";
import { test } from "node:test";
import { parseSocketAddress } from "#/base/address.ts";
import { SeededRandom } from "#/base/random.ts";
import type { Endpoint } from "#/model/endpoint.ts";
import type { RetryPolicy } from "#/model/route.ts";
import type { EndpointSource } from "../discovery.ts";
import { Dispatch } from "../http/dispatch.ts";
import { EndpointClient } from "../http/endpoint-client.ts";
import type { HttpVersion, RequestHead, RequestSink, ResponseSink } from "../http/exchange.ts";
import { Http1Server } from "../http/http1-server.ts";
import { Http2Server } from "../http/http2-server.ts";
import { ManualClock, memoryPair, RecordingReply, ScriptedService } from "../http/testing.ts";
import type { ScriptedCall } from "../http/testing.ts";
import { RetryBudgetWindow } from "./retry-budget.ts";
import { RetryLayer } from "./retry-layer.ts";
import type { RetryRule } from "./retry-rule.ts";

const POLICY: RetryPolicy = {
  retriesMax: 3,
  statusRanges: [[503, 503]],
  grpcCodes: [],
  onConnectionError: true,
  attemptTimeoutMs: null,
  bodyBytesMax: 1_000_000,
  backoff: { minMs: 10, maxMs: 10, jitterRatio: 0 },
  respectsRetryAfter: true,
};

class Scene {
  readonly clock = new ManualClock();
  readonly service: ScriptedService;
  readonly layer: RetryLayer;
  connections = 0;
  readonly #version: HttpVersion;
  readonly #rule: RetryRule;
  readonly #dispatch: Dispatch;
  readonly #budget = new RetryBudgetWindow({
    percent: 100,
    intervalMs: 10_000,
    floorCount: 10_000,
    floorIntervalMs: 1_000,
  });

  /** One endpoint, which does with each request what it is told. */
  constructor(version: HttpVersion, respond: (call: ScriptedCall) => void, attemptMs: number | null = null) {
    const { clock } = this;
    this.#version = version;
    this.service = new ScriptedService(respond);
    const random = new SeededRandom(1);
    this.layer = new RetryLayer({ clock, random });
    const nothing = (): void => {};
    this.#rule = {
      timeouts: { requestMs: 60_000, responseMs: null, attemptMs, idleMs: null },
      retry: POLICY,
      allowsRequestHeaders: false,
      label: "HTTPRoute/shop/web",
      series: {
        retried: nothing,
        retrySucceeded: nothing,
        retryLimitExceeded: nothing,
        retryOverflowed: nothing,
        timedOut: nothing,
      },
    };
    const endpoint: Endpoint = {
      address: parseSocketAddress("10.0.0.1:80")!,
      weight: 10_000,
      identity: null,
      protocolHint: "unknown",
      tunnelPort: null,
      authorityOverride: null,
      labels: {},
    };
    const source: EndpointSource = {
      key: "test",
      state: "known",
      endpoints: [endpoint],
      subscribe: () => ({ cancel: nothing }),
    };
    this.#dispatch = new Dispatch({
      name: "web:80",
      source,
      clock,
      random,
      make: () =>
        new EndpointClient(
          endpoint,
          (_endpoint, _protocol, done) => {
            this.connections++;
            const [near, far] = memoryPair(clock);
            if (version === "2")
              new Http2Server(far, this.service, clock, nothing, { meshed: false, clientId: null });
            else new Http1Server(far, this.service, clock, nothing);
            clock.soon(() => done(null, near, null));
            return { cancel: nothing };
          },
          clock,
          random,
        ),
    });
  }

  ask(reply: ResponseSink, method = "GET"): RequestSink {
    const head: RequestHead = {
      method,
      scheme: "http",
      authority: "web",
      path: "/",
      version: this.#version,
      absoluteForm: false,
      upgrade: null,
      fields: this.#version === "2" ? [] : ["Host", "web", ...(method === "GET" ? [] : CHUNKED)],
    };
    const dispatch = this.#dispatch;
    const destination = {
      budget: this.#budget,
      attemptTimeoutMs: null,
      call: dispatch.call.bind(dispatch),
    };
    const destinations = { draw: () => destination, hold: () => undefined, release: () => undefined };
    return this.layer.call(this.#rule, destinations, head, method === "GET", reply);
  }
}

const CHUNKED = ["Transfer-Encoding", "chunked"];

for (const version of ["1.1", "2"] as const) {
  test(`discarded answers leave their connection to the next attempt (HTTP/${version})`, () => {
    let number = 0;
    const scene = new Scene(version, (call) => {
      if (++number % 4 === 0) call.answer(200, ["content-length", "4"], "well");
      else call.answer(503, ["content-length", "4"], "busy");
    });
    for (let i = 0; i < 50; i++) {
      const reply = new RecordingReply();
      scene.ask(reply);
      scene.clock.advance(100);
      assert.deepEqual(reply.events, ["head 200", "finish"]);
      assert.equal(reply.body_, "well");
    }
    assert.equal(scene.service.calls.length, 200);
    assert.equal(scene.connections, 1);
    assert.equal(scene.layer.deadlines.size, 0);
  });

  test(`a body is sent again in full, however far each attempt got with it (HTTP/${version})`, () => {
    const random = new SeededRandom(5);
    const text = Array.from({ length: 40 }, (_, i) => `${i} `.repeat(1 + Math.floor(random.next() * 900)));
    let number = 0;
    const scene = new Scene(version, () => {});
    for (let round = 0; round < 30; round++) {
      const reply = new RecordingReply();
      const sink = scene.ask(reply, "POST");
      const failing = [0, 1, 2].map(() => Math.floor(random.next() * text.length));
      const first = scene.service.calls.length;
      let sentBytes = 0;
      for (const [at, chunk] of text.entries()) {
        sentBytes += chunk.length;
        sink.data(Buffer.from(chunk), 0, chunk.length);
        scene.clock.advance(5);
        const call = scene.service.calls.at(-1)!;
        const attempt = scene.service.calls.length - 1 - first;
        if (attempt < 3 && failing[attempt]! <= at && number < scene.service.calls.length) {
          number = scene.service.calls.length;
          call.answer(503, ["content-length", "4"], "busy");
        }
        scene.clock.advance(20);
      }
      sink.end(null);
      scene.clock.advance(100);
      const last = scene.service.calls.at(-1)!;
      assert.equal(last.body, text.join(""), "from the first byte to the last, each once");
      assert.ok(last.ended);
      const earlier = scene.service.calls.slice(first, -1);
      assert.ok(
        earlier.every((call) => call.aborted !== null),
        "nobody waits for the rest of it",
      );
      last.answer(200, ["content-length", "0"], "");
      scene.clock.advance(100);
      assert.equal(reply.status, 200);
      assert.ok(reply.finished);
      assert.equal(reply.requestConsumedBytes, sentBytes, "all credit, and none twice");
      assert.equal(scene.layer.keptBytes, 0);
    }
    assert.ok(scene.service.calls.length > 60, "attempts failed at all stages");
  });

  test(`an attempt that is given up is given up at the far side too (HTTP/${version})`, () => {
    let number = 0;
    const scene = new Scene(
      version,
      (call) => {
        if (++number % 2 === 0) call.answer(200, ["content-length", "4"], "well");
      },
      200,
    );
    for (let i = 0; i < 10; i++) {
      const reply = new RecordingReply();
      scene.ask(reply);
      scene.clock.advance(300);
      assert.deepEqual(reply.events, ["head 200", "finish"]);
    }
    const [even, odd] = [0, 1].map((rest) => scene.service.calls.filter((_, at) => at % 2 === rest));
    assert.ok(even!.every((call) => call.aborted !== null));
    assert.ok(odd!.every((call) => call.aborted === null));
    assert.equal(scene.layer.deadlines.size, 0);
  });
}
