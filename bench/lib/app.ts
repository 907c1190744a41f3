import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { readyByPort } from "../subjects/subject.ts";
import { LOAD_CORE } from "./load.ts";
import { APP_BARE_PORT, APP_PORT, type Namespaces } from "./namespaces.ts";

/** The application behind every subject: nginx answering 1 KiB from memory, HTTP/1.1, in the `server` namespace. */
export async function startApp(world: Namespaces, folder: string): Promise<void> {
  const file = join(folder, `${world.name("server")}.conf`);
  const limits = "keepalive_requests 1000000000; keepalive_timeout 3600;";
  const temporary = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"].map(
    (kind) => `${kind}_temp_path ${folder};`,
  );
  writeFileSync(
    file,
    `daemon off; master_process off; pid ${file}.pid; error_log ${file}.log;
events { worker_connections 8192; }
http { access_log off; ${limits} ${temporary.join(" ")}
  server { listen ${APP_PORT} backlog=4096; listen ${APP_BARE_PORT} backlog=4096;
    location / { default_type text/plain; return 200 "${"x".repeat(1024)}"; } } }`,
  );
  world.start("server", ["nginx", "-c", file], { core: LOAD_CORE });
  await readyByPort(world, "server", APP_BARE_PORT);
}
