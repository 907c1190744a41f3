import assert from "node:assert/strict";
import { test } from "node:test";
import type { Fields } from "#/base/fields.ts";
import { fieldValue } from "#/base/fields.ts";
import { SILENT } from "#/net/log.ts";
import type { RequestSink } from "#/stack/http/exchange.ts";
import { Http2Client } from "#/stack/http/http2-client.ts";
import { ManualClock, memoryPair, RecordingReply, type MemoryConn } from "#/stack/http/testing.ts";
import { Registry } from "#/stack/metrics/registry.ts";
import { encodeGrpcMessage, GrpcMessageReader, GrpcFound, GrpcStatus } from "#/wire/grpc.ts";
import { ProtoReader, ProtoWriter } from "#/wire/proto.ts";
import type { JwtBundles } from "./jwt-client.ts";
import type { X509Bundles, X509Svid } from "./messages.ts";
import type { SvidSink } from "./svid-keeper.ts";
import { CallError } from "./unary-call.ts";
import { CONNECTIONS_MAX, STREAMS_MAX, WorkloadApi } from "./workload-api.ts";

const WEB = { trustDomain: "cluster.local", namespace: "shop", serviceAccount: "web" };
const WEB_ID = "spiffe://cluster.local/ns/shop/sa/web";
const UID = 1001;
const HEADER = ["workload.spiffe.io", "true"];
const EMPTY = new Uint8Array(0);

/** A Workload API whose sources the test plays. */
class Scene {
  readonly clock = new ManualClock();
  readonly registry = new Registry();
  readonly sinks = new Set<SvidSink>();
  svid: X509Svid | null = { spiffeId: WEB_ID, chain: Uint8Array.of(1), key: Uint8Array.of(2) };
  bundles: X509Bundles = new Map([["cluster.local", [Uint8Array.of(3)]]]);
  readonly bundleWatchers = new Set<() => void>();
  readonly jwtWatchers = new Set<(bundles: JwtBundles) => void>();
  readonly audiences: (readonly string[])[] = [];
  signed: Promise<string> = Promise.resolve("a.b.c");
  readonly api: WorkloadApi;

  constructor() {
    this.api = new WorkloadApi({
      clock: this.clock,
      log: SILENT,
      registry: this.registry,
      identity: WEB,
      answerer: { side: "client", workload: "web.shop" },
      uids: new Set([0, UID]),
      keeper: {
        watch: (sink) => {
          this.sinks.add(sink);
          if (this.svid !== null) sink.svid(this.svid);
          return { cancel: () => this.sinks.delete(sink) };
        },
      },
      jwt: {
        sign: (audience) => {
          this.audiences.push(audience);
          return this.signed;
        },
        watch: (changed) => {
          this.jwtWatchers.add(changed);
          return { cancel: () => this.jwtWatchers.delete(changed) };
        },
        known: () => Promise.resolve(new Map()),
      },
      bundles: {
        now: () => this.bundles,
        watch: (changed) => {
          this.bundleWatchers.add(changed);
          return { cancel: () => this.bundleWatchers.delete(changed) };
        },
      },
    });
  }

  connect(peerUid: number | null = UID): { client: Http2Client; far: MemoryConn } {
    const [near, far] = memoryPair(this.clock);
    this.api.accept({ conn: far, peerUid });
    return { client: new Http2Client(near, this.clock, () => {}, { meshed: false }), far: near };
  }

  call(
    method: string,
    request: Uint8Array = EMPTY,
    options: { fields?: Fields; client?: Http2Client; peerUid?: number | null } = {},
  ): Called {
    const client =
      options.client ?? this.connect(options.peerUid === undefined ? UID : options.peerUid).client;
    const reply = new CreditingReply();
    const fields = ["content-type", "application/grpc", "te", "trailers", ...(options.fields ?? HEADER)];
    const head = {
      method: "POST",
      scheme: "http",
      authority: "localhost",
      path: `/SpiffeWorkloadAPI/${method}`,
      version: "2" as const,
      absoluteForm: false,
      upgrade: null,
      fields,
    };
    const sink = client.call(head, false, reply);
    reply.sink = sink;
    const framed = encodeGrpcMessage(request);
    sink.data(framed, 0, framed.length);
    sink.end(null);
    this.clock.settle();
    return new Called(this, sink, reply);
  }

  metric(name: string, method: string, status: number): number {
    const line = `${name}{method="${method}",grpc_status="${status}"} `;
    const text = this.registry.render();
    const at = text.indexOf(line);
    return at < 0 ? 0 : Number.parseInt(text.slice(at + line.length), 10);
  }
}

