import { xmlText } from "#/base/xml-text.ts";
import type { Reach } from "#/model/access-explanation.ts";
import { serverName } from "./matrix-text.ts";
import type { SeenMatrix } from "./matrix-text.ts";

/** The matrix as one picture, written as text (decision 10). Told apart by shape too, not by colour alone. */
export function matrixSvg({ clients, servers, cells, seen }: SeenMatrix): string {
  const left = 20 + 7 * Math.max(10, ...servers.map((server) => shortened(serverName(server)).length));
  const top = 40 + 5 * Math.max(10, ...clients.map(({ name }) => shortened(name).length));
  const width = left + clients.length * CELL + 140;
  const height = top + servers.length * CELL + 60;
  const parts: string[] = [];
  clients.forEach(({ name }, i) => {
    const x = left + i * CELL + CELL / 2;
    parts.push(`<text transform="translate(${x} ${top - 8}) rotate(-45)">${xmlText(shortened(name))}</text>`);
  });
  servers.forEach((server, row) => {
    const y = top + row * CELL;
    parts.push(
      `<text x="${left - 8}" y="${y + CELL / 2 + 4}" text-anchor="end">${xmlText(shortened(serverName(server)))}</text>`,
    );
    clients.forEach((client, column) => {
      const { reach, proposed } = cells[column]![row]!;
      const count = seen[column]?.[row] ?? 0;
      const told = `${client.name} to ${serverName(server)}: ${reach}${proposed === reach ? "" : `, enforced ${proposed}`}${count === 0 ? "" : `, seen ${count} times`}`;
      parts.push(
        `<g><title>${xmlText(told)}</title>${cell(left + column * CELL, y, reach, proposed, count > 0)}</g>`,
      );
    });
  });
  const y = top + servers.length * CELL + 24;
  const legend: readonly (readonly [string, string])[] = [
    ["allowed", cell(left, y, "allowed", "allowed", false)],
    ["partly", cell(left + 110, y, "partly", "partly", false)],
    ["denied", cell(left + 220, y, "denied", "denied", false)],
    ["seen", cell(left + 330, y, "allowed", "allowed", true)],
    ["denied once enforced", cell(left + 440, y, "allowed", "denied", false)],
  ];
  legend.forEach(([name, drawn], i) =>
    parts.push(drawn, `<text x="${left + i * 110 + CELL + 4}" y="${y + CELL / 2 + 4}">${name}</text>`),
  );
  return [
    `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${Math.max(width, left + 640)} ${height}" font-family="sans-serif" font-size="11">`,
    `<rect width="100%" height="100%" fill="#fff"/>`,
    ...parts,
    "</svg>\n",
  ].join("\n");
}

function cell(x: number, y: number, reach: Reach, proposed: Reach, isSeen: boolean): string {
  const size = CELL - 2;
  const parts = [`<rect x="${x}" y="${y}" width="${size}" height="${size}" fill="#f4f4f4"/>`];
  const filled = { allowed: size, partly: size / 2, denied: 0 }[reach];
  if (filled > 0)
    parts.push(
      `<rect x="${x}" y="${y + size - filled}" width="${size}" height="${filled}" fill="${COLORS[reach]}"/>`,
    );
  if (proposed !== reach)
    parts.push(
      `<path d="M${x} ${y}l${size} ${size}m0 ${-size}l${-size} ${size}" stroke="${COLORS.denied}" stroke-width="2"/>`,
    );
  if (isSeen)
    parts.push(`<circle cx="${x + size / 2}" cy="${y + size / 2}" r="4" fill="#fff" stroke="#000"/>`);
  return parts.join("");
}

function shortened(name: string): string {
  return name.length > NAME_CHARS_MAX ? `${name.slice(0, NAME_CHARS_MAX)}…` : name;
}

const CELL = 26;
const NAME_CHARS_MAX = 40;
/** By Okabe and Ito (2008): told apart by all eyes. */
const COLORS: Readonly<Record<Reach, string>> = { allowed: "#009e73", partly: "#e69f00", denied: "#d55e00" };
