import { KINDS } from "./schema/kinds.ts";

/** kubectl's short names. */
const SHORT: Readonly<Record<string, string>> = {
  cm: "ConfigMap",
  deploy: "Deployment",
  ds: "DaemonSet",
  ns: "Namespace",
  po: "Pod",
  pvc: "PersistentVolumeClaim",
  sa: "ServiceAccount",
  sts: "StatefulSet",
  svc: "Service",
};

/** The kind that an operator means by `httproute`, `HTTPRoutes`, `svc`; null when there is none. */
export function kindNamed(word: string): string | null {
  const lower = word.toLowerCase();
  if (Object.hasOwn(SHORT, lower)) return SHORT[lower]!;
  // `authorizationpolicies.policy.linkerd.io`, as kubectl has it where two groups have kinds of one name.
  const dot = lower.indexOf(".");
  const [name, group] = dot === -1 ? [lower, ""] : [lower.slice(0, dot), lower.slice(dot)];
  return (
    Object.keys(KINDS).find((kind) => {
      const [one = "", ...rest] = kind.toLowerCase().split(".");
      if (group !== ["", ...rest].join(".")) return false;
      return name === one || name === `${one}s` || name === one.replace(/y$/, "ies");
    }) ?? null
  );
}
