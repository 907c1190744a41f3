/** Who may use a port that nothing else is said about: Linkerd's words for it, of an annotation and of a Server. */
export const INBOUND_DEFAULTS = [
  "all-unauthenticated",
  "all-authenticated",
  "cluster-unauthenticated",
  "cluster-authenticated",
  "deny",
  "audit",
] as const;

export type InboundDefault = (typeof INBOUND_DEFAULTS)[number];

export function isInboundDefault(value: unknown): value is InboundDefault {
  return INBOUND_DEFAULTS.some((known) => known === value);
}

export const INBOUND_DEFAULT_ANNOTATION = "config.linkerd.io/default-inbound-policy";

/** What annotations say; null: nothing that is one of the words. */
export function inboundDefaultIn(
  annotations: Readonly<Record<string, string>> | undefined,
): InboundDefault | null {
  const value = annotations?.[INBOUND_DEFAULT_ANNOTATION];
  return isInboundDefault(value) ? value : null;
}
