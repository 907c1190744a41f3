import { xmlText } from "#/base/xml-text.ts";
import { bestRatio, PLOTTED, type Plotted, type Results } from "./results.ts";
import { SHAPES } from "./shapes.ts";

const LABEL_WIDTH = 150;
const BAR_WIDTH = 420;
const BAR_HEIGHT = 9;
const GAP = 12;
/** Bars beyond are cut, and say so by their figure. */
const RATIO_MAX = 3;
const COLOURS = ["#9aa5b1", "#c2a878", "#7a7a7a", "#b7410e", "#3f7d4e", "#1b6ca8", "#8e5ea2"];

/** Horizontal bars by shape, against the best of the peer pairs, whose line is 1. The same results give the same bytes. */
export function plotOf(results: Results, what: Plotted): string {
  const subjects = [
    ...new Set(results.rows.filter((row) => row.cpuSumUs !== null).map((row) => row.subject)),
  ];
  const parts = [text(LABEL_WIDTH, 9, `${PLOTTED[what].title}, × the best peer's`, "start")];
  let y = 20;
  for (const { name } of SHAPES) {
    const rows = results.rows.filter(
      (row) => row.shape === name && row.cpuSumUs !== null && bestRatio(row, results.rows, what) !== null,
    );
    if (rows.length === 0) continue;
    parts.push(text(LABEL_WIDTH - 8, y + BAR_HEIGHT, name, "end"));
    for (const row of rows) {
      parts.push(...bar(y, bestRatio(row, results.rows, what) ?? 0, subjects.indexOf(row.subject)));
      y += BAR_HEIGHT + 2;
    }
    y += GAP;
  }
  const one = LABEL_WIDTH + BAR_WIDTH / RATIO_MAX;
  parts.push(`<path d="M${one} 10V${y}" stroke="#000" stroke-dasharray="3 3"/>`);
  for (const [i, subject] of subjects.entries()) {
    y += 14;
    parts.push(
      `<rect x="${LABEL_WIDTH}" y="${y - 9}" width="10" height="10" fill="${colour(i)}"/>`,
      text(LABEL_WIDTH + 16, y, subject, "start"),
    );
  }
  const width = LABEL_WIDTH + BAR_WIDTH + 60;
  return `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${width} ${y + 12}" font-family="sans-serif" font-size="10">\n${parts.join("\n")}\n</svg>\n`;
}

function bar(y: number, ratio: number, subject: number): string[] {
  const width = (Math.min(ratio, RATIO_MAX) / RATIO_MAX) * BAR_WIDTH;
  return [
    `<rect x="${LABEL_WIDTH}" y="${y}" width="${width.toFixed(1)}" height="${BAR_HEIGHT}" fill="${colour(subject)}"/>`,
    text(LABEL_WIDTH + width + 4, y + BAR_HEIGHT - 1, ratio.toFixed(2), "start"),
  ];
}

function colour(index: number): string {
  return COLOURS[index % COLOURS.length]!;
}

function text(x: number, y: number, content: string, anchor: "start" | "end"): string {
  return `<text x="${x.toFixed(1)}" y="${y}" text-anchor="${anchor}">${xmlText(content)}</text>`;
}
