import assert from "node:assert/strict";
import type { Conn, ConnHandler } from "#/base/conn.ts";
import { parseIp } from "#/base/address.ts";
import { Http2Client } from "#/stack/http/http2-client.ts";
import { Http2Server } from "#/stack/http/http2-server.ts";
import { Measured } from "#/stack/http/measure.ts";
import { ManualClock } from "#/stack/http/testing.ts";
import { Event, Http2Connection } from "#/wire/http2/connection.ts";
import type { MachineCase } from "./machine-case.ts";

const REQUEST = [
  ":method",
  "POST",
  ":scheme",
  "http",
  ":authority",
  "echo",
  ":path",
  "/bench.Echo/Stream",
  "content-type",
  "application/grpc",
  "te",
  "trailers",
];
const RESPONSE = [":status", "200", "content-type", "application/grpc"];
const STREAMS = 8;
/** With what stands before each message of gRPC. All of a round are a long read, which is lent. */
const MESSAGE = new Uint8Array(5 + 1_200).fill(109);

/** A socket that takes everything; what was written is `taken`, and read by nobody else. */
class Taking implements Conn {
  readonly local = { ip: parseIp("10.0.0.1") ?? assert.fail(), port: 1 };
  readonly remote = { ip: parseIp("10.0.0.2") ?? assert.fail(), port: 2 };
  readonly bufferedBytes = 0;
  readonly sentBytes = 0;
  #handler: ConnHandler | null = null;
  #written: Uint8Array[] = [];

  /** `bytes` are lent, as a socket's long reads are. */
  reads(bytes: Uint8Array | null): void {
    if (bytes !== null) this.#handler?.onData(bytes);
  }

  taken(): Uint8Array | null {
    const written = this.#written;
    this.#written = [];
    return written.length === 1
      ? (written[0] as Uint8Array)
      : written.length === 0
        ? null
        : Buffer.concat(written);
  }

  setHandler(handler: ConnHandler): void {
    this.#handler = handler;
  }
  write(bytes: Uint8Array): boolean {
    this.#written.push(bytes);
    return true;
  }
  writeLent(bytes: Uint8Array): boolean {
    return this.write(new Uint8Array(bytes));
  }
  unsend(): boolean {
    return false;
  }
  end(): void {}
  reset(): void {}
  pause(): void {}
  resume(): void {}
  unread(): void {}
}

/** One message on each of many streams, from a program through one sidecar to a program that sends it back. */
function relaying(): () => number {
  const clock = new ManualClock();
  const near = new Taking();
  const far = new Taking();
  const client = new Http2Client(far, clock, () => {}, { meshed: true, spells: true });
  const series = { request: () => {}, response: () => {} };
  new Http2Server(near, new Measured(client, series, clock), clock, () => {}, {
    meshed: false,
    clientId: null,
  });
  const caller = new Http2Connection({ role: "client" });
  const echo = new Http2Connection({ role: "server" });

  const turn = (): number => {
    near.reads(caller.takeOutput());
    clock.settle();
    answer(echo, far.taken());
    far.reads(echo.takeOutput());
    clock.settle();
    return heard(caller, near.taken());
  };
  for (let i = 0; i < 3; i++) turn();
  const ids = Array.from({ length: STREAMS }, () => caller.request(REQUEST, false));
  for (let i = 0; i < 3; i++) turn();

  return () => {
    for (const id of ids) caller.sendData(id, MESSAGE, 0, MESSAGE.length, false);
    assert(turn() === STREAMS, "every message comes back at once");
    return 1;
  };
}

function answer(echo: Http2Connection, bytes: Uint8Array | null): void {
  if (bytes !== null) echo.feed(bytes);
  for (let event = echo.next(); event !== Event.NOTHING; event = echo.next()) {
    const { streamId, start, stop } = echo;
    if (event === Event.HEADERS) echo.respond(streamId, RESPONSE, false);
    else if (event === Event.DATA) {
      echo.sendData(streamId, echo.bytes, start, stop, false);
      echo.consumed(streamId, stop - start);
    } else assert(event === Event.SETTINGS, "an event that is none of an echo's");
  }
}

function heard(caller: Http2Connection, bytes: Uint8Array | null): number {
  let messages = 0;
  if (bytes !== null) caller.feed(bytes);
  for (let event = caller.next(); event !== Event.NOTHING; event = caller.next()) {
    if (event !== Event.DATA) continue;
    messages++;
    caller.consumed(caller.streamId, caller.stop - caller.start);
  }
  return messages;
}

/** A sidecar between programs that keep many streams open, less sockets and TLS. */
export const CASES: readonly MachineCase[] = [
  { name: `a message of 1,200 bytes on each of ${STREAMS} streams`, unit: "round", make: relaying },
];
