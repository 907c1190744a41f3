import { spawnSync } from "node:child_process";
import { cpSync, mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { fileURLToPath } from "node:url";
import { dnsName, spiffeUri } from "#/model/identity.ts";
import type { PodStatus } from "#/model/pod-plan.ts";
import type { InstancePaths } from "../instance-paths.ts";
import type { AnswerOf } from "../operator.ts";
import { ask } from "../operator.ts";
import type { UpOptions } from "../up.ts";
import { up } from "../up.ts";
import type { Captured } from "./capture.ts";
import { Capture, tlsProblem } from "./capture.ts";

/** One claim of the demo and whether it held. */
export interface Claim {
  readonly held: boolean;
  readonly what: string;
}

interface Once {
  readonly start: UpOptions;
  /** The shop's folder, a copy to change at will. */
  readonly shop: string;
  /** What stands in for files of the shop: a load that ends by itself. */
  readonly stand: string;
  readonly signal: AbortSignal;
}

const INBOUND_PORT = 4143;
const CONTROL_PORT = 8086;
const DNS_PORT = 53;
const TRUST_DOMAIN = "cluster.local";

/**
 * Starts the shop with a load that ends by itself, captures all that crosses the pods' links meanwhile, and judges from
 * outside: by the load's and the servers' own logs, by the captured bytes, and by what openssl is shown.
 */
export async function proveClaims(
  paths: InstancePaths,
  once: Once,
  print: (line: string) => void,
  progress: (line: string) => void,
): Promise<number> {
  const work = mkdtempSync(join(tmpdir(), "pillion-proof-"));
  const claims: Claim[] = [];
  const claim = (held: boolean, what: string): void => {
    claims.push({ held, what });
    print(`${held ? "ok  " : "FAIL"} ${what}`);
  };
  try {
    cpSync(once.stand, once.shop, { recursive: true });
    // tcpdump insists on becoming another user, and a user namespace without root has none.
    const isCapturing = process.env["PILLION_UNPRIVILEGED"] !== "1";
    const capture = isCapturing ? await Capture.start(once.start.podCidr, join(work, "shop.pcap")) : null;
    let captured: Captured | null = null;
    let pods: readonly PodStatus[];
    let status: AnswerOf<"status">;
    try {
      status = await up(paths, once.start);
      const kinds = new Set(status.pods.map((pod) => pod.owner.split("/").at(-1)));
      claim(
        status.pods.every((pod) => pod.sidecar !== null),
        `${status.pods.length} pods of ${kinds.size} workloads are ready, each beside its own sidecar (${status.node.intercept})`,
      );
      progress("the load runs …");
      pods = await loadEnds(paths, once.signal);
      for (const judged of certificates(paths, pods, work)) claim(judged.held, judged.what);
    } finally {
      if (capture !== null) captured = await capture.stop();
    }
    judgeCounts(await readLogs(paths, pods), claim);
    if (captured !== null) judgeCapture(captured, status, pods, claim);
    else print("left out, because tcpdump needs root: that everything on the pods' links is TLS, and HTTP/2");
  } finally {
    rmSync(work, { recursive: true, force: true });
  }
  const failed = claims.filter(({ held }) => !held).length;
  print(
    failed === 0 ? `all ${claims.length} claims held` : `${failed} of ${claims.length} claims did not hold`,
  );
  return failed === 0 ? 0 : 1;
}

/** Waits until the load has ended, and gives the pods as they are then. */
async function loadEnds(paths: InstancePaths, signal: AbortSignal): Promise<readonly PodStatus[]> {
  const deadline = Date.now() + 90_000;
  while (!signal.aborted && Date.now() < deadline) {
    const { pods } = await ask(paths, { kind: "status" }, "status");
    const load = pods.find((pod) => pod.owner.endsWith("/load"));
    if (load?.phase === "Succeeded" || load?.phase === "Failed") return pods;
    await sleep(200);
  }
  throw new Error(
    signal.aborted ? "interrupted" : "the load did not end within 90 s; see: pillion logs load",
  );
}

// --- counts ---

interface LogLine {
  readonly log: string;
  readonly service: string;
  readonly id: string;
  readonly status: number;
  readonly calls: Readonly<Record<string, number>>;
  readonly sent: number;
  readonly ok: number;
  readonly failed: number;
  readonly skipped: number;
  readonly errors: Readonly<Record<string, number>>;
}

async function readLogs(paths: InstancePaths, pods: readonly PodStatus[]): Promise<LogLine[]> {
  const lines: LogLine[] = [];
  for (const pod of pods) {
    const container = pod.containers[0]?.name;
    if (container === undefined) continue;
    const { file } = await ask(
      paths,
      { kind: "logs", namespace: pod.namespace, pod: pod.name, container },
      "logs",
    );
    for (const text of readFileSync(file, "utf8").split("\n")) {
      if (text.startsWith("{")) lines.push(JSON.parse(text) as LogLine);
    }
  }
  return lines;
}

/** The load repeats nothing, so each of its requests must stand in the front's log once, and each call of the front in its callee's. */
function judgeCounts(lines: readonly LogLine[], claim: (held: boolean, what: string) => void): void {
  const summary = lines.find((line) => line.log === "summary");
  if (summary === undefined) {
    claim(false, "the load wrote no summary; see: pillion logs load");
    return;
  }
  const errors = Object.entries(summary.errors).map(([reason, count]) => `${count} × ${reason}`);
  claim(
    summary.failed === 0 && summary.ok === summary.sent && summary.sent > 0 && summary.skipped === 0,
    `${summary.sent} requests were sent, ${summary.ok} answered, ${summary.failed} failed${errors.length === 0 ? "" : ` (${errors.slice(0, 3).join("; ")})`}`,
  );
  const access = lines.filter((line) => line.log === "access" && line.id !== "readiness");
  const fronts = access.filter((line) => line.service === "front");
  claim(
    fronts.length === summary.sent && new Set(fronts.map((line) => line.id)).size === summary.sent,
    `the front's own log has ${fronts.length} requests, each once`,
  );
  const called: Record<string, number> = {};
  for (const line of fronts)
    for (const [service, count] of Object.entries(line.calls))
      called[service] = (called[service] ?? 0) + count;
  for (const [service, count] of Object.entries(called).toSorted(([a], [b]) => a.localeCompare(b))) {
    const served = access.filter((line) => line.service === service).length;
    claim(served === count, `the front called ${service} ${count} times, whose log has ${served}`);
  }
}

// --- capture ---

function judgeCapture(
  captured: Captured,
  status: AnswerOf<"status">,
  pods: readonly PodStatus[],
  claim: (held: boolean, what: string) => void,
): void {
  const podIps = new Map(pods.map((pod) => [pod.ip, pod]));
  const gateway = status.node.gatewayIp;
  const exceptions = new Map<string, number>();
  const plain: string[] = [];
  let encrypted = 0;
  const links = new Set<number>();
  for (const stream of captured.streams) {
    links.add(stream.interfaceIndex);
    const exception = exceptionFor(stream.from, stream.to, gateway);
    if (exception !== null) {
      exceptions.set(exception, (exceptions.get(exception) ?? 0) + 1);
      continue;
    }
    const problem = !stream.fromStart
      ? "its beginning was not captured"
      : stream.missing
        ? "bytes are missing from it"
        : tlsProblem(stream.payload);
    if (problem === null) encrypted++;
    else plain.push(`${name(stream.from, podIps)} → ${name(stream.to, podIps)}: ${problem}`);
  }
  claim(
    plain.length === 0 && encrypted > 0,
    `${encrypted} TCP streams on ${links.size} links between pods are TLS records and nothing else${plain.length === 0 ? "" : `; not so: ${[...new Set(plain)].slice(0, 4).join("; ")}`}`,
  );
  tellExceptions(exceptions, claim);
  for (const [kind, word] of Object.entries(canaries())) {
    const seen = captured.payloads.some((payload) =>
      Buffer.from(payload.buffer, payload.byteOffset, payload.byteLength).includes(word),
    );
    claim(
      !seen,
      `"${word}" (${kind}) ${seen ? "was SEEN" : "was never seen"} in ${captured.packets} packets`,
    );
  }
  judgeUpgrade(captured, podIps, claim);
}

function tellExceptions(
  exceptions: ReadonlyMap<string, number>,
  claim: (held: boolean, what: string) => void,
): void {
  const list = [...exceptions].map(([what, count]) => `${count} ${what}`);
  claim(true, `left out of that: ${list.length === 0 ? "nothing" : list.join(", ")}`);
}

/** Streams that are not between workloads: the list that the demo prints. */
function exceptionFor(from: string, to: string, gateway: string): string | null {
  const ends = [from, to].map((end) => ({
    ip: end.slice(0, end.lastIndexOf(":")),
    port: Number(end.slice(end.lastIndexOf(":") + 1)),
  }));
  const machine = ends.find((end) => end.ip === gateway);
  if (machine === undefined) return null;
  if (machine.port === CONTROL_PORT) return null; // to the control plane: must be TLS as well
  if (machine.port === DNS_PORT) return "streams of DNS over TCP";
  return "streams of probes and metrics from the machine";
}

/** HTTP/1 between sidecars would need a connection per request under way; HTTP/2 needs one per pair of pods. */
function judgeUpgrade(
  captured: Captured,
  podIps: ReadonlyMap<string, PodStatus>,
  claim: (held: boolean, what: string) => void,
): void {
  const connections = new Map<string, Set<string>>();
  for (const stream of captured.streams) {
    const client = podIps.get(stream.from.slice(0, stream.from.lastIndexOf(":")));
    const [serverIp, port] = stream.to.split(":");
    const server = podIps.get(serverIp ?? "");
    if (client === undefined || server === undefined || Number(port) !== INBOUND_PORT) continue;
    if (!client.owner.endsWith("/front") || !server.owner.endsWith("/catalogue")) continue;
    const pair = `${client.name} → ${server.name}`;
    connections.set(pair, (connections.get(pair) ?? new Set()).add(stream.from));
  }
  const counts = [...connections.values()].map((ports) => ports.size);
  const replicas = [...podIps.values()].filter((pod) => pod.owner.endsWith("/catalogue")).length;
  claim(
    counts.length === replicas && counts.every((count) => count === 1),
    `the front's HTTP/1 requests to ${counts.length} catalogue pods shared ${counts.join("+")} connections: HTTP/2 between the sidecars`,
  );
}

function name(end: string, podIps: ReadonlyMap<string, PodStatus>): string {
  const at = end.lastIndexOf(":");
  const pod = podIps.get(end.slice(0, at));
  return pod === undefined ? end : `${pod.name}${end.slice(at)}`;
}

/** The words that the shop's programs send, read from the program that defines them. */
function canaries(): Record<string, string> {
  const file = fileURLToPath(new URL("../../../demo/programs/canaries.js", import.meta.url));
  return Object.fromEntries(
    [...readFileSync(file, "utf8").matchAll(/^\s*(\w+): "(canary-[^"]+)"/gm)].map((match) => [
      match[1] as string,
      match[2] as string,
    ]),
  );
}

