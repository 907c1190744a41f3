import { SeededRandom } from "#/base/random.ts";
import {
  ANSWER_FIELD,
  ORIGINS,
  type Case,
  type Conversation,
  type Field,
  type OriginName,
  type Recipe,
} from "./case.ts";
import { drawFields, drawTarget, drawTrailers } from "./draw-oddities.ts";
import { CELLS, nameOf, type Cell } from "./grid.ts";

/** What an origin can do beside answering. */
const CLOSES: Readonly<Record<OriginName, readonly Cell["close"][]>> = {
  node: ["none", "half", "gone", "early", "cut"],
  bytes: ["none", "half", "gone", "early", "cut"],
  python: ["none", "half", "gone", "early", "cut"],
  // Reads on before it answers early.
  go: ["none", "half", "gone", "cut"],
  nginx: ["none", "half"],
  apache: ["none", "half"],
  haproxy: ["none", "half"],
  "haproxy-node": ["none", "half"],
};
/** Those that are told by a recipe what to answer. */
const TOLD: ReadonlySet<OriginName> = new Set(["node", "bytes", "python", "go", "haproxy-node"]);
/** HAProxy waits for a body only as far as its buffer goes, and then answers while it still comes. */
const BODY_BYTES_MAX: Partial<Record<OriginName, number>> = { haproxy: 1_000 };
/** Node knows a list of methods only, and Apache treats some of its own way. */
const OTHER_METHODS = ["DELETE", "PATCH", "PURGE", "PROPFIND", "M-SEARCH", "TRACE", "REPORT"];

/**
 * Draws conversations: first one case for every cell, in an order of chance, then further ones until there are `casesMin`. The same seed draws the
 * same. `cells` picks some of the grid.
 */
export function drawConversations(
  seed: number,
  casesMin: number,
  cells: readonly Cell[] = CELLS,
): Conversation[] {
  const draw = new Draw(seed);
  const conversations: Conversation[] = [];
  let cases = 0;
  let waiting: Cell[] = [];
  while (cases < casesMin) {
    if (waiting.length === 0) waiting = draw.shuffled(cells);
    const conversation = draw.conversation(waiting.pop() as Cell);
    conversations.push(conversation);
    cases += conversation.cases.length;
  }
  return conversations;
}

/** What a recipe depends on. */
type Told = Pick<Case, "origin" | "method" | "version" | "bodyBytes" | "firstBytes"> & {
  /** It may end its connection. */
  readonly isLast: boolean;
  readonly isPipelined: boolean;
  /** By what the request says, the connection goes on after the answer. */
  readonly persists: boolean;
};

class Draw {
  readonly #random: SeededRandom;
  #nextId = 1;

  constructor(seed: number) {
    this.#random = new SeededRandom(seed);
  }

