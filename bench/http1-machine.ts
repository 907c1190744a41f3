/**
 * What the HTTP/1 machine costs by itself: no sockets, one head after another.
 *
 *     node bench/http1-machine.ts [milliseconds per case, default 300]
 *
 * Prints nanoseconds per head (or per 16 KiB of body), best and median of the rounds. Wall time is noisy on a shared machine;
 * compare within one run.
 */
import { latin1Bytes } from "#/wire/latin1.ts";
import { Event, Http1Reader } from "#/wire/http1/reader.ts";
import { HeadEncoder, encodeRequestHead, encodeResponseHead } from "#/wire/http1/writer.ts";

const caseMs = Number(process.argv[2] ?? "300");
const ROUNDS = 9;
/** Prepared inputs that a case goes through in turn, so that "new" really is new. */
const VARIANTS = 64;

const request = (target: string, id: string): Uint8Array =>
  latin1Bytes(
    `GET ${target} HTTP/1.1\r\nHost: catalogue.shop.svc.cluster.local\r\nUser-Agent: Mozilla/5.0 (X11; Linux x86_64) Load/1.0\r\n` +
      `Accept: */*\r\nAccept-Encoding: gzip, deflate\r\nX-Request-Id: ${id}\r\n` +
      "Authorization: Bearer abcdefghijklmnopqrstuvwxyz0123456789\r\nConnection: keep-alive\r\nCache-Control: no-cache\r\n\r\n",
  );
const response = (date: string): Uint8Array =>
  latin1Bytes(
    `HTTP/1.1 200 OK\r\nServer: nginx/1.22.1\r\nDate: Mon, 23 Nov 2026 05:00:${date} GMT\r\nContent-Type: application/json\r\n` +
      "Content-Length: 0\r\nConnection: keep-alive\r\nVary: Accept-Encoding\r\n\r\n",
  );

const variants = (make: (i: number) => Uint8Array): Uint8Array[] =>
  Array.from({ length: VARIANTS }, (_, i) => make(i));
const uuid = (i: number): string => `5f3c1d2e-0a1b-4c5d-8e9f-0011223344${10 + i}`;

const SAME = variants(() => request("/api/items/17", uuid(0)));
const NEW_TARGET = variants((i) => request(`/api/items/${i}`, uuid(0)));
const NEW_FIELDS = variants((i) => request("/api/items/17", uuid(i)));
const NEW_BOTH = variants((i) => request(`/api/items/${i}`, uuid(i)));
const SAME_RESPONSE = variants(() => response("01"));
const NEW_RESPONSE = variants((i) => response(String(i).padStart(2, "0")));

/** Reads each input as one message and gives its head to `use`. */
function reading(
  role: "request" | "response",
  inputs: Uint8Array[],
  use: (reader: Http1Reader) => number,
): () => number {
  const reader = new Http1Reader({ role });
  let turn = 0;
  return () => {
    if (role === "response") reader.responseTo("GET");
    reader.feed(inputs[turn++ % VARIANTS] as Uint8Array);
    let sum = 0;
    for (let kind = reader.next(); kind !== Event.NOTHING; kind = reader.next()) {
      if (kind === Event.HEAD) sum += use(reader);
      else if (kind === Event.ERROR) throw reader.error ?? new Error("no error");
    }
    return sum;
  };
}

function chunkedBody(chunkBytes: number): () => number {
  const reader = new Http1Reader({ role: "request" });
  reader.feed(latin1Bytes("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"));
  reader.next();
  const chunk = `${chunkBytes.toString(16)}\r\n${"x".repeat(chunkBytes)}\r\n`;
  const body = latin1Bytes(chunk.repeat(16384 / chunkBytes));
  return () => {
    reader.feed(body);
    let sum = 0;
    for (let kind = reader.next(); kind !== Event.NOTHING; kind = reader.next())
      sum += reader.stop - reader.start;
    return sum;
  };
}

const length = (reader: Http1Reader): number => reader.fields.length;
const keeping = (): ((reader: Http1Reader) => number) => {
  const encoder = new HeadEncoder();
  return (reader) => encoder.request(reader).length;
};
const keepingResponse = (): ((reader: Http1Reader) => number) => {
  const encoder = new HeadEncoder();
  return (reader) => encoder.response(reader).length;
};

const CASES: readonly [name: string, run: () => number][] = [
  ["request: the same again, read", reading("request", SAME, length)],
  [
    "request: the same again, read and encoded anew",
    reading("request", SAME, (r) => encodeRequestHead(r).length),
  ],
  ["request: the same again, read and encoded by HeadEncoder", reading("request", SAME, keeping())],
  ["request: new target, read", reading("request", NEW_TARGET, length)],
  ["request: new target, read and encoded by HeadEncoder", reading("request", NEW_TARGET, keeping())],
  ["request: new fields, read", reading("request", NEW_FIELDS, length)],
  ["request: new target and fields, read", reading("request", NEW_BOTH, length)],
  [
    "request: new target and fields, read and encoded",
    reading("request", NEW_BOTH, (r) => encodeRequestHead(r).length),
  ],
  [
    "response: the same again, read and encoded by HeadEncoder",
    reading("response", SAME_RESPONSE, keepingResponse()),
  ],
  ["response: new date, read", reading("response", NEW_RESPONSE, length)],
  [
    "response: new date, read and encoded",
    reading("response", NEW_RESPONSE, (r) => encodeResponseHead(r).length),
  ],
  ["16 KiB of body in chunks of 8 bytes", chunkedBody(8)],
  ["16 KiB of body in chunks of 1 KiB", chunkedBody(1024)],
];

let sink = 0;
for (const [name, run] of CASES) {
  for (let i = 0; i < 20_000; i++) sink += run();
  const rounds: number[] = [];
  for (let round = 0; round < ROUNDS; round++) {
    const stopAt = process.hrtime.bigint() + BigInt(Math.round((caseMs * 1e6) / ROUNDS));
    const startedAt = process.hrtime.bigint();
    let count = 0;
    while (process.hrtime.bigint() < stopAt) {
      for (let i = 0; i < 500; i++) sink += run();
      count += 500;
    }
    rounds.push(Number(process.hrtime.bigint() - startedAt) / count);
  }
  rounds.sort((a, b) => a - b);
  console.log(`${name.padEnd(60)} best ${fixed(rounds[0])} ns   median ${fixed(rounds[ROUNDS >> 1])} ns`);
}
if (sink < 0) console.log(sink);

function fixed(value: number | undefined): string {
  return (value ?? 0).toFixed(0).padStart(6);
}