// --- certificates ---

/** Asks each meshed pod for its certificate as any stranger could, with openssl, and checks whom it names and who signed it. */
function certificates(paths: InstancePaths, pods: readonly PodStatus[], work: string): Claim[] {
  const root = join(paths.stateRoot, paths.name, "control", "root.crt");
  const claims: string[] = [];
  const wrong: string[] = [];
  for (const pod of pods) {
    if (pod.sidecar === null || pod.phase !== "Running") continue;
    const owner = pod.owner.split("/").at(-1) as string;
    // In the shop each workload has a service account of its own name; the sidecar answers to no other name.
    const identity = { trustDomain: TRUST_DOMAIN, namespace: pod.namespace, serviceAccount: owner };
    const to = ["-connect", `${pod.ip}:${INBOUND_PORT}`, "-servername", dnsName(identity)];
    const how = ["-alpn", "transport.l5d.io/v1", "-showcerts", "-verify_return_error", "-CAfile", root];
    const options = { input: "", encoding: "utf8", timeout: 10_000, cwd: work } as const;
    const shown = spawnSync("openssl", ["s_client", ...to, ...how], options);
    const pem = /-----BEGIN CERTIFICATE-----[^]*?-----END CERTIFICATE-----/.exec(shown.stdout)?.[0] ?? "";
    const names = spawnSync("openssl", ["x509", "-noout", "-ext", "subjectAltName"], {
      input: pem,
      encoding: "utf8",
    }).stdout;
    const uri = /URI:(\S+)/.exec(names)?.[1] ?? "";
    const verified = /Verify return code: 0 \(ok\)/.test(shown.stdout);
    if (verified && uri === spiffeUri(identity)) claims.push(`${owner}=${uri}`);
    else
      wrong.push(
        `${pod.name}: ${verified ? names.trim() : (/verify error:.*|Verify return code.*/i.exec(shown.stdout + shown.stderr)?.[0] ?? "no certificate")}`,
      );
  }
  return [
    {
      held: wrong.length === 0 && claims.length > 0,
      what: `openssl s_client was shown ${claims.length} certificates signed by the mesh's root: ${[...new Set(claims)].slice(0, 3).join(", ")}${claims.length > 3 ? ", …" : ""}${wrong.length === 0 ? "" : `; not so: ${wrong.join("; ")}`}`,
    },
  ];
}
