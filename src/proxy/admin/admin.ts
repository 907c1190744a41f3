import type { IpAddress } from "#/base/address.ts";
import type { Clock } from "#/base/clock.ts";
import type { Conn } from "#/base/conn.ts";
import { parseIp } from "#/base/address.ts";
import { fieldValue, type Fields } from "#/base/fields.ts";
import type { FlowPage } from "#/model/flow.ts";
import { isLogLevel } from "#/net/log.ts";
import type { HttpService, RequestHead, RequestSink, ResponseSink } from "#/stack/http/exchange.ts";
import type { Guard } from "#/stack/http/guard.ts";
import { HTTP1_SERVER_DEFAULTS, Http1Server } from "#/stack/http/http1-server.ts";
import { isLoopback } from "#/stack/networks.ts";
import { Connections } from "../connections.ts";

/** What the admin server shows and sets. */
export interface AdminSubject {
  readonly isReady: boolean;
  /** Prometheus text. */
  metrics(): string;
  drainState(): {
    readonly draining: boolean;
    readonly inboundRequests: number;
    readonly inboundConnections: number;
    /** … so far, those that are over among them. */
    readonly inboundAccepted: number;
  };
  /** JSON of how a Service's endpoints look to the workload; null where it has not used it of late. */
  endpoints(backend: string, fields: Fields): string | null;
  /** What was asked of the workload and what was decided (`FlowPage`). */
  flows(): FlowPage;
  logLevel: string;
  shutdown(): void;
}

/** A log level is a short word. */
const BODY_BYTES_MAX = 256;

/** Probes, Prometheus and a few who look. Half of them for one address; a further connection is reset. */
const CONNECTIONS_MAX = { all: 256, perClient: 128 };

/** Below it only root listens or calls from. */
const PRIVILEGED_PORTS = 1024;

/**
 * HTTP/1 on the admin port. Reading is for anyone who reaches it (probes, Prometheus); what changes state is for
 * loopback only: `/shutdown` and setting `/proxy-log-level`. `/flows` tells who calls what, so it is for loopback and for root on the
 * machine: from its address, from a privileged port.
 */
export class Admin {
  readonly #subject: AdminSubject;
  readonly #clock: Clock;
  readonly #guard: Guard;
  readonly #machineIp: IpAddress | null;
  readonly #connections = new Connections(CONNECTIONS_MAX);

  /** `machineIp`: as which the agent calls; null: not known. */
  constructor(subject: AdminSubject, clock: Clock, guard: Guard, machineIp: IpAddress | null = null) {
    this.#subject = subject;
    this.#clock = clock;
    this.#guard = guard;
    this.#machineIp = machineIp;
  }

