import assert from "node:assert/strict";
import { existsSync, readFileSync, readdirSync } from "node:fs";
import test from "node:test";
import { latin1, latin1Bytes } from "../latin1.ts";
import { Event, Http1Reader } from "./reader.ts";

/** llhttp's own tests (Markdown). */
const CORPUS = new URL("../../../../shared/corpora/http1/", import.meta.url);
/** Corpora are others' and no part of this repository: they lie beside the checkout, or nowhere. */
const skip = existsSync(CORPUS) ? false : `no ${CORPUS.pathname}`;

/** Where we read differently than llhttp does in its strict mode, and why. By file and title. */
const DIFFERENT: Readonly<Record<string, string>> = {
  // Stricter.
  "request/finish.md: It should be unsafe to finish after incomplete PUT request":
    "llhttp tells its caller, we refuse",
  "request/finish.md: It should be unsafe to finish inside of the header":
    "llhttp tells its caller, we refuse",
  "request/method.md: CONNECT with body": "RFC 9110 §9.3.6: content of CONNECT has no meaning",
  "request/method.md: SOURCE request with ICE": "not HTTP",
  "request/method.md: OPTIONS request with RTSP": "not HTTP",
  "request/method.md: ANNOUNCE request with RTSP": "not HTTP",
  "request/sample.md: No HTTP version": "HTTP/0.9 has no fields, so nothing can be decided about it",
  "request/transfer-encoding.md: POST with `chunked` as last transfer-encoding":
    "fragment in the target, unknown coding",
  "request/transfer-encoding.md: POST with `chunked` as last transfer-encoding (multiple headers)":
    "the same",
  "request/uri.md: Fragment in URI":
    "RFC 9112 §3.2: no form of a target has a fragment, and peers differ on it",
  "response/sample.md: RTSP response": "not HTTP",
  "response/sample.md: ICE response": "not HTTP",
  "response/sample.md: HTTP version 0.9": "RFC 9112 §2.3: a status line is never HTTP/0.9",
  "response/transfer-encoding.md: `chunked` before other transfer-encoding":
    "content in a coding that we would not pass on",
  "response/transfer-encoding.md: multiple transfer-encoding where chunked is not the last one": "the same",
  "response/transfer-encoding.md: `chunkedchunked` transfer-encoding does not enable chunked enconding":
    "the same",
  // Wider.
  "request/invalid.md: HTTP protocol and ANNOUNCE method": "RFC 9110 §9.1: any token is a method",
  "request/invalid.md: Invalid method": "RFC 9110 §9.1: any token is a method",
  "request/method.md: PRI request HTTP2": "version 1.1, so no HTTP/2 preface; refused at its second line",
};

interface Message {
  start: string;
  fields: string[];
  body: string;
  complete: boolean;
}

/** What a parser made of the input. */
interface Outcome {
  messages: Message[];
  error: string | null;
  refused: boolean;
}

interface Case {
  readonly name: string;
  readonly role: "request" | "response";
  readonly input: Uint8Array;
  readonly ended: boolean;
  readonly wanted: Outcome;
}

