/**
 * Clients and servers that fail on command in the middle of a message, and say what they saw of each other. Every function runs
 * inside a pod (`Pod.run`), so each stands alone and keeps what it must in `state`.
 *
 * A call is named by its path. It begins on both sides, waits until bytes have arrived, fails as told, and is then looked at.
 */
import type { IncomingMessage, ServerResponse } from "node:http";
import type { ClientHttp2Session, ServerHttp2Stream } from "node:http2";
import type { Socket } from "node:net";
import type { WorkerContext } from "./worker.ts";

/** What one side saw of the other. */
export interface Sight {
  /** Of a response; 0 for a request. */
  status: number;
  bytes: number;
  trailers: Record<string, unknown>;
  /** `complete`: the message came to its proper end and nothing spoke against it. `broken`: something did. `open`: neither within the time. */
  end: "open" | "complete" | "broken";
  /** HTTP/2: the code of the reset that the stream ended with, -1 when there was none. */
  resetCode: number;
}

/** What each side's call keeps while it is under way. */
export interface Call {
  readonly sight: Sight;
  /** Does what was agreed; see `act`. */
  act(verb: string): void;
  isClosed: boolean;
}

/** HTTP/1.1: answers a call with the bytes in its `x-first` field and leaves the rest to `act`. */
export function serveHttp1({ http, state }: WorkerContext, port: number): Promise<null> {
  const calls = (state["calls"] ??= {}) as Record<string, Call>;
  const server = http.createServer((request: IncomingMessage, response: ServerResponse) => {
    const { socket } = request;
    const sight: Sight = { status: 0, bytes: 0, trailers: {}, end: "open", resetCode: -1 };
    const call: Call = {
      sight,
      isClosed: false,
      act: (verb) => {
        if (verb === "fin") socket.end();
        else if (verb === "rst") socket.resetAndDestroy();
        else socket.write(verb);
      },
    };
    calls[request.url ?? ""] = call;
    request.on("data", (bytes: Buffer) => (sight.bytes += bytes.length));
    request.on("end", () => {
      if (sight.end === "open") sight.end = "complete";
    });
    request.on("error", () => (sight.end = "broken"));
    response.on("close", () => (call.isClosed = true));
    const first = Buffer.from(String(request.headers["x-first"] ?? ""), "base64");
    if (first.length > 0) socket.write(first);
  });
  server.on("clientError", (_error, socket: Socket) => socket.destroy());
  return new Promise((done) => server.listen(port, "0.0.0.0", () => done(null)));
}

/** HTTP/2: answers a call with the fields in `x-head` and the text in `x-first`, and leaves the rest to `act`. */
export function serveHttp2({ http2, state }: WorkerContext, port: number): Promise<null> {
  const calls = (state["calls"] ??= {}) as Record<string, Call>;
  const sockets = new Map<number, Socket>();
  const server = http2.createServer();
  server.on("connection", (socket: Socket) => {
    sockets.set(socket.remotePort ?? 0, socket);
    socket.on("error", () => undefined);
  });
  server.on("sessionError", () => undefined);
  server.on("stream", (stream: ServerHttp2Stream, fields) => {
    const socket = sockets.get(stream.session?.socket.remotePort ?? 0);
    const sight: Sight = { status: 0, bytes: 0, trailers: {}, end: "open", resetCode: -1 };
    const call: Call = {
      sight,
      isClosed: false,
      act: (verb) => {
        if (verb === "fin") socket?.end();
        else if (verb === "rst") socket?.resetAndDestroy();
        else if (verb === "goaway") stream.session?.goaway(0);
        else if (verb.startsWith("reset ")) stream.close(Number(verb.slice(6)));
        else if (verb === "end") stream.end();
        else stream.write(verb);
      },
    };
    calls[String(fields[":path"])] = call;
    stream.on("data", (bytes: Buffer) => (sight.bytes += bytes.length));
    stream.on("end", () => {
      if (sight.end === "open") sight.end = "complete";
    });
    stream.on("aborted", () => (sight.end = "broken"));
    stream.on("error", () => undefined);
    stream.on("close", () => {
      sight.resetCode = stream.rstCode ?? -1;
      // Node tells some resets by this code alone, and ends the body as if all were well.
      if (sight.resetCode > 0) sight.end = "broken";
      call.isClosed = true;
    });
    if (fields["x-first"] === undefined) return;
    const head = JSON.parse(Buffer.from(String(fields["x-head"]), "base64").toString()) as object;
    stream.respond({ ":status": 200, ...head }, { waitForTrailers: fields["x-trailers"] !== undefined });
    stream.on("wantTrailers", () => stream.sendTrailers({ "x-sum": "7" }));
    stream.write(Buffer.from(String(fields["x-first"]), "base64"));
  });
  return new Promise((done) => server.listen(port, "0.0.0.0", () => done(null)));
}

