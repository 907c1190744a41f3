import type { MessageInitShape } from "@bufbuild/protobuf";
import type { GrpcRouteMatchSchema } from "#/gen/linkerd/grpc_route_pb.ts";
import type {
  HeaderMatchSchema,
  HttpRouteMatchSchema,
  QueryParamMatchSchema,
} from "#/gen/linkerd/http_route_pb.ts";
import type { HttpMethodSchema } from "#/gen/linkerd/http_types_pb.ts";
import { HttpMethod_Registered } from "#/gen/linkerd/http_types_pb.ts";
import type { FieldMatch, HostMatch, HttpMatch, PathMatch } from "#/model/route.ts";

const UTF8 = new TextEncoder();

/** Also of server names: `tls_route.SniMatch` is built alike. */
export function wireHost({ kind, host }: HostMatch): {
  readonly match:
    | { readonly case: "exact"; readonly value: string }
    | { readonly case: "suffix"; readonly value: { reverseLabels: string[] } };
} {
  return {
    match:
      kind === "exact"
        ? { case: "exact", value: host }
        : { case: "suffix", value: { reverseLabels: host.split(".").toReversed() } },
  };
}

export function wireMatch(match: HttpMatch): MessageInitShape<typeof HttpRouteMatchSchema> {
  const { path, headers, query, method } = match;
  return {
    ...(path === null ? {} : wirePath(path)),
    headers: headers.map(wireHeader),
    queryParams: query.map(wireQuery),
    ...(method === null ? {} : { method: wireMethod(method) }),
  };
}

/** A match of a rule whose matches are all `isRpcMatch`. */
export function wireRpcMatch({ path, headers }: HttpMatch): MessageInitShape<typeof GrpcRouteMatchSchema> {
  return {
    ...(path?.kind === "rpc" ? { rpc: { service: path.service, method: path.method } } : {}),
    headers: headers.map(wireHeader),
  };
}

/** Whether `grpc_route.GrpcRouteMatch` can hold it. */
export function isRpcMatch({ path, query, method }: HttpMatch): boolean {
  return (path === null || path.kind === "rpc") && query.length === 0 && method === null;
}

/** A gRPC method is the path "/package.Service/Method"; the sidecars that know `rpc` order it by its own rules. */
function wirePath(path: PathMatch): Pick<MessageInitShape<typeof HttpRouteMatchSchema>, "path" | "rpc"> {
  const { kind, value } = wirePlainPath(path);
  const plain = { kind: { case: kind, value } };
  return path.kind === "rpc"
    ? { path: plain, rpc: { service: path.service, method: path.method } }
    : { path: plain };
}

/** A path as every proxy knows it. */
export function wirePlainPath(path: PathMatch): Exclude<PathMatch, { kind: "rpc" }> {
  if (path.kind !== "rpc") return path;
  const { service, method } = path;
  if (service === "" && method === "") return { kind: "prefix", value: "/" };
  if (service === "") return { kind: "regex", value: `/[^/]*/${escape(method)}` };
  return method === ""
    ? { kind: "prefix", value: `/${service}` }
    : { kind: "exact", value: `/${service}/${method}` };
}

function escape(text: string): string {
  return text.replace(/[\\^$.|?*+()[\]{}]/g, (mark) => `\\${mark}`);
}

export function wireHeader({ name, value }: FieldMatch): MessageInitShape<typeof HeaderMatchSchema> {
  return {
    name,
    value:
      value.kind === "exact"
        ? { case: "exact", value: UTF8.encode(value.value) }
        : { case: "regex", value: value.value },
  };
}

export function wireQuery({ name, value }: FieldMatch): MessageInitShape<typeof QueryParamMatchSchema> {
  return { name, value: { case: value.kind, value: value.value } };
}

function wireMethod(method: string): MessageInitShape<typeof HttpMethodSchema> {
  return {
    type: Object.hasOwn(HttpMethod_Registered, method)
      ? {
          case: "registered",
          value: HttpMethod_Registered[method as keyof typeof HttpMethod_Registered],
        }
      : { case: "unregistered", value: method },
  };
}
