import type { AccessMatrix, Reach } from "#/model/access-explanation.ts";
import { table } from "../table.ts";
import type { FlowsFile } from "./flows-file.ts";

/** A matrix, and which pairs were seen talking. */
export interface SeenMatrix extends AccessMatrix {
  /** Requests and connections that were let through, by client, then by server. */
  readonly seen: readonly (readonly number[])[];
}

export function withSeen(matrix: AccessMatrix, file: FlowsFile | null): SeenMatrix {
  const seen = matrix.clients.map(({ identity }) =>
    matrix.servers.map(({ namespace, workload, port }) => {
      const server = file?.servers.find((each) => each.namespace === namespace && each.workload === workload);
      return (server?.flows ?? [])
        .filter(
          (flow) =>
            flow.port === port &&
            flow.verdict === "allowed" &&
            flow.rule !== "default/probe" &&
            identity !== "" &&
            flow.client.identity === identity,
        )
        .reduce((sum, { count }) => sum + count, 0);
    }),
  );
  return { ...matrix, seen };
}

export function serverName({ namespace, workload, port, services }: AccessMatrix["servers"][number]): string {
  return services.length === 0
    ? `${namespace}/${workload.replace(/^.*\//, "")} port ${port}`
    : `${namespace}/${services.join(",")}`;
}

/** Servers down, clients across: there are more servers' ports than clients, and names of clients are short. */
export function matrixText({ clients, servers, cells, seen }: SeenMatrix): string {
  if (servers.length === 0) return "no workload has a port";
  const rows = servers.map((server, at) => [
    `${serverName(server)}${server.isMeshed ? "" : " (no sidecar)"}`,
    ...clients.map((_, row) => {
      const { reach, proposed } = cells[row]![at]!;
      const change = proposed === reach ? "" : ` (${SIGNS[proposed]})`;
      return `${SIGNS[reach]}${change}${(seen[row]?.[at] ?? 0) > 0 ? " *" : ""}`;
    }),
  ]);
  const hasChanges = cells.some((row) => row.some(({ reach, proposed }) => reach !== proposed));
  return [
    table(["SERVER", ...clients.map(({ name }) => name)], rows),
    "",
    `yes: everything · some: depends on the request · -: nothing · *: was seen${hasChanges ? " · (…): were mode Audit enforced" : ""}`,
  ].join("\n");
}

const SIGNS: Readonly<Record<Reach, string>> = { allowed: "yes", partly: "some", denied: "-" };
