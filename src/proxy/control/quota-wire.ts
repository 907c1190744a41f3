import type { ShareGrant } from "#/stack/limits/quota-share.ts";
import { latin1Bytes } from "#/wire/latin1.ts";
import { ProtoReader, ProtoWriter } from "#/wire/proto.ts";
import type { QuotaAnswer, QuotaReport } from "./control-api.ts";

/** `quota.LeaseRequest`. */
export function encodeQuotaRequest(workload: string, reports: readonly QuotaReport[]): ProtoWriter {
  const request = new ProtoWriter().text(1, workload);
  for (const limit of byLimit(reports)) {
    const [first] = limit as [QuotaReport];
    const message = new ProtoWriter().uint(1, first.port).text(2, first.limitId);
    for (const { key, report } of limit) {
      const share = new ProtoWriter()
        .bytes(1, latin1Bytes(key ?? ""))
        .uint(2, key === null ? 1 : 0)
        .uint(3, count(report.held))
        .uint(4, count(report.returned))
        .uint(5, count(report.wanted))
        .uint(6, count(report.demandPerSecond * 1_000))
        .uint(7, count(report.overdraft));
      message.message(3, share);
    }
    request.message(2, message);
  }
  return request;
}

/** `quota.LeaseResponse`; null when it is not an answer to these reports. */
export function decodeQuotaAnswer(bytes: Uint8Array, reports: readonly QuotaReport[]): QuotaAnswer | null {
  const reader = new ProtoReader(bytes);
  let intervalMs = 0;
  const limits: (readonly ShareGrant[] | null)[] = [];
  while (reader.next()) {
    if (reader.field === 1) intervalMs = reader.uint();
    else if (reader.field === 2) {
      const shares = decodeLimit(reader.message());
      if (shares === "bad") return null;
      limits.push(shares);
    }
  }
  const asked = byLimit(reports);
  if (reader.error !== null || intervalMs === 0 || limits.length !== asked.length) return null;
  const grants: (ShareGrant | null)[] = [];
  for (const [i, limit] of asked.entries()) {
    const shares = limits[i] ?? null;
    if (shares !== null && shares.length !== limit.length) return null;
    for (let at = 0; at < limit.length; at++) grants.push(shares?.[at] ?? null);
  }
  return { intervalMs, grants };
}

function decodeLimit(reader: ProtoReader): readonly ShareGrant[] | null | "bad" {
  let isKnown = false;
  let replicas = 1;
  const shares: { granted: number; waitMs: number }[] = [];
  while (reader.next()) {
    if (reader.field === 1) isKnown = reader.flag();
    else if (reader.field === 2) replicas = reader.uint();
    else if (reader.field === 3) {
      const share = reader.message();
      let granted = 0;
      let waitMs = 0;
      while (share.next()) {
        if (share.field === 1) granted = share.uint();
        else if (share.field === 2) waitMs = share.uint();
      }
      if (share.error !== null) return "bad";
      shares.push({ granted, waitMs });
    }
  }
  if (reader.error !== null) return "bad";
  return isKnown ? shares.map((share) => ({ ...share, replicas })) : null;
}

/** Neighbours of one limit together. */
function byLimit(reports: readonly QuotaReport[]): QuotaReport[][] {
  const limits: QuotaReport[][] = [];
  for (const report of reports) {
    const last = limits.at(-1);
    if (last?.[0]?.port === report.port && last[0].limitId === report.limitId) last.push(report);
    else limits.push([report]);
  }
  return limits;
}

function count(value: number): number {
  return Math.min(UINT32_MAX, Math.max(0, Math.round(value)));
}

const UINT32_MAX = 0xffff_ffff;
