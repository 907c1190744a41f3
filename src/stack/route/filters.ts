import { fieldValue, keepNeverIndexed, type Fields } from "#/base/fields.ts";
import type { Random } from "#/base/random.ts";
import { egressVerdictOf } from "#/model/policy.ts";
import type { Backend, Cors, HttpFilter, Ratio } from "#/model/route.ts";
import type { RequestHead, RequestSink, ResponseHead, ResponseSink } from "../http/exchange.ts";
import { PassedReply, SPENT } from "../http/exchange.ts";
import { fault, type FaultCode } from "../http/fault.ts";
import { fieldName } from "../http/field-names.ts";
import { Request } from "../http/translate.ts";
import type { Candidate } from "./candidate.ts";
import { CORS_FIELDS, corsFields, isPreflight, preflightFields } from "./cors.ts";
import { HeaderEdit } from "./header-change.ts";
import { changedPath } from "./path-change.ts";
import { redirectFields, type Redirect } from "./redirect.ts";
import { latin1OfUtf8 } from "./text.ts";

type FilterOf<K extends HttpFilter["kind"]> = Extract<HttpFilter, { kind: K }>;

/** What filters need to know beside the request. */
export interface FilterContext {
  readonly candidate: Candidate;
  /** That the client dialled: where a redirect without a port of its own leads. */
  readonly port: number;
  readonly random: Random;
  /** Names the policy in answers. */
  readonly label: string;
}

/**
 * The filters of a rule, or of one of its backends, in the order in which they act, however they are listed:
 *
 *     CORS preflight > failure injector > redirect > injected faults > change of the request > mirror > … > change of the answer
 *
 * One per rule and client connection. Null from `filtersOf` where there is nothing to do, which is nearly always.
 */
export class Filters {
  readonly mirrors: readonly FilterOf<"mirror">[];
  readonly faults: readonly FilterOf<"fault">[];
  /** These answer whatever comes, so that no backend is needed. */
  readonly alwaysAnswer: boolean;
  /** Requests may go on later than they came. */
  readonly mayDelay: boolean;
  readonly #context: FilterContext;
  readonly #failCode: FaultCode;
  readonly #cors: Cors | null;
  readonly #fails: readonly FilterOf<"fail">[];
  readonly #redirect: Redirect | null;
  readonly #rewrites: readonly FilterOf<"rewrite">[];
  readonly #requestEdit: HeaderEdit | null;
  readonly #responseEdit: HeaderEdit | null;
  /** Equal requests of a connection share one head, and so does what became of it: all that later layers remember of it stays. */
  #lastHead: RequestHead | null = null;
  #lastChanged: RequestHead | null = null;

  constructor(filters: readonly HttpFilter[], context: FilterContext) {
    this.#context = context;
    const isEgress = egressVerdictOf(context.candidate.route.source) !== null;
    this.#failCode = isEgress ? "FORBIDDEN_TARGET" : "FAULT_INJECTED";
    this.mirrors = filters.filter((filter) => filter.kind === "mirror");
    this.faults = filters.filter((filter) => filter.kind === "fault");
    this.mayDelay = this.faults.some(({ action }) => action.kind === "delay");
    this.#cors = filters.find((filter) => filter.kind === "cors")?.cors ?? null;
    this.#fails = filters.filter((filter) => filter.kind === "fail");
    this.#redirect = filters.find((filter) => filter.kind === "redirect") ?? null;
    this.#rewrites = filters.filter((filter) => filter.kind === "rewrite");
    this.#requestEdit = editOf(filters, "request-headers");
    this.#responseEdit = editOf(filters, "response-headers");
    this.alwaysAnswer =
      this.#redirect !== null || this.#fails.some(({ ratio }) => ratio.numerator >= ratio.denominator);
  }

