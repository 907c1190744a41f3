import { countOf } from "../up.ts";
import { whatText } from "./flows-text.ts";
import type { Replay, ReplayChange } from "./replay.ts";
import { shortIdentity } from "./suggest-yaml.ts";

/** What a folder would change, the worst first. */
export function replayText(now: Replay, enforced: Replay | null): string {
  const of = (replay: Replay | null, becomes: ReplayChange["becomes"]): readonly ReplayChange[] =>
    (replay?.changes ?? []).filter((change) => change.becomes === becomes);
  const later = of(enforced, "denied").filter(
    ({ flow }) => !now.changes.some((change) => change.flow === flow || isSame(change, flow)),
  );
  return [
    ...section("would be denied:", of(now, "denied")),
    ...section("would be denied, were mode Audit enforced:", later),
    ...section("would be allowed, and was refused:", of(now, "allowed")),
    ...section("cannot be told, for it depends on headers, host, query or a token:", of(now, "unknown")),
    ...now.gone.map((name) => `${name} is not in the folder`),
    summary(now, enforced),
  ].join("\n");
}

function isSame({ flow, becomes }: ReplayChange, other: ReplayChange["flow"]): boolean {
  return becomes === "denied" && JSON.stringify(flow) === JSON.stringify(other);
}

function section(title: string, changes: readonly ReplayChange[]): string[] {
  if (changes.length === 0) return [];
  return [title, ...changes.map((change) => `  ${changeLine(change)}`)];
}

function changeLine({ namespace, workload, flow, rule, from }: ReplayChange): string {
  const { client, count, port } = flow;
  const who = client.identity === "" ? client.address : shortIdentity(client.identity, namespace);
  const where = from.file === "" ? "" : ` [${from.file}:${from.line}]`;
  return `${who} -> ${namespace}/${workload} port ${port}: ${count} × ${whatText(flow)}, by ${rule}${where}`;
}

function summary(now: Replay, enforced: Replay | null): string {
  const tried = `${countOf(now.flowCount, "flow")} (${countOf(now.requestCount, "request")} and connections)`;
  const denied = now.changes.filter(({ becomes }) => becomes === "denied").length;
  const later = (enforced?.changes ?? []).filter(({ becomes }) => becomes === "denied").length;
  if (now.flowCount === 0) return "no flow was tried: nothing was seen of these workloads";
  if (now.changes.length === 0 && later === 0) return `${tried} tried: nothing would change`;
  return `${tried} tried: ${denied} would be denied that ${denied === 1 ? "works" : "work"} today`;
}
