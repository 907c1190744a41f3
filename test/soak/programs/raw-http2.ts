/** HTTP/2 frames as bytes, for whoever wants to write what no library would. */

export const FrameType = {
  DATA: 0,
  HEADERS: 1,
  PRIORITY: 2,
  RST_STREAM: 3,
  SETTINGS: 4,
  PING: 6,
  WINDOW_UPDATE: 8,
  CONTINUATION: 9,
} as const;

export const PREFACE: Buffer = Buffer.from("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n");

/** `:method GET`, `:scheme http`, `:path /`, and an `:authority` that is not indexed (RFC 7541 §6). */
export const REQUEST_BLOCK: Buffer = Buffer.concat([
  Buffer.from([0x82, 0x86, 0x84, 0x01, 4]),
  Buffer.from("soak"),
]);

export function frame(type: number, flags: number, stream: number, payload: Uint8Array): Buffer {
  const bytes = Buffer.alloc(9 + payload.length);
  bytes.writeUIntBE(payload.length, 0, 3);
  bytes[3] = type;
  bytes[4] = flags;
  bytes.writeUInt32BE(stream, 5);
  bytes.set(payload, 9);
  return bytes;
}
