import { DEBUG_FIELD } from "../trace/request-trace.ts";
import { caseOf } from "./letter-case.ts";

/** What is to be done with a field on its way through. */
export const Kind = {
  PASS: 0,
  CONNECTION: 1,
  DROP: 2,
  TE: 3,
  HOST: 4,
  INTERNAL: 5,
  CONTENT_LENGTH: 6,
  UPGRADE: 7,
  TRANSFER_ENCODING: 8,
  DEBUG: 9,
} as const;
export type Kind = (typeof Kind)[keyof typeof Kind];

/** How a head was spelled over HTTP/1 (`spelling.ts`). Between two of our own sidecars only. */
export const SPELLING_FIELD = "l5d-orig-head";

/** Between two of our own sidecars only: asks for a trace, and brings what was traced there. */
export const FAR_DEBUG_FIELD = "l5d-pillion-debug";
export const FAR_TRACE_FIELD = "l5d-pillion-trace";

/** RFC 9110 §7.6.1 and the mesh's own fields, which no application may set (facts §8.2). */
const KINDS: ReadonlyMap<string, Kind> = new Map<string, Kind>([
  ["connection", Kind.CONNECTION],
  ["keep-alive", Kind.DROP],
  ["proxy-connection", Kind.DROP],
  ["transfer-encoding", Kind.TRANSFER_ENCODING],
  ["http2-settings", Kind.DROP],
  ["upgrade", Kind.UPGRADE],
  ["te", Kind.TE],
  ["host", Kind.HOST],
  ["content-length", Kind.CONTENT_LENGTH],
  ["l5d-orig-proto", Kind.INTERNAL],
  [SPELLING_FIELD, Kind.INTERNAL],
  ["l5d-client-id", Kind.INTERNAL],
  // To programs that get fields as variables (CGI, WSGI, PHP) these are the same name.
  ["l5d_client_id", Kind.INTERNAL],
  ["l5d-client_id", Kind.INTERNAL],
  ["l5d_client-id", Kind.INTERNAL],
  ["l5d-proxy-error", Kind.INTERNAL],
  ["l5d-proxy-connection", Kind.INTERNAL],
  ["l5d-dst-canonical", Kind.INTERNAL],
  [FAR_DEBUG_FIELD, Kind.INTERNAL],
  [FAR_TRACE_FIELD, Kind.INTERNAL],
  [DEBUG_FIELD, Kind.DEBUG],
]);

/** What is known of a name as somebody spelled it. */
export interface FieldName {
  /** Unlike that of any other. */
  readonly number: number;
  readonly lower: string;
  readonly kind: Kind;
  /** Its spelling, as `caseOf` has it. */
  readonly letterCase: string;
}

/**
 * Names seen, so that each is looked at once and not per request. At 1,024 names it starts afresh: a client that invents
 * names costs itself the looking and nobody memory.
 */
const seen = new Map<string, FieldName>();
const SEEN_MAX = 1_024;
/** Longer names are looked at each time: a thousand as long as a head may be would be hundreds of megabytes. */
export const NAME_KEPT_BYTES_MAX = 128;
let lastNumber = 0;

export function fieldName(name: string): FieldName {
  let known = seen.get(name);
  if (known === undefined) {
    if (seen.size >= SEEN_MAX) seen.clear();
    const lower = name.toLowerCase();
    known = { number: ++lastNumber, lower, kind: KINDS.get(lower) ?? Kind.PASS, letterCase: caseOf(name) };
    if (name.length <= NAME_KEPT_BYTES_MAX) seen.set(name, known);
  }
  return known;
}

/** Kind of a name that is in lower case, as HTTP/2 has all of them. */
export function kindOfLower(lower: string): Kind {
  return KINDS.get(lower) ?? Kind.PASS;
}

const TRANSFER_ENCODING = "transfer-encoding";

/** Cheap where it is asked of every field: most names have another length. */
export function isTransferEncoding(name: string): boolean {
  return name.length === TRANSFER_ENCODING.length && fieldName(name).lower === TRANSFER_ENCODING;
}
