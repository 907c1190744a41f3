/**
 * A gRPC server and client of grpc-js, to be loaded into a pod's process (`WorkerContext.load`) or run as a program of its own:
 * `grpc-peer.ts PORT NAME` serves until it is killed. Messages are plain bytes.
 */
import * as grpc from "@grpc/grpc-js";

export interface Answer {
  readonly code: number;
  readonly details: string;
  /** Bytes of each message that came. */
  readonly messages: readonly number[];
  readonly initial: Readonly<Record<string, string>>;
  readonly trailing: Readonly<Record<string, string>>;
}

const bytes = (value: Buffer): Buffer => value;
const method = (path: string, requestStream: boolean, responseStream: boolean) => ({
  path: `/test.Echo/${path}`,
  requestStream,
  responseStream,
  requestSerialize: bytes,
  requestDeserialize: bytes,
  responseSerialize: bytes,
  responseDeserialize: bytes,
});
const METHODS = {
  Echo: method("Echo", false, false),
  Collect: method("Collect", true, false),
  Count: method("Count", false, true),
  Talk: method("Talk", true, true),
  Wait: method("Wait", false, true),
};
const OPTIONS = { "grpc.max_receive_message_length": -1, "grpc.max_send_message_length": -1 };
const MESSAGE_BYTES = 65_536;

// --- server -------------------------------------------------------------------------------------------------------

/** What the server has seen of calls so far. */
export const seen = {
  cancelled: 0,
  waiting: 0,
  /** Messages that `Count` has written and `Talk` has read. */
  written: 0,
  read: 0,
  /** Of the last call with a deadline: how much of it was left. */
  leftMs: 0,
};
/** `Talk` reads no further while this is set. */
let heldBack: grpc.ServerDuplexStream<Buffer, Buffer> | null = null;

export async function serve(port: number, name: string): Promise<void> {
  const server = new grpc.Server(OPTIONS);
  const begin = (call: grpc.ServerUnaryCall<Buffer, Buffer> | grpc.ServerWritableStream<Buffer, Buffer>) => {
    const deadline = call.getDeadline();
    if (deadline !== Infinity) seen.leftMs = Number(deadline) - Date.now();
    const initial = new grpc.Metadata();
    initial.set("x-server", name);
    for (const value of call.metadata.get("x-data-bin")) initial.add("x-data-bin", value);
    call.sendMetadata(initial);
  };
  const trailers = (from: grpc.Metadata): grpc.Metadata => {
    const trailing = new grpc.Metadata();
    for (const value of from.get("x-data-bin")) trailing.add("x-data-bin", value);
    return trailing;
  };
  server.addService(METHODS, {
    Echo(call: grpc.ServerUnaryCall<Buffer, Buffer>, done: grpc.sendUnaryData<Buffer>) {
      begin(call);
      const code = Number(call.metadata.get("x-code")[0] ?? 0);
      if (code !== 0)
        done({ code, details: "the application's own: 100 % ünlucky", metadata: trailers(call.metadata) });
      else done(null, call.request, trailers(call.metadata));
    },
    Collect(call: grpc.ServerReadableStream<Buffer, Buffer>, done: grpc.sendUnaryData<Buffer>) {
      let sum = 0;
      call.on("data", (message: Buffer) => (sum += message.length));
      call.on("end", () => done(null, Buffer.alloc(sum), trailers(call.metadata)));
    },
    async Count(call: grpc.ServerWritableStream<Buffer, Buffer>) {
      begin(call);
      const many = call.request.readUInt32BE(0);
      let goOn = (): void => undefined;
      call.on("drain", () => goOn());
      call.on("cancelled", () => {
        seen.cancelled++;
        goOn();
      });
      for (seen.written = 0; seen.written < many && !call.cancelled; seen.written++) {
        if (!call.write(Buffer.alloc(MESSAGE_BYTES))) await new Promise<void>((drained) => (goOn = drained));
      }
      call.end(trailers(call.metadata));
    },
    Talk(call: grpc.ServerDuplexStream<Buffer, Buffer>) {
      seen.read = 0;
      if (call.metadata.get("x-hold").length > 0) heldBack = call;
      else readAll(call);
    },
    Wait(call: grpc.ServerWritableStream<Buffer, Buffer>) {
      begin(call);
      seen.waiting++;
      call.on("cancelled", () => {
        seen.cancelled++;
        seen.waiting--;
      });
      call.write(Buffer.from("begun"));
    },
  });
  await new Promise((done, failed) =>
    server.bindAsync(`0.0.0.0:${port}`, grpc.ServerCredentials.createInsecure(), (error) =>
      error === null ? done(null) : failed(error),
    ),
  );
}

/** Lets `Talk` read on. */
export function release(): void {
  if (heldBack !== null) readAll(heldBack);
  heldBack = null;
}

function readAll(call: grpc.ServerDuplexStream<Buffer, Buffer>): void {
  call.on("data", (message: Buffer) => {
    seen.read++;
    call.write(message);
  });
  call.on("end", () => call.end());
}

// --- client -------------------------------------------------------------------------------------------------------

