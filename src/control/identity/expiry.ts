import type { CertificateReport } from "#/model/identity-status.ts";
import type { Authority } from "./authority.ts";
import { SKEW_MS } from "./certificates.ts";
import type { X509Certificate } from "./x509.ts";

const DAY_MS = 24 * 60 * 60 * 1000;
const ROOT_WARN_MS = 90 * DAY_MS;

/**
 * What of the authority is over, not begun, or soon over: what, since when, and the command. Sidecars, logs, `status` and `check` say it
 * in these words.
 */
export function identityProblems(authority: Authority, nowMs: number): string[] {
  const found: string[] = [];
  const roots = new Set(authority.anchors);
  for (const certificate of [...authority.anchors, authority.issuer]) {
    const what = roots.has(certificate) ? "root" : "issuer";
    const consequence =
      what === "root" ? "nobody takes a certificate below it" : "no sidecar gets a certificate";
    const remedy = "check this machine's clock; if it is right: pillion identity repair";
    const { notBefore, notAfter } = certificate;
    if (notAfter.getTime() <= nowMs)
      found.push(
        `the ${what}'s certificate ${describe(certificate)} expired at ${notAfter.toISOString()}, ${agoText(nowMs - notAfter.getTime())} ago: ${consequence}; ${remedy}`,
      );
    else if (notBefore.getTime() > nowMs + SKEW_MS)
      found.push(
        `the ${what}'s certificate ${describe(certificate)} begins only at ${notBefore.toISOString()}, in ${agoText(notBefore.getTime() - nowMs)}: ${consequence}; ${remedy}`,
      );
    else if (what === "root" && notAfter.getTime() - nowMs < ROOT_WARN_MS && authority.rotation === null)
      found.push(
        `the root's certificate ${describe(certificate)} expires at ${notAfter.toISOString()}, in ${agoText(notAfter.getTime() - nowMs)}: pillion identity rotate --root`,
      );
  }
  return found;
}

export function describe(certificate: X509Certificate): string {
  return `"${certificate.subject.replace(/^CN=/, "")}" (serial ${shortSerial(certificate)})`;
}

export function reportOf(certificate: X509Certificate, role: CertificateReport["role"]): CertificateReport {
  return {
    name: certificate.subject.replace(/^CN=/, ""),
    serial: certificate.serialNumber,
    notBeforeMs: certificate.notBefore.getTime(),
    notAfterMs: certificate.notAfter.getTime(),
    role,
  };
}

function shortSerial({ serialNumber }: X509Certificate): string {
  return serialNumber.length > 8 ? `${serialNumber.slice(0, 8)}…` : serialNumber;
}

function agoText(ms: number): string {
  if (ms >= 2 * DAY_MS) return `${Math.floor(ms / DAY_MS)} days`;
  const minutes = Math.max(1, Math.round(ms / 60_000));
  return minutes >= 120
    ? `${Math.floor(minutes / 60)} hours`
    : `${minutes} minute${minutes === 1 ? "" : "s"}`;
}
