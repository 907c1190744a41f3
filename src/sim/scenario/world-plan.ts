import type { IpAddress } from "#/base/address.ts";
import { endpointOf } from "#/control/policy/endpoint.ts";
import { inboundLimitsFor, outboundPolicyFor } from "#/control/policy/policy.ts";
import type { LoadedObject } from "#/kube/folder.ts";
import type { FolderProblem } from "#/model/node-protocol.ts";
import type { OutboundPolicy } from "#/model/policy.ts";
import type { InboundLimits } from "#/model/traffic.ts";
import type {
  Behaviour,
  CallPlan,
  FailureKind,
  LoadPlan,
  ServicePlan,
  WorkloadPlan,
  WorldPlan,
} from "../plan.ts";
import type { FolderMesh, FolderTarget, FolderWorkload } from "./folder-mesh.ts";
import { meshOfFolder } from "./folder-mesh.ts";
import type { CallScene, Complain, FailureScene, LoadScene, Scenario, WorkloadScene } from "./scenario.ts";
import { DEFAULT_LATENCY } from "./scenario.ts";

/**
 * What a scenario makes of a folder. Problems with the scenario go where `readScenario` put its own; those with the folder's
 * objects are returned, and warnings are of policies that only count in part.
 */
export function worldPlanOf(
  objects: ReadonlyMap<string, LoadedObject>,
  scenario: Scenario,
): { plan: WorldPlan; problems: FolderProblem[]; warnings: FolderProblem[] } {
  const scenes = new Map<string, WorkloadScene>();
  const names = workloadNames(objects);
  for (const scene of scenario.workloads) {
    const name = resolveWorkload(names, scene.name, scene.complain);
    if (name !== null) scenes.set(name, scene);
  }
  const { mesh, problems, warnings } = meshOfFolder(objects, (name) => scenes.get(name)?.replicas ?? null);
  const find = new Finder(mesh, names);
  const workloads = mesh.workloads.map((workload) =>
    workloadPlan(workload, scenes.get(workload.name), mesh, find),
  );
  const plan: WorldPlan = {
    seed: scenario.seed,
    durationMs: scenario.durationMs,
    network: scenario.network,
    workloads,
    services: mesh.targets.map((target) => servicePlan(target, mesh)),
    loads: scenario.loads.flatMap((load) => loadPlan(load, find)),
    failures: scenario.failures.flatMap((failure) => {
      const what = failureKind(failure, workloads, find);
      return what === null ? [] : [{ atMs: failure.atMs, forMs: failure.forMs, what }];
    }),
  };
  return { plan, problems, warnings };
}

/** Says which workload or service a name in the scenario means. */
class Finder {
  readonly #mesh: FolderMesh;
  readonly #names: readonly string[];

  constructor(mesh: FolderMesh, names: readonly string[]) {
    this.#mesh = mesh;
    this.#names = names;
  }

  workload(name: string, complain: Complain): FolderWorkload | null {
    const full = resolveWorkload(this.#names, name, complain);
    return this.#mesh.workloads.find((one) => one.name === full) ?? null;
  }

  /** `from` is the namespace of who calls: a name without one is looked for there. */
  call(scene: CallScene, from: string): CallPlan | null {
    const { url, complain } = scene;
    const match =
      /^http:\/\/([a-z0-9-]+)(?:\.([a-z0-9-]+))?(?:\.svc(?:\.cluster\.local)?)?(?::(\d{1,5}))?(\/.*)?$/.exec(
        url,
      );
    if (match === null) {
      complain("must be a URL of a Service, such as http://cart.shop/items or http://cart:8080/");
      return null;
    }
    const [, name, namespace = from, port = "80", path = "/"] = match;
    const target = this.#mesh.targets.find(
      (one) =>
        one.service.name === name && one.service.namespace === namespace && one.port.port === Number(port),
    );
    if (target === undefined) {
      const known = this.#mesh.targets.map(
        (one) => `${one.service.name}.${one.service.namespace}:${one.port.port}`,
      );
      complain(`no Service ${name!}.${namespace} has a port ${port}; there are ${listed(known)}`);
      return null;
    }
    return {
      to: target.path,
      head: {
        method: scene.method,
        scheme: "http",
        authority: `${name!}.${namespace}${port === "80" ? "" : `:${port}`}`,
        path,
        version: "1.1",
        absoluteForm: false,
        upgrade: null,
        fields: scene.fields,
      },
      bodyBytes: scene.bodyBytes,
      timeoutMs: scene.timeoutMs,
      isOptional: scene.isOptional,
      boundMs: 0,
      isNumbered: false,
    };
  }
}

