import type { ControlAnswer } from "#/model/node-protocol.ts";
import type { PodStatus } from "#/model/pod-plan.ts";
import type { InstancePaths } from "./instance-paths.ts";
import { notKeptLines } from "./not-kept.ts";
import { rotationLine } from "./identity/identity-text.ts";
import { AgentAway, ask } from "./operator.ts";
import { ageText, table } from "./table.ts";
import { describeProblem, statusIfRunning } from "./up.ts";

/** What runs and how it is: 0 when all is well, 1 when something is not. */
export async function status(
  paths: InstancePaths,
  json: boolean,
  print: (text: string) => void,
): Promise<number> {
  const agent = await statusIfRunning(paths);
  if (agent === null) {
    if (json) print(JSON.stringify({ instance: paths.name, running: false, ok: false }, null, 2));
    throw new AgentAway(paths);
  }
  const control: ControlAnswer | null = agent.controlConnected
    ? (await ask(paths, { kind: "ask", question: { kind: "status" } }, "control")).answer
    : null;
  const known = control?.kind === "status" ? control : null;
  const wellPods = agent.pods.every((pod) => pod.ready || pod.phase === "Succeeded");
  const findings = (known?.objects ?? []).flatMap((object) => object.findings);
  const problems = [...(known?.problems ?? []), ...findings];
  const identity = known?.identity;
  const unsound = identity?.problems ?? [];
  const well = agent.controlConnected && wellPods && problems.length === 0 && unsound.length === 0;
  if (json) {
    print(
      JSON.stringify(
        {
          instance: paths.name,
          running: true,
          node: agent.node,
          agentPid: agent.agentPid,
          controlPid: agent.controlPid,
          controlConnected: agent.controlConnected,
          folder: agent.folder,
          pods: agent.pods,
          services: agent.services,
          objects: known?.objects ?? [],
          problems: known?.problems ?? [],
          certificates: known?.certificates ?? [],
          identity: identity ?? null,
          notKept: agent.notKept,
          ok: well,
        },
        null,
        2,
      ),
    );
    return well ? 0 : 1;
  }
  const lines = [
    `instance ${paths.name} · folder ${agent.folder} · interception ${agent.node.intercept}`,
    `agent pid ${agent.agentPid} · control plane ${agent.controlConnected ? `pid ${agent.controlPid}` : "not connected"}`,
  ];
  for (const certificate of known?.certificates ?? []) {
    lines.push(`${certificate.name} certificate ends in ${ageText(certificate.notAfterMs - Date.now())}`);
  }
  if (identity !== undefined && identity.rotation !== null)
    lines.push(rotationLine(identity.rotation, Date.now()));
  for (const problem of unsound) lines.push(`! ${problem}`);
  lines.push(...notKeptLines(agent.notKept), "", podTable(agent.pods));
  if (known !== null && known.objects.length > 0) {
    lines.push(
      "",
      table(
        ["OBJECT", "STATE", "FILE"],
        known.objects.map((object) => [
          [object.kind, object.namespace, object.name].filter((part) => part !== "").join("/"),
          `${object.ok ? "" : "! "}${object.summary}`,
          object.file,
        ]),
      ),
    );
  }
  for (const problem of problems) lines.push(`! ${describeProblem(problem)}`);
  print(lines.join("\n"));
  return well ? 0 : 1;
}

export function podTable(pods: readonly PodStatus[]): string {
  const rows = pods
    .toSorted((a, b) => `${a.namespace}/${a.name}`.localeCompare(`${b.namespace}/${b.name}`))
    .map((pod) => {
      const ready = pod.containers.filter((container) => container.ready).length;
      const restarts = pod.containers.reduce(
        (sum, container) => sum + container.restartCount,
        pod.sidecar?.restartCount ?? 0,
      );
      const sidecar =
        pod.sidecar === null ? "none" : pod.sidecar.ready ? `ready (${pod.intercept})` : "not ready";
      const state = pod.terminating
        ? "Terminating"
        : (pod.containers.find((container) => container.state === "waiting" && container.reason !== "")
            ?.reason ?? pod.phase);
      return [
        `${pod.namespace}/${pod.name}`,
        `${ready}/${pod.containers.length}`,
        state,
        sidecar,
        String(restarts),
        pod.ip,
        ageText(Date.now() - pod.startedAtMs),
        pod.message,
      ];
    });
  return table(["POD", "READY", "STATE", "SIDECAR", "RESTARTS", "IP", "AGE", "MESSAGE"], rows, [4]);
}
