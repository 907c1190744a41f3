import type { Endpoint } from "#/model/endpoint.ts";

/**
 * Where an endpoint is, seen from a client in `zone` ("" where that is not known): what the control plane says, by the label
 * `zone_locality`, or else by comparing the label `zone`.
 */
export function localityOf({ labels }: Endpoint, zone: string): "local" | "remote" | "unknown" {
  const said = labels["zone_locality"];
  if (said === "local" || said === "remote") return said;
  const own = labels["zone"] ?? "";
  if (own === "" || zone === "") return "unknown";
  return own === zone ? "local" : "remote";
}
