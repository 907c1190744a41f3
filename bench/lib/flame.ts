import { xmlText } from "#/base/xml-text.ts";
import { shortened, type Profile, type ProfileNode } from "./profile.ts";

const WIDTH = 1_200;
const ROW_HEIGHT = 15;
/** Boxes narrower than this, in units of the picture, are left out with all above them. */
const NARROWEST = 1;
const LETTER_WIDTH = 6;

interface Box {
  readonly node: ProfileNode;
  readonly x: number;
  readonly depth: number;
}

/**
 * A profile as a flame graph: who called whom from the top down, each as wide as the time spent in it and below, what was idle left
 * out. A pointer on a box shows its name and share. The same profile gives the same bytes.
 */
export function flameOf(profile: Profile): string {
  const byId = new Map(profile.nodes.map((node) => [node.id, node]));
  const selfUs = new Map<number, number>();
  profile.samples.forEach((id, i) => selfUs.set(id, (selfUs.get(id) ?? 0) + (profile.timeDeltas[i] ?? 0)));
  const totals = new Map<number, number>();
  // Parents stand before their children in the file.
  for (const node of profile.nodes.toReversed()) {
    const isIdle = node.callFrame.functionName === "(idle)";
    const below = (node.children ?? []).reduce((sum, id) => sum + (totals.get(id) ?? 0), 0);
    totals.set(node.id, below + (isIdle ? 0 : (selfUs.get(node.id) ?? 0)));
  }
  const root = profile.nodes[0];
  const allUs = root === undefined ? 0 : (totals.get(root.id) ?? 0);
  const parts: string[] = [];
  let deepest = 0;
  const waiting: Box[] = root === undefined || allUs === 0 ? [] : [{ node: root, x: 0, depth: 0 }];
  for (let box = waiting.pop(); box !== undefined; box = waiting.pop()) {
    const totalUs = totals.get(box.node.id) ?? 0;
    const width = (totalUs / allUs) * WIDTH;
    if (width < NARROWEST) continue;
    deepest = Math.max(deepest, box.depth);
    parts.push(drawn(box, width, totalUs / allUs));
    let { x } = box;
    for (const id of box.node.children ?? []) {
      const node = byId.get(id);
      if (node === undefined) continue;
      waiting.push({ node, x, depth: box.depth + 1 });
      x += ((totals.get(id) ?? 0) / allUs) * WIDTH;
    }
  }
  const height = (deepest + 1) * ROW_HEIGHT;
  return `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${WIDTH} ${height}" font-family="monospace" font-size="10">\n${parts.join("\n")}\n</svg>\n`;
}

function drawn({ node, x, depth }: Box, width: number, share: number): string {
  const { functionName, url, lineNumber } = node.callFrame;
  const file = shortened(url);
  const name = `${functionName || "(anonymous)"}${file === "" ? "" : ` ${file}:${lineNumber + 1}`}`;
  const y = depth * ROW_HEIGHT;
  const letters = Math.floor((width - 4) / LETTER_WIDTH);
  const label =
    letters < 3
      ? ""
      : `<text x="${(x + 2).toFixed(1)}" y="${y + ROW_HEIGHT - 4}">${xmlText(name.slice(0, letters))}</text>`;
  // Node's own functions, ours, and what has no source are told apart.
  const colour = file === "" ? "#c9c9c9" : file.startsWith("node:") ? "#9fc5e8" : "#f6b26b";
  return `<g><title>${xmlText(name)}, ${(share * 100).toFixed(1)} %</title><rect x="${x.toFixed(1)}" y="${y}" width="${width.toFixed(1)}" height="${ROW_HEIGHT - 1}" fill="${colour}"/>${label}</g>`;
}
