import assert from "node:assert/strict";
import { once } from "node:events";
import {
  connect,
  createServer,
  type ClientHttp2Session,
  type Http2Server,
  type ServerHttp2Stream,
} from "node:http2";
import { Duplex } from "node:stream";
import { test } from "node:test";
import { Event, Http2Connection } from "./connection.ts";

/** Node's own HTTP/2 at one end of a pipe in memory, our machine at the other. */
class MachineEnd {
  readonly machine: Http2Connection;
  /** What Node holds. */
  readonly stream: Duplex;
  /** Called for each event. */
  onEvent: (event: number) => void = () => {};

  constructor(role: "client" | "server") {
    this.machine = new Http2Connection({ role });
    this.stream = new Duplex({
      read: () => {},
      write: (chunk: Buffer, _encoding, done) => {
        this.machine.feed(Buffer.from(chunk));
        this.pump();
        done();
      },
      final: (done) => {
        this.machine.end();
        this.stream.push(null);
        done();
      },
    });
    queueMicrotask(() => this.pump());
  }

  pump(): void {
    for (;;) {
      for (let event = this.machine.next(); event !== Event.NOTHING; event = this.machine.next())
        this.onEvent(event);
      const out = this.machine.takeOutput();
      if (out === null) return;
      this.stream.push(out);
    }
  }
}

/** Sends a body as windows allow. */
class Body {
  readonly #end: MachineEnd;
  readonly #id: number;
  readonly #bytes: Uint8Array;
  #at = 0;
  constructor(end: MachineEnd, id: number, bytes: Uint8Array) {
    this.#end = end;
    this.#id = id;
    this.#bytes = bytes;
  }
  write(): void {
    this.#at += this.#end.machine.sendData(this.#id, this.#bytes, this.#at, this.#bytes.length, true);
  }
}

const BODY = Buffer.alloc(300_000, "0123456789abcdef");

async function withNodeServer(
  onStream: (stream: ServerHttp2Stream, headers: Record<string, unknown>) => void,
  run: (end: MachineEnd) => Promise<void>,
): Promise<void> {
  const server: Http2Server = createServer();
  server.on("stream", onStream);
  const end = new MachineEnd("client");
  server.emit("connection", end.stream);
  try {
    await run(end);
  } finally {
    end.stream.destroy();
    server.close();
  }
}

test("as a client, agrees with node:http2 as the server", async () => {
  let seen: Record<string, unknown> = {};
  await withNodeServer(
    (stream, headers) => {
      seen = headers;
      const parts: Buffer[] = [];
      stream.on("data", (part: Buffer) => parts.push(part));
      stream.on("end", () => {
        stream.additionalHeaders({ ":status": 103, link: "</a>" });
        stream.respond(
          { ":status": 200, "x-bytes": String(Buffer.concat(parts).length) },
          { waitForTrailers: true },
        );
        stream.on("wantTrailers", () => stream.sendTrailers({ "x-sum": "42" }));
        stream.end(Buffer.concat(parts));
      });
    },
    async (end) => {
      const { machine } = end;
      const events: number[] = [];
      const received: Buffer[] = [];
      let body: Body | null = null;
      const { promise, resolve, reject } = Promise.withResolvers<void>();
      end.onEvent = (event) => {
        if (event !== Event.DATA && event !== Event.WRITABLE) events.push(event);
        if (event === Event.SETTINGS) {
          const fields = [
            ":method",
            "POST",
            ":scheme",
            "http",
            ":authority",
            "a.example",
            ":path",
            "/x?y=1",
            "x-own",
            "1",
          ];
          body = new Body(end, machine.request(fields, false), BODY);
          body.write();
        } else if (event === Event.WRITABLE) body!.write();
        else if (event === Event.INFORMATIONAL)
          assert.deepEqual(machine.fields, [":status", "103", "link", "</a>"]);
        else if (event === Event.HEADERS) {
          assert.deepEqual(machine.fields.slice(0, 4), [":status", "200", "x-bytes", String(BODY.length)]);
        } else if (event === Event.DATA) {
          received.push(Buffer.from(machine.bytes.subarray(machine.start, machine.stop)));
          machine.consumed(machine.streamId, machine.stop - machine.start);
        } else if (event === Event.TRAILERS) {
          assert.deepEqual(machine.fields, ["x-sum", "42"]);
          resolve();
        } else reject(machine.error ?? new Error(`event ${event}`));
      };
      await promise;
      assert.deepEqual(events, [Event.SETTINGS, Event.INFORMATIONAL, Event.HEADERS, Event.TRAILERS]);
      assert.ok(Buffer.concat(received).equals(BODY));
      assert.equal(machine.activeStreams, 0);
    },
  );
  assert.equal(seen[":path"], "/x?y=1");
  assert.equal(seen["x-own"], "1");
});

async function withNodeClient(
  run: (session: ClientHttp2Session, end: MachineEnd) => Promise<void>,
): Promise<void> {
  const end = new MachineEnd("server");
  const session = connect("http://a.example", { createConnection: () => end.stream });
  try {
    await run(session, end);
  } finally {
    session.destroy();
    end.stream.destroy();
  }
}

test("as a server, agrees with node:http2 as the client, many streams at once", async () => {
  await withNodeClient(async (session, end) => {
    const { machine } = end;
    const bodies = new Map<number, Body>();
    end.onEvent = (event) => {
      const { streamId } = machine;
      if (event === Event.HEADERS) {
        machine.respond(
          streamId,
          [":status", "200", "x-path", machine.fields[machine.fields.indexOf(":path") + 1]!],
          false,
        );
      } else if (event === Event.DATA) {
        machine.consumed(streamId, machine.stop - machine.start);
        if (!machine.endStream) return;
        const body = new Body(end, streamId, BODY);
        bodies.set(streamId, body);
        body.write();
      } else if (event === Event.WRITABLE) bodies.get(streamId)!.write();
      else if (event === Event.ERROR) assert.fail(machine.error!.message);
    };
    await Promise.all(
      Array.from({ length: 12 }, async (_, i) => {
        const stream = session.request({ ":method": "POST", ":path": `/${i}`, "x-round": String(i) });
        stream.end(BODY);
        const [headers] = (await once(stream, "response")) as [Record<string, unknown>];
        assert.equal(headers["x-path"], `/${i}`);
        const parts: Buffer[] = [];
        for await (const part of stream) parts.push(part as Buffer);
        assert.ok(Buffer.concat(parts).equals(BODY));
      }),
    );
    assert.equal(machine.activeStreams, 0);
  });
});

test("PING, RST_STREAM and GOAWAY mean the same to node:http2", async () => {
  await withNodeClient(async (session, end) => {
    const { machine } = end;
    const events: number[] = [];
    end.onEvent = (event) => void events.push(event);
    const { promise, resolve, reject } = Promise.withResolvers<void>();
    session.once("connect", () => {
      session.ping((error) => (error === null ? resolve() : reject(error)));
    });
    await promise;
    const stream = session.request({ ":path": "/" });
    stream.on("error", () => {});
    const closed = new Promise((done) => stream.once("close", done));
    while (!events.includes(Event.HEADERS)) await new Promise(setImmediate);
    machine.reset(1, 0xb);
    end.pump();
    await closed;
    assert.equal(stream.rstCode, 0xb);
    const away = once(session, "goaway");
    machine.goAway(0);
    end.pump();
    assert.equal((await away)[0], 0);
  });
});
