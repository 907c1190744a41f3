import assert from "node:assert/strict";
import { test } from "node:test";
import { aimsOf, verdictOf, type Aim } from "./aims.ts";
import type { CrowdRow } from "./crowd.ts";
import type { MemoryRow, Results, Row } from "./results.ts";
import { flat, NO_RESULTS } from "./testing.ts";

function row(shape: string, subject: string, cpuUs: number, perSecond: number, p99Us = 1_000): Row {
  return {
    shape,
    unit: "request",
    subject,
    cpuUs: [],
    cpuSumUs: flat(cpuUs),
    perSecond: flat(perSecond),
    instructions: null,
    wireBytes: flat(1),
    p50Us: flat(1),
    p99Us: flat(p99Us),
    p999Us: flat(1),
    failed: 0,
  };
}

const OURS = "Pillion pair, mTLS";
const LINKERD = "linkerd2-proxy pair, mTLS";
const ENVOY = "Envoy pair, mTLS";

function aimOn(results: Partial<Results>, what: RegExp): Aim {
  const found = aimsOf({ ...NO_RESULTS, ...results }).find((aim) => what.test(aim.what));
  assert(found !== undefined, `no aim is about ${what}`);
  return found;
}

test("nothing that was not measured is met or missed", () => {
  for (const aim of aimsOf(NO_RESULTS)) assert.deepEqual([aim.isMet, verdictOf(aim)], [null, "not measured"]);
});

test("CPU is held against the cheaper peer, throughput against the quicker one", () => {
  const rows = [
    row("h1-64", OURS, 50, 1_700),
    row("h1-64", LINKERD, 100, 500),
    row("h1-64", ENVOY, 90, 1_000),
    row("h1-64", "prototype pair, mTLS", 10, 9_000),
  ];
  const cpu = aimOn({ rows }, /^CPU a request/);
  assert.deepEqual([cpu.reached, cpu.isMet], ["0.56 ×", false]);
  const rate = aimOn({ rows }, /^Requests a second/);
  assert.deepEqual([rate.reached, rate.isMet], ["1.70 ×", false]);
  const better = [row("h1-64", OURS, 44, 1_800), ...rows.slice(1)];
  assert.equal(aimOn({ rows: better }, /^CPU a request/).isMet, true);
  assert.equal(aimOn({ rows: better }, /^Requests a second/).isMet, true);
});

test("latency at half of a peer's capacity is held against that peer's", () => {
  const rows = [
    row("open-50%", OURS, 1, 1, 900),
    row("open-50%", ENVOY, 1, 1, 1_000),
    row("open-50%", LINKERD, 1, 1, 2_000),
  ];
  const reference = { subject: LINKERD, perSecond: 10 };
  const aim = aimOn({ rows, reference }, /^p99/);
  assert.deepEqual(
    [aim.what, aim.reached, aim.isMet],
    ["p99 at 50 % of linkerd2-proxy's capacity, of its own", "0.45 ×", true],
  );
});

test("memory of one among many is held against each peer's", () => {
  const one = (subject: string, pssKib: number): CrowdRow => ({
    subject,
    count: 20,
    readyMs: flat(251),
    rssKib: flat(1),
    pssKib: flat(pssKib),
    privateKib: flat(1),
    idleMsPerSecond: flat(0),
  });
  const crowd = [one("Pillion", 10), one("Envoy", 30), one("linkerd2-proxy", 5)];
  assert.equal(aimOn({ crowd }, /^PSS .* Envoy's$/).isMet, true);
  const missed = aimOn({ crowd }, /^PSS .* linkerd2-proxy's$/);
  assert.deepEqual([missed.reached, verdictOf(missed)], ["2.00 ×", "**missed**"]);
  const ready = aimOn({ crowd }, /^From exec/);
  assert.deepEqual([ready.reached, ready.isMet], ["251 ms", false]);
});

test("growth is that of the worse of both sidecars", () => {
  const used = (rssKib: number) => ({ rssKib, pssKib: 1, privateKib: 1 });
  const of = (role: string, roundsRssKib: number[]): MemoryRow => ({
    subject: OURS,
    role,
    readyMs: 1,
    fresh: used(50),
    roundsRssKib,
    loaded: used(100),
    idleKib: { http1: null, tcp: null },
  });
  const memory = [of("client", [50, 90, 100, 100, 100]), of("server", [50, 60, 100, 110, 120])];
  const growth = aimOn({ memory }, /^Memory under load/);
  assert.deepEqual([growth.reached, growth.isMet], ["1.20 ×", false]);
  assert.equal(aimOn({ memory: [of("client", [50, 100])] }, /^Memory under load/).isMet, null);
  assert.equal(aimOn({ memory }, /^Memory an idle HTTP/).isMet, null);
});

test("each kind of connection that is let through has its own aim", () => {
  const through = (shape: string, ratio: number) => ({
    shape,
    without: flat(100),
    hooked: flat(100 * ratio),
    ratio: flat(ratio),
    hooks: [],
  });
  const letThrough = {
    rows: [through("bytes", 0.99), through("connections", 0.9)],
    connections: { client: 3, server: 3 },
    bytesIn: 0,
  };
  assert.equal(aimOn({ letThrough }, /let through, bytes/).isMet, true);
  assert.equal(aimOn({ letThrough }, /let through, connections/).isMet, false);
});
