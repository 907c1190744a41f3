import { CASES as HTTP1 } from "./http1.ts";
import { CASES as HTTP2 } from "./http2.ts";
import type { MachineCase } from "./machine-case.ts";
import { CASES as SIDECAR } from "./sidecar.ts";
import { CASES as STREAMS } from "./streams.ts";

/**
 * Everything that is measured without sockets, by the file that has it: timed by `bench/machines.ts`, counted by
 * `bench/gate.ts`.
 */
export const GROUPS: Readonly<Record<string, readonly MachineCase[]>> = {
  http1: HTTP1,
  http2: HTTP2,
  sidecar: SIDECAR,
  streams: STREAMS,
};