function workloadPlan(
  workload: FolderWorkload,
  scene: WorkloadScene | undefined,
  mesh: FolderMesh,
  find: Finder,
): WorkloadPlan {
  const zones = scene?.zones ?? [];
  const behaviour: Behaviour = {
    latency: scene?.latency ?? DEFAULT_LATENCY,
    errorRate: scene?.errorRate ?? 0,
    workersMax: scene?.workersMax ?? 64,
    waitingMax: scene?.waitingMax ?? 1_000,
    noticesAbort: scene?.noticesAbort ?? false,
    calls: (scene?.calls ?? []).flatMap((call) => find.call(call, workload.namespace) ?? []),
  };
  return {
    name: workload.name,
    behaviour,
    inbound: inboundOf(workload, mesh),
    pods: workload.pods.map((pod, i) => {
      const view = mesh.view.podsByName.get(`${pod.namespace}/${pod.name}`)!;
      const zone = zones.length === 0 ? "" : zones[i % zones.length]!;
      // It has one program here, whatever the port that a Service reaches it by.
      const endpoint = endpointOf({ ip: view.ip as IpAddress, port: ANY_PORT, hostname: null, pod: view });
      return { name: pod.name, zone, endpoint: { ...endpoint, labels: { ...endpoint.labels, zone } } };
    }),
  };
}

/** What the workload's sidecars take in at the first port that a Service reaches it by: a program has one port here. */
function inboundOf({ pods }: FolderWorkload, { targets, view }: FolderMesh): InboundLimits | null {
  const [first] = pods;
  for (const { port } of targets) {
    const endpoint = port.endpoints.find(
      ({ pod }) => pod?.name === first?.name && pod?.namespace === first?.namespace,
    );
    if (endpoint !== undefined && endpoint.pod !== null)
      return inboundLimitsFor(view, endpoint.pod, endpoint.port);
  }
  return null;
}

function servicePlan(target: FolderTarget, mesh: FolderMesh): ServicePlan {
  const owners = new Set(
    target.port.endpoints.flatMap(({ pod }) => (pod === null ? [] : [`${pod.namespace}/${pod.name}`])),
  );
  const policies = new Map<string, OutboundPolicy>();
  return {
    path: target.path,
    workloads: mesh.workloads
      .filter((workload) => workload.pods.some((pod) => owners.has(`${pod.namespace}/${pod.name}`)))
      .map((workload) => workload.name),
    policyFor: (name) => {
      let policy = policies.get(name);
      if (policy === undefined) {
        const [client] = mesh.workloads.find((workload) => workload.name === name)!.pods;
        policy = outboundPolicyFor(mesh.view, { kind: "service", ...target }, client ?? null);
        policies.set(name, policy);
      }
      return policy;
    },
  };
}

function loadPlan(load: LoadScene, find: Finder): LoadPlan[] {
  const from = find.workload(load.from, load.complain);
  if (from === null) return [];
  const call = find.call(load.call, from.namespace);
  if (call === null) return [];
  return [{ from: from.name, call, keys: load.keys, retriesMax: load.retriesMax, ...load.shape }];
}

function failureKind(
  { complain, pods, what, workload: name }: FailureScene,
  workloads: readonly WorkloadPlan[],
  find: Finder,
): FailureKind | null {
  if (what.kind === "zone") {
    if (workloads.some((workload) => workload.pods.some((pod) => pod.zone === what.zone))) return what;
    complain(`no pod is in zone ${what.zone}; give workloads their zones`);
    return null;
  }
  const workload = find.workload(name, complain);
  return workload === null ? null : { ...what, workload: workload.name, pods: pods ?? workload.pods.length };
}

function workloadNames(objects: ReadonlyMap<string, LoadedObject>): string[] {
  return [...objects.keys()].flatMap((key) => {
    const [kind, namespace, name] = key.split("/");
    return WORKLOAD_KINDS.has(kind!) ? [`${namespace}/${name}`] : [];
  });
}

/** `shop/front`, or `front` where that is only one. */
function resolveWorkload(names: readonly string[], name: string, complain: Complain): string | null {
  const found = names.filter((full) => full === name || full.endsWith(`/${name}`));
  if (found.length === 1) return found[0]!;
  complain(
    found.length === 0
      ? `the folder has no workload ${name}; there are ${listed(names)}`
      : `${name} may be ${found.join(" or ")}; write which`,
  );
  return null;
}

function listed(names: readonly string[]): string {
  return names.length === 0 ? "none" : names.slice(0, 20).join(", ");
}

const ANY_PORT = 80;
const WORKLOAD_KINDS = new Set(["Deployment", "StatefulSet", "DaemonSet", "Job", "Pod"]);
