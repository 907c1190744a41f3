import type { Clock } from "#/base/clock.ts";

/** By this a program asks for a trace of one request. It is for the sidecar and goes no further. */
export const DEBUG_FIELD = "x-pillion-debug";
/** The trace, in the answer to who asked. */
export const TRACE_FIELD = "x-pillion-trace";

type Value = string | number | boolean;

interface Member {
  readonly kind: string;
  readonly parameters: [name: string, value: Value][];
  /** Of an attempt that is under way; -1 otherwise. */
  startedAtMs: number;
}

/** Longer traces end with the member `truncated`; what came first is kept. */
export const TRACE_CHARS_MAX = 4_096;
const MEMBERS_MAX = 48;
const TEXT_CHARS_MAX = 240;

/**
 * What really happened to one request, step by step: a List of RFC 9651 whose members are steps, with parameters.
 *
 *     client;workload="web-0.shop", route;policy="HTTPRoute/shop/cart";rule=2, attempt;n=1;endpoint="10.0.0.7:8080";took=3.1;status=200
 *
 * Written by the layers that a request passes, each with one look at whether there is one.
 */
export class RequestTrace {
  readonly #clock: Clock;
  readonly #startedAtMs: number;
  readonly #members: (Member | string)[] = [];
  #attempts = 0;
  #under: Member | null = null;

  constructor(clock: Clock) {
    this.#clock = clock;
    this.#startedAtMs = clock.nowMs();
  }

  /** Parameters that are "" or false are left out. */
  add(kind: string, parameters: readonly (readonly [name: string, value: Value])[]): void {
    this.#push(kind, parameters);
  }

  /** The request goes to an endpoint. One attempt is under way at a time: a further one ends it. */
  attempt(parameters: readonly (readonly [name: string, value: Value])[]): void {
    if (this.#under !== null) this.ended("another-took-over", "");
    const nowMs = this.#clock.nowMs();
    this.#attempts++;
    const at = nowMs - this.#startedAtMs;
    this.#under = this.#push("attempt", [["n", this.#attempts], ["at", at], ...parameters]);
    if (this.#under !== null) this.#under.startedAtMs = nowMs;
  }

  /** The attempt under way has its answer's head, or none will come: a fault's code, and its words. */
  ended(outcome: number | string, why: string): void {
    const under = this.#under;
    if (under === null) return;
    this.#under = null;
    under.parameters.push(["took", this.#clock.nowMs() - under.startedAtMs]);
    under.parameters.push(typeof outcome === "number" ? ["status", outcome] : ["failed", outcome]);
    if (why !== "") under.parameters.push(["why", why]);
  }

  /** What the far sidecar says of its part, as it came; null: nothing. */
  far(text: string | null): void {
    if (text !== null && text !== "" && this.#members.length < MEMBERS_MAX)
      this.#members.push(printable(text, TRACE_CHARS_MAX / 2));
  }

  get text(): string {
    let text = "";
    for (const member of this.#members) {
      const part = typeof member === "string" ? member : memberText(member);
      // Room for the separators and the last word.
      if (text.length + part.length > TRACE_CHARS_MAX - 16) return `${text}, truncated`;
      text += text === "" ? part : `, ${part}`;
    }
    return this.#members.length < MEMBERS_MAX ? text : `${text}, truncated`;
  }

  #push(kind: string, parameters: readonly (readonly [name: string, value: Value])[]): Member | null {
    if (this.#members.length >= MEMBERS_MAX) return null;
    const said = parameters.filter(([, value]) => value !== "" && value !== false);
    const member: Member = { kind, parameters: said.map(([name, value]) => [name, value]), startedAtMs: -1 };
    this.#members.push(member);
    return member;
  }
}

/** RFC 9651 §4.1: a token, and parameters with bare items for values. */
function memberText({ kind, parameters }: Member): string {
  return (
    kind +
    parameters.map(([name, value]) => `;${name}${value === true ? "" : `=${itemText(value)}`}`).join("")
  );
}

function itemText(value: Value): string {
  // §4.1.5: at most three digits after the point.
  if (typeof value === "number") return String(Math.round(value * 1000) / 1000);
  return `"${printable(String(value), TEXT_CHARS_MAX).replace(/["\\]/g, "\\$&")}"`;
}

function printable(text: string, charsMax: number): string {
  return text.slice(0, charsMax).replace(/[^\x20-\x7e]/g, "?");
}
