/**
 * Transcripts: a conversation with one protocol machine, written in Markdown so that it reads as a specification.
 *
 * A file `x.md` is run on the machine that `x.machine.ts` exports as `makeMachine`. Each `## ` heading begins a case;
 * its fenced blocks are played in order:
 *
 *     ```machine   words for makeMachine, such as a role and `name=value` settings; at most one, first
 *     ```in        bytes for the machine, see `parseBytes`, or lines that the machine's `parseLine` knows
 *     ```do        commands, one a line; `end` is the end of the transport
 *     ```out       what must have come out since the block before: events, then `> …` for what the machine sent
 *
 * Each case runs twice: with every `in` block fed at once, and byte by byte. Both must say the same.
 */

/** An event of a machine. Events with a `body` are joined when the same `text` follows, up to one that `isLast`. */
export interface TranscriptEvent {
  readonly text: string;
  readonly body?: string;
  readonly isLast?: boolean;
}

/** A machine as transcripts see it. */
export interface TranscriptMachine {
  feed(bytes: Uint8Array): void;
  end(): void;
  /** Everything that happened since the last call. */
  events(): TranscriptEvent[];
  /** What the machine wrote since the last call, one line a piece. */
  sent(): string[];
  /** A line of a `do` block other than `end`. */
  command?(line: string): void;
  /** A line of an `in` block in the machine's own notation; null when it is none. */
  parseLine?(line: string): Uint8Array | null;
}

export type MakeMachine = (words: readonly string[]) => TranscriptMachine;

export interface Block {
  readonly kind: string;
  readonly lines: readonly string[];
  /** Line of the opening fence in the file. */
  readonly line: number;
}

export interface Case {
  readonly title: string;
  readonly blocks: readonly Block[];
}

export function parseTranscript(markdown: string): Case[] {
  const cases: { title: string; blocks: Block[] }[] = [];
  let open: { kind: string; lines: string[]; line: number } | null = null;
  for (const [index, line] of markdown.split("\n").entries()) {
    if (line.startsWith("```")) {
      if (open !== null) {
        cases.at(-1)?.blocks.push(open);
        open = null;
      } else open = { kind: line.slice(3).trim(), lines: [], line: index + 1 };
    } else if (open !== null) open.lines.push(line);
    else if (line.startsWith("## ")) cases.push({ title: line.slice(3).trim(), blocks: [] });
  }
  if (open !== null) throw new Error(`block opened in line ${open.line} is never closed`);
  return cases;
}

/**
 * Bytes as text: hex digits in pairs, and strings in double quotes with JSON's escapes (\u00ff is one byte); a string
 * may be repeated, as in `"a" * 1000`. White space separates, `#` begins a comment.
 */
export function parseBytes(line: string): Buffer {
  const parts: Buffer[] = [];
  let rest = line.trim();
  while (rest !== "" && !rest.startsWith("#")) {
    const match =
      /^("(?:[^"\\]|\\.)*")(?:\s*\*\s*(\d+))?/.exec(rest) ??
      /^((?:[0-9a-f]{2})+)(?:\s*\*\s*(\d+))?(?=\s|$)/i.exec(rest);
    if (match === null) throw new Error(`neither hex nor a string: ${rest}`);
    const token = match[1]!;
    const bytes = token.startsWith('"')
      ? Buffer.from(JSON.parse(token) as string, "latin1")
      : Buffer.from(token, "hex");
    for (let count = Number(match[2] ?? "1"); count > 0; count--) parts.push(bytes);
    rest = rest.slice(match[0].length).trim();
  }
  return Buffer.concat(parts);
}

/** What one case says at each of its `out` blocks. `stepBytes` is how much is fed at a time. */
export function play(each: Case, makeMachine: MakeMachine, stepBytes: number): string[][] {
  const [first] = each.blocks;
  const words =
    first?.kind === "machine"
      ? first.lines
          .join(" ")
          .split(/\s+/)
          .filter((word) => word !== "")
      : [];
  const machine = makeMachine(words);
  const heard: string[][] = [];
  let events: TranscriptEvent[] = [];
  let sent: string[] = [];
  const drain = (): void => {
    events.push(...machine.events());
    sent.push(...machine.sent());
  };
  drain();
  for (const block of each.blocks) {
    if (block.kind === "in") {
      const bytes = Buffer.concat(block.lines.map((line) => machine.parseLine?.(line) ?? parseBytes(line)));
      for (let at = 0; at < bytes.length; at += stepBytes) {
        // A copy, so that a machine that reads beside its bytes is caught.
        machine.feed(Uint8Array.from(bytes.subarray(at, at + stepBytes)));
        drain();
      }
    } else if (block.kind === "do") {
      for (const line of block.lines) {
        if (line.trim() === "") continue;
        if (line.trim() === "end") machine.end();
        else if (machine.command === undefined) throw new Error(`this machine has no commands: ${line}`);
        else machine.command(line.trim());
        drain();
      }
    } else if (block.kind === "out") {
      heard.push([...joinEvents(events), ...sent.map((line) => `> ${line}`)]);
      events = [];
      sent = [];
    }
  }
  const rest = [...joinEvents(events), ...sent.map((line) => `> ${line}`)];
  if (rest.length > 0) heard.push(rest);
  return heard;
}

/** What the case expects at each of its `out` blocks. */
export function expected(each: Case): string[][] {
  return each.blocks
    .filter((block) => block.kind === "out")
    .map((block) => block.lines.map((line) => line.trim()).filter((line) => line !== ""));
}

/** One line an event, bodies that follow each other joined. */
export function joinEvents(events: readonly TranscriptEvent[]): string[] {
  const joined: { text: string; body: string | null; isLast: boolean }[] = [];
  for (const event of events) {
    const before = joined.at(-1);
    const isLast = event.isLast ?? false;
    if (
      before !== undefined &&
      before.body !== null &&
      !before.isLast &&
      event.body !== undefined &&
      before.text === event.text
    ) {
      before.body += event.body;
      before.isLast = isLast;
    } else joined.push({ text: event.text, body: event.body ?? null, isLast });
  }
  return joined.map(
    ({ text, body, isLast }) =>
      `${text}${body === null ? "" : ` ${JSON.stringify(body)}`}${isLast ? " end" : ""}`,
  );
}
