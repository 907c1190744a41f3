import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import type { Fields } from "#/base/fields.ts";
import { fieldValue } from "#/base/fields.ts";
import { decodeGrpcText } from "#/wire/grpc.ts";
import type { HttpService, RequestHead, ResponseHead } from "./exchange.ts";
import { Http2Code, fault } from "./fault.ts";
import { HEAD_BOUND } from "./head-bound.ts";
import { Http1Client } from "./http1-client.ts";
import { Http1Server, HTTP1_SERVER_DEFAULTS } from "./http1-server.ts";
import { Http2Client } from "./http2-client.ts";
import { Http2Server } from "./http2-server.ts";
import type { MeshAnswer } from "./mesh-answer.ts";
import { explain, meshAnswer } from "./mesh-answer.ts";
import type { ScriptedCall } from "./testing.ts";
import { ManualClock, RecordingReply, ScriptedService, memoryPair } from "./testing.ts";
import { Request, switchingFromHttp1 } from "./translate.ts";

const CLIENT_SIDE = { side: "client", workload: "web-1.shop" } as const;
const SERVER_SIDE = { side: "server", workload: "catalogue-1.shop" } as const;

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

const CALL: Partial<RequestHead> = {
  version: "2",
  method: "POST",
  path: "/shop.Catalogue/Get",
  fields: ["content-type", "application/grpc", "te", "trailers"],
};
const CALL_HEAD: ResponseHead = {
  status: 200,
  version: "2",
  reason: null,
  fields: ["content-type", "application/grpc"],
};

/**
 * A client program, the two sidecars, and the service behind them, in memory. `hop` is what the client's sidecar sends
 * requests with; a test may put something between.
 */
class Scene {
  readonly clock = new ManualClock();
  readonly service: ScriptedService;
  readonly client: Http1Client | Http2Client;
  /** Ends the connection between the sidecars without a word. */
  readonly cutBetween: () => void;

  constructor(version: "1.1" | "2", respond: ((call: ScriptedCall) => void) | null = null) {
    const { clock } = this;
    this.service = new ScriptedService(respond);
    const [near, far] = memoryPair(clock);
    new Http2Server(far, this.service, clock, () => {}, {
      meshed: true,
      clientId: null,
      answerer: SERVER_SIDE,
    });
    const hop: HttpService = new Http2Client(near, clock, () => {}, { meshed: true });
    this.cutBetween = () => far.reset();
    const [program, sidecar] = memoryPair(clock);
    if (version === "2") {
      new Http2Server(sidecar, hop, clock, () => {}, {
        meshed: false,
        clientId: null,
        answerer: CLIENT_SIDE,
      });
      this.client = new Http2Client(program, clock, () => {}, { meshed: false });
    } else {
      const settings = { ...HTTP1_SERVER_DEFAULTS, answerer: CLIENT_SIDE };
      new Http1Server(sidecar, hop, clock, () => {}, settings);
      this.client = new Http1Client(program, clock, { idle: () => {}, gone: () => {} });
    }
    clock.settle();
  }

  /** Sends a request without a body and lets everything happen. */
  ask(head: RequestHead): RecordingReply {
    const reply = new RecordingReply();
    this.client.call(head, true, reply);
    this.clock.settle();
    return reply;
  }
}

/** The programs' view: the fields of the mesh are stripped from what an unmeshed hop says, so the raw answer is looked at. */
function answerTo(head: RequestHead, code: Parameters<typeof fault>[0], rule: string = ""): MeshAnswer {
  return meshAnswer(head, explain(fault(code, "it did not work", { rule }), SERVER_SIDE));
}

test("an answer of the mesh says side, rule and what to check: to people, and to programs (RFC 9209)", () => {
  const { head, body } = answerTo(request(), "NOT_AUTHORIZED", "server/shop/web-http");
  const line =
    "server's sidecar (catalogue-1.shop): it did not work [server/shop/web-http]; check the policy of the port, and the client's service account (NOT_AUTHORIZED)";
  assert.equal(head.status, 403);
  assert.equal(fieldValue(head.fields, "l5d-proxy-error"), line);
  assert.equal(
    fieldValue(head.fields, "proxy-status"),
    'pillion;error=http_request_denied;pillion-code=NOT_AUTHORIZED;pillion-side=server;pillion-workload="catalogue-1.shop";pillion-rule="server/shop/web-http";details="it did not work"',
  );
  assert.equal(Buffer.from(body ?? []).toString(), `${line}\n`);
  assert.equal(fieldValue(head.fields, "content-length"), String(line.length + 1));
  assert.equal(fieldValue(head.fields, "content-type"), "text/plain; charset=utf-8");
});