  /** Answers a request in the application's place. Null: it did not; the request goes on. */
  answer(head: RequestHead, last: boolean, reply: ResponseSink): RequestSink | null {
    const { candidate, label, port } = this.#context;
    if (this.#cors !== null && isPreflight(head))
      return answerWith(204, preflightFields(this.#cors, head), last, reply);
    for (const fail of this.#fails) {
      if (!this.isHit(fail.ratio)) continue;
      reply.fail(
        fault(this.#failCode, fail.message === "" ? "the route lets this request fail" : fail.message, {
          status: fail.status,
          grpcStatus: fail.grpcStatus,
          rule: label,
        }),
      );
      return SPENT;
    }
    if (this.#redirect === null) return null;
    return answerWith(
      this.#redirect.status,
      redirectFields(this.#redirect, head, candidate, port),
      last,
      reply,
    );
  }

  /** The request as it goes on. */
  change(head: RequestHead): RequestHead {
    if (this.#rewrites.length === 0 && this.#requestEdit === null) return head;
    if (head === this.#lastHead) return this.#lastChanged as RequestHead;
    const changed = this.#changed(head);
    this.#lastHead = head;
    this.#lastChanged = changed;
    return changed;
  }

  /** Where the answer is to go so that it is changed on its way. `head`: as the client sent it. */
  replyTo(head: RequestHead, reply: ResponseSink): ResponseSink {
    if (this.#cors === null && this.#responseEdit === null) return reply;
    const origin = this.#cors === null ? null : fieldValue(head.fields, "origin");
    return new ChangedReply(this.#cors, origin, this.#responseEdit, reply);
  }

  isHit({ numerator, denominator }: Ratio): boolean {
    if (denominator <= 0 || numerator <= 0) return false;
    return numerator >= denominator || this.#context.random.next() * denominator < numerator;
  }

  #changed(head: RequestHead): RequestHead {
    let { authority, fields, path } = head;
    for (const change of this.#rewrites) {
      if (change.path !== null) path = changedPath(path, change.path, this.#context.candidate);
      if (change.host !== null) {
        authority = latin1OfUtf8(change.host);
        fields = withHost(fields, authority);
      }
    }
    if (this.#requestEdit !== null) fields = this.#requestEdit.apply(fields, head.version === "2");
    return new Request({
      method: head.method,
      scheme: head.scheme,
      authority,
      path,
      version: head.version,
      absoluteForm: head.absoluteForm,
      upgrade: head.upgrade,
      fields,
      trace: head.trace ?? null,
    });
  }
}

export function filtersOf(filters: readonly HttpFilter[], context: FilterContext): Filters | null {
  return filters.length === 0 ? null : new Filters(filters, context);
}

/** All backends that filters of a list lead to. */
export function mirrorBackends(filters: readonly HttpFilter[]): Backend[] {
  return filters.flatMap((filter) => (filter.kind === "mirror" ? [filter.backend] : []));
}

function editOf(
  filters: readonly HttpFilter[],
  kind: "request-headers" | "response-headers",
): HeaderEdit | null {
  const changes = filters.flatMap((filter) =>
    (filter.kind === "request-headers" || filter.kind === "response-headers") && filter.kind === kind
      ? [filter.change]
      : [],
  );
  return changes.length === 0 ? null : new HeaderEdit(changes);
}

/** Host as HTTP/1 writes it stands where it stood; HTTP/2 has it in `:authority` alone. */
function withHost(fields: Fields, authority: string): Fields {
  const out: Fields = fields.slice();
  keepNeverIndexed(fields, out);
  for (let i = 0; i < out.length; i += 2)
    if (fieldName(out[i] as string).lower === "host") out[i + 1] = authority;
  return out;
}

/** An answer of our own without a body. */
function answerWith(status: number, fields: Fields, last: boolean, reply: ResponseSink): RequestSink {
  const sink = last ? SPENT : new Unwanted(reply);
  reply.head({ status, version: "1.1", reason: null, fields }, true);
  return sink;
}

/** A body that follows a request which is answered already. Taken up to a bound, so that the connection stays usable; then cut. */
class Unwanted implements RequestSink {
  readonly #reply: ResponseSink;
  #bytes = 0;

  constructor(reply: ResponseSink) {
    this.#reply = reply;
  }

  data(_bytes: Uint8Array, start: number, stop: number): void {
    this.#bytes += stop - start;
    if (this.#bytes <= UNWANTED_BYTES_MAX) this.#reply.requestConsumed(stop - start);
    else this.#reply.fail(fault("CANCELLED", "the rest of a body that nobody waits for"));
  }
  end(): void {}
  abort(): void {}
  responseConsumed(): void {}
}

const UNWANTED_BYTES_MAX = 1_048_576;

/** An answer on its way to the client, with its head changed. */
class ChangedReply extends PassedReply {
  readonly #cors: Cors | null;
  readonly #origin: string | null;
  readonly #edit: HeaderEdit | null;

  constructor(cors: Cors | null, origin: string | null, edit: HeaderEdit | null, reply: ResponseSink) {
    super(reply);
    this.#cors = cors;
    this.#origin = origin;
    this.#edit = edit;
  }

  override head(head: ResponseHead, last: boolean): void {
    let { fields } = head;
    if (this.#cors !== null) fields = withCors(fields, corsFields(this.#cors, this.#origin));
    if (this.#edit !== null) fields = this.#edit.apply(fields, head.version === "2");
    this.reply.head({ ...head, fields }, last);
  }
}

function withCors(fields: Fields, ours: Fields): Fields {
  const out: Fields = [];
  for (let i = 0; i < fields.length; i += 2)
    if (!CORS_FIELDS.has(fieldName(fields[i] as string).lower))
      out.push(fields[i] as string, fields[i + 1] as string);
  out.push(...ours);
  keepNeverIndexed(fields, out);
  return out;
}
