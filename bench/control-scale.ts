/**
 * The control plane at scale, without the machines: its own loop, model and answers over a folder of many Services and workloads, an agent
 * that reports whatever is planned as ready, and every sidecar as the streams that it would keep (its own port; policy and endpoints of each
 * Service that it uses). What the wire and TLS cost is not in it. Needs no root.
 *
 *   npm run bench:control -- [--services 1000] [--pods-each 10] [--uses 5] [--changes 100] [--seconds 10] [--json]
 */
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { create, toBinary } from "@bufbuild/protobuf";
import { parseIp } from "#/base/address.ts";
import { SeededRandom } from "#/base/random.ts";
import { wireAddress } from "#/control/answers/wire.ts";
import { Mesh } from "#/control/mesh/mesh.ts";
import { destinationMethods } from "#/control/rpc/destination.ts";
import { LiveView } from "#/control/rpc/live-view.ts";
import { policyMethods } from "#/control/rpc/policy.ts";
import type { CallContext, MethodHandler, Watcher } from "#/control/rpc/server.ts";
import type { ViewPod } from "#/control/services/mesh-view.ts";
import { StateFolder } from "#/control/state-folder.ts";
import { GetDestinationSchema } from "#/gen/linkerd/destination_pb.ts";
import { PortSpecSchema } from "#/gen/linkerd/inbound_pb.ts";
import { TrafficSpecSchema } from "#/gen/linkerd/outbound_pb.ts";
import { withCapabilities } from "#/model/capabilities.ts";
import type { NodeInfo } from "#/model/node-protocol.ts";
import type { PodPlan, PodStatus } from "#/model/pod-plan.ts";
import { SystemClock } from "#/net/clock.ts";
import { SILENT } from "#/net/log.ts";
import { commandLine } from "../scripts/command-line.ts";
import { describeMachine } from "./lib/machine.ts";
import { spread, table } from "./lib/report.ts";

const options = commandLine(
  `Usage: npm run bench:control -- [options]

The control plane with many workloads: memory, CPU, and how long until the last sidecar knows of a change.

Options:
  --services N    Services (default: 1000)
  --pods-each N   workloads of each (default: 10)
  --uses N        Services that each workload's sidecar uses (default: 5)
  --changes N     changes a second (default: 100)
  --seconds N     for how long (default: 10)
  --json          prints JSON alone
  -h, --help      shows this`,
  {
    services: { type: "string", default: "1000" },
    "pods-each": { type: "string", default: "10" },
    uses: { type: "string", default: "5" },
    changes: { type: "string", default: "100" },
    seconds: { type: "string", default: "10" },
    json: { type: "boolean", default: false },
  },
  ["services", "pods-each", "uses", "changes", "seconds"],
);
const services = Number(options.services);
const podsEach = Number(options["pods-each"]);
const uses = Number(options.uses);
const changesPerSecond = Number(options.changes);
const seconds = Number(options.seconds);
const NAMESPACE = "scale";
const PORT = 80;
const NODE: NodeInfo = {
  name: "node-1",
  instance: "scale",
  gatewayIp: "10.0.0.1",
  podCidr: "10.0.0.0/8",
  serviceCidr: "172.16.0.0/12",
  controlPort: 8086,
  intercept: "ebpf",
  clusterDomain: "cluster.local",
  trustDomain: "cluster.local",
};

const folder = mkdtempSync(join(tmpdir(), "pillion-control-scale-"));
const clock = new SystemClock();
const random = new SeededRandom(1);
const live = new LiveView();
const statuses = new Map<string, PodStatus>();
let plans: readonly PodPlan[] = [];
let uids = 0;
let rounds = 0;
const mesh = new Mesh(
  {
    clock,
    log: SILENT,
    state: new StateFolder(folder),
    trustAnchorsPem: () => "PEM",
    version: "1",
    newUid: () => `uid-${uids++}`,
    seed: "seed",
  },
  {
    view: (view) => {
      rounds++;
      live.publish(view);
    },
    plan: (pods) => {
      plans = pods;
    },
  },
);

const methods: ReadonlyMap<string, MethodHandler> = new Map([
  ...policyMethods(live),
  ...destinationMethods(live),
]);

