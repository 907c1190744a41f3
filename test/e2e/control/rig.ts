import { generateKeyPairSync } from "node:crypto";
import type { KeyObject, X509Certificate } from "node:crypto";
import { mkdtempSync, rmSync } from "node:fs";
import { connect as connectHttp2 } from "node:http2";
import type { ClientHttp2Session, ClientHttp2Stream } from "node:http2";
import { connect } from "node:net";
import type { Socket } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { connect as connectTls } from "node:tls";
import type { TLSSocket } from "node:tls";
import { create, fromBinary, toBinary } from "@bufbuild/protobuf";
import type {
  DescMessage,
  DescMethodServerStreaming,
  DescMethodUnary,
  MessageInitShape,
  MessageShape,
} from "@bufbuild/protobuf";
import { runControl } from "../../../src/control/main.ts";
import type { FromAgent, FromControl, NodeInfo } from "../../../src/model/node-protocol.ts";
import type { PodPlan, PodStatus } from "../../../src/model/pod-plan.ts";
import { SILENT } from "../../../src/net/log.ts";
import { decodeGrpcText, encodeGrpcMessage, GrpcFound, GrpcMessageReader } from "../../../src/wire/grpc.ts";

export const CONTROL_NAME = "control.pillion.serviceaccount.identity.pillion.cluster.local";
const WAIT_MS = 10_000;

export type Plan = Extract<FromControl, { kind: "plan" }>;

/** A control plane in this process, on loopback, with an agent that only pretends. */
export class Rig implements AsyncDisposable {
  readonly dir: string = mkdtempSync(join(tmpdir(), "pillion-control-"));
  port = 0;
  plaintextPort = 0;
  #ending = new AbortController();
  #running: Promise<void> | null = null;

  async start(): Promise<FakeAgent> {
    this.#ending = new AbortController();
    const both = Promise.withResolvers<void>();
    this.#running = runControl(
      {
        stateDir: join(this.dir, "state"),
        socketPath: join(this.dir, "control.sock"),
        version: "1",
        plaintext: { host: "127.0.0.1", port: 0 },
      },
      {
        log: SILENT,
        signal: this.#ending.signal,
        onListening: (what, port) => {
          if (what === "secure") this.port = port;
          else {
            this.plaintextPort = port;
            both.resolve();
          }
        },
      },
    );
    this.#running.catch(both.reject);
    const agent = await FakeAgent.connect(join(this.dir, "control.sock"));
    agent.say({ kind: "hello", node: NODE });
    await both.promise;
    return agent;
  }

  async stop(): Promise<void> {
    this.#ending.abort();
    await this.#running;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.stop();
    rmSync(this.dir, { recursive: true });
  }
}

export const NODE: NodeInfo = {
  name: "node-1",
  instance: "test",
  gatewayIp: "127.0.0.1",
  podCidr: "10.201.0.0/16",
  serviceCidr: "10.202.0.0/16",
  controlPort: 0,
  intercept: "ebpf",
  clusterDomain: "cluster.local",
  trustDomain: "cluster.local",
};

/** The agent's side of the control socket. */
export class FakeAgent {
  readonly #socket: Socket;
  plan: Plan | null = null;
  readonly #statuses = new Map<string, PodStatus>();
  readonly #waiting = new Set<() => void>();
  readonly #answers = new Map<number, (message: FromControl) => void>();
  #nextId = 1;
  #nextIp = 10;

