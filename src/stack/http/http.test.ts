import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import type { ConnHandler } from "#/base/conn.ts";
import { SeededRandom } from "#/base/random.ts";
import type { Endpoint } from "#/model/endpoint.ts";
import { parseSocketAddress } from "#/base/address.ts";
import { ConnError } from "#/base/errors.ts";
import { HpackEncoder } from "#/wire/hpack/encoder.ts";
import { FrameWriter } from "#/wire/http2/frame-writer.ts";
import { Setting } from "#/wire/http2/frame.ts";
import type { Dial, EndpointSource } from "../discovery.ts";
import { Dispatch, DISPATCH_DEFAULTS } from "./dispatch.ts";
import { EndpointClient } from "./endpoint-client.ts";
import type { RequestHead } from "./exchange.ts";
import { fault, Http2Code } from "./fault.ts";
import { Http1Client } from "./http1-client.ts";
import { Http1Server } from "./http1-server.ts";
import { Http2Client } from "./http2-client.ts";
import { Http2Server } from "./http2-server.ts";
import { linger } from "./linger.ts";
import type { MemoryConn, ScriptedCall } from "./testing.ts";
import { ManualClock, RecordingReply, ScriptedService, memoryPair } from "./testing.ts";
import { http1Target, Request, requestFromHttp2, requestToHttp1 } from "./translate.ts";

const NOBODY: ConnHandler = { onData() {}, onEnd() {}, onDrain() {}, onClose() {} };

function request(over: Partial<RequestHead> = {}): Request {
  return new Request({
    method: "GET",
    scheme: "http",
    authority: "web",
    path: "/",
    version: "1.1",
    absoluteForm: false,
    upgrade: null,
    fields: over.version === "2" ? [] : ["Host", "web"],
    ...over,
  });
}

/** A client's bytes against an Http1Server; what came back as text. */
function talkHttp1(
  service: ScriptedService,
  text: string,
  pieceBytes: number = 65_536,
): {
  clock: ManualClock;
  client: MemoryConn;
  server: MemoryConn;
  serving: Http1Server;
  answer: () => string;
  closed: () => boolean;
} {
  const clock = new ManualClock();
  const [client, server] = memoryPair(clock, pieceBytes);
  let got = "";
  client.setHandler({ ...NOBODY, onData: (bytes) => (got += Buffer.from(bytes).toString("latin1")) });
  let closed = false;
  const serving = new Http1Server(server, service, clock, () => (closed = true));
  client.write(Buffer.from(text, "latin1"));
  clock.settle();
  return { clock, client, server, serving, answer: () => got, closed: () => closed };
}

test("answers pipelined HTTP/1 requests in order, one at a time (RFC 9112 §9.3.2)", () => {
  const service = new ScriptedService();
  const talk = talkHttp1(service, "GET /a HTTP/1.1\r\nHost: x\r\n\r\nGET /b HTTP/1.1\r\nHost: x\r\n\r\n");
  assert.equal(service.calls.length, 1);
  service.calls[0]?.answer(200, ["Content-Length", "1"], "a");
  talk.clock.settle();
  assert.equal(service.calls.length, 2);
  service.calls[1]?.answer(404, [], "");
  talk.clock.settle();
  assert.equal(
    talk.answer(),
    "HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\naHTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n",
  );
});

test("any split of a request gives the same call", () => {
  const text =
    "POST /p HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\nX-T: 1\r\n\r\n";
  fc.assert(
    fc.property(fc.integer({ min: 1, max: 80 }), (pieceBytes) => {
      const service = new ScriptedService();
      talkHttp1(service, text, pieceBytes);
      const call = service.calls[0];
      assert.equal(call?.body, "hello");
      assert.deepEqual(call?.trailers, ["X-T", "1"]);
      assert.deepEqual(call?.head.fields, ["Host", "x", "Transfer-Encoding", "chunked"]);
    }),
  );
});