/** Bytes: a connection is a call whose path is its first line; the server answers it with ten bytes. */
export function serveBytes({ net, state }: WorkerContext, port: number): Promise<null> {
  const calls = (state["calls"] ??= {}) as Record<string, Call>;
  const server = net.createServer({ allowHalfOpen: true }, (socket) => {
    const sight: Sight = { status: 0, bytes: 0, trailers: {}, end: "open", resetCode: -1 };
    const call: Call = { sight, isClosed: false, act: (verb) => void socket.write(verb) };
    socket.once("data", (first: Buffer) => {
      const lineBytes = first.indexOf("\n") + 1;
      calls[first.toString("latin1", 0, lineBytes - 1)] = call;
      sight.bytes = first.length - lineBytes;
      socket.on("data", (bytes: Buffer) => (sight.bytes += bytes.length));
      socket.write("0123456789");
    });
    socket.on("end", () => {
      if (sight.end === "open") sight.end = "complete";
    });
    socket.on("error", () => (sight.end = "broken"));
    socket.on("close", () => (call.isClosed = true));
  });
  return new Promise((done) => server.listen(port, "0.0.0.0", () => done(null)));
}

/** Begins a call over HTTP/1.1 with the beginning of a body, where there is one. */
export function callHttp1(
  { http, state }: WorkerContext,
  host: string,
  port: number,
  path: string,
  fields: Record<string, string>,
  body: string,
): null {
  const calls = (state["calls"] ??= {}) as Record<string, Call>;
  const sight: Sight = { status: 0, bytes: 0, trailers: {}, end: "open", resetCode: -1 };
  const method = body === "" ? "GET" : "POST";
  const request = http.request({ host, port, path, method, headers: fields, agent: false });
  const call: Call = {
    sight,
    isClosed: false,
    act: (verb) => {
      if (verb === "fin") request.socket?.end();
      else if (verb === "rst") request.socket?.resetAndDestroy();
    },
  };
  calls[path] = call;
  request.on("response", (response) => {
    sight.status = response.statusCode ?? 0;
    response.on("data", (bytes: Buffer) => (sight.bytes += bytes.length));
    response.on("end", () => {
      if (sight.end === "open") sight.end = "complete";
      sight.trailers = response.trailers;
    });
    response.on("error", () => (sight.end = "broken"));
    response.on("close", () => (call.isClosed = true));
  });
  request.on("error", () => {
    sight.end = "broken";
    call.isClosed = true;
  });
  // Node takes a reset for the end of a body without a length; the socket knows better.
  request.on("socket", (socket) => socket.prependListener("error", () => (sight.end = "broken")));
  if (body === "") request.end();
  else request.write(body);
  return null;
}

/** The same over HTTP/2, on a connection of its own. */
export function callHttp2(
  { http2, net, state }: WorkerContext,
  host: string,
  port: number,
  path: string,
  fields: Record<string, string>,
  body: string,
): null {
  const calls = (state["calls"] ??= {}) as Record<string, Call>;
  const sight: Sight = { status: 0, bytes: 0, trailers: {}, end: "open", resetCode: -1 };
  const socket = net.connect(port, host);
  socket.on("error", () => undefined);
  const session: ClientHttp2Session = http2.connect(`http://${host}:${port}`, {
    createConnection: () => socket,
  });
  session.on("error", () => undefined);
  const method = body === "" ? "GET" : "POST";
  const stream = session.request({ ":method": method, ":path": path, ...fields }, { endStream: body === "" });
  const call: Call = {
    sight,
    isClosed: false,
    act: (verb) => {
      if (verb === "fin") socket.end();
      else if (verb === "rst") socket.resetAndDestroy();
      else if (verb.startsWith("reset ")) stream.close(Number(verb.slice(6)));
    },
  };
  calls[path] = call;
  stream.on("response", (head) => (sight.status = Number(head[":status"])));
  stream.on("data", (bytes: Buffer) => (sight.bytes += bytes.length));
  stream.on("trailers", (trailers) => (sight.trailers = { ...trailers }));
  stream.on("end", () => {
    if (sight.end === "open") sight.end = "complete";
  });
  stream.on("aborted", () => (sight.end = "broken"));
  stream.on("error", () => (sight.end = "broken"));
  stream.on("close", () => {
    sight.resetCode = stream.rstCode ?? -1;
    // Node tells some resets by this code alone, and ends the body as if all were well.
    if (sight.resetCode > 0) sight.end = "broken";
    call.isClosed = true;
    session.destroy();
  });
  if (body !== "") stream.write(body);
  return null;
}

