/**
 * gRPC's own interoperability test: the Go client and server of `google.golang.org/grpc/interop`, once face to face and once
 * with two sidecars between them, in the same run.
 */
import { spawn, type ChildProcess } from "node:child_process";
import { once } from "node:events";
import { Mesh, until, type Pod } from "../../e2e/sidecar/rig/mesh.ts";
import type { WorkerContext } from "../../e2e/sidecar/rig/worker.ts";
import { goTool } from "../../tools/go-tool.ts";

/** Every case of the client that needs no credentials, with its further arguments. */
export const CASES: Readonly<Record<string, readonly string[]>> = {
  empty_unary: [],
  large_unary: [],
  client_streaming: [],
  server_streaming: [],
  ping_pong: [],
  empty_stream: [],
  timeout_on_sleeping_server: [],
  cancel_after_begin: [],
  cancel_after_first_response: [],
  status_code_and_message: [],
  special_status_message: [],
  custom_metadata: [],
  unimplemented_method: [],
  unimplemented_service: [],
  pick_first_unary: [],
  // Whether it works, not how fast: this machine may be busy.
  rpc_soak: ["--soak_per_iteration_max_acceptable_latency_ms=10000", "--soak_overall_timeout_seconds=15"],
  channel_soak: ["--soak_per_iteration_max_acceptable_latency_ms=10000", "--soak_overall_timeout_seconds=15"],
  orca_per_rpc: [`--service_config_json={"loadBalancingConfig":[{"test_backend_metrics_load_balancer":{}}]}`],
  orca_oob: [`--service_config_json={"loadBalancingConfig":[{"test_backend_metrics_load_balancer":{}}]}`],
};

/** Cases that fail without a proxy, too, and why. */
export const FAILS_DIRECT: Readonly<Record<string, string>> = {
  pick_first_unary: "it wants to be told which server answered, which this server does not tell",
};

/** Why a case failed; "" when it passed. */
export type Verdict = string;

export interface Comparison {
  readonly name: string;
  readonly direct: Verdict;
  readonly meshed: Verdict;
}

export interface InteropRun {
  readonly comparisons: readonly Comparison[];
  /** Calls that the sidecars counted on their way, outbound and inbound. */
  readonly counted: { readonly outbound: number; readonly inbound: number };
  /** What one case says when policy refuses the client: the run must notice a mesh that does not work. */
  readonly refused: Verdict;
}

const VIP = "10.214.0.2";
const PORT = 10_000;
/** One case. At the bound its client is killed, and the case has failed. */
const CASE_MS = 20_000;

export async function runInterop(): Promise<InteropRun> {
  const client = await goTool("grpc-interop", "google.golang.org/grpc/interop/client");
  const server = await goTool("grpc-interop", "google.golang.org/grpc/interop/server");
  const mesh = await Mesh.start();
  const servers: ChildProcess[] = [];
  try {
    const far = await mesh.pod("server", { isMeshed: true, inboundPorts: [PORT] });
    const near = await mesh.pod("client", { isMeshed: true });
    const outside = await mesh.pod("outside", { isMeshed: false });
    const allowed = { [PORT]: { protocol: "detect", allow: near.identity } } as const;
    await mesh.set({
      services: { [`${VIP}:${PORT}`]: { protocol: "detect", path: `interop:${PORT}` } },
      endpoints: { [`interop:${PORT}`]: [far.endpoint(PORT)] },
      ports: allowed,
    });
    for (const pod of [far, outside]) {
      servers.push(spawn("ip", ["netns", "exec", pod.ns, server, `--port=${PORT}`], { stdio: "ignore" }));
      await until(() => pod.run(isListening, PORT), `the server in ${pod.name} listens`, 10_000);
    }
    const comparisons: Comparison[] = [];
    for (const name of Object.keys(CASES)) {
      const direct = await runCase(client, outside, "127.0.0.1", name);
      comparisons.push({ name, direct, meshed: await runCase(client, near, VIP, name) });
    }
    const counted = {
      outbound: await near.metric(/^request_total\{.*direction="outbound"/),
      inbound: await far.metric(/^request_total\{.*direction="inbound"/),
    };
    await mesh.set({ ports: { [PORT]: { ...allowed[PORT], allow: far.identity } } });
    let refused = "";
    await until(
      async () => (refused = await runCase(client, near, VIP, "empty_unary")) !== "",
      "policy refuses the client",
      10_000,
    );
    return { comparisons, counted, refused };
  } finally {
    for (const one of servers) {
      one.kill("SIGKILL");
      if (one.exitCode === null && one.signalCode === null) await once(one, "exit");
    }
    await mesh.close();
  }
}

/** The client ends with 0 where its case passed, and says on stderr why it did not. */
async function runCase(client: string, pod: Pod, host: string, name: string): Promise<Verdict> {
  const target = [`--server_host=${host}`, `--server_port=${PORT}`];
  const args = ["netns", "exec", pod.ns, client, ...target, `--test_case=${name}`, ...CASES[name]!];
  const child = spawn("ip", args, {
    stdio: ["ignore", "ignore", "pipe"],
    timeout: CASE_MS,
    killSignal: "SIGKILL",
  });
  let said = "";
  child.stderr.on("data", (bytes: Buffer) => (said = (said + bytes.toString()).slice(-4_000)));
  const [code] = (await once(child, "close")) as [number | null];
  if (code === 0) return "";
  return code === null
    ? `not done after ${CASE_MS} ms`
    : (said.trim().split("\n").at(-1) ?? `ended with ${code}`);
}

function isListening({ net }: WorkerContext, port: number): Promise<boolean> {
  return new Promise((done) => {
    const socket = net.connect(port, "127.0.0.1", () => {
      socket.destroy();
      done(true);
    });
    socket.on("error", () => done(false));
  });
}
