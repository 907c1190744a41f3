import assert from "node:assert/strict";
import { existsSync, readFileSync } from "node:fs";
import { detectHttp } from "#/wire/detect.ts";
import { decodeDns, encodeDns } from "#/wire/dns.ts";
import { encodeGrpcMessage, GrpcFound, GrpcMessageReader } from "#/wire/grpc.ts";
import { Decoded, HpackDecoder } from "#/wire/hpack/decoder.ts";
import { Http1Reader } from "#/wire/http1/reader.ts";
import { readAll } from "#/wire/http1/testing.ts";
import { Event, Http2Connection } from "#/wire/http2/connection.ts";
import { CLIENT_PREFACE } from "#/wire/http2/frame.ts";
import { ProtoReader } from "#/wire/proto.ts";
import { inspectClientHello } from "#/wire/tls-hello.ts";
import { encodeTransportHeader, TransportHeaderReader } from "#/wire/transport-header.ts";
import { corpusFolder } from "../conformance/corpora.ts";
import { readStories } from "../conformance/hpack/stories.ts";
import { readCases } from "../conformance/http1/cases.ts";
import { makeMachine } from "../wire/http2.machine.ts";
import { parseBytes, parseTranscript, type MakeMachine } from "../wire/transcript.ts";
import { carrier } from "./carrier.ts";
import { framesOf, lines, type FuzzMachine } from "./fuzz-machine.ts";
import { hostileApplication, hostileClient } from "./pair.ts";

const NO_PARTS = (): number[] => [];
const joined = (pieces: readonly Uint8Array[]): Buffer => Buffer.concat(pieces);
const text = (bytes: Uint8Array): string => Buffer.from(bytes).toString("latin1");

/** The `in` blocks of the cases of a transcript, whose first word of `machine` is `role`. */
function transcripts(file: string, role: string, make: MakeMachine | null): Uint8Array[] {
  const url = new URL(`../wire/${file}`, import.meta.url);
  return parseTranscript(readFileSync(url, "utf8"))
    .filter(({ blocks }) => (blocks[0]?.lines.join(" ") ?? "").split(/\s+/)[0] === role)
    .map(({ blocks }) => {
      const parser = make?.([role, "raw"]);
      const bytesOf = (line: string): Uint8Array => parser?.parseLine?.(line) ?? parseBytes(line);
      return joined(blocks.filter(({ kind }) => kind === "in").flatMap((block) => block.lines.map(bytesOf)));
    });
}

function http1(role: "request" | "response"): FuzzMachine {
  const limits = { headBytesMax: 2_000, fieldsMax: 40, trailerBytesMax: 500, chunkExtensionBytesMax: 100 };
  return {
    name: `http1-${role}`,
    seeds: () => [
      ...transcripts("http1.md", role, null),
      ...(existsSync(corpusFolder("http1"))
        ? readCases()
            .filter((each) => each.role === role)
            .map(({ input }) => input)
        : []),
    ],
    parts: lines,
    run(pieces) {
      const reader = new Http1Reader({ role, ...limits });
      if (role === "response")
        for (const method of "GET HEAD GET CONNECT GET".split(" ")) reader.responseTo(method);
      const found = readAll(reader, pieces, role, true);
      assert.ok(
        reader.bufferedBytes <= limits.headBytesMax || reader.error !== null,
        "holds more than a head",
      );
      return found;
    },
  };
}

const HTTP2_LIMITS = { maxConcurrentStreams: 20, headerBytesMax: 2_000, headerBlockBytesMax: 4_000 };
const SETTINGS = Buffer.from("000000040000000000", "hex");

function http2(role: "server" | "client"): FuzzMachine {
  const start = role === "server" ? CLIENT_PREFACE.length : 0;
  return {
    name: `http2-${role}`,
    seeds: () => {
      const opening = role === "server" ? [CLIENT_PREFACE, SETTINGS] : [SETTINGS];
      const files = role === "server" ? ["http2.md"] : ["http2.md", "http2-client.md"];
      return files.flatMap((file) =>
        transcripts(file, role, makeMachine).map((bytes) =>
          text(bytes).startsWith("PRI ") ? bytes : joined([...opening, bytes]),
        ),
      );
    },
    parts: (bytes) => framesOf(bytes, start, 9, 0, 3),
    run(pieces) {
      const machine = new Http2Connection({ role, ...HTTP2_LIMITS });
      const found: string[] = [];
      const sent: Uint8Array[] = [];
      const open = [":method", "GET", ":scheme", "http", ":path", "/", ":authority", "a"];
      if (role === "client") for (let i = 0; i < 5; i++) machine.request(open, i % 2 === 0);
      const drain = (): void => {
        for (let event = machine.next(); event !== Event.NOTHING; event = machine.next()) {
          hear(machine, event, found);
          // Somebody answers, so that what comes later meets streams in every state.
          if (role === "server" && event === Event.HEADERS && machine.streamId % 4 === 1) {
            machine.respond(machine.streamId, [":status", "200"], false);
            machine.sendData(machine.streamId, CLIENT_PREFACE, 0, 20, machine.streamId % 8 === 1);
          }
          assert.ok(machine.activeStreams <= HTTP2_LIMITS.maxConcurrentStreams, "too many streams");
        }
        const out = machine.takeOutput();
        if (out !== null) sent.push(out);
      };
      drain();
      for (const piece of pieces) {
        machine.feed(piece);
        drain();
      }
      machine.end();
      drain();
      const sentBytes = joined(sent);
      assert.ok(sentBytes.length < 2_000_000, "sends without end");
      found.push(`sent ${sentBytes.toString("hex")}`);
      return found;
    },
  };
}

