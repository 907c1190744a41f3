/**
 * What a runtime's `net` and `tls` really do where the sidecar's safety rests on it. Starts `tls-server.ts` under each
 * candidate and tries it with clients that are the same for all (Node's and OpenSSL's). Prints one line per question.
 *
 *   node bench/runtime/tls-semantics.ts [RUNTIME …]     default: the node that runs this
 */
import { spawn, type ChildProcess } from "node:child_process";
import { once } from "node:events";
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { connect as connectTcp, type Socket } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { setTimeout as sleep } from "node:timers/promises";
import { connect as connectTls, createSecureContext, type ConnectionOptions, type TLSSocket } from "node:tls";
import { makeCertificates, MESH_ALPN, SERVER_NAME } from "./certs.ts";

interface ServerEvent {
  event: string;
  code?: string;
  reason?: string | null;
  text?: string;
  port?: number;
  protocol?: number;
  san?: string | null;
}

/** What a client saw until its connection was over (or 1.5 s had passed). */
interface Seen {
  handshaken: boolean;
  received: string;
  ended: boolean;
  error: string | null;
}

const folder = mkdtempSync(join(tmpdir(), "tls-semantics-"));
makeCertificates(folder);
await sleep(1100); // lets `expired` expire
const pem = (name: string): Buffer => readFileSync(join(folder, name));
const secretBytes = "application bytes right after the handshake";

/** One server process under a candidate runtime, and its events since the last `mark`. */
class Server {
  readonly #process: ChildProcess;
  readonly events: ServerEvent[] = [];
  port = 0;
  constructor(runtime: string) {
    this.#process = spawn(runtime, [join(import.meta.dirname, "tls-server.ts"), folder], {
      stdio: ["pipe", "pipe", process.env["SHOW_STDERR"] === undefined ? "ignore" : "inherit"],
    });
    if (this.#process.stdout === null) throw new Error("no stdout");
    createInterface(this.#process.stdout).on("line", (line) => {
      const event = JSON.parse(line) as ServerEvent;
      if (event.event === "listening") this.port = event.port ?? 0;
      else this.events.push(event);
    });
  }
  async until(wanted: () => boolean, withinMs = 1500): Promise<boolean> {
    for (const stop = Date.now() + withinMs; Date.now() < stop; await sleep(5)) if (wanted()) return true;
    return wanted();
  }
  saw(name: string): ServerEvent | undefined {
    return this.events.find((e) => e.event === name);
  }
  mark(): void {
    this.events.length = 0;
  }
  rotate(): void {
    this.#process.kill("SIGUSR2");
  }
  async stop(): Promise<void> {
    this.#process.stdin?.end();
    await once(this.#process, "exit");
  }
}

/** Honoured by `tls.connect`, though missing from its published types. */
const HALF_OPEN = { allowHalfOpen: true };

function tlsOptions(server: Server, leaf: string | null, more: ConnectionOptions = {}): ConnectionOptions {
  const own = leaf === null ? {} : { key: pem(`${leaf}.key`), cert: pem(`${leaf}.pem`) };
  return {
    host: "127.0.0.1",
    port: server.port,
    servername: SERVER_NAME,
    ca: [pem("root.pem")],
    ALPNProtocols: [MESH_ALPN],
    minVersion: "TLSv1.3",
    ...HALF_OPEN,
    ...own,
    ...more,
  };
}

function watch(socket: Socket): Seen {
  const seen: Seen = { handshaken: false, received: "", ended: false, error: null };
  socket.on("secureConnect", () => (seen.handshaken = true));
  socket.on("data", (bytes: Buffer) => (seen.received += bytes.toString("latin1")));
  socket.on("end", () => (seen.ended = true));
  socket.on("error", (error: NodeJS.ErrnoException) => (seen.error = error.code ?? error.message));
  return seen;
}

type Verdict = [ok: boolean, detail: string];
type Check = (server: Server) => Promise<Verdict>;

