import assert from "node:assert/strict";
import test from "node:test";
import { setFlagsFromString } from "node:v8";
import { runInNewContext } from "node:vm";
import { Event as Http1Event, Http1Reader } from "./http1/reader.ts";
import { Event as Http2Event, Http2Connection } from "./http2/connection.ts";

/**
 * A connection may be idle for hours. What it read last is a view of a buffer of Node's, of 64 KiB under TLS, so that one
 * reference left in a machine costs every idle connection as much.
 */
setFlagsFromString("--expose-gc");
const collect = runInNewContext("gc") as () => void;

/** Feeds bytes in memory of their own, and tells whether that memory is still held a turn later, beside the machine. */
async function isHeld(bytes: Uint8Array, read: (bytes: Uint8Array) => object): Promise<boolean> {
  const { machine, memory } = feed(bytes, read);
  await new Promise((resolve) => setImmediate(resolve));
  collect();
  const held = memory.deref() !== undefined;
  assert.notEqual(machine, null);
  return held;
}

function feed(
  bytes: Uint8Array,
  read: (bytes: Uint8Array) => object,
): { machine: object; memory: WeakRef<ArrayBuffer> } {
  const memory = new ArrayBuffer(65_536);
  const view = Buffer.from(memory, 100, bytes.length);
  view.set(bytes);
  return { machine: read(view), memory: new WeakRef(memory) };
}

test("an HTTP/1 reader keeps nothing of a request that is over", async () => {
  const held = await isHeld(
    Buffer.from("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nok"),
    (bytes) => {
      const reader = new Http1Reader({ role: "request" });
      reader.feed(bytes);
      while (reader.next() !== Http1Event.NOTHING);
      return reader;
    },
  );
  assert.equal(held, false);
});

test("an HTTP/2 connection keeps nothing of heads and bodies that it has passed on", async () => {
  const client = new Http2Connection({ role: "client" });
  const id = client.request([":method", "POST", ":scheme", "http", ":path", "/", "x-a", "b"], false);
  const body = Buffer.from("hello");
  client.sendData(id, body, 0, body.length, true);
  const held = await isHeld(client.takeOutput() as Uint8Array, (bytes) => {
    const server = new Http2Connection({ role: "server" });
    server.feed(bytes);
    while (server.next() !== Http2Event.NOTHING);
    return server;
  });
  assert.equal(held, false);
});