const Client = grpc.makeGenericClientConstructor(METHODS, "Echo");
type Method = (...args: unknown[]) => grpc.ClientDuplexStream<Buffer, Buffer>;
/** By target: all calls to one share a connection. */
const clients = new Map<string, Record<string, Method>>();
/** Calls under way, by the name that the test gave. */
const calls = new Map<string, { call: grpc.ClientDuplexStream<Buffer, Buffer>; answer: Promise<Answer> }>();

export interface Options {
  readonly metadata?: Readonly<Record<string, string>>;
  /** Hexadecimal, sent as `x-data-bin`. */
  readonly binary?: readonly string[];
  readonly deadlineMs?: number;
}

/** Makes one call and sends `sizes.length` messages of so many bytes. */
export function call(
  target: string,
  name: keyof typeof METHODS,
  sizes: readonly number[],
  options: Options = {},
): Promise<Answer> {
  return start(
    "",
    target,
    name,
    sizes.map((size) => Buffer.alloc(size, "m")),
    options,
  ).answer;
}

/** Makes calls of one byte, all at the same time. */
export function callMany(target: string, many: number): Promise<Answer[]> {
  return Promise.all(Array.from({ length: many }, () => call(target, "Echo", [1])));
}

/** Asks `Count` for messages of 64 KiB. The answer is not read before `read`. */
export function beginCount(id: string, target: string, many: number): void {
  const request = Buffer.alloc(4);
  request.writeUInt32BE(many);
  start(id, target, "Count", [request], {}).call.pause();
}

/** Begins a `Wait` and resolves with its first message. */
export async function beginWait(id: string, target: string, options: Options = {}): Promise<void> {
  const { call: begun } = start(id, target, "Wait", [Buffer.alloc(0)], options);
  await new Promise((first, failed) => begun.once("data", first).once("error", failed));
}

/** Begins a `Talk` that the server does not read yet, writes `many` messages of 64 KiB into it as it takes them. */
export function beginTalk(id: string, target: string, many: number): void {
  const { call: begun } = start(id, target, "Talk", null, { metadata: { "x-hold": "1" } });
  const progress = { written: 0 };
  progresses.set(id, progress);
  const write = async (): Promise<void> => {
    while (progress.written++ < many)
      if (!begun.write(Buffer.alloc(MESSAGE_BYTES)))
        await new Promise((drained) => begun.once("drain", drained));
    begun.end();
  };
  void write();
}
const progresses = new Map<string, { written: number }>();

export function writtenOf(id: string): number {
  return progresses.get(id)?.written ?? 0;
}

export function cancel(id: string): void {
  calls.get(id)?.call.cancel();
}

/** Reads a begun call to its end. */
export function finish(id: string): Promise<Answer> {
  const begun = calls.get(id)!;
  begun.call.resume();
  return begun.answer;
}

function start(
  id: string,
  target: string,
  name: keyof typeof METHODS,
  messages: readonly Buffer[] | null,
  { metadata = {}, binary = [], deadlineMs }: Options,
): { call: grpc.ClientDuplexStream<Buffer, Buffer>; answer: Promise<Answer> } {
  let client = clients.get(target);
  if (client === undefined) {
    client = new Client(target, grpc.credentials.createInsecure(), OPTIONS) as unknown as Record<
      string,
      Method
    >;
    clients.set(target, client);
  }
  const sent = new grpc.Metadata();
  for (const [key, value] of Object.entries(metadata)) sent.set(key, value);
  for (const value of binary) sent.add("x-data-bin", Buffer.from(value, "hex"));
  const options = deadlineMs === undefined ? {} : { deadline: Date.now() + deadlineMs };
  const { requestStream, responseStream } = METHODS[name];
  const { promise: answer, resolve } = Promise.withResolvers<Answer>();
  const received: number[] = [];
  let initial: Record<string, string> = {};
  const args: unknown[] = requestStream ? [sent, options] : [messages![0], sent, options];
  if (!responseStream)
    args.push((_error: unknown, message?: Buffer) => message !== undefined && received.push(message.length));
  const begun = client[name]!(...args);
  begun.on("metadata", (found: grpc.Metadata) => (initial = plain(found)));
  begun.on("status", ({ code, details, metadata: trailing }: grpc.StatusObject) =>
    // A unary message is handed over after the status.
    setImmediate(() => resolve({ code, details, messages: received, initial, trailing: plain(trailing) })),
  );
  begun.on("error", () => undefined);
  if (responseStream) begun.on("data", (message: Buffer) => received.push(message.length));
  if (requestStream && messages !== null) {
    for (const message of messages) begun.write(message);
    begun.end();
  }
  const entry = { call: begun, answer };
  calls.set(id, entry);
  return entry;
}

function plain(metadata: grpc.Metadata): Record<string, string> {
  const out: Record<string, string> = {};
  for (const key of Object.keys(metadata.getMap()))
    out[key] = metadata
      .get(key)
      .map((value) => (typeof value === "string" ? value : value.toString("hex")))
      .join(",");
  return out;
}

const [port, name] = process.argv.slice(2);
if (import.meta.main && port !== undefined && name !== undefined) {
  await serve(Number(port), name);
  process.stdout.write("listening\n");
}
