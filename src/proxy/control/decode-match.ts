import type { FieldMatch, HostMatch, HttpMatch, PathMatch, StringMatch } from "#/model/route.ts";
import type { ProtoReader } from "#/wire/proto.ts";

/** `http_route.HostMatch`, and `tls_route.SniMatch`, which is built alike. */
export function decodeHost(reader: ProtoReader): HostMatch {
  let host: HostMatch | null = null;
  while (reader.next()) {
    if (reader.field === 1) host = { kind: "exact", host: reader.text().toLowerCase() };
    else if (reader.field === 2) {
      const labels: string[] = [];
      const suffix = reader.part();
      while (suffix.next()) if (suffix.field === 1) labels.push(suffix.text());
      host = { kind: "suffix", host: labels.toReversed().join(".").toLowerCase() };
    }
  }
  // Left out it would match every host.
  if (host === null) reader.reject("a host match of no known kind");
  return host ?? { kind: "exact", host: "" };
}

/** `http_route.HttpRouteMatch`. Whatever it says that is not understood makes the policy one that cannot be followed. */
export function decodeHttpMatch(reader: ProtoReader): HttpMatch {
  let path: PathMatch | null = null;
  let rpc: PathMatch | null = null;
  let method: string | null = null;
  const headers: FieldMatch[] = [];
  const query: FieldMatch[] = [];
  while (reader.next()) {
    if (reader.field === 1) path = decodePath(reader.part());
    else if (reader.field === 2) headers.push(decodeHeader(reader.part()));
    else if (reader.field === 3) query.push(decodeField(reader.part()));
    else if (reader.field === 4) method = decodeMethod(reader.part());
    else if (reader.field === 10_000) rpc = decodeRpc(reader.part());
  }
  return { path: rpc ?? path, headers, query, method };
}

/** `grpc_route.GrpcRouteMatch`. */
export function decodeRpcMatch(reader: ProtoReader): HttpMatch {
  let path: PathMatch | null = null;
  const headers: FieldMatch[] = [];
  while (reader.next()) {
    if (reader.field === 1) path = decodeRpc(reader.part());
    else if (reader.field === 2) headers.push(decodeHeader(reader.part()));
  }
  return { path, headers, query: [], method: null };
}

export function decodeHeader(reader: ProtoReader): FieldMatch {
  const { name, value } = decodeField(reader);
  return { name: name.toLowerCase(), value };
}

/** `HeaderMatch` and `QueryParamMatch`. */
export function decodeField(reader: ProtoReader): FieldMatch {
  let name = "";
  let value: StringMatch | null = null;
  while (reader.next()) {
    if (reader.field === 1) name = reader.text();
    else if (reader.field === 2) value = { kind: "exact", value: reader.text() };
    else if (reader.field === 3) value = { kind: "regex", value: reader.text() };
  }
  if (value === null) reader.reject("a match of no known kind");
  return { name, value: value ?? { kind: "exact", value: "" } };
}

export function decodePath(reader: ProtoReader): PathMatch | null {
  let path: PathMatch | null = null;
  while (reader.next()) {
    if (reader.field === 1) path = { kind: "exact", value: reader.text() };
    else if (reader.field === 2) path = { kind: "prefix", value: reader.text() };
    else if (reader.field === 3) path = { kind: "regex", value: reader.text() };
  }
  if (path === null) reader.reject("a path match of no known kind");
  return path;
}

export function decodeRpc(reader: ProtoReader): PathMatch {
  let service = "";
  let method = "";
  while (reader.next()) {
    if (reader.field === 1) service = reader.text();
    else if (reader.field === 2) method = reader.text();
  }
  return { kind: "rpc", service, method };
}

/** `http_types.HttpMethod.Registered`, by number. */
const METHODS = ["GET", "POST", "PUT", "DELETE", "PATCH", "OPTIONS", "CONNECT", "HEAD", "TRACE"] as const;

function decodeMethod(reader: ProtoReader): string | null {
  let method: string | undefined;
  while (reader.next()) {
    if (reader.field === 1) method = METHODS[reader.uint()];
    else if (reader.field === 2) method = reader.text();
  }
  if (method === undefined) reader.reject("a method of no known kind");
  return method ?? null;
}
