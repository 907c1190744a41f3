import { loadFolder } from "#/kube/folder.ts";
import type { LoadedObject } from "#/kube/folder.ts";
import { isWorkload, templateOf } from "#/kube/objects.ts";
import type { FlowPage } from "#/model/flow.ts";
import type { PodStatus, ServicePlan } from "#/model/pod-plan.ts";
import { CommandError } from "../exit.ts";
import type { InstancePaths } from "../instance-paths.ts";
import { ask } from "../operator.ts";
import { joinedFlows, parseFlowPage } from "./flows-file.ts";
import type { FlowsFile, FlowServer, PodSelector } from "./flows-file.ts";

/** What all sidecars of the running mesh have seen; `warn` hears whom nothing is known of. */
export async function gatherFlows(paths: InstancePaths, warn: (text: string) => void): Promise<FlowsFile> {
  const { node, pods, services } = await ask(paths, { kind: "status" }, "status");
  const { pages } = await ask(paths, { kind: "flows" }, "flows");
  const { answer } = await ask(paths, { kind: "ask", question: { kind: "accepted" } }, "control");
  if (answer.kind !== "files")
    throw new CommandError("the control plane did not say what it goes by; see: pillion check");
  const heard = new Map<string, FlowPage>();
  for (const { podUid, text } of pages) {
    const name = pods.find(({ uid }) => uid === podUid)?.name ?? podUid;
    try {
      heard.set(podUid, parseFlowPage(text, `the sidecar of ${name}`));
    } catch (error) {
      if (!(error instanceof CommandError)) throw error;
      warn(`warning: ${error.message}; left out`);
    }
  }
  const { objects } = loadFolder(answer.files, new Map());
  const { trustDomain, clusterDomain, podCidr, serviceCidr, gatewayIp } = node;
  return {
    kind: "pillion-flows",
    version: 1,
    takenAtMs: Date.now(),
    mesh: { trustDomain, clusterDomain, podCidr, serviceCidr, gatewayIp },
    servers: serversOf(pods, services, heard, objects),
  };
}

/** One for each workload with a sidecar, by namespace and name. */
export function serversOf(
  pods: readonly PodStatus[],
  services: readonly ServicePlan[],
  heard: ReadonlyMap<string, FlowPage>,
  objects: ReadonlyMap<string, LoadedObject>,
): FlowServer[] {
  const meshed = pods.filter((pod) => pod.sidecar !== null);
  return [...Map.groupBy(meshed, ({ owner }) => owner)]
    .map(([owner, own]): FlowServer => {
      const [kind = "", namespace = "", name = ""] = owner.split("/");
      const pages = own.flatMap(({ uid }) => heard.get(uid) ?? []);
      return {
        namespace,
        workload: `${kind.toLowerCase()}/${name}`,
        selector: selectorOf(objects.get(owner)),
        services: servicesOf(services, new Set(own.map(({ uid }) => uid))),
        podCount: own.length,
        heardCount: pages.length,
        sinceMs: pages.length === 0 ? 0 : Math.min(...pages.map(({ sinceMs }) => sinceMs)),
        ...joinedFlows(pages),
      };
    })
    .toSorted((a, b) => (nameOf(a) < nameOf(b) ? -1 : 1));
}

function nameOf({ namespace, workload }: FlowServer): string {
  return `${namespace}/${workload}`;
}

/** A controller's own selector; labels of what has none. */
function selectorOf(loaded: LoadedObject | undefined): PodSelector | null {
  const object = loaded?.object;
  if (object === undefined || !isWorkload(object)) return null;
  if (object.kind !== "Pod" && object.kind !== "Job") {
    const { matchLabels, matchExpressions } = object.spec.selector;
    return {
      ...(matchLabels === undefined ? {} : { matchLabels }),
      ...(matchExpressions === undefined ? {} : { matchExpressions }),
    };
  }
  const labels = templateOf(object).metadata?.labels ?? {};
  return Object.keys(labels).length === 0 ? null : { matchLabels: labels };
}

function servicesOf(services: readonly ServicePlan[], uids: ReadonlySet<string>): FlowServer["services"] {
  return services
    .flatMap((service) => {
      const endpoint = service.endpoints.find(({ podUid }) => uids.has(podUid));
      if (endpoint === undefined) return [];
      const ports = service.ports.flatMap(({ port }, i) => {
        const targetPort = endpoint.targetPorts[i] ?? 0;
        return targetPort === 0 ? [] : [{ port, targetPort }];
      });
      return [{ name: service.name, ports }];
    })
    .toSorted((a, b) => (a.name < b.name ? -1 : 1));
}
