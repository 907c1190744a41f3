import assert from "node:assert/strict";
import { test } from "node:test";
import type { Endpoint } from "#/model/endpoint.ts";
import { SeededRandom } from "#/base/random.ts";
import type { Dial, DialProtocol } from "../discovery.ts";
import { EndpointClient } from "./endpoint-client.ts";
import type { RequestHead } from "./exchange.ts";
import { Http1Server } from "./http1-server.ts";
import { Http2Server } from "./http2-server.ts";
import { ManualClock, memoryPair, RecordingReply, ScriptedService } from "./testing.ts";
import { callAsUpgrade } from "./websocket-upgrade.ts";

const OPENING: RequestHead = {
  method: "CONNECT",
  scheme: "https",
  authority: "chat.example",
  path: "/room",
  version: "2",
  absoluteForm: false,
  upgrade: "websocket",
  fields: ["sec-websocket-version", "13", "sec-websocket-protocol", "chat", "sec-websocket-key", "theirs"],
};
const SWITCHED = [
  "Upgrade",
  "websocket",
  "Connection",
  "Upgrade",
  "Sec-WebSocket-Accept",
  "x",
  "Sec-WebSocket-Protocol",
  "chat",
];
const bytes = (text: string): Uint8Array => Buffer.from(text, "latin1");

/** Asks a scripted server of HTTP/1, whose answer is the test's to give. */
function open(head: RequestHead = OPENING) {
  const service = new ScriptedService();
  const reply = new RecordingReply();
  const sink = callAsUpgrade(service, head, new SeededRandom(1), reply);
  return { sink, reply, call: service.calls[0] };
}

test("an extended CONNECT becomes a GET with Upgrade and a key of its own (RFC 6455 §4.1, RFC 8441 §5.1)", () => {
  const { head } = open().call!;
  assert.equal(head.method, "GET");
  assert.equal(head.version, "1.1");
  assert.equal(head.upgrade, "websocket");
  assert.equal(head.path, "/room");
  assert.equal(head.authority, "chat.example");
  const key = head.fields[head.fields.indexOf("sec-websocket-key") + 1]!;
  assert.equal(Buffer.from(key, "base64").length, 16);
  assert.equal(head.fields.filter((field) => field === "sec-websocket-key").length, 1);
  assert.equal(head.fields.filter((field) => field === "sec-websocket-version").length, 1);
});

test("a length and an expectation of the stream do not travel on, where they would be the GET's (RFC 9110 §10.1.1)", () => {
  const { head } = open({
    ...OPENING,
    fields: ["content-length", "5", "expect", "100-continue", "x", "1"],
  }).call!;
  assert.deepEqual(head.fields.slice(0, 4), ["x", "1", "sec-websocket-version", "13"]);
  assert.equal(head.fields.length, 6);
});

test("101 becomes 200 without the handshake's fields (RFC 8441 §5.1)", () => {
  const { call, reply } = open();
  const fields = ["Keep-Alive", "timeout=5", "Proxy-Connection", "keep-alive", ...SWITCHED];
  call!.reply.head({ status: 101, version: "1.1", reason: "Switching Protocols", fields }, false);
  assert.deepEqual(reply.events, ["head 200"]);
  assert.deepEqual(reply.fields, ["Sec-WebSocket-Protocol", "chat"]);
});

test("what the client sends before the answer waits for it, and is dropped where the server refuses", () => {
  for (const status of [101, 403]) {
    const { call, reply, sink } = open();
    sink.data(bytes("GET /smuggled HTTP/1.1\r\n\r\n"), 0, 26);
    assert.equal(call!.body, "");
    call!.reply.head(
      { status, version: "1.1", reason: null, fields: status === 101 ? SWITCHED : [] },
      status !== 101,
    );
    assert.equal(call!.body.length, status === 101 ? 26 : 0);
    assert.equal(reply.status, status === 101 ? 200 : 403);
    if (status === 403) assert.equal(reply.fault?.http2Code, 0, "asks the client to stop, without error");
  }
});

test("both directions flow, and end", () => {
  const { call, reply, sink } = open();
  call!.reply.head({ status: 101, version: "1.1", reason: null, fields: SWITCHED }, false);
  sink.data(bytes("ping"), 0, 4);
  call!.reply.body(bytes("pong"), 0, 4);
  sink.end(null);
  call!.reply.finish(null);
  assert.equal(call!.body, "ping");
  assert.equal(call!.ended, true);
  assert.equal(reply.body_, "pong");
  assert.deepEqual(reply.events, ["head 200", "finish"]);
});

test("a 2xx without a switch is an error, for to the client it would mean open (RFC 8441 §4)", () => {
  const { call, reply } = open();
  call!.reply.head({ status: 200, version: "1.1", reason: "OK", fields: [] }, false);
  assert.deepEqual(reply.events, ["fail PROTOCOL"]);
  assert.notEqual(call!.aborted, null);
});

test("a protocol other than websocket has no twin in HTTP/1", () => {
  const { call, reply } = open({ ...OPENING, upgrade: "connect-udp" });
  assert.equal(call, undefined);
  assert.equal(reply.fault?.status, 501);
});

test("the client's cancel reaches the server", () => {
  const { call, sink } = open();
  sink.abort({ ...open({ ...OPENING, upgrade: "x" }).reply.fault! });
  assert.notEqual(call!.aborted, null);
});

for (const server of ["HTTP/2 with extended CONNECT", "HTTP/2 without, and HTTP/1", "HTTP/1 only"]) {
  test(`an endpoint that speaks ${server} gets its WebSocket (RFC 8441 §3)`, () => {
    const clock = new ManualClock();
    const service = new ScriptedService((call) => {
      const isConnect = call.head.method === "CONNECT";
      call.reply.head(
        { status: isConnect ? 200 : 101, version: "1.1", reason: null, fields: isConnect ? [] : SWITCHED },
        false,
      );
    });
    const dialled: DialProtocol[] = [];
    const dial: Dial = (_endpoint, protocol, done) => {
      const [near, far] = memoryPair(clock);
      dialled.push(protocol);
      if (protocol === "http1" || server === "HTTP/1 only") new Http1Server(far, service, clock, () => {});
      else {
        const machine = { connectProtocol: server === "HTTP/2 with extended CONNECT" };
        new Http2Server(far, service, clock, () => {}, { meshed: false, clientId: null, machine });
      }
      clock.soon(() => done(null, near, null));
      return { cancel: () => {} };
    };
    const endpoint: Endpoint = {
      address: { ip: "10.0.0.1" as Endpoint["address"]["ip"], port: 80 },
      weight: 10_000,
      identity: null,
      protocolHint: "unknown",
      tunnelPort: null,
      authorityOverride: null,
      labels: {},
    };
    const client = new EndpointClient(endpoint, dial, clock, new SeededRandom(1));
    const reply = new RecordingReply();
    const sink = client.call(OPENING, false, reply);
    sink.data(bytes("frame"), 0, 5);
    clock.settle();
    assert.deepEqual(reply.events, ["head 200"]);
    assert.equal(service.calls.length, 1);
    assert.equal(service.calls[0]!.body, "frame");
    assert.deepEqual(dialled, server === "HTTP/2 with extended CONNECT" ? ["http2"] : ["http2", "http1"]);
  });
}
