import type { Clock } from "#/base/clock.ts";
import type { Fields } from "#/base/fields.ts";
import type { AccessDecision } from "#/model/access.ts";
import type { InboundPolicy } from "#/model/policy.ts";
import { ruleOf } from "#/model/policy.ts";
import type { ClaimedService } from "../access/claimed-service.ts";
import type { AccessClient } from "../access/client.ts";
import { accessRulesOf } from "../access/decide.ts";
import { judged } from "../access/judged.ts";
import type { InboundContext, InboundPort } from "../discovery.ts";
import type { HttpService, RequestHead, RequestSink, ResponseSink } from "../http/exchange.ts";
import { SPENT } from "../http/exchange.ts";
import type { Fault } from "../http/fault.ts";
import { fault } from "../http/fault.ts";
import { PendingRequest } from "../http/pending-request.ts";
import { Request } from "../http/translate.ts";
import { isLoopback } from "../networks.ts";
import type { ClaimFields } from "./claim-fields.ts";
import { findToken } from "./find-token.ts";
import type { PortTokens } from "./port-tokens.ts";
import type { TokenRefusal, TokenVerdict, VerifiedToken } from "./token-verifier.ts";

export interface TokenLayerParts {
  readonly clock: Clock;
  /** By the port's policy of this moment; null where it says nothing of tokens. */
  readonly tokensOf: (port: InboundPort) => PortTokens | null;
  readonly refused: (port: InboundPort, reason: TokenRefusal) => void;
}

/** How long a request may wait for its token: keys are at hand, so only the first has more to wait for than one signature. */
const WAIT_MS = 5_000;

/**
 * Verifies the token of each request where the port's policy asks for it, before anybody asks who may. A token that is not good is refused,
 * whether or not one is needed; what the mesh says of tokens cannot be said by a client.
 */
export class TokenLayer implements HttpService {
  readonly #inner: ClaimedService;
  readonly #context: InboundContext;
  readonly #parts: TokenLayerParts;
  #policy: InboundPolicy | null = null;
  #tokens: PortTokens | null = null;
  /** Whether this client's requests need one. */
  #needs: AccessClient | null = null;
  /** By the fields that came, what was passed on for them; null while a token is being verified. */
  readonly #passed = new WeakMap<Fields, Passed | null>();

  constructor(inner: ClaimedService, context: InboundContext, parts: TokenLayerParts) {
    this.#inner = inner;
    this.#context = context;
    this.#parts = parts;
  }

