/**
 * HTTP/1 judged by llhttp's own tests (Markdown): for each, what we tell of the bytes and whether we refuse them, beside what
 * llhttp tells in its strict mode. A difference must be in the table below, with its reason, and be of the kind that
 * the table says; a new one is a failure, and so is one that went away.
 *
 * The corpus' tests of lenient modes have no strict verdict in them: for those, Node's llhttp says what strict mode makes of them.
 */
import { byNode } from "#/wire/http1/llhttp-testing.ts";
import { Event, Http1Reader } from "#/wire/http1/reader.ts";
import { latin1, latin1Bytes } from "#/wire/latin1.ts";
import { readCases, type Case, type Message, type Outcome } from "./cases.ts";

/** `stricter`: we refuse what llhttp takes. */
const STRICTER: Readonly<Record<string, string>> = {
  "request/finish.md: It should be unsafe to finish after incomplete PUT request":
    "RFC 9112 §8: the connection ended inside a message; llhttp leaves that to its caller",
  "request/finish.md: It should be unsafe to finish inside of the header":
    "RFC 9112 §8: the connection ended inside a message; llhttp leaves that to its caller",
  "request/method.md: CONNECT with body": "RFC 9110 §9.3.6: content of CONNECT has no meaning",
  "request/method.md: PRI request HTTP2":
    "RFC 9113 §3.4: the beginning of HTTP/2's preface is no request of HTTP/1.1, whoever offers it",
  "request/method.md: SOURCE request with ICE": "not HTTP",
  "request/method.md: OPTIONS request with RTSP": "not HTTP",
  "request/method.md: ANNOUNCE request with RTSP": "not HTTP",
  "request/sample.md: No HTTP version": "HTTP/0.9 has no fields, so nothing can be decided about it",
  "request/transfer-encoding.md: POST with `chunked` as last transfer-encoding":
    "RFC 9112 §6.1: a transfer coding that we do not know; and a fragment in the target",
  "request/transfer-encoding.md: POST with `chunked` as last transfer-encoding (multiple headers)":
    "RFC 9112 §6.1: a transfer coding that we do not know; and a fragment in the target",
  "request/uri.md: `host:port` and basic auth":
    "RFC 9110 §4.2.4: a user's name in an http URI is an error; peers differ on the host in it",
  "request/uri.md: Fragment in URI":
    "RFC 9112 §3.2: no form of a target has a fragment, and peers differ on it",
  "response/sample.md: RTSP response": "not HTTP",
  "response/sample.md: ICE response": "not HTTP",
  "response/sample.md: HTTP version 0.9": "RFC 9112 §2.3: a status line is never HTTP/0.9",
  "response/transfer-encoding.md: `chunked` before other transfer-encoding":
    "RFC 9112 §6.1: a transfer coding that we do not know, and chunked is not last",
  "response/transfer-encoding.md: multiple transfer-encoding where chunked is not the last one":
    "RFC 9112 §6.1: a transfer coding that we do not know, and chunked is not last",
  "response/transfer-encoding.md: `chunkedchunked` transfer-encoding does not enable chunked enconding":
    "RFC 9112 §6.1: a transfer coding that we do not know",
};

/** Neither: not a verdict about the bytes' grammar. */
const OTHERWISE: Readonly<Record<string, string>> = {
  "request/content-length.md: Content-Length reset when no body is received":
    "an option of llhttp's caller; a request's own length says whether content follows (RFC 9112 §6.3)",
  "request/invalid.md: HTTP protocol and ANNOUNCE method":
    "RFC 9110 §9.1: any token is a method, for the server to know; llhttp has a closed list",
  "request/invalid.md: Invalid method":
    "RFC 9110 §9.1: any token is a method, for the server to know; llhttp has a closed list",
};

/** Cases in the corpus that we know: fewer means that its form changed and nothing was judged. */
const CASES_MIN = 250;

export interface Http1Verdict {
  readonly cases: number;
  readonly equal: number;
  /** One line a difference that the tables hold. */
  readonly stricter: readonly string[];
  readonly otherwise: readonly string[];
  readonly problems: readonly string[];
}

export function judgeHttp1(): Http1Verdict {
  const verdict = { cases: 0, equal: 0, stricter: [] as string[], otherwise: [] as string[] };
  const problems: string[] = [];
  const left = new Set([...Object.keys(STRICTER), ...Object.keys(OTHERWISE)]);
  for (const each of readCases()) {
    verdict.cases++;
    const wanted = each.isLenient ? strictOutcome(each) : each.wanted;
    const ours = ourOutcome(each, wanted);
    const isListed = left.delete(each.name);
    if (isSame(each, wanted, ours)) {
      verdict.equal++;
      if (isListed) problems.push(`${each.name}: agrees now, take it out of the table`);
      continue;
    }
    const isStricter = ours.error !== null && !wanted.refused;
    const reason = (isStricter ? STRICTER : OTHERWISE)[each.name];
    if (reason !== undefined)
      (isStricter ? verdict.stricter : verdict.otherwise).push(`${each.name}: ${reason}`);
    else
      problems.push(
        `${each.name}: ${isStricter ? "stricter, and" : "wider or otherwise different, and"} not in the table\n${show(each, wanted, ours)}`,
      );
  }
  for (const name of left) problems.push(`${name}: in the table, but not in the corpus`);
  if (verdict.cases < CASES_MIN) problems.push(`only ${verdict.cases} cases were found`);
  return { ...verdict, problems };
}

function isSame(each: Case, wanted: Outcome, ours: Outcome): boolean {
  if (wanted.refused !== (ours.error !== null)) return false;
  const theirs = comparable(wanted.messages, each.isEnded);
  // Where both refuse, how much of the last message each had told before does not matter.
  const told = wanted.refused ? theirs.slice(0, -1) : theirs;
  const ourTold = comparable(ours.messages, each.isEnded).slice(0, told.length);
  return JSON.stringify(ourTold) === JSON.stringify(told);
}

function show(each: Case, wanted: Outcome, ours: Outcome): string {
  const input = latin1(each.input, 0, each.input.length);
  return `${input}\n  llhttp: ${JSON.stringify(wanted)}\n  ours: ${JSON.stringify(ours)}`;
}

/** What strict llhttp, Node's, makes of the input of a test of a lenient mode. */
function strictOutcome(each: Case): Outcome {
  const { messages, error } = byNode(each.input, each.role);
  const isRefused =
    error !== null &&
    !["HPE_CLOSED_CONNECTION", "HPE_PAUSED_UPGRADE", "HPE_PAUSED_H2_UPGRADE"].includes(error);
  return { messages, error, refused: isRefused };
}

function ourOutcome(each: Case, wanted: Outcome): Outcome {
  const outcome: Outcome = { messages: [], error: null, refused: false };
  // Host is llhttp's caller's concern.
  const reader = new Http1Reader({ role: each.role, hostRequired: false });
  if (each.role === "response")
    for (let i = 0; i < 8; i++) reader.responseTo(each.skipsBody ? "HEAD" : "GET");
  reader.feed(each.input);
  if (each.isEnded) reader.end();
  drain(reader, each, outcome);
  // We judge fields when the head is whole, llhttp one by one.
  if (wanted.refused && outcome.error === null) {
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
