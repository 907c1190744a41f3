import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { PROXY_CORE } from "../lib/load.ts";
import { APP_BARE_PORT, SERVER } from "../lib/namespaces.ts";
import { makeCertificates, MESH_ALPN, SERVER_NAME } from "../runtime/certs.ts";
import { end, readyByPort, type StartSubject } from "./subject.ts";

const MESH_PORT = 8444;
const CLIENT_PORT = 9004;

/**
 * A pair of Envoys doing what a sidecar pair does: HTTP/1.1 in, HTTP/2 over mutual TLS 1.3 between them on one
 * connection, HTTP/1.1 out; one worker each, no access log, default statistics. Needs the path of a binary.
 */
export const startEnvoy =
  (binary: string | undefined): StartSubject =>
  async ({ world, folder }) => {
    if (binary === undefined) return { skipped: "no --envoy PATH was given" };
    const certificates = join(folder, "envoy");
    makeCertificates(certificates);
    const start = (side: "client" | "server", config: string) => {
      const file = join(folder, `envoy-${side}.json`);
      writeFileSync(file, config);
      const quiet = ["--concurrency", "1", "--log-level", "error", "--disable-hot-restart"];
      return world.start(side, [binary, "-c", file, ...quiet], { core: PROXY_CORE });
    };
    const server = start("server", serverConfig(certificates));
    const serverReadyMs = await readyByPort(world, "server", MESH_PORT, SERVER);
    const client = start("client", clientConfig(certificates));
    const clientReadyMs = await readyByPort(world, "client", CLIENT_PORT);
    return {
      name: "Envoy pair, mTLS",
      world,
      url: new URL(`http://127.0.0.1:${CLIENT_PORT}/`),
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

function tlsContext(certificates: string, leaf: string): object {
  const file = (name: string) => ({ filename: join(certificates, name) });
  return {
    alpn_protocols: [MESH_ALPN, "h2"],
    tls_params: { tls_minimum_protocol_version: "TLSv1_3", tls_maximum_protocol_version: "TLSv1_3" },
    tls_certificates: [{ certificate_chain: file(`${leaf}.pem`), private_key: file(`${leaf}.key`) }],
    validation_context: { trusted_ca: file("root.pem") },
  };
}

function listener(address: string, port: number, codec: "HTTP1" | "HTTP2", transport: object): object {
  const router = {
    name: "envoy.filters.http.router",
    typed_config: { "@type": type("envoy.extensions.filters.http.router.v3.Router") },
  };
  const manager = {
    "@type": type("envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager"),
    stat_prefix: "bench",
    codec_type: codec,
    route_config: {
      virtual_hosts: [
        { name: "all", domains: ["*"], routes: [{ match: { prefix: "/" }, route: { cluster: "next" } }] },
      ],
    },
    http_filters: [router],
  };
  const filters = [{ name: "envoy.filters.network.http_connection_manager", typed_config: manager }];
  return {
    address: { socket_address: { address, port_value: port } },
    filter_chains: [{ filters, ...transport }],
  };
}

function cluster(address: string, port: number, more: object): object {
  const endpoint = { address: { socket_address: { address, port_value: port } } };
  const assignment = { cluster_name: "next", endpoints: [{ lb_endpoints: [{ endpoint }] }] };
  return { name: "next", type: "STATIC", connect_timeout: "1s", load_assignment: assignment, ...more };
}

/** No circuit breaking below what the load asks for. */
const LIMITS = {
  circuit_breakers: {
    thresholds: [{ max_connections: 8192, max_pending_requests: 8192, max_requests: 8192 }],
  },
};

function clientConfig(certificates: string): string {
  const tls = {
    "@type": type("envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext"),
    sni: SERVER_NAME,
    common_tls_context: tlsContext(certificates, "client"),
  };
  const http2 = { "@type": type(HTTP_OPTIONS), explicit_http_config: { http2_protocol_options: {} } };
  return config(
    listener("127.0.0.1", CLIENT_PORT, "HTTP1", {}),
    cluster(SERVER, MESH_PORT, {
      ...LIMITS,
      transport_socket: { name: "envoy.transport_sockets.tls", typed_config: tls },
      typed_extension_protocol_options: { [HTTP_OPTIONS]: http2 },
    }),
  );
}

function serverConfig(certificates: string): string {
  const tls = {
    "@type": type("envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext"),
    require_client_certificate: true,
    common_tls_context: tlsContext(certificates, "server"),
  };
  const transport = { transport_socket: { name: "envoy.transport_sockets.tls", typed_config: tls } };
  return config(listener(SERVER, MESH_PORT, "HTTP2", transport), cluster(SERVER, APP_BARE_PORT, LIMITS));
}

function config(one: object, next: object): string {
  return JSON.stringify({ static_resources: { listeners: [one], clusters: [next] } });
}