const refused =
  (leaf: string | null, more: ConnectionOptions = {}): Check =>
  async (server) => {
    const client = connectTls(tlsOptions(server, leaf, more));
    const seen = watch(client);
    client.once("secureConnect", () => client.write(secretBytes));
    await server.until(() => client.closed);
    await sleep(30);
    client.destroy();
    const delivered = server.saw("data") !== undefined;
    const why = server.saw("refused")?.code ?? server.saw("secure")?.reason ?? "nothing said";
    return [
      !delivered && (seen.error !== null || seen.ended),
      `${delivered ? "BYTES DELIVERED; " : ""}server: ${why}; client: ${seen.error ?? "end"}`,
    ];
  };

const accepted: Check = async (server) => {
  const client = connectTls(tlsOptions(server, "client"));
  const seen = watch(client);
  client.once("secureConnect", () => client.write("hello"));
  await server.until(() => seen.received !== "");
  client.destroy();
  return [
    seen.received === "echo hello\n" && client.alpnProtocol === MESH_ALPN,
    `alpn ${client.alpnProtocol}, ${JSON.stringify(server.saw("secure")?.san)}`,
  ];
};

const resumed: Check = async (server) => {
  let session: Buffer | undefined;
  const first = connectTls(tlsOptions(server, "client"));
  first.on("session", (bytes: Buffer) => (session = bytes));
  first.once("secureConnect", () => first.write("hello"));
  await server.until(() => session !== undefined, 500);
  first.destroy();
  if (session === undefined) return [true, "server offers no session to resume"];
  server.mark();
  const [ok, detail] = await refused("client", { session })(server);
  return [ok, `${detail}; server saw ${JSON.stringify(server.saw("secure") ?? null)}`];
};

const postQuantum: Check = async (server) => {
  const client = connectTls(tlsOptions(server, "client", { ecdhCurve: "X25519MLKEM768" }));
  const seen = watch(client);
  await server.until(() => seen.handshaken || seen.error !== null);
  const info = client.getEphemeralKeyInfo() as { name?: string } | null;
  client.destroy();
  return [seen.handshaken, seen.error ?? `agreed ${info?.name ?? "X25519MLKEM768 (the only one offered)"}`];
};

const fdReachable: Check = async (server) => {
  const client = connectTls(tlsOptions(server, "client"));
  client.on("error", () => undefined);
  await server.until(() => server.saw("secure") !== undefined);
  client.destroy();
  const event = server.saw("accepted");
  return [event?.protocol === 6, JSON.stringify(event)];
};

/** Ends a connection cleanly (close_notify) and by a bare FIN, and asks whether the server can tell. */
const bareFin: Check = async (server) => {
  const run = async (clean: boolean): Promise<string> => {
    server.mark();
    const raw = connectTcp({ host: "127.0.0.1", port: server.port, allowHalfOpen: true });
    const client = connectTls(tlsOptions(server, "client", { socket: raw }));
    watch(client);
    client.once("secureConnect", () => client.write("hello"));
    await server.until(() => server.saw("data") !== undefined);
    if (clean) client.end();
    else shutdownBelowTls(client);
    await server.until(() => server.saw("close") !== undefined, 700);
    client.destroy();
    raw.destroy();
    return server.events
      .map((e) => (e.event === "error" ? `error ${e.code ?? ""}` : e.event))
      .filter((e) => /end|error|close/.test(e))
      .join(",");
  };
  const clean = await run(true);
  const bare = await run(false);
  return [clean !== bare, `close_notify: ${clean}; bare FIN: ${bare}`];
};

/** Sends FIN without close_notify: Node gives no API for it, so ask the handle of the TCP socket below. */
function shutdownBelowTls(client: TLSSocket): void {
  type Handle = { _parent?: { _handle?: { fd: number } } };
  const fd = (client as unknown as Handle)._parent?._handle?.fd ?? -1;
  if (shutdownWrite(fd) !== 0) throw new Error(`shutdown of descriptor ${fd} failed`);
}