  accept(conn: Conn): void {
    const limit = this.#connections.limitFor(conn.remote.ip);
    if (limit !== null) {
      this.#guard.reached(limit);
      conn.reset();
      return;
    }
    const connection = this.#connections.add(conn.remote.ip, () => conn.reset());
    const { ip, port } = conn.remote;
    const isLocal = isLoopback(ip);
    const isMachine = ip === this.#machineIp && port < PRIVILEGED_PORTS;
    const service = new AdminService(this.#subject, isLocal, isLocal || isMachine);
    const settings = { ...HTTP1_SERVER_DEFAULTS, guard: this.#guard };
    new Http1Server(conn, service, this.#clock, () => connection.remove(), settings);
  }
}

interface Answer {
  readonly status: number;
  readonly type: string;
  readonly text: string;
}

class AdminService implements HttpService {
  readonly #subject: AdminSubject;
  readonly #isLocal: boolean;
  readonly #seesFlows: boolean;

  constructor(subject: AdminSubject, isLocal: boolean, seesFlows: boolean) {
    this.#subject = subject;
    this.#isLocal = isLocal;
    this.#seesFlows = seesFlows;
  }

  call(head: RequestHead, last: boolean, reply: ResponseSink): RequestSink {
    let body = "";
    const finish = (): void => {
      const { status, type, text } = this.#answer(head, body.trim());
      const bytes = new TextEncoder().encode(text);
      const fields: Fields = [
        "content-type",
        type,
        "content-length",
        String(bytes.length),
        ...SAFE_IN_BROWSERS,
      ];
      reply.head({ status, version: "1.1", reason: null, fields }, bytes.length === 0);
      if (bytes.length === 0) return;
      reply.body(bytes, 0, bytes.length);
      reply.finish(null);
    };
    if (last) finish();
    return {
      data: (bytes, start, stop) => {
        if (body.length < BODY_BYTES_MAX)
          body += new TextDecoder("latin1").decode(bytes.subarray(start, stop));
        reply.requestConsumed(stop - start);
      },
      end: () => finish(),
      abort: () => undefined,
      responseConsumed: () => undefined,
    };
  }

  #answer({ method, path, authority, fields }: RequestHead, body: string): Answer {
    if (!isOurName(authority))
      return plain(421, "this is no name of a sidecar; ask by address or localhost\n");
    const isReading = method === "GET" || method === "HEAD";
    const at = path.split("?", 1)[0] ?? "";
    if (at === "/live") return plain(200, "live\n");
    if (at === "/ready") return this.#subject.isReady ? plain(200, "ready\n") : plain(503, "not ready\n");
    if (at === "/metrics" && isReading)
      return { status: 200, type: "text/plain; version=0.0.4; charset=utf-8", text: this.#subject.metrics() };
    if (at === "/drain" && isReading)
      return {
        status: 200,
        type: "application/json",
        text: `${JSON.stringify(this.#subject.drainState())}\n`,
      };
    if (at === "/endpoints" && isReading) return this.#endpoints(path);
    if (at === "/flows" && isReading) {
      if (!this.#seesFlows) return plain(403, "only from loopback, or from root on the machine\n");
      return {
        status: 200,
        type: "application/json",
        text: `${JSON.stringify(this.#subject.flows())}\n`,
      };
    }
    if (at === "/shutdown" || at === "/proxy-log-level") {
      if (!this.#isLocal) return plain(403, "only from loopback\n");
      if (!isReading && isFromPage(fields)) return plain(403, "not for pages in a browser\n");
      return at === "/shutdown" ? this.#shutdown(method) : this.#logLevel(method, body);
    }
    return plain(404, "not found\n");
  }

  /** `?backend=NAME:PORT&header=NAME:VALUE…`: the fields are what hashing and sessions go by. */
  #endpoints(path: string): Answer {
    const query = new URL(path, "http://admin").searchParams;
    const backend = query.get("backend");
    if (backend === null) return plain(400, "say which: ?backend=NAME:PORT\n");
    const fields = query.getAll("header").flatMap((each) => {
      const colon = each.indexOf(":");
      return [each.slice(0, colon).toLowerCase(), each.slice(colon + 1).trim()];
    });
    const text = this.#subject.endpoints(backend, fields);
    if (text === null) return plain(404, "not used of late\n");
    return { status: 200, type: "application/json", text: `${text}\n` };
  }

  #shutdown(method: string): Answer {
    if (method !== "POST") return plain(405, "POST it\n");
    this.#subject.shutdown();
    return plain(200, "shutdown\n");
  }

  #logLevel(method: string, body: string): Answer {
    if (method === "GET") return plain(200, `${this.#subject.logLevel}\n`);
    if (method !== "PUT") return plain(405, "GET or PUT it\n");
    if (!isLogLevel(body)) return plain(400, "error, warn, info or debug\n");
    this.#subject.logLevel = body;
    return plain(204, "");
  }
}

/**
 * Nobody outside owns such a name, so no page can make a browser take us for its own server (DNS rebinding): an address, localhost,
 * a name of one label, or one of the cluster. None is what HTTP/1.0 sends.
 */
function isOurName(authority: string): boolean {
  if (authority === "" || authority.startsWith("[")) return true;
  const host = authority.replace(/:\d*$/, "").replace(/\.$/, "").toLowerCase();
  return !host.includes(".") || parseIp(host) !== null || /\.(?:svc|cluster\.local|localhost)$/.test(host);
}

/** Browsers say where a request comes from; what is no browser does not. */
function isFromPage(fields: Fields): boolean {
  const site = fieldValue(fields, "sec-fetch-site");
  return fieldValue(fields, "origin") !== null || (site !== null && site !== "none");
}

/** What is shown is text, for whoever asked, and for no other page. There is no CORS. */
const SAFE_IN_BROWSERS: Fields = [
  "x-content-type-options",
  "nosniff",
  "cross-origin-resource-policy",
  "same-origin",
  "cache-control",
  "no-store",
];

function plain(status: number, text: string): Answer {
  return { status, type: "text/plain", text };
}
