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
  return (
    Object.keys(KINDS).find((kind) => {
      const one = kind.toLowerCase();
      return lower === one || lower === `${one}s` || lower === one.replace(/y$/, "ies");
    }) ?? null
  );
}
