import type { Http1ReaderSettings } from "#/wire/http1/reader.ts";
import { FIELDS_CEILING } from "#/wire/http1/head.ts";
import type { Http2Settings } from "#/wire/http2/settings.ts";
import { LIMITS } from "#/model/limits.ts";
import { SPELLING_BYTES_MAX } from "./spelling.ts";

export type HeadProtocol = "http/1" | "http/2";
export type HeadMessage = "request" | "response" | "trailers";

/**
 * The one bound on a head, the same for request line, fields and trailers, both versions and both directions: as RFC 9113
 * §6.5.2 counts it, 32 bytes for each field beside its characters.
 *
 * Between sidecars there is room on top for what sidecars add, so that a head which one of them took is not refused by the other.
 */
export class HeadBound {
  readonly bytesMax: number;
  readonly #refused: (protocol: HeadProtocol, message: HeadMessage, times: number) => void;

  constructor(
    bytesMax: number,
    refused: (protocol: HeadProtocol, message: HeadMessage, times: number) => void = () => {},
  ) {
    this.bytesMax = bytesMax;
    this.#refused = refused;
  }

  refused(protocol: HeadProtocol, message: HeadMessage, times = 1): void {
    this.#refused(protocol, message, times);
  }

  /** `meshed`: the far side is another sidecar. */
  http1(
    meshed: boolean,
  ): Pick<Http1ReaderSettings, "headBytesMax" | "trailerBytesMax" | "listBytesMax" | "fieldsMax"> {
    const bytesMax = this.#bytesMax(meshed);
    return {
      headBytesMax: bytesMax,
      trailerBytesMax: bytesMax,
      listBytesMax: bytesMax,
      fieldsMax: FIELDS_CEILING,
    };
  }

  http2(meshed: boolean): Pick<Http2Settings, "headerBytesMax" | "headerBlockBytesMax"> {
    const headerBytesMax = this.#bytesMax(meshed);
    // Coded text is hardly ever longer than what it says; a list over its bound is still answered up to here.
    return { headerBytesMax, headerBlockBytesMax: headerBytesMax + BLOCK_SLACK_BYTES };
  }

  #bytesMax(meshed: boolean): number {
    return this.bytesMax + (meshed ? MESH_BYTES : 0);
  }
}

/** `l5d-orig-head`, and as much again for the version, who asks, and why an answer is the mesh's. */
const MESH_BYTES = 2 * SPELLING_BYTES_MAX;
const BLOCK_SLACK_BYTES = 65_536;

/** At the default, counted by nobody. */
export const HEAD_BOUND: HeadBound = new HeadBound(LIMITS.headBytesMax);
