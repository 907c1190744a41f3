import type { ExplainQuestion } from "#/model/explanation.ts";
import type { MeshView, ViewPod, ViewService, ViewServicePort } from "../services/mesh-view.ts";

/** The pod that a question's client means, or why there is none. Of a workload any pod will do; one that is ready first. */
export function resolveClient(
  view: MeshView,
  { client, namespace }: Pick<ExplainQuestion, "client" | "namespace">,
): ViewPod | string {
  const slash = client.indexOf("/");
  const name = client.slice(slash + 1);
  const kind = slash === -1 ? null : client.slice(0, slash).toLowerCase();
  const pods = [...view.podsByName.values()].filter(
    (pod) => namespace === null || pod.namespace === namespace,
  );
  const isWorkload = ({ workload }: ViewPod): boolean =>
    workload?.name === name && (kind === null || kind === workload.kind || SHORT[kind] === workload.kind);
  const exact =
    kind === null || kind === "pod" || kind === "po" ? pods.filter((pod) => pod.name === name) : [];
  const found = exact.length > 0 ? exact : pods.filter(isWorkload);
  const namespaces = [...new Set(found.map((pod) => pod.namespace))];
  if (namespaces.length > 1)
    return `"${client}" is in several namespaces (${namespaces.join(", ")}); say which with -n`;
  const known = [...new Set(pods.map(clientName))].toSorted().slice(0, 8).join(", ");
  return (
    found.find((pod) => pod.isReady && !pod.isLeaving) ??
    found[0] ??
    `there is no workload "${client}"${namespace === null ? "" : ` in namespace ${namespace}`}; there ${known === "" ? "is none" : `are: ${known}`}`
  );
}

const SHORT: Readonly<Record<string, string>> = {
  deploy: "deployment",
  sts: "statefulset",
  ds: "daemonset",
};

/** `deployment/web`, `pod/one`. */
export function clientName({ name, workload }: ViewPod): string {
  return workload === null ? `pod/${name}` : `${workload.kind}/${workload.name}`;
}

/** The Service of a name, as a program of `from` would reach it: without a namespace it is its own. `port` null: none is said. */
export function resolveServiceName(
  view: MeshView,
  from: string,
  text: string,
): { service: ViewService; port: number | null } | string {
  const match = /^([^:/]+)(?::(\d{1,5}))?$/.exec(text);
  if (match === null) return `"${text}" is no service; write NAME, NAME.NAMESPACE or NAME:PORT`;
  const suffix = `.svc.${view.node.clusterDomain}`;
  const host = match[1]!.toLowerCase().replace(/\.$/, "");
  const [name = "", namespace = from, rest] = (
    host.endsWith(suffix) ? host.slice(0, -suffix.length) : host.replace(/\.svc$/, "")
  ).split(".");
  const service = rest === undefined ? view.servicesByName.get(`${namespace}/${name}`) : undefined;
  if (service === undefined)
    return `there is no Service ${namespace}/${name}; check the name and the namespace (NAME.NAMESPACE)`;
  return { service, port: match[2] === undefined ? null : Number(match[2]) };
}

/** The port of a Service that a question means. */
export function resolveService(
  view: MeshView,
  from: string,
  text: string,
): { service: ViewService; port: ViewServicePort } | string {
  const named = resolveServiceName(view, from, text);
  if (typeof named === "string") return named;
  const { service, port: wanted } = named;
  const { ports, name, namespace } = service;
  const port =
    wanted === null
      ? (ports.find((each) => each.port === 80) ?? (ports.length === 1 ? ports[0] : undefined))
      : ports.find((each) => each.port === wanted);
  if (port !== undefined) return { service, port };
  const listed = ports.map((each) => each.port).join(", ") || "none";
  return wanted === null
    ? `Service ${namespace}/${name} has several ports; say which, as ${name}:PORT (${listed})`
    : `Service ${namespace}/${name} has no TCP port ${wanted}; it has ${listed}`;
}
