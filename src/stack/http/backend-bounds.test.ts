/** Bounds on what one client has under way to one service, where connections are made. */
import assert from "node:assert/strict";
import { test } from "node:test";
import { ConnError } from "#/base/errors.ts";
import { SeededRandom } from "#/base/random.ts";
import type { Endpoint } from "#/model/endpoint.ts";
import { BackendBounds } from "../balance/backend-bounds.ts";
import { endpoint } from "../balance/testing.ts";
import type { Cancel, DialDone } from "../discovery.ts";
import type { MeteredConn } from "../metrics/transport.ts";
import { EndpointClient } from "./endpoint-client.ts";
import type { RequestHead, RequestSink } from "./exchange.ts";
import { fault } from "./fault.ts";
import { Http1Server } from "./http1-server.ts";
import { Http2Server } from "./http2-server.ts";
import { ManualClock, memoryPair, RecordingReply, ScriptedService } from "./testing.ts";

/** Endpoints of one service; each dial waits until the test lets it through. */
class Rig {
  readonly clock: ManualClock = new ManualClock();
  readonly bounds: BackendBounds = new BackendBounds("web.shop:80");
  readonly application: ScriptedService = new ScriptedService();
  readonly dials: { protocol: string; done: DialDone; isCancelled: boolean }[] = [];
  readonly conns: MeteredConn[] = [];
  seenByMetrics = 0;

  client(at: Partial<Endpoint> = {}): EndpointClient {
    const dial = (_endpoint: Endpoint, protocol: string, done: DialDone): Cancel => {
      const one = { protocol, done, isCancelled: false };
      this.dials.push(one);
      return { cancel: () => void (one.isCancelled = true) };
    };
    return new EndpointClient(
      endpoint("10.0.0.1", at),
      dial,
      this.clock,
      new SeededRandom(1),
      undefined,
      this.bounds,
    );
  }

  /** Streams that an HTTP/2 server allows. */
  streamsMax = 100;

  ask(client: EndpointClient, version: "1.1" | "2" = "1.1"): { reply: RecordingReply; sink: RequestSink } {
    const head: RequestHead = {
      method: "GET",
      scheme: "http",
      authority: "web",
      path: "/",
      version,
      absoluteForm: false,
      upgrade: null,
      fields: [],
    };
    const reply = new RecordingReply();
    return { reply, sink: client.call(head, true, reply) };
  }

  /** Lets the oldest dial through, to a connection that tells metrics of its close, as all do that reach the network. */
  connect(): void {
    const { protocol, done } = this.dials.shift()!;
    const [near, far] = memoryPair(this.clock);
    const conn = Object.assign(near, {
      bytesRead: 0,
      bytesWritten: 0,
      closed: null,
    }) as unknown as MeteredConn;
    conn.closed = () => this.seenByMetrics++;
    const set = near.setHandler.bind(near);
    near.setHandler = (handler) =>
      set({
        onData: (bytes) => handler.onData(bytes),
        onEnd: () => handler.onEnd(),
        onDrain: () => handler.onDrain(),
        onClose: (error) => {
          conn.closed?.(error);
          handler.onClose(error);
        },
      });
    this.conns.push(conn);
    if (protocol === "http1") new Http1Server(far, this.application, this.clock, () => {});
    else
      new Http2Server(far, this.application, this.clock, () => {}, {
        meshed: false,
        clientId: null,
        machine: { maxConcurrentStreams: this.streamsMax },
      });
    done(null, conn, null);
    this.clock.settle();
  }

  refuse(): void {
    this.dials.shift()!.done(new ConnError("CONNECT_REFUSED", "nobody"), null, null);
  }
}

function limit(rig: Rig, pendingMax: number, connectionsMax: number): void {
  rig.bounds.limits = { requestsMax: 0, pendingMax, connectionsMax };
}

