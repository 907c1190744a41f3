/**
 * Who a workload is: one (trust domain, namespace, service account), however it is written. Policy compares this,
 * never strings.
 */
export interface Identity {
  readonly trustDomain: string;
  readonly namespace: string;
  readonly serviceAccount: string;
}

/** The peer of a TLS connection, proven by its handshake. Made only by `net/tls` from a verified chain. */
export interface PeerIdentity {
  readonly identity: Identity;
  /** As metrics and `l5d-client-id` show it: the DNS form, or the SPIFFE URI where the certificate has only that. */
  readonly name: string;
}

/** Namespace that the control plane's own identity lives in, as Linkerd's `CONTROL_NS`. */
export const CONTROL_NAMESPACE = "pillion";

/** `SA.NS.serviceaccount.identity.CONTROL_NS.TRUST_DOMAIN`: Linkerd's identity name, a lower-case DNS name. */
export function dnsName(id: Identity): string {
  return `${id.serviceAccount}.${id.namespace}.serviceaccount.identity.${CONTROL_NAMESPACE}.${id.trustDomain}`.toLowerCase();
}

/** `spiffe://TRUST_DOMAIN/ns/NS/sa/SA`. */
export function spiffeUri(id: Identity): string {
  return `spiffe://${id.trustDomain}/ns/${id.namespace}/sa/${id.serviceAccount}`;
}

/** Reads either form back, whatever control namespace it names; null when it is neither. */
export function parseIdentity(name: string): Identity | null {
  const id = parseSpiffeId(name);
  if (id !== null) {
    const account = /^\/ns\/([a-z0-9-]+)\/sa\/([a-zA-Z0-9.-]+)$/.exec(id.path);
    return account === null
      ? null
      : { trustDomain: id.trustDomain, namespace: account[1]!, serviceAccount: account[2]! };
  }
  // A service account may hold dots (it is a DNS subdomain); a namespace and a control namespace may not.
  const dns = /^([a-z0-9.-]+)\.([a-z0-9-]+)\.serviceaccount\.identity\.([a-z0-9-]+)\.([a-z0-9.-]+)$/.exec(
    name,
  );
  if (dns !== null) return { serviceAccount: dns[1]!, namespace: dns[2]!, trustDomain: dns[4]! };
  return null;
}

/** SPIFFE-ID §2: any of them, whatever its path says. */
export interface SpiffeId {
  readonly trustDomain: string;
  /** "" for that of a trust domain, else `/` and segments. */
  readonly path: string;
}

/** SPIFFE-ID §2.3: longer ones need not be read. */
const SPIFFE_ID_BYTES_MAX = 2048;
const TRUST_DOMAIN_BYTES_MAX = 255;

/** Null for whatever SPIFFE-ID §2 does not allow: other schemes and letters, ports, queries, escapes, empty and dot segments. */
export function parseSpiffeId(text: string): SpiffeId | null {
  if (text.length > SPIFFE_ID_BYTES_MAX) return null;
  const match = /^spiffe:\/\/([a-z0-9._-]+)((?:\/[a-zA-Z0-9._-]+)*)$/.exec(text);
  if (match === null) return null;
  const [, trustDomain = "", path = ""] = match;
  if (trustDomain.length > TRUST_DOMAIN_BYTES_MAX) return null;
  if (path.split("/").some((segment) => segment === "." || segment === "..")) return null;
  return { trustDomain, path };
}

export function sameIdentity(a: Identity, b: Identity): boolean {
  return (
    a.trustDomain === b.trustDomain && a.namespace === b.namespace && a.serviceAccount === b.serviceAccount
  );
}

/** Labels as metric families and discovery carry them. */
export type Labels = Readonly<Record<string, string>>;