function hear(machine: Http2Connection, event: number, found: string[]): void {
  const { streamId, endStream } = machine;
  if (event === Event.DATA) {
    const head = `data ${streamId} `;
    const payload = text(machine.bytes.subarray(machine.start, machine.stop));
    const before = found.at(-1);
    if (before?.startsWith(head) === true && !before.endsWith(" end")) found[found.length - 1] += payload;
    else found.push(head + payload);
    if (endStream) found[found.length - 1] += " end";
  } else if (event === Event.ERROR) found.push(`error ${machine.error!.code} ${machine.error!.message}`);
  else if (event === Event.RESET) found.push(`reset ${streamId} ${machine.errorCode} ${machine.reason}`);
  else found.push(`event-${event} ${streamId} ${machine.fields.join(",")} ${endStream}`);
}

/** Blocks of one connection, each behind its length in two bytes. */
const hpack: FuzzMachine = {
  name: "hpack",
  seeds: () => {
    if (!existsSync(corpusFolder("hpack"))) return [parseBytes('0006 82 86 84 4101 "a" 0001 be')];
    return ["go-hpack", "nghttp2-change-table-size"].flatMap((folder) =>
      readStories(folder).map(({ blocks }) =>
        joined(
          blocks
            .slice(0, 12)
            .flatMap(({ wire }) => [Buffer.from([wire.length >> 8, wire.length & 255]), wire]),
        ),
      ),
    );
  },
  parts: (bytes) => framesOf(bytes, 0, 2, 0, 2),
  run(pieces) {
    const bytes = joined(pieces);
    const decoder = new HpackDecoder({ tableBytesMax: 4_096, listBytesMax: 2_000 });
    const found: string[] = [];
    for (const at of framesOf(bytes, 0, 2, 0, 2)) {
      const stop = Math.min(bytes.length, at + 2 + bytes.readUInt16BE(at));
      const verdict = decoder.decode(bytes, at + 2, stop);
      let listBytes = 0;
      for (let i = 0; i < decoder.fields.length; i += 2)
        listBytes += decoder.fields[i]!.length + decoder.fields[i + 1]!.length + 32;
      assert.ok(listBytes <= 2_000, "a list over its bound");
      found.push(`${verdict} ${verdict === Decoded.BROKEN ? "" : decoder.fields.join(",")}`);
      if (verdict === Decoded.BROKEN) break;
    }
    return found;
  },
};

const grpc: FuzzMachine = {
  name: "grpc",
  seeds: () => [joined(["", "a", "b".repeat(300)].map((body) => encodeGrpcMessage(Buffer.from(body))))],
  parts: (bytes) => framesOf(bytes, 0, 5, 1, 4),
  run(pieces) {
    const reader = new GrpcMessageReader(5_000);
    const found: string[] = [];
    for (const piece of pieces) {
      reader.feed(piece);
      for (let kind = reader.next(); kind !== GrpcFound.NOTHING; kind = reader.next()) {
        if (kind === GrpcFound.ERROR) return [...found, `error ${reader.error!.code}`];
        assert.ok(reader.message.length <= 5_000, "a message over its bound");
        found.push(`message ${reader.compressed} ${text(reader.message)}`);
      }
    }
    return [...found, `between ${reader.isBetweenMessages}`];
  },
};

const dns: FuzzMachine = {
  name: "dns",
  seeds: () => [
    // A query, and an answer that points back to its name.
    parseBytes('1234 0100 0001 0000 0000 0000 03 "web" 04 "shop" 00 0001 0001'),
    parseBytes(
      '1234 8180 0001 0001 0000 0000 03 "web" 04 "shop" 00 0001 0001 c00c 0001 0001 0000003c 0004 0a000001',
    ),
    parseBytes('1234 8180 0001 0001 0000 0000 01 "a" 00 0005 0001 c00c 0005 0001 0000003c 0004 01 "b" c00c'),
    parseBytes(
      '1234 8180 0001 0001 0000 0001 01 "a" 00 0021 0001 c00c 0021 0001 0000003c 0009 0001 0002 0050 01 "b" 00 00 0029 04d0 00000000 0000',
    ),
  ],
  parts: NO_PARTS,
  run(pieces) {
    // Where in its buffer a message stands must not matter: pointers count from its own start.
    const before = pieces.length % 7;
    const result = decodeDns(joined([new Uint8Array(before), ...pieces]), before);
    if (result.kind !== "message") return [result.kind];
    if (result.message.questions.length < 4) encodeDns(result.message, 65_535);
    return [
      JSON.stringify(result.message, (_name, value: unknown) =>
        value instanceof Uint8Array ? text(value) : value,
      ),
    ];
  },
};

