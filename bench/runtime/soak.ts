/**
 * Runs the prototype pair for a long time under each candidate runtime at a low rate, with connections coming and going
 * and new TLS handshakes (a third of them refused), and prints memory and failures once a minute as CSV. Ends by itself.
 *
 *   node bench/runtime/soak.ts MINUTES APP-PORT RUNTIME …     APP-PORT: an HTTP/1.1 server on 127.0.0.1
 */
import { spawn, type ChildProcess } from "node:child_process";
import { once } from "node:events";
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { basename, join } from "node:path";
import { connect as connectTls } from "node:tls";
import { openLoop } from "../lib/open-loop.ts";
import { cpuUsed, memoryUsed } from "../lib/process-cost.ts";
import { makeCertificates, MESH_ALPN, SERVER_NAME } from "./certs.ts";

const [minutesText = "60", appPort = "", ...runtimes] = process.argv.slice(2);
const minutes = Number(minutesText);
const folder = mkdtempSync(join(tmpdir(), "soak-"));
makeCertificates(folder);
const pem = (name: string): Buffer => readFileSync(join(folder, name));

async function start(runtime: string, ...args: string[]): Promise<ChildProcess> {
  const child = spawn(runtime, [join(import.meta.dirname, "pair.ts"), ...args], {
    stdio: ["ignore", "pipe", "inherit"],
  });
  if (child.stdout !== null) await once(child.stdout, "data");
  return child;
}

interface Subject {
  name: string;
  port: number;
  tlsPort: number;
  processes: ChildProcess[];
}

const subjects: Subject[] = [];
let port = 28_000;
for (const runtime of runtimes) {
  const tlsPort = port++;
  const plainPort = port++;
  const server = await start(runtime, "server", folder, String(tlsPort), appPort);
  const client = await start(runtime, "client", folder, String(plainPort), String(tlsPort));
  subjects.push({ name: basename(runtime), port: plainPort, tlsPort, processes: [client, server] });
}

/** One handshake as `leaf`; resolves when the connection is over. */
async function handshake(subject: Subject, leaf: string): Promise<void> {
  const socket = connectTls({
    host: "127.0.0.1",
    port: subject.tlsPort,
    servername: SERVER_NAME,
    ca: [pem("root.pem")],
    key: pem(`${leaf}.key`),
    cert: pem(`${leaf}.pem`),
    ALPNProtocols: [MESH_ALPN],
  });
  socket.on("error", () => undefined);
  socket.once("secureConnect", () => socket.end());
  await once(socket, "close").catch(() => undefined);
}

console.log(
  "minute,runtime,role,rssMiB,pssMiB,privateMiB,cpuSeconds,answered,failed,p50Us,p99Us,maxUs,generatorLateP99Us",
);
const startMs = Date.now();
for (let minute = 1; minute <= minutes; minute++) {
  await Promise.all(
    subjects.map(async (subject) => {
      const churn = setInterval(() => {
        void handshake(subject, ["client", "client", "other"][Math.floor(performance.now()) % 3] ?? "client");
      }, 1000);
      // 190 requests/s on 16 lasting connections, 10/s on connections of three requests each.
      const shape = { host: "127.0.0.1", port: subject.port, seconds: 58 };
      const [lasting, fleeting] = await Promise.all([
        openLoop({ ...shape, connections: 16, requestsPerSecond: 190 }),
        openLoop({ ...shape, connections: 4, requestsPerSecond: 10, requestsPerConnection: 3 }),
      ]);
      clearInterval(churn);
      subject.processes.forEach((process, i) => {
        const pid = process.pid ?? 0;
        if (process.exitCode !== null) {
          console.log(`${minute},${subject.name},${i === 0 ? "client" : "server"},EXITED`);
          return;
        }
        const { rssKib, pssKib, privateKib } = memoryUsed(pid);
        const { userUs, systemUs } = cpuUsed(pid);
        const mib = (kib: number): string => (kib / 1024).toFixed(1);
        const figures = [mib(rssKib), mib(pssKib), mib(privateKib), ((userUs + systemUs) / 1e6).toFixed(2)];
        const latencies = [lasting.p50Us, lasting.p99Us, lasting.maxUs, lasting.latenessP99Us].map(
          Math.round,
        );
        const counts = [lasting.answered + fleeting.answered, lasting.failed + fleeting.failed];
        console.log(
          [minute, subject.name, i === 0 ? "client" : "server", ...figures, ...counts, ...latencies].join(
            ",",
          ),
        );
      });
    }),
  );
  const aheadMs = startMs + minute * 60_000 - Date.now();
  if (aheadMs > 0) await new Promise((resolve) => setTimeout(resolve, aheadMs));
}
for (const subject of subjects) for (const process of subject.processes) process.kill();
rmSync(folder, { recursive: true });
process.exit(0);
