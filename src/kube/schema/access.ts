import {
  bool,
  checked,
  dnsLabel,
  dnsSubdomain,
  int,
  kindSchema,
  labelSelector,
  list,
  object,
  oneOf,
  portRef,
  refused,
  text,
} from "./language.ts";
import type { Schema } from "./language.ts";

const port = int(1, 65_535);
const nonEmpty: Schema = { type: "string", minLength: 1, maxLength: 1024 };

function bounded(items: Schema, itemsMin: number, itemsMax: number): Schema {
  return { ...list(items, itemsMin), maxItems: itemsMax };
}

const fieldMatch = (name: Schema): Schema =>
  object({ name, value: text, type: oneOf("Exact", "RegularExpression") }, ["name", "value"]);

/** What of a request a rule looks at: shared by whatever asks that of requests. */
export const requestCondition: Schema = object({
  methods: bounded(checked("method"), 1, 32),
  paths: bounded(
    object({ type: oneOf("Exact", "PathPrefix", "RegularExpression"), value: checked("requestPath") }, [
      "type",
      "value",
    ]),
    1,
    64,
  ),
  hosts: bounded(checked("hostPattern"), 1, 64),
  grpc: bounded(object({ service: nonEmpty, method: nonEmpty }), 1, 64),
  headers: bounded(fieldMatch(checked("headerName")), 1, 16),
  query: bounded(fieldMatch(nonEmpty), 1, 16),
  claims: bounded(object({ claim: nonEmpty, values: bounded(text, 1, 64) }, ["claim", "values"]), 1, 16),
});

const source = object(
  {
    type: oneOf(
      "ServiceAccount",
      "SPIFFE",
      "Namespace",
      "TrustDomain",
      "Authenticated",
      "Unauthenticated",
      "CIDR",
    ),
    serviceAccount: object({ namespace: dnsLabel, name: checked("accountOrAny") }, ["name"]),
    spiffe: checked("spiffeId"),
    namespace: dnsLabel,
    trustDomain: checked("trustDomain"),
    cidr: checked("cidr"),
    except: bounded(checked("cidr"), 1, 64),
    cidrs: bounded(checked("cidr"), 1, 64),
  },
  ["type"],
);

const authorizationSpec = object(
  {
    targetRefs: bounded(
      object(
        {
          group: oneOf("", "gateway.networking.k8s.io"),
          kind: oneOf("Pod", "Service", "Namespace", "HTTPRoute", "GRPCRoute"),
          name: dnsSubdomain,
          selector: labelSelector,
        },
        ["group", "kind"],
      ),
      1,
      16,
    ),
    action: oneOf("ALLOW", "DENY", "AUDIT"),
    mode: oneOf("Enforce", "Audit"),
    enforcementLevel: oneOf("Network", "Application"),
    rules: bounded(
      object({
        name: dnsSubdomain,
        sources: bounded(source, 0, 128),
        networkAttributes: object({ ports: bounded(port, 1, 64) }, ["ports"]),
        requests: bounded(requestCondition, 0, 64),
      }),
      0,
      128,
    ),
  },
  ["targetRefs", "action"],
);

const linkerdTarget = (kinds: Schema): Schema =>
  object({ group: text, kind: kinds, name: dnsSubdomain, namespace: dnsLabel }, ["kind", "name"]);

const linkerdNetworks = list(
  object({ cidr: checked("network"), except: list(checked("network")) }, ["cidr"]),
  1,
);

const accessPolicy = checked("inboundDefault");

const serverSpec = object(
  {
    podSelector: labelSelector,
    externalWorkloadSelector: refused(
      "there are no workloads outside the machine here; select pods with podSelector",
    ),
    port: portRef,
    proxyProtocol: oneOf("unknown", "HTTP/1", "HTTP/2", "gRPC", "opaque", "TLS"),
    accessPolicy,
  },
  ["podSelector", "port"],
);

const GROUP = "policy.linkerd.io";

/** Kinds that say who may. Linkerd's AuthorizationPolicy shares its name with ours, and is told apart by its group. */
export const ACCESS_KINDS: Readonly<Record<string, Schema>> = {
  AuthorizationPolicy: kindSchema(
    ["pillion.dev/v1alpha1"],
    "AuthorizationPolicy",
    { spec: authorizationSpec },
    ["spec"],
  ),
  "AuthorizationPolicy.policy.linkerd.io": kindSchema(
    [`${GROUP}/v1alpha1`],
    "AuthorizationPolicy",
    {
      spec: object(
        {
          targetRef: linkerdTarget(oneOf("Server", "HTTPRoute", "GRPCRoute", "Namespace")),
          requiredAuthenticationRefs: bounded(
            linkerdTarget(oneOf("MeshTLSAuthentication", "NetworkAuthentication", "ServiceAccount")),
            1,
            16,
          ),
        },
        ["targetRef", "requiredAuthenticationRefs"],
      ),
    },
    ["spec"],
  ),
  Server: kindSchema(
    ["v1beta1", "v1beta2", "v1beta3"].map((version) => `${GROUP}/${version}`),
    "Server",
    { spec: serverSpec },
    ["spec"],
  ),
  ServerAuthorization: kindSchema(
    [`${GROUP}/v1beta1`],
    "ServerAuthorization",
    {
      spec: object(
        {
          server: object({ name: dnsSubdomain, selector: labelSelector }),
          client: object({
            unauthenticated: bool,
            networks: linkerdNetworks,
            meshTLS: object({
              unauthenticatedTLS: refused(
                "TLS without an identity is of no mesh; write unauthenticated: true beside meshTLS, or list identities",
              ),
              identities: list(nonEmpty, 1),
              serviceAccounts: list(object({ name: dnsSubdomain, namespace: dnsLabel }, ["name"]), 1),
            }),
          }),
        },
        ["server", "client"],
      ),
    },
    ["spec"],
  ),
  MeshTLSAuthentication: kindSchema(
    [`${GROUP}/v1alpha1`],
    "MeshTLSAuthentication",
    {
      spec: object({
        identities: list(nonEmpty, 1),
        identityRefs: list(linkerdTarget(oneOf("ServiceAccount", "Namespace")), 1),
      }),
    },
    ["spec"],
  ),
  NetworkAuthentication: kindSchema(
    [`${GROUP}/v1alpha1`],
    "NetworkAuthentication",
    { spec: object({ networks: linkerdNetworks }, ["networks"]) },
    ["spec"],
  ),
};
