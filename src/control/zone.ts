/** The label that Kubernetes gives to nodes, and from them to pods. */
const ZONE_LABEL = "topology.kubernetes.io/zone";

/** The zone that a pod with these labels runs in; "" where they say none. */
export function zoneOf(labels: Readonly<Record<string, string>>): string {
  return labels[ZONE_LABEL] ?? "";
}