/** Begins a call of bytes; `fields` is only there to make it a call like the others. */
export function callBytes(
  { net, state }: WorkerContext,
  host: string,
  port: number,
  path: string,
  _fields: Record<string, string>,
  body: string,
): null {
  const calls = (state["calls"] ??= {}) as Record<string, Call>;
  const sight: Sight = { status: 0, bytes: 0, trailers: {}, end: "open", resetCode: -1 };
  const socket = net.connect({ host, port, allowHalfOpen: true });
  const call: Call = { sight, isClosed: false, act: () => socket.end() };
  calls[path] = call;
  socket.write(`${path}\n${body}`);
  socket.on("data", (bytes: Buffer) => (sight.bytes += bytes.length));
  socket.on("end", () => {
    if (sight.end === "open") sight.end = "complete";
  });
  socket.on("error", () => (sight.end = "broken"));
  socket.on("close", () => (call.isClosed = true));
  return null;
}

/** Waits until this side's call has so many bytes. */
export async function awaitBytes(
  { state, sleep }: WorkerContext,
  path: string,
  bytes: number,
): Promise<boolean> {
  const calls = (state["calls"] ??= {}) as Record<string, Call>;
  for (let i = 0; i < 1000; i++) {
    const call = calls[path];
    if (call !== undefined && (call.sight.bytes >= bytes || call.isClosed)) return call.sight.bytes >= bytes;
    await sleep(5);
  }
  return false;
}

export function act({ state }: WorkerContext, path: string, verb: string): null {
  (state["calls"] as Record<string, Call>)[path]?.act(verb);
  return null;
}

/** What this side has seen when its call is over; null when it is not over within 5 s. */
export async function look({ state, sleep }: WorkerContext, path: string): Promise<Sight | null> {
  for (let i = 0; i < 1000; i++) {
    const call = (state["calls"] as Record<string, Call>)[path];
    if (call?.isClosed === true) return call.sight;
    await sleep(5);
  }
  return null;
}

/** Passes connections on to `host`:`port`, bytes and ends alike, until `cut`. */
export function relay(
  { net, state }: WorkerContext,
  listenPort: number,
  host: string,
  port: number,
): Promise<null> {
  const pairs = new Set<readonly [Socket, Socket]>();
  state["pairs"] = pairs;
  const server = net.createServer({ allowHalfOpen: true }, (near) => {
    const far = net.connect({ host, port, allowHalfOpen: true });
    const pair = [near, far] as const;
    pairs.add(pair);
    near.pipe(far);
    far.pipe(near);
    for (const socket of pair) {
      socket.on("error", () => pair.forEach((each) => each.destroy()));
      socket.on("close", () => pairs.delete(pair));
    }
  });
  return new Promise((done) => server.listen(listenPort, "0.0.0.0", () => done(null)));
}

/** Ends all that the relay carries, in both directions at once: in order for TCP, in the middle for what is inside. */
export function cut({ state }: WorkerContext, how: "FIN" | "RST"): number {
  const pairs = state["pairs"] as Set<readonly [Socket, Socket]>;
  const cutCount = pairs.size;
  for (const [near, far] of pairs) {
    for (const socket of [near, far]) {
      socket.unpipe();
      if (how === "FIN") socket.end();
      else socket.resetAndDestroy();
    }
  }
  return cutCount;
}
