import { parseIp } from "#/base/address.ts";
import type { IpAddress } from "#/base/address.ts";
import { kindNamed } from "#/kube/kind-names.ts";
import type { AccessPolicy, AccessRequest, AccessRule, AccessSubject } from "#/model/access.ts";
import type {
  AccessExplanation,
  AccessQuestion,
  ExplainedAccess,
  ExplainedAccessRule,
  ExplainedDecision,
} from "#/model/access-explanation.ts";
import type { Origin } from "#/model/explanation.ts";
import type { PeerIdentity } from "#/model/identity.ts";
import { dnsName } from "#/model/identity.ts";
import type { ControlAnswer } from "#/model/node-protocol.ts";
import type { PolicySource } from "#/model/policy.ts";
import { decideAccess } from "#/stack/access/decide.ts";
import { ruleText } from "#/stack/access/flows.ts";
import { isAbout, reachOf, ruleHolds } from "#/stack/access/what-if.ts";
import { latin1OfUtf8 } from "#/stack/route/text.ts";
import { isReachedThroughSidecar } from "../answers/endpoints.ts";
import { inboundPolicyFor } from "../policy/policy.ts";
import type { MeshView, ViewPod } from "../services/mesh-view.ts";
import { originOf } from "./origin.ts";
import { requestsText } from "./requests-text.ts";
import { clientName, resolveClient, resolveServiceName } from "./resolve.ts";

type Answer = Extract<ControlAnswer, { kind: "access-explained" | "error" }>;

interface Client {
  readonly name: string;
  /** Of which names of Services are meant. */
  readonly namespace: string;
  readonly ip: IpAddress;
  readonly peer: PeerIdentity | null;
}

/** Who may do what at a server and why, by the function that sidecars decide with. */
export function explainAccess(view: MeshView, question: AccessQuestion): Answer {
  const client = clientOf(view, question);
  if (typeof client === "string") return { kind: "error", message: client };
  const servers = serversOf(view, client, question);
  if (typeof servers === "string") return { kind: "error", message: servers };
  const { name, ip, peer } = client;
  const explanation: AccessExplanation = {
    client: { name, ip, identity: peer?.name ?? "" },
    servers: servers.map(({ pod, port }) => explainPort(view, client, pod, port, question)),
  };
  return { kind: "access-explained", explanation };
}

function clientOf(view: MeshView, question: AccessQuestion): Client | string {
  const ip = parseIp(question.client);
  if (ip !== null) {
    const pod = view.podsByIp.get(ip);
    if (pod === undefined) return { name: ip, namespace: question.namespace ?? "default", ip, peer: null };
  }
  const pod = (ip === null ? undefined : view.podsByIp.get(ip)) ?? resolveClient(view, question);
  return typeof pod === "string" ? pod : clientOfPod(pod);
}

export function clientOfPod(pod: ViewPod): Client {
  return {
    name: `${clientName(pod)} (${pod.namespace})`,
    namespace: pod.namespace,
    // A pod without an address yet sends nothing; no rule by address is about it.
    ip: pod.ip === "" ? NOWHERE : pod.ip,
    peer: pod.isMeshed ? { identity: pod.identity, name: dnsName(pod.identity) } : null,
  };
}

const NOWHERE = "0.0.0.0" as IpAddress;

/** One pod for each workload: its pods are alike. */
function serversOf(
  view: MeshView,
  client: Client,
  { server, port }: AccessQuestion,
): { pod: ViewPod; port: number }[] | string {
  const kind = kindNamed(server.split("/")[0] ?? "");
  if (server.includes("/") && kind !== "Service") {
    const pod = resolveClient(view, { client: server, namespace: null });
    if (typeof pod === "string") return pod;
    const ports = port === null ? portsOf(view, pod) : [port];
    return ports.length === 0
      ? `${clientName(pod)} declares no port and no Service leads to it; say which with --port`
      : ports.map((each) => ({ pod, port: each }));
  }
  const named = resolveServiceName(view, client.namespace, server.slice(server.indexOf("/") + 1));
  if (typeof named === "string") return named;
  const { service } = named;
  const wanted = port ?? named.port;
  const found = service.ports.filter((each) => wanted === null || each.port === wanted);
  const title = `Service ${service.namespace}/${service.name}`;
  if (found.length === 0)
    return `${title} has no TCP port ${wanted}; it has ${service.ports.map((each) => each.port).join(", ") || "none"}`;
  const servers = new Map<string, { pod: ViewPod; port: number }>();
  for (const { endpoints } of found)
    for (const endpoint of endpoints) {
      const { pod } = endpoint;
      if (pod === null) continue;
      const key = `${pod.namespace} ${clientName(pod)} ${endpoint.port}`;
      if (!servers.has(key)) servers.set(key, { pod, port: endpoint.port });
    }
  return servers.size === 0
    ? `${title} has no pod that is ready; see: pillion status`
    : [...servers.values()];
}

