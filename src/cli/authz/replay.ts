import type { IpAddress } from "#/base/address.ts";
import { accessOf, originOfRule } from "#/control/explain/explain-access.ts";
import { isReachedThroughSidecar } from "#/control/answers/endpoints.ts";
import { clientName } from "#/control/explain/resolve.ts";
import type { ViewPod } from "#/control/services/mesh-view.ts";
import type { AccessDecision, AccessSubject } from "#/model/access.ts";
import type { Origin } from "#/model/explanation.ts";
import { ANY_PATH, ID_KINDS } from "#/model/flow.ts";
import type { Flow } from "#/model/flow.ts";
import { parseIdentity } from "#/model/identity.ts";
import type { PeerIdentity } from "#/model/identity.ts";
import { ruleText } from "#/stack/access/flows.ts";
import { decideUnseen, isProposed, reachOf } from "#/stack/access/what-if.ts";
import type { FolderModel } from "../change/folder-model.ts";
import type { FlowsFile, FlowServer } from "./flows-file.ts";

export interface Replay {
  /** How many kinds of requests and connections were tried, and how many of them there had been. */
  readonly flowCount: number;
  readonly requestCount: number;
  readonly changes: readonly ReplayChange[];
  /** Of workloads that the folder does not have. */
  readonly gone: readonly string[];
}

export interface ReplayChange {
  /** `unknown`: it depends on what is not recorded (headers, host, query, token). */
  readonly becomes: "denied" | "allowed" | "unknown";
  readonly namespace: string;
  readonly workload: string;
  readonly flow: Flow;
  /** That decides then, and where it is said. */
  readonly rule: string;
  readonly from: Origin;
  readonly reason: string;
}

/**
 * What would become of recorded flows by a folder: what changes. `asEnforced`: as if no policy of it were in mode Audit.
 */
export function replay(file: FlowsFile, model: FolderModel, asEnforced: boolean): Replay {
  const pods = new Map<string, ViewPod>();
  for (const pod of model.mesh.view.podsByName.values())
    if (!pods.has(`${pod.namespace}/${clientName(pod)}`))
      pods.set(`${pod.namespace}/${clientName(pod)}`, pod);
  const changes: ReplayChange[] = [];
  const gone: string[] = [];
  let flowCount = 0;
  let requestCount = 0;
  for (const server of file.servers) {
    const name = `${server.namespace}/${server.workload}`;
    const pod = pods.get(name);
    const latest = latestOf(server.flows);
    if (pod === undefined) {
      if (latest.length > 0) gone.push(name);
      continue;
    }
    for (const flow of latest) {
      flowCount++;
      requestCount += flow.count;
      const change = changeOf(model, server, pod, flow, asEnforced);
      if (change !== null) changes.push(change);
    }
  }
  return { flowCount, requestCount, changes, gone };
}

/** What was asked several times under several policies counts as it was decided last. */
function latestOf(flows: readonly Flow[]): Flow[] {
  const same = Map.groupBy(flows, ({ client, port, protocol, method, path }) =>
    JSON.stringify([client.identity === "" ? client.address : client.identity, port, protocol, method, path]),
  );
  return [...same.values()].map((all) => {
    const last = all.reduce((a, b) => (b.lastSeenMs > a.lastSeenMs ? b : a));
    const isAllowed = last.verdict === "allowed";
    const alike = all.filter(({ verdict }) => (verdict === "allowed") === isAllowed);
    return { ...last, count: alike.reduce((sum, { count }) => sum + count, 0) };
  });
}

interface Outcome {
  readonly becomes: "denied" | "allowed" | "unknown";
  /** That refuses or, where nothing can, that allows. Null: no sidecar asks. */
  readonly decision: AccessDecision | null;
}

function changeOf(
  { mesh: { view } }: FolderModel,
  { namespace, workload }: FlowServer,
  pod: ViewPod,
  flow: Flow,
  asEnforced: boolean,
): ReplayChange | null {
  const { becomes, decision } = isReachedThroughSidecar(pod, flow.port)
    ? outcomeOf(accessOf(view, pod, flow.port), flow, asEnforced)
    : { becomes: "allowed" as const, decision: null };
  if (becomes === (flow.verdict === "allowed" ? "allowed" : "denied")) return null;
  const by =
    decision === null ? null : asEnforced && decision.would !== null ? decision.would.by : decision.by;
  return {
    becomes,
    namespace,
    workload,
    flow,
    rule: by === null ? "no sidecar asks" : ruleText(by),
    from: by === null ? { object: "", file: "", line: 0 } : originOfRule(view, by),
    reason: decision?.reason ?? "",
  };
}

function outcomeOf(
  { access, isOpaque, needsToken }: ReturnType<typeof accessOf>,
  flow: Flow,
  asEnforced: boolean,
): Outcome {
  const { ip, peer } = clientOf(flow);
  const isConnection = isOpaque || flow.protocol === "opaque";
  const subject: AccessSubject = { ip, peer, request: isConnection ? null : requestOf(flow) };
  const { best, worst } = decideUnseen(access, subject);
  const isAllowed = (decision: AccessDecision): boolean =>
    asEnforced ? isProposed(decision) : decision.verdict === "allowed";
  if (flow.path === ANY_PATH && !isConnection) {
    const reach = reachOf(access, { ip, peer }, false)[asEnforced ? "proposed" : "enforced"];
    const becomes = reach === "partly" ? "unknown" : reach;
    return { becomes: becomes === "allowed" && needsToken ? "unknown" : becomes, decision: worst };
  }
  if (!isAllowed(best)) return { becomes: "denied", decision: best };
  const isSure = isAllowed(worst) && (isConnection || !needsToken);
  return { becomes: isSure ? "allowed" : "unknown", decision: isSure ? best : worst };
}

function clientOf({ client }: Flow): { readonly ip: IpAddress; readonly peer: PeerIdentity | null } {
  const ip = client.address.split("/")[0]! as IpAddress;
  if (client.identity === "") return { ip, peer: null };
  const identity = parseIdentity(client.identity) ?? { trustDomain: "", namespace: "", serviceAccount: "" };
  return { ip, peer: { identity, name: client.identity } };
}

/** One that is of the flow: ids stand for one of their kind. */
function requestOf({ method, path, protocol }: Flow): NonNullable<AccessSubject["request"]> {
  const plain = Object.values(ID_KINDS).reduce(
    (text, { text: kind, example }) => text.replaceAll(kind, example),
    path,
  );
  const fields = protocol === "grpc" ? ["content-type", "application/grpc"] : [];
  return { method, path: plain, authority: "", fields, claims: null };
}
