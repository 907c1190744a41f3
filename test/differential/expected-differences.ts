import { ECHOES, leavesByReset, type Case, type Exchange } from "./case.ts";
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
    matches: (one, { what, direct, meshed }) => {
      const to = absolute(one);
      return (
        to !== null &&
        what === "request field host" &&
        direct === `"${hostOf(one)}"` &&
        meshed === `"${to.authority}"`
      );
    },
  },
  {
    name: "an absolute target is written in its normal form",
    why: "RFC 9110 §4.2.3: the scheme in lower case and, but for OPTIONS, an empty path as / mean the same.",
    matches: (one, { what, direct, meshed }) =>
      what === "request target" && direct === one.target && meshed === absolute(one)?.target,
  },
  {
    name: "an answer that tells of its request tells of these two",
    why: "nginx and HAProxy are told to answer with what they were asked. Nothing else in the answer may differ.",
    matches: (one, { what, direct, meshed }, { echo: asked }, { echo }) => {
      const to = absolute(one);
      if (to === null || !ECHOES.has(one.origin)) return false;
      const host = hostOf(one);
      if (what === "body") {
        const [before, after] = [`${one.method} ${one.target} `, `${one.method} ${to.target} `];
        if (asked === null || !asked.startsWith(before)) return false;
        // nginx begins its second line with Host; HAProxy writes every field, with encoded line ends.
        const rest = asked
          .slice(before.length)
          .replace(/(\n|%0D%0Ahost: )([^ %]+)/, (all, lead: string, value: string) =>
            value === host ? lead + to.authority : all,
          );
        return echo === after + rest;
      }
      const grownBytes = to.target.length - one.target.length + to.authority.length - host.length;
      return what === "field content-length" && quoted(meshed) - quoted(direct) === grownBytes;
    },
  },
];

/** Closes without a reset while it is answered. */
export function leavesUnnoticed(one: Case): boolean {
  return one.close === "gone" && typeof one.answer?.hold === "number" && !leavesByReset(one);
}

/** What an absolute target comes to: the authority that becomes Host, and its normal form. Null for any other target. */
function absolute({ method, target }: Case): { readonly authority: string; readonly target: string } | null {
  const [, authority, path] = /^http:\/\/([^/?]+)(.*)$/i.exec(target) ?? [];
  if (authority === undefined) return null;
  // RFC 9112 §3.2.4: OPTIONS without a path asks about the whole server, and / would not.
  const empty = method === "OPTIONS" ? "" : "/";
  return { authority, target: `http://${authority}${path || empty}` };
}

function hostOf({ fields }: Case): string {
  return fields.find(([name]) => name.toLowerCase() === "host")?.[1] ?? "";
}

/** The number in a field's value as differences write it; NaN where it is none. */
function quoted(value: string): number {
  return /^"\d+"$/.test(value) ? Number(value.slice(1, -1)) : Number.NaN;
}

function statusOf({ head }: Exchange): string {
  return head?.line.split(" ")[1] ?? "none";
}