test("chunks an answer of unknown length for HTTP/1.1 and closes after it for HTTP/1.0 (RFC 9112 §6.1, §6.3)", () => {
  for (const [version, expected] of [
    ["1.1", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\n\r\n"],
    ["1.0", "HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nhi"],
  ] as const) {
    const service = new ScriptedService((call) => call.answer(200, [], "hi"));
    assert.equal(talkHttp1(service, `GET / HTTP/${version}\r\nHost: x\r\n\r\n`).answer(), expected);
  }
});

test("keeps HTTP/1.0 alive when asked and the length is known", () => {
  const service = new ScriptedService((call) => call.answer(200, ["Content-Length", "2"], "hi"));
  const answer = talkHttp1(service, "GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n").answer();
  assert.equal(answer, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: keep-alive\r\n\r\nhi");
});

test("answers in the application's version, not in the client's (RFC 9110 §6.2)", () => {
  for (const version of ["1.0", "1.1"] as const)
    for (const asked of ["1.0", "1.1"]) {
      const service = new ScriptedService((call) => {
        call.reply.head({ status: 204, version, reason: "Gone Well", fields: [] }, true);
      });
      const answer = talkHttp1(service, `GET / HTTP/${asked}\r\nHost: x\r\n\r\n`).answer();
      assert.ok(answer.startsWith(`HTTP/${version} 204 Gone Well\r\n`), `${asked}: ${answer}`);
    }
});

test("drops hop-by-hop fields and those that Connection names, but never Host (RFC 9110 §7.6.1)", () => {
  const service = new ScriptedService();
  talkHttp1(
    service,
    "GET / HTTP/1.1\r\nHost: x\r\nConnection: X-A, host\r\nX-A: 1\r\nX-B: 2\r\nKeep-Alive: 5\r\nl5d-client-id: forged\r\n\r\n",
  );
  assert.deepEqual(service.calls[0]?.head.fields, ["Host", "x", "X-B", "2"]);
});

test("a fault before the head is answered with its status and reason, and the connection closes", () => {
  const service = new ScriptedService((call) =>
    call.reply.fail(fault("CONNECT_FAILED", "no route to 10.0.0.9", { safe: true })),
  );
  const talk = talkHttp1(service, "GET / HTTP/1.1\r\nHost: x\r\n\r\n");
  assert.match(
    talk.answer(),
    /^HTTP\/1.1 502 Bad Gateway\r\n[^]*Connection: close\r\n\r\n.*no route to 10\.0\.0\.9.*\n$/,
  );
  assert.match(talk.answer(), /\r\nl5d-proxy-error: .*no route to 10\.0\.0\.9/);
});

test("a fault inside the answer cuts the connection, so that it cannot pass for complete", () => {
  const service = new ScriptedService();
  const talk = talkHttp1(service, "GET / HTTP/1.1\r\nHost: x\r\n\r\n");
  const reply = service.calls[0]!.reply;
  reply.head({ status: 200, version: "1.1", reason: null, fields: ["Content-Length", "10"] }, false);
  reply.body(Buffer.from("half"), 0, 4);
  talk.clock.settle();
  reply.fail(fault("RESET", "gone"));
  talk.clock.settle();
  assert.ok(talk.client.isClosed);
});

test("a malformed request is refused with 400 and its reason, and the service is not called", () => {
  const service = new ScriptedService();
  const talk = talkHttp1(
    service,
    "GET / HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nxx",
  );
  assert.match(talk.answer(), /^HTTP\/1.1 400 /);
  assert.equal(service.calls.length, 0);
});

test("stops reading a client whose body nobody takes, and goes on when it is taken", () => {
  const service = new ScriptedService((call) => (call.holdCredit = true));
  const talk = talkHttp1(service, `POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000\r\n\r\n`);
  for (let i = 0; i < 10; i++) talk.client.write(new Uint8Array(100_000).fill(120));
  talk.clock.settle();
  const call = service.calls[0]!;
  assert.ok(talk.server.paused);
  assert.ok(call.bytes < 300_000, `took ${call.bytes} bytes`);
  call.holdCredit = false;
  call.reply.requestConsumed(call.bytes);
  talk.clock.settle();
  assert.equal(call.bytes, 1_000_000);
  assert.ok(call.ended);
});

test("a client that is gone after an early answer takes the rest of its request with it", () => {
  const service = new ScriptedService();
  const talk = talkHttp1(service, "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\nabc");
  service.calls[0]?.answer(200, ["Content-Length", "2"], "ok");
  talk.clock.settle();
  talk.client.reset();
  talk.clock.settle();
  assert.equal(service.calls[0]?.aborted?.code, "CANCELLED");
});

test("an upgrade turns the connection over after 101 and both ends keep their half-close", () => {
  const service = new ScriptedService();
  const talk = talkHttp1(
    service,
    "GET /ws HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n",
  );
  const call = service.calls[0]!;
  assert.equal(call.head.upgrade, "websocket");
  call.reply.head(
    { status: 101, version: "1.1", reason: null, fields: ["Connection", "Upgrade", "Upgrade", "websocket"] },
    false,
  );
  talk.client.write(Buffer.from("ping"));
  call.reply.body(Buffer.from("pong"), 0, 4);
  talk.clock.settle();
  assert.equal(call.body, "ping");
  assert.match(talk.answer(), /^HTTP\/1.1 101 Switching Protocols\r\n[^]*\r\n\r\npong$/);
  talk.client.end();
  talk.clock.settle();
  assert.ok(call.ended);
  call.reply.finish(null);
  talk.clock.settle();
  assert.ok(talk.client.isClosed);
});

test("a declined upgrade is an ordinary answer on a connection that goes on", () => {
  const service = new ScriptedService((call) => call.answer(200, ["Content-Length", "2"], "no"));
  const talk = talkHttp1(
    service,
    "GET /ws HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: foo\r\n\r\nGET /2 HTTP/1.1\r\nHost: x\r\n\r\n",
  );
  assert.deepEqual(
    service.calls.map((call) => call.head.path),
    ["/ws", "/2"],
  );
  assert.ok(service.calls[0]?.ended);
  assert.equal(talk.client.isClosed, false);
});

test("nothing of what follows a wish for a tunnel is passed on before the answer (RFC 9110 §7.8, §9.3.6)", () => {
  const wishes = [
    "CONNECT db:80 HTTP/1.1\r\nHost: db:80\r\n\r\n",
    "GET /ws HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: foo\r\n\r\n",
  ];
  for (const wish of wishes) {
    const service = new ScriptedService();
    const talk = talkHttp1(service, `${wish}GET /2 HTTP/1.1\r\nHost: x\r\n\r\n`);
    talk.client.end();
    talk.clock.settle();
    assert.equal(service.calls.length, 1, "no second request beside the first");
    const call = service.calls[0]!;
    assert.equal(call.body, "");
    call.reply.head(
      { status: wish.startsWith("CONNECT") ? 200 : 101, version: "1.1", reason: null, fields: [] },
      false,
    );
    talk.clock.settle();
    assert.equal(call.body, "GET /2 HTTP/1.1\r\nHost: x\r\n\r\n", "granted: they are the tunnel's");
    assert.ok(call.ended, "and so is the end that came early");
  }
});

test("a connection on which a tunnel was refused is not used again (RFC 9110 §9.3.6)", () => {
  for (const upgrade of ["", "websocket"]) {
    const clock = new ManualClock();
    const [ours, theirs] = memoryPair(clock);
    theirs.setHandler(NOBODY);
    const owner: string[] = [];
    const client = new Http1Client(ours, clock, {
      idle: () => owner.push("idle"),
      gone: () => owner.push("gone"),
    });
    const reply = new RecordingReply();
    const method = upgrade === "" ? "CONNECT" : "GET";
    client.call(request({ method, authority: "db:80", upgrade }), false, reply).end(null);
    clock.settle();
    theirs.write(Buffer.from("HTTP/1.1 405 No\r\nContent-Length: 0\r\n\r\n"));
    clock.settle();
    assert.deepEqual(owner, ["gone"]);
    assert.equal(reply.status, 405);
  }
});

test("Host follows the target of an absolute-form request (RFC 9112 §3.2.2)", () => {
  const service = new ScriptedService();
  talkHttp1(service, "GET http://a.example/x HTTP/1.1\r\nhost: b.example\r\n\r\n");
  const { head } = service.calls[0]!;
  assert.equal(head.authority, "a.example");
  assert.deepEqual(requestToHttp1(head, true).fields, ["host", "a.example"]);
});

test("an answer to HEAD has no body, whatever the service gives (RFC 9110 §9.3.2)", () => {
  const service = new ScriptedService((call) => call.answer(200, ["Content-Length", "2"], "no"));
  const twice = "HEAD / HTTP/1.1\r\nHost: x\r\n\r\n".repeat(2);
  const answer = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n";
  assert.equal(talkHttp1(service, twice).answer(), answer + answer);
});

test("extended CONNECT is sent only where the server takes it (RFC 8441 §3)", () => {
  for (const connectProtocol of [true, false]) {
    const clock = new ManualClock();
    const [ours, theirs] = memoryPair(clock);
    const service = new ScriptedService();
    const machine = { connectProtocol };
    new Http2Server(theirs, service, clock, () => {}, { meshed: false, clientId: null, machine });
    const client = new Http2Client(ours, clock, () => {}, { meshed: false });
    const reply = new RecordingReply();
    const head = request({ version: "2", method: "CONNECT", upgrade: "websocket" });
    client.call(head, false, reply).data(Buffer.from("frame"), 0, 5);
    clock.settle();
    assert.deepEqual(
      service.calls.map((call) => call.body),
      connectProtocol ? ["frame"] : [],
    );
    assert.deepEqual(reply.events, connectProtocol ? [] : ["fail BAD_REQUEST"]);
    assert.ok(client.usable);
  }
});

test("what HTTP/1 cannot frame or say is not written (RFC 9112 §3.2, §6.1)", () => {
  const from = (method: string, path: string, version: string): Request =>
    requestFromHttp2(
      [":method", method, ":scheme", "x", ":path", path, ":authority", "a", "l5d-orig-proto", version],
      "sidecar",
      null,
    );
  assert.equal(from("CONNECT", "/", "HTTP/1.1").version, "2", "stays a stream of HTTP/2");
  assert.equal(http1Target(from("GET", "http://b/", "HTTP/1.1")), "");
  assert.equal(http1Target(from("GET", "*", "HTTP/1.1")), "");
  assert.equal(http1Target(from("OPTIONS", "*", "HTTP/1.1")), "*");

  const clock = new ManualClock();
  const [ours, theirs] = memoryPair(clock);
  theirs.setHandler(NOBODY);
  const client = new Http1Client(ours, clock, { idle: () => {}, gone: () => {} });
  client.call(from("POST", "/", "HTTP/1.0"), false, new RecordingReply());
  clock.settle();
  assert.match(ours.written, /^POST \/ HTTP\/1\.1\r\n[^]*Transfer-Encoding: chunked/);
});

test("trailers carry no field that frames, routes or speaks for the mesh (RFC 9110 §6.5.1)", () => {
  const clock = new ManualClock();
  const [ours, theirs] = memoryPair(clock);
  theirs.setHandler(NOBODY);
  const client = new Http1Client(ours, clock, { idle: () => {}, gone: () => {} });
  // As HTTP/2 may bring them; our reader of HTTP/1 refuses the framing ones, but not those of the mesh.
  client
    .call(request({ method: "POST" }), false, new RecordingReply())
    .end(["x-sum", "1", "l5d-client-id", "admin", "content-length", "9", "host", "y"]);
  clock.settle();
  assert.ok(ours.written.endsWith("\r\n\r\n0\r\nx-sum: 1\r\n\r\n"), ours.written);
});

test("an idle connection that is closed begins no request that crosses its end", () => {
  const service = new ScriptedService((call) => call.answer(200, [], ""));
  const clock = new ManualClock();
  const [client, near] = memoryPair(clock);
  client.setHandler(NOBODY);
  const server = new Http1Server(near, service, clock, () => {});
  client.write(Buffer.from("GET / HTTP/1.1\r\nHost: x\r\n\r\n"));
  server.close();
  clock.settle();
  assert.equal(service.calls.length, 0);
  assert.equal(near.written, "");
});

test("a client of HTTP/1 is told that its server drains by the next answer, and not by an end that its request could cross", () => {
  const service = new ScriptedService((call) => call.answer(200, [], ""));
  const talk = talkHttp1(service, "");
  talk.serving.drain();
  talk.clock.settle();
  const request = Buffer.from("GET / HTTP/1.1\r\nHost: x\r\n\r\n");
  talk.client.write(request);
  talk.clock.settle();
  assert.match(talk.answer(), /^HTTP\/1.1 200 OK\r\n[^]*Connection: close\r\n/);
  talk.client.write(request);
  talk.clock.settle();
  assert.equal(service.calls.length, 1);
});

test("a head that has begun to arrive when its server closes is answered", () => {
  const service = new ScriptedService((call) => call.answer(200, [], ""));
  const talk = talkHttp1(service, "GET / HT");
  talk.serving.close();
  talk.clock.settle();
  talk.client.write(Buffer.from("TP/1.1\r\nHost: x\r\n\r\n"));
  talk.clock.settle();
  assert.match(talk.answer(), /^HTTP\/1.1 200 OK\r\n[^]*Connection: close\r\n/);
});

/** Http1Client or Http2Client against the server of the same version, in memory. */
function connect(
  version: "1.1" | "2",
  service: ScriptedService,
  options: { meshed?: boolean; pieceBytes?: number; window?: number } = {},
): {
  clock: ManualClock;
  client: Http1Client | Http2Client;
  gone: string[];
  server: Http1Server | Http2Server;
  ends: [MemoryConn, MemoryConn];
} {
  const clock = new ManualClock();
  const ends = memoryPair(clock, options.pieceBytes ?? 65_536);
  const gone: string[] = [];
  const meshed = options.meshed ?? false;
  const machine =
    options.window === undefined
      ? {}
      : { streamWindowBytes: options.window, connectionWindowBytes: Math.max(65_535, options.window) };
  if (version === "2") {
    const server = new Http2Server(ends[1], service, clock, () => {}, { meshed, clientId: null, machine });
    const client = new Http2Client(ends[0], clock, () => gone.push("gone"), { meshed, machine });
    clock.settle();
    return { clock, client, gone, server, ends };
  }
  const server = new Http1Server(ends[1], service, clock, () => {});
  const client = new Http1Client(ends[0], clock, {
    idle: () => gone.push("idle"),
    gone: () => gone.push("gone"),
  });
  return { clock, client, gone, server, ends };
}

for (const version of ["1.1", "2"] as const) {
  test(`carries a request and its answer over HTTP/${version}, bodies and trailers whole, under any split`, () => {
    fc.assert(
      fc.property(
        fc.integer({ min: 1, max: 50_000 }),
        fc.integer({ min: 0, max: 300_000 }),
        fc.integer({ min: 0, max: 300_000 }),
        (pieceBytes, upBytes, downBytes) => {
          const service = new ScriptedService();
          const { clock, client } = connect(version, service, {
            pieceBytes: Math.max(pieceBytes, (upBytes + downBytes) / 100) | 0,
            window: 65_535,
          });
          const reply = new RecordingReply();
          const sink = client.call(request({ method: "POST", version }), false, reply);
          sink.data(Buffer.alloc(upBytes, "u"), 0, upBytes);
          sink.end(["x-up", "1"]);
          clock.settle();
          const call = service.calls[0]!;
          assert.equal(call.bytes, upBytes);
          assert.deepEqual(
            call.trailers?.map((text) => text.toLowerCase()),
            ["x-up", "1"],
          );
          call.reply.head({ status: 200, version: "1.1", reason: null, fields: [] }, false);
          call.reply.body(Buffer.alloc(downBytes, "d"), 0, downBytes);
          call.reply.finish(["x-down", "2"]);
          for (let seen = -1; seen !== reply.body_.length;) {
            seen = reply.body_.length;
            clock.settle();
            sink.responseConsumed(reply.body_.length - Math.max(seen, 0));
            sink.responseConsumed(downBytes);
          }
          clock.settle();
          assert.equal(reply.body_.length, downBytes);
          assert.deepEqual(reply.events, ["head 200", "finish x-down 2"]);
          assert.equal(reply.requestConsumedBytes, upBytes);
        },
      ),
      { numRuns: 40 },
    );
  });

  test(`an answer that comes before the request's end leaves the rest of the request going (HTTP/${version})`, () => {
    const service = new ScriptedService();
    const { clock, client } = connect(version, service);
    const reply = new RecordingReply();
    const sink = client.call(request({ method: "POST", version }), false, reply);
    sink.data(Buffer.from("first"), 0, 5);
    clock.settle();
    service.calls[0]!.answer(200, ["content-length", "2"], "ok");
    clock.settle();
    assert.deepEqual(reply.events, ["head 200", "finish"]);
    sink.data(Buffer.from("second"), 0, 6);
    sink.end(null);
    clock.settle();
    assert.equal(service.calls[0]!.body, "firstsecond");
    assert.ok(service.calls[0]!.ended);
  });

  test(`a client that gives up reaches the far service (HTTP/${version})`, () => {
    const service = new ScriptedService();
    const { clock, client } = connect(version, service);
    const sink = client.call(request({ version }), true, new RecordingReply());
    clock.settle();
    sink.abort(fault("CANCELLED", "enough"));
    clock.settle();
    assert.equal(service.calls[0]!.aborted?.code, "CANCELLED");
  });
}

test("a client's reset reaches the far service with the client's own code (RFC 9113 §7)", () => {
  for (const [cause, code] of [
    [fault("CANCELLED", "reset", { http2Code: Http2Code.ENHANCE_YOUR_CALM }), Http2Code.ENHANCE_YOUR_CALM],
    [fault("CANCELLED", "reset", { http2Code: Http2Code.NO_ERROR }), Http2Code.NO_ERROR],
    [fault("CANCELLED", "gone"), Http2Code.CANCEL],
    [fault("TIMEOUT", "too slow"), Http2Code.CANCEL],
  ] as const) {
    const service = new ScriptedService();
    const { clock, client } = connect("2", service);
    const sink = client.call(request({ method: "POST", version: "2" }), false, new RecordingReply());
    clock.settle();
    sink.abort(cause);
    clock.settle();
    assert.equal(service.calls[0]!.aborted?.http2Code, code);
  }
});

test("an answer that was cut short never looks like one that was cancelled (RFC 9113 §7)", () => {
  const service = new ScriptedService();
  const { clock, client } = connect("2", service);
  const reply = new RecordingReply();
  client.call(request({ version: "2" }), true, reply);
  clock.settle();
  const { reply: answer } = service.calls[0]!;
  answer.head({ status: 200, version: "2", reason: null, fields: [] }, false);
  answer.fail(fault("RESET", "the connection to the application was lost"));
  clock.settle();
  assert.equal(reply.fault?.http2Code, Http2Code.INTERNAL_ERROR);
});

test("HTTP/1 between sidecars travels over HTTP/2 and comes out as it was (facts §8.1)", () => {
  const service = new ScriptedService((call) => call.answer(200, ["Content-Length", "0"], ""));
  const { clock, client } = connect("2", service, { meshed: true });
  client.call(
    request({ version: "1.0", absoluteForm: true, path: "/x?y", fields: ["Host", "web", "X-Case", "V"] }),
    true,
    new RecordingReply(),
  );
  clock.settle();
  const head = service.calls[0]!.head;
  assert.deepEqual(
    [head.version, head.absoluteForm, head.authority, head.path, head.fields],
    ["1.0", true, "web", "/x?y", ["x-case", "V"]],
  );
});

test("a stream refused by a meshed server is safe to send elsewhere (RFC 9113 §8.7)", () => {
  const service = new ScriptedService((call) =>
    call.reply.fail(fault("CONNECT_FAILED", "app down", { safe: true })),
  );
  const { clock, client } = connect("2", service, { meshed: true });
  const reply = new RecordingReply();
  client.call(request(), true, reply);
  clock.settle();
  assert.deepEqual(reply.events, ["fail REFUSED safe"]);
});

test("a draining server finishes what it has, and its client asks it nothing more", () => {
  const service = new ScriptedService();
  const { clock, client, server, gone } = connect("2", service, { meshed: true });
  const first = new RecordingReply();
  client.call(request(), true, first);
  clock.settle();
  server.drain();
  clock.settle();
  assert.deepEqual(gone, ["gone"]);
  const second = new RecordingReply();
  client.call(request(), true, second);
  assert.deepEqual(second.events, ["fail REFUSED safe"]);
  service.calls[0]!.answer(200, ["content-length", "2"], "ok");
  clock.settle();
  assert.deepEqual(first.events, ["head 200", "finish"]);
});

test("requests that cross the word that a server drains are served, also on a new connection (RFC 9113 §6.8)", () => {
  const service = new ScriptedService();
  const { clock, client, server, gone } = connect("2", service, { meshed: true });
  server.drain();
  const replies = [new RecordingReply(), new RecordingReply()];
  for (const reply of replies) client.call(request(), true, reply);
  clock.settle();
  assert.deepEqual(gone, ["gone"], "the client has heard it");
  for (const call of service.calls) call.answer(200, ["content-length", "2"], "ok");
  clock.settle();
  for (const { events } of replies) assert.deepEqual(events, ["head 200", "finish"]);
});

test("a client that does not say that it heard of the drain is waited for a second", () => {
  const clock = new ManualClock();
  const [client, near] = memoryPair(clock);
  const server = new Http2Server(near, new ScriptedService(), clock, () => {}, {
    meshed: false,
    clientId: null,
  });
  let isEnded = false;
  client.setHandler({ ...NOBODY, onEnd: () => (isEnded = true) });
  client.write(Buffer.from("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0", "latin1"));
  clock.settle();
  server.drain();
  clock.advance(999);
  assert.ok(!isEnded);
  clock.advance(1);
  assert.ok(isEnded);
});

test("a connection that breaks before a request has left gives it back; one that may have left stays lost", () => {
  const { clock, client, ends } = connect("2", new ScriptedService());
  const sent = new RecordingReply();
  client.call(request(), true, sent);
  clock.settle();
  const unsent = new RecordingReply();
  client.call(request(), true, unsent);
  ends[0].close(new ConnError("RESET", "gone"));
  clock.settle();
  assert.deepEqual(unsent.events, ["fail RESET safe"]);
  assert.deepEqual(sent.events, ["fail RESET"]);
});

test("a gRPC answer that breaks off ends with a status (facts §8.4)", () => {
  const service = new ScriptedService();
  const { clock, client } = connect("2", service);
  const reply = new RecordingReply();
  client.call(
    request({ version: "2", method: "POST", fields: ["content-type", "application/grpc"] }),
    false,
    reply,
  );
  clock.settle();
  const call = service.calls[0]!;
  call.reply.head(
    { status: 200, version: "2", reason: null, fields: ["content-type", "application/grpc"] },
    false,
  );
  call.reply.fail(fault("RESET", "the application's connection ended"));
  clock.settle();
  assert.match(reply.events.join("; "), /^head 200; finish grpc-status 14 grpc-message /);
});

// --- dispatch ---

class Endpoints implements EndpointSource {
  readonly key = "test";
  readonly state = "known";
  endpoints: Endpoint[];
  #changed: (() => void)[] = [];
  constructor(...addresses: string[]) {
    this.endpoints = addresses.map(endpoint);
  }
  set(...addresses: string[]): void {
    this.endpoints = addresses.map(endpoint);
    for (const changed of this.#changed) changed();
  }
  subscribe(changed: () => void): { cancel(): void } {
    this.#changed.push(changed);
    return { cancel: () => {} };
  }
}

function endpoint(address: string): Endpoint {
  return {
    address: parseSocketAddress(address)!,
    weight: 10_000,
    identity: null,
    protocolHint: "unknown",
    tunnelPort: null,
    authorityOverride: null,
    labels: {},
  };
}

function dispatchTo(
  source: Endpoints,
  services: Record<string, ScriptedService>,
): { clock: ManualClock; dispatch: Dispatch } {
  const clock = new ManualClock();
  const make = (at: Endpoint): ScriptedService => services[at.address.ip]!;
  return {
    clock,
    dispatch: new Dispatch({
      name: "web.shop:80",
      source,
      make,
      clock,
      random: new SeededRandom(7),
      settings: DISPATCH_DEFAULTS,
    }),
  };
}

test("a request that reached nobody goes to another endpoint, body and all", () => {
  const down = new ScriptedService((call) =>
    call.reply.fail(fault("CONNECT_FAILED", "refused", { safe: true })),
  );
  const up = new ScriptedService();
  const { dispatch } = dispatchTo(new Endpoints("10.0.0.1:80", "10.0.0.2:80"), {
    "10.0.0.1": down,
    "10.0.0.2": up,
  });
  for (let i = 0; i < 20; i++) {
    const reply = new RecordingReply();
    const sink = dispatch.call(request({ method: "POST" }), false, reply);
    sink.data(Buffer.from("body"), 0, 4);
    sink.end(null);
    const call = up.calls[i]!;
    assert.equal(call.body, "body");
    assert.ok(call.ended);
    assert.equal(reply.requestConsumedBytes, 4);
    call.answer(200, [], "");
    assert.deepEqual(reply.events, ["head 200 last"]);
  }
  // Set aside after its first failure, so not asked twenty times.
  assert.ok(down.calls.length <= 2, `${down.calls.length} requests tried the dead endpoint`);
});

test("a body that fails while it is sent again goes to the next endpoint once, from its first byte", () => {
  const services: Record<string, ScriptedService> = {};
  let number = 0;
  let first: ScriptedCall | null = null;
  for (const ip of ["10.0.0.1", "10.0.0.2", "10.0.0.3"]) {
    services[ip] = new ScriptedService((call) => {
      if (++number > 2) return;
      call.holdCredit = true;
      first ??= call;
      if (number === 1) return;
      const take = call.data.bind(call);
      call.data = (bytes, start, stop) => {
        take(bytes, start, stop);
        if (call.body.length === 2_000) call.reply.fail(fault("REFUSED", "not here", { safe: true }));
      };
    });
  }
  const { dispatch } = dispatchTo(new Endpoints("10.0.0.1:80", "10.0.0.2:80", "10.0.0.3:80"), services);
  const sink = dispatch.call(request({ method: "POST" }), false, new RecordingReply());
  for (const text of ["a", "b", "c"]) sink.data(Buffer.from(text.repeat(2_000)), 0, 2_000);
  sink.end(null);
  (first as ScriptedCall | null)?.reply.fail(fault("REFUSED", "not here", { safe: true }));
  const taken = Object.values(services).flatMap((service) =>
    service.calls.filter((call) => !call.holdCredit).map((call) => call.body),
  );
  assert.deepEqual(taken, ["a".repeat(2_000) + "b".repeat(2_000) + "c".repeat(2_000)]);
});

test("a request that may have been seen is not sent again", () => {
  const broken = new ScriptedService((call) => call.reply.fail(fault("RESET", "gone")));
  const { dispatch } = dispatchTo(new Endpoints("10.0.0.1:80", "10.0.0.2:80"), {
    "10.0.0.1": broken,
    "10.0.0.2": broken,
  });
  const reply = new RecordingReply();
  dispatch.call(request(), true, reply);
  assert.deepEqual(reply.events, ["fail RESET"]);
  assert.equal(broken.calls.length, 1);
});

test("without endpoints a request waits for one, and not for ever", () => {
  const up = new ScriptedService();
  const source = new Endpoints();
  const { clock, dispatch } = dispatchTo(source, { "10.0.0.1": up });
  const lucky = new RecordingReply();
  dispatch.call(request(), true, lucky);
  source.set("10.0.0.1:80");
  assert.equal(up.calls.length, 1);
  source.set();
  const late = new RecordingReply();
  dispatch.call(request(), true, late);
  clock.advance(3_001);
  assert.deepEqual(late.events, ["fail NO_ENDPOINTS safe"]);
});

test("every endpoint refusing ends the request with the last reason, not with a wait", () => {
  const down = new ScriptedService((call) =>
    call.reply.fail(fault("CONNECT_FAILED", "refused", { safe: true })),
  );
  const { dispatch } = dispatchTo(new Endpoints("10.0.0.1:80", "10.0.0.2:80"), {
    "10.0.0.1": down,
    "10.0.0.2": down,
  });
  const reply = new RecordingReply();
  dispatch.call(request(), true, reply);
  assert.deepEqual(reply.events, ["fail CONNECT_FAILED safe"]);
  assert.equal(down.calls.length, 2);
});

test("an idle HTTP/1 connection that the server closed is replaced without anybody noticing", () => {
  const clock = new ManualClock();
  const service = new ScriptedService((call) => call.answer(200, ["Content-Length", "2"], "ok"));
  const far: MemoryConn[] = [];
  const dial: Dial = (_endpoint, _protocol, done) => {
    const [near, server] = memoryPair(clock);
    far.push(server);
    new Http1Server(server, service, clock, () => {});
    clock.soon(() => done(null, near, null));
    return { cancel: () => {} };
  };
  const dispatch = new Dispatch({
    name: "app",
    source: new Endpoints("10.0.0.1:80"),
    make: (at) => new EndpointClient(at, dial, clock, new SeededRandom(1)),
    clock,
    random: new SeededRandom(1),
  });
  const first = new RecordingReply();
  dispatch.call(request(), true, first);
  clock.settle();
  assert.equal(first.body_, "ok");
  // The server resets the idle connection at the moment of the next request.
  const second = new RecordingReply();
  dispatch.call(request(), true, second);
  far[0]!.peer!.close(new ConnError("RESET", "reset while idle"));
  clock.settle();
  assert.deepEqual(second.events, ["head 200", "finish"]);
  assert.equal(far.length, 2);
});

test("a request that is given back from inside its call, and taken again by the same endpoint, stays with the second", () => {
  const clock = new ManualClock();
  const service = new ScriptedService((call) => {
    if (service.calls.length === 1) call.reply.fail(fault("RESET", "gone", { safe: true }));
  });
  const dispatch = new Dispatch({
    name: "app",
    source: new Endpoints("10.0.0.1:80"),
    make: () => service,
    clock,
    random: new SeededRandom(1),
  });
  const sink = dispatch.call(request({ method: "POST" }), false, new RecordingReply());
  sink.data(Buffer.from("body"), 0, 4);
  assert.deepEqual(
    service.calls.map(({ body }) => body),
    ["", "body"],
  );
});

/** An application that answers "/" and does `misbehave` with its connection at any other path. */
function misbehaving(misbehave: (server: MemoryConn) => void): {
  dispatch: Dispatch;
  seen: string[];
  clock: ManualClock;
} {
  const clock = new ManualClock();
  const seen: string[] = [];
  const dial: Dial = (_endpoint, _protocol, done) => {
    const [near, server] = memoryPair(clock);
    server.setHandler({
      ...NOBODY,
      onData: (bytes) => {
        const path = Buffer.from(bytes).toString("latin1").split(" ")[1] ?? "";
        seen.push(path);
        if (path === "/") server.write(Buffer.from("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"));
        else misbehave(server);
      },
    });
    clock.soon(() => done(null, near, null));
    return { cancel: () => {} };
  };
  const dispatch = new Dispatch({
    name: "app",
    source: new Endpoints("10.0.0.1:80"),
    make: (at) => new EndpointClient(at, dial, clock, new SeededRandom(1)),
    clock,
    random: new SeededRandom(1),
  });
  // Three connections that have been used and are idle.
  for (let i = 0; i < 3; i++) dispatch.call(request(), true, new RecordingReply());
  clock.settle();
  assert.deepEqual(seen.splice(0), ["/", "/", "/"]);
  return { dispatch, seen, clock };
}

test("a request whose reused connection ends unanswered is sent once more, on a fresh one, and never a third time", () => {
  const { dispatch, seen, clock } = misbehaving((server) =>
    server.peer?.close(new ConnError("RESET", "crashed")),
  );
  const reply = new RecordingReply();
  dispatch.call(request({ path: "/crash" }), true, reply);
  clock.settle();
  assert.deepEqual(seen, ["/crash", "/crash"]);
  assert.deepEqual(reply.events, ["fail RESET"]);
});

test("a request is not sent again once a single byte of its answer has come", () => {
  let begun!: MemoryConn;
  const { dispatch, seen, clock } = misbehaving((server) => {
    server.write(Buffer.from("H"));
    begun = server;
  });
  const reply = new RecordingReply();
  dispatch.call(request({ path: "/crash" }), true, reply);
  clock.settle();
  begun.peer?.close(new ConnError("RESET", "crashed"));
  clock.settle();
  assert.deepEqual(seen, ["/crash"]);
  assert.deepEqual(reply.events, ["fail RESET"]);
});

test("a client that does not read gets no further requests served, and all of its answers in the end", () => {
  const clock = new ManualClock();
  const [client, theirs] = memoryPair(clock);
  const fields = ["x", "v".repeat(1_000)];
  const service = new ScriptedService((call) => call.answer(204, fields, ""));
  new Http2Server(theirs, service, clock, () => {}, { meshed: true, clientId: null });
  let gotBytes = 0;
  client.setHandler({ ...NOBODY, onData: (bytes) => (gotBytes += bytes.length) });
  client.pause();
  const writer = new FrameWriter(new HpackEncoder({ tableBytesMax: 0, huffman: false }));
  writer.preface();
  writer.settings([[Setting.SETTINGS_HEADER_TABLE_SIZE, 0]]);
  const head = [":method", "GET", ":scheme", "http", ":path", "/", ":authority", "a"];
  for (let i = 0; i < 4_000; i++) {
    writer.section(2 * i + 1, head, true);
    if (i % 20 !== 19) continue;
    client.write(writer.take()!);
    clock.settle();
  }
  const held = theirs.bufferedBytes;
  assert.ok(held < 300_000, `${held} bytes wait in the socket`);
  assert.ok(service.calls.length < 1_500, `${service.calls.length} requests were served`);
  client.resume();
  clock.settle();
  assert.equal(service.calls.length, 4_000);
  assert.ok(gotBytes > 4_000_000);
});

test("answers that their clients do not read hold up no other answer of the connection (RFC 9113 §5.2.2)", () => {
  const clock = new ManualClock();
  const [ours, theirs] = memoryPair(clock);
  const service = new ScriptedService((call) => call.answer(200, [], "x".repeat(1024 * 1024)));
  new Http2Server(theirs, service, clock, () => {}, { meshed: false, clientId: null });
  const client = new Http2Client(ours, clock, () => {}, { meshed: false });
  clock.settle();
  for (let i = 0; i < 50; i++) client.call(request({ version: "2" }), true, new RecordingReply());
  clock.settle();
  const reply = new RecordingReply();
  client.call(request({ version: "2" }), true, reply);
  clock.settle();
  assert.ok(reply.body_.length > 0);
});

test("an HTTP/2 server cannot send interim responses without end", () => {
  const clock = new ManualClock();
  const [ours, theirs] = memoryPair(clock);
  const service = new ScriptedService((call) => {
    for (let i = 0; i < 100; i++)
      call.reply.informational({ status: 103, version: "2", reason: null, fields: ["link", "</a>"] });
  });
  new Http2Server(theirs, service, clock, () => {}, { meshed: false, clientId: null });
  const client = new Http2Client(ours, clock, () => {}, { meshed: false });
  clock.settle();
  const reply = new RecordingReply();
  client.call(request({ version: "2" }), true, reply);
  clock.settle();
  assert.equal(reply.events.filter((event) => event.startsWith("informational")).length, 32);
  assert.equal(reply.events.at(-1), "fail PROTOCOL");
  assert.equal(client.activeRequests, 0);
});

test("a remote side that does not close after our end is cut, but not while our bytes still leave", () => {
  const clock = new ManualClock();
  const [ours, theirs] = memoryPair(clock);
  theirs.pause();
  theirs.setHandler(NOBODY);
  ours.setHandler(NOBODY);
  for (let i = 0; i < 4; i++) ours.write(new Uint8Array(60_000));
  ours.end();
  linger(ours, clock, null);
  clock.advance(59_000);
  theirs.resume();
  clock.settle();
  theirs.pause();
  clock.advance(2_000);
  assert.equal(ours.isClosed, false);
  clock.advance(60_000);
  assert.ok(ours.isClosed);
});

test("a connection that runs out of stream ids gives way, and finishes what it carries (RFC 9113 §5.1.1)", () => {
  const clock = new ManualClock();
  const [ours, theirs] = memoryPair(clock);
  const service = new ScriptedService();
  new Http2Server(theirs, service, clock, () => {}, { meshed: true, clientId: null });
  let gone = 0;
  const client = new Http2Client(ours, clock, () => gone++, { meshed: true, requestsMax: 2 });
  clock.settle();
  const replies = [new RecordingReply(), new RecordingReply(), new RecordingReply()];
  for (const reply of replies) client.call(request({ version: "2" }), true, reply);
  clock.settle();
  assert.equal(gone, 1);
  assert.equal(client.usable, false);
  assert.deepEqual(replies[2]?.events, ["fail REFUSED safe"]);
  for (const call of service.calls) call.answer(200, [], "");
  clock.settle();
  assert.deepEqual(
    replies.map((reply) => reply.status),
    [200, 200, 0],
  );
  assert.ok(ours.isClosed);
});

test("pipelined requests wait unread, not in memory, while one is served (RFC 9112 §9.3.2)", () => {
  const service = new ScriptedService();
  const get = "GET / HTTP/1.1\r\nHost: x\r\n\r\n";
  const talk = talkHttp1(service, get);
  for (let i = 0; i < 100; i++) talk.client.write(Buffer.from(get.repeat(1_000)));
  talk.clock.settle();
  assert.equal(service.calls.length, 1);
  assert.ok(talk.server.paused);
  const leftBytes = talk.client.bufferedBytes;
  assert.ok(leftBytes > 90_000 * get.length, `${leftBytes} bytes are still the client's`);
  for (let i = 0; i < 5; i++) {
    service.calls[i]!.answer(200, [], "");
    talk.clock.settle();
    assert.equal(service.calls.length, i + 2);
  }
});