  private constructor(socket: Socket) {
    this.#socket = socket;
    let text = "";
    socket.setEncoding("utf8").on("data", (chunk: string) => {
      text += chunk;
      for (let at = text.indexOf("\n"); at !== -1; at = text.indexOf("\n")) {
        const message = JSON.parse(text.slice(0, at)) as FromControl;
        text = text.slice(at + 1);
        if (message.kind === "plan") this.plan = message;
        else this.#answers.get(message.requestId)?.(message);
        for (const wake of this.#waiting) wake();
      }
    });
  }

  static async connect(path: string): Promise<FakeAgent> {
    for (let attempt = 0; ; attempt++) {
      try {
        const socket = await new Promise<Socket>((resolve, reject) => {
          const made: Socket = connect(path, () => resolve(made));
          made.once("error", reject);
        });
        return new FakeAgent(socket);
      } catch (error) {
        if (attempt === 200) throw error;
        await new Promise((resolve) => setTimeout(resolve, 10));
      }
    }
  }

  say(message: FromAgent): void {
    this.#socket.write(`${JSON.stringify(message)}\n`);
  }

  close(): void {
    this.#socket.destroy();
  }

  folder(files: Readonly<Record<string, string>>): void {
    this.say({
      kind: "folder",
      files: Object.entries(files).map(([path, text]) => ({ path, text })),
      problems: [],
    });
  }

  /** Reports all pods as they are. */
  report(): void {
    this.say({ kind: "pods", pods: [...this.#statuses.values()] });
  }

  get statuses(): ReadonlyMap<string, PodStatus> {
    return this.#statuses;
  }

  /** Waits for a plan of which `holds` is true. */
  async planThat(holds: (plan: Plan) => boolean): Promise<Plan> {
    return await this.#until(() => (this.plan !== null && holds(this.plan) ? this.plan : null), "a plan");
  }

  /** Does what the plan says: begins and ends pods at once, all ready, and reports. */
  obey(options: { ready?: (pod: PodPlan) => boolean } = {}): void {
    const wanted = new Map((this.plan?.pods ?? []).map((pod) => [pod.uid, pod]));
    for (const uid of this.#statuses.keys()) if (!wanted.has(uid)) this.#statuses.delete(uid);
    for (const pod of wanted.values()) {
      const ip = this.#statuses.get(pod.uid)?.ip ?? `10.201.0.${this.#nextIp++}`;
      this.#statuses.set(pod.uid, statusOf(pod, ip, options.ready?.(pod) ?? true));
    }
    this.report();
  }

  set(status: PodStatus): void {
    this.#statuses.set(status.uid, status);
  }

  async ask(
    question: Extract<FromAgent, { kind: "ask" }>["question"],
  ): Promise<Extract<FromControl, { kind: "answer" }>["answer"]> {
    const requestId = this.#nextId++;
    const { promise, resolve } = Promise.withResolvers<FromControl>();
    this.#answers.set(requestId, resolve);
    this.say({ kind: "ask", requestId, question });
    const message = await promise;
    if (message.kind !== "answer") throw new Error(`unexpected ${message.kind}`);
    return message.answer;
  }

  async attest(podUid: string): Promise<Extract<FromControl, { kind: "token" }>> {
    const requestId = this.#nextId++;
    const { promise, resolve } = Promise.withResolvers<FromControl>();
    this.#answers.set(requestId, resolve);
    this.say({ kind: "attest", requestId, podUid });
    const message = await promise;
    if (message.kind !== "token") throw new Error(`unexpected ${message.kind}`);
    return message;
  }

  async #until<T>(look: () => T | null, what: string): Promise<T> {
    const { promise, resolve, reject } = Promise.withResolvers<T>();
    const check = (): void => {
      const found = look();
      if (found !== null) resolve(found);
    };
    const timer = setTimeout(
      () =>
        reject(
          new Error(
            `${what} did not come; the last plan has ${this.plan?.pods.map((pod) => pod.name).join(", ") ?? "not come"}`,
          ),
        ),
      WAIT_MS,
    );
    this.#waiting.add(check);
    check();
    try {
      return await promise;
    } finally {
      clearTimeout(timer);
      this.#waiting.delete(check);
    }
  }
}

export function statusOf(pod: PodPlan, ip: string, ready: boolean): PodStatus {
  return {
    uid: pod.uid,
    name: pod.name,
    namespace: pod.namespace,
    templateHash: pod.templateHash,
    owner: pod.owner,
    ip,
    phase: "Running",
    ready,
    terminating: false,
    message: "",
    startedAtMs: 0,
    intercept: "ebpf",
    containers: [],
    sidecar: null,
  };
}

/** A certificate as a sidecar holds it. */
export interface Held {
  readonly key: string;
  readonly cert: string;
  readonly leaf: X509Certificate;
  readonly anchors: string;
}

export class RpcFailure extends Error {
  readonly status: number;
  constructor(status: number, message: string) {
    super(message);
    this.status = status;
  }
}

/** gRPC over node:http2, as plain as can be. */
export class RpcClient implements Disposable {
  readonly #session: ClientHttp2Session;

  private constructor(session: ClientHttp2Session) {
    this.#session = session;
    session.on("error", () => {});
  }

  static plaintext(port: number): RpcClient {
    return new RpcClient(connectHttp2(`http://127.0.0.1:${port}`));
  }

  /** Over mesh TLS, with or without a certificate of its own; `alpn` false is what a linkerd2-proxy does. */
  static async secure(
    port: number,
    options: { anchors: string; held?: Pick<Held, "key" | "cert">; alpn?: boolean },
  ): Promise<RpcClient> {
    const socket = await new Promise<TLSSocket>((resolve, reject) => {
      const made: TLSSocket = connectTls(
        {
          host: "127.0.0.1",
          port,
          servername: CONTROL_NAME,
          ca: options.anchors,
          minVersion: "TLSv1.3",
          ...(options.alpn === false ? {} : { ALPNProtocols: ["h2"] }),
          ...(options.held === undefined ? {} : { key: options.held.key, cert: options.held.cert }),
        },
        () => resolve(made),
      );
      made.once("error", reject);
    });
    return new RpcClient(connectHttp2(`http://127.0.0.1:${port}`, { createConnection: () => socket }));
  }

  async call<I extends DescMessage, O extends DescMessage>(
    method: DescMethodUnary<I, O>,
    request: MessageInitShape<I>,
  ): Promise<MessageShape<O>> {
    const stream = this.#open(method, request);
    const messages = stream.messages();
    const first = await messages.next();
    if (first.done === true) throw new RpcFailure(-1, "no message came");
    return first.value;
  }

  watch<I extends DescMessage, O extends DescMessage>(
    method: DescMethodServerStreaming<I, O>,
    request: MessageInitShape<I>,
  ): Watch<O> {
    return this.#open(method, request);
  }

  #open<I extends DescMessage, O extends DescMessage>(
    method: DescMethodUnary<I, O> | DescMethodServerStreaming<I, O>,
    request: MessageInitShape<I>,
  ): Watch<O> {
    const stream = this.#session.request({
      ":method": "POST",
      ":path": `/${method.parent.typeName}/${method.name}`,
      "content-type": "application/grpc",
      te: "trailers",
    });
    stream.end(encodeGrpcMessage(toBinary(method.input, create(method.input, request))));
    return new Watch(stream, method.output);
  }

  [Symbol.dispose](): void {
    this.#session.destroy();
  }
}

/** Messages of one stream, in order. */
export class Watch<O extends DescMessage> {
  readonly #stream: ClientHttp2Stream;
  readonly #queue: MessageShape<O>[] = [];
  #failure: RpcFailure | null = null;
  #isOver = false;
  #wake: () => void = () => {};