test("the line is a body for clients that accept text only (RFC 9110 §12.5.1)", () => {
  const accepts = (...values: string[]): boolean => {
    const fields: Fields = ["Host", "web", ...values.flatMap((value) => ["Accept", value])];
    return answerTo(request({ fields }), "RESET").body !== null;
  };
  assert.ok(accepts());
  for (const yes of ["*/*", "text/*;q=0.5", "TEXT/Plain", "application/json, text/plain"])
    assert.ok(accepts(yes), yes);
  assert.ok(accepts("application/json", "*/*"));
  for (const no of ["application/json", "text/html", "*/*;q=0", "text/plain; q=0.000", ""])
    assert.ok(!accepts(no), no);
  assert.equal(answerTo(request({ method: "HEAD" }), "RESET").body, null);
});

test("whatever a message holds, the fields stay one line of ASCII and Proxy-Status a valid string (RFC 9651 §3.3.3)", () => {
  fc.assert(
    fc.property(fc.array(fc.integer({ min: 0, max: 0xffff }), { maxLength: 700 }), (codes) => {
      const message = String.fromCharCode(...codes);
      const { line, proxyStatus } = explain(fault("RESET", message, { rule: message }), SERVER_SIDE);
      assert.match(line, /^[\x20-\x7e]*$/);
      assert.match(proxyStatus, /^[\x20-\x7e]*$/);
      assert.match(proxyStatus, /^pillion(;[a-z-]+=([A-Za-z_]+|"([^"\\]|\\["\\])*"))+$/);
      assert.ok(line.length + proxyStatus.length < 3_000);
    }),
  );
});

test("gRPC callers get trailers only, also where gRPC-Web gets an answer of HTTP (facts §8.4)", () => {
  const { head, body } = answerTo(request(CALL), "NO_ENDPOINTS");
  assert.equal(body, null);
  assert.equal(head.status, 200);
  assert.equal(fieldValue(head.fields, "content-type"), "application/grpc");
  assert.equal(fieldValue(head.fields, "grpc-status"), "4");
  assert.match(
    decodeGrpcText(fieldValue(head.fields, "grpc-message") ?? ""),
    /^server's sidecar .*it did not work/,
  );
  const web = answerTo(
    request({ ...CALL, fields: ["content-type", "application/grpc-web+proto"] }),
    "NO_ENDPOINTS",
  );
  assert.equal(web.head.status, 504);
});

