import type { LoadedObject } from "#/kube/folder.ts";
import { groupOf, namespaceOf } from "#/kube/objects.ts";
import type { ExternalBackendObject } from "#/kube/policy-objects.ts";
import type { OriginatedTls } from "#/model/endpoint.ts";
import type { PolicySource } from "#/model/policy.ts";
import type { MeshView } from "../services/mesh-view.ts";
import { isCore } from "./attach.ts";
import type { Finding } from "./conditions.ts";

/** A service outside that routes may send to: an XBackend. */
export interface ExternalBackend {
  readonly source: PolicySource;
  /** Resolved by the control plane. */
  readonly hostname: string;
  readonly port: number;
  /** Null: it is spoken to in plaintext. */
  readonly tls: OriginatedTls | null;
}

/** An XBackend, or why nothing goes there. */
export type ExternalEntry =
  | { readonly kind: "backend"; readonly backend: ExternalBackend }
  | { readonly kind: "refused"; readonly finding: Finding };

/** By `namespace/name`. */
export type ExternalIndex = ReadonlyMap<string, ExternalEntry>;

export const EXTERNAL_GROUP = "gateway.networking.x-k8s.io";
const CA_KEY = "ca.crt";
const CA_BYTES_MAX = 64 * 1024;

/** `configMapOf`: by `namespace/name`. */
export function externalIndex(
  objects: readonly LoadedObject[],
  configMapOf: (key: string) => LoadedObject | undefined,
): ExternalIndex {
  const out = new Map<string, ExternalEntry>();
  for (const { object } of objects)
    if (object.kind === "XBackend")
      out.set(`${namespaceOf(object)}/${object.metadata.name}`, entryOf(object, configMapOf));
  return out;
}

/** What discovery is asked for. */
export function externalPath(view: MeshView, namespace: string, name: string, port: number): string {
  return `${name}.${namespace}.${suffixOf(view)}:${port}`;
}

/** `namespace/name` of the XBackend that a name of such a path stands for; null for another name. */
export function externalKeyOf(view: MeshView, host: string): string | null {
  const name = host.toLowerCase().replace(/\.$/, "");
  const suffix = `.${suffixOf(view)}`;
  if (!name.endsWith(suffix)) return null;
  // An object's name may have dots in it, a namespace has none.
  const match = /^(.+)\.([^.]+)$/.exec(name.slice(0, -suffix.length));
  return match === null ? null : `${match[2]}/${match[1]}`;
}

function suffixOf({ node }: MeshView): string {
  return `xbackend.${node.clusterDomain}`;
}

function entryOf(
  object: ExternalBackendObject,
  configMapOf: (key: string) => LoadedObject | undefined,
): ExternalEntry {
  const { externalHostname, port, protocol, tls } = object.spec;
  const refuse = (reason: string, message: string, ...path: (string | number)[]): ExternalEntry => ({
    kind: "refused",
    finding: { reason, message, path: ["spec", ...path] },
  });
  const hostname = externalHostname?.hostname ?? "";
  if (protocol === "MCP")
    return refuse("UnsupportedValue", "MCP is not spoken; use HTTP for its transport", "protocol");
  const namespace = namespaceOf(object);
  const { name } = object.metadata;
  const of = { group: groupOf(object), kind: object.kind, namespace, name };
  const source: PolicySource = { ...of, section: "", port: port.port };
  const to = (originated: OriginatedTls | null): ExternalEntry => ({
    kind: "backend",
    backend: { source, hostname, port: port.port, tls: originated },
  });
  if (tls === undefined || tls.mode === "None") return to(null);
  if (tls.mode === "ClientAndServer")
    return refuse("UnsupportedValue", "client certificates are not shown to servers outside", "tls", "mode");
  if (protocol === "H2C")
    return refuse("UnsupportedValue", "H2C is HTTP/2 without TLS; use HTTP2", "protocol");
  const { validation } = tls;
  const at = ["tls", "validation"];
  if (validation?.subjectAltNames !== undefined)
    return refuse(
      "UnsupportedValue",
      "other names than hostname are not looked for in the certificate; write it as hostname",
      ...at,
      "subjectAltNames",
    );
  const serverName = validation?.hostname ?? hostname;
  const known = validation?.wellKnownCACertificates;
  if (known !== undefined && known !== "System")
    return refuse("UnsupportedValue", "must be System", ...at, "wellKnownCACertificates");
  let caPem = "";
  for (const [i, ref] of (validation?.caCertificateRefs ?? []).entries()) {
    const where = [...at, "caCertificateRefs", i];
    if (!isCore(ref.group) || ref.kind !== "ConfigMap")
      return refuse("InvalidKind", `must be a ConfigMap, not a ${ref.kind}`, ...where, "kind");
    const found = configMapOf(`${namespace}/${ref.name}`)?.object;
    const pem = found?.kind === "ConfigMap" ? (found.data?.[CA_KEY] ?? "") : "";
    if (!pem.includes("-----BEGIN CERTIFICATE-----"))
      return refuse(
        "InvalidCACertificateRef",
        `ConfigMap ${namespace}/${ref.name} ${found === undefined ? "does not exist" : `has no certificate in ${CA_KEY}`}`,
        ...where,
        "name",
      );
    caPem += `${pem.trimEnd()}\n`;
  }
  if (caPem.length > CA_BYTES_MAX)
    return refuse(
      "UnsupportedValue",
      `must be at most ${CA_BYTES_MAX} bytes together`,
      ...at,
      "caCertificateRefs",
    );
  return to({ serverName, caPem });
}
