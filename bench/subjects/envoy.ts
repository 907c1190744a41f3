import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { PROXY_CORE } from "../lib/load.ts";
import { endpointAddress, PORTS, SERVER, type Speech } from "../lib/namespaces.ts";
import type { MeshKnown } from "../lib/mesh-size.ts";
import { makeCertificates, MESH_ALPN, SERVER_NAME } from "../runtime/certs.ts";
import { end, readyByPort, type StartSubject } from "./subject.ts";

/** Where the client's side listens, and where the server's side takes mutual TLS. */
const HOPS: Readonly<Record<Speech, { readonly client: number; readonly mesh: number }>> = {
  http1: { client: 9004, mesh: 8444 },
  http2: { client: 9014, mesh: 8454 },
  grpc: { client: 9024, mesh: 8464 },
  tcp: { client: 9034, mesh: 8474 },
};
/** Of the client's side, for HTTP/1. */
export const ENVOY_PORT: number = HOPS.http1.client;
export const ENVOY_FLAGS: readonly string[] = [
  "--concurrency",
  "1",
  "--log-level",
  "error",
  "--disable-hot-restart",
];
const SPEECHES = Object.keys(HOPS) as Speech[];

/**
 * A pair of Envoys doing what a sidecar pair does: HTTP in, HTTP/2 over mutual TLS 1.3 between them on one connection, and out as it came
 * in; plain bytes over a connection of mutual TLS each. One worker each, no access log, default statistics. Needs the path of a binary.
 */
export const startEnvoy =
  (binary: string | undefined): StartSubject =>
  async ({ world, folder }) => {
    if (binary === undefined) return { skipped: "no --envoy PATH was given" };
    const certificates = join(folder, "envoy");
    makeCertificates(certificates);
    const read = (name: string): string => readFileSync(join(certificates, name), "utf8");
    const start = (side: "client" | "server", config: string) => {
      const file = join(folder, `envoy-${side}.json`);
      writeFileSync(file, config);
      return world.start(side, [binary, "-c", file, ...ENVOY_FLAGS], { core: PROXY_CORE });
    };
    const server = start("server", serverConfig(certificates));
    const serverReadyMs = await readyByPort(world, "server", HOPS.http1.mesh, SERVER);
    const client = start("client", clientConfig(certificates));
    const clientReadyMs = await readyByPort(world, "client", HOPS.http1.client);
    return {
      name: "Envoy pair, mTLS",
      world,
      places: Object.fromEntries(SPEECHES.map((speech) => [speech, `127.0.0.1:${HOPS[speech].client}`])),
      peer: {
        host: SERVER,
        port: HOPS.http2.mesh,
        serverName: SERVER_NAME,
        alpn: ["h2"],
        certificatesPem: read("client.pem"),
        keyPem: read("client.key"),
        trustAnchorsPem: read("root.pem"),
      },
      processes: [
        { role: "client", pid: client.pid ?? 0, readyMs: clientReadyMs },
        { role: "server", pid: server.pid ?? 0, readyMs: serverReadyMs },
      ],
      stop: async () => {
        await end(client);
        await end(server);
      },
    };
  };

const HTTP_OPTIONS = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions";
const type = (name: string) => `type.googleapis.com/${name}`;

function tlsContext(certificates: string, leaf: string, alpn: readonly string[]): object {
  const file = (name: string) => ({ filename: join(certificates, name) });
  return {
    alpn_protocols: alpn,
    tls_params: { tls_minimum_protocol_version: "TLSv1_3", tls_maximum_protocol_version: "TLSv1_3" },
    tls_certificates: [{ certificate_chain: file(`${leaf}.pem`), private_key: file(`${leaf}.key`) }],
    validation_context: { trusted_ca: file("root.pem") },
  };
}

function listener(
  address: string,
  port: number,
  speech: Speech,
  codec: "HTTP1" | "HTTP2",
  transport: object,
  routes?: readonly (readonly [prefix: string, cluster: string])[],
): object {
  const filter = speech === "tcp" ? tcpProxy() : httpManager(speech, codec, routes);
  return {
    name: `${speech}-${port}`,
    address: { socket_address: { address, port_value: port } },
    filter_chains: [{ filters: [filter], ...transport }],
  };
}

function tcpProxy(): object {
  return {
    name: "envoy.filters.network.tcp_proxy",
    typed_config: {
      "@type": type("envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy"),
      stat_prefix: "tcp",
      cluster: "tcp",
    },
  };
}

