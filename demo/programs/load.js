/**
 * Customers: requests at a constant rate, whether earlier ones were answered or not (an open loop), and none is ever
 * repeated. Waits until the front is ready; prints a line of JSON each second, and a last one on SIGTERM (or after
 * DURATION_SECONDS) when every request has its answer:
 *
 *     {"log":"load","sent":1200,"ok":1200,"failed":0,"skipped":0,"inFlight":0,"p50Ms":3.1,"p99Ms":9.8,…}
 *
 * `sent` = `ok` + `failed` + `inFlight`. `skipped` counts what was due while too much was under way, and never sent.
 */
import { randomUUID } from "node:crypto";
import { hostname } from "node:os";
import { call } from "./http-client.js";
import { describe, log, onTermination } from "./http-service.js";

const FRONT = process.env.FRONT_URL ?? "http://front";
const ratePerSecond = Number(process.env.RATE ?? 40);
/** Ends by itself after so long; 0 = goes on until SIGTERM. */
const durationSeconds = Number(process.env.DURATION_SECONDS ?? 0);
/** Services that the shop does without: what needs them becomes a look at the products. */
const leftOut = (process.env.LEFT_OUT ?? "").split(",");
const canCart = !leftOut.includes("cart");
const canBuy = canCart && !leftOut.includes("orders");
const TICK_MS = 10;
const IN_FLIGHT_MAX = 500;
const CUSTOMERS = 50;
/** The last so many durations, for the percentiles. */
const DURATIONS_MAX = 4096;

const counts = { sent: 0, ok: 0, failed: 0, skipped: 0, inFlight: 0 };
const byRoute = {};
const errors = {};
const durations = [];
let onIdle = () => {};

await frontIsReady();
const startedMs = performance.now();
let due = 0;
const ticker = setInterval(() => {
  const target = ((performance.now() - startedMs) / 1000) * ratePerSecond;
  for (; due < target; due++) {
    if (counts.inFlight >= IN_FLIGHT_MAX) counts.skipped++;
    else void visit(due);
  }
}, TICK_MS);
const reporter = setInterval(() => report("load"), 1000);

if (durationSeconds > 0) setTimeout(() => process.kill(process.pid, "SIGTERM"), durationSeconds * 1000);
onTermination(async () => {
  clearInterval(ticker);
  if (counts.inFlight > 0) await new Promise((resolve) => (onIdle = resolve));
  clearInterval(reporter);
  report("summary");
});

/** A customer comes with twenty requests: twelve look at the products, five put something into the cart, three buy. */
async function visit(number) {
  const customer = `customer${Math.floor(number / 20) % CUSTOMERS}`;
  const turn = number % 20;
  const id = randomUUID();
  if (turn < 12 || !canCart || (turn >= 17 && !canBuy)) await ask("browse", "/", { id });
  else if (turn < 17)
    await ask("cart", `/cart/${customer}`, {
      id,
      method: "POST",
      body: { productId: `p${1 + (number % 12)}` },
    });
  else await ask("buy", `/buy/${customer}`, { id, method: "POST", body: {} });
}

async function ask(route, path, options) {
  const beganMs = performance.now();
  counts.sent++;
  counts.inFlight++;
  byRoute[route] = (byRoute[route] ?? 0) + 1;
  try {
    const { status, body } = await call(`${FRONT}${path}`, options);
    if (status >= 200 && status < 300) counts.ok++;
    else failed(`${route}: ${status} ${body.slice(0, 200)}`, options.id);
  } catch (error) {
    failed(`${route}: ${describe(error)}`, options.id);
  }
  counts.inFlight--;
  durations[(counts.ok + counts.failed) % DURATIONS_MAX] = performance.now() - beganMs;
  if (counts.inFlight === 0) onIdle();
}

function failed(reason, id) {
  counts.failed++;
  // Reasons are few; should they hold an address or a number each, the first hundred tell enough.
  if (reason in errors || Object.keys(errors).length < 100) errors[reason] = (errors[reason] ?? 0) + 1;
  log({ log: "failed", id, reason });
}

function report(kind) {
  const sorted = durations.filter((each) => each !== undefined).sort((a, b) => a - b);
  const at = (share) =>
    Number((sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * share))] ?? 0).toFixed(1));
  const seconds = Number(((performance.now() - startedMs) / 1000).toFixed(1));
  log({ log: kind, pod: hostname(), seconds, ...counts, p50Ms: at(0.5), p99Ms: at(0.99), byRoute, errors });
}

async function frontIsReady() {
  process.once("SIGTERM", () => process.exit(0));
  for (let isReady = false; !isReady;) {
    try {
      isReady = (await call(`${FRONT}/readyz`, { id: "readiness" })).status === 200;
    } catch {
      // Not there yet.
    }
    if (!isReady) await new Promise((resolve) => setTimeout(resolve, 250));
  }
  process.removeAllListeners("SIGTERM");
  log({ log: "front is ready", pod: hostname() });
}
