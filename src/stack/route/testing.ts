import type { Fields } from "#/base/fields.ts";
import type { PolicySource } from "#/model/policy.ts";
import type {
  Backend,
  FieldMatch,
  HostMatch,
  HttpFilter,
  HttpMatch,
  HttpRoute,
  HttpRule,
  RouteBackend,
} from "#/model/route.ts";
import type { RequestHead } from "../http/exchange.ts";

export function sourceNamed(name: string, kind: string = "HTTPRoute"): PolicySource {
  return { group: "gateway.networking.k8s.io", kind, namespace: "shop", name, section: "", port: 0 };
}

/** "/a" exact, "/a*" a prefix, "~/a.*" a regular expression, "rpc svc/method". */
export function matchOf(
  path: string | null,
  more: { method?: string; headers?: Record<string, string>; query?: Record<string, string> } = {},
): HttpMatch {
  const fields = (of: Record<string, string> = {}): FieldMatch[] =>
    Object.entries(of).map(([name, value]) => ({
      name,
      value: value.startsWith("~") ? { kind: "regex", value: value.slice(1) } : { kind: "exact", value },
    }));
  return {
    path: path === null ? null : pathMatchOf(path),
    headers: fields(more.headers),
    query: fields(more.query),
    method: more.method ?? null,
  };
}

function pathMatchOf(path: string): HttpMatch["path"] {
  if (path.startsWith("rpc ")) {
    const [service = "", method = ""] = path.slice(4).split("/");
    return { kind: "rpc", service, method };
  }
  if (path.startsWith("~")) return { kind: "regex", value: path.slice(1) };
  if (path.endsWith("*")) return { kind: "prefix", value: path.slice(0, -1) };
  return { kind: "exact", value: path };
}

export function hostOfText(text: string): HostMatch {
  return text.startsWith("*.") ? { kind: "suffix", host: text.slice(2) } : { kind: "exact", host: text };
}

export function balancerTo(name: string): Backend {
  return {
    kind: "balancer",
    source: sourceNamed(name, "Service"),
    path: `${name}.shop.svc.cluster.local:80`,
    defaultRttMs: 30,
    decayMs: 10_000,
    traffic: null,
  };
}

export function backendOf(
  backend: Backend,
  weight: number = 1,
  filters: readonly HttpFilter[] = [],
): RouteBackend {
  return { weight, backend, filters, attemptTimeoutMs: null };
}

/** A rule to one backend called `to`, or to those given. */
export function ruleTo(
  to: string | readonly RouteBackend[],
  matches: readonly HttpMatch[] = [],
  filters: readonly HttpFilter[] = [],
): HttpRule {
  return {
    name: "",
    matches,
    filters,
    choice: "random",
    backends: typeof to === "string" ? [backendOf(balancerTo(to))] : to,
    timeouts: { requestMs: null, attemptMs: null, responseMs: null, idleMs: null },
    retry: null,
    allowsRequestHeaders: false,
  };
}

export function routeOf(
  name: string,
  rules: readonly HttpRule[],
  more: { hosts?: readonly string[]; kind?: string } = {},
): HttpRoute {
  return { source: sourceNamed(name, more.kind), hosts: (more.hosts ?? []).map(hostOfText), rules };
}

export function headOf(
  path: string,
  more: Partial<Omit<RequestHead, "path" | "fields">> & { fields?: Fields } = {},
): RequestHead {
  return {
    method: "GET",
    scheme: "http",
    authority: "web.shop",
    path,
    version: "1.1",
    absoluteForm: false,
    upgrade: null,
    fields: ["Host", more.authority ?? "web.shop"],
    ...more,
  };
}

/** A gRPC call of "service/method". */
export function callOf(method: string, fields: Fields = []): RequestHead {
  return headOf(`/${method}`, {
    method: "POST",
    version: "2",
    fields: ["content-type", "application/grpc", ...fields],
  });
}
