/** Asks what its argument says (JSON: a list of `Ask`), as an application of the pod, eight at a time; prints the answers. */
import http from "node:http";
import net from "node:net";
import tls from "node:tls";
import type { Ask, Heard } from "../client.ts";
import { failed, hostAndPort, parsed } from "./answer.ts";

const TIMEOUT_MS = 10_000;
const AT_ONCE = 8;

async function askHttp({ to, method = "GET", path = "/", headers = {} }: Ask): Promise<Heard> {
  const [host, port] = hostAndPort(to, 80);
  return await new Promise((resolve) => {
    const request = http.request(
      { host, port, method, path, agent: false, headers: { ...headers } },
      (response) => {
        let body = "";
        response.setEncoding("utf8").on("data", (text: string) => (body += text));
        response.on("error", (error) => resolve(failed(error)));
        response.on("end", () => {
          const answered = Object.fromEntries(
            Object.entries(response.headers).map(([name, value]) => [name, String(value)]),
          );
          resolve({
            status: response.statusCode ?? 0,
            headers: answered,
            seen: parsed(body),
            body,
            error: "",
          });
        });
      },
    );
    request.setTimeout(TIMEOUT_MS, () => request.destroy(new Error("timeout")));
    request.on("error", (error) => resolve(failed(error)));
    request.end();
  });
}

/** Loaded for those who ask so: it takes longer than the question. */
async function askGrpc(ask: Ask): Promise<Heard> {
  const { call } = await import("./grpc-call.ts");
  return await call(ask, TIMEOUT_MS);
}

async function askTls({ to, serverName = "echo", path = "/" }: Ask): Promise<Heard> {
  const [host, port] = hostAndPort(to, 443);
  return await new Promise((resolve) => {
    const socket = tls.connect({ host, port, servername: serverName, rejectUnauthorized: false }, () => {
      socket.write(`GET ${path} HTTP/1.1\r\nhost: ${serverName}\r\nconnection: close\r\n\r\n`);
    });
    let text = "";
    socket.setTimeout(TIMEOUT_MS, () => socket.destroy(new Error("timeout")));
    socket.setEncoding("utf8").on("data", (more: string) => (text += more));
    socket.on("error", (error) => resolve(failed(error)));
    socket.on("end", () => {
      const body = /\{.*\}/s.exec(text)?.[0] ?? "";
      resolve({ status: Number(text.split(" ")[1] ?? 0), headers: {}, seen: parsed(body), body, error: "" });
    });
  });
}

/** The server names itself first. */
async function askTcp({ to }: Ask): Promise<Heard> {
  const [host, port] = hostAndPort(to, 9090);
  return await new Promise((resolve) => {
    const socket = net.connect({ host, port });
    socket.setTimeout(TIMEOUT_MS, () => socket.destroy(new Error("timeout")));
    socket.on("error", (error) => resolve(failed(error)));
    socket.on("close", () => resolve(failed("closed without a word")));
    socket.setEncoding("utf8").on("data", (text: string) => {
      const pod = text.trim();
      resolve({
        status: 200,
        headers: {},
        seen: { pod, method: "", path: "", host: "", headers: {} },
        body: text,
        error: "",
      });
      socket.destroy();
    });
  });
}

const ASKERS = { http: askHttp, grpc: askGrpc, tls: askTls, tcp: askTcp } as const;

const asks = JSON.parse(process.argv[2]!) as Ask[];
const heard: Heard[] = [];
let next = 0;
await Promise.all(
  Array.from({ length: AT_ONCE }, async () => {
    while (next < asks.length) {
      const i = next++;
      heard[i] = await ASKERS[asks[i]!.protocol ?? "http"](asks[i]!);
    }
  }),
);
process.stdout.write(JSON.stringify(heard));
