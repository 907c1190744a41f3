/**
 * The control plane of the bench: a small one (`small-control.ts`) over a mesh of one Service or many, one pod behind it and one client.
 * One process in each namespace, plaintext on loopback; both share the certificate authority in STATE-FOLDER.
 *
 *   control.ts STATE-FOLDER client|server [MESH-SIZE-AS-JSON]     prints one line of JSON, `WorldSettings`, when it listens
 */
import { generateKeyPairSync } from "node:crypto";
import type { IpAddress } from "#/base/address.ts";
import type { SanForm } from "#/control/identity/authority.ts";
import { derToPem } from "#/control/identity/certificates.ts";
import { NO_POLICY } from "#/control/policy/compile.ts";
import type { MeshView, ViewPod } from "#/control/services/mesh-view.ts";
import { dnsName, type Identity } from "#/model/identity.ts";
import { backendOf, balancerTo, matchOf, routeOf, ruleTo } from "#/stack/route/testing.ts";
import {
  CLIENT,
  endpointAddress,
  HUB,
  POD_CIDR,
  PORTS,
  SERVER,
  SERVICE_CIDR,
  serviceAddress,
  type Speech,
} from "../lib/namespaces.ts";
import { startSmallControl } from "./small-control.ts";

export interface WorldSettings {
  controlPort: number;
  /** Single-use, one for each sidecar that was asked for. */
  tokens: string[];
  trustAnchorsPem: string;
  localName: string;
  /** A certificate of the client's identity for whoever dials sidecars by itself. */
  peer: { certificatesPem: string; keyPem: string };
  serverName: string;
}

/** What there is in the mesh. All Services lead to the one server; further endpoints are addresses of the same. */
export interface MeshSize {
  services: number;
  /** Of each Service. */
  endpoints: number;
  /** HTTP routes by a prefix each, of the first Service's HTTP/1 port. */
  routes: number;
  /** Tokens that are needed. */
  sidecars: number;
  form: SanForm;
}

const TRUST_DOMAIN = "bench.local";
const CLUSTER_DOMAIN = "cluster.local";
const [folder = "", role = "", sizeText = "{}"] = process.argv.slice(2);
const size: MeshSize = {
  services: 1,
  endpoints: 1,
  routes: 0,
  sidecars: 1,
  form: "dns+spiffe",
  ...(JSON.parse(sizeText) as Partial<MeshSize>),
};

function pod(name: "client" | "server", ip: IpAddress): ViewPod {
  return {
    uid: name,
    name,
    namespace: "bench",
    labels: {},
    ip,
    identity: { trustDomain: TRUST_DOMAIN, namespace: "bench", serviceAccount: name },
    workload: { kind: "deployment", name },
    templateHash: "0",
    isMeshed: true,
    isReady: true,
    isLeaving: false,
    hostname: name,
    subdomain: null,
    opaquePorts: [{ from: PORTS.tcp.pod, to: PORTS.tcp.pod }],
    skipInboundPorts: [],
    inboundDefault: null,
    ports:
      name === "server"
        ? Object.entries(PORTS).map(([speech, { pod: port }]) => ({ name: speech, port }))
        : [],
    probes: [],
    grpcProbePorts: [],
    tcpProbePorts: [],
    protocols: new Map([
      [PORTS.http2.pod, "http2"],
      [PORTS.grpc.pod, "grpc"],
    ]),
  };
}

const pods = [pod("client", CLIENT as IpAddress), pod("server", SERVER as IpAddress)] as const;
/** HTTP/1.1 has to be found out, as with most Services. */
const PROTOCOLS = { http1: "detect", http2: "http2", grpc: "grpc", tcp: "opaque" } as const;
const services = Array.from({ length: size.services }, (_, number) => ({
  name: `app-${number}`,
  namespace: "bench",
  clusterIp: serviceAddress(number),
  isHeadless: false,
  externalName: null,
  ports: Object.entries(PORTS).map(([speech, { service: port, pod: target }]) => ({
    name: speech,
    port,
    protocol: PROTOCOLS[speech as Speech],
    endpoints: Array.from({ length: size.endpoints }, (__, endpoint) => ({
      ip: endpointAddress(endpoint),
      port: target,
      hostname: null,
      pod: pods[1],
    })),
  })),
}));
const backend = {
  ...balancerTo("app-0"),
  path: `app-0.bench.svc.${CLUSTER_DOMAIN}:${PORTS.http1.service}`,
};
const routes = Array.from({ length: size.routes }, (_, number) =>
  routeOf(`route-${number}`, [ruleTo([backendOf(backend)], [matchOf(`/route-${number}/*`)])]),
);
const routed = { producer: new Map([[PORTS.http1.service, { kind: "http", http: routes, tcp: [] }]]) };
const view = {
  node: {
    name: "bench",
    instance: "bench",
    gatewayIp: HUB,
    podCidr: POD_CIDR,
    serviceCidr: SERVICE_CIDR,
    controlPort: 0,
    intercept: "nftables",
    clusterDomain: CLUSTER_DOMAIN,
    trustDomain: TRUST_DOMAIN,
  },
  podsByIp: new Map(pods.map((p) => [p.ip, p])),
  podsByName: new Map(pods.map((p) => [`${p.namespace}/${p.name}`, p])),
  servicesByIp: new Map(services.map((service) => [service.clusterIp, service])),
  servicesByName: new Map(services.map((service) => [`bench/${service.name}`, service])),
  policy:
    routes.length === 0
      ? NO_POLICY
      : {
          ...NO_POLICY,
          services: new Map([["bench/app-0", { ...routed, consumers: new Map(), defaults: null }]]),
        },
} as unknown as MeshView;

const { authority, port, tokenFor } = await startSmallControl(folder, view);
const identityOf = (serviceAccount: string): Identity => ({
  trustDomain: TRUST_DOMAIN,
  namespace: "bench",
  serviceAccount,
});
const keys = generateKeyPairSync("ec", { namedCurve: "P-256" });
const publicKey = await crypto.subtle.importKey(
  "spki",
  new Uint8Array(keys.publicKey.export({ type: "spki", format: "der" })),
  { name: "ECDSA", namedCurve: "P-256" },
  true,
  ["verify"],
);
const leaf = await authority.issue(identityOf("client"), publicKey, size.form);
const identity = identityOf(role);
const settings: WorldSettings = {
  controlPort: port,
  tokens: Array.from({ length: size.sidecars }, () => tokenFor(role, identity, size.form)),
  trustAnchorsPem: authority.trustAnchorsPem,
  localName: dnsName(identity),
  peer: {
    certificatesPem: [leaf.der, ...leaf.intermediates].map((der) => derToPem(der)).join(""),
    keyPem: keys.privateKey.export({ type: "pkcs8", format: "pem" }) as string,
  },
  serverName: dnsName(identityOf("server")),
};
process.stdout.write(`${JSON.stringify(settings)}\n`);
