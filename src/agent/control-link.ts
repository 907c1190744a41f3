import net from "node:net";
import { peerCredentials } from "#/kernel/libc.ts";
import {
  LINE_BYTES_MAX,
  type ControlAnswer,
  type ControlQuestion,
  type FromAgent,
  type FromControl,
  type NodeInfo,
} from "#/model/node-protocol.ts";
import type { PodStatus } from "#/model/pod-plan.ts";
import type { FolderContent } from "./folder.ts";
import { readLines, writeLine } from "./lines.ts";
import type { Attested } from "./runtime/pod-host.ts";

export interface ControlLinkOptions {
  readonly socketPath: string;
  /** Only a process of this user is the control plane. */
  readonly controlUid: number;
  readonly node: NodeInfo;
  folder(): FolderContent;
  pods(): readonly PodStatus[];
  /** How many these are: telling of all of them costs as much, so the more there are the more changes make one message. */
  podCount(): number;
  onPlan(plan: Extract<FromControl, { kind: "plan" }>): void;
  readonly log: (level: "info" | "warn" | "error", message: string) => void;
}

const RECONNECT_MS = 100;
const JOIN_MIN_MS = 20;
const JOIN_MAX_MS = 500;
/** An operator's question that the control plane does not answer in this time fails. */
const ANSWER_TIMEOUT_MS = 15_000;

/** How long changes are gathered before all pods are told of: each telling costs time in step with their number. */
export function joinMs(pods: number): number {
  return Math.min(JOIN_MAX_MS, JOIN_MIN_MS + pods);
}

/**
 * The agent's end of the conversation with the control plane. Everything said is whole state, said again on each new
 * connection, so that either side may come and go.
 */
export class ControlLink {
  readonly #options: ControlLinkOptions;
  #socket: net.Socket | null = null;
  #connected = false;
  #closed = false;
  #podsTimer: NodeJS.Timeout | null = null;
  #retry: NodeJS.Timeout | null = null;
  #nextId = 1;
  /** Tokens asked for; asked again on a new connection. Bounded by the number of pods. */
  readonly #tokens = new Map<
    number,
    {
      readonly podUid: string;
      readonly resolve: (attested: Attested) => void;
      readonly reject: (error: Error) => void;
    }
  >();
  /** Operators' questions; bounded by their connections. */
  readonly #questions = new Map<number, (answer: ControlAnswer) => void>();

  constructor(options: ControlLinkOptions) {
    this.#options = options;
  }

  get connected(): boolean {
    return this.#connected;
  }

  open(): void {
    if (this.#closed) return;
    const socket = net.connect(this.#options.socketPath);
    this.#socket = socket;
    socket.on("connect", () => this.#greet(socket));
    socket.on("error", () => {});
    socket.on("close", () => {
      if (this.#connected && !this.#closed)
        this.#options.log("warn", "lost the control plane: pods run on, and change when it is back");
      this.#connected = false;
      for (const answer of this.#questions.values()) answer(AWAY);
      this.#questions.clear();
      if (!this.#closed) this.#retry = setTimeout(() => this.open(), RECONNECT_MS);
    });
    readLines(socket, LINE_BYTES_MAX, (message) => this.#hear(message as FromControl));
  }

  close(): void {
    this.#closed = true;
    if (this.#retry !== null) clearTimeout(this.#retry);
    if (this.#podsTimer !== null) clearTimeout(this.#podsTimer);
    this.#socket?.destroy();
    for (const { reject } of this.#tokens.values()) reject(new Error("the agent is ending"));
    this.#tokens.clear();
  }

  /** Waits while the control plane is away. Rejects when it refuses. */
  attest(podUid: string): Promise<Attested> {
    return new Promise((resolve, reject) => {
      const requestId = this.#nextId++;
      this.#tokens.set(requestId, { podUid, resolve, reject });
      this.#say({ kind: "attest", podUid, requestId });
    });
  }

  async ask(question: ControlQuestion): Promise<ControlAnswer> {
    if (!this.#connected) return AWAY;
    const requestId = this.#nextId++;
    return await new Promise((resolve) => {
      const timer = setTimeout(() => {
        this.#questions.delete(requestId);
        resolve({
          kind: "error",
          message: `the control plane has not answered in ${ANSWER_TIMEOUT_MS / 1000} s: see its log`,
        });
      }, ANSWER_TIMEOUT_MS);
      this.#questions.set(requestId, (answer) => {
        clearTimeout(timer);
        resolve(answer);
      });
      this.#say({ kind: "ask", requestId, question });
    });
  }

  sendFolder(): void {
    const { files, problems } = this.#options.folder();
    this.#say({ kind: "folder", files, problems });
  }

  /** Soon; many changes of one moment become one message. */
  podsChanged(): void {
    this.#podsTimer ??= setTimeout(() => {
      this.#podsTimer = null;
      this.#say({ kind: "pods", pods: this.#options.pods() });
    }, joinMs(this.#options.podCount()));
  }

  #greet(socket: net.Socket): void {
    const peer = peerCredentials(fileDescriptor(socket));
    if (peer === null || peer.uid !== this.#options.controlUid) {
      this.#options.log(
        "error",
        `${this.#options.socketPath} is served by uid ${peer?.uid ?? "?"}, not by the control plane: who took it?`,
      );
      socket.destroy();
      return;
    }
    this.#connected = true;
    this.#say({ kind: "hello", node: this.#options.node });
    // Pods before the folder: what runs must be known before it is decided what should.
    this.#say({ kind: "pods", pods: this.#options.pods() });
    this.sendFolder();
    for (const [requestId, { podUid }] of this.#tokens) this.#say({ kind: "attest", podUid, requestId });
  }

  #say(message: FromAgent): void {
    if (this.#connected && this.#socket !== null) writeLine(this.#socket, message);
  }

  #hear(message: FromControl): void {
    switch (message.kind) {
      case "plan":
        return this.#options.onPlan(message);
      case "token": {
        const waiting = this.#tokens.get(message.requestId);
        if (waiting === undefined) return;
        this.#tokens.delete(message.requestId);
        if (message.error === "")
          waiting.resolve({ token: message.token, trustAnchorsPem: message.trustAnchorsPem });
        else waiting.reject(new Error(`the control plane gives no token: ${message.error}`));
        return;
      }
      case "answer": {
        const answer = this.#questions.get(message.requestId);
        this.#questions.delete(message.requestId);
        answer?.(message.answer);
        return;
      }
    }
  }
}

const AWAY: ControlAnswer = {
  kind: "error",
  message: "the control plane is away: see `pillion status` and its log",
};

/** Node does not show a socket's descriptor; the handle has it. */
export function fileDescriptor(socket: net.Socket): number {
  return (socket as unknown as { _handle: { fd: number } | null })._handle?.fd ?? -1;
}
