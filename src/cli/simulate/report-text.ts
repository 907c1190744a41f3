import type { Outcome, Report, ServiceReport } from "#/sim/report.ts";
import type { Finding } from "#/sim/scenario/expectations.ts";
import { table } from "../table.ts";

/** A report for people: what programs saw, what endpoints got, what went wrong, and what was expected. */
export function reportText(report: Report, findings: readonly Finding[]): string {
  const parts = [
    `${seconds(report.durationMs)} of load, seed ${report.seed}${phasesText(report)}`,
    flowTable(report),
    serviceTable(report),
    endpointTable(report),
  ];
  if (report.services.some((service) => Object.keys(service.events).length > 0))
    parts.push(eventTable(report));
  if (report.faults.length > 0) parts.push(faultTable(report));
  if (findings.length > 0)
    parts.push(findings.map(({ isMet, line }) => `${isMet ? "✓" : "✗"} ${line}`).join("\n"));
  if (report.violations.length > 0)
    parts.push(`an error of Pillion's, please report it with the seed:\n${report.violations.join("\n")}`);
  return parts.join("\n\n");
}

function flowTable(report: Report): string {
  return table(
    ["FROM", "TO", "WHEN", "REQ/S", "SUCCESS", "P50", "P90", "P99", "MAX", "FAILURES"],
    report.flows.flatMap((flow) =>
      flow.phases.map((outcome, i) => [
        i === 0 ? flow.from : "",
        i === 0 ? short(flow.to) : "",
        report.phases[i]!.name,
        outcome.requestsPerSecond.toFixed(1),
        outcome.successRate === null ? "-" : `${(100 * outcome.successRate).toFixed(2)}%`,
        ...[outcome.p50Ms, outcome.p90Ms, outcome.p99Ms, outcome.maxMs].map((ms) =>
          outcome.requests === 0 ? "-" : milliseconds(ms),
        ),
        failuresText(outcome),
      ]),
    ),
    [3, 4, 5, 6, 7, 8],
  );
}

function serviceTable(report: Report): string {
  return table(
    ["SERVICE", "WHEN", "REQUESTS", "REACHED IT", "A SECOND", "RETRIES", "LOAD"],
    report.services.flatMap((service) =>
      service.phases.map((phase, i) => [
        i === 0 ? short(service.service) : "",
        report.phases[i]!.name,
        String(phase.requests),
        String(phase.attempts),
        phase.attemptsPerSecond.toFixed(1),
        String(phase.retries),
        phase.loadFactor === null ? "-" : `${phase.loadFactor.toFixed(2)} ×`,
      ]),
    ),
    [2, 3, 4, 5, 6],
  );
}

function endpointTable(report: Report): string {
  const rows = report.services.flatMap((service) => endpointRows(service));
  return table(
    [
      "SERVICE",
      "ENDPOINT",
      "ZONE",
      ...report.phases.map((phase) => phase.name.toUpperCase()),
      "BUSY",
      "WAITING",
      "REFUSED",
    ],
    rows,
    [...report.phases.map((_, i) => 3 + i), ...[0, 1, 2].map((i) => 3 + report.phases.length + i)],
  );
}

/** With many endpoints, those with the most and the fewest requests tell the most. */
function endpointRows({ endpoints, service }: ServiceReport): string[][] {
  const total = (requests: readonly number[]): number => requests.reduce((sum, count) => sum + count, 0);
  const ordered =
    endpoints.length <= ENDPOINTS_MAX
      ? endpoints
      : endpoints.toSorted((a, b) => total(b.requests) - total(a.requests));
  const half = ENDPOINTS_MAX / 2;
  const rows = ordered.map((endpoint, i) => [
    i === 0 ? short(service) : "",
    endpoint.pod,
    endpoint.zone === "" ? "-" : endpoint.zone,
    ...endpoint.requests.map(String),
    String(endpoint.busyPeak),
    String(endpoint.waitingPeak),
    String(endpoint.refused),
  ]);
  if (rows.length <= ENDPOINTS_MAX) return rows;
  const left = rows.length - ENDPOINTS_MAX;
  return [...rows.slice(0, half), ["", `… ${left} more`], ...rows.slice(-half)];
}

function eventTable(report: Report): string {
  return table(
    ["FOR", "WHAT SIDECARS DID", "REQUESTS"],
    report.services.flatMap(({ events, service }) =>
      Object.entries(events).map(([what, count], i) => [i === 0 ? short(service) : "", what, String(count)]),
    ),
    [2],
  );
}

function faultTable(report: Report): string {
  return table(
    ["REFUSED OR ENDED BY A SIDECAR", "REQUESTS"],
    report.faults.map(({ requests, what }) => [what, String(requests)]),
    [1],
  );
}

function phasesText(report: Report): string {
  const during = report.phases.find((phase) => phase.name === "during");
  return during === undefined ? "" : `; failure from ${seconds(during.fromMs)} to ${seconds(during.toMs)}`;
}

function failuresText(outcome: Outcome): string {
  return Object.entries(outcome.failures)
    .map(([what, count]) => `${count} × ${what}`)
    .join(", ");
}

function seconds(ms: number): string {
  return `${Number((ms / 1_000).toFixed(3))} s`;
}

function milliseconds(ms: number): string {
  return `${ms < 10 ? ms.toFixed(1) : Math.round(ms)} ms`;
}

function short(path: string): string {
  return path.replace(/\.svc\.[^:]*/, "");
}

const ENDPOINTS_MAX = 10;
