import type { IpAddress } from "#/base/address.ts";
import type { MeshView, ViewEndpoint, ViewPod, ViewService, ViewServicePort } from "../services/mesh-view.ts";
import { contains, parseNetwork } from "../services/virtual-ips.ts";

/** What an address or a name means in this mesh. */
export type Target =
  | { readonly kind: "service"; readonly service: ViewService; readonly port: ViewServicePort }
  /** A Service is there and has no such TCP port. */
  | { readonly kind: "undefined-port"; readonly service: ViewService; readonly port: number }
  | { readonly kind: "pod"; readonly pod: ViewPod; readonly ip: IpAddress; readonly port: number }
  /** An address of the mesh's own networks that nobody has: of a Service or pod that is gone. */
  | { readonly kind: "nobody"; readonly ip: IpAddress; readonly port: number }
  | { readonly kind: "outside"; readonly ip: IpAddress; readonly port: number };

export function targetOfAddress(view: MeshView, ip: IpAddress, port: number): Target {
  const service = view.servicesByIp.get(ip);
  if (service !== undefined) return targetOfService(service, port);
  const pod = view.podsByIp.get(ip);
  if (pod !== undefined) return { kind: "pod", pod, ip, port };
  const isOurs = [view.node.serviceCidr, view.node.podCidr].some((cidr) => {
    const network = parseNetwork(cidr);
    return network !== null && contains(network, ip);
  });
  return isOurs && ip !== view.node.gatewayIp ? { kind: "nobody", ip, port } : { kind: "outside", ip, port };
}

export function targetOfService(service: ViewService, port: number): Target {
  const found = service.ports.find((one) => one.port === port);
  return found === undefined
    ? { kind: "undefined-port", service, port }
    : { kind: "service", service, port: found };
}

/** A name inside the mesh: of a Service, or of one pod behind a headless one. */
export type NameMeaning =
  | {
      readonly kind: "service";
      readonly service: ViewService;
      readonly endpoints: (port: ViewServicePort) => readonly ViewEndpoint[];
    }
  /** Of the form of a Service's name, and there is none. */
  | { readonly kind: "missing"; readonly name: string; readonly namespace: string }
  /** No name of this mesh. */
  | { readonly kind: "foreign" };

/** `web.shop.svc.cluster.local`, also with a trailing dot, and `db-0.db.shop.svc.cluster.local`. */
export function meaningOfName(view: MeshView, host: string): NameMeaning {
  const suffix = `.svc.${view.node.clusterDomain}`;
  const name = host.toLowerCase().replace(/\.$/, "");
  if (!name.endsWith(suffix)) return { kind: "foreign" };
  const labels = name.slice(0, -suffix.length).split(".");
  if (labels.length < 2 || labels.length > 3 || labels.includes("")) return { kind: "foreign" };
  const [serviceName, namespace] = labels.slice(-2) as [string, string];
  const hostname = labels.length === 3 ? labels[0]! : null;
  const service = view.servicesByName.get(`${namespace}/${serviceName}`);
  if (service === undefined) return { kind: "missing", name: serviceName, namespace };
  return {
    kind: "service",
    service,
    endpoints: (port) =>
      hostname === null
        ? port.endpoints
        : port.endpoints.filter((endpoint) => endpoint.hostname === hostname),
  };
}

/** `name:port` or `ip:port` as the API's `path` and `authority` carry them; null when it is neither. */
export function parseAuthority(text: string): { host: string; port: number } | null {
  const match = /^(?:\[([0-9a-fA-F:.]+)\]|([^:[\]]+)):(\d{1,5})$/.exec(text);
  const port = Number(match?.[3]);
  if (match === null || port < 1 || port > 65535) return null;
  return { host: (match[1] ?? match[2])!, port };
}
