/**
 * What the protocol machines cost by themselves: a client machine and a server machine joined in memory, no sockets.
 *
 *     node bench/machines.ts [seconds per case, default 1] [only cases with this in their name]
 *
 * Prints nanoseconds per request for both machines together, best and median of the rounds. Wall time is noisy on a
 * shared machine; compare within one run.
 */
import { Event, Http2Connection } from "#/wire/http2/connection.ts";
import { ByteWriter } from "#/wire/hpack/byte-writer.ts";
import { HpackDecoder } from "#/wire/hpack/decoder.ts";
import { HpackEncoder } from "#/wire/hpack/encoder.ts";

const seconds = Number(process.argv[2] ?? "1");
const only = process.argv[3] ?? "";

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

interface Case {
  readonly name: string;
  readonly streams: number;
  readonly requestBytes: number;
  readonly responseBytes: number;
  /** A path and a trace context of its own for each request. */
  readonly unique: boolean;
}

const cases: readonly Case[] = [
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

function report(name: string, make: () => Pair): void {
  const pair = make();
  const rounds: number[] = [];
  const deadline = performance.now() + seconds * 1000;
  pair.run(pair.batch);
  pair.run(pair.batch);
  while (performance.now() < deadline || rounds.length < 3) {
    const before = performance.now();
    pair.run(pair.batch);
    rounds.push(((performance.now() - before) * 1e6) / pair.batch);
  }
  rounds.sort((a, b) => a - b);
  const best = rounds[0]!;
  const median = rounds[rounds.length >> 1]!;
  const rate = Math.round(1e9 / median).toLocaleString("en");
  console.log(
    `${name.padEnd(40)} best ${best.toFixed(0).padStart(9)} ns  median ${median.toFixed(0).padStart(9)} ns  ${rate.padStart(11)}/s`,
  );
}

/** A client and a server that answers every request at once. */
class Pair {
  readonly batch: number;
  readonly #case: Case;
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

  constructor(options: Case) {
    this.#case = options;
    this.batch = options.responseBytes > 100_000 ? 100 : 20_000;
    this.#requestBody = new Uint8Array(options.requestBytes).fill(97);
    this.#responseBody = new Uint8Array(options.responseBytes).fill(98);
    this.#contentLength = String(options.responseBytes);
    this.#turn();
    this.#turn();
  }

  run(requests: number): void {
    const until = this.#done + requests;
    while (this.#done < until) {
      while (this.#open < this.#case.streams) this.#request();
      this.#turn();
    }
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

/** HPACK alone, a repeated block. */
function blocks(): void {
  const out = new ByteWriter();
  const encoder = new HpackEncoder({ tableBytesMax: 4096 });
  const decoder = new HpackDecoder({ tableBytesMax: 4096, listBytesMax: 65536 });
  const count = 50_000;
  let encodeNs = Infinity;
  let decodeNs = Infinity;
  for (let warm = 0; warm < 3; warm++) {
    encoder.encode(REQUEST, out, out.at);
    const block = out.take()!;
    decoder.decode(block, 0, block.length);
  }
  encoder.encode(REQUEST, out, out.at);
  const block = out.take()!;
  for (let round = 0; round < 20; round++) {
    let before = performance.now();
    for (let i = 0; i < count; i++) {
      encoder.encode(REQUEST, out, out.at);
      if ((i & 255) === 0) out.take();
    }
    encodeNs = Math.min(encodeNs, ((performance.now() - before) * 1e6) / count);
    out.take();
    before = performance.now();
    for (let i = 0; i < count; i++) decoder.decode(block, 0, block.length);
    decodeNs = Math.min(decodeNs, ((performance.now() - before) * 1e6) / count);
  }
  console.log(
    `HPACK block of ${REQUEST.length / 2} fields, repeated: encode ${encodeNs.toFixed(0)} ns, decode ${decodeNs.toFixed(0)} ns, ${block.length} bytes`,
  );
}

for (const each of cases) if (each.name.includes(only)) report(each.name, () => new Pair(each));
blocks();
