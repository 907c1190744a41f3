import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { PROXY_CORE } from "../lib/load.ts";
import { PORTS, SERVER, type Speech } from "../lib/namespaces.ts";
import { existsInPath } from "../lib/programs.ts";
import { end, readyByPort, type StartSubject } from "./subject.ts";

/** No proxy: what load generator and application can do by themselves. */
export const startDirect: StartSubject = ({ world }) =>
  Promise.resolve({
    name: "no proxy",
    world,
    places: Object.fromEntries(
      Object.entries(PORTS).map(([speech, { bare }]) => [speech as Speech, `${SERVER}:${bare}`]),
    ),
    processes: [],
    stop: () => Promise.resolve(),
  });

/** nginx as one plain hop in the client's namespace: no TLS, no policy. It speaks HTTP/2 to clients only, and no plain TCP as Debian packs it. */
export const startNginx: StartSubject = async ({ world, folder }) => {
  if (!existsInPath("nginx")) return { skipped: "nginx is not installed" };
  const file = join(folder, "nginx-hop.conf");
  const forward = `proxy_pass http://app; proxy_http_version 1.1; proxy_set_header Connection "";`;
  writeFileSync(
    file,
    `daemon off; master_process off; pid ${folder}/nginx-hop.pid; error_log ${folder}/nginx-hop.log;
events { worker_connections 8192; }
http {
  access_log off; keepalive_requests 1000000000; client_body_temp_path ${folder}; proxy_temp_path ${folder};
  fastcgi_temp_path ${folder}; uwsgi_temp_path ${folder}; scgi_temp_path ${folder}; http2_max_concurrent_streams 4096;
  upstream app { server ${SERVER}:${PORTS.http1.bare}; keepalive 1024; keepalive_requests 1000000000; }
  upstream calls { server ${SERVER}:${PORTS.grpc.bare}; keepalive 1024; keepalive_requests 1000000000; }
  server { listen 127.0.0.1:9001; location / { ${forward} } }
  server { listen 127.0.0.1:9011 http2; location / { ${forward} } }
  server { listen 127.0.0.1:9021 http2; location / { grpc_pass grpc://calls; } }
}`,
  );
  const child = world.start("client", ["nginx", "-c", file], { core: PROXY_CORE });
  return {
    name: "nginx, one plain hop",
    world,
    places: { http1: "127.0.0.1:9001", http2: "127.0.0.1:9011", grpc: "127.0.0.1:9021" },
    processes: [{ role: "hop", pid: child.pid ?? 0, readyMs: await readyByPort(world, "client", 9001) }],
    stop: () => end(child),
  };
};

/** HAProxy as one plain hop with one thread. */
export const startHaproxy: StartSubject = async ({ world, folder }) => {
  if (!existsInPath("haproxy")) return { skipped: "haproxy is not installed" };
  const file = join(folder, "haproxy.cfg");
  const hop = (name: string, port: number, bind: string, server: string, more = ""): string =>
    `frontend ${name}\n  bind 127.0.0.1:${port}${bind}${more}\n  default_backend ${name}-app\n` +
    `backend ${name}-app\n  server app ${server}${more}\n`;
  writeFileSync(
    file,
    `global
  nbthread 1
  maxconn 8000
  tune.h2.max-concurrent-streams 4096
defaults
  mode http
  timeout connect 5s
  timeout client 60s
  timeout server 60s
  http-reuse always
${hop("http1", 9002, "", `${SERVER}:${PORTS.http1.bare}`)}
${hop("http2", 9012, " proto h2", `${SERVER}:${PORTS.http2.bare} proto h2`)}
${hop("grpc", 9022, " proto h2", `${SERVER}:${PORTS.grpc.bare} proto h2`)}
${hop("tcp", 9032, "", `${SERVER}:${PORTS.tcp.bare}`, "\n  mode tcp")}`,
  );
  const child = world.start("client", ["haproxy", "-f", file, "-db"], { core: PROXY_CORE });
  return {
    name: "HAProxy, one plain hop",
    world,
    places: {
      http1: "127.0.0.1:9002",
      http2: "127.0.0.1:9012",
      grpc: "127.0.0.1:9022",
      tcp: "127.0.0.1:9032",
    },
    processes: [{ role: "hop", pid: child.pid ?? 0, readyMs: await readyByPort(world, "client", 9002) }],
    stop: () => end(child),
  };
};
