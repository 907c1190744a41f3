import { call, offer, VIRTUAL_IP, type SoakCase, type Stage } from "../soak-case.ts";

const PROGRAM = "connections.ts";
const HTTP_PORT = 8111;
const BYTES_PORT = 8112;
const IDLE_HTTP = 10_000;
/** Each takes two descriptors in either sidecar, and 20,000 are all that some machines give a process. */
const IDLE_BYTES = 9_900;
const SHORT_HTTP = 90_000;
const SHORT_BYTES = 10_000;

export const idle: SoakCase = {
  name: "idle",
  what: `${IDLE_HTTP} idle HTTP/1 connections`,
  seconds: 40,
  idleConnections: IDLE_HTTP,
  prepare: (stage) => hold(stage, "http", HTTP_PORT, IDLE_HTTP),
  run: wait,
  prove: (stage) => prove(stage, "http", IDLE_HTTP),
};

export const idleOpaque: SoakCase = {
  name: "idle-opaque",
  what: `${IDLE_BYTES} idle opaque connections, streams of few TLS connections`,
  seconds: 40,
  idleConnections: IDLE_BYTES,
  prepare: (stage) => hold(stage, "bytes", BYTES_PORT, IDLE_BYTES),
  run: wait,
  prove: (stage) => prove(stage, "bytes", IDLE_BYTES),
};

export const short: SoakCase = {
  name: "short",
  what: `${SHORT_HTTP} short HTTP/1 connections and ${SHORT_BYTES} opaque ones`,
  // As long as they take.
  seconds: 0,
  prepare: serve,
  async run({ client }) {
    const failed = await Promise.all([
      call<number>(client, PROGRAM, "churn", VIRTUAL_IP, HTTP_PORT, SHORT_HTTP, 48, "http"),
      call<number>(client, PROGRAM, "churn", VIRTUAL_IP, BYTES_PORT, SHORT_BYTES, 8, "bytes"),
    ]);
    if (failed.some((count) => count > 0))
      throw new Error(`${failed.join(" and ")} connections were not answered`);
    return `${SHORT_HTTP + SHORT_BYTES} answered`;
  },
};

async function serve(stage: Stage): Promise<void> {
  await call(stage.server, PROGRAM, "serveHttp", HTTP_PORT);
  await call(stage.server, PROGRAM, "serveEcho", BYTES_PORT);
  await offer(stage, { [HTTP_PORT]: "detect", [BYTES_PORT]: "opaque" });
}

async function hold(stage: Stage, says: "http" | "bytes", port: number, count: number): Promise<void> {
  await serve(stage);
  await call(stage.client, PROGRAM, "hold", VIRTUAL_IP, port, count, says);
}

/** Nothing happens … */
async function wait({ seconds }: Stage): Promise<string> {
  await new Promise((resolve) => setTimeout(resolve, seconds * 1000));
  return "held";
}

/** … and afterwards every connection must still answer. */
async function prove({ client }: Stage, says: "http" | "bytes", count: number): Promise<void> {
  const alive = await call<number>(client, PROGRAM, "proveHeld", says);
  if (alive !== count) throw new Error(`${alive} of ${count} connections still answered`);
}
