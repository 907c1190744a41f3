import { strict as assert } from "node:assert";
import { test } from "node:test";
import { latin1, latin1Bytes } from "#/wire/latin1.ts";
import type { RequestHead, ResponseHead } from "./exchange.ts";
import { Http1Client } from "./http1-client.ts";
import { ManualClock, memoryPair, RecordingReply } from "./testing.ts";
import {
  Added,
  encodeRequest,
  encodeResponse,
  Request,
  requestFromHttp2,
  responseFromHttp2,
  responseToHttp2,
} from "./translate.ts";

const GET: RequestHead = {
  method: "GET",
  scheme: "http",
  authority: "shop",
  path: "/a",
  version: "1.1",
  absoluteForm: false,
  upgrade: null,
  fields: ["Host", "shop", "Accept", "*/*"],
};
const withPath = (
  { method, scheme, authority, version, absoluteForm, upgrade, fields }: RequestHead,
  path: string,
): RequestHead => ({
  method,
  scheme,
  authority,
  path,
  version,
  absoluteForm,
  upgrade,
  fields,
});
const text = (bytes: Uint8Array): string => latin1(bytes, 0, bytes.length);

test("a request that repeats is encoded for HTTP/1 once, and apart with a body and without", () => {
  const head = new Request(GET);
  const first = encodeRequest(head, true)!;
  assert.equal(text(first.bytes), "GET /a HTTP/1.1\r\nHost: shop\r\nAccept: */*\r\n\r\n");
  encodeRequest(head, true);
  const kept = encodeRequest(head, true)!;
  assert.equal(kept, encodeRequest(head, true));
  assert.deepEqual(text(kept.bytes), text(first.bytes));
  const open = encodeRequest(head, false)!;
  assert.ok(open.chunked);
  assert.match(text(open.bytes), /Transfer-Encoding: chunked/);
  assert.equal(encodeRequest(head, true)!.chunked, false);
  assert.equal(encodeRequest(new Request(withPath(head, "/b")), true)!.bytes[5], "b".charCodeAt(0));
});

test("a request is kept neither when it comes once, nor when it is long, nor when HTTP/1 cannot say it", () => {
  const head = new Request(GET);
  encodeRequest(head, true);
  assert.equal(head.http1Memo, null);
  const long = new Request({ ...GET, fields: ["Host", "shop", "X", "y".repeat(2_048)] });
  for (let i = 0; i < 3; i++) encodeRequest(long, true);
  assert.equal(long.http1Memo, null);
  const odd = new Request({ ...GET, path: "/a b" });
  for (let i = 0; i < 3; i++) assert.equal(encodeRequest(odd, true), null);
});

test("an answer that repeats is encoded for HTTP/1 once, but anew where something else is added to it", () => {
  const head = responseFromHttp2([":status", "200", "x", "y"], "foreign");
  const plain = "HTTP/1.1 200 OK\r\nx: y\r\n\r\n";
  for (let i = 0; i < 3; i++) assert.equal(text(encodeResponse(head, Added.NOTHING)), plain);
  assert.equal(encodeResponse(head, Added.NOTHING), encodeResponse(head, Added.NOTHING));
  const closing = "HTTP/1.1 200 OK\r\nx: y\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
  for (let i = 0; i < 3; i++) {
    assert.equal(text(encodeResponse(head, Added.NO_LENGTH | Added.CLOSE)), closing);
    assert.equal(text(encodeResponse(head, Added.NOTHING)), plain);
  }
  assert.deepEqual(head.fields, ["x", "y"]);
});

test("an answer that repeats is put into HTTP/2 once for each carriage, and its fields stay as they are", () => {
  const head = responseFromHttp2([":status", "200", "x", "y"], "pillion");
  const native = responseToHttp2(head, "native");
  assert.equal(responseToHttp2(head, "native"), native);
  assert.deepEqual(responseToHttp2(head, "upgraded"), [
    ":status",
    "200",
    "x",
    "y",
    "l5d-orig-proto",
    "HTTP/1.1",
  ]);
  assert.deepEqual(responseToHttp2(head, "native"), native);
  assert.deepEqual(native, [":status", "200", "x", "y"]);
});