/** Takes what comes at once, as programs do. */
class CreditingReply extends RecordingReply {
  sink: RequestSink | null = null;
  override body(bytes: Uint8Array, start: number, stop: number): void {
    super.body(bytes, start, stop);
    this.sink?.responseConsumed(stop - start);
  }
}

class Called {
  readonly scene: Scene;
  readonly sink: RequestSink;
  readonly reply: RecordingReply;

  constructor(scene: Scene, sink: RequestSink, reply: RecordingReply) {
    this.scene = scene;
    this.sink = sink;
    this.reply = reply;
  }

  get messages(): Uint8Array[] {
    const reader = new GrpcMessageReader();
    reader.feed(Buffer.from(this.reply.body_, "latin1"));
    const out: Uint8Array[] = [];
    while (reader.next() === GrpcFound.MESSAGE) out.push(reader.message);
    return out;
  }

  /** Of a call that was refused before anything was sent. */
  get status(): string {
    const { fields } = this.reply;
    return `${fieldValue(fields, "grpc-status") ?? "none"}: ${decodeURIComponent(fieldValue(fields, "grpc-message") ?? "")}`;
  }

  /** What promises promised has come, too. */
  async settled(): Promise<this> {
    for (const end = Date.now() + 20_000; !this.reply.finished && Date.now() < end;) {
      await new Promise((resolve) => setImmediate(resolve));
      this.scene.clock.settle();
    }
    return this;
  }
}

/** Field `field` of the message, and of the message in it, by a path of numbers. */
function at(bytes: Uint8Array, ...path: number[]): Uint8Array[] {
  const [field, ...rest] = path;
  const reader = new ProtoReader(bytes);
  const found: Uint8Array[] = [];
  while (reader.next()) if (reader.field === field) found.push(reader.bytes());
  return rest.length === 0 ? found : found.flatMap((each) => at(each, ...rest));
}
const text = (bytes: Uint8Array | undefined): string => Buffer.from(bytes ?? EMPTY).toString();

test("FetchX509SVID gives key, chain and the bundle of its own trust domain; others are federated (§5.2.1)", () => {
  const scene = new Scene();
  scene.bundles = new Map([
    ["cluster.local", [Uint8Array.of(3), Uint8Array.of(4)]],
    ["other.example", [Uint8Array.of(5)]],
  ]);
  const [message] = scene.call("FetchX509SVID").messages;
  assert.ok(message);
  assert.equal(text(at(message, 1, 1)[0]), WEB_ID);
  assert.deepEqual([...at(message, 1, 2)[0]!], [1]);
  assert.deepEqual([...at(message, 1, 3)[0]!], [2]);
  assert.deepEqual([...at(message, 1, 4)[0]!], [3, 4]);
  assert.deepEqual(at(message, 3, 1).map(text), ["spiffe://other.example"]);
  assert.deepEqual([...at(message, 3, 2)[0]!], [5]);
});

test("each message of a stream is the whole state, sent when key or roots change (§4.4)", () => {
  const scene = new Scene();
  const call = scene.call("FetchX509SVID");
  for (const sink of scene.sinks)
    sink.svid({ spiffeId: WEB_ID, chain: Uint8Array.of(9), key: Uint8Array.of(8) });
  scene.clock.settle();
  scene.bundles = new Map([["cluster.local", [Uint8Array.of(7)]]]);
  for (const changed of scene.bundleWatchers) changed();
  scene.clock.settle();
  const { messages } = call;
  assert.deepEqual(
    messages.map((message) => [at(message, 1, 2)[0]![0], at(message, 1, 3)[0]![0], at(message, 1, 4)[0]![0]]),
    [
      [1, 2, 3],
      [9, 8, 3],
      [9, 8, 7],
    ],
  );
});

test("FetchX509SVID waits for the first certificate, and ends with the reason when there is none", () => {
  const scene = new Scene();
  scene.svid = null;
  const call = scene.call("FetchX509SVID");
  assert.deepEqual(call.reply.events, []);
  for (const sink of scene.sinks) sink.failed(new CallError(GrpcStatus.UNAVAILABLE, "it is away"));
  scene.clock.settle();
  assert.equal(call.status, "14: it is away");
});

test("FetchX509Bundles gives the roots by trust domain, and again when they change (§5.2.2)", () => {
  const scene = new Scene();
  const call = scene.call("FetchX509Bundles");
  scene.bundles = new Map([["other.example", [Uint8Array.of(5)]]]);
  for (const changed of scene.bundleWatchers) changed();
  scene.clock.settle();
  assert.deepEqual(
    call.messages.map((message) => at(message, 2, 1).map(text)),
    [["spiffe://cluster.local"], ["spiffe://other.example"]],
  );
});

