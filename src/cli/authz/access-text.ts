import type {
  AccessExplanation,
  ExplainedAccess,
  ExplainedAccessRule,
  ExplainedDecision,
  Reach,
} from "#/model/access-explanation.ts";
import type { Origin } from "#/model/explanation.ts";

/** Who may do what and why, for people: the steps in the order in which they are taken. */
export function accessText({ client, servers }: AccessExplanation): string {
  const who = client.identity === "" ? "without identity" : `as ${client.identity}`;
  return [`client    ${client.name}, ${who}, from ${client.ip}`, ...servers.flatMap(serverLines)].join("\n");
}

function serverLines(server: ExplainedAccess): string[] {
  const { namespace, workload, port, isMeshed, isOpaque, decision, rules, reach, proposed, alsoNeeds } =
    server;
  const name = `server    ${namespace}/${workload} port ${port}`;
  if (!isMeshed) return ["", name, "verdict   allowed: it has no sidecar, so nobody is asked anything"];
  return [
    "",
    `${name}${isOpaque ? ", opaque: requests are not looked at" : ""}`,
    ...(decision === null ? [`verdict   ${REACH[reach]}`] : decisionLines(decision)),
    ...(decision === null && proposed !== reach
      ? [`audit     were mode Audit enforced: ${REACH[proposed]}`]
      : []),
    ...(alsoNeeds === "" ? [] : [`besides   ${alsoNeeds}`]),
    ...(rules.length === 0 ? ["rules     none is about this client"] : rules.map(ruleLine)),
  ];
}

const REACH: Readonly<Record<Reach, string>> = {
  allowed: "allowed, whatever is asked",
  partly: "depends on the request; ask with --method and --path",
  denied: "denied, whatever is asked",
};

function decisionLines({ verdict, rule, from, reason, would }: ExplainedDecision): string[] {
  return [
    `verdict   ${VERDICTS[verdict]} by ${rule}${at(from)}`,
    ...(reason === "" ? [] : [`          ${reason}`]),
    ...(would === null
      ? []
      : [
          `audit     were mode Audit enforced: ${would.verdict === "would_deny" ? "denied" : "allowed"} by ${would.rule}${at(would.from)}`,
        ]),
  ];
}

const VERDICTS: Readonly<Record<ExplainedDecision["verdict"], string>> = {
  allowed: "allowed",
  denied: "denied (403)",
  "no-route": "refused (404)",
  ambiguous: "refused (400)",
};

function ruleLine({ action, stage, rule, from, requests, holds }: ExplainedAccessRule): string {
  const does = holds === null ? "" : holds ? "holds: " : "does not hold: ";
  const mode = stage === "proposed" ? " (mode Audit)" : stage === "enforced" ? " (until it is enforced)" : "";
  const what = requests === "" ? "" : ` ${requests}`;
  return `${STEPS[action].padEnd(10)}${does}${rule}${what}${mode}${at(from)}`;
}

const STEPS: Readonly<Record<ExplainedAccessRule["action"], string>> = {
  exempt: "exempt",
  deny: "deny",
  allow: "allow",
  restrict: "scope",
  default: "default",
  audit: "tells",
};

function at({ file, line }: Origin): string {
  return file === "" ? "" : ` [${file}:${line}]`;
}
