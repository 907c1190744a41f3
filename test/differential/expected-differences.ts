import { leavesByReset, type Case, type Exchange } from "./case.ts";
import type { Difference } from "./compare.ts";

export interface ExpectedDifference {
  readonly name: string;
  /** Why it is so, and why that does no harm. */
  readonly why: string;
  /** The case, the difference, and what the client saw without and with the mesh. */
  matches(one: Case, difference: Difference, direct: Exchange, meshed: Exchange): boolean;
}

/**
 * All that may differ through the mesh. A whole run fails on a difference that is not here, and on a line here that no case
 * needs any more. The first line that matches explains a difference.
 */
export const EXPECTED_DIFFERENCES: readonly ExpectedDifference[] = [
  {
    name: "an application that ends inside its head becomes 502",
    why: "A sidecar that has accepted the request has to say something; it says that the application broke off, and where (RFC 9110 §15.6.3).",
    matches: ({ close }, { what }, direct, meshed) =>
      close === "cut" &&
      direct.head === null &&
      statusOf(meshed) === "502" &&
      (what === "answer" || what === "end of the answer"),
  },
  {
    name: "a cut answer ends with RST",
    why: "An answer that breaks off must not pass for a whole one, so the sidecar resets where the application only closed. That takes back what of earlier, pipelined answers is still under way, so the run keeps those small.",
    matches: (_one, { what, direct, meshed }) =>
      what === "end of the answer" && direct === "cut by FIN" && meshed === "cut by RST",
  },
  {
    name: "the client's connection outlives the application's",
    why: "Persistence belongs to one hop (RFC 9112 §9.3): the sidecar takes another connection to the application for the next request.",
    matches: (_one, { what, direct, meshed }) =>
      what === "persistence" && direct.startsWith("closes") && meshed === "stays open",
  },
  {
    name: "after a client's half-close the answer says close",
    why: "No further request can come, so the sidecar closes behind the answer and says so; applications often wait.",
    matches: ({ close }, { what, meshed }) =>
      close === "half" && what === "persistence" && meshed.startsWith("closes"),
  },
  {
    name: "a client that asked to close is told so",
    why: "RFC 9112 §9.6: a server that is asked to close should say close. Some close without a word.",
    matches: (_one, { what, direct, meshed }) =>
      what === "persistence" && direct === "stays open, ended by FIN" && meshed === "closes, ended by FIN",
  },
  {
    name: "an answer instead of 100 (Continue) closes",
    why: "Whether the client now sends its body is open (RFC 9110 §10.1.1), so what follows could be read in two ways.",
    matches: ({ expects }, { what, meshed }) =>
      expects && what === "persistence" && meshed.startsWith("closes"),
  },
  {
    name: "a client that leaves with FIN in mid-answer is noticed later",
    why: "FIN is also what a client sends that wants the answer and has nothing more to ask. The sidecar learns which when it next writes to it; RST it passes on at once.",
    matches: (one, { what, direct, meshed }) =>
      leavesUnnoticed(one) && what === "arrivals" && direct === "1" && meshed === "0",
  },
  {
    name: "an absolute target's authority replaces Host",
    why: "RFC 9112 §3.2.2: two names must not travel together, or two servers could believe different ones.",
    matches: (one, { what }) =>
      isAbsolute(one) &&
      (what === "request field host" ||
        (ECHOES.has(one.origin) && (what === "body" || what === "field content-length"))),
  },
  {
    name: "an absolute target is written in its normal form",
    why: "RFC 9110 §4.2.3: the scheme in lower case and an empty path as / mean the same.",
    matches: (one, { what }) => isAbsolute(one) && what === "request target",
  },
];

/** Closes without a reset while it is answered. */
export function leavesUnnoticed(one: Case): boolean {
  return one.close === "gone" && typeof one.answer?.hold === "number" && !leavesByReset(one);
}

/** Origins that tell in their body what they were asked. */
const ECHOES: ReadonlySet<string> = new Set(["nginx", "haproxy", "apache"]);

function isAbsolute({ target }: Case): boolean {
  return /^http:/i.test(target);
}

function statusOf({ head }: Exchange): string {
  return head?.line.split(" ")[1] ?? "none";
}
