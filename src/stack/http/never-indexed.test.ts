import assert from "node:assert/strict";
import { test } from "node:test";
import type { Fields } from "#/base/fields.ts";
import { Event, Http2Connection } from "#/wire/http2/connection.ts";
import { Http2Client } from "./http2-client.ts";
import { Http2Server } from "./http2-server.ts";
import { ManualClock, memoryPair, type MemoryConn } from "./testing.ts";

/** A machine of HTTP/2 at the end of a connection, and the sections that it read. */
class Program {
  readonly machine: Http2Connection;
  readonly sections: Fields[] = [];
  readonly #conn: MemoryConn;

  constructor(role: "client" | "server", conn: MemoryConn) {
    this.machine = new Http2Connection({ role });
    this.#conn = conn;
    conn.setHandler({
      onData: (bytes) => {
        this.machine.feed(bytes);
        for (let event = this.machine.next(); event !== Event.NOTHING; event = this.machine.next())
          if (event === Event.HEADERS || event === Event.TRAILERS) this.sections.push(this.machine.fields);
        this.write();
      },
      onEnd: () => {},
      onDrain: () => {},
      onClose: () => {},
    });
    this.write();
  }

  write(): void {
    const out = this.machine.takeOutput();
    if (out !== null) this.#conn.write(out);
  }
}

function secret(...fields: string[]): Fields {
  const list: Fields = fields;
  list.neverIndexed = new Set(["x-pin"]);
  return list;
}

test("a never-indexed field stays so through a sidecar, in heads and trailers of both directions (RFC 7541 §6.2.3)", () => {
  for (const far of ["application", "sidecar"]) {
    const clock = new ManualClock();
    const meshed = far === "sidecar";
    const [program, inner] = memoryPair(clock);
    const [near, application] = memoryPair(clock);
    const forward = new Http2Client(near, clock, () => {}, { meshed });
    new Http2Server(inner, forward, clock, () => {}, { meshed: false, clientId: null });
    const client = new Program("client", program);
    const server = new Program("server", application);
    clock.settle();

    const get = [":method", "POST", ":scheme", "http", ":path", "/", ":authority", "a"];
    client.machine.request(secret(...get, "x-pin", "1234", "x-plain", "1"), false);
    client.machine.sendTrailers(1, secret("x-pin", "1234"));
    client.write();
    clock.settle();
    server.machine.respond(1, secret(":status", "200", "x-pin", "1234", "x-plain", "1"), false);
    server.machine.sendTrailers(1, secret("x-pin", "1234"));
    server.write();
    clock.settle();
    for (const { sections } of [server, client]) {
      assert.equal(sections.length, 2);
      for (const section of sections) assert.deepEqual(section.neverIndexed, new Set(["x-pin"]));
    }
  }
});
