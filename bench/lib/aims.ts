import { CROWD, type CrowdRow } from "./crowd.ts";
import { isPeerPair, type Results, type Row } from "./results.ts";

/** Something that Pillion is to reach, and what one run says about it. */
export interface Aim {
  readonly what: string;
  /** "≤ 0.50 ×" … */
  readonly wanted: string;
  readonly reached: string;
  /** Null where the run did not measure it. */
  readonly isMet: boolean | null;
}

export const OURS = "Pillion pair, mTLS";
const LINKERD = "linkerd2-proxy pair, mTLS";
const ENVOY = "Envoy pair, mTLS";

type Measure = (row: Row) => number | null;
const cpu: Measure = (row) => row.cpuSumUs?.median ?? null;
const rate: Measure = (row) => row.perSecond.median;
const p99: Measure = (row) => row.p99Us.median;

/**
 * What was aimed at, each beside what was reached, in medians. "The peers": for costs the cheapest other pair, for rates the quickest.
 */
export function aimsOf(results: Results): Aim[] {
  const of = (shape: string, subject: string, measure: Measure): number | null => {
    const row = results.rows.find((one) => one.shape === shape && one.subject === subject);
    return row === undefined ? null : measure(row);
  };
  const ofPeers = (shape: string, measure: Measure): number[] =>
    results.rows
      .filter((row) => row.shape === shape && isPeerPair(row.subject))
      .flatMap((row) => measure(row) ?? []);
  const ratio = (a: number | null, b: number | null): number | null =>
    a === null || b === null || b === 0 || !Number.isFinite(b) ? null : a / b;
  const atMost = (what: string, bound: number, reached: number | null): Aim =>
    aim(what, `≤ ${bound.toFixed(2)} ×`, reached, reached === null ? null : reached <= bound);
  const atLeast = (what: string, bound: number, reached: number | null): Aim =>
    aim(what, `≥ ${bound.toFixed(2)} ×`, reached, reached === null ? null : reached >= bound);
  const cheapest = (shape: string): number | null =>
    ratio(of(shape, OURS, cpu), Math.min(...ofPeers(shape, cpu)));
  const quickest = (shape: string): number | null =>
    ratio(of(shape, OURS, rate), Math.max(...ofPeers(shape, rate)));
  const against = (shape: string, peer: string, measure: Measure): number | null =>
    ratio(of(shape, OURS, measure), of(shape, peer, measure));
  const { reference } = results;
  return [
    atMost("CPU a request, HTTP/1.1, 64 connections, of the cheaper peer's", 0.5, cheapest("h1-64")),
    atMost("CPU a request, HTTP/1.1, 512 connections, of the cheaper peer's", 0.5, cheapest("h1-512")),
    atMost("CPU a request, HTTP/1.1, 8 connections, of the cheaper peer's", 0.65, cheapest("h1-8")),
    atMost(
      "CPU a request, HTTP/1.1, open loop of 1,000 requests/s, of the cheaper peer's",
      0.8,
      cheapest("open-1000"),
    ),
    atLeast("Requests a second, HTTP/1.1, 64 connections, of the quicker peer's", 1.8, quickest("h1-64")),
    atMost(
      `p99 at 50 % of ${reference?.subject.replace(/ pair.*$/, "") ?? "a peer"}'s capacity, of its own`,
      0.8,
      reference === null ? null : against("open-50%", reference.subject, p99),
    ),
    atMost("CPU a call, gRPC unary, of linkerd2-proxy's", 0.6, against("grpc-unary-4x16", LINKERD, cpu)),
    atMost(
      "CPU a message, gRPC streaming, of linkerd2-proxy's",
      0.6,
      against("grpc-stream-64", LINKERD, cpu),
    ),
    ...(["download", "upload"] as const).flatMap((way) => [
      atMost(`CPU a byte, opaque ${way}, of linkerd2-proxy's`, 0.8, against(`tcp-${way}`, LINKERD, cpu)),
      atLeast(
        `Bytes a second, opaque ${way}, of linkerd2-proxy's`,
        1.7,
        against(`tcp-${way}`, LINKERD, rate),
      ),
      atMost(`CPU a byte, opaque ${way}, of Envoy's`, 1, against(`tcp-${way}`, ENVOY, cpu)),
      atLeast(`Bytes a second, opaque ${way}, of Envoy's`, 1, against(`tcp-${way}`, ENVOY, rate)),
    ]),
    atMost(
      "CPU a round trip, small opaque messages, 1 connection, of linkerd2-proxy's",
      1,
      against("tcp-ping-1", LINKERD, cpu),
    ),
    atMost(
      "CPU a round trip, small opaque messages, 64 connections, of linkerd2-proxy's",
      1,
      against("tcp-ping-64", LINKERD, cpu),
    ),
    atLeast("New opaque connections a second, of linkerd2-proxy's", 2, against("tcp-connect", LINKERD, rate)),
    ...memoryAims(results, atMost),
    ...(results.letThrough === null
      ? [atLeast("Connections let through: bytes, connections and requests a second, of no mesh", 0.98, null)]
      : results.letThrough.rows.map(({ shape, ratio: reached }) =>
          atLeast(`Connections let through, ${shape}, of no mesh`, 0.98, reached.median),
        )),
    readyAim(results),
  ];
}

