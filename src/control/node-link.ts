import { chmodSync, unlinkSync } from "node:fs";
import { createServer } from "node:net";
import type { Server, Socket } from "node:net";
import { peerCredentials } from "#/kernel/libc.ts";
import type { ControlAnswer, ControlQuestion, FromAgent, FromControl } from "#/model/node-protocol.ts";
import { LINE_BYTES_MAX } from "#/model/node-protocol.ts";
import type { PodPlan, ServicePlan } from "#/model/pod-plan.ts";
import type { Log } from "#/net/log.ts";
import type { Mesh } from "./mesh/mesh.ts";

export interface NodeLinkOptions {
  readonly socketPath: string;
  readonly mesh: Mesh;
  readonly log: Log;
  /** A token for a pod, or why there is none. */
  readonly attest: (podUid: string) => { readonly token: string; readonly error: string };
  readonly answer: (question: ControlQuestion) => ControlAnswer;
  /** Called with each `hello`. */
  readonly onNode: (node: Extract<FromAgent, { kind: "hello" }>["node"]) => void;
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
    let chunks: Buffer[] = [];
    let heldBytes = 0;
    socket.on("data", (chunk: Buffer) => {
      let from = 0;
      for (let at = chunk.indexOf(10); at !== -1; at = chunk.indexOf(10, from)) {
        chunks.push(chunk.subarray(from, at));
        const line = Buffer.concat(chunks).toString("utf8");
        chunks = [];
        heldBytes = 0;
        from = at + 1;
        this.#take(socket, line);
      }
      chunks.push(chunk.subarray(from));
      heldBytes += chunk.length - from;
      if (heldBytes > LINE_BYTES_MAX) {
        log.error("the agent sent a line that is too long; the connection is closed", { bytes: heldBytes });
        socket.destroy();
      }
    });
    socket.on("drain", () => this.#sendPlan());
    socket.on("error", (error) => log.info("the agent's connection failed", { error }));
    socket.on("close", () => {
      if (this.#agent === socket) this.#agent = null;
    });
  }

  #take(socket: Socket, line: string): void {
    const { mesh, log } = this.#options;
    let message: FromAgent;
    try {
      message = JSON.parse(line) as FromAgent;
    } catch (error) {
      log.error("the agent sent a line that is no JSON; the connection is closed", { error });
      socket.destroy();
      return;
    }
    switch (message.kind) {
      case "hello":
        log.info("the agent is here", { node: message.node.name, gatewayIp: message.node.gatewayIp });
        this.#options.onNode(message.node);
        mesh.takeNode(message.node);
        return;
      case "folder":
        mesh.takeFolder(message.files, message.problems);
        return;
      case "pods":
        mesh.takePods(message.pods);
        return;
      case "attest":
        this.#reply(socket, {
          kind: "token",
          requestId: message.requestId,
          podUid: message.podUid,
          ...this.#options.attest(message.podUid),
        });
        return;
      case "ask":
        this.#reply(socket, {
          kind: "answer",
          requestId: message.requestId,
          answer: this.#options.answer(message.question),
        });
        return;
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
