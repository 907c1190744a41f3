import type { ServerObject } from "#/kube/access-objects.ts";
import type { LoadedObject } from "#/kube/folder.ts";
import { namespaceOf, selectorMatches } from "#/kube/objects.ts";
import type { PodPlan } from "#/model/pod-plan.ts";
import type { Protocol } from "#/model/policy.ts";
import { byAge } from "../policy/attach.ts";

const PROTOCOLS: Readonly<Record<NonNullable<ServerObject["spec"]["proxyProtocol"]>, Protocol | null>> = {
  unknown: null,
  "HTTP/1": "http1",
  "HTTP/2": "http2",
  gRPC: "grpc",
  opaque: "opaque",
  TLS: "tls",
};

/** What Linkerd's Servers say that ports of pods speak goes before what Services say. The oldest Server of a port counts. */
export function serverProtocols(
  objects: Iterable<LoadedObject>,
  pods: readonly PodPlan[],
  protocols: ReadonlyMap<string, Map<number, Protocol>>,
): void {
  const servers = [...objects].filter(({ object }) => object.kind === "Server").toSorted(byAge);
  if (servers.length === 0) return;
  const byNamespace = Map.groupBy(servers, ({ object }) => namespaceOf(object));
  for (const plan of pods) {
    const decided = new Set<number>();
    for (const { object } of byNamespace.get(plan.namespace) ?? []) {
      if (object.kind !== "Server" || !selectorMatches(object.spec.podSelector, plan.labels)) continue;
      const protocol = PROTOCOLS[object.spec.proxyProtocol ?? "unknown"];
      for (const port of portsOf(object.spec.port, plan)) {
        if (decided.has(port)) continue;
        decided.add(port);
        if (protocol !== null) protocols.get(plan.uid)!.set(port, protocol);
      }
    }
  }
}

function portsOf(wanted: number | string, plan: PodPlan): readonly number[] {
  if (typeof wanted === "number") return [wanted];
  return [...plan.containers, ...plan.initContainers].flatMap(({ ports }) =>
    ports.flatMap((port) => (port.name === wanted && port.protocol === "TCP" ? [port.containerPort] : [])),
  );
}