const { dlopen } = await import("node:ffi");
const libc = dlopen("libc.so.6", {
  shutdown: { return: "int32", arguments: ["int32", "int32"] },
} as const).functions;
const shutdownWrite = (fd: number): number => libc.shutdown(fd, 1);

const halfCloseClientFirst: Check = async (server) => {
  const client = connectTls(tlsOptions(server, "client"));
  const seen = watch(client);
  client.once("secureConnect", () => client.end("half"));
  await server.until(() => seen.ended || seen.error !== null);
  client.destroy();
  return [
    seen.ended && seen.received === "after your end",
    `client read ${JSON.stringify(seen.received)} after its end; ${seen.error ?? "end"}`,
  ];
};

const halfCloseServerFirst: Check = async (server) => {
  const client = connectTls(tlsOptions(server, "client"));
  const seen = watch(client);
  client.once("secureConnect", () => client.write("end first"));
  await server.until(() => seen.ended);
  server.mark();
  if (seen.ended) client.write("late");
  await server.until(() => server.saw("data") !== undefined, 700);
  const text = server.saw("data")?.text;
  client.destroy();
  return [
    text === "late",
    `client read ${JSON.stringify(seen.received)}, then server read ${JSON.stringify(text ?? null)}`,
  ];
};

const keyUpdate: Check = async (server) => {
  const args = [
    "s_client",
    "-connect",
    `127.0.0.1:${server.port}`,
    "-servername",
    SERVER_NAME,
    "-alpn",
    MESH_ALPN,
  ];
  const files = [
    "-cert",
    "client.pem",
    "-key",
    "client.key",
    "-CAfile",
    "root.pem",
    "-groups",
    "X25519",
    "-state",
  ];
  const client = spawn("openssl", [...args, ...files], { cwd: folder, stdio: ["pipe", "pipe", "pipe"] });
  let output = "";
  client.stdout.on("data", (bytes: Buffer) => (output += bytes.toString("latin1")));
  client.stderr.on("data", (bytes: Buffer) => (output += bytes.toString("latin1")));
  await server.until(() => server.saw("secure") !== undefined);
  for (const line of ["one\n", "K\n", "two\n", "k\n", "three\n"]) {
    client.stdin.write(line);
    await sleep(150);
  }
  await server.until(() => output.includes("echo three"));
  client.kill();
  await once(client, "exit");
  const answers = ["one", "two", "three"].filter((word) => output.includes(`echo ${word}`));
  const updates = output.match(/KEYUPDATE/g)?.length ?? 0;
  return [
    answers.length === 3 && updates === 2,
    `${updates} updates sent by openssl, answered: ${answers.join(" ")}`,
  ];
};

const rotation: Check = async (server) => {
  const serial = async (client: TLSSocket): Promise<string> => {
    await server.until(() => client.getPeerCertificate().serialNumber !== undefined);
    return client.getPeerCertificate().serialNumber;
  };
  const before = connectTls(tlsOptions(server, "client"));
  const seen = watch(before);
  const first = await serial(before);
  server.rotate();
  await server.until(() => server.saw("rotated") !== undefined);
  const after = connectTls(tlsOptions(server, "client"));
  watch(after);
  const second = await serial(after);
  before.write("hello");
  await server.until(() => seen.received !== "");
  before.destroy();
  after.destroy();
  const kept = seen.received === "echo hello\n";
  return [
    first !== second && kept,
    `new leaf ${first !== second ? "served" : "NOT served"}, old connection ${kept ? "lives" : "broken"}`,
  ];
};

const resetUnderTls =
  (how: "reset" | "reset above"): Check =>
  async (server) => {
    const client = connectTls(tlsOptions(server, "client"));
    const seen = watch(client);
    client.once("secureConnect", () => client.write(how));
    await server.until(() => seen.ended || seen.error !== null);
    client.destroy();
    const threw = server.saw("threw")?.code;
    const saw = `client saw ${seen.error ?? (seen.ended ? "a clean end" : "nothing")}`;
    return [seen.error === "ECONNRESET", threw === undefined ? saw : `threw ${threw}; ${saw}`];
  };

