/** llhttp's own tests: Markdown with an input, and the log of what llhttp tells of it. */
import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { corpusFolder } from "../corpora.ts";

export interface Message {
  start: string;
  fields: string[];
  body: string;
  complete: boolean;
}

/** What a parser made of the input. */
export interface Outcome {
  messages: Message[];
  error: string | null;
  refused: boolean;
}

export interface Case {
  readonly name: string;
  readonly role: "request" | "response";
  readonly input: Uint8Array;
  /** A test of a lenient mode: `wanted` is not what strict mode makes of the input. */
  readonly isLenient: boolean;
  /** The transport ends after the input. */
  readonly isEnded: boolean;
  /** llhttp's caller says that there is no content, as for an answer to HEAD. */
  readonly skipsBody: boolean;
  readonly wanted: Outcome;
}

export function readCases(): Case[] {
  const cases: Case[] = [];
  for (const role of ["request", "response"] as const) {
    const folder = join(corpusFolder("http1"), role);
    for (const file of readdirSync(folder).filter((name) => name.endsWith(".md"))) {
      const text = readFileSync(join(folder, file), "utf8");
      const pattern = /^(#+ .*)$|<!-- meta=(\{.*?\}) -->\s*```http\n([^]*?)```[^]*?```log\n([^]*?)```/gm;
      let title = "";
      for (const [, heading, meta, input, log] of text.matchAll(pattern)) {
        if (heading !== undefined) title = `${role}/${file}: ${heading.replace(/^#+ /, "")}`;
        if (meta === undefined || input === undefined || log === undefined) continue;
        const { type, skipBody } = JSON.parse(meta) as { type: string; skipBody?: boolean };
        const earlier = cases.filter(({ name }) => name === title || name.startsWith(`${title} #`)).length;
        cases.push({
          name: earlier === 0 ? title : `${title} #${earlier + 1}`,
          role,
          input: inputBytes(input),
          isLenient: type.includes("lenient"),
          isEnded: type.endsWith("-finish"),
          skipsBody: skipBody === true,
          wanted: outcomeOf(log, role),
        });
      }
    }
  }
  return cases;
}

/** As llhttp's runner reads it. */
function inputBytes(block: string): Uint8Array {
  const text = block
    .replace(/\n$/, "")
    .replaceAll(/\\\n/g, "")
    .replaceAll("\n", "\r\n")
    .replaceAll("\\r", "\r")
    .replaceAll("\\n", "\n")
    .replaceAll("\\t", "\t")
    .replaceAll("\\f", "\f")
    .replaceAll(/\\x([0-9a-fA-F]+)/g, (_, digits: string) =>
      String.fromCharCode(Number.parseInt(digits, 16)),
    );
  return new Uint8Array(Buffer.from(text, "utf8"));
}

function outcomeOf(log: string, role: string): Outcome {
  const outcome: Outcome = { messages: [], error: null, refused: false };
  let message: Message | null = null;
  for (const line of log.split("\n")) {
    const text = line.replace(/^off=\d+ /, "");
    const span = /^len=\d+ span\[(\w+)\]=(.*)$/.exec(text);
    if (text === "message begin") message = { start: "", fields: [], body: "", complete: false };
    else if (span !== null && message !== null) takeSpan(message, span[1] ?? "", spanText(span[2] ?? ""));
    else if (text === "header_field complete") message?.fields.push("");
    else if (text.startsWith("headers complete") && message !== null) {
      const status = /status=(\d+)/.exec(text)?.[1] ?? "";
      if (role === "response") message.start = `${status} ${message.start}`;
      outcome.messages.push(message);
    } else if (text === "message complete" && message !== null) message.complete = true;
    else if (text.startsWith("error code=")) outcome.error = text;
  }
  // 21 to 23 tell the caller that the protocol changes here. 5 is about bytes after the end, which we throw away unread.
  outcome.refused = outcome.error !== null && !/code=(?:5|21|22|23) /.test(outcome.error);
  return outcome;
}

function spanText(quoted: string): string {
  if (quoted === "cr") return "\r";
  if (quoted === "lf") return "\n";
  return Buffer.from(quoted.slice(1, -1), "utf8").toString("latin1");
}

function takeSpan(message: Message, kind: string, text: string): void {
  const last = message.fields.length - 1;
  if (kind === "method") message.start += text;
  else if (kind === "url") message.start += ` ${text}`;
  else if (kind === "status") message.start += text;
  else if (kind === "body") message.body += text;
  else if (kind === "header_field") {
    if (message.fields.length % 2 === 0) message.fields.push(text);
    else message.fields[last] += text;
  } else if (kind === "header_value") message.fields[last] += text;
}
