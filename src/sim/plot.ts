import { xmlText } from "#/base/xml-text.ts";
import type { Report } from "./report.ts";

/**
 * Draws a report as one SVG: for the requests of each sender, success and latency over time, and the load on each service's
 * endpoints, with the time of the failure shaded. Some hundred lines of text, so that no package is needed (decision 10).
 */
export function plotOf(report: Report): string {
  const panels: Panel[] = [];
  const { binMs, flows, services } = report.curves;
  panels.push({
    title: "requests answered well, of all (%)",
    max: 100,
    lines: flows.map((flow) => ({
      name: `${flow.from} → ${short(flow.to)}`,
      values: flow.successRate.map((share) => (share === null ? null : share * 100)),
    })),
  });
  panels.push({
    title: "99th percentile of the time to answer (ms)",
    max: null,
    lines: flows.map((flow) => ({ name: `${flow.from} → ${short(flow.to)}`, values: flow.p99Ms })),
  });
  panels.push({
    title: "requests that reach a service, retries included (a second)",
    max: null,
    lines: services.map((service) => ({ name: short(service.service), values: service.attemptsPerSecond })),
  });
  const height = panels.length * PANEL_HEIGHT + 20;
  const during = report.phases.find((phase) => phase.name === "during") ?? null;
  const parts = panels.map((panel, i) =>
    drawPanel(panel, i * PANEL_HEIGHT, report.durationMs, binMs, during),
  );
  return [
    `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${WIDTH} ${height}" font-family="sans-serif" font-size="11">`,
    `<rect width="${WIDTH}" height="${height}" fill="#fff"/>`,
    ...parts,
    "</svg>\n",
  ].join("\n");
}

interface Panel {
  readonly title: string;
  /** Of the axis; null: by the values. */
  readonly max: number | null;
  readonly lines: readonly { readonly name: string; readonly values: readonly (number | null)[] }[];
}

function drawPanel(
  panel: Panel,
  top: number,
  durationMs: number,
  binMs: number,
  during: { readonly fromMs: number; readonly toMs: number } | null,
): string {
  const step = niceStep(
    (panel.max ?? Math.max(1e-3, ...panel.lines.flatMap((line) => line.values.map(Number)))) / 4,
  );
  const highest = Math.max(...panel.lines.flatMap((line) => line.values.map(Number)), 0);
  const max = panel.max ?? step * Math.max(1, Math.ceil(highest / step));
  const x = (ms: number): string => (LEFT + (ms / durationMs) * (WIDTH - LEFT - RIGHT)).toFixed(1);
  const y = (value: number): string => (top + PANEL_HEIGHT - BOTTOM - (value / max) * PLOT_HEIGHT).toFixed(1);
  const out: string[] = [
    `<text x="${LEFT}" y="${top + 16}" font-weight="bold">${xmlText(panel.title)}</text>`,
  ];
  if (during !== null)
    out.push(
      `<rect x="${x(during.fromMs)}" y="${y(max)}" width="${(Number(x(during.toMs)) - Number(x(during.fromMs))).toFixed(1)}" height="${PLOT_HEIGHT}" fill="#fbe9e7"/>`,
    );
  for (let value = 0; value <= max * 1.0001; value += step) {
    out.push(`<path d="M${LEFT} ${y(value)}H${WIDTH - RIGHT}" stroke="#ddd"/>`);
    out.push(
      `<text x="${LEFT - 6}" y="${Number(y(value)) + 4}" text-anchor="end">${Number(value.toPrecision(6))}</text>`,
    );
  }
  const stepMs = niceStep(durationMs / 8_000) * 1_000;
  for (let ms = 0; ms <= durationMs; ms += stepMs)
    out.push(
      `<text x="${x(ms)}" y="${top + PANEL_HEIGHT - BOTTOM + 15}" text-anchor="middle">${Number((ms / 1_000).toPrecision(6))} s</text>`,
    );
  panel.lines.forEach((line, i) => {
    const color = COLORS[i % COLORS.length]!;
    out.push(
      `<path d="${pathOf(line.values, binMs, x, y)}" fill="none" stroke="${color}" stroke-width="1.5"/>`,
    );
    const at = top + 30 + i * 15;
    if (i < LEGEND_MAX)
      out.push(
        `<text x="${WIDTH - RIGHT + 10}" y="${at}" fill="${color}">${xmlText(line.name.slice(0, NAME_CHARS_MAX))}</text>`,
      );
    else if (i === LEGEND_MAX)
      out.push(`<text x="${WIDTH - RIGHT + 10}" y="${at}">… ${panel.lines.length - LEGEND_MAX} more</text>`);
  });
  return out.join("\n");
}

/** Where there is no value the line is broken. */
function pathOf(
  values: readonly (number | null)[],
  binMs: number,
  x: (ms: number) => string,
  y: (value: number) => string,
): string {
  let path = "";
  let isDown = false;
  values.forEach((value, i) => {
    if (value !== null) path += `${isDown ? "L" : "M"}${x((i + 0.5) * binMs)} ${y(value)}`;
    isDown = value !== null;
  });
  return path;
}

/** The next of 1, 2, 5, 10, 20, … that is no less. */
function niceStep(least: number): number {
  const power = 10 ** Math.floor(Math.log10(least));
  for (const factor of [1, 2, 5]) if (factor * power >= least * 0.999_999) return factor * power;
  return 10 * power;
}

function short(path: string): string {
  return path.replace(/\.svc\.[^:]*/, "");
}

const WIDTH = 960;
const LEFT = 60;
const RIGHT = 260;
const PANEL_HEIGHT = 210;
const BOTTOM = 30;
const PLOT_HEIGHT = PANEL_HEIGHT - BOTTOM - 25;
const LEGEND_MAX = 10;
const NAME_CHARS_MAX = 40;
/** By Okabe and Ito (2008): told apart by all eyes. */
const COLORS = ["#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000"];
