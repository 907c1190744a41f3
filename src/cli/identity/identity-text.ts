import type { CertificateReport, IdentityStatus, RotationReport } from "#/model/identity-status.ts";
import { ageText, table } from "../table.ts";

const WAITING_SHOWN_MAX = 20;

/** How the mesh's certificates stand, for a terminal. */
export function identityText(identity: IdentityStatus, nowMs: number): string {
  const lines = [
    `trust domain ${identity.trustDomain} · root and issuer: ${identity.source} · roots as of change ${identity.sequence}`,
    "",
    table(
      ["CERTIFICATE", "ROLE", "SERIAL", "ENDS", "IN"],
      [...identity.roots, identity.issuer].map((one) => row(one, nowMs)),
    ),
  ];
  if (identity.rotation !== null) lines.push("", ...rotationText(identity.rotation, nowMs));
  if (identity.revoked.length > 0) lines.push("", "revoked:", ...identity.revoked.map((name) => `  ${name}`));
  for (const problem of identity.problems) lines.push("", `! ${problem}`);
  return lines.join("\n");
}

const ROLES: Readonly<Record<CertificateReport["role"], string>> = {
  signs: "root in force",
  next: "next root",
  old: "old root",
  issuer: "issuer",
};

function row({ name, role, serial, notAfterMs }: CertificateReport, nowMs: number): string[] {
  return [
    name,
    ROLES[role],
    serial.slice(0, 12),
    new Date(notAfterMs).toISOString(),
    notAfterMs <= nowMs ? "over" : ageText(notAfterMs - nowMs),
  ];
}

/** The steps of a rotation, and whom the present one waits for. */
export function rotationText(rotation: RotationReport, nowMs: number): string[] {
  const mark = { done: "✓", now: "→", "to come": " " };
  const isRunning = rotation.steps.some(({ state }) => state !== "to come");
  const waiting = rotation.waitingFor;
  return [
    isRunning
      ? `rotation of the ${rotation.what}, for ${ageText(nowMs - rotation.startedAtMs)}${rotation.isForced ? " (forced)" : ""}`
      : `a rotation of the ${rotation.what} would:`,
    ...rotation.steps.map(({ step, state, what }) => `  ${mark[state]} ${step.padEnd(10)} ${what}`),
    ...(waiting.length === 0
      ? []
      : [
          isRunning
            ? `waiting for ${waiting.length}, since ${ageText(nowMs - rotation.sinceMs)}:`
            : `and wait for ${waiting.length}:`,
        ]),
    ...waiting
      .slice(0, WAITING_SHOWN_MAX)
      .map(({ namespace, name, why }) => `  ${namespace}/${name}: ${why}`),
    ...(waiting.length > WAITING_SHOWN_MAX ? [`  … and ${waiting.length - WAITING_SHOWN_MAX} more`] : []),
  ];
}

/** One line of it. */
export function rotationLine({ what, steps, waitingFor, sinceMs }: RotationReport, nowMs: number): string {
  const present = steps.find(({ state }) => state === "now")?.step ?? "drop";
  const [first] = waitingFor;
  const waits =
    first === undefined
      ? ""
      : `, waits for ${waitingFor.length} since ${ageText(nowMs - sinceMs)}: ${first.namespace}/${first.name}${waitingFor.length > 1 ? " …" : ""}`;
  return `rotation of the ${what}: ${present}${waits}`;
}
