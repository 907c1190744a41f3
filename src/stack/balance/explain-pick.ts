import type { Fields } from "#/base/fields.ts";
import type { BackendTraffic, BalancingAlgorithm, SessionPersistence } from "#/model/traffic.ts";
import { ConsistentHash } from "./consistent-hash.ts";
import type { Member } from "./member.ts";
import type { Pool } from "./pool.ts";
import { hashedPart } from "./request-fields.ts";
import { localityOf } from "./zone.ts";

/** One endpoint as a pick saw it. */
export interface ExplainedCandidate {
  readonly address: string;
  /** "" where it is not known. */
  readonly pod: string;
  readonly locality: "local" | "remote" | "unknown";
  /** 10,000 is one. */
  readonly weight: number;
  readonly pending: number;
  readonly latencyMs: number;
  /** What power of two choices compares. */
  readonly load: number;
  /** 0.1 … 1: how much of its share a new endpoint gets. */
  readonly warmth: number;
  readonly state: "in use" | "other zone" | "set aside" | "being tried" | "weight 0";
  /** Why it is set aside; "" otherwise. */
  readonly why: string;
  /** Milliseconds until one request may try it; 0 otherwise. */
  readonly forMs: number;
  /** An earlier attempt of the request went there. */
  readonly isTried: boolean;
}

/** Why a request goes where it goes. Times are relative, so that it can be shown as it is. */
export interface PickExplanation {
  readonly algorithm: BalancingAlgorithm;
  /** Where it went, or has to go; null: nowhere, or as chance has it. */
  readonly endpoint: string | null;
  /** One line for people. */
  readonly reason: string;
  /** So few are in use that all are used. */
  readonly isPanicking: boolean;
  readonly pending: number;
  readonly candidates: readonly ExplainedCandidate[];
  /** Candidates beyond the bound, not listed. */
  readonly omitted: number;
}

/** Listed so many, those first that the request may get. */
const CANDIDATES_MAX = 100;

/** What a balancer knows at the moment. */
export interface PickState<T> {
  readonly traffic: BackendTraffic;
  readonly zone: string;
  readonly client: string;
  readonly members: readonly Member<T>[];
  /** Requests under way. */
  readonly pending: number;
  /** Where requests go, and where those go that spill. */
  readonly pool: Pool<T>;
  readonly others: Pool<T>;
  readonly spills: boolean;
  readonly isPanicking: boolean;
  readonly isStrict: boolean;
  /** Of the request's session, if it has a good one. */
  /** Of the request's rule. */
  readonly persistence: SessionPersistence | null;
  readonly sessionMember: Member<T> | null;
}

/**
 * Explains a pick, or what a pick would be, and changes nothing. `picked`: whom it was; null: nobody; undefined: it is not made.
 * Looks at every endpoint: for who asks, never for each request.
 */
export function explainPick<T>(
  of: PickState<T>,
  nowMs: number,
  tried: readonly Member<T>[],
  fields: Fields | null,
  picked: Member<T> | null | undefined,
): PickExplanation {
  const { algorithm } = of.traffic.balancing;
  const candidates = of.members.map((member) => candidateOf(of, member, nowMs, tried));
  const certain = picked === undefined ? certainMember(of, tried, fields) : picked;
  const ranked = candidates.toSorted((a, b) => rank(a, certain) - rank(b, certain));
  return {
    algorithm,
    endpoint: certain?.key ?? null,
    reason:
      picked === undefined && certain === null ? prospect(of, tried) : reasonFor(of, tried, fields, certain),
    isPanicking: of.isPanicking,
    pending: of.pending,
    candidates: ranked.slice(0, CANDIDATES_MAX),
    omitted: Math.max(0, ranked.length - CANDIDATES_MAX),
  };
}

function candidateOf<T>(
  of: PickState<T>,
  member: Member<T>,
  nowMs: number,
  tried: readonly Member<T>[],
): ExplainedCandidate {
  const { endpoint, standing, pool } = member;
  const isOut = standing.aside !== "no";
  return {
    address: member.key,
    pod: endpoint.labels["pod"] ?? "",
    locality: localityOf(endpoint, of.zone),
    weight: endpoint.weight,
    pending: member.pending,
    latencyMs: member.latency.load(0, nowMs),
    load: member.load(nowMs),
    warmth: pool?.warmth(member, nowMs) ?? 1,
    state:
      pool === null
        ? "weight 0"
        : isOut
          ? standing.probedAtMs >= 0
            ? "being tried"
            : "set aside"
          : pool === of.others
            ? "other zone"
            : "in use",
    why: !isOut ? "" : standing.aside === "unreachable" ? "cannot be connected to" : "its answers failed",
    forMs: isOut ? Math.max(0, standing.untilMs - nowMs) : 0,
    isTried: tried.includes(member),
  };
}

