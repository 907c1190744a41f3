import type { Clock } from "#/base/clock.ts";
import type { Fields } from "#/base/fields.ts";
import { keepNeverIndexed } from "#/base/fields.ts";
import type { HttpService, RequestHead, RequestSink, ResponseHead, ResponseSink } from "../http/exchange.ts";
import { PassedReply } from "../http/exchange.ts";
import type { Fault } from "../http/fault.ts";
import { FAR_TRACE_FIELD } from "../http/field-names.ts";
import { Request } from "../http/translate.ts";
import { RequestTrace, TRACE_FIELD } from "./request-trace.ts";

export interface TraceLayerParts {
  readonly clock: Clock;
  /**
   * Whose wish counts: `client`: the workload's own program asks, and the answer has the trace. `server`: another of our sidecars asks,
   * proven by its certificate, and gets what happened here to join to its own.
   */
  readonly side: "client" | "server";
  /** "pod.namespace". */
  readonly workload: string;
}

/**
 * Gives a request that asks for it a trace, and its answer what was traced. Stands before all other layers, and only where the workload's
 * settings allow it: elsewhere nobody looks at what was asked.
 */
export class TraceLayer implements HttpService {
  readonly #inner: HttpService;
  readonly #parts: TraceLayerParts;
  readonly #asker: RequestHead["asksTrace"];

  constructor(inner: HttpService, parts: TraceLayerParts) {
    this.#inner = inner;
    this.#parts = parts;
    this.#asker = parts.side === "client" ? "program" : "sidecar";
  }

  call(head: RequestHead, last: boolean, reply: ResponseSink): RequestSink {
    if (head.asksTrace !== this.#asker) return this.#inner.call(head, last, reply);
    const { clock, side, workload } = this.#parts;
    const trace = new RequestTrace(clock);
    trace.add(side, [["workload", workload]]);
    // Equal requests share a head; each has a way of its own.
    const traced = new Request({ ...head, trace });
    return this.#inner.call(traced, last, new TracedReply(reply, trace, side));
  }

  recheck(head: RequestHead): Fault | null {
    return this.#inner.recheck?.(head) ?? null;
  }
}

class TracedReply extends PassedReply {
  readonly #trace: RequestTrace;
  readonly #side: TraceLayerParts["side"];

  constructor(reply: ResponseSink, trace: RequestTrace, side: TraceLayerParts["side"]) {
    super(reply);
    this.#trace = trace;
    this.#side = side;
  }

  override head(head: ResponseHead, last: boolean): void {
    const { text } = this.#trace;
    if (this.#side === "server") {
      this.reply.head({ ...head, trace: text }, last);
      return;
    }
    const fields: Fields = [];
    // Whoever else says what happened here is not believed.
    for (let i = 0; i < head.fields.length; i += 2)
      if ((head.fields[i] as string).toLowerCase() !== TRACE_FIELD)
        fields.push(head.fields[i] as string, head.fields[i + 1] as string);
    fields.push(TRACE_FIELD, text);
    keepNeverIndexed(head.fields, fields);
    this.reply.head({ ...head, fields }, last);
  }

  override fail(cause: Fault): void {
    const { code, message, rule, explanation } = cause;
    this.#trace.ended(code, explanation?.line ?? message);
    this.#trace.add("refused", [
      ["code", code],
      ["rule", rule],
      ["why", explanation?.line ?? message],
    ]);
    const name = this.#side === "server" ? FAR_TRACE_FIELD : TRACE_FIELD;
    this.reply.fail({ ...cause, answerFields: [name, this.#trace.text] });
  }
}
