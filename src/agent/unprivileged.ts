import http from "node:http";
import type { PodTrafficReport } from "#/model/operator-protocol.ts";

/** What a mesh in an unprivileged user namespace does not give, and one started by root does. */
export const NOT_KEPT: readonly string[] = [
  "users: all parts run as you; a program that breaks out of its pod could read the keys of all sidecars",
  "interception: by nftables, not eBPF; a program that takes its sidecar's address or ports goes round it",
  "telemetry: no counts by the kernel, only what sidecars report",
  "limits: resources.limits (cpu, memory) are read and not enforced",
  "network: pods reach each other and nothing else, neither the internet nor this machine; hostPort publishes nothing",
  "users in pods: runAsUser is what a program sees itself as; files belong to you, fsGroup changes nothing",
];

const PAGE_TIMEOUT_MS = 2_000;
const PAGE_BYTES_MAX = 4 * 1024 * 1024;

/** Every sidecar's metrics as text; one that does not answer in time is left out. */
export async function readPages(
  reports: readonly PodTrafficReport[],
): Promise<{ podUid: string; text: string }[]> {
  const pages = await Promise.all(
    reports.map(async ({ podUid, metricsUrl }) => ({ podUid, text: await read(metricsUrl) })),
  );
  return pages.filter((page) => page.text !== "");
}

/** What a sidecar's admin port says of a Service's endpoints; "" where it says nothing. */
export async function readEndpoints(
  metricsUrl: string,
  backend: string,
  headers: readonly (readonly [name: string, value: string])[],
): Promise<string> {
  if (metricsUrl === "") return "";
  const url = new URL("/endpoints", metricsUrl);
  url.searchParams.set("backend", backend);
  for (const [name, value] of headers) url.searchParams.append("header", `${name}:${value}`);
  return await read(url.href);
}

/** Who calls what, as the sidecars have seen it: JSON of each that answers in time (`FlowPage`). */
export async function readFlows(
  reports: readonly PodTrafficReport[],
): Promise<{ podUid: string; text: string }[]> {
  const pages: { podUid: string; text: string }[] = [];
  // One after the other: each from the same few ports.
  for (const { podUid, metricsUrl } of reports) {
    if (metricsUrl === "") continue;
    const text = await readPrivileged(new URL("/flows", metricsUrl).href);
    if (text !== "") pages.push({ podUid, text });
  }
  return pages;
}

/** A sidecar shows flows to root on the machine: to who calls from a port that only root has. One that is taken is passed over. */
async function readPrivileged(url: string): Promise<string> {
  for (let port = PRIVILEGED_PORT_MAX; port > PRIVILEGED_PORT_MAX - PRIVILEGED_TRIES; port--) {
    try {
      return await read(url, port);
    } catch (error) {
      if (!PORT_TAKEN.has((error as NodeJS.ErrnoException).code ?? "")) return "";
    }
  }
  return "";
}

const PRIVILEGED_PORT_MAX = 1023;
const PRIVILEGED_TRIES = 200;
const PORT_TAKEN: ReadonlySet<string> = new Set(["EADDRINUSE", "EADDRNOTAVAIL"]);

/** "" where there is no answer. Throws only where `localPort` is given and cannot be had. */
function read(url: string, localPort?: number): Promise<string> {
  if (url === "") return Promise.resolve("");
  return new Promise((resolve, reject) => {
    const from = localPort === undefined ? {} : { localPort };
    const request = http.get(url, { agent: false, timeout: PAGE_TIMEOUT_MS, ...from });
    request.on("timeout", () => request.destroy(new Error("timeout")));
    request.on("error", (error: NodeJS.ErrnoException) => {
      if (localPort !== undefined && PORT_TAKEN.has(error.code ?? "")) reject(error);
      else resolve("");
    });
    request.on("response", (response) => {
      if (response.statusCode !== 200) {
        request.destroy();
        resolve("");
        return;
      }
      let text = "";
      response.setEncoding("utf8");
      response.on("data", (chunk: string) => {
        text += chunk;
        if (text.length > PAGE_BYTES_MAX) request.destroy(new Error("too long"));
      });
      response.on("error", () => resolve(""));
      response.on("end", () => resolve(text));
    });
  });
}