/** Whom the request must get; null: as chance, or a turn, has it. */
function certainMember<T>(
  of: PickState<T>,
  tried: readonly Member<T>[],
  fields: Fields | null,
): Member<T> | null {
  const { sessionMember: session } = of;
  if (session !== null && session.place !== -1 && !tried.includes(session)) return session;
  const owner = ownerFor(of, fields);
  if (owner !== null && owner.place !== -1 && !tried.includes(owner)) return owner;
  const left = of.pool.active.filter((member) => !tried.includes(member));
  return left.length === 1 && !of.spills ? (left[0] as Member<T>) : null;
}

function ownerFor<T>({ pool }: PickState<T>, fields: Fields | null): Member<T> | null {
  return pool.picker instanceof ConsistentHash ? pool.picker.ownerFor(fields) : null;
}

function reasonFor<T>(
  of: PickState<T>,
  tried: readonly Member<T>[],
  fields: Fields | null,
  picked: Member<T> | null,
): string {
  const { persistence, traffic } = of;
  const { balancing } = traffic;
  if (picked === null) return nobody(of, tried);
  if (picked === of.sessionMember && persistence !== null)
    return `the session of ${persistence.kind} ${persistence.name} stays with its endpoint`;
  const { aside } = picked.standing;
  if (aside !== "no" && !(of.isPanicking && aside === "failing")) {
    return picked.standing.probedAtMs >= 0
      ? "it was set aside, its time is over, and this request tries it"
      : "nobody else is left, so one that is set aside is tried";
  }
  const where = place(of, picked);
  const key =
    balancing.algorithm === "consistent-hash" ? hashedPart(balancing.hashOn, of.client, fields) : null;
  if (key !== null) {
    const owner = ownerFor(of, fields);
    if (owner === picked) return `the key ${key} belongs to it`;
    const why =
      owner === null
        ? ""
        : owner.place === -1
          ? "is set aside"
          : tried.includes(owner)
            ? "was tried"
            : "is full";
    return `the key ${key} belongs to ${owner?.key ?? "nobody"}, which ${why}, and this is the next`;
  }
  switch (balancing.algorithm) {
    case "round-robin":
      return `it was its turn among ${where}`;
    case "random":
      return `drawn at random from ${where}`;
    case "least-request":
      return `of two drawn from ${where} it had the fewer requests under way`;
    case "p2c-ewma":
    case "consistent-hash":
      return `of two drawn from ${where} it had the lower load`;
  }
}

function prospect<T>(of: PickState<T>, tried: readonly Member<T>[]): string {
  const left = of.members.filter((member) => member.pool !== null && !tried.includes(member));
  if (left.length === 0 || (of.isStrict && left.every(({ standing }) => standing.aside === "failing")))
    return nobody(of, tried);
  return `one of ${place(of, null)}`;
}

function nobody<T>(of: PickState<T>, tried: readonly Member<T>[]): string {
  if (of.members.length === 0) return "the service has no endpoint";
  if (of.members.every((member) => tried.includes(member))) return "all endpoints were tried";
  return "all endpoints are set aside for their answers, and the policy has neither floor nor panic";
}

/** "3 of 5 endpoints in use, in the client's zone a". */
function place<T>(of: PickState<T>, picked: Member<T> | null): string {
  const isElsewhere = picked === null ? of.spills : picked.pool === of.others;
  const pool = isElsewhere ? of.others : of.pool;
  const count = `${pool.active.length} of ${pool.members.length} endpoints in use`;
  const panic = of.isPanicking ? ", with too few of them good to leave the others out" : "";
  if (of.others.members.length === 0) return `${count}${panic}`;
  return isElsewhere
    ? `${count} in other zones, as the client's own is loaded${panic}`
    : `${count} in the client's zone${panic}`;
}

function rank<T>({ address, state, isTried }: ExplainedCandidate, certain: Member<T> | null): number {
  if (address === certain?.key) return 0;
  return (state === "in use" ? 1 : state === "other zone" ? 2 : 3) + (isTried ? 3 : 0);
}
