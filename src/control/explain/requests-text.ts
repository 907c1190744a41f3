import type { RequestCondition } from "#/model/access.ts";
import type { FieldMatch, HostMatch, PathMatch } from "#/model/route.ts";

/** Conditions of a rule, for people: `GET, HEAD of /orders or below; POST of exactly /orders`. "" for everything. */
export function requestsText(requests: readonly RequestCondition[] | null): string {
  if (requests === null) return "";
  return requests.length === 0 ? "nothing" : requests.map(conditionText).join("; ");
}

function conditionText({ methods, paths, hosts, headers, query, claims }: RequestCondition): string {
  const all = [
    methods === null ? "" : methods.join(", "),
    paths === null ? "" : `of ${paths.map(pathText).join(", ")}`,
    hosts === null ? "" : `for ${hosts.map(hostText).join(", ")}`,
    ...headers.map((field) => `with header ${fieldText(field)}`),
    ...query.map((field) => `with query ${fieldText(field)}`),
    ...claims.map(({ claim, values }) => `with claim ${claim} = ${values.join(" or ")}`),
  ].filter((part) => part !== "");
  return all.length === 0 ? "any request" : all.join(" ");
}

function pathText(path: PathMatch): string {
  switch (path.kind) {
    case "exact":
      return path.value;
    case "prefix":
      return path.value === "/" ? "any path" : `${path.value} and below`;
    case "regex":
      return `~${path.value}`;
    case "rpc":
      return `gRPC ${path.service === "" ? "*" : path.service}/${path.method === "" ? "*" : path.method}`;
  }
}

function hostText({ kind, host }: HostMatch): string {
  return kind === "suffix" ? `*.${host}` : host;
}

function fieldText({ name, value }: FieldMatch): string {
  return `${name}${value.kind === "exact" ? "=" : "~"}${value.value}`;
}
