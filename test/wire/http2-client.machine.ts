import { makeMachine as make } from "./http2.machine.ts";
import type { TranscriptMachine } from "./transcript.ts";

/**
 * A client that has sent `POST /` on stream 1 without its body, so that both halves are open; `idle` leaves that out and
 * `raw` the opening too. What it has written until then is not shown.
 */
export function makeMachine(words: readonly string[]): TranscriptMachine {
  const settings = words.filter((word) => word !== "idle");
  const machine = make(["client", ...settings]);
  if (words.includes("raw")) return machine;
  if (!words.includes("idle")) machine.command!("request POST /");
  machine.sent();
  return machine;
}
