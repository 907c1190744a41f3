import { valueOf } from "./message-reader.ts";
import type { Arrival, Case, Exchange, Field } from "./case.ts";

/** One thing that is not the same through the mesh. */
export interface Difference {
  readonly what: string;
  readonly direct: string;
  readonly meshed: string;
}

/** What is not compared, and why; printed with every run. Everything else is, with case and order. */
export const NOT_COMPARED: readonly (readonly [names: readonly string[], why: string])[] = [
  [
    ["connection", "keep-alive", "transfer-encoding", "te", "upgrade", "http2-settings"],
    "belong to one hop (RFC 9110 §7.6.1); framing and persistence are compared by what they come to",
  ],
  [["(what Connection names)"], "belongs to one hop as well"],
  [["date"], "its value: the two runs are not at the same second; that it is there is compared"],
  [["l5d-client-id"], "in requests: the sidecar tells the application who asks"],
  [["x-run"], "our own: tells the two runs apart"],
  [["(blanks around a value)"], "are no part of it (RFC 9112 §5.1)"],
];
const SKIPPED = new Set(NOT_COMPARED.flatMap(([names]) => names).filter((name) => name !== "date"));

export function compareExchanges(direct: Exchange, meshed: Exchange): Difference[] {
  const found = new Found();
  found.compare("end of the answer", endOf(direct), endOf(meshed));
  found.compare("interim answers", direct.interim.length, meshed.interim.length);
  for (const [i, interim] of direct.interim.entries()) {
    const other = meshed.interim[i];
    if (other !== undefined) compareHeads(found, "interim ", interim, other);
  }
  if (direct.head === null || meshed.head === null) {
    found.compare("answer", direct.head?.line ?? "none", meshed.head?.line ?? "none");
    return found.differences;
  }
  if (partsOf(direct.head.line)[1] !== partsOf(meshed.head.line)[1]) {
    // Another answer altogether: nothing else of it can be the same.
    const why = valueOf(meshed.head.fields, "l5d-proxy-error");
    found.compare("status", direct.head.line, `${meshed.head.line}${why === null ? "" : ` because ${why}`}`);
    return found.differences;
  }
  compareHeads(found, "", direct.head, meshed.head);
  found.compare("framing", direct.framing, meshed.framing);
  // Of an answer that breaks off, how much came is a matter of chance.
  if (direct.end === "complete" && meshed.end === "complete") {
    found.compare("body", text(direct.body), text(meshed.body));
    compareFields(found, "trailer", direct.trailers, meshed.trailers, []);
    found.compare("persistence", persistence(direct), persistence(meshed));
  }
  return found.differences;
}

export function compareArrivals(
  one: Case,
  direct: readonly Arrival[],
  meshed: readonly Arrival[],
): Difference[] {
  const found = new Found();
  found.compare("arrivals", direct.length, meshed.length);
  const [a, b] = [direct[0], meshed[0]];
  if (a === undefined || b === undefined) return found.differences;
  found.compare("request method", a.method, b.method);
  found.compare("request target", a.target, b.target);
  found.compare("request version", a.version, b.version);
  const named = one.fields
    .filter(([name]) => name.toLowerCase() === "connection")
    .flatMap(([, value]) => value.toLowerCase().split(","))
    .map((token) => token.trim());
  compareFields(found, "request field", a.fields, b.fields, named);
  found.compare("end of the request", a.end, b.end);
  if (a.end === "complete" && a.body !== null && b.body !== null)
    found.compare("request body", text(a.body), text(b.body));
  if (a.trailers !== null && b.trailers !== null)
    compareFields(found, "request trailer", a.trailers, b.trailers, []);
  return found.differences;
}

class Found {
  readonly differences: Difference[] = [];

  compare(what: string, direct: unknown, meshed: unknown): void {
    if (direct === meshed) return;
    this.differences.push({ what, direct: String(direct), meshed: String(meshed) });
  }
}

function compareHeads(
  found: Found,
  kind: string,
  direct: { readonly line: string; readonly fields: readonly Field[] },
  meshed: { readonly line: string; readonly fields: readonly Field[] },
): void {
  const [version, status, reason] = partsOf(direct.line);
  const [otherVersion, otherStatus, otherReason] = partsOf(meshed.line);
  found.compare(`${kind}status`, status, otherStatus);
  found.compare(`${kind}reason`, reason, otherReason);
  found.compare(`${kind}version`, version, otherVersion);
  compareFields(found, `${kind}field`, direct.fields, meshed.fields, []);
}

function partsOf(line: string): [string, string, string] {
  const [version = "", status = "", ...reason] = line.split(" ");
  return [version, status, reason.join(" ")];
}

/** Says what is missing, added or changed by name; and where nothing is, whether case or order differ. */
function compareFields(
  found: Found,
  kind: string,
  direct: readonly Field[],
  meshed: readonly Field[],
  named: readonly string[],
): void {
  const [a, b] = [comparable(direct, named), comparable(meshed, named)];
  if (lines(a) === lines(b)) return;
  const before = found.differences.length;
  const names = new Set([...a, ...b].map(([name]) => name.toLowerCase()));
  for (const name of names) {
    const of = (fields: readonly Field[]): string =>
      fields
        .filter(([each]) => each.toLowerCase() === name)
        .map(([, value]) => JSON.stringify(value))
        .join(" and ") || "none";
    found.compare(`${kind} ${name}`, of(a), of(b));
  }
  if (found.differences.length > before) return;
  const sorted = (fields: readonly Field[]): string => lines(fields.toSorted());
  if (sorted(a) !== sorted(b)) found.compare(`${kind} names' case`, namesOf(a), namesOf(b));
  else found.compare(`${kind} order`, namesOf(a), namesOf(b));
}

function comparable(fields: readonly Field[], named: readonly string[]): Field[] {
  return (
    fields
      .filter(([name]) => !SKIPPED.has(name.toLowerCase()) && !named.includes(name.toLowerCase()))
      // RFC 9112 §5.1: blanks around a value are no part of it; Python tells of those behind it.
      .map(([name, value]) => [name, name.toLowerCase() === "date" ? "…" : value.trim()])
  );
}

function lines(fields: readonly Field[]): string {
  return fields.map(([name, value]) => `${name}: ${value}`).join("\n");
}

function namesOf(fields: readonly Field[]): string {
  return fields.map(([name]) => name).join(" ");
}

function endOf({ end, closed }: Exchange): string {
  return end === "cut" ? `cut by ${closed === "reset" ? "RST" : "FIN"}` : end;
}

function persistence({ isPersistent, closed }: Exchange): string {
  return `${isPersistent ? "stays open" : "closes"}${closed === null ? "" : `, ended by ${closed === "reset" ? "RST" : "FIN"}`}`;
}

function text({ bytes, sha1 }: { readonly bytes: number; readonly sha1: string }): string {
  return `${bytes} bytes, SHA-1 ${sha1.slice(0, 12)}`;
}
