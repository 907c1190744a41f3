/**
 * WebSocket between libraries that nobody here wrote, through two sidecars: `ws`, Node's own client, and Python's `websockets`,
 * over HTTP/1.1 (RFC 6455), and `ws` on streams of Node's HTTP/2 (RFC 8441). The programs are in `peers/`.
 */
import { spawn, type ChildProcess } from "node:child_process";
import { once } from "node:events";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { text } from "node:stream/consumers";
import { Mesh, type Pod } from "../../e2e/sidecar/rig/mesh.ts";

const VIP = "10.214.0.5";
/** Debian's, for which its packages are. */
const PYTHON = "/usr/bin/python3";
const SERVERS = {
  "ws over HTTP/1.1": { port: 9001, command: [process.execPath, peer("ws-server.js"), "9001", "http1"] },
  "ws over HTTP/2": { port: 9002, command: [process.execPath, peer("ws-server.js"), "9002", "http2"] },
  "Python websockets": { port: 9003, command: [PYTHON, peer("server.py"), "9003"] },
} as const;
type Server = keyof typeof SERVERS;

interface Pair {
  readonly client: string;
  readonly server: Server;
  /** Cases that the client knows and the pair can have. */
  readonly cases: number;
  readonly command: (extent: "whole" | "short") => readonly string[];
}

const PAIRS: readonly Pair[] = [
  wsPair("ws over HTTP/1.1", "http1", 15),
  wsPair("ws over HTTP/2", "http2", 13),
  wsPair("Python websockets", "http1", 15),
  ...(["ws over HTTP/1.1", "Python websockets"] as const).flatMap((server) => [
    {
      client: "Node's own",
      server,
      cases: 11,
      command: () => [process.execPath, peer("builtin-client.js"), VIP, String(SERVERS[server].port)],
    },
    {
      client: "Python websockets",
      server,
      cases: 13,
      command: (extent: "whole" | "short") => [
        PYTHON,
        peer("client.py"),
        VIP,
        String(SERVERS[server].port),
        extent,
      ],
    },
  ]),
];

/** The whole of one pair. At the bound its client is killed, and what it has not said counts as failed. */
const PAIR_MS = 120_000;

export interface WebSocketVerdict {
  readonly pairs: number;
  readonly passed: number;
  /** One line a pair. */
  readonly lines: readonly string[];
  readonly problems: readonly string[];
}

/** `isShort`: the hundred megabytes go between one pair only. */
export async function judgeWebSocket({ isShort }: { isShort: boolean }): Promise<WebSocketVerdict> {
  const mesh = await Mesh.start();
  const servers: ChildProcess[] = [];
  try {
    const all = Object.entries(SERVERS);
    const server = await mesh.pod("server", {
      isMeshed: true,
      inboundPorts: all.map(([, { port }]) => port),
    });
    const client = await mesh.pod("client", { isMeshed: true });
    await mesh.set({
      services: Object.fromEntries(
        all.map(([, { port }]) => [`${VIP}:${port}`, { protocol: "detect" as const, path: `svc:${port}` }]),
      ),
      endpoints: Object.fromEntries(all.map(([, { port }]) => [`svc:${port}`, [server.endpoint(port)]])),
    });
    for (const [, { command }] of all) servers.push(await startServer(server, command));

    const lines: string[] = [];
    const problems: string[] = [];
    let passed = 0;
    for (const [i, pair] of PAIRS.entries()) {
      const extent = isShort && i > 0 ? "short" : "whole";
      const startedAtMs = performance.now();
      const found = await runPair(client, pair, extent);
      const name = `${pair.client} to ${pair.server}`;
      const good = found.filter(({ reason }) => reason === "").length;
      for (const { name: title, reason } of found)
        if (reason !== "") problems.push(`${name}: ${title}: ${reason}`);
      const isLargeLeftOut = extent === "short" && pair.client !== "Node's own";
      const wanted = isLargeLeftOut ? pair.cases - 1 : pair.cases;
      if (found.length !== wanted) problems.push(`${name}: ${found.length} cases ran, not ${wanted}`);
      passed += good;
      const seconds = ((performance.now() - startedAtMs) / 1000).toFixed(1);
      lines.push(`${name}: ${good} of ${wanted} cases in ${seconds} s`);
    }
    const meshed = await server.metric(/^request_total.*direction="inbound".*tls="true"/);
    if (meshed < passed) problems.push(`only ${meshed} requests came through mutual TLS`);
    return { pairs: PAIRS.length, passed, lines, problems };
  } finally {
    for (const each of servers) each.kill("SIGKILL");
    await mesh.close();
  }
}

function peer(name: string): string {
  return join(import.meta.dirname, "peers", name);
}

function wsPair(server: Server, version: "http1" | "http2", cases: number): Pair {
  return {
    client: "ws",
    server,
    cases,
    command: (extent) => [
      process.execPath,
      peer("ws-client.js"),
      VIP,
      String(SERVERS[server].port),
      extent,
      version,
    ],
  };
}

async function startServer(pod: Pod, command: readonly string[]): Promise<ChildProcess> {
  const server = spawn("ip", ["netns", "exec", pod.ns, ...command], { stdio: ["ignore", "pipe", "inherit"] });
  await Promise.race([
    once(createInterface(server.stdout), "line"),
    once(server, "exit").then(() =>
      Promise.reject(new Error(`${command.join(" ")} ended before it listened`)),
    ),
  ]);
  return server;
}

interface Outcome {
  readonly name: string;
  /** "" when it passed. */
  readonly reason: string;
}

async function runPair(pod: Pod, pair: Pair, extent: "whole" | "short"): Promise<Outcome[]> {
  const client = spawn("ip", ["netns", "exec", pod.ns, ...pair.command(extent)], {
    stdio: ["ignore", "pipe", "inherit"],
    timeout: PAIR_MS,
    killSignal: "SIGKILL",
  });
  const [output] = await Promise.all([text(client.stdout), once(client, "exit")]);
  return output
    .split("\n")
    .filter((line) => line !== "")
    .map((line) => JSON.parse(line) as Outcome);
}