/** Of one Service: who watches its endpoints, and which changes some of them have not heard of. */
interface Watched {
  readonly streams: number[];
  readonly waiting: { readonly sinceMs: number; readonly left: Set<number> }[];
}
const watched = new Map<string, Watched>();
const delaysMs: number[] = [];
let messages = 0;
let bytes = 0;
let streams = 0;

try {
  await main();
} finally {
  rmSync(folder, { recursive: true });
}
process.exit(0);

async function main(): Promise<void> {
  if (!options.json) console.log(describeMachine());
  const before = heapMib();
  const startMs = performance.now();
  mesh.takeNode(NODE);
  mesh.takePods([]);
  mesh.takeFolder(
    Array.from({ length: services }, (_, i) => ({ path: `${nameOf(i)}.yaml`, text: manifest(nameOf(i)) })),
    [],
  );
  await settle();
  const startedMs = performance.now() - startMs;
  const model = heapMib();
  const openMs = performance.now();
  for (const pod of live.require().podsByName.values()) watchAs(pod);
  const openedMs = performance.now() - openMs;
  const watching = heapMib();
  messages = 0;
  bytes = 0;
  const roundsBefore = rounds;
  const cpu = process.cpuUsage();
  const changes = await change();
  const used = process.cpuUsage(cpu);
  const delays = spread(delaysMs);
  const result = {
    pods: plans.length,
    services,
    streams,
    startSeconds: startedMs / 1000,
    openSeconds: openedMs / 1000,
    modelMib: model - before,
    streamsMib: watching - model,
    changes,
    rounds: rounds - roundsBefore,
    cpuMsPerChange: (used.user + used.system) / 1000 / changes,
    messages,
    bytes,
    lastKnowsMs: {
      ...delays,
      p99: delaysMs.toSorted((a, b) => a - b)[Math.floor(delaysMs.length * 0.99)] ?? 0,
    },
    neverHeard: [...watched.values()].reduce((sum, { waiting }) => sum + waiting.length, 0),
  };
  if (options.json) console.log(JSON.stringify(result, null, 1));
  else
    console.log(
      table(
        [`${result.pods} workloads, ${services} Services, ${uses} used by each`, ""],
        [
          ["from an empty mesh to the model, s", result.startSeconds.toFixed(1)],
          [`to open ${streams} streams, s`, result.openSeconds.toFixed(1)],
          ["memory of the model, MiB", result.modelMib.toFixed(0)],
          ["memory of the streams, MiB", result.streamsMib.toFixed(0)],
          [`changes in ${seconds} s, rounds`, `${changes}, ${result.rounds}`],
          ["CPU of a change, ms", result.cpuMsPerChange.toFixed(1)],
          ["messages, KiB", `${messages}, ${(bytes / 1024).toFixed(0)}`],
          [
            "until the last sidecar knows, ms: median / p99 / max",
            [delays.median, result.lastKnowsMs.p99, delays.max].map((ms) => ms.toFixed(0)).join(" / "),
          ],
          ["changes that somebody never heard of", String(result.neverHeard)],
        ],
      ),
    );
}

function nameOf(i: number): string {
  return `service-${i}`;
}

function manifest(name: string): string {
  return `apiVersion: v1
kind: Service
metadata: { name: ${name}, namespace: ${NAMESPACE} }
spec: { selector: { app: ${name} }, ports: [{ name: http, port: ${PORT}, targetPort: 8080 }] }
---
apiVersion: apps/v1
kind: Deployment
metadata: { name: ${name}, namespace: ${NAMESPACE} }
spec:
  replicas: ${podsEach}
  selector: { matchLabels: { app: ${name} } }
  template:
    metadata: { labels: { app: ${name} } }
    spec: { serviceAccountName: default, containers: [{ name: app, command: [sleep, "1"], ports: [{ containerPort: 8080 }] }] }
`;
}

/** Reports what is planned as ready until nothing more is planned. */
async function settle(): Promise<void> {
  for (let quiet = 0; quiet < 3;) {
    await new Promise((resolve) => setTimeout(resolve, 50));
    mesh.catchUp();
    const missing = plans.filter((plan) => !statuses.has(plan.uid));
    if (plans.length === services * podsEach && missing.length === 0) quiet++;
    if (missing.length === 0) continue;
    for (const plan of missing) statuses.set(plan.uid, ready(plan, statuses.size + 10));
    mesh.takePods([...statuses.values()]);
  }
}

