import { ANY_PATH } from "#/model/flow.ts";
import type { Flow } from "#/model/flow.ts";
import { table } from "../table.ts";
import type { FlowsFile, FlowServer } from "./flows-file.ts";
import { shortIdentity, timeText } from "./suggest-yaml.ts";

/** Whether something of it was refused, or would be without audit mode. */
export function isRefused({ verdict, would }: Flow): boolean {
  return verdict !== "allowed" || would?.verdict === "would_deny";
}

/** What was seen, as a table, then samples of what was refused. All texts in it were checked to be printable. */
export function flowsText({ servers }: FlowsFile): string {
  const rows = servers.flatMap((server) => server.flows.map((flow) => rowOf(server, flow)));
  if (rows.length === 0) return "nothing was seen";
  const head = ["SERVER", "PORT", "CLIENT", "WHAT", "COUNT", "VERDICT", "RULE", "LAST SEEN"];
  const samples = servers.flatMap((server) => server.flows.flatMap((flow) => sampleLines(server, flow)));
  const unknown = servers.flatMap((server) => unknownLines(server));
  return [
    table(head, rows, [1, 4]),
    ...(samples.length === 0 ? [] : ["", ...samples]),
    ...(unknown.length === 0 ? [] : ["", ...unknown]),
  ].join("\n");
}

function rowOf({ namespace, workload }: FlowServer, flow: Flow): string[] {
  const { client, port, count, lastSeenMs, rule, would } = flow;
  return [
    `${namespace}/${workload}`,
    String(port),
    client.identity === "" ? client.address : shortIdentity(client.identity, namespace),
    whatText(flow),
    String(count),
    would === null ? flow.verdict : `${flow.verdict}, ${would.verdict}`,
    would === null ? rule : `${rule}, ${would.rule}`,
    timeText(lastSeenMs),
  ];
}

export function whatText({ protocol, method, path }: Pick<Flow, "protocol" | "method" | "path">): string {
  if (protocol === "opaque") return "connection";
  if (path === ANY_PATH) return "requests of many kinds";
  return protocol === "grpc" ? `gRPC ${path.slice(1)}` : `${method} ${path}`;
}

function sampleLines({ namespace, workload }: FlowServer, flow: Flow): string[] {
  return flow.samples.map(({ atMs, address, method, path, reason }) => {
    const what = method === "" ? "a connection" : `${method} ${path}`;
    const verdict = flow.verdict === "allowed" ? (flow.would?.verdict ?? "allowed") : flow.verdict;
    const rule = flow.verdict === "allowed" ? (flow.would?.rule ?? "") : flow.rule;
    return `${timeText(atMs)} ${verdict}: ${what} from ${address} to ${namespace}/${workload} port ${flow.port}, by ${rule}${reason === "" ? "" : `: ${reason}`}`;
  });
}

function unknownLines({ namespace, workload, beyond, podCount, heardCount }: FlowServer): string[] {
  const name = `${namespace}/${workload}`;
  return [
    ...(heardCount < podCount ? [`${name}: ${heardCount} of ${podCount} pods told what they had seen`] : []),
    ...(beyond.count > 0
      ? [
          `${name}: ${beyond.count} more than are kept apart, of which ${beyond.denied} were refused and ${beyond.wouldDeny} would be`,
        ]
      : []),
  ];
}
