import { latin1 } from "../latin1.ts";

/** Node's own parser, under `node:http`: llhttp, strict, by itself. Not documented, so only tests may use it. */
interface NodeParser {
  initialize(type: number, resource: object): void;
  execute(bytes: Uint8Array): number | (Error & { code: string });
  [callback: number]: unknown;
}
interface NodeParserClass {
  new (): NodeParser;
  readonly REQUEST: number;
  readonly RESPONSE: number;
  readonly kOnHeaders: number;
  readonly kOnHeadersComplete: number;
  readonly kOnBody: number;
  readonly kOnMessageComplete: number;
}
const name = "node:_http_common";
const { HTTPParser, methods } = (
  (await import(name)) as { default: { HTTPParser: NodeParserClass; methods: string[] } }
).default;

/** What a parser made of the input. */
export interface Outcome {
  readonly messages: { start: string; fields: string[]; body: string; complete: boolean }[];
  error: string | null;
  /** We read no further: that was the connection's last message. */
  over: boolean;
}

/** What llhttp makes of `bytes`, told as one piece. */
export function byNode(bytes: Uint8Array, role: "request" | "response"): Outcome {
  const outcome: Outcome = { messages: [], error: null, over: false };
  const parser = new HTTPParser();
  parser.initialize(role === "request" ? HTTPParser.REQUEST : HTTPParser.RESPONSE, {});
  let flushed: string[] = [];
  let url = "";
  parser[HTTPParser.kOnHeaders] = (fields: string[], target: string) => {
    flushed.push(...fields);
    url += target;
  };
  parser[HTTPParser.kOnHeadersComplete] = (
    _major: number,
    _minor: number,
    fields: string[] | undefined,
    method: number,
    target: string,
    status: number,
    reason: string,
  ) => {
    const start = role === "request" ? `${methods[method]} ${url + (target ?? "")}` : `${status} ${reason}`;
    outcome.messages.push({ start, fields: [...flushed, ...(fields ?? [])], body: "", complete: false });
    flushed = [];
    url = "";
    return 0;
  };
  parser[HTTPParser.kOnBody] = (body: Uint8Array) => {
    const last = outcome.messages.at(-1);
    if (last !== undefined) last.body += latin1(body, 0, body.length);
  };
  parser[HTTPParser.kOnMessageComplete] = () => {
    const last = outcome.messages.at(-1);
    if (last === undefined) return;
    last.complete = true;
    last.fields.push(...flushed); // trailers
    flushed = [];
    url = ""; // comes again with trailers
  };
  const result = parser.execute(Buffer.from(bytes));
  if (typeof result !== "number") outcome.error = result.code;
  return outcome;
}
