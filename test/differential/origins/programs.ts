import { mkdirSync, utimesSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { bodyOf, PORTS } from "../case.ts";

/** How an origin is started inside the server's namespace. */
export interface Program {
  readonly command: readonly string[];
  /** It says on stdout when it listens; else its port is tried. */
  readonly says: boolean;
}

const HERE = import.meta.dirname;

/** Writes what the servers need into `folder`, and says how each is started. */
export function programs(folder: string, goBinary: string): Readonly<Record<string, Program>> {
  const files = join(folder, "origin/files");
  mkdirSync(files, { recursive: true });
  for (const bytes of [0, 1, 5000, 70_000]) {
    const file = join(files, String(bytes));
    writeFileSync(file, bodyOf(1, bytes));
    // Apache calls the tag of a file weak that may still change within its second.
    utimesSync(file, 1_700_000_000, 1_700_000_000);
  }
  const configuration = (name: string, text: string): string => {
    const path = join(folder, name);
    writeFileSync(path, text);
    return path;
  };
  const node = [process.execPath, "--disable-warning=ExperimentalWarning"];
  return {
    node: { command: [...node, join(HERE, "node.ts"), String(PORTS.node)], says: true },
    bytes: { command: [...node, join(HERE, "bytes.ts"), String(PORTS.bytes)], says: true },
    python: { command: ["/usr/bin/python3", join(HERE, "python.py"), String(PORTS.python)], says: true },
    go: { command: [goBinary, String(PORTS.go)], says: true },
    nginx: {
      command: ["nginx", "-e", "stderr", "-c", configuration("nginx.conf", nginx(folder))],
      says: false,
    },
    apache: {
      command: ["apache2", "-D", "FOREGROUND", "-f", configuration("apache.conf", apache(folder))],
      says: false,
    },
    haproxy: { command: ["haproxy", "-db", "-f", configuration("haproxy.conf", haproxy())], says: false },
  };
}

/** What Apache was sent is in this file, every field of it, in a form of its own (mod_log_forensic). */
export function forensicLog(folder: string): string {
  return join(folder, "forensic.log");
}

const nginx = (folder: string): string => `
daemon off; user root; error_log stderr crit; pid ${folder}/nginx.pid; worker_processes 1;
events { worker_connections 1024; }
http {
  access_log off; keepalive_timeout 60; server_tokens off; client_max_body_size 10m;
  client_body_temp_path ${folder}/nginx-body; proxy_temp_path ${folder}/nginx-proxy;
  fastcgi_temp_path ${folder}/nginx-fastcgi; uwsgi_temp_path ${folder}/nginx-uwsgi; scgi_temp_path ${folder}/nginx-scgi;
  server {
    listen ${PORTS.nginx} backlog=1024;
    root ${folder}/origin;
    location / { return 200 "$request\\n$http_host $http_x_camelcase $http_x_twice $http_cookie $http_x_empty $http_x_latin $http_x_long\\n$args $http_content_length"; }
    location /files/ { }
  }
}
`;

const apache = (folder: string): string => {
  const modules = "mpm_event authz_core reflector dir log_forensic mime headers".split(" ");
  return `
${modules.map((name) => `LoadModule ${name}_module /usr/lib/apache2/modules/mod_${name}.so`).join("\n")}
ServerRoot ${folder}
PidFile ${folder}/apache.pid
ErrorLog ${folder}/apache-error.log
ForensicLog ${forensicLog(folder)}
Listen ${PORTS.apache}
ServerName origin.test
ServerTokens Prod
User www-data
Group www-data
TypesConfig /dev/null
DocumentRoot ${folder}/origin
KeepAliveTimeout 60
MaxKeepAliveRequests 0
TraceEnable on
<Location /echo>
  SetHandler reflector
  # The second of the request.
  Header unset Last-Modified
</Location>
`;
};

/** What HAProxy leaves out of its answer, because it is not compared. */
const NOT_TOLD = [
  ...["l5d-client-id", "X-Run", "X-Hop", "Keep-Alive", "TE", "Upgrade", "HTTP2-Settings"],
  ...["Connection", "Transfer-Encoding"],
];

const haproxy = (): string => `
global
  log stderr format raw local0 emerg
defaults
  mode http
  timeout client 60s
  timeout server 60s
  timeout connect 5s
  timeout http-keep-alive 60s
frontend itself
  bind 0.0.0.0:${PORTS.haproxy} backlog 1024
  option http-buffer-request
${NOT_TOLD.map((name) => `  http-request del-header ${name}`).join("\n")}
  http-request return status 200 content-type text/plain lf-string "%[method] %[url] %[req.ver]\\n%[req.hdrs]"
frontend before-node
  bind 0.0.0.0:${PORTS["haproxy-node"]} backlog 1024
  default_backend node
backend node
  server node 127.0.0.1:${PORTS.node}
`;