function ready(plan: PodPlan, number: number): PodStatus {
  return {
    uid: plan.uid,
    name: plan.name,
    namespace: plan.namespace,
    templateHash: plan.templateHash,
    owner: plan.owner,
    ip: `10.${(number >> 16) & 255}.${(number >> 8) & 255}.${number & 255}`,
    phase: "Running",
    ready: true,
    terminating: false,
    message: "",
    startedAtMs: 0,
    intercept: "ebpf",
    containers: [],
    sidecar: null,
  };
}

/** The streams of one sidecar. */
function watchAs(pod: ViewPod): void {
  const call: CallContext = {
    caller: { identity: pod.identity, form: "dns+spiffe" },
    isTrusted: false,
    peer: pod.ip,
  };
  const workload = withCapabilities(JSON.stringify({ ns: pod.namespace, pod: pod.name }));
  const view = live.require();
  watch(
    "/io.linkerd.proxy.inbound.InboundServerPolicies/WatchPort",
    toBinary(PortSpecSchema, create(PortSpecSchema, { workload, port: 8080 })),
    call,
    null,
  );
  for (let i = 0; i < uses; i++) {
    const name = nameOf(Math.floor(random.next() * services));
    const service = view.servicesByName.get(`${NAMESPACE}/${name}`);
    const ip = parseIp(service?.clusterIp ?? "");
    if (ip === null) throw new Error(`${name} has no address`);
    watch(
      "/io.linkerd.proxy.outbound.OutboundPolicies/Watch",
      toBinary(
        TrafficSpecSchema,
        create(TrafficSpecSchema, {
          sourceWorkload: workload,
          target: { case: "addr", value: wireAddress(ip, PORT) },
        }),
      ),
      call,
      null,
    );
    const path = `${name}.${NAMESPACE}.svc.cluster.local:${PORT}`;
    watch(
      "/io.linkerd.proxy.destination.Destination/Get",
      toBinary(GetDestinationSchema, create(GetDestinationSchema, { path, contextToken: workload })),
      call,
      name,
    );
  }
}

function watch(method: string, request: Uint8Array, call: CallContext, service: string | null): void {
  const number = streams++;
  const watcher: Watcher = {
    send: (message) => {
      messages++;
      bytes += message.length;
      if (service !== null) heard(service, number);
    },
    fail: (error) => {
      throw error;
    },
  };
  methods.get(method)?.watch?.(request, watcher, call);
  if (service === null) return;
  let of = watched.get(service);
  if (of === undefined) watched.set(service, (of = { streams: [], waiting: [] }));
  of.streams.push(number);
}

function heard(service: string, stream: number): void {
  const of = watched.get(service);
  if (of === undefined) return;
  for (const change of of.waiting) change.left.delete(stream);
  while (of.waiting[0]?.left.size === 0) delaysMs.push(performance.now() - of.waiting.shift()!.sinceMs);
}

/** Pods become unready and ready again, none of them twice within five seconds, so that no change undoes another unseen. */
async function change(): Promise<number> {
  const all = [...statuses.values()];
  const busyUntilMs = new Map<string, number>();
  const startMs = performance.now();
  let made = 0;
  while (performance.now() - startMs < seconds * 1000) {
    const due = Math.floor(((performance.now() - startMs) / 1000) * changesPerSecond);
    if (made < due) {
      while (made < due) {
        const pod = statuses.get(all[Math.floor(random.next() * all.length)]!.uid)!;
        if ((busyUntilMs.get(pod.uid) ?? 0) > performance.now()) continue;
        busyUntilMs.set(pod.uid, performance.now() + 5_000);
        statuses.set(pod.uid, { ...pod, ready: !pod.ready });
        const of = watched.get(pod.owner.split("/").at(-1) ?? "");
        of?.waiting.push({ sinceMs: performance.now(), left: new Set(of.streams) });
        made++;
      }
      mesh.takePods([...statuses.values()]);
    }
    await new Promise((resolve) => setTimeout(resolve, 5));
  }
  mesh.catchUp();
  await new Promise((resolve) => setTimeout(resolve, 1_000));
  return made;
}

function heapMib(): number {
  globalThis.gc?.();
  return process.memoryUsage().heapUsed / 1024 / 1024;
}
