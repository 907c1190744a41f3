import { readFileSync } from "node:fs";
import { kindSchema } from "./language.ts";
import type { Schema } from "./language.ts";

interface Crd {
  readonly group: string;
  readonly kind: string;
  readonly versions: readonly string[];
  readonly schema: Schema & { readonly properties: { readonly spec: Schema } };
}

/** In the order in which messages list them. */
const FILES = [
  "httproute",
  "grpcroute",
  "tlsroute",
  "tcproute",
  "referencegrant",
  "xbackend",
  "xbackendtrafficpolicy",
];

/** Linkerd's own HTTPRoute is an older state of the same kind. */
const LINKERD_HTTP_ROUTE = ["v1alpha1", "v1beta1", "v1beta2", "v1beta3"].map(
  (version) => `policy.linkerd.io/${version}`,
);

/** Kinds of the Gateway API, by their published schemas (`crds/`): closed, as every schema of ours is. */
export function publishedKinds(): Record<string, Schema> {
  return Object.fromEntries(
    FILES.map((file) => {
      const path = new URL(`../crds/${file}.json`, import.meta.url);
      const crd = JSON.parse(readFileSync(path, "utf8")) as Crd;
      const versions = crd.versions.map((version) => `${crd.group}/${version}`);
      if (crd.kind === "HTTPRoute") versions.push(...LINKERD_HTTP_ROUTE);
      return [
        crd.kind,
        kindSchema(versions, crd.kind, { spec: closed(crd.schema.properties.spec) as Schema }, ["spec"]),
      ];
    }),
  );
}

/** A CRD's schema prunes what it does not know; ours says so instead. */
function closed(schema: unknown): unknown {
  if (Array.isArray(schema)) return schema.map(closed);
  if (typeof schema !== "object" || schema === null) return schema;
  const out = Object.fromEntries(Object.entries(schema).map(([key, value]) => [key, closed(value)]));
  const { properties } = schema as { properties?: unknown };
  // A field may itself be called "properties"; then it is no list of fields.
  const isMap = (schema as { type?: unknown }).type === "object" && typeof properties === "object";
  return isMap ? { ...out, additionalProperties: false } : out;
}
