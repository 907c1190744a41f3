/**
 * The control plane of the bench: Pillion's own answers, certificates and gRPC server over a mesh that is written down
 * here (one Service, one pod behind it, one client) instead of read from a folder and an agent. One process in each
 * namespace, plaintext on loopback; both share the certificate authority in STATE-FOLDER.
 *
 *   control.ts STATE-FOLDER client|server     prints one line of JSON, `WorldSettings`, when it listens
 */
import { createServer, type AddressInfo } from "node:net";
import type { IpAddress } from "#/base/address.ts";
import { Authority } from "#/control/identity/authority.ts";
import { Tokens } from "#/control/identity/tokens.ts";
import { destinationMethods } from "#/control/rpc/destination.ts";
import { identityMethods } from "#/control/rpc/identity.ts";
import { NO_POLICY } from "#/control/policy/compile.ts";
import { LiveView } from "#/control/rpc/live-view.ts";
import { policyMethods } from "#/control/rpc/policy.ts";
import { RpcServer } from "#/control/rpc/server.ts";
import type { MeshView, ViewPod } from "#/control/services/mesh-view.ts";
import { StateFolder } from "#/control/state-folder.ts";
import { dnsName, type Identity } from "#/model/identity.ts";
import { SystemClock } from "#/net/clock.ts";
import { JsonLog } from "#/net/log.ts";
import { CLIENT, HUB, PORTS, SERVER, SERVICE, type Speech } from "../lib/namespaces.ts";

export interface WorldSettings {
  controlPort: number;
  token: string;
  trustAnchorsPem: string;
  localName: string;
}

const TRUST_DOMAIN = "bench.local";
const [folder = "", role = ""] = process.argv.slice(2);

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
const service = {
  name: "app",
  namespace: "bench",
  clusterIp: SERVICE,
  isHeadless: false,
  externalName: null,
  ports: Object.entries(PORTS).map(([speech, { service: port, pod: target }]) => ({
    name: speech,
    port,
    protocol: PROTOCOLS[speech as Speech],
    endpoints: [{ ip: SERVER, port: target, hostname: null, pod: pods[1] }],
  })),
};
const view = {
  node: {
    name: "bench",
    instance: "bench",
    gatewayIp: HUB,
    podCidr: "10.99.0.0/24",
    serviceCidr: "10.98.0.0/24",
    controlPort: 0,
    intercept: "nftables",
    clusterDomain: "cluster.local",
    trustDomain: TRUST_DOMAIN,
  },
  podsByIp: new Map(pods.map((p) => [p.ip, p])),
  podsByName: new Map(pods.map((p) => [`${p.namespace}/${p.name}`, p])),
  servicesByIp: new Map([[service.clusterIp, service]]),
  servicesByName: new Map([["bench/app", service]]),
  policy: NO_POLICY,
} as unknown as MeshView;

const clock = new SystemClock();
const log = new JsonLog("warn", () => clock.wallMs());
const authority = await Authority.open(new StateFolder(folder), TRUST_DOMAIN, () => Date.now());
const tokens = new Tokens(() => Date.now());
const live = new LiveView();
live.publish(view);
const methods = new Map([
  ...identityMethods(authority, tokens, () => true, log),
  ...destinationMethods(live),
  ...policyMethods(live),
]);
const rpc = new RpcServer({ methods, clock, log });
const server = createServer((socket) =>
  rpc.serve(socket, { caller: null, isTrusted: true, peer: socket.remoteAddress ?? "" }),
);
server.listen(0, "127.0.0.1", () => {
  const identity: Identity = { trustDomain: TRUST_DOMAIN, namespace: "bench", serviceAccount: role };
  const settings: WorldSettings = {
    controlPort: (server.address() as AddressInfo).port,
    token: tokens.give({ podUid: role, identity, form: "dns+spiffe" }),
    trustAnchorsPem: authority.trustAnchorsPem,
    localName: dnsName(identity),
  };
  process.stdout.write(`${JSON.stringify(settings)}\n`);
});
