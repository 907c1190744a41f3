import type { Http2Settings } from "#/wire/http2/settings.ts";

/** Streams that one carrier takes, with those that have ended and hold bytes for a reader: a client that needs more opens another. */
export const STREAMS_MAX = 256;
const STREAM_WINDOW_BYTES = 64 * 1024;
const GROWTH_BYTES = 16 * 1024 * 1024;
/** What one read of a socket gives goes into one frame, so that what arrives comes in as few pieces as TLS allows. */
const FRAME_BYTES = 128 * 1024;
/** A CONNECT's head has some 60 bytes. */
const HEAD_BYTES_MAX = 4096;

/**
 * Both ends of a carrier. All streams' windows together, grown or not, fit the connection's: a stream that nobody reads takes room from
 * no other. So 32 MiB are what one carrier can make each side hold, 128 KiB for each of its streams.
 *
 * A stream may end by a reset as often as a connection may: one reset costs its sender as much as it costs us. The budgets are there for a
 * peer that has gone wild.
 */
export const CARRIER_MACHINE: Partial<Http2Settings> = {
  maxConcurrentStreams: STREAMS_MAX,
  streamWindowBytes: STREAM_WINDOW_BYTES,
  streamWindowBytesMost: 4 * 1024 * 1024,
  windowGrowthBytesMost: GROWTH_BYTES,
  connectionWindowBytes: STREAMS_MAX * STREAM_WINDOW_BYTES + GROWTH_BYTES,
  maxFrameBytes: FRAME_BYTES,
  sendFrameBytesMost: FRAME_BYTES,
  passesData: true,
  headerBytesMax: HEAD_BYTES_MAX,
  headerBlockBytesMax: 2 * HEAD_BYTES_MAX,
  connectProtocol: false,
  resetBurst: 20_000,
  windowUpdateBurst: 20_000,
  unknownFrameBurst: 20_000,
  floodRefillPerSecond: 10_000,
};