test("FetchJWTBundles gives key sets by trust domain (§6.2.2)", () => {
  const scene = new Scene();
  const call = scene.call("FetchJWTBundles");
  assert.deepEqual(call.messages, []);
  for (const changed of scene.jwtWatchers) changed(new Map([["cluster.local", '{"keys":[]}']]));
  scene.clock.settle();
  assert.deepEqual(
    call.messages.flatMap((message) => [text(at(message, 1, 1)[0]), text(at(message, 1, 2)[0])]),
    ["spiffe://cluster.local", '{"keys":[]}'],
  );
});

test("FetchJWTSVID has a token signed for its audiences; without one, or for another's name, not (§6.2.1)", async () => {
  const scene = new Scene();
  const request = new ProtoWriter().text(1, "db").text(1, "cache");
  const call = await scene.call("FetchJWTSVID", request.finish()).settled();
  assert.deepEqual(scene.audiences, [["db", "cache"]]);
  assert.equal(text(at(call.messages[0]!, 1, 1)[0]), WEB_ID);
  assert.equal(text(at(call.messages[0]!, 1, 2)[0]), "a.b.c");
  assert.deepEqual(call.reply.events.at(-1), "finish grpc-status 0");

  const named = await scene.call("FetchJWTSVID", request.text(2, WEB_ID).finish()).settled();
  assert.equal(named.messages.length, 1);
  const other = new ProtoWriter().text(1, "db").text(2, "spiffe://cluster.local/ns/shop/sa/db");
  assert.match(scene.call("FetchJWTSVID", other.finish()).status, /^7: this workload is .*\/sa\/web/);
  assert.match(scene.call("FetchJWTSVID").status, /^3: audience is missing/);
  assert.match(
    scene.call("FetchJWTSVID", Uint8Array.of(0x0a, 9)).status,
    /^3: the request is no JWTSVIDRequest/,
  );
  assert.equal(scene.audiences.length, 2);
});

test("why a token was not signed is passed on; a failure of our own says no more than that", async () => {
  const scene = new Scene();
  const request = new ProtoWriter().text(1, "db").finish();
  scene.signed = Promise.reject(new CallError(GrpcStatus.PERMISSION_DENIED, "no pod"));
  assert.equal((await scene.call("FetchJWTSVID", request).settled()).status, "7: no pod");
  scene.signed = Promise.reject(new TypeError("secret"));
  assert.equal(
    (await scene.call("FetchJWTSVID", request).settled()).status,
    "13: the sidecar failed to answer; its log says why",
  );
});

test("ValidateJWTSVID refuses with InvalidArgument and the reason (§6.2.3)", async () => {
  const scene = new Scene();
  const request = new ProtoWriter().text(1, "db").text(2, "no token").finish();
  assert.match((await scene.call("ValidateJWTSVID", request).settled()).status, /^3: the token is no JWT/);
  assert.match(scene.call("ValidateJWTSVID").status, /^3: both audience and svid are needed/);
});

test("without the header that every call must have: InvalidArgument, whatever is called (Workload Endpoint §6)", () => {
  const scene = new Scene();
  for (const fields of [
    [],
    ["workload.spiffe.io", ""],
    ["workload.spiffe.io", "TRUE"],
    ["x-workload.spiffe.io", "true"],
  ])
    for (const method of ["FetchX509SVID", "FetchX509Bundles", "FetchJWTSVID", "Invented"])
      assert.match(
        scene.call(method, EMPTY, { fields }).status,
        /^3: the metadata workload.spiffe.io: true is missing/,
      );
  assert.equal(scene.sinks.size, 0);
});

test("methods that are not served are Unimplemented, WIT-SVIDs among them (§7)", () => {
  const scene = new Scene();
  for (const method of ["FetchWITSVID", "FetchWITBundles", "Invented", "FetchX509SVID/"])
    assert.match(scene.call(method).status, /^12: .* is not served here/);
  assert.equal(scene.metric("pillion_workload_api_calls_total", "unknown", 12), 4);
});