  int(below: number): number {
    return Math.floor(this.#random.next() * below);
  }

  chance(share: number): boolean {
    return this.#random.next() < share;
  }

  pick<T>(values: readonly T[]): T {
    return values[this.int(values.length)] as T;
  }

  shuffled<T>(values: readonly T[]): T[] {
    return values
      .map((value) => ({ value, at: this.#random.next() }))
      .toSorted((a, b) => a.at - b.at)
      .map(({ value }) => value);
  }

  /** The cell's case, last on its connection, behind others where the connection is used again. */
  conversation(cell: Cell): Conversation {
    const isPipelined = cell.reuse === "pipelined";
    const origin = this.pick(ORIGINS.filter((one) => this.#can(one, cell)));
    const before = cell.reuse === "single" ? 0 : 1 + this.int(2);
    const others = Array.from({ length: before }, () => this.#filler(cell, origin));
    return { origin, isPipelined, cases: [...others, this.#case(cell, nameOf(cell), origin)] };
  }

  #can(origin: OriginName, cell: Cell): boolean {
    if (!CLOSES[origin].includes(cell.close)) return false;
    // Node begins on the next request before the answer to this one is out.
    if (origin === "node" && cell.reuse === "pipelined" && cell.close === "cut") return false;
    // It refuses what some servers of HTTP/1.0 would not look for: a body of GET, HEAD or DELETE.
    const isHaproxy = origin === "haproxy" || origin === "haproxy-node";
    if (isHaproxy && cell.framing === "1.0" && cell.size !== "empty") return false;
    return (
      (BODY_BYTES_MAX[origin] ?? Infinity) >= { empty: 0, small: 1000, buffer: 8_000, large: 1e9 }[cell.size]
    );
  }

  /** An ordinary request that leaves the connection as it was. */
  #filler(cell: Cell, origin: OriginName): Case {
    const method = this.pick(["GET", "HEAD", "POST", "PUT"] as const);
    const framing =
      method === "GET" || method === "HEAD" ? "none" : this.pick(["length", "chunked"] as const);
    const size = framing === "none" ? "empty" : "small";
    const oddity = this.pick(["plain", "names", "values", "target"] as const);
    return this.#case({ ...cell, method, framing, size, oddity, close: "none" }, "", origin);
  }

  #case(cell: Cell, name: string, origin: OriginName): Case {
    const id = this.#nextId++;
    const version = cell.framing === "1.0" ? "1.0" : "1.1";
    const bodyBytes = this.#bodyBytes(cell, origin);
    // TRACE may not have a body (RFC 9110 §9.3.8), and of CONNECT other tests tell.
    // Apache answers it with what it was sent, l5d-client-id included.
    const others =
      bodyBytes > 0 || origin === "apache" ? OTHER_METHODS.filter((one) => one !== "TRACE") : OTHER_METHODS;
    const method = cell.method === "other" ? this.pick(others) : cell.method;
    const framing =
      cell.framing === "expect"
        ? this.pick(["length", "chunked"] as const)
        : cell.framing === "1.0"
          ? cell.size === "empty" && this.chance(0.5)
            ? "none"
            : "length"
          : cell.framing;
    const trailers = framing === "chunked" && this.chance(0.5) ? drawTrailers(this) : [];
    const firstBytes = this.#firstBytes(cell, bodyBytes);
    const isLast = name !== "";
    const isPipelined = cell.reuse === "pipelined";
    const connection = this.#connection(cell, version, isLast);
    const persists = version === "1.1" ? connection === null : connection !== null;
    const answer = TOLD.has(origin)
      ? this.#recipe(cell, { origin, method, version, bodyBytes, firstBytes, isLast, isPipelined, persists })
      : null;
    const fields: Field[] = [["Host", "origin.test"]];
    if (answer !== null) fields.push([ANSWER_FIELD, inAscii(answer)]);
    // Before what else Connection may name: Python looks at the first such field only.
    if (connection !== null) fields.push(["Connection", connection]);
    fields.push(...drawFields(this, cell.oddity, origin));
    if (framing === "length")
      fields.push([this.pick(["Content-Length", "content-length"]), String(bodyBytes)]);
    if (framing === "chunked")
      fields.push([this.pick(["Transfer-Encoding", "transfer-encoding"]), "chunked"]);
    if (trailers.length > 0) fields.push(["Trailer", trailers.map(([each]) => each).join(", ")]);
    if (cell.framing === "expect") fields.push(["Expect", this.pick(["100-continue", "100-Continue"])]);
    return {
      id,
      cell: name,
      origin,
      method,
      target: drawTarget(this, cell.oddity, origin, method),
      version,
      fields,
      framing,
      bodyBytes,
      firstBytes,
      trailers,
      expects: cell.framing === "expect",
      answer,
      close: cell.close,
    };
  }

  #connection({ reuse }: Cell, version: Case["version"], isLast: boolean): string | null {
    if (version === "1.0")
      return reuse !== "single" || this.chance(0.3) ? this.pick(["keep-alive", "Keep-Alive"]) : null;
    return reuse === "single" || (isLast && this.chance(0.2)) ? this.pick(["close", "Close"]) : null;
  }

  #bodyBytes({ size }: Cell, origin: OriginName): number {
    const most = BODY_BYTES_MAX[origin] ?? Infinity;
    switch (size) {
      case "empty":
        return 0;
      case "small":
        return 1 + this.int(1000);
      case "buffer":
        return Math.min(most, this.pick([4_096, 16_384, 32_768, 65_535, 65_536]) - 2 + this.int(5));
      case "large":
        return 100_000 + this.int(300_000);
    }
  }

  /** What is sent before the client waits. Little enough for the origin to have read it all when it closes. */
  #firstBytes(cell: Cell, bodyBytes: number): number {
    if (cell.close === "early") return cell.framing === "expect" ? 0 : Math.min(this.int(bodyBytes), 8_000);
    if (cell.close === "gone" && cell.framing !== "1.0") return Math.min(this.int(bodyBytes), 8_000);
    return bodyBytes;
  }

  #recipe(cell: Cell, one: Told): Recipe {
    const { method, version, bodyBytes, firstBytes: after } = one;
    const base = this.#answer(one);
    const goesOn = one.persists && base.framing !== "close" && base.version !== "1.0";
    switch (cell.close) {
      case "none":
      case "half":
        return base;
      case "early":
        return {
          ...base,
          // Small enough for the client's socket: a server that closes on what it has not read takes the rest of its answer back.
          bytes: Math.min(base.bytes, 10_000),
          early: { after, next: goesOn && this.chance(0.6) ? "keep" : "close" },
        };
      case "gone":
        // While the request is still sent, or, where an interim answer cannot tell that it arrived, in mid-answer.
        return version === "1.1" && bodyBytes > 0
          ? { ...base, interim: [103], hold: "interim", early: { after, next: "close" } }
          : { status: 200, framing: "length", bytes: 1000, hold: 1 + this.int(900) };
      case "cut": {
        // A reset would take the answers with it that are still under way.
        const by = cell.reuse === "pipelined" ? "end" : this.pick(["end", "reset"] as const);
        if (method === "HEAD" || this.chance(0.2)) return { ...base, cut: { after: -1, by } };
        // A body without a length that is merely ended is complete.
        const framing = by === "end" && base.framing === "close" ? "length" : base.framing;
        const bytes = Math.max(base.bytes, 1000);
        return { ...base, status: 200, framing, bytes, cut: { after: 1 + this.int(900), by } };
      }
    }
  }

  #answer({ origin, version, isLast, isPipelined }: Told): Recipe {
    // Small enough to be at the client before the answer behind it is cut: a reset takes back what is still under way.
    const bytesMax = isPipelined && !isLast ? 8_000 : Infinity;
    const status = this.pick([
      200, 200, 200, 200, 201, 202, 203, 204, 206, 302, 304, 307, 400, 404, 410, 429, 500, 503, 599,
    ]);
    const mayClose = isLast && (origin === "node" || origin === "bytes" || origin === "python");
    const framings: Recipe["framing"][] = version === "1.1" ? ["length", "chunked"] : ["length"];
    if (mayClose) framings.push("close");
    const framing = status === 204 ? "none" : this.pick(framings);
    const sizes = [0, 1, this.int(1000), this.int(1000), this.int(20_000), 65_536, this.int(200_000)];
    const bytes = status === 204 ? 0 : Math.min(this.pick(sizes), bytesMax);
    const trailers =
      framing === "chunked" && origin !== "python" && this.chance(0.4) ? drawTrailers(this) : undefined;
    // HAProxy 2.6 loses the end of a long answer behind interim ones, at times.
    // Node writes those of a pipelined request into the answer before.
    const mayHint = origin !== "haproxy-node" && !(origin === "node" && isPipelined);
    const interim =
      version === "1.1" && mayHint && this.chance(0.15) ? this.pick([[103], [102], [103, 103]]) : undefined;
    const fields = this.chance(0.6)
      ? drawFields(this, this.pick(["names", "values", "many"] as const), origin)
      : undefined;
    const reason =
      origin !== "go" && origin !== "haproxy-node" && this.chance(0.3)
        ? this.pick(["Quite Fine", "non-standard; (reason)", "Sch\u00c3\u00b6n"])
        : undefined;
    return {
      status,
      framing,
      bytes,
      ...(reason === undefined ? {} : { reason }),
      ...(trailers === undefined ? {} : { trailers }),
      ...(interim === undefined ? {} : { interim }),
      ...(fields === undefined ? {} : { fields }),
      ...(origin === "bytes" && framing !== "chunked" && this.chance(0.1) && isLast
        ? { version: "1.0" as const }
        : {}),
    };
  }
}

/** JSON as a field's value. */
function inAscii(value: unknown): string {
  return JSON.stringify(value).replace(
    /[^\x20-\x7e]/g,
    (character) => `\\u${character.charCodeAt(0).toString(16).padStart(4, "0")}`,
  );
}
