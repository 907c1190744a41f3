import { Document, isMap, isSeq } from "yaml";
import type { YAMLMap } from "yaml";
import { ANY_PATH } from "#/model/flow.ts";
import type { Flow } from "#/model/flow.ts";
import type { SuggestedPolicy, SuggestedRule, Suggestions } from "./suggest.ts";

/** Evidence of one rule that is written out. */
const EVIDENCE_MAX = 8;

/** The policies as a file for the folder. The same suggestions give the same text. */
export function suggestionsYaml(
  { policies, left }: Suggestions,
  { mode, heading }: { readonly mode: "Audit" | "Enforce"; readonly heading: readonly string[] },
): string {
  const parts = policies.map((policy) => policyYaml(policy, mode));
  const rest = left.map(
    ({ server, why }) => `${server.namespace}/${server.workload}: ${why}, so nothing is suggested for it`,
  );
  const top = commented([...heading, ...rest]);
  return `${[top, ...parts].filter((part) => part !== "").join("---\n")}`;
}

function policyYaml(policy: SuggestedPolicy, mode: "Audit" | "Enforce"): string {
  const { namespace, name, target, rules } = policy;
  const document = new Document({
    apiVersion: "pillion.dev/v1alpha1",
    kind: "AuthorizationPolicy",
    metadata: { name, namespace },
    spec: {
      targetRefs: [
        target.kind === "Pod"
          ? { group: "", kind: "Pod", selector: target.selector }
          : { group: "", kind: "Service", name: target.name },
      ],
      action: "ALLOW",
      mode,
      rules: rules.map(({ name: rule, sources, ports, requests }) => ({
        name: rule,
        sources,
        networkAttributes: { ports },
        ...(requests === null ? {} : { requests }),
      })),
    },
  });
  document.commentBefore = commentOf(aboutPolicy(policy));
  for (const path of [["metadata"], ["spec", "targetRefs"]]) inFlow(document.getIn(path));
  const items = document.getIn(["spec", "rules"]);
  if (isSeq<YAMLMap>(items))
    items.items.forEach((item, i) => {
      item.commentBefore = commentOf(aboutRule(rules[i]!, namespace));
      inFlow(item.get("networkAttributes"));
      for (const list of ["sources", "requests"]) {
        const found = item.get(list);
        if (isSeq(found)) found.items.forEach(inFlow);
      }
    });
  return document.toString({ lineWidth: 120, flowCollectionPadding: false });
}

function inFlow(node: unknown): void {
  if (isMap(node) || isSeq(node)) node.flow = true;
}

function aboutPolicy({ workload, namespace, refused, doubts }: SuggestedPolicy): string[] {
  return [
    `Who may use ${namespace}/${workload}.`,
    ...doubts.map((doubt) => `WARNING: ${doubt}.`),
    ...(refused.length === 0 ? [] : ["Was refused, and is not allowed here:"]),
    ...flowLines(refused, namespace),
  ];
}

function aboutRule({ evidence, doubts }: SuggestedRule, namespace: string): string[] {
  return [...doubts.map((doubt) => `WARNING: ${doubt}.`), ...flowLines(evidence, namespace)];
}

/** The most used first. */
function flowLines(flows: readonly Flow[], namespace: string): string[] {
  const sorted = flows.toSorted((a, b) => b.count - a.count);
  const rest = sorted.slice(EVIDENCE_MAX);
  return [
    ...sorted.slice(0, EVIDENCE_MAX).map((flow) => `  ${flowLine(flow, namespace)}`),
    ...(rest.length === 0
      ? []
      : [`  … and ${rest.length} more, ${rest.reduce((sum, { count }) => sum + count, 0)} in all`]),
  ];
}

function flowLine(
  { client, port, count, firstSeenMs, lastSeenMs, ...flow }: Flow,
  namespace: string,
): string {
  const who = client.identity === "" ? client.address : shortIdentity(client.identity, namespace);
  const what =
    flow.protocol === "opaque"
      ? "connections"
      : flow.path === ANY_PATH
        ? "requests of many kinds"
        : flow.protocol === "grpc"
          ? `calls of ${flow.path.slice(1)}`
          : `${flow.method} ${flow.path}`;
  const refused = flow.verdict === "allowed" ? "" : ` (${flow.verdict} by ${flow.rule})`;
  return `${who}: ${count} × ${what} on port ${port}, ${timeText(firstSeenMs)} to ${timeText(lastSeenMs)}${refused}`;
}

/** `front` in the server's own namespace, `front.shop` elsewhere; whole where it is no service account of that form. */
export function shortIdentity(identity: string, namespace: string): string {
  const match = /^([a-z0-9.-]+)\.([a-z0-9-]+)\.serviceaccount\.identity\./.exec(identity);
  if (match === null) return identity;
  return match[2] === namespace ? match[1]! : `${match[1]}.${match[2]}`;
}

export function timeText(ms: number): string {
  return `${new Date(ms).toISOString().slice(0, 19)}Z`;
}

function commentOf(lines: readonly string[]): string {
  return lines.map((line) => ` ${line}`).join("\n");
}

function commented(lines: readonly string[]): string {
  return lines.map((line) => (line === "" ? "#\n" : `# ${line}\n`)).join("");
}
