import assert from "node:assert/strict";
import { test } from "node:test";
import type { ConnHandler } from "#/base/conn.ts";
import type { Fields } from "#/base/fields.ts";
import { LIMITS } from "#/model/limits.ts";
import { encodeLastChunk, encodeRequestHead, encodeResponseHead } from "#/wire/http1/writer.ts";
import { Registry } from "../metrics/registry.ts";
import { Guard } from "./guard.ts";
import { HTTP1_CLIENT_DEFAULTS, Http1Client } from "./http1-client.ts";
import { HTTP1_SERVER_DEFAULTS, Http1Server } from "./http1-server.ts";
import { Http2Client } from "./http2-client.ts";
import { Http2Server } from "./http2-server.ts";
import type { MemoryConn } from "./testing.ts";
import { ManualClock, memoryPair, RecordingReply, ScriptedService } from "./testing.ts";
import { Request, requestToHttp2 } from "./translate.ts";

const NOBODY: ConnHandler = { onData() {}, onEnd() {}, onDrain() {}, onClose() {} };
const BOUND_BYTES = 5_000;

/** RFC 9113 §6.5.2. */
function listBytes(fields: Fields): number {
  return fields.reduce((sum, text, i) => sum + text.length + (i % 2 === 0 ? 32 : 0), 0);
}

/** Fields that count `bytes`, with `first` among them. */
function filled(bytes: number, first: Fields = []): Fields {
  const rest = bytes - listBytes(first) - 33;
  return [...first, "x", "v".repeat(rest)];
}

class Scene {
  readonly clock = new ManualClock();
  readonly registry = new Registry();
  readonly guard = new Guard({ ...LIMITS, headBytesMax: BOUND_BYTES }, "inbound", this.clock, this.registry);
  readonly service = new ScriptedService();
  readonly reply = new RecordingReply();
  /** The side that is bounded has `near`. */
  readonly far: MemoryConn;
  readonly near: MemoryConn;

  constructor() {
    [this.far, this.near] = memoryPair(this.clock);
  }

  /** Heads refused, by the metric. */
  get counted(): string[] {
    this.clock.advance(2_000);
    return [...this.registry.render().matchAll(/^pillion_limit_reached_total\{(.*)\} 1$/gm)].map(
      (match) => match[1]!,
    );
  }
}

function request(fields: Fields, path = "/", over: Partial<Request> = {}): Request {
  return new Request({
    method: "POST",
    scheme: "http",
    authority: "a",
    path,
    version: "1.1",
    absoluteForm: false,
    upgrade: null,
    fields,
    ...over,
  });
}

/** A request with exactly so many bytes, most of them in its line or in a field. */
function requestOf(bytes: number, where: "line" | "field", version: "1.1" | "2"): Request {
  const host = version === "2" ? [] : ["Host", "a"];
  const size = (head: Request): number => listBytes(requestToHttp2(head, "native"));
  const path = where === "line" ? `/${"p".repeat(bytes - size(request(host)))}` : "/";
  const head = request(host, path, { version });
  if (where === "line") return head;
  return request([...host, ...filled(bytes - size(head))], "/", { version });
}

type Play = (scene: Scene, bytes: number) => boolean;

const TRAILED: Fields = ["Host", "a", "Transfer-Encoding", "chunked"];

/** Each says whether a head of so many bytes is taken. */
const PLAYS: Readonly<Record<string, Play>> = {
  "http/1 request line": (scene, bytes) => viaHttp1Server(scene, requestOf(bytes, "line", "1.1")),
  "http/1 request": (scene, bytes) => viaHttp1Server(scene, requestOf(bytes, "field", "1.1")),
  "http/1 request trailers": (scene, bytes) => viaHttp1Server(scene, request(TRAILED), filled(bytes)),
  "http/2 request line": (scene, bytes) => viaHttp2Server(scene, requestOf(bytes, "line", "2")),
  "http/2 request": (scene, bytes) => viaHttp2Server(scene, requestOf(bytes, "field", "2")),
  "http/2 request trailers": (scene, bytes) =>
    viaHttp2Server(scene, request([], "/", { version: "2" }), filled(bytes)),
  "http/1 response": (scene, bytes) =>
    viaHttp1Client(scene, filled(bytes - listBytes([":status", "200"]) - 2, ["Content-Length", "0"])),
  "http/1 response trailers": (scene, bytes) =>
    viaHttp1Client(scene, ["Transfer-Encoding", "chunked"], filled(bytes)),
  "http/2 response": (scene, bytes) => viaHttp2Client(scene, filled(bytes - listBytes([":status", "200"]))),
  "http/2 response trailers": (scene, bytes) => viaHttp2Client(scene, [], filled(bytes)),
};