const resetPlain: Check = async (server) => {
  const client = connectTcp(server.port, "127.0.0.1", () => client.write("reset"));
  const seen = watch(client);
  await server.until(() => seen.ended || seen.error !== null);
  client.destroy();
  return [
    seen.error === "ECONNRESET",
    `client saw ${seen.error ?? (seen.ended ? "a clean end" : "nothing")}`,
  ];
};

const halfClosePlain: Check = async (server) => {
  const client = connectTcp({ port: server.port, host: "127.0.0.1", allowHalfOpen: true });
  const seen = watch(client);
  client.end("half");
  await server.until(() => seen.ended);
  client.destroy();
  return [seen.received === "after your end", `client read ${JSON.stringify(seen.received)}`];
};

/** A handshake that never finishes must not be delivered or kill the server; the next client is served. */
const garbage: Check = async (server) => {
  const client = connectTcp(server.port, "127.0.0.1", () =>
    client.write(Buffer.from([22, 3, 1, 0, 5, 1, 0, 0, 1, 0])),
  );
  const seen = watch(client);
  await server.until(() => seen.ended || seen.error !== null, 700);
  client.destroy();
  server.mark();
  const [ok] = await accepted(server);
  return [
    ok,
    `client saw ${seen.error ?? (seen.ended ? "end" : "nothing")}; next client ${ok ? "served" : "NOT served"}`,
  ];
};

const checks: [string, Check][] = [
  ["mutual TLS 1.3 with ALPN works through peek, unshift and emit", accepted],
  ["refuses a self-signed leaf", refused("self")],
  ["refuses a leaf of another root", refused("other")],
  ["refuses an expired leaf", refused("expired")],
  ["refuses no certificate", refused(null)],
  ["refuses no ALPN", refused("client", { ALPNProtocols: [] })],
  ["refuses a foreign ALPN", refused("client", { ALPNProtocols: ["h2"] })],
  [
    "refuses a wrong server name",
    refused("client", { servername: "other.mesh", checkServerIdentity: () => undefined }),
  ],
  ["refuses a resumed session", resumed],
  ["refuses TLS 1.2", refused("client", { minVersion: "TLSv1.2", maxVersion: "TLSv1.2" })],
  ["agrees on X25519MLKEM768", postQuantum],
  ["gives the accepted socket's descriptor", fdReachable],
  ["tells close_notify from a bare FIN", bareFin],
  ["half-close over TLS, client first", halfCloseClientFirst],
  ["half-close over TLS, server first", halfCloseServerFirst],
  ["survives key updates", keyUpdate],
  ["rotates its certificate without a new listener", rotation],
  ["reset of the TCP socket below TLS is a RST", resetUnderTls("reset")],
  ["reset of the TLS socket itself is a RST", resetUnderTls("reset above")],
  ["reset of plain TCP is a RST", resetPlain],
  ["half-close of plain TCP", halfClosePlain],
  ["survives a broken ClientHello", garbage],
];

createSecureContext(); // fails early where this Node lacks crypto
let failed = 0;
for (const runtime of process.argv.length > 2 ? process.argv.slice(2) : [process.execPath]) {
  console.log(`\n${runtime}`);
  const server = new Server(runtime);
  await server.until(() => server.port !== 0, 5000);
  for (const [name, check] of checks) {
    server.mark();
    const [ok, detail] = await check(server).catch((error: unknown): Verdict => [false, String(error)]);
    if (!ok) failed++;
    console.log(`${ok ? "yes" : "NO "}  ${name.padEnd(62)} ${detail}`);
  }
  await server.stop();
}
rmSync(folder, { recursive: true });
process.exitCode = failed === 0 ? 0 : 1;
