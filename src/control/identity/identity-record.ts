import type { StateFolder } from "../state-folder.ts";
import type { KeyedCertificate } from "./certificates.ts";
import { certificatesIn, makeIssuer, pemOf, readKeyed } from "./certificates.ts";
import type { X509Certificate } from "./x509.ts";

export type RotationKind = "root" | "issuer";

/**
 * What is waited for: `distribute`, that every sidecar trusts the next root; `renew`, that every leaf is signed by the new issuer;
 * `drop`, that every sidecar has let go of the old root.
 */
export type RotationStep = "distribute" | "renew" | "drop";

export interface RotationRecord {
  readonly kind: RotationKind;
  readonly step: RotationStep;
  readonly startedAtMs: number;
  readonly stepAtMs: number;
  /** The operator has asked not to wait for whoever is left. */
  readonly isForced: boolean;
}

/** All of the authority that outlives the control plane. */
export interface IdentityRecord {
  readonly sequence: number;
  /** The root above the issuer, with its key; null where that is not ours. */
  readonly root: KeyedCertificate | null;
  /** All roots that sidecars are to trust. */
  readonly anchors: readonly X509Certificate[];
  /** Those that are to be left when the rotation is over; without one, the same. */
  readonly wanted: readonly X509Certificate[];
  /** Signs leaves. */
  readonly issuer: KeyedCertificate;
  /** What will sign, and does not yet. */
  readonly next: { readonly root: KeyedCertificate | null; readonly issuer: KeyedCertificate } | null;
  readonly rotation: RotationRecord | null;
}

const RECORD = "identity.json";

/** Null when there is none yet. A folder of a mesh that knew one root only has neither `anchors.crt` nor `identity.json`. */
export async function readIdentity(
  state: StateFolder,
  trustDomain: string,
  nowMs: number,
): Promise<IdentityRecord | null> {
  const root = await readPair(state, "root");
  let issuer = await readPair(state, "issuer");
  if (issuer === null && root !== null) issuer = await makeIssuer(root, trustDomain, nowMs);
  if (issuer === null) return null;
  let anchors = certificatesIn(state.readText("anchors.crt") ?? "");
  if (anchors.length === 0 && root !== null) anchors = [root.certificate];
  const wanted = certificatesIn(state.readText("wanted-anchors.crt") ?? "");
  const kept = state.readJson(RECORD) as { sequence: number; rotation: RotationRecord | null } | null;
  const nextIssuer = await readPair(state, "next-issuer");
  const nextRoot = await readPair(state, "next-root");
  return {
    sequence: kept?.sequence ?? 1,
    root,
    anchors,
    wanted: wanted.length > 0 ? wanted : anchors,
    issuer,
    next: nextIssuer === null ? null : { root: nextRoot, issuer: nextIssuer },
    rotation: kept?.rotation ?? null,
  };
}

/** All or nothing, also over a crash: a root without its key would be a mesh that cannot go on. */
export function writeIdentity(state: StateFolder, record: IdentityRecord): void {
  const { sequence, root, anchors, wanted, issuer, next, rotation } = record;
  state.writeTogether([
    ...pair("root", root),
    ...pair("issuer", issuer),
    ...pair("next-root", next?.root ?? null),
    ...pair("next-issuer", next?.issuer ?? null),
    ["anchors.crt", pemOf(anchors)],
    ["wanted-anchors.crt", rotation === null ? null : pemOf(wanted)],
    [RECORD, JSON.stringify({ sequence, rotation })],
  ]);
}

function pair(name: string, keyed: KeyedCertificate | null): [string, string | null][] {
  return [
    [`${name}.key`, keyed?.keyPem ?? null],
    [`${name}.crt`, keyed === null ? null : pemOf([keyed.certificate, ...keyed.above])],
  ];
}

async function readPair(state: StateFolder, name: string): Promise<KeyedCertificate | null> {
  const certificate = state.readText(`${name}.crt`);
  const key = state.readText(`${name}.key`);
  if (certificate === null && key === null) return null;
  if (certificate === null || key === null)
    throw new Error(
      `the state folder has only one of ${name}.crt and ${name}.key; put the other back, or remove both to begin a new mesh`,
    );
  try {
    return await readKeyed(certificate, key);
  } catch (error) {
    throw new Error(
      `${name}.crt or ${name}.key in the state folder cannot be read; put them back, or remove them to begin a new mesh`,
      { cause: error },
    );
  }
}