function casesOf(role: "request" | "response"): Case[] {
  const cases: Case[] = [];
  const folder = new URL(`${role}/`, CORPUS);
  for (const file of readdirSync(folder).filter((name) => name.endsWith(".md"))) {
    const text = readFileSync(new URL(file, folder), "utf8");
    const pattern = /^(#+ .*)$|<!-- meta=(\{.*?\}) -->\s*```http\n([^]*?)```[^]*?```log\n([^]*?)```/gm;
    let title = "";
    for (const [, heading, meta, input, log] of text.matchAll(pattern)) {
      if (heading !== undefined) title = heading.replace(/^#+ /, "");
      if (meta === undefined || input === undefined || log === undefined) continue;
      const { type, skipBody } = JSON.parse(meta) as { type: string; skipBody?: boolean };
      // Lenient modes are what we never do; skipBody is an answer to HEAD, which has its own tests.
      if (type.includes("lenient") || skipBody === true) continue;
      const name = `${role}/${file}: ${title}`;
      const ended = type.endsWith("-finish");
      cases.push({ name, role, input: inputBytes(input), ended, wanted: outcomeOf(log, role) });
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

function ourOutcome(each: Case): Outcome {
  const outcome: Outcome = { messages: [], error: null, refused: false };
  // Host is llhttp's caller's concern.
  const reader = new Http1Reader({ role: each.role, hostRequired: false });
  if (each.role === "response") for (let i = 0; i < 8; i++) reader.responseTo("GET");
  reader.feed(each.input);
  if (each.ended) reader.end();
  drain(reader, each, outcome);
  // We judge fields when the head is whole, llhttp one by one.
  if (each.wanted.refused && outcome.error === null) {
    reader.feed(latin1Bytes("\r\n"));
    drain(reader, each, outcome);
  }
  return outcome;
}

function drain(reader: Http1Reader, each: Case, outcome: Outcome): void {
  for (let kind = reader.next(); kind !== Event.NOTHING; kind = reader.next()) {
    const message = outcome.messages.at(-1);
    if (kind === Event.HEAD) {
      const start =
        each.role === "request" ? `${reader.method} ${reader.target}` : `${reader.status} ${reader.reason}`;
      const complete = each.role === "response" && reader.status < 200;
      outcome.messages.push({ start, fields: reader.fields, body: "", complete });
    } else if (message === undefined || kind === Event.ERROR) {
      outcome.error = `${reader.error?.code}: ${reader.error?.message}`;
      break;
    } else if (kind === Event.BODY) message.body += latin1(reader.bytes, reader.start, reader.stop);
    else if (kind === Event.END) {
      message.complete = true;
      message.fields.push(...(reader.trailers ?? []));
      if (reader.upgrade !== null && each.role === "request" && /code=22 /.test(each.wanted.error ?? ""))
        reader.switchToRaw();
    } else if (kind === Event.UPGRADED) message.complete = true;
  }
}
/** Field values without the blanks that llhttp leaves at their end (RFC 9112 §5.1 takes them off). */
function comparable(messages: readonly Message[], ended: boolean): unknown[] {
  return messages.map(({ start, fields, body, complete }) => ({
    start,
    fields: fields.map((field) => field.replace(/(?:[ \t]|\\t)+$/, "")),
    body,
    // At the end of the transport llhttp asks its caller whether that was the end of the message.
    complete: ended || complete,
  }));
}

for (const role of ["request", "response"] as const) {
  test(`agrees with llhttp on each ${role} of its tests, but for the listed ones`, { skip }, () => {
    const cases = casesOf(role);
    assert.ok(cases.length > 40, `only ${cases.length} cases`);
    const left = new Set(Object.keys(DIFFERENT).filter((name) => name.startsWith(`${role}/`)));
    for (const each of cases) {
      const wanted = comparable(each.wanted.messages, each.ended);
      const ours = ourOutcome(each);
      const sameError = each.wanted.refused ? ours.error !== null : ours.error === null;
      // Where both refuse, how much of the message each had told before does not matter.
      const wantedThen = each.wanted.refused ? wanted.slice(0, -1) : wanted;
      const oursThen = comparable(ours.messages, each.ended).slice(0, wantedThen.length);
      const same = sameError && JSON.stringify(oursThen) === JSON.stringify(wantedThen);
      if (same !== !left.delete(each.name)) {
        const difference = `${each.name}\n${latin1(each.input, 0, each.input.length)}\nllhttp: ${JSON.stringify(each.wanted)}`;
        assert.fail(
          `${same ? "now agrees, take it off the list" : "differs"}: ${difference}\nours: ${JSON.stringify(ours)}`,
        );
      }
    }
    assert.deepEqual([...left], [], "listed, but not in the corpus");
  });
}