  constructor(stream: ClientHttp2Stream, output: O) {
    this.#stream = stream;
    const reader = new GrpcMessageReader();
    const ended = (headers: Record<string, unknown>): void => {
      const status = headers["grpc-status"];
      if (status === undefined) return;
      this.#isOver = true;
      if (status !== "0")
        this.#failure = new RpcFailure(
          Number(status),
          decodeGrpcText((headers["grpc-message"] as string | undefined) ?? ""),
        );
      this.#wake();
    };
    stream.on("response", ended);
    stream.on("trailers", ended);
    stream.on("error", () => {});
    stream.on("close", () => {
      if (!this.#isOver) this.#failure = new RpcFailure(-1, "the stream broke");
      this.#isOver = true;
      this.#wake();
    });
    stream.on("data", (chunk: Buffer) => {
      reader.feed(chunk);
      while (reader.next() === GrpcFound.MESSAGE) this.#queue.push(fromBinary(output, reader.message));
      this.#wake();
    });
  }

  /** The next message; throws the stream's failure. */
  async next(): Promise<MessageShape<O>> {
    const message = await this.messages().next();
    if (message.done === true) throw new RpcFailure(0, "the stream ended");
    return message.value;
  }

  async *messages(): AsyncGenerator<MessageShape<O>, void> {
    const deadline = Date.now() + WAIT_MS;
    for (;;) {
      const message = this.#queue.shift();
      if (message !== undefined) {
        yield message;
        continue;
      }
      if (this.#failure !== null) throw this.#failure;
      if (this.#isOver) return;
      const { promise, resolve } = Promise.withResolvers<boolean>();
      const timer = setTimeout(() => resolve(false), Math.max(0, deadline - Date.now()));
      this.#wake = () => resolve(true);
      const woke = await promise;
      clearTimeout(timer);
      if (!woke) throw new RpcFailure(-1, "no message came in time");
    }
  }

  cancel(): void {
    this.#stream.close(8);
  }
}

export function newKey(): { key: KeyObject; pem: string; publicKey: KeyObject } {
  const pair = generateKeyPairSync("ec", { namedCurve: "P-256" });
  return {
    key: pair.privateKey,
    publicKey: pair.publicKey,
    pem: pair.privateKey.export({ type: "pkcs8", format: "pem" }) as string,
  };
}

export function derPem(der: Uint8Array): string {
  return `-----BEGIN CERTIFICATE-----\n${Buffer.from(der)
    .toString("base64")
    .replace(/(.{64})(?=.)/g, "$1\n")}\n-----END CERTIFICATE-----\n`;
}
