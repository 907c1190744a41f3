import http from "node:http";
import http2 from "node:http2";
import https from "node:https";
import net from "node:net";
import type { ProbeAction, ProbePlan } from "#/model/pod-plan.ts";
import type { CommandResult } from "../run-command.ts";

/** What probes and hooks act on. */
export interface ProbeTarget {
  readonly podIp: string;
  /** Runs a command inside the container. */
  exec(argv: readonly string[], timeoutMs: number): Promise<CommandResult>;
}

export interface ProbeResult {
  readonly ok: boolean;
  /** "" when ok, else what was seen, for the pod's status. */
  readonly message: string;
}

const OK: ProbeResult = { ok: true, message: "" };
const failed = (message: string): ProbeResult => ({ ok: false, message });

/** One attempt. Never throws. */
export async function runProbe(
  action: ProbeAction,
  timeoutMs: number,
  target: ProbeTarget,
): Promise<ProbeResult> {
  switch (action.kind) {
    case "http":
      return await probeHttp(action, timeoutMs, target.podIp);
    case "tcp":
      return await probeTcp(action.host ?? target.podIp, action.port, timeoutMs);
    case "grpc":
      return await probeGrpc(target.podIp, action.port, action.service, timeoutMs);
    case "exec": {
      const result = await target.exec(action.argv, timeoutMs);
      return result.code === 0
        ? OK
        : failed(`exit code ${result.code}: ${(result.stderr || result.stdout).trim().slice(0, 200)}`);
    }
  }
}

/**
 * Repeats a probe and tells when its verdict turns, counted by thresholds. The verdict starts as `initially`; the first
 * attempt comes after the initial delay.
 */
export class ProbeLoop {
  readonly #plan: ProbePlan;
  readonly #target: ProbeTarget;
  readonly #turned: (ok: boolean, message: string) => void;
  #verdict: boolean;
  #inARow = 0;
  #last: boolean | null = null;
  #timer: NodeJS.Timeout | null = null;
  #stopped = false;

  constructor(
    plan: ProbePlan,
    target: ProbeTarget,
    initially: boolean,
    turned: (ok: boolean, message: string) => void,
  ) {
    this.#plan = plan;
    this.#target = target;
    this.#verdict = initially;
    this.#turned = turned;
  }

  /** `afterMs`: a container that is taken over waits one period, not the initial delay. */
  start(afterMs: number = this.#plan.initialDelaySeconds * 1000): void {
    this.#timer = setTimeout(() => void this.#attempt(), afterMs);
  }

