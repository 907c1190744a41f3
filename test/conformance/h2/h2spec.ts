/**
 * h2spec, which nobody here wrote, against real sidecars in network namespaces: every place where a stranger's HTTP/2 may
 * meet one, namely plaintext from outside, plaintext from the workload, and inside mutual TLS where sidecars talk.
 */
import { spawn } from "node:child_process";
import { once } from "node:events";
import { existsSync, readFileSync } from "node:fs";
import type { ServerHttp2Stream } from "node:http2";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { Mesh, type Pod } from "../../e2e/sidecar/rig/mesh.ts";
import type { WorkerContext } from "../../e2e/sidecar/rig/worker.ts";
import { goTool } from "../../tools/go-tool.ts";

export const LEGS = ["inbound, plaintext", "outbound, plaintext", "inbound, mutual TLS"] as const;
type Leg = (typeof LEGS)[number];

/** Cases of the pinned h2spec, strict ones included. */
export const CASES = 146;

/** Where we do not do as h2spec wants, which was written for RFC 7540, because RFC 9113 changed the rule. */
export const EXPECTED_DIFFERENCES: Readonly<Record<string, string>> = {
  "http2/5.3.1: Sends HEADERS frame that depend on itself":
    "RFC 9113 §5.3.2 deprecates the dependencies of RFC 7540 §5.3.1 and with them this error: the signal is ignored, the request is answered",
  "http2/5.3.1: Sends PRIORITY frame that depend on itself":
    "RFC 9113 §5.3.2, §6.3: a PRIORITY frame is checked for its form, its content is ignored",
};

export interface Verdict {
  readonly leg: Leg;
  /** Section and sentence, as h2spec has them. */
  readonly name: string;
  readonly isPassed: boolean;
  /** Why not. */
  readonly reason: string;
}

/** What the verdicts come to. */
export interface Summary {
  readonly passed: number;
  /** One line for each that differs from h2spec with a written reason. */
  readonly expected: readonly string[];
  /** One line for each that is wrong, or missing, or no longer as the table above says. */
  readonly problems: readonly string[];
}

export function summarize(verdicts: readonly Verdict[]): Summary {
  const expected: string[] = [];
  const problems: string[] = [];
  for (const leg of LEGS) {
    const count = verdicts.filter((verdict) => verdict.leg === leg).length;
    if (count !== CASES) problems.push(`${leg}: ${count} cases were judged, not ${CASES}`);
  }
  for (const { leg, name, isPassed, reason } of verdicts) {
    const difference = EXPECTED_DIFFERENCES[name];
    if (isPassed && difference !== undefined)
      problems.push(`${leg}: ${name}: passes, so its exception is stale`);
    else if (!isPassed && difference !== undefined) expected.push(`${leg}: ${name}: ${difference}`);
    else if (!isPassed) problems.push(`${leg}: ${name}: ${reason}`);
  }
  return { passed: verdicts.filter((verdict) => verdict.isPassed).length, expected, problems };
}

const VIP = "10.214.0.2";
const PORT = 8080;
const RELAY_PORT = 9000;
/** One case; h2spec calls silence for so long a failure. */
const CASE_SECONDS = 2;
/** All cases of one leg. At the bound h2spec is killed without having reported, and the leg's cases count as missing. */
const LEG_MS = 60_000;

/** Runs every case, also the strict ones, on all legs at once. */
export async function runH2spec(): Promise<Verdict[]> {
  const program = await goTool("h2spec", "github.com/summerwind/h2spec/cmd/h2spec");
  const mesh = await Mesh.start();
  try {
    const server = await mesh.pod("server", { isMeshed: true, inboundPorts: [PORT] });
    const client = await mesh.pod("client", { isMeshed: true });
    const stranger = await mesh.pod("stranger", { isMeshed: false });
    await mesh.set({
      services: { [`${VIP}:80`]: { protocol: "http2", path: "web:80" } },
      endpoints: { "web:80": [server.endpoint(PORT)] },
      ports: { [PORT]: { protocol: "http2", allow: "any" } },
    });
    await server.run(serve, PORT);
    const endRelay = await startRelay(mesh, stranger, server);
    try {
      const legs = await Promise.all([
        judge(program, mesh, stranger, "inbound, plaintext", server.ip, PORT),
        judge(program, mesh, client, "outbound, plaintext", VIP, 80),
        judge(program, mesh, stranger, "inbound, mutual TLS", "127.0.0.1", RELAY_PORT),
      ]);
      return legs.flat();
    } finally {
      endRelay();
    }
  } finally {
    await mesh.close();
  }
}

/** An application that answers everything, with a body, once it has the whole request. */
function serve({ http2, state }: WorkerContext, port: number): Promise<null> {
  const server = http2.createServer();
  server.on("stream", (stream: ServerHttp2Stream) => {
    stream.on("error", () => undefined);
    stream.resume();
    stream.on("end", () => {
      if (stream.destroyed) return;
      stream.respond({ ":status": 200, "content-type": "text/plain" });
      stream.end("an answer long enough to be cut into pieces");
    });
  });
  state["h2spec"] = server;
  return new Promise((done) => server.listen(port, "0.0.0.0", () => done(null)));
}

async function startRelay(mesh: Mesh, from: Pod, to: Pod): Promise<() => void> {
  mesh.leaf("relay", from.identity);
  const script = join(import.meta.dirname, "relay.ts");
  const args = [String(RELAY_PORT), to.ip, to.identity, String(PORT), mesh.folder];
  const relay = spawn("ip", ["netns", "exec", from.ns, process.execPath, script, ...args], {
    stdio: ["ignore", "pipe", "inherit"],
  });
  await once(createInterface(relay.stdout), "line");
  return () => relay.kill("SIGKILL");
}

async function judge(
  program: string,
  mesh: Mesh,
  pod: Pod,
  leg: Leg,
  host: string,
  port: number,
): Promise<Verdict[]> {
  const report = join(mesh.folder, `${leg.replaceAll(/\W+/g, "-")}.xml`);
  const args = ["-h", host, "-p", String(port), "-o", String(CASE_SECONDS), "-S", "-j", report];
  const h2spec = spawn("ip", ["netns", "exec", pod.ns, program, ...args], {
    stdio: ["ignore", "ignore", "inherit"],
    timeout: LEG_MS,
    killSignal: "SIGKILL",
  });
  await once(h2spec, "exit");
  return existsSync(report) ? readReport(leg, readFileSync(report, "utf8")) : [];
}

/** h2spec's JUnit report: a test case with content says there why it did not pass. */
function readReport(leg: Leg, xml: string): Verdict[] {
  const verdicts: Verdict[] = [];
  for (const match of xml.matchAll(/<testcase ([^>]*?)(?:\/>|>(.*?)<\/testcase>)/gs)) {
    const attribute = (name: string): string => new RegExp(`\\b${name}="([^"]*)"`).exec(match[1]!)?.[1] ?? "";
    const inside = (match[2] ?? "").trim();
    verdicts.push({
      leg,
      name: `${attribute("package")}: ${attribute("classname")}`,
      isPassed: inside === "",
      reason: inside,
    });
  }
  return verdicts;
}