test("attack: a user that is none of the containers', or whom the kernel does not name, gets nothing", () => {
  const scene = new Scene();
  for (const peerUid of [1, 65_534, null])
    for (const method of [
      "FetchX509SVID",
      "FetchX509Bundles",
      "FetchJWTSVID",
      "FetchJWTBundles",
      "ValidateJWTSVID",
    ])
      assert.match(
        scene.call(method, EMPTY, { peerUid }).status,
        /^7: user .* is none that a container of this pod runs as \(0, 1001\)/,
      );
  assert.equal(scene.sinks.size + scene.bundleWatchers.size + scene.jwtWatchers.size, 0);
  assert.equal(scene.metric("pillion_workload_api_calls_total", "FetchX509SVID", 7), 3);
});

test("attack: a client that does not read makes us keep the newest state only", () => {
  const scene = new Scene();
  const big = (seed: number): X509Svid => ({
    spiffeId: WEB_ID,
    chain: new Uint8Array(60_000).fill(seed),
    key: Uint8Array.of(seed),
  });
  scene.svid = big(0);
  const { client, far } = scene.connect();
  far.pause();
  const call = scene.call("FetchX509SVID", EMPTY, { client });
  for (let seed = 1; seed < 200; seed++) {
    for (const sink of scene.sinks) sink.svid(big(seed));
    scene.clock.settle();
  }
  far.resume();
  scene.clock.settle();
  const seeds = call.messages.map((message) => at(message, 1, 3)[0]![0]);
  assert.ok(seeds.length < 10, `${seeds.length} messages were kept`);
  assert.equal(seeds.at(-1), 199);
});

test("attack: more streams than a program needs are refused, and others are served", () => {
  const scene = new Scene();
  const { client } = scene.connect();
  const calls = Array.from({ length: 2 * STREAMS_MAX }, () => scene.call("FetchX509SVID", EMPTY, { client }));
  assert.equal(calls.filter((call) => call.messages.length === 1).length, STREAMS_MAX);
  assert.equal(scene.sinks.size, STREAMS_MAX);
  assert.equal(scene.call("FetchX509SVID").messages.length, 1);
});

test("attack: one user cannot take all connections, and all together no more than there may be", () => {
  const scene = new Scene();
  const isServed = (peerUid: number): boolean =>
    scene.call("FetchX509SVID", EMPTY, { peerUid }).messages.length === 1;
  for (let i = 0; i < CONNECTIONS_MAX.perClient; i++) assert.ok(isServed(UID));
  assert.ok(!isServed(UID));
  assert.ok(isServed(0));
});

test("attack: a message without end, compressed, or of the wrong kind ends the call", () => {
  const scene = new Scene();
  const { client } = scene.connect();
  const say = (bytes: Uint8Array): Called => {
    const called = scene.call("FetchX509SVID", EMPTY, { client });
    const reply = new RecordingReply();
    const fields = ["content-type", "application/grpc", ...HEADER];
    const sink = client.call(
      {
        method: "POST",
        scheme: "http",
        authority: "localhost",
        path: "/SpiffeWorkloadAPI/FetchX509SVID",
        version: "2",
        absoluteForm: false,
        upgrade: null,
        fields,
      },
      false,
      reply,
    );
    sink.data(bytes, 0, bytes.length);
    scene.clock.settle();
    return new Called(called.scene, sink, reply);
  };
  assert.match(
    say(Uint8Array.of(0, 0x7f, 0xff, 0xff, 0xff)).status,
    /^3: a message of .* bytes is over 65536/,
  );
  assert.match(say(Uint8Array.of(1, 0, 0, 0, 0)).status, /^3: the request is compressed/);
  assert.match(say(Uint8Array.of(7, 0, 0, 0, 0)).status, /^3: message flag 7/);
});

test("a client that goes away is forgotten, by a reset or with its connection", () => {
  const scene = new Scene();
  const { client, far } = scene.connect();
  const call = scene.call("FetchX509SVID", EMPTY, { client });
  scene.call("FetchX509Bundles", EMPTY, { client });
  scene.call("FetchJWTBundles", EMPTY, { client });
  assert.deepEqual([scene.sinks.size, scene.bundleWatchers.size, scene.jwtWatchers.size], [1, 2, 1]);
  call.sink.abort({ code: "CANCELLED" } as Parameters<RequestSink["abort"]>[0]);
  scene.clock.settle();
  assert.deepEqual([scene.sinks.size, scene.bundleWatchers.size, scene.jwtWatchers.size], [0, 1, 1]);
  far.reset();
  scene.clock.settle();
  assert.deepEqual([scene.sinks.size, scene.bundleWatchers.size, scene.jwtWatchers.size], [0, 0, 0]);
  assert.equal(scene.metric("pillion_workload_api_calls_total", "FetchX509SVID", 1), 1);
});