  stop(): void {
    this.#stopped = true;
    if (this.#timer !== null) clearTimeout(this.#timer);
  }

  async #attempt(): Promise<void> {
    const result = await runProbe(this.#plan.action, this.#plan.timeoutSeconds * 1000, this.#target);
    if (this.#stopped) return;
    this.#inARow = this.#last === result.ok ? this.#inARow + 1 : 1;
    this.#last = result.ok;
    const threshold = result.ok ? this.#plan.successThreshold : this.#plan.failureThreshold;
    const turns = result.ok !== this.#verdict && this.#inARow >= threshold;
    // A probe that has never succeeded keeps saying why.
    if (turns || (!result.ok && !this.#verdict)) {
      if (turns) this.#verdict = result.ok;
      this.#turned(this.#verdict, result.message);
    }
    if (!this.#stopped) this.#timer = setTimeout(() => void this.#attempt(), this.#plan.periodSeconds * 1000);
  }
}

type HttpAction = Extract<ProbeAction, { kind: "http" }>;

/** Any status from 200 to 399 is good; certificates are not checked, as the kubelet does not. */
export function probeHttp(action: HttpAction, timeoutMs: number, podIp: string): Promise<ProbeResult> {
  return new Promise((resolve) => {
    const headers: Record<string, string> = {
      "user-agent": "pillion-probe",
      accept: "*/*",
      connection: "close",
    };
    for (const [name, value] of action.headers) headers[name.toLowerCase()] = value;
    const client = action.scheme === "HTTPS" ? https : http;
    const request = client.request({
      host: action.host ?? podIp,
      port: action.port,
      path: action.path.startsWith("/") ? action.path : `/${action.path}`,
      headers,
      agent: false,
      ...(action.scheme === "HTTPS" ? { rejectUnauthorized: false } : {}),
    });
    const timer = setTimeout(() => {
      finish(failed(`no answer from ${podIp}:${action.port}${action.path} in ${timeoutMs} ms`));
      request.destroy();
    }, timeoutMs);
    const finish = (result: ProbeResult): void => {
      clearTimeout(timer);
      resolve(result);
    };
    request.on("response", (response) => {
      const status = response.statusCode ?? 0;
      response.on("error", () => {});
      response.destroy();
      finish(
        status >= 200 && status < 400
          ? OK
          : failed(`status ${status} from ${podIp}:${action.port}${action.path}`),
      );
    });
    request.on("error", (error) => finish(failed(error.message)));
    request.end();
  });
}

/**
 * connect() says little where a sidecar accepts for its program. So the probe ends its half at once: a sidecar then dials the
 * program without waiting for a word, and ends with RST when nobody listens; a program that is there mostly ends, too.
 * One that says and does nothing passes after this time without a reset.
 */
const TCP_SETTLES_MS = 1000;

function probeTcp(host: string, port: number, timeoutMs: number): Promise<ProbeResult> {
  return new Promise((resolve) => {
    const socket = net.connect({ host, port, allowHalfOpen: true });
    const finish = (result: ProbeResult): void => {
      clearTimeout(timer);
      resolve(result);
      socket.destroy();
    };
    let timer = setTimeout(
      () => finish(failed(`no answer from ${host}:${port} in ${timeoutMs} ms`)),
      timeoutMs,
    );
    socket.on("connect", () => {
      clearTimeout(timer);
      timer = setTimeout(() => finish(OK), Math.min(TCP_SETTLES_MS, timeoutMs));
      socket.end();
    });
    // A server that speaks, or ends, is there.
    socket.on("data", () => finish(OK));
    socket.on("end", () => finish(OK));
    socket.on("error", (error) => finish(failed(error.message)));
  });
}

/** grpc.health.v1.Health/Check; one message each way, small enough to write by hand. */
function probeGrpc(host: string, port: number, service: string, timeoutMs: number): Promise<ProbeResult> {
  return new Promise((resolve) => {
    const session = http2.connect(`http://${host}:${port}`);
    const finish = (result: ProbeResult): void => {
      clearTimeout(timer);
      resolve(result);
      session.destroy();
    };
    const timer = setTimeout(
      () => finish(failed(`no answer from ${host}:${port} in ${timeoutMs} ms`)),
      timeoutMs,
    );
    session.on("error", (error: Error) => finish(failed(error.message)));
    const name = Buffer.from(service, "utf8").subarray(0, 127);
    const message =
      name.length === 0 ? Buffer.alloc(0) : Buffer.concat([Buffer.from([0x0a, name.length]), name]);
    const head = Buffer.alloc(5);
    head.writeUInt32BE(message.length, 1);
    const stream = session.request({
      ":method": "POST",
      ":path": "/grpc.health.v1.Health/Check",
      "content-type": "application/grpc",
      te: "trailers",
      "grpc-timeout": `${Math.min(timeoutMs, 99_999_999)}m`,
    });
    const chunks: Buffer[] = [];
    let grpcStatus: string | undefined;
    const readStatus = (headers: http2.IncomingHttpHeaders): void => {
      const value = headers["grpc-status"];
      if (typeof value === "string") grpcStatus = value;
    };
    stream.on("response", readStatus);
    stream.on("trailers", readStatus);
    stream.on("data", (chunk: Buffer) => chunks.length < 64 && chunks.push(chunk));
    stream.on("error", (error: Error) => finish(failed(error.message)));
    stream.on("end", () => {
      const body = Buffer.concat(chunks);
      // Field 1, varint: ServingStatus. 1 is SERVING; absent is UNKNOWN.
      const serving = body.length >= 7 && body[5] === 0x08 && body[6] === 1;
      if (grpcStatus !== undefined && grpcStatus !== "0")
        finish(failed(`grpc-status ${grpcStatus} from the health service`));
      else finish(serving ? OK : failed("the health service does not say SERVING"));
    });
    stream.end(Buffer.concat([head, message]));
  });
}
