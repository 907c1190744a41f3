import assert from "node:assert/strict";
import { Event, Http2Connection } from "#/wire/http2/connection.ts";
import { ByteWriter } from "#/wire/hpack/byte-writer.ts";
import { HpackDecoder } from "#/wire/hpack/decoder.ts";
import { HpackEncoder } from "#/wire/hpack/encoder.ts";
import type { MachineCase } from "./machine-case.ts";

const REQUEST = [
  ":method",
  "GET",
  ":scheme",
  "http",
  ":authority",
  "catalogue.shop.svc.cluster.local",
  ":path",
  "/api/v1/items?limit=20",
  "user-agent",
  "curl/8.5.0",
  "accept",
  "*/*",
  "l5d-client-id",
  "web.shop.serviceaccount.identity.mesh.cluster.local",
  "x-forwarded-for",
  "10.42.0.17",
];
const RESPONSE = [
  ":status",
  "200",
  "server",
  "nginx/1.22.1",
  "content-type",
  "application/json",
  "content-length",
  "1024",
  "date",
  "Mon, 23 Nov 2026 04:55:00 GMT",
  "cache-control",
  "no-store",
];

interface Exchange {
  readonly name: string;
  readonly streams: number;
  readonly requestBytes: number;
  readonly responseBytes: number;
  /** A path and a trace context of its own for each request. */
  readonly unique: boolean;
}

const EXCHANGES: readonly Exchange[] = [
  { name: "GET, 1 KiB answer, 1 stream", streams: 1, requestBytes: 0, responseBytes: 1024, unique: false },
  { name: "GET, 1 KiB answer, 16 streams", streams: 16, requestBytes: 0, responseBytes: 1024, unique: false },
  { name: "… unique path and trace", streams: 16, requestBytes: 0, responseBytes: 1024, unique: true },
  {
    name: "POST 1 KiB, 1 KiB answer, 16 streams",
    streams: 16,
    requestBytes: 1024,
    responseBytes: 1024,
    unique: false,
  },
  {
    name: "GET, 1 MiB answer, 4 streams",
    streams: 4,
    requestBytes: 0,
    responseBytes: 1 << 20,
    unique: false,
  },
];

/** A client and a server that answers every request at once. */
class Pair {
  readonly #case: Exchange;
  #client = new Http2Connection({ role: "client" });
  #server = new Http2Connection({ role: "server" });
  readonly #requestBody: Uint8Array;
  readonly #responseBody: Uint8Array;
  readonly #contentLength: string;
  /** How much of its answer each stream has sent. */
  readonly #sent = new Map<number, number>();
  #open = 0;
  #done = 0;
  #requests = 0;

  constructor(options: Exchange) {
    this.#case = options;
    this.#requestBody = new Uint8Array(options.requestBytes).fill(97);
    this.#responseBody = new Uint8Array(options.responseBytes).fill(98);
    this.#contentLength = String(options.responseBytes);
    this.#turn();
    this.#turn();
  }

  /** Until at least one request more is answered; how many were. */
  run(): number {
    const before = this.#done;
    while (this.#done === before) {
      while (this.#open < this.#case.streams) this.#request();
      this.#turn();
    }
    return this.#done - before;
  }

  #request(): void {
    const { requestBytes, unique } = this.#case;
    const count = ++this.#requests;
    // A proxy receives its fields as a fresh array each time.
    const fields = REQUEST.slice();
    if (unique) {
      fields[7] = `/api/v1/items/${count}?limit=20`;
      fields.push(
        "traceparent",
        `00-0af7651916cd43dd8448eb211c80319c-${(count + 1e12).toString(16).padStart(16, "0")}-01`,
      );
    }
    const id = this.#client.request(fields, requestBytes === 0);
    if (id === 0) throw new Error("no stream");
    if (
      requestBytes > 0 &&
      this.#client.sendData(id, this.#requestBody, 0, requestBytes, true) !== requestBytes
    ) {
      throw new Error("request does not fit");
    }
    this.#open++;
  }

  #turn(): void {
    const up = this.#client.takeOutput();
    if (up !== null) this.#server.feed(up);
    this.#serve();
    const down = this.#server.takeOutput();
    this.#serve();
    if (down !== null) this.#client.feed(down);
    this.#receive();
  }

  #serve(): void {
    const server = this.#server;
    for (let event = server.next(); event !== Event.NOTHING; event = server.next()) {
      if (event === Event.HEADERS) {
        if (server.endStream) this.#answer(server.streamId);
      } else if (event === Event.DATA) {
        const { streamId, endStream } = server;
        server.consumed(streamId, server.stop - server.start);
        if (endStream) this.#answer(streamId);
      } else if (event === Event.WRITABLE) {
        this.#send(server.streamId);
      } else if (event === Event.ERROR) {
        throw server.error!;
      }
    }
  }

  #answer(id: number): void {
    const fields = RESPONSE.slice();
    fields[7] = this.#contentLength;
    this.#server.respond(id, fields, false);
    this.#send(id);
  }

  #send(id: number): void {
    const { responseBytes } = this.#case;
    const from = this.#sent.get(id) ?? 0;
    const sent = from + this.#server.sendData(id, this.#responseBody, from, responseBytes, true);
    if (sent < responseBytes) this.#sent.set(id, sent);
    else if (from > 0) this.#sent.delete(id);
  }

  #receive(): void {
    const client = this.#client;
    for (let event = client.next(); event !== Event.NOTHING; event = client.next()) {
      if (event === Event.DATA) {
        const { streamId, endStream } = client;
        client.consumed(streamId, client.stop - client.start);
        if (endStream) {
          this.#open--;
          this.#done++;
        }
      } else if (event === Event.ERROR) {
        throw client.error!;
      } else if (event === Event.RESET) {
        throw new Error(`stream reset: ${client.reason}`);
      }
    }
  }
}

/** HPACK alone, a block that comes again and again. */
function encoding(): () => number {
  const out = new ByteWriter();
  const encoder = new HpackEncoder({ tableBytesMax: 4096 });
  return () => {
    encoder.encode(REQUEST, out, out.at);
    if (out.at > 16_384) out.take();
    return 1;
  };
}

function decoding(): () => number {
  const out = new ByteWriter();
  const encoder = new HpackEncoder({ tableBytesMax: 4096 });
  const decoder = new HpackDecoder({ tableBytesMax: 4096, listBytesMax: 65_536 });
  const block = (): Buffer => {
    encoder.encode(REQUEST, out, out.at);
    return out.take() ?? assert.fail("an empty block");
  };
  // The first times fill the tables.
  for (let turn = 0; turn < 3; turn++) {
    const first = block();
    decoder.decode(first, 0, first.length);
  }
  const repeated = block();
  return () => {
    decoder.decode(repeated, 0, repeated.length);
    return 1;
  };
}

/** Two HTTP/2 machines joined in memory, and HPACK by itself. */
export const CASES: readonly MachineCase[] = [
  ...EXCHANGES.map((exchange): MachineCase => ({
    name: `${exchange.name}`,
    unit: "request",
    make: () => {
      const pair = new Pair(exchange);
      return () => pair.run();
    },
  })),
  { name: "HPACK, repeated block, encoded", unit: "block", make: encoding },
  { name: "HPACK, repeated block, decoded", unit: "block", make: decoding },
];
