import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { readyByOutput, readyByPort } from "../subjects/subject.ts";
import { LOAD_CORE } from "./load.ts";
import { PORTS, type Namespaces } from "./namespaces.ts";

/** What is answered at `/`, `/0`, `/64k` and `/10m`. */
const BODY_BYTES = { "/64k": 64 * 1024, "/10m": 10 * 1024 * 1024 };

/**
 * The applications behind every subject, in the `server` namespace: nginx answering from memory by HTTP/1.1 and by HTTP/2, and
 * two small programs that send gRPC messages and plain bytes back.
 */
export async function startApps(world: Namespaces, folder: string): Promise<void> {
  const file = join(folder, `${world.name("server")}.conf`);
  const limits = "keepalive_requests 1000000000; keepalive_timeout 3600; http2_max_concurrent_streams 4096;";
  const temporary = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"].map(
    (kind) => `${kind}_temp_path ${folder};`,
  );
  for (const [path, bytes] of Object.entries(BODY_BYTES))
    writeFileSync(join(folder, path.slice(1)), Buffer.alloc(bytes, "x"));
  const { http1, http2 } = PORTS;
  const listen = [http1.pod, http1.bare].map((port) => `listen ${port} backlog=4096;`);
  listen.push(...[http2.pod, http2.bare].map((port) => `listen ${port} http2 backlog=4096;`));
  writeFileSync(
    file,
    `daemon off; master_process off; pid ${file}.pid; error_log ${file}.log;
events { worker_connections 8192; }
http { access_log off; sendfile on; ${limits} ${temporary.join(" ")}
  server { ${listen.join(" ")} root ${folder}; default_type text/plain;
    location = /64k {} location = /10m {}
    location = /0 { return 200 ""; }
    location / { return 200 "${"x".repeat(1024)}"; } } }`,
  );
  world.start("server", ["nginx", "-c", file], { core: LOAD_CORE });
  await readyByPort(world, "server", http1.bare);
  for (const speech of ["grpc", "tcp"] as const) {
    const program = join(import.meta.dirname, `../apps/${speech}.ts`);
    for (const port of [PORTS[speech].pod, PORTS[speech].bare]) {
      const child = world.start("server", [process.execPath, program, String(port)], { core: LOAD_CORE });
      await readyByOutput(child, `the ${speech} application`);
    }
  }
}
