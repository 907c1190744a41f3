/**
 * `scripts/run node scripts/crds.ts FOLDER` writes `src/kube/crds` anew from the Gateway API's published CRDs (its release's
 * `config/crd/experimental`): for each kind that is read, its group, its served versions and the schema of its stored version,
 * without the descriptions.
 */
import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { parse } from "yaml";

/** File in `src/kube/crds`, and the published one. */
export const CRDS: Readonly<Record<string, string>> = {
  "httproute.json": "gateway.networking.k8s.io_httproutes.yaml",
  "grpcroute.json": "gateway.networking.k8s.io_grpcroutes.yaml",
  "tlsroute.json": "gateway.networking.k8s.io_tlsroutes.yaml",
  "tcproute.json": "gateway.networking.k8s.io_tcproutes.yaml",
  "referencegrant.json": "gateway.networking.k8s.io_referencegrants.yaml",
  "xbackend.json": "gateway.networking.x-k8s.io_xbackends.yaml",
  "xbackendtrafficpolicy.json": "gateway.networking.x-k8s.io_xbackendtrafficpolicies.yaml",
};

export const CRDS_FOLDER: string = join(import.meta.dirname, "../src/kube/crds");

interface Published {
  readonly metadata: { readonly annotations: Readonly<Record<string, string>> };
  readonly spec: {
    readonly group: string;
    readonly names: { readonly kind: string };
    readonly versions: readonly {
      readonly name: string;
      readonly served: boolean;
      readonly storage: boolean;
      readonly schema: { readonly openAPIV3Schema: unknown };
    }[];
  };
}

/** What stands in `src/kube/crds` of one published CRD. */
export function condense(yaml: string): string {
  const { metadata, spec } = parse(yaml) as Published;
  const served = spec.versions.filter((version) => version.served);
  // The newest schema: every field of the older versions is in it.
  const newest = served.find((version) => version.name === "v1") ?? served.find((version) => version.storage);
  const condensed = {
    bundle: metadata.annotations["gateway.networking.k8s.io/bundle-version"],
    group: spec.group,
    kind: spec.names.kind,
    versions: served.map((version) => version.name),
    schema: withoutDescriptions(newest?.schema.openAPIV3Schema),
  };
  return `${JSON.stringify(condensed, null, 1)}\n`;
}

function withoutDescriptions(value: unknown): unknown {
  if (Array.isArray(value)) return value.map(withoutDescriptions);
  if (typeof value !== "object" || value === null) return value;
  return Object.fromEntries(
    Object.entries(value)
      // A field that is called so has a schema, which is no text.
      .filter(([key, inner]) => !(key === "description" && typeof inner === "string"))
      .map(([key, inner]) => [key, withoutDescriptions(inner)]),
  );
}

if (import.meta.main) {
  const folder = process.argv[2];
  if (folder === undefined) {
    console.error("crds: name the folder that holds the published CRDs");
    process.exit(2);
  }
  for (const [file, published] of Object.entries(CRDS))
    writeFileSync(join(CRDS_FOLDER, file), condense(readFileSync(join(folder, published), "utf8")));
}