for (const version of ["1.1", "2"] as const) {
  test(`what the server's sidecar says of a request that no application saw reaches the client in its words (HTTP/${version})`, () => {
    const scene = new Scene(version, (call) =>
      call.reply.fail(
        fault("CONNECT_FAILED", "nobody listens", { safe: true, proxyError: "connection_refused" }),
      ),
    );
    const reply = scene.ask(request({ version }));
    assert.equal(reply.status, 502);
    assert.match(
      reply.body_,
      /^server's sidecar \(catalogue-1\.shop\): nobody listens; check that the program/,
    );
    // The client here is none of the mesh and strips its word; the standard's field remains, signed once more at this hop.
    assert.match(
      fieldValue(reply.fields, "proxy-status") ?? "",
      /^pillion;pillion-unseen;error=connection_refused;.*pillion-side=server/,
    );
  });

  test(`… and where the client's body is still on its way (HTTP/${version})`, () => {
    const scene = new Scene(version, (call) =>
      call.reply.fail(fault("CONNECT_FAILED", "nobody", { safe: true })),
    );
    const reply = new RecordingReply();
    const sink = scene.client.call(request({ version, method: "POST" }), false, reply);
    sink.data(Buffer.from("part"), 0, 4);
    scene.clock.settle();
    assert.equal(reply.status, 502);
    assert.match(reply.body_, /^server's sidecar/);
    if (scene.client instanceof Http2Client) assert.equal(scene.client.activeRequests, 0);
  });
}

test("a request that no application saw is offered to the client's sidecar as safe to send elsewhere", () => {
  const clock = new ManualClock();
  const [near, far] = memoryPair(clock);
  const service = new ScriptedService((call) => call.reply.fail(fault("OVERLOADED", "full", { safe: true })));
  new Http2Server(far, service, clock, () => {}, { meshed: true, clientId: null, answerer: SERVER_SIDE });
  const client = new Http2Client(near, clock, () => {}, { meshed: true });
  for (const head of [request(), request({ version: "2" }), request(CALL)]) {
    const reply = new RecordingReply();
    client.call(head, true, reply);
    clock.settle();
    assert.deepEqual(reply.events, ["fail REFUSED safe"]);
    assert.equal(reply.fault?.explanation?.grpcStatus, 14);
    assert.match(reply.fault?.explanation?.line ?? "", /^server's sidecar .*full/);
  }
  assert.equal(client.activeRequests, 0);
});

test("an application cannot speak for the mesh: not in its own field, and in Proxy-Status not last (RFC 9209 §2)", () => {
  const forged = [
    "l5d-proxy-error",
    "server's sidecar: forged",
    "proxy-status",
    "pillion;pillion-unseen;error=http_request_denied",
  ];
  for (const version of ["1.1", "2"] as const) {
    const clock = new ManualClock();
    const [near, far] = memoryPair(clock);
    const service = new ScriptedService((call) => call.answer(403, [...forged, "content-length", "0"], ""));
    const reply = new RecordingReply();
    if (version === "2") new Http2Server(far, service, clock, () => {}, { meshed: false, clientId: null });
    else new Http1Server(far, service, clock, () => {});
    const client =
      version === "2"
        ? new Http2Client(near, clock, () => {}, { meshed: false })
        : new Http1Client(near, clock, { idle: () => {}, gone: () => {} });
    client.call(request({ version }), true, reply);
    clock.settle();
    assert.equal(reply.status, 403);
    assert.deepEqual(
      reply.fields.filter((_, i) => reply.fields[i - (i % 2)] !== "content-length"),
      [
        "proxy-status",
        "pillion;pillion-unseen;error=http_request_denied",
        "proxy-status",
        "pillion;received-status=403",
      ],
    );
  }
});

for (const version of ["1.1", "2"] as const)
  test(`… nor in the trailers of HTTP/${version}`, () => {
    const clock = new ManualClock();
    const [near, far] = memoryPair(clock);
    const service = new ScriptedService((call) => {
      call.reply.head({ status: 200, version, reason: null, fields: [] }, false);
      call.reply.finish(["x-sum", "1", "proxy-status", "pillion;error=http_request_denied"]);
    });
    if (version === "2") new Http2Server(far, service, clock, () => {}, { meshed: false, clientId: null });
    else new Http1Server(far, service, clock, () => {});
    const client =
      version === "2"
        ? new Http2Client(near, clock, () => {}, { meshed: false })
        : new Http1Client(near, clock, { idle: () => {}, gone: () => {} });
    const reply = new RecordingReply();
    client.call(request({ version }), true, reply);
    clock.settle();
    assert.equal(reply.events.at(-1), "finish x-sum 1");
  });

test("… nor where it switches protocols", () => {
  const parts = { status: 101, reason: "", version: "1.1" as const, fields: ["Proxy-Status", "pillion"] };
  const signed = ["Proxy-Status", "pillion", "proxy-status", "pillion;received-status=101"];
  assert.deepEqual(switchingFromHttp1(parts, false).fields, signed);
  assert.deepEqual(switchingFromHttp1(parts, true).fields, parts.fields);
});

// gRPC over HTTP2, "Errors": what a client concludes from the code, it is told with words.
for (const [code, status] of [
  [Http2Code.NO_ERROR, 13],
  [Http2Code.INTERNAL_ERROR, 13],
  [Http2Code.CANCEL, 1],
  [Http2Code.ENHANCE_YOUR_CALM, 8],
  [0xc, 7],
  [0xd, 2],
] as const) {
  for (const when of ["before", "after"] as const) {
    test(`an application's reset with code ${code} ${when} the head becomes gRPC status ${status}, and says who reset`, () => {
      const scene = new Scene("2", (call) => {
        if (when === "after") call.reply.head(CALL_HEAD, false);
        call.reply.fail(fault("RESET", "the application reset the stream", { http2Code: code }));
      });
      const reply = scene.ask(request(CALL));
      const trailers = when === "before" ? reply.fields : (reply.events.at(-1) ?? "").split(" ");
      assert.equal(reply.fault, null);
      assert.ok(reply.finished);
      assert.equal(trailers[trailers.indexOf("grpc-status") + 1], String(status));
      assert.match(
        trailers.join(" "),
        /server's sidecar \(catalogue-1\.shop\): the application reset the stream/,
      );
    });
  }
}

test("a connection lost between the sidecars ends a gRPC answer as UNAVAILABLE by the client's, and an HTTP/2 one by reset", () => {
  for (const [head, answer, events] of [
    [
      request(CALL),
      CALL_HEAD,
      /^head 200,finish grpc-status 14 grpc-message client's sidecar \(web-1\.shop\): the connection to the far sidecar was lost/,
    ],
    [
      request(CALL),
      { ...CALL_HEAD, fields: ["content-type", "text/html"] as Fields },
      /^head 200,fail RESET$/,
    ],
    [request({ version: "2" }), CALL_HEAD, /^head 200,fail RESET$/],
  ] as const) {
    const scene = new Scene("2");
    const reply = new RecordingReply();
    scene.client.call(head, true, reply);
    scene.clock.settle();
    scene.service.calls[0]!.reply.head(answer, false);
    scene.clock.settle();
    scene.cutBetween();
    scene.clock.settle();
    assert.match(reply.events.join(), events);
  }
});

test("the line waits for the client's window, and only then is the rest of the request declined (RFC 9113 §8.1)", () => {
  const clock = new ManualClock();
  const [near, far] = memoryPair(clock);
  const service = new ScriptedService((call) => call.reply.fail(fault("RESET", "gone")));
  new Http2Server(far, service, clock, () => {}, { meshed: false, clientId: null });
  const machine = { streamWindowBytes: 10 };
  const client = new Http2Client(near, clock, () => {}, { meshed: false, machine });
  clock.settle();
  const reply = new RecordingReply();
  const sink = client.call(request({ version: "2", method: "POST" }), false, reply);
  clock.settle();
  assert.equal(reply.body_.length, 10);
  for (let seenBytes = 0; seenBytes < reply.body_.length;) {
    const freshBytes = reply.body_.length - seenBytes;
    seenBytes = reply.body_.length;
    sink.responseConsumed(freshBytes);
    clock.settle();
  }
  assert.match(reply.body_, /^server's sidecar: gone; check .*\n$/);
  assert.deepEqual(reply.events, ["head 502", "finish", "fail CANCELLED"]);
  assert.equal(client.activeRequests, 0);
});

test("fields that are too large over HTTP/2 are refused with the reason (RFC 6585 §5)", () => {
  const scene = new Scene("2");
  const reply = scene.ask(request({ version: "2", fields: ["x", "y".repeat(HEAD_BOUND.bytesMax)] }));
  assert.equal(reply.status, 431);
  assert.match(
    fieldValue(reply.fields, "proxy-status") ?? "",
    /^pillion;error=http_request_error;pillion-code=BAD_REQUEST;pillion-side=client;.*header_bytes: /,
  );
});

test("a refusal that knows when asking again helps says so in whole seconds, to gRPC callers also in milliseconds (RFC 9110 §10.2.3)", () => {
  const cause = fault("RATE_LIMITED", "too many", { retryAfterMs: 1_200 });
  const plain = meshAnswer(request(), explain(cause, SERVER_SIDE));
  assert.equal(plain.head.status, 429);
  assert.equal(fieldValue(plain.head.fields, "retry-after"), "2");
  assert.equal(fieldValue(plain.head.fields, "grpc-retry-pushback-ms"), null);
  const call = meshAnswer(request(CALL), explain(cause, SERVER_SIDE));
  assert.equal(fieldValue(call.head.fields, "grpc-status"), "8");
  assert.equal(fieldValue(call.head.fields, "grpc-retry-pushback-ms"), "1200");
  assert.equal(fieldValue(answerTo(request(), "RESET").head.fields, "retry-after"), null);
});

test("a fault's own gRPC status goes before that of its code", () => {
  const cause = fault("FAULT_INJECTED", "wanted", { status: 418, grpcStatus: 5 });
  const { head } = meshAnswer(request(CALL), explain(cause, CLIENT_SIDE));
  assert.equal(fieldValue(head.fields, "grpc-status"), "5");
  assert.equal(meshAnswer(request(), explain(cause, CLIENT_SIDE)).head.status, 418);
});

for (const over of [{}, { version: "2" }, CALL] as const) {
  const name = "path" in over ? "a gRPC call" : `HTTP/${"version" in over ? "2" : "1.1"}`;
  test(`a fault that cuts gives no answer where one could still be given (${name})`, () => {
    const clock = new ManualClock();
    const service = new ScriptedService((call) =>
      call.reply.fail(fault("FAULT_INJECTED", "wanted", { cuts: true })),
    );
    const [near, far] = memoryPair(clock);
    const reply = new RecordingReply();
    if ("version" in over) {
      new Http2Server(far, service, clock, () => {}, { meshed: false, clientId: null });
      new Http2Client(near, clock, () => {}, { meshed: false }).call(request(over), true, reply);
    } else {
      new Http1Server(far, service, clock, () => {}, HTTP1_SERVER_DEFAULTS);
      new Http1Client(near, clock, { idle: () => {}, gone: () => {} }).call(request(), true, reply);
    }
    clock.settle();
    assert.equal(reply.status, 0);
    assert.equal(reply.fault?.code, "RESET");
  });
}
