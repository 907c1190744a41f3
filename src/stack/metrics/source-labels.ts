import type { Labels } from "#/model/identity.ts";
import type { PolicySource } from "#/model/policy.ts";

/** How Linkerd labels an object in a family of routes (facts §17.2): `parent_kind`, `route_name`, `backend_port`, … */
export function sourceLabels(role: "parent" | "route" | "backend", source: PolicySource): Labels {
  return {
    [`${role}_group`]: source.group,
    [`${role}_kind`]: source.kind,
    [`${role}_namespace`]: source.namespace,
    [`${role}_name`]: source.name,
    [`${role}_port`]: source.port === 0 ? "" : String(source.port),
    [`${role}_section_name`]: source.section,
  };
}
