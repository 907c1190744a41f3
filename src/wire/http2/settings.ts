import { FRAME_BYTES_DEFAULT } from "./frame.ts";

/** What an `Http2Connection` is told. Everything has a default but the role. */
export interface Http2Settings {
  role: "client" | "server";

  /** DATA that the remote may send on one stream before we have consumed any; grows with need (see `WindowTuner`). */
  streamWindowBytes: number;
  /** How far that may grow; no effect below `streamWindowBytes`, nor above half of `connectionWindowBytes`. */
  streamWindowBytesMost: number;
  /**
   * How far all streams' windows together may grow beyond where they began. Where the connection's window has room for that and for all
   * windows as they begin, no stream that nobody reads can stall another.
   */
  windowGrowthBytesMost: number;
  /**
   * The same for the whole connection, at least 65,535 (RFC 9113 §6.9.2: it cannot begin lower): all DATA that a peer can make
   * one connection hold. Many times a stream's, so that streams that nobody reads leave room for the others.
   */
  connectionWindowBytes: number;
  /** Streams that the remote may have open; more are refused with REFUSED_STREAM. Server only. */
  maxConcurrentStreams: number;
  /** Largest frame that we accept, 16,384 to 2^24 - 1. */
  maxFrameBytes: number;
  /** Largest frame that we send, if the remote takes it. Larger ones let one stream hold up the others for longer. */
  sendFrameBytesMost: number;
  /** Bytes given to `sendData` are the machine's from then on, so that long ones leave without a copy. Then take `takeOutputs`. */
  passesData: boolean;
  /** Largest decoded header list that we accept (RFC 9113 §6.5.2: name + value + 32 each). Over it: 431 or a reset. */
  headerBytesMax: number;
  /** Further fields of the 431, in lower case: who refuses, and why. Server only. */
  tooLargeFields: () => readonly string[];
  /** Size of the HPACK tables, ours and at most of theirs. */
  hpackTableBytes: number;
  /** Whether header text goes out Huffman-coded. Off: on one network the time is dearer than the bytes. */
  hpackHuffman: boolean;
  /** Advertise extended CONNECT (RFC 8441). Server only. */
  connectProtocol: boolean;

  /** Output that is queued and not taken; `sendData` accepts nothing above it. */
  outputBytesMax: number;
  /** Own PING after so long without hearing anything while streams are open; 0 = never. */
  pingIntervalMs: number;
  /** … while none is. */
  pingIdleIntervalMs: number;
  /** How long its answer may take before the connection counts as dead. */
  pingTimeoutMs: number;

  /** Largest encoded header block, CONTINUATION included; over it the connection ends (VU#421644). */
  headerBlockBytesMax: number;
  /** CONTINUATION frames in one header block. */
  continuationFramesMax: number;
  /** Entries in one SETTINGS frame. */
  settingsEntriesMax: number;

  /** How many frames of a kind a peer may send beyond what time and useful frames give back (see `FloodBudget`). */
  pingBurst: number;
  settingsBurst: number;
  /** DATA frames without data and without END_STREAM. */
  emptyDataBurst: number;
  priorityBurst: number;
  /** RST_STREAM by the client, and resets that its violations made us send (CVE-2023-44487, CVE-2025-8671). Server only. */
  resetBurst: number;
  windowUpdateBurst: number;
  /** Frames of unknown types, and frames for streams that the remote itself ended. */
  unknownFrameBurst: number;
  /** What each of those budgets regains in a second: a rate that hurts nobody, where attacks send a hundred times it. */
  floodRefillPerSecond: number;
}

export const HTTP2_DEFAULTS: Omit<Http2Settings, "role"> = {
  streamWindowBytes: 256 * 1024,
  streamWindowBytesMost: 4 * 1024 * 1024,
  windowGrowthBytesMost: Infinity,
  connectionWindowBytes: 16 * 1024 * 1024,
  maxConcurrentStreams: 1024,
  maxFrameBytes: FRAME_BYTES_DEFAULT,
  sendFrameBytesMost: FRAME_BYTES_DEFAULT,
  passesData: false,
  headerBytesMax: 65536,
  tooLargeFields: () => [],
  hpackTableBytes: 4096,
  hpackHuffman: false,
  connectProtocol: true,
  outputBytesMax: 256 * 1024,
  pingIntervalMs: 0,
  pingIdleIntervalMs: 0,
  pingTimeoutMs: 3000,
  headerBlockBytesMax: 128 * 1024,
  continuationFramesMax: 32,
  settingsEntriesMax: 64,
  pingBurst: 1000,
  settingsBurst: 100,
  emptyDataBurst: 1000,
  priorityBurst: 2000,
  resetBurst: 1000,
  windowUpdateBurst: 10_000,
  unknownFrameBurst: 1000,
  floodRefillPerSecond: 1000,
};
