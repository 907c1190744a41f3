/**
 * A machine's agent without its sockets: the pod runtime, told what to do by JSON lines on stdin. Tests run it in a
 * network namespace of their own and may kill it at any time.
 */
import { createInterface } from "node:readline";
import { dirname, join, resolve } from "node:path";
import { describeInstance } from "#/agent/instance.ts";
import { sweep, cgroupBase } from "#/agent/sweep.ts";
import { AddressPool, SlotPool } from "#/agent/runtime/addresses.ts";
import { Cgroups } from "#/agent/runtime/cgroups.ts";
import { OWN_USERS } from "#/agent/runtime/users.ts";
import { PodNetwork } from "#/agent/runtime/network.ts";
import { Gate } from "#/agent/runtime/pod-host.ts";
import { PodRuntime } from "#/agent/runtime/pod-runtime.ts";
import type { PodPlan } from "#/model/pod-plan.ts";

interface Request {
  readonly id: number;
  readonly kind: "open" | "apply" | "status" | "exec" | "log" | "stop-all" | "sweep";
  readonly plans?: readonly PodPlan[];
  readonly pod?: string;
  readonly container?: string;
  readonly argv?: readonly string[];
}

const [name = "", stateRoot = "", runRoot = ""] = process.argv.slice(2);
const instance = describeInstance({
  name,
  stateRoot,
  runRoot,
  podCidr: "10.211.0.0/16",
  serviceCidr: "10.212.0.0/16",
});
const network = new PodNetwork(instance);
let runtime: PodRuntime | null = null;

const packageRoot = resolve(import.meta.dirname, "../../..");

function makeRuntime(): PodRuntime {
  return new PodRuntime({
    instance,
    cgroups: new Cgroups(cgroupBase(name)),
    users: OWN_USERS,
    network,
    addresses: new AddressPool(instance.podCidr),
    slots: new SlotPool(),
    intercept: "explicit",
    interceptor: null,
    explicitTargets: () => "",
    attest: async () => await Promise.resolve({ token: "no-control-plane", trustAnchorsPem: "" }),
    startGate: new Gate(4),
    programs: { packageRoot, nodeDir: dirname(process.execPath), sourceDir: join(packageRoot, "src") },
    clusterDomain: "cluster.local",
    changed: () => {},
    log: (level, message) => process.stderr.write(`${level} ${message}\n`),
  });
}

async function answer(request: Request): Promise<unknown> {
  const pod = runtime?.pods.find((each) => each.plan.name === request.pod);
  switch (request.kind) {
    case "open":
      await network.open();
      runtime = makeRuntime();
      await runtime.open();
      return null;
    case "apply":
      runtime?.apply(request.plans ?? []);
      return null;
    case "status":
      return runtime?.statuses();
    case "exec":
      return await pod?.container(request.container ?? "")?.exec(request.argv ?? [], 20_000);
    case "log":
      return pod?.logFile(request.container ?? "");
    case "stop-all":
      await runtime?.stopAll();
      return null;
    case "sweep":
      return await sweep(instance);
  }
}

createInterface({ input: process.stdin })
  .on("line", (line) => {
    const request = JSON.parse(line) as Request;
    answer(request)
      .then((value) => process.stdout.write(`${JSON.stringify({ id: request.id, value: value ?? null })}\n`))
      .catch((error: unknown) =>
        process.stdout.write(`${JSON.stringify({ id: request.id, error: String(error) })}\n`),
      );
  })
  .on("close", () => process.exit(0));
