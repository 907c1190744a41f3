import type { IpAddress } from "#/base/address.ts";
import type { AccessMatrix, Reach } from "#/model/access-explanation.ts";
import type { PeerIdentity } from "#/model/identity.ts";
import { reachOf } from "#/stack/access/what-if.ts";
import { isReachedThroughSidecar } from "../answers/endpoints.ts";
import type { MeshView, ViewPod } from "../services/mesh-view.ts";
import { accessOf, clientOfPod, portsOf } from "./explain-access.ts";
import { clientName } from "./resolve.ts";

interface Row {
  readonly name: string;
  readonly peer: PeerIdentity | null;
  readonly ip: IpAddress;
  readonly workloads: Set<string>;
}

interface Column {
  readonly pod: ViewPod;
  readonly port: number;
  readonly services: readonly string[];
  /** Null: no sidecar decides. */
  readonly policy: ReturnType<typeof accessOf> | null;
}

/** Of RFC 5737, for documentation: an address that nobody has. */
const SOMEWHERE_OUTSIDE = "192.0.2.1" as IpAddress;

/** Every identity, and who has none, against every port of every workload; `namespace` null: of all. */
export function accessMatrix(view: MeshView, namespace: string | null): AccessMatrix {
  const pods = [...view.podsByName.values()]
    .filter((pod) => !pod.isLeaving)
    .toSorted((a, b) => (nameOf(a) < nameOf(b) ? -1 : 1));
  const rows = rowsOf(pods);
  const columns = columnsOf(
    view,
    pods.filter((pod) => namespace === null || pod.namespace === namespace),
  );
  return {
    clients: rows.map(({ name, peer, workloads }) => ({
      name,
      identity: peer?.name ?? "",
      workloads: [...workloads],
    })),
    servers: columns.map(({ pod, port, services, policy }) => ({
      namespace: pod.namespace,
      workload: clientName(pod),
      port,
      services,
      isMeshed: policy !== null,
    })),
    cells: rows.map((row) => columns.map((column) => cellOf(row, column))),
  };
}

function nameOf(pod: ViewPod): string {
  return `${pod.namespace}/${clientName(pod)}/${pod.name}`;
}

function rowsOf(pods: readonly ViewPod[]): Row[] {
  const rows = new Map<string, Row>();
  for (const pod of pods) {
    const { peer, ip } = clientOfPod(pod);
    const name =
      peer === null
        ? `${pod.namespace}/${clientName(pod)} (no identity)`
        : `${pod.namespace}/${pod.identity.serviceAccount}`;
    const row = rows.get(name);
    const workload = `${clientName(pod)}`;
    if (row === undefined) rows.set(name, { name, peer, ip, workloads: new Set([workload]) });
    else row.workloads.add(workload);
  }
  const sorted = [...rows.values()].toSorted((a, b) => (a.name < b.name ? -1 : 1));
  return [...sorted, { name: "anybody outside", peer: null, ip: SOMEWHERE_OUTSIDE, workloads: new Set() }];
}

function columnsOf(view: MeshView, pods: readonly ViewPod[]): Column[] {
  const seen = new Set<string>();
  const columns: Column[] = [];
  for (const pod of pods)
    for (const port of portsOf(view, pod)) {
      const key = `${pod.namespace} ${clientName(pod)} ${port}`;
      if (seen.has(key)) continue;
      seen.add(key);
      const policy = isReachedThroughSidecar(pod, port) ? accessOf(view, pod, port) : null;
      columns.push({ pod, port, services: servicesOf(view, pod, port), policy });
    }
  return columns;
}

function servicesOf(view: MeshView, pod: ViewPod, port: number): string[] {
  return [...view.servicesByName.values()]
    .flatMap((service) =>
      service.ports.flatMap((each) =>
        each.endpoints.some((endpoint) => endpoint.pod?.uid === pod.uid && endpoint.port === port)
          ? [`${service.name}:${each.port}`]
          : [],
      ),
    )
    .toSorted();
}

function cellOf({ ip, peer }: Row, { policy }: Column): { readonly reach: Reach; readonly proposed: Reach } {
  if (policy === null) return { reach: "allowed", proposed: "allowed" };
  const { access, isOpaque, needsToken } = policy;
  const { enforced, proposed } = reachOf(access, { ip, peer }, isOpaque);
  const withToken = (reach: Reach): Reach =>
    needsToken && !isOpaque && reach === "allowed" ? "partly" : reach;
  return { reach: withToken(enforced), proposed: withToken(proposed) };
}
