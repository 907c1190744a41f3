import { requestCondition } from "./access.ts";
import { bool, checked, dnsSubdomain, kindSchema, labelSelector, list, object, oneOf } from "./language.ts";
import type { Schema } from "./language.ts";

const nonEmpty: Schema = { type: "string", minLength: 1, maxLength: 1024 };

function bounded(items: Schema, itemsMin: number, itemsMax: number): Schema {
  return { ...list(items, itemsMin), maxItems: itemsMax };
}

const issuer = object(
  {
    issuer: nonEmpty,
    audiences: bounded(nonEmpty, 1, 32),
    jwks: object({
      inline: { type: "string", minLength: 1, maxLength: 65_536 },
      configMap: object({ name: dnsSubdomain, key: nonEmpty }, ["name", "key"]),
      url: nonEmpty,
    }),
    leeway: checked("duration"),
    headers: bounded(checked("headerName"), 1, 8),
    forward: bool,
    claimHeaders: bounded(
      object({ claim: nonEmpty, header: checked("headerName") }, ["claim", "header"]),
      1,
      32,
    ),
  },
  ["issuer", "jwks"],
);

export const JWT_KINDS: Readonly<Record<string, Schema>> = {
  JwtPolicy: kindSchema(
    ["pillion.dev/v1alpha1"],
    "JwtPolicy",
    {
      spec: object(
        {
          targetRefs: bounded(
            object(
              {
                group: oneOf(""),
                kind: oneOf("Pod", "Service", "Namespace"),
                name: dnsSubdomain,
                selector: labelSelector,
              },
              ["group", "kind"],
            ),
            1,
            16,
          ),
          issuers: bounded(issuer, 1, 16),
          required: object({ all: bool, requests: bounded(requestCondition, 1, 64) }),
        },
        ["targetRefs", "issuers"],
      ),
    },
    ["spec"],
  ),
};
