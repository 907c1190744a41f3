/** Stream states (RFC 9113 §5.1). Push is never enabled, so nothing is ever reserved. */
export const State = { IDLE: 0, OPEN: 1, HALF_CLOSED_LOCAL: 2, HALF_CLOSED_REMOTE: 3, CLOSED: 4 } as const;

/** What moves a stream. END is the END_STREAM flag of HEADERS or DATA. */
export const Input = {
  SEND_HEADERS: 0,
  RECV_HEADERS: 1,
  SEND_DATA: 2,
  RECV_DATA: 3,
  SEND_END: 4,
  RECV_END: 5,
  SEND_RST: 6,
  RECV_RST: 7,
} as const;

type Row = readonly [from: keyof typeof State, input: keyof typeof Input, to: keyof typeof State];

/** Every legal move (RFC 9113 §5.1). What is absent is illegal; the diagram in the docs is drawn from this. */
export const TRANSITIONS: readonly Row[] = [
  ["IDLE", "SEND_HEADERS", "OPEN"],
  ["IDLE", "RECV_HEADERS", "OPEN"],

  ["OPEN", "SEND_HEADERS", "OPEN"],
  ["OPEN", "RECV_HEADERS", "OPEN"],
  ["OPEN", "SEND_DATA", "OPEN"],
  ["OPEN", "RECV_DATA", "OPEN"],
  ["OPEN", "SEND_END", "HALF_CLOSED_LOCAL"],
  ["OPEN", "RECV_END", "HALF_CLOSED_REMOTE"],
  ["OPEN", "SEND_RST", "CLOSED"],
  ["OPEN", "RECV_RST", "CLOSED"],

  ["HALF_CLOSED_LOCAL", "RECV_HEADERS", "HALF_CLOSED_LOCAL"],
  ["HALF_CLOSED_LOCAL", "RECV_DATA", "HALF_CLOSED_LOCAL"],
  ["HALF_CLOSED_LOCAL", "RECV_END", "CLOSED"],
  ["HALF_CLOSED_LOCAL", "SEND_RST", "CLOSED"],
  ["HALF_CLOSED_LOCAL", "RECV_RST", "CLOSED"],

  ["HALF_CLOSED_REMOTE", "SEND_HEADERS", "HALF_CLOSED_REMOTE"],
  ["HALF_CLOSED_REMOTE", "SEND_DATA", "HALF_CLOSED_REMOTE"],
  ["HALF_CLOSED_REMOTE", "SEND_END", "CLOSED"],
  ["HALF_CLOSED_REMOTE", "SEND_RST", "CLOSED"],
  ["HALF_CLOSED_REMOTE", "RECV_RST", "CLOSED"],
];

export const ILLEGAL = 0xff;

/** The state after `input` in `from`, or ILLEGAL. */
export function nextState(from: number, input: number): number {
  return NEXT[from * INPUTS + input]!;
}

const INPUTS = 8;
const NEXT = new Uint8Array(5 * INPUTS).fill(ILLEGAL);
for (const [from, input, to] of TRANSITIONS) NEXT[State[from] * INPUTS + Input[input]] = State[to];