/** That its containers declare, or that a Service leads to. */
export function portsOf(view: MeshView, pod: ViewPod): number[] {
  const ports = new Set(pod.ports.map(({ port }) => port));
  for (const service of view.servicesByName.values())
    for (const { endpoints } of service.ports)
      for (const endpoint of endpoints) if (endpoint.pod?.uid === pod.uid) ports.add(endpoint.port);
  return [...ports].toSorted((a, b) => a - b);
}

/** What a pod's sidecar goes by on a port. */
export function accessOf(
  view: MeshView,
  pod: ViewPod,
  port: number,
): { access: AccessPolicy; isOpaque: boolean; needsToken: boolean } {
  const policy = inboundPolicyFor(view, pod, port);
  return {
    access: policy.access,
    isOpaque: policy.protocol === "opaque" || policy.protocol === "tls",
    needsToken: policy.jwt !== null && policy.jwt.required !== null,
  };
}

function explainPort(
  view: MeshView,
  { ip, peer }: Client,
  pod: ViewPod,
  port: number,
  { request }: AccessQuestion,
): ExplainedAccess {
  const about = { namespace: pod.namespace, workload: clientName(pod), port };
  if (!isReachedThroughSidecar(pod, port))
    return {
      ...about,
      isMeshed: false,
      isOpaque: false,
      reach: "allowed",
      proposed: "allowed",
      decision: null,
      rules: [],
      alsoNeeds: "",
    };
  const { access, isOpaque, needsToken } = accessOf(view, pod, port);
  const reach = reachOf(access, { ip, peer }, isOpaque);
  const asked: AccessRequest | null = isOpaque || request === null ? null : requestOf(request);
  const isDefinite = isOpaque || asked !== null || reach.enforced !== "partly";
  const subject: AccessSubject = { ip, peer, request: asked ?? (isOpaque ? null : ANYTHING) };
  return {
    ...about,
    isMeshed: true,
    isOpaque,
    reach: reach.enforced,
    proposed: reach.proposed,
    decision: isDefinite ? decisionOf(view, access, subject) : null,
    rules: access.rules
      .filter((rule) => isAbout(rule, ip, peer))
      .map((rule) => ruleOf(view, access, rule, isOpaque || asked !== null ? subject : null)),
    alsoNeeds: needsToken && !isOpaque ? "a valid token" : "",
  };
}

const ANYTHING: AccessRequest = { method: "GET", path: "/", authority: "", fields: [], claims: null };

function requestOf({ method, path, headers }: NonNullable<AccessQuestion["request"]>): AccessRequest {
  const named = headers.map(([name, value]) => [name.toLowerCase(), latin1OfUtf8(value)] as const);
  const authority = named.find(([name]) => name === "host" || name === ":authority")?.[1] ?? "";
  return {
    method,
    path: latin1OfUtf8(path),
    authority,
    fields: named.filter(([name]) => name !== ":authority").flat(),
    claims: null,
  };
}

function decisionOf(view: MeshView, access: AccessPolicy, subject: AccessSubject): ExplainedDecision {
  const { verdict, by, reason, would } = decideAccess(access, subject);
  return {
    verdict,
    rule: ruleText(by),
    from: originOfRule(view, by),
    reason,
    would:
      would === null
        ? null
        : { verdict: would.verdict, rule: ruleText(would.by), from: originOfRule(view, would.by) },
  };
}

function ruleOf(
  view: MeshView,
  access: AccessPolicy,
  rule: AccessRule,
  subject: AccessSubject | null,
): ExplainedAccessRule {
  const route = rule.route === null ? null : (access.routes[rule.route] ?? null);
  const of = route === null ? "" : `, of ${ruleText(route.source)}`;
  return {
    action: rule.action,
    stage: rule.stage,
    rule: ruleText(rule.source),
    from: originOfRule(view, rule.source),
    requests: `${requestsText(rule.requests)}${of}`.replace(/^, /, ""),
    holds: subject === null ? null : ruleHolds(access, rule, subject),
  };
}

/** The line of an object's rule, by the name or number that its source has. */
export function originOfRule(view: MeshView, source: PolicySource): Origin {
  const object = view.policy.objectOf(source)?.object as
    | { readonly spec?: { readonly rules?: readonly { readonly name?: string }[] } }
    | undefined;
  const rules = object?.spec?.rules;
  if (rules === undefined || source.section === "") return originOf(view.policy, source);
  const named = rules.findIndex(({ name }) => name === source.section);
  const at = named === -1 ? Number(source.section) : named;
  return originOf(view.policy, source, Number.isInteger(at) ? ["spec", "rules", at] : []);
}