function viaHttp1Server(scene: Scene, head: Request, trailers: Fields | null = null): boolean {
  scene.far.setHandler(NOBODY);
  const { clock, guard, service } = scene;
  new Http1Server(scene.near, service, clock, () => {}, { ...HTTP1_SERVER_DEFAULTS, guard });
  scene.far.write(
    encodeRequestHead({ method: "POST", target: head.path, version: "1.1", fields: head.fields }),
  );
  if (trailers !== null) scene.far.write(encodeLastChunk(trailers));
  clock.settle();
  const taken = service.calls.length === 1 && (trailers === null || service.calls[0]!.ended);
  if (!taken && trailers === null) assert.match(scene.near.written, /^HTTP\/1\.1 431 /);
  return taken;
}

function viaHttp2Server(scene: Scene, head: Request, trailers: Fields | null = null): boolean {
  const { clock, guard, service, reply } = scene;
  new Http2Server(scene.near, service, clock, () => {}, { meshed: false, clientId: null, guard });
  const client = new Http2Client(scene.far, clock, () => {}, { meshed: false });
  const sink = client.call(head, trailers === null, reply);
  if (trailers !== null) sink.end(trailers);
  clock.settle();
  const taken = service.calls.length === 1 && (trailers === null || service.calls[0]!.ended);
  if (!taken && trailers === null) assert.equal(reply.status, 431);
  return taken;
}

function viaHttp1Client(scene: Scene, fields: Fields, trailers: Fields | null = null): boolean {
  scene.far.setHandler(NOBODY);
  const { clock, guard, reply } = scene;
  const settings = { ...HTTP1_CLIENT_DEFAULTS, heads: guard.heads };
  const client = new Http1Client(scene.near, clock, { idle: () => {}, gone: () => {} }, settings);
  client.call(request(["Host", "a"]), true, reply);
  clock.settle();
  scene.far.write(encodeResponseHead({ version: "1.1", status: 200, reason: "OK", fields }));
  if (trailers !== null) scene.far.write(encodeLastChunk(trailers));
  clock.settle();
  if (!reply.finished) assert.equal(reply.fault?.code, "PROTOCOL");
  return reply.finished;
}

function viaHttp2Client(scene: Scene, fields: Fields, trailers: Fields | null = null): boolean {
  const { clock, guard, service, reply } = scene;
  new Http2Server(scene.far, service, clock, () => {}, { meshed: false, clientId: null });
  const client = new Http2Client(scene.near, clock, () => {}, { meshed: false, heads: guard.heads });
  client.call(request([], "/", { version: "2" }), true, reply);
  clock.settle();
  const call = service.calls[0]!;
  call.reply.head({ status: 200, version: "2", reason: null, fields }, trailers === null);
  if (trailers !== null) call.reply.finish(trailers);
  clock.settle();
  if (!reply.finished) assert.equal(reply.fault?.code, "PROTOCOL");
  return reply.finished;
}

for (const [name, play] of Object.entries(PLAYS)) {
  test(`${name}: the same bound to the byte, and counted beyond it (RFC 9113 §6.5.2, RFC 6585 §5)`, () => {
    const within = new Scene();
    assert.ok(play(within, BOUND_BYTES));
    assert.deepEqual(within.counted, []);
    const beyond = new Scene();
    assert.equal(play(beyond, BOUND_BYTES + 1), false);
    const [protocol, ...message] = name.split(" ");
    const kind = message.includes("trailers") ? "trailers" : message[0]!;
    assert.deepEqual(beyond.counted, [
      `limit="header_bytes",direction="inbound",protocol="${protocol!}",message="${kind}"`,
    ]);
  });
}

test("what one sidecar took the other does not refuse, however it is spelled", () => {
  const { clock, guard, service, far, near } = new Scene();
  new Http2Server(near, service, clock, () => {}, { meshed: true, spells: true, clientId: null, guard });
  const client = new Http2Client(far, clock, () => {}, { meshed: true, spells: true, heads: guard.heads });
  const fields: Fields = ["Host", "a"];
  for (let i = 0; i < 50; i++) fields.push(`aBcDeFgHiJkLmNoPqRsTuVwXyZ-${i}`, "");
  const size = listBytes(requestToHttp2(request(fields), "native"));
  fields.push(...filled(BOUND_BYTES - size));
  const reply = new RecordingReply();
  client.call(request(fields), true, reply);
  clock.settle();
  assert.deepEqual(service.calls[0]?.head.fields, fields);
  const answer = filled(BOUND_BYTES - 44, fields.slice(2, 60));
  service.calls[0]!.reply.head({ status: 200, version: "1.1", reason: "Odd", fields: answer }, true);
  clock.settle();
  assert.deepEqual(reply.fields, answer);
});

test("a target of 64 KiB and its fields are within the default", () => {
  const clock = new ManualClock();
  const [client, server] = memoryPair(clock);
  client.setHandler(NOBODY);
  const service = new ScriptedService();
  new Http1Server(server, service, clock, () => {});
  client.write(
    Buffer.from(`GET /${"p".repeat(65_535)} HTTP/1.1\r\nHost: a\r\nCookie: ${"c".repeat(16_384)}\r\n\r\n`),
  );
  clock.settle();
  assert.equal(service.calls.length, 1);
});
