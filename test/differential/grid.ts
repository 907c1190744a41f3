/**
 * What may vary about a request, an axis a line. A cell is one value of each axis; every cell that makes sense is drawn at
 * least once in a whole run. What an axis' value stands for is drawn anew for each case (`draw.ts`).
 */
export const GRID = {
  method: ["GET", "HEAD", "POST", "PUT", "OPTIONS", "other"],
  framing: ["none", "length", "chunked", "expect", "1.0"],
  size: ["empty", "small", "buffer", "large"],
  reuse: ["single", "kept", "pipelined"],
  oddity: ["plain", "names", "values", "many", "target", "hop"],
  close: ["none", "half", "gone", "early", "cut"],
} as const;

export type Cell = { readonly [Axis in keyof typeof GRID]: (typeof GRID)[Axis][number] };

export const CELLS: readonly Cell[] = product().filter(makesSense);

/** A cell in one word. */
export function nameOf(cell: Cell): string {
  return Object.values(cell).join(" ");
}

function product(): Cell[] {
  let cells: Record<string, string>[] = [{}];
  for (const [axis, values] of Object.entries(GRID))
    cells = cells.flatMap((cell) => values.map((value) => ({ ...cell, [axis]: value })));
  return cells as unknown as Cell[];
}

function makesSense({ method, framing, size, reuse, close }: Cell): boolean {
  if (framing === "none" && size !== "empty") return false;
  // Nobody waits for leave to send nothing.
  if (framing === "expect" && size === "empty") return false;
  // A client that sends all at once waits for nothing in between.
  if (reuse === "pipelined" && (framing === "expect" || close === "early" || close === "gone")) return false;
  // HTTP/1.0 knows no pipelining (RFC 9112 §9.3.2).
  if (reuse === "pipelined" && framing === "1.0") return false;
  // There has to be a body that the answer is early for.
  if (close === "early" && size === "empty") return false;
  // The answer to HEAD has no body in which a client of HTTP/1.0, or one without a body, could leave.
  if (close === "gone" && method === "HEAD" && (framing === "none" || framing === "1.0" || size === "empty"))
    return false;
  // A client that waits for leave has not yet anything to break off.
  return !(close === "gone" && framing === "expect");
}

/** The grid as a table: a line for each method, framing and size, a column for each early close, and how many cases fell in. */
export function printGrid(counts: ReadonlyMap<string, number>): string {
  const axes = Object.entries(GRID).map(([axis, values]) => `  ${axis.padEnd(8)} ${values.join(" · ")}`);
  const lines: string[] = [];
  for (const method of GRID.method)
    for (const framing of GRID.framing)
      for (const size of GRID.size) {
        const columns = GRID.close.map((close) => {
          const cells = CELLS.filter(
            (cell) =>
              cell.method === method &&
              cell.framing === framing &&
              cell.size === size &&
              cell.close === close,
          );
          const drawn = cells.map((cell) => counts.get(nameOf(cell)) ?? 0);
          if (cells.length === 0) return "–".padStart(16);
          const covered = drawn.filter((count) => count > 0).length;
          return `${covered}/${cells.length}: ${drawn.reduce((sum, count) => sum + count, 0)}`.padStart(16);
        });
        if (columns.some((column) => !column.includes("–")))
          lines.push(`  ${method.padEnd(8)}${framing.padEnd(8)}${size.padEnd(8)}${columns.join("")}`);
      }
  const header = `  ${"method".padEnd(8)}${"framing".padEnd(8)}${"size".padEnd(8)}${GRID.close
    .map((close) => `close ${close}`.padStart(16))
    .join("")}`;
  return [
    "The grid: each cell is one value of each axis,",
    ...axes,
    "and the columns say how many of the cells (of all reuses and oddities) were covered, by how many cases.",
    header,
    ...lines,
  ].join("\n");
}
