import type { InstancePaths } from "../instance-paths.ts";
import { read } from "../stat/stat.ts";
import { table } from "../table.ts";
import { edgesOf, type Edge } from "./pairs.ts";

/** Prints who has talked to whom since the sidecars started, and what protected it. */
export async function edges(
  paths: InstancePaths,
  json: boolean,
  print: (text: string) => void,
): Promise<void> {
  const found = edgesOf(await read(paths));
  if (json) print(JSON.stringify(found, null, 2));
  else print(found.length === 0 ? "nobody has talked to anybody yet" : edgesTable(found));
}

export function edgesTable(found: readonly Edge[]): string {
  return table(
    [
      "CLIENT",
      "SERVER",
      "CLIENT ID",
      "SERVER ID",
      "mTLS",
      "CIPHER",
      "GROUP",
      "CONNECTIONS",
      "OPEN",
      "REQUESTS",
    ],
    found.map((edge) => [
      edge.client,
      edge.server,
      edge.clientIdentity === "" ? "-" : shortIdentity(edge.clientIdentity),
      edge.serverIdentity === "" ? "-" : shortIdentity(edge.serverIdentity),
      edge.isMutualTls ? "yes" : `no: ${edge.whyNot}`,
      edge.ciphers.join("+") || "-",
      edge.groups.join("+") || "-",
      String(edge.connections),
      String(edge.open),
      String(edge.requests),
    ]),
    [7, 8, 9],
  );
}

/** `SA.NS.serviceaccount.identity.…` is long; a person needs its first two labels. */
function shortIdentity(name: string): string {
  const at = name.indexOf(".serviceaccount.");
  return at === -1 ? name : name.slice(0, at);
}
