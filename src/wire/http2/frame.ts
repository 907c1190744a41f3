/** Frame types (RFC 9113 §6, RFC 9218 §7.1). */
export const Frame = {
  DATA: 0x0,
  HEADERS: 0x1,
  PRIORITY: 0x2,
  RST_STREAM: 0x3,
  SETTINGS: 0x4,
  PUSH_PROMISE: 0x5,
  PING: 0x6,
  GOAWAY: 0x7,
  WINDOW_UPDATE: 0x8,
  CONTINUATION: 0x9,
  PRIORITY_UPDATE: 0x10,
} as const;

/** Frame flags. */
export const Flag = { END_STREAM: 0x1, ACK: 0x1, END_HEADERS: 0x4, PADDED: 0x8, PRIORITY: 0x20 } as const;

/** Settings (RFC 9113 §6.5.2, RFC 8441 §3). */
export const Setting = {
  SETTINGS_HEADER_TABLE_SIZE: 0x1,
  SETTINGS_ENABLE_PUSH: 0x2,
  SETTINGS_MAX_CONCURRENT_STREAMS: 0x3,
  SETTINGS_INITIAL_WINDOW_SIZE: 0x4,
  SETTINGS_MAX_FRAME_SIZE: 0x5,
  SETTINGS_MAX_HEADER_LIST_SIZE: 0x6,
  SETTINGS_ENABLE_CONNECT_PROTOCOL: 0x8,
} as const;

/** Error codes of RST_STREAM and GOAWAY (RFC 9113 §7). */
export const ErrorCode = {
  NO_ERROR: 0x0,
  PROTOCOL_ERROR: 0x1,
  INTERNAL_ERROR: 0x2,
  FLOW_CONTROL_ERROR: 0x3,
  SETTINGS_TIMEOUT: 0x4,
  STREAM_CLOSED: 0x5,
  FRAME_SIZE_ERROR: 0x6,
  REFUSED_STREAM: 0x7,
  CANCEL: 0x8,
  COMPRESSION_ERROR: 0x9,
  CONNECT_ERROR: 0xa,
  ENHANCE_YOUR_CALM: 0xb,
  INADEQUATE_SECURITY: 0xc,
  HTTP_1_1_REQUIRED: 0xd,
} as const;

/** Name of an error code as the RFC spells it; unknown ones as hex. */
export function errorCodeName(code: number): string {
  return ERROR_NAMES[code] ?? `0x${code.toString(16)}`;
}

export const FRAME_HEAD_BYTES = 9;
/** RFC 9113 §6.5.2: the initial and smallest SETTINGS_MAX_FRAME_SIZE. */
export const FRAME_BYTES_DEFAULT = 16384;
export const FRAME_BYTES_MOST = 2 ** 24 - 1;
/** RFC 9113 §6.9.2: the initial window of a stream and of the connection. */
export const WINDOW_BYTES_DEFAULT = 65535;
/** RFC 9113 §6.9.1. */
export const WINDOW_BYTES_MOST = 2 ** 31 - 1;
export const STREAM_ID_MOST = 2 ** 31 - 1;

/** RFC 9113 §3.4: what a client sends before its SETTINGS. */
export const CLIENT_PREFACE: Buffer = Buffer.from("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", "latin1");

const ERROR_NAMES: readonly string[] = Object.keys(ErrorCode);
