import type {
  HeaderFilter,
  MirrorFilter,
  PathModifier,
  RouteFilter,
  ValueMatch,
} from "#/kube/policy-objects.ts";
import type { Backend, FieldMatch, HeaderChange, HttpFilter, PathChange, Ratio } from "#/model/route.ts";
import type { Finding } from "./conditions.ts";

/** gRPC's UNKNOWN goes with HTTP's 500; -1 says that HTTP is meant. */
const HTTP_ERROR = { status: 500, grpcStatus: -1 } as const;

/**
 * A route's filters in the model's terms, in their order. A filter that is not honoured must not be skipped (Gateway API):
 * its rule answers with an error instead, and `unsupported` tells of it.
 */
export function filtersOf(
  filters: readonly RouteFilter[] | undefined,
  path: readonly (string | number)[],
  mirrorTo: (mirror: MirrorFilter, path: readonly (string | number)[]) => Backend | null,
  unsupported: Finding[],
): readonly HttpFilter[] {
  const out: HttpFilter[] = [];
  for (const [i, filter] of (filters ?? []).entries()) {
    const at = [...path, "filters", i];
    switch (filter.type) {
      case "RequestHeaderModifier":
        out.push({ kind: "request-headers", change: headerChange(filter.requestHeaderModifier!) });
        break;
      case "ResponseHeaderModifier":
        out.push({ kind: "response-headers", change: headerChange(filter.responseHeaderModifier!) });
        break;
      case "RequestMirror": {
        const mirror = filter.requestMirror!;
        const backend = mirrorTo(mirror, [...at, "requestMirror", "backendRef"]);
        if (backend !== null) out.push({ kind: "mirror", backend, ratio: ratioOf(mirror) });
        break;
      }
      case "RequestRedirect": {
        const { scheme, hostname, path: change, port, statusCode } = filter.requestRedirect!;
        out.push({
          kind: "redirect",
          scheme: scheme ?? null,
          host: hostname ?? null,
          path: pathChange(change),
          port: port ?? null,
          status: statusCode,
        });
        break;
      }
      case "URLRewrite": {
        const { hostname, path: change } = filter.urlRewrite!;
        out.push({ kind: "rewrite", host: hostname ?? null, path: pathChange(change) });
        break;
      }
      case "CORS": {
        const cors = filter.cors!;
        out.push({
          kind: "cors",
          cors: {
            allowOrigins: cors.allowOrigins ?? [],
            allowMethods: cors.allowMethods ?? [],
            allowHeaders: cors.allowHeaders ?? [],
            exposeHeaders: cors.exposeHeaders ?? [],
            allowCredentials: cors.allowCredentials ?? false,
            maxAgeSeconds: cors.maxAge,
          },
        });
        break;
      }
      case "ExtensionRef":
      case "ExternalAuth": {
        const message = `a filter of type ${filter.type} is not honoured, so its requests are answered with 500; remove the filter`;
        unsupported.push({ reason: "UnsupportedValue", message, path: [...at, "type"] });
        out.push({ kind: "fail", ...HTTP_ERROR, message, ratio: { numerator: 1, denominator: 1 } });
        break;
      }
    }
  }
  return out;
}

export function fieldMatches(matches: readonly ValueMatch[] | undefined, isHeader: boolean): FieldMatch[] {
  const seen = new Set<string>();
  const out: FieldMatch[] = [];
  for (const { name, value, type } of matches ?? []) {
    const key = isHeader ? name.toLowerCase() : name;
    // Gateway API: of entries with equivalent names only the first counts.
    if (seen.has(key)) continue;
    seen.add(key);
    out.push({ name: key, value: { kind: type === "RegularExpression" ? "regex" : "exact", value } });
  }
  return out;
}

/** A `percent` or a `fraction`; all without either. */
export function ratioOf(spec: {
  readonly percent?: number;
  readonly fraction?: { readonly numerator: number; readonly denominator?: number };
}): Ratio {
  if (spec.percent !== undefined) return { numerator: spec.percent, denominator: 100 };
  if (spec.fraction !== undefined)
    return { numerator: spec.fraction.numerator, denominator: spec.fraction.denominator ?? 100 };
  return { numerator: 1, denominator: 1 };
}

function headerChange(filter: HeaderFilter): HeaderChange {
  const pairs = (list: HeaderFilter["set"]): [string, string][] =>
    (list ?? []).map(({ name, value }) => [name, value]);
  return { add: pairs(filter.add), set: pairs(filter.set), remove: filter.remove ?? [] };
}

function pathChange(path: PathModifier | undefined): PathChange | null {
  if (path === undefined) return null;
  return path.type === "ReplaceFullPath"
    ? { kind: "full", value: path.replaceFullPath! }
    : { kind: "prefix", value: path.replacePrefixMatch! };
}
