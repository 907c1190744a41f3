import assert from "node:assert/strict";
import { test } from "node:test";
import type { ConnHandler } from "#/base/conn.ts";
import { Http1Client } from "./http1-client.ts";
import { Http1Server } from "./http1-server.ts";
import { ManualClock, memoryPair, RecordingReply, ScriptedService } from "./testing.ts";
import { Request, requestToHttp1 } from "./translate.ts";

const NOBODY: ConnHandler = { onData() {}, onEnd() {}, onDrain() {}, onClose() {} };

/** What an application gets of these fields, and whether the connection could turn over. */
function passed(...lines: string[]): { fields: string[]; upgrade: string | null } {
  const clock = new ManualClock();
  const [client, server] = memoryPair(clock);
  client.setHandler(NOBODY);
  const service = new ScriptedService();
  new Http1Server(server, service, clock, () => {});
  client.write(Buffer.from(["GET / HTTP/1.1", "Host: x", ...lines, "", ""].join("\r\n")));
  clock.settle();
  const { head } = service.calls[0]!;
  return { fields: requestToHttp1(head, true).fields.slice(2), upgrade: head.upgrade };
}

test("an offer of h2c is never passed on, alone or in a list (CVE-2022-41721)", () => {
  const settings = "HTTP2-Settings: AAMAAABk";
  for (const offer of ["h2c", "H2C", "h2c, TLS/1.3", " h2c ,h2c"])
    assert.deepEqual(passed("Connection: Upgrade, HTTP2-Settings", `Upgrade: ${offer}`, settings), {
      fields: [],
      upgrade: null,
    });
  assert.deepEqual(passed("Connection: Upgrade, HTTP2-Settings", "Upgrade: h2c, websocket", settings), {
    fields: ["Connection", "Upgrade", "Upgrade", "websocket"],
    upgrade: "websocket",
  });
  assert.deepEqual(passed("Upgrade: h2c", "Upgrade: websocket", "Connection: upgrade"), {
    fields: ["Upgrade", "websocket", "Connection", "upgrade"],
    upgrade: "websocket",
  });
});

test("an offer of TLS is ignored and not refused, and unknown words are the server's to know (RFC 9110 §7.8)", () => {
  assert.deepEqual(passed("Upgrade: TLS/1.2", "Connection: Upgrade"), { fields: [], upgrade: null });
  assert.deepEqual(passed("UPGRADE: foo/2", "X: y", "connection: keep-alive, Upgrade"), {
    fields: ["UPGRADE", "foo/2", "X", "y", "connection", "keep-alive, Upgrade"],
    upgrade: "foo/2",
  });
  assert.deepEqual(passed("Upgrade: foo", "Connection: close, upgrade, x-hop", "X-Hop: 1"), {
    fields: ["Upgrade", "foo", "Connection", "Upgrade"],
    upgrade: "foo",
  });
  // Without Connection it is no offer.
  assert.deepEqual(passed("Upgrade: websocket"), { fields: [], upgrade: null });
});

test("a switch to what was not offered is refused (RFC 9110 §7.8)", () => {
  const request = new Request({
    method: "GET",
    scheme: "http",
    authority: "x",
    path: "/",
    version: "1.1",
    absoluteForm: false,
    upgrade: "websocket",
    fields: ["Host", "x", "Connection", "Upgrade", "Upgrade", "websocket"],
  });
  for (const [protocol, events] of [
    ["WebSocket", ["head 101"]],
    ["h2c", ["fail PROTOCOL"]],
    ["websocket, h2c", ["fail PROTOCOL"]],
  ] as const) {
    const clock = new ManualClock();
    const [ours, theirs] = memoryPair(clock);
    theirs.setHandler(NOBODY);
    const client = new Http1Client(ours, clock, { idle: () => {}, gone: () => {} });
    const reply = new RecordingReply();
    client.call(request, false, reply);
    clock.settle();
    theirs.write(
      Buffer.from(`HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: ${protocol}\r\n\r\n`),
    );
    clock.settle();
    assert.deepEqual(reply.events, events);
  }
});
