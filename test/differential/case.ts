/** What is asked, what the origin is to answer, and what both ends then saw. */
export type Field = [name: string, value: string];

export const ORIGINS = [
  "node",
  "bytes",
  "python",
  "go",
  "nginx",
  "apache",
  "haproxy",
  "haproxy-node",
] as const;
export type OriginName = (typeof ORIGINS)[number];

/** Those that tell in their answers which target and which Host they were asked. */
export const ECHOES: ReadonlySet<OriginName> = new Set(["nginx", "haproxy"]);

/** The ports of the origins, in the server's namespace. */
export const PORTS: Readonly<Record<OriginName, number>> = {
  node: 8101,
  bytes: 8102,
  python: 8103,
  go: 8104,
  nginx: 8105,
  apache: 8106,
  haproxy: 8107,
  "haproxy-node": 8108,
};

/** Names the case to the origin, and which of the two runs a request belongs to. As long in both, so that nothing else differs. */
export const CASE_FIELD = "X-Case";
export const RUN_FIELD = "X-Run";
/** What a program of ours is to answer: a `Recipe` as JSON. */
export const ANSWER_FIELD = "X-Answer";
export type Run = "direct" | "meshed";

/** An answer as the origins of our own are told to give it. What is left out takes its default. */
export interface Recipe {
  readonly status: number;
  readonly reason?: string;
  readonly framing: "length" | "chunked" | "close" | "none";
  readonly bytes: number;
  readonly fields?: readonly Field[];
  /** Interim answers before it, each with one `Link` field. */
  readonly interim?: readonly number[];
  readonly trailers?: readonly Field[];
  /** Do not wait for the whole body: act when so many bytes of it have come. Then read the rest (`keep`), or close. */
  readonly early?: { readonly after: number; readonly next: "keep" | "close" };
  /** Break off after so many bytes of the body, or inside the head (-1). */
  readonly cut?: { readonly after: number; readonly by: "end" | "reset" };
  /** Send the interim answers, or also the head and so many bytes of the body, and wait for the client to go away. */
  readonly hold?: "interim" | number;
  /** HTTP/1.0 on the status line, as a server of that version answers. */
  readonly version?: "1.0";
}

export interface Case {
  readonly id: number;
  /** The cell of the grid that it is drawn for, or "" for one that only keeps a connection busy before it. */
  readonly cell: string;
  readonly origin: OriginName;
  readonly method: string;
  readonly target: string;
  readonly version: "1.0" | "1.1";
  /** In the order they are sent, framing fields included. */
  readonly fields: readonly Field[];
  readonly framing: "none" | "length" | "chunked";
  readonly bodyBytes: number;
  /** So much of the body is sent before the client waits for something: all of it, mostly. */
  readonly firstBytes: number;
  readonly trailers: readonly Field[];
  /** The client waits for 100 (Continue). */
  readonly expects: boolean;
  readonly answer: Recipe | null;
  readonly close: "none" | "half" | "gone" | "early" | "cut";
}

/** A client that goes away does so by RST or by FIN, in turns. */
export function leavesByReset({ id }: Case): boolean {
  return id % 2 === 0;
}

/** Cases on one connection, for as long as it lasts. */
export interface Conversation {
  readonly origin: OriginName;
  readonly isPipelined: boolean;
  readonly cases: readonly Case[];
}

export interface ResponseHead {
  readonly line: string;
  readonly fields: readonly Field[];
}

export interface BodySeen {
  readonly bytes: number;
  readonly sha1: string;
}

/** What the client saw of one case. */
export interface Exchange {
  readonly id: number;
  interim: ResponseHead[];
  head: ResponseHead | null;
  framing: "none" | "length" | "chunked" | "close";
  body: BodySeen;
  /** The body of an origin that echoes, where it is short enough to be kept; else null. */
  echo: string | null;
  trailers: readonly Field[];
  /** How the answer ended: in full, or what broke it. */
  end: "complete" | "cut" | "left" | "no time" | `malformed: ${string}`;
  /** How a connection that ended did so. */
  closed: "end" | "reset" | null;
  /** The connection can take another request, by what the answer said. */
  isPersistent: boolean;
}

/** What the origin saw of one request. Null is what this origin cannot tell. */
export interface Arrival {
  readonly id: number;
  readonly run: Run;
  readonly method: string;
  readonly target: string;
  readonly version: string | null;
  readonly fields: readonly Field[];
  readonly body: BodySeen | null;
  readonly trailers: readonly Field[] | null;
  /** The request came in full, or the client went away before or while it was answered. */
  readonly end: "complete" | "cut" | "left" | null;
}

/** A prime, so that no whole number of pages or frames can go missing unseen. */
const PERIOD_BYTES = 65_521;
const PATTERN = Buffer.from(
  Array.from({ length: PERIOD_BYTES }, (_, i) => (i * i * 31 + i * 7 + (i >> 8)) & 255),
);

/** The body of a case, told apart from every other's. The origins in Python and Go make the same. */
export function bodyOf(id: number, bytes: number): Buffer {
  const body = Buffer.alloc(bytes);
  let from = (id * 97) % PERIOD_BYTES;
  for (let at = 0; at < bytes; from = 0) at += PATTERN.copy(body, at, from, PERIOD_BYTES);
  return body;
}

/** What an `X-Answer` field asks for. A proxy that damages it gets 500, and the run goes on. */
export function recipeOf(text: string): Recipe {
  try {
    return JSON.parse(text) as Recipe;
  } catch {
    return { status: 500, framing: "length", bytes: 0 };
  }
}