function memoryAims(
  { crowd, memory }: Results,
  atMost: (what: string, bound: number, reached: number | null) => Aim,
): Aim[] {
  const pss = (name: string): number | null =>
    crowd.find((row: CrowdRow) => row.subject === name)?.pssKib.median ?? null;
  const ratio = (a: number | null, b: number | null): number | null =>
    a === null || b === null || b === 0 ? null : a / b;
  const idle = (subject: string, speech: "http1" | "tcp"): number | null => {
    const costs = memory.filter((row) => row.subject === subject).map((row) => row.idleKib[speech]);
    return costs.length === 0 || costs.includes(null)
      ? null
      : costs.reduce<number>((sum, one) => sum + (one ?? 0), 0);
  };
  const growth = memory
    .filter((row) => row.subject === OURS && row.roundsRssKib.length >= 3)
    .map(({ roundsRssKib: rounds }) => rounds.at(-1)! / rounds[(rounds.length - 1) >> 1]!);
  return [
    atMost(
      `PSS of a fresh sidecar, ${CROWD} on the machine, of Envoy's`,
      0.5,
      ratio(pss("Pillion"), pss("Envoy")),
    ),
    atMost(
      `PSS of a fresh sidecar, ${CROWD} on the machine, of linkerd2-proxy's`,
      1,
      ratio(pss("Pillion"), pss("linkerd2-proxy")),
    ),
    atMost(
      "Memory an idle HTTP/1.1 connection adds, of linkerd2-proxy's",
      1,
      ratio(idle(OURS, "http1"), idle(LINKERD, "http1")),
    ),
    atMost(
      "Memory an idle opaque connection adds, of linkerd2-proxy's",
      1,
      ratio(idle(OURS, "tcp"), idle(LINKERD, "tcp")),
    ),
    atMost(
      "Memory under load in the last round, of that in the middle one",
      1.05,
      growth.length === 0 ? null : Math.max(...growth),
    ),
  ];
}

const READY_MS = 250;

function readyAim({ crowd }: Results): Aim {
  const ms = crowd.find((row) => row.subject === "Pillion")?.readyMs.median ?? null;
  return {
    what: `From exec to ready, the median of ${CROWD}`,
    wanted: `≤ ${READY_MS} ms`,
    reached: ms === null ? "" : `${ms.toFixed(0)} ms`,
    isMet: ms === null ? null : ms <= READY_MS,
  };
}

function aim(what: string, wanted: string, reached: number | null, isMet: boolean | null): Aim {
  return { what, wanted, reached: reached === null ? "" : `${reached.toFixed(2)} ×`, isMet };
}

/** What stands in a table. */
export function verdictOf({ isMet }: Aim): string {
  return isMet === null ? "not measured" : isMet ? "met" : "**missed**";
}