/** For a look at what has come so far: the first answer that is one, which more bytes must not change. */
function looker(name: string, seeds: () => Uint8Array[], look: (bytes: Uint8Array) => string): FuzzMachine {
  return {
    name,
    seeds,
    parts: lines,
    run(pieces) {
      let bytes = Buffer.alloc(0);
      for (const piece of pieces) {
        bytes = Buffer.concat([bytes, piece]);
        const answer = look(bytes);
        if (answer !== "more") return [answer];
      }
      return ["more"];
    },
  };
}

/** A vector of TLS: its length in `sizeBytes`, then the parts (RFC 8446 §3.4). */
function vector(sizeBytes: number, ...parts: readonly string[]): string {
  const hex = parts.map((part) => parseBytes(part).toString("hex")).join("");
  return (hex.length / 2).toString(16).padStart(2 * sizeBytes, "0") + hex;
}
const extension = (type: string, content: string): string => type + vector(2, content);

function clientHello(): Uint8Array {
  const extensions = [
    extension("0000", vector(2, `00 ${vector(2, '"web.example.com"')}`)),
    extension("0010", vector(2, vector(1, '"h2"'), vector(1, '"http/1.1"'))),
    extension("002b", vector(1, "0304")),
    extension("0029", ""),
  ];
  const body = `0303 ${"07".repeat(32)} ${vector(1)} ${vector(2, "1301")} ${vector(1, "00")} ${vector(2, ...extensions)}`;
  return parseBytes(`160301 ${vector(2, `01 ${vector(3, body)}`)}`);
}

const transportHeader: FuzzMachine = {
  name: "transport-header",
  seeds: () => [
    joined([encodeTransportHeader({ port: 8080, name: null, protocol: "http2" }), Buffer.from("rest")]),
    encodeTransportHeader({ port: 65_535, name: "web.shop.svc", protocol: "http1" }),
    encodeTransportHeader({ port: 1, name: null, protocol: null }),
  ],
  parts: NO_PARTS,
  run(pieces) {
    const reader = new TransportHeaderReader();
    for (const [at, piece] of pieces.entries()) {
      const result = reader.feed(piece);
      if (result.kind === "error") return ["error"];
      if (result.kind === "header")
        return [JSON.stringify(result.header), text(joined([result.rest, ...pieces.slice(at + 1)]))];
    }
    return ["incomplete"];
  },
};

const proto: FuzzMachine = {
  name: "proto",
  seeds: () => [parseBytes('08 9601 12 05 "hello" 1a 04 08 01 12 00 25 01020304 41 0102030405060708')],
  parts: NO_PARTS,
  run: (pieces) => readProto(new ProtoReader(joined(pieces)), 0),
};

/** Asks each field for what its number says it is; what is none of it ends the reading. */
function readProto(reader: ProtoReader, depth: number): string[] {
  const found: string[] = [];
  while (reader.next() && found.length < 1_000) {
    const { field } = reader;
    if (field % 4 === 1) found.push(`number ${field} ${reader.uint()} ${reader.int()} ${reader.flag()}`);
    else if (field % 4 === 2) found.push(`text ${field} ${reader.text()}`);
    else if (field % 4 === 3 && depth < 3) found.push("message", ...readProto(reader.message(), depth + 1));
    else found.push(`skipped ${field}`);
  }
  if (reader.error !== null) found.push(`error ${reader.error.message}`);
  return found;
}

/** The same bytes as for the machine alone, against two whole sidecars. */
const withPair = (inner: FuzzMachine, run: FuzzMachine["run"]): FuzzMachine => ({
  name: `pair-${inner.name}`,
  seeds: () => inner.seeds(),
  parts: (bytes) => inner.parts(bytes),
  hasTurns: true,
  run,
});

export const MACHINES: readonly FuzzMachine[] = [
  http1("request"),
  http1("response"),
  http2("server"),
  http2("client"),
  withPair(http1("request"), (pieces) => hostileClient("http1", pieces)),
  withPair(http1("response"), hostileApplication),
  withPair(http2("server"), (pieces) => hostileClient("http2", pieces)),
  hpack,
  grpc,
  dns,
  looker(
    "detection",
    () => transcripts("http1.md", "request", null),
    (bytes) => detectHttp(bytes),
  ),
  looker(
    "tls-hello",
    () => [clientHello()],
    (bytes) => {
      const hello = inspectClientHello(bytes);
      return hello.kind === "incomplete" ? "more" : JSON.stringify(hello);
    },
  ),
  transportHeader,
  carrier,
  proto,
];