test("no more connections than connectionsMax are made, and a request beyond is refused at once", () => {
  const rig = new Rig();
  limit(rig, 0, 2);
  const client = rig.client();
  rig.ask(client);
  rig.ask(client);
  const third = rig.ask(client).reply;
  assert.deepEqual([third.events, third.fault?.rule], [["fail OVERLOADED safe"], "connectionsMax=2"]);
  assert.equal(rig.dials.length, 2);
  // One that is answered leaves its connection to the next, which needs none.
  rig.connect();
  rig.application.calls[0]!.answer(200, [], "");
  rig.clock.settle();
  const fourth = rig.ask(client).reply;
  rig.clock.settle();
  assert.deepEqual([fourth.fault, rig.application.calls.length], [null, 2]);
});

test("a connection counts until its close, beside whoever counts its bytes, and one that failed no longer", () => {
  const rig = new Rig();
  limit(rig, 0, 1);
  const client = rig.client();
  rig.ask(client);
  rig.connect();
  assert.equal(rig.bounds.connections, 1);
  rig.conns[0]!.reset();
  rig.clock.settle();
  assert.deepEqual([rig.bounds.connections, rig.seenByMetrics], [0, 1]);
  const second = rig.ask(client).reply;
  rig.refuse();
  assert.deepEqual([second.events, rig.bounds.connections], [["fail CONNECT_FAILED safe"], 0]);
});

test("who gives up while a connection is made gives its place back", () => {
  const rig = new Rig();
  limit(rig, 1, 1);
  const client = rig.client();
  const { sink } = rig.ask(client);
  assert.deepEqual([rig.bounds.connections, rig.bounds.waiting], [1, 1]);
  sink.abort(fault("CANCELLED", "gone"));
  assert.deepEqual([rig.bounds.connections, rig.bounds.waiting, rig.dials[0]!.isCancelled], [0, 0, true]);
});

test("one HTTP/2 connection carries what comes while it is made, up to pendingMax", () => {
  const rig = new Rig();
  limit(rig, 3, 1);
  const client = rig.client();
  const replies = [1, 2, 3, 4].map(() => rig.ask(client, "2").reply);
  assert.deepEqual(
    replies.map((reply) => reply.fault?.rule ?? ""),
    ["", "", "", "pendingMax=3"],
  );
  rig.connect();
  assert.deepEqual([rig.application.calls.length, rig.bounds.waiting, rig.bounds.connections], [3, 0, 1]);
  rig.ask(client, "2");
  rig.clock.settle();
  assert.equal(rig.application.calls.length, 4, "what is connected waits for nothing");
  const elsewhere = rig.ask(rig.client(), "2").reply;
  assert.equal(elsewhere.fault?.rule, "connectionsMax=1", "the bound is the service's");
});

test("a limit that is lowered lets be what is there", () => {
  const rig = new Rig();
  const client = rig.client();
  for (let i = 0; i < 3; i++) rig.ask(client);
  limit(rig, 1, 1);
  for (let i = 0; i < 3; i++) rig.connect();
  assert.deepEqual([rig.application.calls.length, rig.bounds.connections, rig.bounds.waiting], [3, 3, 0]);
  assert.equal(rig.ask(client).reply.fault?.rule, "connectionsMax=1");
});

test("what is told twice to be over is over once", () => {
  const bounds = new BackendBounds("web");
  const over = [bounds.wait(), bounds.connecting()];
  bounds.wait();
  bounds.connecting();
  for (let i = 0; i < 2; i++) for (const each of over) each();
  assert.deepEqual([bounds.waiting, bounds.connections], [1, 1]);
});

test("requests that wait for a stream count as waiting", () => {
  const rig = new Rig();
  limit(rig, 2, 0);
  rig.streamsMax = 1;
  const client = rig.client();
  rig.ask(client, "2");
  rig.connect();
  const replies = [1, 2, 3].map(() => rig.ask(client, "2"));
  assert.deepEqual(
    replies.map(({ reply }) => reply.fault?.rule ?? ""),
    ["", "", "pendingMax=2"],
  );
  replies[0]!.sink.abort(fault("CANCELLED", "gone"));
  assert.equal(rig.bounds.waiting, 1);
  rig.application.calls[0]!.answer(200, [], "");
  rig.clock.settle();
  assert.deepEqual([rig.application.calls.length, rig.bounds.waiting], [2, 0]);
});