test("a head made from another one remembers nothing of it", () => {
  const head = requestFromHttp2(
    [":method", "GET", ":scheme", "http", ":path", "/a", ":authority", "shop"],
    "foreign",
    null,
  );
  for (let i = 0; i < 3; i++) encodeRequest(head, true);
  assert.notEqual(head.http1Memo, null);
  assert.equal(new Request(withPath(head, "/b")).http1Memo, null);
});

test("a request's fields go out as they are only where nothing has to be said beside them", () => {
  const sent = (change: Partial<RequestHead>, last = true): string =>
    text(encodeRequest(new Request({ ...GET, ...change }), last)!.bytes);
  const line = "GET /a HTTP/1.1\r\n";
  assert.equal(sent({ fields: ["hOst", "shop", "X", ""] }), `${line}hOst: shop\r\nX: \r\n\r\n`);
  assert.equal(sent({ fields: ["X", "y"] }), `${line}Host: shop\r\nX: y\r\n\r\n`);
  assert.equal(
    sent({ fields: ["Host", "shop", "Transfer-Encoding", "chunked"] }),
    `${line}Host: shop\r\n\r\n`,
    "no body follows",
  );
  assert.equal(
    sent({ fields: ["Host", "shop", "Content-Length", "3"] }, false),
    `${line}Host: shop\r\nContent-Length: 3\r\n\r\n`,
  );
  assert.equal(
    sent({ fields: ["Host", "shop"] }, false),
    `${line}Host: shop\r\nTransfer-Encoding: chunked\r\n\r\n`,
  );
  assert.equal(
    sent({ version: "1.0" }),
    "GET /a HTTP/1.0\r\nHost: shop\r\nAccept: */*\r\nConnection: keep-alive\r\n\r\n",
  );
  assert.equal(
    sent({ version: "2", fields: ["host", "shop", "cookie", "a", "cookie", "b"] }),
    `${line}host: shop\r\ncookie: a; b\r\n\r\n`,
  );
});

test("an answer whose head repeats is another one where its method frames it otherwise, and after an interim one", () => {
  const clock = new ManualClock();
  const [near, server] = memoryPair(clock);
  const heads: ResponseHead[] = [];
  const bodies: string[] = [];
  const client = new Http1Client(near, clock, { idle: () => {}, gone: () => {} });
  server.setHandler({ onData() {}, onEnd() {}, onDrain() {}, onClose() {} });
  const ask = (method: string, answer: string): void => {
    const reply = new RecordingReply();
    reply.head = (head) => void heads.push(head);
    client.call(new Request({ ...GET, method }), true, reply);
    clock.settle();
    server.write(latin1Bytes(answer));
    clock.settle();
    bodies.push(reply.body_);
  };
  const hinted = "HTTP/1.1 200 OK\r\nX: y\r\nContent-Length: 1\r\n\r\n";
  // What a connection brings first is not remembered.
  ask("GET", `${hinted}a`);
  ask("GET", `${hinted}a`);
  ask("GET", `${hinted}b`);
  ask("HEAD", hinted);
  ask("GET", `HTTP/1.1 103 Early Hints\r\nX: y\r\n\r\n${hinted}c`);
  const open = "HTTP/1.1 200 OK\r\nX: y\r\n\r\n";
  ask("HEAD", open);
  ask("GET", `${open}to the end`);
  assert.deepEqual(bodies, ["a", "a", "b", "", "c", "", "to the end"]);
  assert.equal(heads[1], heads[2], "the very head");
  assert.equal(heads[2], heads[3]);
  assert.deepEqual(
    heads.map(({ endsWithConnection }) => endsWithConnection),
    [false, false, false, false, false, false, true],
  );
});
