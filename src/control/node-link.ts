import { chmodSync, unlinkSync } from "node:fs";
import { createServer } from "node:net";
import type { Server, Socket } from "node:net";
import { peerCredentials } from "#/kernel/libc.ts";
import type {
  ControlAnswer,
  ControlQuestion,
  FromAgent,
  FromControl,
  NodeInfo,
} from "#/model/node-protocol.ts";
import { LINE_BYTES_MAX } from "#/model/node-protocol.ts";
import type { PodPlan, ServicePlan } from "#/model/pod-plan.ts";
import type { Log } from "#/net/log.ts";
import type { Mesh } from "./mesh/mesh.ts";

export interface NodeLinkOptions {
  readonly socketPath: string;
  readonly log: Log;
  /** Called with each `hello`; what follows waits until it has answered. */
  readonly begin: (node: NodeInfo) => Promise<NodeParts>;
}

/** What there is once it is known for which machine. */
export interface NodeParts {
  readonly mesh: Mesh;
  /** A token for a pod, or why there is none. */
  readonly attest: (podUid: string) => {
    readonly token: string;
    readonly trustAnchorsPem: string;
    readonly error: string;
  };
  readonly answer: (question: ControlQuestion) => ControlAnswer | Promise<ControlAnswer>;
}

/** Plans that the agent has not read are not queued: the latest one is sent when it reads again. */
export class NodeLink {
  readonly #options: NodeLinkOptions;
  readonly #server: Server;
  #agent: Socket | null = null;
  #pods: readonly PodPlan[] | null = null;
  #services: readonly ServicePlan[] = [];
  #revision = 0;
  #sent = "";
  #parts: NodeParts | null = null;

  constructor(options: NodeLinkOptions) {
    this.#options = options;
    this.#server = createServer((socket) => this.#accept(socket));
  }

  /** Listens. A socket that a dead process left behind is replaced. */
  async listen(): Promise<void> {
    const { socketPath } = this.#options;
    try {
      unlinkSync(socketPath);
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== "ENOENT") throw error;
    }
    await new Promise<void>((resolve, reject) => {
      this.#server.once("error", reject);
      this.#server.listen(socketPath, resolve);
    });
    chmodSync(socketPath, 0o600);
  }

  close(): void {
    this.#server.close();
    this.#agent?.destroy();
  }

  /** What should run from now on. Sent when it differs from what the agent has. */
  setPlan(pods: readonly PodPlan[], services: readonly ServicePlan[]): void {
    this.#pods = pods;
    this.#services = services;
    this.#sendPlan();
  }

  #sendPlan(): void {
    const agent = this.#agent;
    if (agent === null || this.#pods === null || agent.writableNeedDrain) return;
    const text = JSON.stringify({ pods: this.#pods, services: this.#services });
    if (text === this.#sent) return;
    this.#sent = text;
    this.#revision++;
    agent.write(`{"kind":"plan","revision":${this.#revision},${text.slice(1)}\n`);
  }

  #accept(socket: Socket): void {
    const { log } = this.#options;
    const fd = (socket as unknown as { readonly _handle?: { readonly fd: number } | null })._handle?.fd;
    const peer = fd === undefined || fd < 0 ? null : peerCredentials(fd);
    // The agent is root; without root, agent and control plane are the same user.
    if (peer === null || (peer.uid !== 0 && peer.uid !== process.getuid?.())) {
      log.warn("a process that is not the agent was refused on the control socket", {
        uid: peer?.uid ?? -1,
        pid: peer?.pid ?? -1,
      });
      socket.destroy();
      return;
    }
    // One agent: a new connection is a new agent process, and the old one's is dead or about to be.
    this.#agent?.destroy();
    this.#agent = socket;
    this.#sent = "";
    const lines: string[] = [];
    let isTaking = false;
    const takeAll = async (): Promise<void> => {
      if (isTaking) return;
      isTaking = true;
      // While a hello is being answered nothing more is read, so that what waits is bounded by one read.
      socket.pause();
      for (let line = lines.shift(); line !== undefined && !socket.destroyed; line = lines.shift())
        await this.#take(socket, line);
      isTaking = false;
      socket.resume();
    };
    const failed = (error: unknown): void => {
      log.error("the agent's message could not be taken in; the connection is closed", { error });
      socket.destroy();
    };
    let chunks: Buffer[] = [];
    let heldBytes = 0;
    socket.on("data", (chunk: Buffer) => {
      let from = 0;
      for (let at = chunk.indexOf(10); at !== -1; at = chunk.indexOf(10, from)) {
        chunks.push(chunk.subarray(from, at));
        lines.push(Buffer.concat(chunks).toString("utf8"));
        chunks = [];
        heldBytes = 0;
        from = at + 1;
      }
      chunks.push(chunk.subarray(from));
      heldBytes += chunk.length - from;
      if (heldBytes > LINE_BYTES_MAX) {
        log.error("the agent sent a line that is too long; the connection is closed", { bytes: heldBytes });
        socket.destroy();
      } else if (lines.length > 0) takeAll().catch(failed);
    });
    socket.on("drain", () => this.#sendPlan());
    socket.on("error", (error) => log.info("the agent's connection failed", { error }));
    socket.on("close", () => {
      if (this.#agent === socket) this.#agent = null;
    });
  }

  async #take(socket: Socket, line: string): Promise<void> {
    const { log } = this.#options;
    const message = JSON.parse(line) as FromAgent;
    if (message.kind === "hello") {
      log.info("the agent is here", { node: message.node.name, gatewayIp: message.node.gatewayIp });
      this.#parts = await this.#options.begin(message.node);
      this.#parts.mesh.takeNode(message.node);
      return;
    }
    const parts = this.#parts;
    if (parts === null) throw new Error(`the first message is ${JSON.stringify(message.kind)}, not hello`);
    switch (message.kind) {
      case "folder":
        // Answered with a plan even where nothing changes: the agent waits for one.
        this.#sent = "";
        return parts.mesh.takeFolder(message.files, message.problems);
      case "pods":
        return parts.mesh.takePods(message.pods);
      case "attest":
        return this.#reply(socket, {
          kind: "token",
          requestId: message.requestId,
          podUid: message.podUid,
          ...parts.attest(message.podUid),
        });
      case "ask":
        return this.#reply(socket, {
          kind: "answer",
          requestId: message.requestId,
          answer: await parts.answer(message.question),
        });
      default:
        log.warn("the agent sent a message of a kind that is not known", {
          kind: (message as { kind: unknown }).kind,
        });
    }
  }

  #reply(socket: Socket, message: FromControl): void {
    socket.write(`${JSON.stringify(message)}\n`);
  }
}