function httpManager(
  speech: Speech,
  codec: "HTTP1" | "HTTP2",
  routes: readonly (readonly [prefix: string, cluster: string])[] = [["/", speech]],
): object {
  const router = {
    name: "envoy.filters.http.router",
    typed_config: { "@type": type("envoy.extensions.filters.http.router.v3.Router") },
  };
  // Streams of gRPC go on as long as the run.
  const table = routes.map(([prefix, to]) => ({ match: { prefix }, route: { cluster: to, timeout: "0s" } }));
  const manager = {
    "@type": type("envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager"),
    stat_prefix: speech,
    codec_type: codec,
    route_config: { virtual_hosts: [{ name: "all", domains: ["*"], routes: table }] },
    http_filters: [router],
  };
  return { name: "envoy.filters.network.http_connection_manager", typed_config: manager };
}

function cluster(name: string, port: number, endpoints: number, more: object): object {
  const all = Array.from({ length: endpoints }, (_, number) => ({
    endpoint: { address: { socket_address: { address: endpointAddress(number), port_value: port } } },
  }));
  const assignment = { cluster_name: name, endpoints: [{ lb_endpoints: all }] };
  return { name, type: "STATIC", connect_timeout: "1s", load_assignment: assignment, ...LIMITS, ...more };
}

/** No circuit breaking below what the load asks for. */
const LIMITS = {
  circuit_breakers: {
    thresholds: [{ max_connections: 8192, max_pending_requests: 8192, max_requests: 8192 }],
  },
};

const HTTP2 = {
  typed_extension_protocol_options: {
    [HTTP_OPTIONS]: {
      "@type": type(HTTP_OPTIONS),
      explicit_http_config: { http2_protocol_options: {} },
    },
  },
};

const alpnOf = (speech: Speech): string[] => (speech === "tcp" ? ["bench-tcp"] : [MESH_ALPN, "h2"]);

/**
 * `firstPort`: of four, where it listens. `known`: a mesh of some size for HTTP/1, each Service a cluster behind a prefix; one that
 * leads to the server if not given.
 */
export function clientConfig(
  certificates: string,
  { firstPort, known }: { readonly firstPort?: number; readonly known?: MeshKnown } = {},
): string {
  const services = known?.services ?? 1;
  const nameOf = (speech: Speech, number: number): string =>
    number === 0 ? speech : `${speech}-service-${number}`;
  const further: (readonly [string, string])[] = [
    ...Array.from({ length: known?.routes ?? 0 }, (_, n) => [`/route-${n}/`, "http1"] as const),
    ...Array.from(
      { length: services - 1 },
      (_, n) => [`/service-${n + 1}/`, nameOf("http1", n + 1)] as const,
    ),
    ["/", "http1"],
  ];
  const listeners = SPEECHES.map((speech, i) =>
    listener(
      "127.0.0.1",
      firstPort === undefined ? HOPS[speech].client : firstPort + i,
      speech,
      speech === "http1" ? "HTTP1" : "HTTP2",
      {},
      speech === "http1" ? further : undefined,
    ),
  );
  const clusters = SPEECHES.flatMap((speech) => {
    const tls = {
      "@type": type("envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext"),
      sni: SERVER_NAME,
      common_tls_context: tlsContext(certificates, "client", alpnOf(speech)),
    };
    const more = {
      transport_socket: { name: "envoy.transport_sockets.tls", typed_config: tls },
      ...(speech === "tcp" ? {} : HTTP2),
    };
    return Array.from({ length: services }, (_, number) =>
      cluster(nameOf(speech, number), HOPS[speech].mesh, known?.endpoints ?? 1, more),
    );
  });
  return config(listeners, clusters);
}

export function serverConfig(certificates: string): string {
  const listeners = SPEECHES.map((speech) => {
    const tls = {
      "@type": type("envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext"),
      require_client_certificate: true,
      common_tls_context: tlsContext(certificates, "server", alpnOf(speech)),
    };
    const transport = { transport_socket: { name: "envoy.transport_sockets.tls", typed_config: tls } };
    return listener("0.0.0.0", HOPS[speech].mesh, speech, "HTTP2", transport);
  });
  const clusters = SPEECHES.map((speech) =>
    cluster(speech, PORTS[speech].bare, 1, speech === "http2" || speech === "grpc" ? HTTP2 : {}),
  );
  return config(listeners, clusters);
}

function config(listeners: readonly object[], clusters: readonly object[]): string {
  return JSON.stringify({ static_resources: { listeners, clusters } });
}
