import { latin1Bytes } from "#/wire/latin1.ts";
import { Event, Http1Reader } from "#/wire/http1/reader.ts";
import { encodeRequestHead, encodeResponseHead } from "#/wire/http1/writer.ts";
import type { MachineCase } from "./machine-case.ts";

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
const NEW_RESPONSE = variants((i) => response(String(i).padStart(2, "0")));

type Role = "request" | "response";

/** Reads each input as one message and gives its head to `use`. */
function reading(
  role: Role,
  inputs: Uint8Array[],
  makeUse: () => (reader: Http1Reader) => void,
): () => number {
  const reader = new Http1Reader({ role });
  const use = makeUse();
  let turn = 0;
  return () => {
    if (role === "response") reader.responseTo("GET");
    reader.feed(inputs[turn++ % VARIANTS] as Uint8Array);
    for (let kind = reader.next(); kind !== Event.NOTHING; kind = reader.next()) {
      if (kind === Event.HEAD) use(reader);
      else if (kind === Event.ERROR) throw reader.error ?? new Error("no error");
    }
    return 1;
  };
}

function chunkedBody(chunkBytes: number): () => number {
  const reader = new Http1Reader({ role: "request" });
  reader.feed(latin1Bytes("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"));
  reader.next();
  const body = latin1Bytes(
    `${chunkBytes.toString(16)}\r\n${"x".repeat(chunkBytes)}\r\n`.repeat(16_384 / chunkBytes),
  );
  return () => {
    reader.feed(body);
    while (reader.next() !== Event.NOTHING);
    return 1;
  };
}

const onlyRead = () => (reader: Http1Reader) => void reader.fields;
const encodedAnew = () => (reader: Http1Reader) => void encodeRequestHead(reader);
const answerEncodedAnew = () => (reader: Http1Reader) => void encodeResponseHead(reader);

const heads: readonly [name: string, role: Role, inputs: Uint8Array[], use: typeof onlyRead][] = [
  ["request: the same again, read", "request", SAME, onlyRead],
  ["request: the same again, read and encoded anew", "request", SAME, encodedAnew],
  ["request: new target, read", "request", NEW_TARGET, onlyRead],
  ["request: new fields, read", "request", NEW_FIELDS, onlyRead],
  ["request: new target and fields, read", "request", NEW_BOTH, onlyRead],
  ["request: new target and fields, read and encoded", "request", NEW_BOTH, encodedAnew],
  ["response: new date, read", "response", NEW_RESPONSE, onlyRead],
  ["response: new date, read and encoded", "response", NEW_RESPONSE, answerEncodedAnew],
];

/** The HTTP/1 machine by itself, one head after another. */
export const CASES: readonly MachineCase[] = [
  ...heads.map(([name, role, inputs, use]): MachineCase => ({
    name: `${name}`,
    unit: "head",
    make: () => reading(role, inputs, use),
  })),
  ...[8, 1024].map((chunkBytes): MachineCase => ({
    name: `http1 body in chunks of ${chunkBytes} bytes`,
    unit: "16 KiB",
    make: () => chunkedBody(chunkBytes),
  })),
];