  call(head: RequestHead, last: boolean, reply: ResponseSink): RequestSink {
    if (this.#context.port.policy !== this.#policy) this.#adopt();
    const tokens = this.#tokens;
    if (tokens === null || this.#needs === null) return this.#inner.call(head, last, reply, null);
    return this.#look(tokens, this.#needs, head, last, reply);
  }

  /** By the token that let it in, also where that has expired since. */
  recheck(head: RequestHead): Fault | null {
    if (this.#context.port.policy !== this.#policy) this.#adopt();
    const tokens = this.#tokens;
    const passed = this.#passed.get(head.fields);
    // It is looked at anew when its token is known.
    if (passed === null) return null;
    if (tokens === null || this.#needs === null) return this.#inner.recheck(head, null);
    const { request, token } = passed ?? { request: head, token: null };
    const cause =
      token === null
        ? this.#lacking(tokens, this.#needs.decide(judged(request), null))
        : this.#distrusted(tokens, token);
    return cause === null
      ? this.#inner.recheck(request, token?.claims ?? null)
      : { ...cause, message: `${cause.message} (the policy changed)` };
  }

  #adopt(): void {
    const { port, client, peer } = this.#context;
    this.#policy = port.policy;
    // What the pod says to itself is nobody's business.
    const tokens = isLoopback(client.ip) ? null : this.#parts.tokensOf(port);
    this.#tokens = tokens;
    this.#needs = tokens === null ? null : accessRulesOf(tokens.needs).clientOf(client.ip, peer);
  }

  #look(
    tokens: PortTokens,
    needs: AccessClient,
    head: RequestHead,
    last: boolean,
    reply: ResponseSink,
  ): RequestSink {
    const need = needs.decide(judged(head), null);
    const request = needs.path === head.path ? head : new Request({ ...head, path: needs.path });
    const found = findToken(head.fields, tokens.headers);
    if (found.kind === "none" || need.verdict === "ambiguous") {
      const cause = this.#lacking(tokens, need);
      if (cause === null) return this.#pass(tokens, null, null, request, last, reply);
      reply.fail(cause);
      return SPENT;
    }
    if (found.kind === "problem")
      return this.#refuse(tokens, "malformed", `the token is refused: ${found.problem}`, reply);
    const known = tokens.verifier.known(found.token);
    if (known !== null) return this.#take(tokens, known, found.header, request, last, reply);
    return this.#wait(tokens, found.token, found.header, request, last, reply);
  }

  /** Why a request without a token goes no further; null: it needs none. */
  #lacking(tokens: PortTokens, { verdict, reason }: AccessDecision): Fault | null {
    if (verdict === "allowed") return null;
    const rule = ruleOf(tokens.policy.source);
    if (verdict === "ambiguous") return fault("AMBIGUOUS_PATH", reason, { rule });
    this.#parts.refused(this.#context.port, "missing");
    const why = `the request carries no token, and needs one of ${issuersOf(tokens)}`;
    // RFC 6750 §3.1: who has sent no token is told of no error.
    return {
      ...fault("TOKEN_MISSING", why, { rule }),
      answerFields: ["www-authenticate", `Bearer realm="${REALM}"`],
    };
  }

  /** Why a token that was good is no longer; null: its issuer is still one of the policy's. */
  #distrusted(tokens: PortTokens, { issuer: { issuer } }: VerifiedToken): Fault | null {
    if (tokens.policy.issuers.some((each) => each.issuer === issuer)) return null;
    return this.#refusal(
      tokens,
      "issuer",
      `the token is refused: its issuer, ${issuer}, is no longer ${issuersOf(tokens)}`,
    );
  }

  /** The body that comes meanwhile is kept, and bounded by the client's window. */
  #wait(
    tokens: PortTokens,
    token: string,
    header: string,
    head: RequestHead,
    last: boolean,
    reply: ResponseSink,
  ): RequestSink {
    const pending = new PendingRequest(reply);
    const policy = this.#policy;
    // An equal request before it, which shares the fields, may be under way.
    if (!this.#passed.has(head.fields)) this.#passed.set(head.fields, null);
    const check = tokens.verifier.verify(token, (verdict) =>
      pending.proceed((answer) =>
        this.#context.port.policy === policy
          ? this.#judge(tokens, verdict, header, head, last, answer)
          : this.call(head, last, answer),
      ),
    );
    const timer = this.#parts.clock.after(WAIT_MS, () =>
      pending.fail(fault("OVERLOADED", `the token could not be verified in ${WAIT_MS} ms`, { safe: true })),
    );
    pending.onLeft = () => {
      timer.cancel();
      check.cancel();
      if (this.#passed.get(head.fields) === null) this.#passed.delete(head.fields);
    };
    return pending;
  }

  #judge(
    tokens: PortTokens,
    verdict: TokenVerdict,
    header: string,
    head: RequestHead,
    last: boolean,
    reply: ResponseSink,
  ): RequestSink {
    if (verdict.kind === "verified") return this.#take(tokens, verdict.token, header, head, last, reply);
    if (verdict.kind === "refused") return this.#refuse(tokens, verdict.reason, verdict.detail, reply);
    reply.fail(
      fault("OVERLOADED", "as many new tokens are being verified as may be at once", { safe: true }),
    );
    return SPENT;
  }

  #take(
    tokens: PortTokens,
    token: VerifiedToken,
    header: string,
    head: RequestHead,
    last: boolean,
    reply: ResponseSink,
  ): RequestSink {
    if (!token.issuer.headers.includes(header))
      return this.#refuse(
        tokens,
        "header",
        `the token is refused: those of ${token.issuer.issuer} are not taken from ${header}`,
        reply,
      );
    return this.#pass(tokens, token, header, head, last, reply);
  }

  #pass(
    { claimFields }: PortTokens,
    token: VerifiedToken | null,
    header: string | null,
    head: RequestHead,
    last: boolean,
    reply: ResponseSink,
  ): RequestSink {
    const fields = claimFields.passedOn(head.fields, token, header);
    const request = fields === head.fields ? head : new Request({ ...head, fields });
    this.#passed.set(head.fields, { request, token });
    const sink = this.#inner.call(request, last, reply, token?.claims ?? null);
    return last || claimFields.isEmpty ? sink : new GuardedTrailers(sink, claimFields);
  }

  #refuse(tokens: PortTokens, reason: TokenRefusal, detail: string, reply: ResponseSink): RequestSink {
    reply.fail(this.#refusal(tokens, reason, detail));
    return SPENT;
  }

  /** RFC 6750 §3.1. */
  #refusal(tokens: PortTokens, reason: TokenRefusal, detail: string): Fault {
    this.#parts.refused(this.#context.port, reason);
    const said = `error="invalid_token", error_description="${DESCRIPTIONS[reason]}"`;
    return {
      ...fault("TOKEN_INVALID", detail, { rule: ruleOf(tokens.policy.source) }),
      answerFields: ["www-authenticate", `Bearer realm="${REALM}", ${said}`],
    };
  }
}

/** What went on of a request, and by which token; null: by none. */
interface Passed {
  readonly request: RequestHead;
  readonly token: VerifiedToken | null;
}

const REALM = "mesh";

/** What the client's library is told; the answer's line says more. RFC 6750 §3: printable ASCII without `"` and `\`. */
const DESCRIPTIONS: Readonly<Record<TokenRefusal, string>> = {
  missing: "a token is needed",
  malformed: "it is not one signed JSON Web Token",
  issuer: "it is of no issuer that is known here",
  algorithm: "its algorithm is not taken",
  key: "its key is not one of the issuer's",
  signature: "its signature does not hold",
  audience: "it is for another audience",
  expired: "it has expired",
  not_yet: "it does not hold yet",
  claims: "its claims are not complete",
  header: "it is not taken from this header",
};

function issuersOf({ policy }: PortTokens): string {
  return policy.issuers.map(({ issuer }) => issuer).join(" or ");
}

/** The body as it is; of the trailers only what a client may say. */
class GuardedTrailers implements RequestSink {
  readonly #sink: RequestSink;
  readonly #claimFields: ClaimFields;

  constructor(sink: RequestSink, claimFields: ClaimFields) {
    this.#sink = sink;
    this.#claimFields = claimFields;
  }

  data(bytes: Uint8Array, start: number, stop: number): void {
    this.#sink.data(bytes, start, stop);
  }

  end(trailers: Fields | null): void {
    this.#sink.end(this.#claimFields.trailers(trailers));
  }

  abort(cause: Parameters<RequestSink["abort"]>[0]): void {
    this.#sink.abort(cause);
  }

  responseConsumed(bytes: number): void {
    this.#sink.responseConsumed(bytes);
  }
}
