import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { PROXY_CORE } from "../lib/load.ts";
import { APP_BARE_PORT, SERVER, type Namespaces } from "../lib/namespaces.ts";
import { existsInPath } from "../lib/programs.ts";
import { end, readyByPort, type StartSubject, type Subject } from "./subject.ts";

/** No proxy: what load generator and application can do by themselves. */
export const startDirect: StartSubject = ({ world }) =>
  Promise.resolve({
    name: "no proxy",
    world,
    url: new URL(`http://${SERVER}:${APP_BARE_PORT}/`),
    processes: [],
    stop: () => Promise.resolve(),
  });

/** nginx as one plain hop in the client's namespace: no TLS, no policy. */
export const startNginx: StartSubject = async ({ world, folder }) => {
  if (!existsInPath("nginx")) return { skipped: "nginx is not installed" };
  const file = join(folder, "nginx-hop.conf");
  writeFileSync(
    file,
    `daemon off; master_process off; pid ${folder}/nginx-hop.pid; error_log ${folder}/nginx-hop.log;
events { worker_connections 8192; }
http {
  access_log off; keepalive_requests 1000000000; client_body_temp_path ${folder}; proxy_temp_path ${folder};
  fastcgi_temp_path ${folder}; uwsgi_temp_path ${folder}; scgi_temp_path ${folder};
  upstream app { server ${SERVER}:${APP_BARE_PORT}; keepalive 1024; keepalive_requests 1000000000; }
  server { listen 127.0.0.1:9001; location / { proxy_pass http://app; proxy_http_version 1.1; proxy_set_header Connection ""; } }
}`,
  );
  const child = world.start("client", ["nginx", "-c", file], { core: PROXY_CORE });
  return hop(
    world,
    "nginx, one plain hop",
    9001,
    child.pid ?? 0,
    await readyByPort(world, "client", 9001),
    () => end(child),
  );
};

/** HAProxy as one plain hop with one thread. */
export const startHaproxy: StartSubject = async ({ world, folder }) => {
  if (!existsInPath("haproxy")) return { skipped: "haproxy is not installed" };
  const file = join(folder, "haproxy.cfg");
  writeFileSync(
    file,
    `global
  nbthread 1
  maxconn 8000
defaults
  mode http
  timeout connect 5s
  timeout client 60s
  timeout server 60s
  http-reuse always
frontend front
  bind 127.0.0.1:9002
  default_backend app
backend app
  server app ${SERVER}:${APP_BARE_PORT}
`,
  );
  const child = world.start("client", ["haproxy", "-f", file, "-db"], { core: PROXY_CORE });
  return hop(
    world,
    "HAProxy, one plain hop",
    9002,
    child.pid ?? 0,
    await readyByPort(world, "client", 9002),
    () => end(child),
  );
};

function hop(
  world: Namespaces,
  name: string,
  port: number,
  pid: number,
  readyMs: number,
  stop: () => Promise<void>,
): Subject {
  return {
    name,
    world,
    url: new URL(`http://127.0.0.1:${port}/`),
    processes: [{ role: "hop", pid, readyMs }],
    stop,
  };
}
