import type { Flow } from "#/model/flow.ts";
import type { FlowsFile, FlowServer } from "./flows-file.ts";

/** What tests of `authz` share. */

const NOON_MS = Date.UTC(2026, 0, 2, 12);

/** `who` is an address, or a ServiceAccount (`web`, `web.desk`) of the mesh. */
export function flow(who: string, what: string, over: Partial<Flow> = {}): Flow {
  const isAddress = /^[0-9a-f.:/]*[.:][0-9a-f.:/]*$/.test(who);
  const [account, namespace = "shop"] = who.split(".");
  const [method = "", path = ""] = what.split(" ");
  return {
    client: isAddress
      ? { identity: "", address: who }
      : {
          identity: `${account}.${namespace}.serviceaccount.identity.pillion.cluster.local`,
          address: "10.211.0.9",
        },
    port: 8080,
    protocol: what === "" ? "opaque" : method === "gRPC" ? "grpc" : "http",
    method: method === "gRPC" ? "POST" : method,
    path: method === "gRPC" ? `/${path}` : path,
    verdict: "allowed",
    rule: "default/all-unauthenticated",
    would: null,
    count: 10,
    firstSeenMs: NOON_MS,
    lastSeenMs: NOON_MS + 60_000,
    samples: [],
    ...over,
  };
}

export function server(name: string, flows: readonly Flow[], over: Partial<FlowServer> = {}): FlowServer {
  return {
    namespace: "shop",
    workload: `deployment/${name}`,
    selector: { matchLabels: { app: name } },
    services: [{ name, ports: [{ port: 80, targetPort: 8080 }] }],
    podCount: 1,
    heardCount: 1,
    sinceMs: NOON_MS,
    flows,
    beyond: { count: 0, denied: 0, wouldDeny: 0 },
    ...over,
  };
}

export function file(...servers: readonly FlowServer[]): FlowsFile {
  return {
    kind: "pillion-flows",
    version: 1,
    takenAtMs: NOON_MS + 120_000,
    mesh: {
      trustDomain: "cluster.local",
      clusterDomain: "cluster.local",
      podCidr: "10.211.0.0/16",
      serviceCidr: "10.212.0.0/16",
      gatewayIp: "10.211.0.1" as FlowsFile["mesh"]["gatewayIp"],
    },
    servers,
  };
}
